"""The supervised chain's last two stages: every row embedded, unseen classes judged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

from distspectral.config import load_config
from distspectral.errors import ConfigError, TooFewClassesError
from distspectral.mapping import local_map
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline
from distspectral.stages import evaluate as retrieval
from distspectral.stages.embed_metric import load_metric
from distspectral.stages.evaluate import EVALUATE, EvaluateConfig, UnitRows, comparison, scores_of
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors, MappedVectors
from distspectral.storage.source.dataset import Source
from tests.datasets import packed
from tests.runs import write_metric_run


def points(n_classes=6, per_class=7, width=5, noise=0.7, seed=0):
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.repeat(np.arange(n_classes), per_class))
    rows = rng.standard_normal((n_classes, width))[classes] + noise * rng.standard_normal((len(classes), width))
    return (rows + 3).astype(np.float32), classes


def scores(rows, classes, spectral_step=False, **cut):
    vectors, chosen = ArrayVectors(rows), np.arange(len(rows))
    unit = UnitRows(vectors, chosen, *comparison(vectors, chosen, spectral_step))
    return scores_of(unit, classes, EvaluateConfig(device="cpu"), seed=0, **cut)


def brute_force(rows, classes):
    """Return recall by K and MAP@R from all cosines, sorted."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit.T) + 9 * np.eye(len(rows)), axis=1)[:, :-1]
    hits = classes[order] == classes[:, None]
    relevant = hits.sum(1)
    asked = relevant > 0
    recall = {str(k): hits[asked, :k].any(1).mean() for k in (1, 2, 4, 8, 10, 100)}
    precision = np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)
    average = [(precision[i] * hits[i])[:r].sum() / r for i, r in enumerate(relevant) if r]
    return recall, np.mean(average)


def test_scores_are_those_of_all_cosines_sorted():
    rows, classes = points()
    found = scores(rows, classes)
    recall, average = brute_force(rows.astype(np.float64), classes)
    assert found["recall_at"] == pytest.approx(recall)
    assert found["map_at_r"] == pytest.approx(average)
    assert 0 < found["recall_at"]["1"] < 1, "neither trivial nor hopeless, so that a wrong neighbour shows"


def test_duplicates_do_not_make_a_row_find_itself():
    rows, classes = points()
    twice, both = np.repeat(rows, 2, axis=0), np.repeat(classes, 2)
    assert scores(twice, both)["recall_at"]["1"] == 1.0, "the other copy comes first"
    others = np.arange(len(twice)) % 28  # the nearest row is a copy, of another class
    assert scores(twice, others)["recall_at"]["1"] == 0.0


def test_classes_of_one_row_are_no_queries_but_can_be_found():
    rows, classes = points()
    classes = classes.copy()
    classes[0] = classes.max() + 1
    recall, average = brute_force(rows.astype(np.float64), classes)
    found = scores(rows, classes)
    assert found["recall_at"] == pytest.approx(recall)
    assert found["map_at_r"] == pytest.approx(average)


def test_nmi_is_that_of_k_means_on_unit_rows():
    rows, classes = points(noise=0.2, per_class=20)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = normalized_mutual_info_score(classes, KMeans(6, n_init=10, random_state=0).fit_predict(unit))
    assert scores(rows, classes)["nmi"] == pytest.approx(expected, abs=0.05)  # one run of k-means beside the best of 10


def test_the_spectral_step_ignores_shifts_scales_and_mixtures_of_columns():
    rows, classes = points()
    mixed = rows @ np.random.default_rng(1).standard_normal((5, 5)) * [1, 10, 0.1, 5, 1] + 100
    expected, found = scores(rows, classes, spectral_step=True), scores(mixed.astype(np.float32), classes, True)
    assert found["recall_at"] == pytest.approx(expected["recall_at"], abs=0.03)  # float32 rounding may swap a tie
    assert scores(mixed.astype(np.float32), classes)["recall_at"]["1"] < expected["recall_at"]["1"] - 0.1
    centred = rows.astype(np.float64) - rows.astype(np.float64).mean(0)
    left = np.linalg.svd(centred, full_matrices=False)[0]
    recall, average = brute_force(left, classes)
    assert expected["recall_at"] == pytest.approx(recall)
    assert expected["map_at_r"] == pytest.approx(average)


@pytest.mark.parametrize("n_rows", [1, 5])
def test_scores_do_not_depend_on_how_queries_are_cut(n_rows):
    rows, classes = points()
    expected, cut = scores(rows, classes), scores(rows, classes, task_rows=n_rows, block_rows=n_rows + 2)
    assert cut["recall_at"] == expected["recall_at"]
    assert cut["map_at_r"] == pytest.approx(expected["map_at_r"], rel=1e-12)
    assert cut["nmi"] == expected["nmi"]


def test_too_little_to_judge_by_is_refused():
    rows, _ = points()
    with pytest.raises(TooFewClassesError, match="42 rows of 1 unseen classes"):
        scores(rows, np.zeros(42, dtype=int))
    with pytest.raises(TooFewClassesError, match="42 rows of 42 unseen classes"):
        scores(rows, np.arange(42))


# ---- the chain -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = load_config(write_metric_run(tmp_path_factory.mktemp("metric")))
    pipeline = Pipeline(config, Source.open(config.data), LocalEngine(), SilentObserver())
    pipeline.run()
    return pipeline


