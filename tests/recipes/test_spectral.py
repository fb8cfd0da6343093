"""What a spectral run consists of, in every variant."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from distspectral.errors import ConfigError, DistSpectralError, TooFewRowsError, TooManyClustersError
from distspectral.graph.trial import Trial
from distspectral.recipes import SpectralRecipe
from distspectral.recipes.spectral_sections import ENOUGH_VARIANCE
from tests.runs import AFTER_GRAPH

WIDE, NARROW = 40, 5
"""Features of a row: more, or fewer, than the ten numbers of a code."""
EUCLIDEAN = {"affinity": {"space": "euclidean"}}
TRAINED = ("autoencoder", "siamese", "train", "distill", "map")
CODES = ("pack", "autoencoder", "codes", "neighbors", "graph")


def recipe(dim: int = WIDE, kept_variance: float | None = None, **sections: Any) -> SpectralRecipe:
    return SpectralRecipe.model_validate({"dim": dim, **sections}).knowing(kept_variance)


@pytest.mark.parametrize(
    ("variant", "chain", "graph"),
    [
        ({"representation": "input", **EUCLIDEAN}, ("pack", "trial", "neighbors", "graph"), "graph"),
        ({"representation": "code", **EUCLIDEAN}, CODES, "graph"),
        (
            {"representation": "input"},
            ("pack", "trial", "neighbors", "graph", "siamese", "features", "reweight"),
            "reweight",
        ),
        ({"representation": "code"}, (*CODES, "siamese", "features", "reweight"), "reweight"),
        (
            {"representation": "code", "siamese": {"use": "rebuild"}},
            (*CODES, "siamese", "features", "siamese_neighbors", "siamese_graph"),
            "siamese_graph",
        ),
    ],
)
def test_a_variant_is_a_chain_and_the_last_graph_in_it_is_learned(
    variant: dict[str, Any], chain: tuple[str, ...], graph: str
) -> None:
    one = recipe(**variant)
    assert one.chain == (*chain, *AFTER_GRAPH)
    assert one.embedded_graph == graph
    assert list(one.trainings) == [stage for stage in TRAINED if stage in one.chain]


@pytest.mark.parametrize(
    ("variant", "searched", "seen", "encoders"),
    [
        ({"representation": "input", **EUCLIDEAN}, "pack", {"vector": "pack"}, {}),
        (
            {"representation": "input"},
            "pack",
            {"vector": "pack", "siamese": "features"},
            {"siamese": "siamese"},
        ),
        ({"representation": "code", **EUCLIDEAN}, "codes", {"code": "codes"}, {"encoder": "autoencoder"}),
        (
            {"representation": "code"},
            "codes",
            {"code": "codes", "siamese": "features"},
            {"encoder": "autoencoder", "siamese": "siamese"},
        ),
        ({"representation": "code", "train": {"inputs": ("vector",)}}, "codes", {"vector": "pack"}, {}),
        (
            {"representation": "code", "train": {"inputs": ("siamese",)}},
            "codes",
            {"siamese": "features"},
            {"encoder": "autoencoder", "siamese": "siamese"},  # the Siamese network sees codes
        ),
        (
            {"representation": "input", "train": {"inputs": ("siamese", "vector")}},
            "pack",
            {"siamese": "features", "vector": "pack"},
            {"siamese": "siamese"},
        ),
    ],
)
def test_the_network_sees_what_was_searched_and_the_features_unless_told_otherwise(
    variant: dict[str, Any], searched: str, seen: dict[str, str], encoders: dict[str, str]
) -> None:
    one = recipe(**variant)
    assert one.searched == searched
    assert one.may_search == (searched,)
    assert one.seen == seen
    assert list(one.seen) == list(seen), "their order is that of the network's columns"
    assert one.encoders == encoders
    assert set(one.seen.values()) <= set(one.may_see)
    assert set(one.may_see) <= set(one.chain)


@pytest.mark.parametrize(
    ("kept", "searched"),
    [(None, "codes"), (ENOUGH_VARIANCE, "codes"), (ENOUGH_VARIANCE - 1e-6, "pack"), (1.0, "codes"), (0.0, "pack")],
)
def test_auto_takes_the_codes_that_keep_enough_of_the_variance(kept: float | None, searched: str) -> None:
    one = recipe(kept_variance=kept)
    assert one.searched == searched
    assert one.chain == recipe().chain, "the autoencoder is trained before anyone knows"
    assert one.may_search == ("pack", "codes"), "so fingerprints do not depend on it"
    assert one.may_see == ("pack", "codes", "features")
    assert ("code" in one.seen, "encoder" in one.encoders) == ((searched == "codes"),) * 2


def test_what_is_decided_is_not_changed_by_what_the_codes_keep() -> None:
    for kept in (0.0, 1.0):
        assert recipe(representation="code", kept_variance=kept).searched == "codes"
        assert recipe(representation="input", kept_variance=kept).searched == "pack"


@pytest.mark.parametrize(("dim", "makes"), [(24, False), (25, True)])
def test_auto_trains_no_autoencoder_for_rows_as_narrow_as_their_codes(dim: int, makes: bool) -> None:
    assert recipe(dim).makes_codes is makes
    assert ("codes" in recipe(dim).chain) is makes
    assert recipe(dim, representation="code").makes_codes
    assert not recipe(dim, representation="input").makes_codes


def test_widths_are_those_of_the_rows_that_each_stage_writes() -> None:
    widths = recipe(autoencoder={"n_components": 7}, siamese={"n_components": 6}).widths
    assert widths == {"pack": WIDE, "codes": 7, "features": 6}


@pytest.mark.parametrize(
    ("spectral", "n_clusters", "kept", "trained"),
    [
        ({}, 10, 15, 23),
        ({}, "auto", 30, 45),
        ({"n_components": 4}, 10, 4, 10),
        ({"n_components": 4, "oversampling": 0}, 10, 4, 4),
        ({"n_components": 1, "oversampling": 0}, 10, 1, 2),
    ],
)
def test_more_functions_are_trained_than_kept(
    spectral: dict[str, Any], n_clusters: int | str, kept: int, trained: int
) -> None:
    one = recipe(spectral=spectral, cluster={"n_clusters": n_clusters})
    assert (one.n_components, one.n_functions) == (kept, trained)
    assert (one.functions.n_components, one.functions.n_functions) == (kept, trained)


@pytest.mark.parametrize("n_rows", [3, 4, 7, 12, 30])
def test_few_rows_have_few_neighbours_and_functions(n_rows: int) -> None:
    one = recipe(cluster={"n_clusters": 2}).for_rows(n_rows)
    one.check(n_rows, has_labels=False)
    assert one.graph.n_neighbors == min(15, n_rows - 1)
    assert one.affinity.scale_neighbor <= one.graph.n_neighbors
    assert one.n_components <= one.n_functions <= max(n_rows // 2, 2)


@pytest.mark.parametrize("kind", ["uniform", "shared_neighbors"])
def test_weights_that_do_not_fall_with_distance_leave_half_of_the_rows_strangers(kind: str) -> None:
    assert recipe(affinity={"kind": kind}).for_rows(16).graph.n_neighbors == 7
    assert recipe(affinity={"kind": kind}).for_rows(3).graph.n_neighbors == 1
    assert recipe(affinity={"kind": kind}).for_rows(100).graph.n_neighbors == 15


@pytest.mark.parametrize(("n_clusters", "n_distinct", "kept"), [(2, 2, 2), (3, 3, 3), (9, 9, 9), (4, 3, 3), (2, 12, 5)])
def test_clusters_have_as_many_functions_as_different_rows_allow(n_clusters: int, n_distinct: int, kept: int) -> None:
    one = recipe(cluster={"n_clusters": n_clusters}).for_rows(1000, n_distinct)
    assert one.n_components == kept
    assert kept <= one.n_functions <= n_distinct


def test_a_narrow_network_is_asked_for_no_more_functions_than_it_carries() -> None:
    narrow = {"network": {"hidden": (64, 8)}, "cluster": {"n_clusters": 20}}
    assert recipe(**narrow).for_rows(1000).n_functions == 9
    with pytest.raises(
        ConfigError, match=r"spectral\.n_components: is 10, but the last hidden layer has 8 units"
    ) as caught:
        recipe(**narrow, spectral={"n_components": 10}).check(1000, has_labels=False)
    assert set(caught.value.parameters) == {"spectral.n_components", "network.hidden"}
    recipe(**narrow, spectral={"n_components": 9}).check(1000, has_labels=False)


@pytest.mark.parametrize(
    ("sections", "kind", "parameters"),
    [
        ({"cluster": {"n_clusters": 101}}, TooManyClustersError, ("cluster.n_clusters", "data.path")),
        ({"graph": {"n_neighbors": 100}}, TooFewRowsError, ("data.path", "graph.n_neighbors")),
        (
            {"spectral": {"n_components": 99}},
            TooFewRowsError,
            ("data.path", "spectral.n_components", "spectral.oversampling", "cluster.n_clusters"),
        ),
        ({"affinity": {"scale_neighbor": 16}}, ConfigError, ("affinity.scale_neighbor", "graph.n_neighbors")),
        ({"train": {"inputs": ("code",)}}, ConfigError, ("train.inputs", "representation")),
        (
            {"train": {"inputs": ("siamese",)}, **EUCLIDEAN},
            ConfigError,
            ("train.inputs", "affinity.space"),
        ),
        ({"train": {"inputs": ("vector", "vector")}}, ConfigError, ("train.inputs",)),
        ({"network": {"trunk": "a:b"}}, ConfigError, ("network.trunk", "network.hidden")),
    ],
)
def test_what_is_bound_to_fail_is_refused_by_the_names_of_its_parameters(
    sections: dict[str, Any], kind: type[DistSpectralError], parameters: tuple[str, ...]
) -> None:
    recipe().check(100, has_labels=False)
    with pytest.raises(kind) as caught:
        recipe(**sections).check(100, has_labels=False)
    assert type(caught.value) is kind
    assert caught.value.parameters == parameters
    assert all(name in str(caught.value) for name in parameters), str(caught.value)


def test_every_worker_needs_a_share_of_every_batch_that_the_run_makes() -> None:
    few = {"siamese": {"batch_size": 3}, "autoencoder": {"batch_size": 1}}
    recipe(NARROW, **few, **EUCLIDEAN).check_workers(2)
    with pytest.raises(ConfigError, match=r"siamese\.batch_size: is 3 per step for 2 workers") as caught:
        recipe(NARROW, **few).check_workers(2)
    assert caught.value.parameters == ("siamese.batch_size", "ray.workers")
    with pytest.raises(ConfigError, match=r"autoencoder\.batch_size: is 1"):
        recipe(WIDE, **few).check_workers(2)


def test_every_worker_needs_a_row() -> None:
    few = recipe(NARROW, n_rows=6, **EUCLIDEAN)
    few.check_workers(6)
    with pytest.raises(ConfigError, match=r"ray\.workers: is 8, but there are only 6 rows"):
        few.check_workers(8)


def test_every_training_begins_with_the_weights_of_the_run_to_start_from() -> None:
    starts = {name: one.start_from for name, one in recipe(start_from="s3://bucket/before").trainings.items()}
    assert starts == {
        "autoencoder": "s3://bucket/before/autoencoder",
        "siamese": "s3://bucket/before/siamese",
        "train": "s3://bucket/before/training",
        "distill": None,  # it goes on from this run's own training
        "map": "s3://bucket/before/map",
    }
    assert {one.start_from for one in recipe().trainings.values()} == {None}


def test_a_map_is_drawn_unless_nobody_wants_one() -> None:
    one, without = recipe(), recipe(map={"enabled": False})
    assert one.learns_from["map"] == one.learns_from["train"]
    assert one.layers["map"][0] == one.layers["train"][0] + one.n_components - 1, "functions beside, but the constant"
    assert set(one.chain) - set(without.chain) == {"map"}
    assert "map" not in {*without.trainings, *without.layers, *without.learns_from}


def test_a_recipe_is_frozen_and_knows_its_sections_only() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        recipe().dim = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="dscl"):
        recipe(dscl={})


def test_components_are_encoded_like_codes_and_taken_over_from_the_run_to_start_from() -> None:
    one = recipe(representation="pca", start_from="s3://bucket/before")
    assert one.chain[:5] == ("pack", "trial", "pca", "codes", "neighbors")
    assert (one.searched, one.encoders["encoder"], one.layers["pca"]) == ("codes", "pca", (WIDE, min(50, WIDE)))
    assert "autoencoder" not in one.trainings
    assert one.may_search == ("codes",)
    assert one.starts == {
        "trial": "s3://bucket/before/trial",
        "pca": "s3://bucket/before/pca",
        "siamese": "s3://bucket/before/siamese",
        "train": "s3://bucket/before/training",
        "map": "s3://bucket/before/map",
    }
    assert recipe(representation="pca", dim=NARROW).widths["codes"] == NARROW


@pytest.mark.parametrize(
    ("sections", "spaces", "is_tried"),
    [
        ({}, ("rows", "components"), True),
        ({"graph": {"metric": "l2"}}, ("rows", "components"), True),
        ({"graph": {"metric": "inner_product"}}, ("rows",), False),
        ({"pca": {"n_components": 61}}, ("rows",), True),
        ({"representation": "input"}, ("rows",), True),
        ({"representation": "input", "graph": {"metric": "cosine"}}, ("rows",), False),
        ({"representation": "pca"}, ("components",), True),
        ({"representation": "code"}, (), False),
        ({"graph_given": True}, (), False),
        ({"dim": 9}, ("rows",), False),
    ],
)
def test_a_trial_decides_what_the_config_leaves_open(
    sections: dict[str, Any], spaces: tuple[str, ...], is_tried: bool
) -> None:
    one = recipe(**{"dim": 120, **sections})
    assert one.open_spaces == spaces
    assert ("trial" in one.chain) == one.is_tried == is_tried


def test_what_a_trial_decided_is_searched() -> None:
    open_one = recipe(dim=120)
    rows, components = (Trial(space, "centered_cosine", 500, {}) for space in ("rows", "components"))
    one = open_one.knowing(trial=components)
    assert one.chain[:5] == ("pack", "trial", "pca", "codes", "neighbors")
    assert (one.searched, one.may_search, one.seen["code"]) == ("codes", ("codes",), "codes")
    assert one.metric_of("neighbors") == "centered_cosine"
    assert one.metric_of("siamese_neighbors") == "l2"
    assert "autoencoder" not in one.trainings
    as_they_are = open_one.knowing(0.5, rows)
    assert as_they_are.chain[:4] == ("pack", "trial", "autoencoder", "codes")
    assert (as_they_are.searched, as_they_are.metric_of("neighbors")) == ("pack", "centered_cosine")
    coded = open_one.knowing(0.9, rows)
    assert (coded.searched, coded.metric_of("neighbors")) == ("codes", "l2"), "the trial was of rows"
    assert recipe(dim=120, graph={"metric": "cosine"}).knowing(0.9, rows).metric_of("neighbors") == "cosine"


@pytest.mark.parametrize(
    "sections", [{"spectral": {"laplacian": "unnormalized"}}, {"affinity": {"scope": "batch", "space": "euclidean"}}]
)
def test_batches_that_are_made_as_training_goes_cannot_be_drawn_before(sections):
    recipe(NARROW, **sections).check_batches()
    with pytest.raises(ConfigError, match=r"^train\.batches: is drawn") as caught:
        recipe(NARROW, train={"batches": "drawn"}, **sections).check_batches()
    assert caught.value.parameters == ("train.batches",)
    recipe(NARROW, train={"batches": "drawn"}, **EUCLIDEAN).check_batches()