def test_every_row_is_embedded_with_id_and_label_kept(finished):
    source, embedded = (MappedVectors(finished.chain.artifact(stage)) for stage in ("pack", "embed"))
    assert embedded.n_rows == source.n_rows
    assert embedded.ids().equals(source.ids())
    assert embedded.labels().equals(source.labels())
    model = load_metric(finished.chain.artifact("train"), finished.recipe.trainings["train"])
    with torch.inference_mode():
        expected = model(torch.from_numpy(source.gather(np.arange(40)))).numpy()
    np.testing.assert_allclose(embedded.gather(np.arange(40)), expected, rtol=1e-5, atol=1e-6)


def test_whitened_outputs_are_those_of_the_orthonormalising_layer(finished, tmp_path):
    settings = finished.recipe.trainings["train"]
    whitened = settings.model_copy(update={"dscl": settings.dscl.model_copy(update={"whiten": True})})
    plain, white = (load_metric(finished.chain.artifact("train"), one) for one in (settings, whitened))
    rows = torch.from_numpy(MappedVectors(finished.chain.artifact("pack")).gather(np.arange(300)))
    with torch.inference_mode():
        expected = torch.linalg.solve_triangular(white.orthonormal.cholesky_factor.float(), plain(rows).T, upper=False)
        torch.testing.assert_close(white(rows), expected.T)
        gram = white(rows).T @ white(rows) / 300
    assert float((gram - torch.eye(6)).abs().max()) < 0.5, "near orthonormal over the rows"


def test_only_classes_beyond_those_learned_are_judged(finished):
    vectors, embedding = MappedVectors(finished.chain.artifact("embed")), finished.chain.artifact("embed")
    rows, classes = retrieval.unseen_rows(vectors, embedding)
    labels = np.asarray(vectors.labels())
    assert embedding.manifest().properties["last_train_class"] == 9
    assert np.array_equal(rows, np.flatnonzero(labels > 9))
    assert np.array_equal(classes, labels[rows] - 10)
    stored = finished.chain.artifact("evaluate").manifest().metrics["retrieval"]
    assert stored["recall_at"] == pytest.approx(scores(vectors.gather(rows), classes)["recall_at"])


def raw_scores(finished):
    """Return the unseen rows about the mean of all rows, and their classes."""
    vectors, embedding = finished.chain.artifact("pack"), finished.chain.artifact("embed")
    rows, classes = retrieval.unseen_rows(MappedVectors(embedding), embedding)
    raw = MappedVectors(vectors)
    return (raw.gather(rows) - raw.mean), classes


def test_rows_as_they_are_are_judged_beside_the_metric(finished):
    recall, average = brute_force(*raw_scores(finished))
    stored = finished.chain.artifact("evaluate").manifest().metrics["retrieval_of_rows"]
    assert stored["recall_at"] == pytest.approx(recall)
    assert stored["map_at_r"] == pytest.approx(average)
    assert stored["recall_at"]["1"] < 1


def test_of_many_rows_sampled_ones_ask_and_all_answer(finished, monkeypatch):
    monkeypatch.setattr(retrieval, "MOST_QUERIES", 30)
    rows, classes = raw_scores(finished)
    asked = []

    def mapper(function, items, description, *, on_gpu=False):
        asked.append(description)
        return local_map(function, items, description)

    found = retrieval.retrieval_of_rows(
        finished.chain.artifact("pack"), finished.chain.artifact("embed"), EvaluateConfig(), 3, mapper
    )
    asking = np.random.default_rng(3).permutation(len(rows))[:30]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    nearest = (unit @ unit.T - 9 * np.eye(len(rows))).argmax(1)
    assert asked == ["comparing rows"]
    assert found["recall_at"]["1"] == pytest.approx((classes[nearest] == classes)[asking].mean())


@pytest.mark.parametrize(("of_rows", "is_worse"), [(0.805, False), (0.83, True)])
def test_a_metric_worse_than_none_is_told(of_rows, is_worse):
    scores = {"recall_at": {"1": 0.8}, "nmi": 0.5, "map_at_r": 0.4}
    facts = {"retrieval": scores, "retrieval_of_rows": {"recall_at": {"1": of_rows}, "map_at_r": 0.4}}
    assert ("worse than no metric" in retrieval.rows_in_words(facts)) is is_worse
    line = EVALUATE.lines(facts)["Recall@1 of the rows as they are"]
    assert line == f"{of_rows:.4f}" + ", better than the metric" * is_worse


def test_an_evaluation_again_takes_the_runs_config_unless_told_otherwise(finished):
    embedding, evaluation = (finished.chain.artifact(stage) for stage in ("embed", "evaluate"))
    stored = evaluation.manifest().metrics["retrieval"]
    assert retrieval.evaluate_again(embedding, evaluation, None) == stored
    assert retrieval.evaluate_again(embedding, Artifact(str(evaluation.path) + "-absent"), None) == stored
    assert retrieval.evaluate_again(embedding, evaluation, True) != stored


def test_a_run_that_learns_from_all_classes_says_why_nothing_is_judged(tmp_path):
    config = load_config(write_metric_run(tmp_path, dscl={"n_components": 6, "train_classes": "all"}))
    metrics = Pipeline(config, Source.open(config.data), LocalEngine(), SilentObserver()).run()
    assert "retrieval" not in metrics["evaluate"]
    assert "hold some out with dscl.train_classes" in metrics["evaluate"]["not_evaluated"]


def test_rows_without_labels_are_refused(tmp_path):
    artifact = packed(tmp_path / "plain", np.random.default_rng(0).standard_normal((20, 12)).astype(np.float32))
    with pytest.raises(ConfigError, match=r"data\.label_column"):
        retrieval.unseen_rows(MappedVectors(artifact), artifact)
