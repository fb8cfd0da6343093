"""Recipes that tests/docs cannot run: those that need data or a library of their own. Each is run as it is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from distspectral import SpectralNet
from tests.docs.pages import blocks
from tests.estimators.brief import SPECTRAL

PAGE = Path(__file__).parents[2] / "docs/how-to/recipes.md"
TOPICS = (
    ["cell", "gene", "protein", "membrane", "nucleus", "enzyme", "tissue", "receptor"],
    ["stock", "market", "bank", "price", "trade", "bond", "interest", "investor"],
    ["goal", "match", "league", "player", "coach", "team", "season", "referee"],
)
BRIEF = 'representation="input", affinity_space="euclidean", max_steps=50, hidden=(16,)'


def printed(library: str) -> str:
    """Return the page's block of Python that imports a library."""
    (text,) = [block.text for block in blocks(PAGE) if block.language == "python" and f"import {library}" in block.text]
    return text


def briefly(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, f"{new}, {BRIEF}")


def documents(n_rows: int, seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return texts, vectors (N, 24) of their counts of words, and topics (N,)."""
    rng = np.random.default_rng(seed)
    topics = np.arange(n_rows) % len(TOPICS)
    words = [rng.choice(TOPICS[topic], 12) for topic in topics]
    names = [word for topic in TOPICS for word in topic]
    counts = np.array([[list(row).count(name) for name in names] for row in words], np.float32)
    return [" ".join(row) for row in words], counts, topics


@pytest.mark.filterwarnings("ignore")  # of transformers and plotly, on their way in
def test_bertopic_takes_the_estimator_for_umap_and_hdbscan() -> None:
    pytest.importorskip("bertopic", reason="bertopic is not installed; the test below checks what it relies on")
    texts, vectors, topics = documents(240, 0)
    new_texts, new_vectors, new_topics = documents(30, 1)
    given = {"documents": texts, "embeddings": vectors, "new_documents": new_texts, "new_embeddings": new_vectors}
    namespace: dict[str, Any] = dict(given)
    exec(briefly(printed("BERTopic"), "n_clusters=20", "n_clusters=3"), namespace)
    assert adjusted_rand_score(new_topics, namespace["found"]) > 0.9
    assert adjusted_rand_score(topics, namespace["topics"].topics_) > 0.9
    assert len(namespace["topics"].get_topic_info()) == 3


def test_what_bertopic_relies_on_is_there() -> None:
    """It calls ``fit(rows)`` or ``fit(rows, y=y)``, takes ``labels_``, and calls ``predict`` for new rows."""
    _, vectors, topics = documents(90, 0)
    model = SpectralNet(**SPECTRAL | {"max_steps": 40, "hidden": (16,)})
    assert model.fit(vectors, y=None) is model
    assert model.labels_.tolist() == [int(label) for label in model.labels_]
    assert min(model.labels_) == 0, "-1 would be outliers"
    np.testing.assert_array_equal(model.predict(vectors), model.labels_)
    assert adjusted_rand_score(topics, model.labels_) > 0.9


@pytest.mark.filterwarnings("ignore")  # of scanpy and matplotlib
def test_scanpy_goes_on_with_the_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scanpy")
    import anndata
    import matplotlib
    import pandas

    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 240)
    counts = rng.poisson(rng.gamma(0.4, 3, (3, 120))[kinds]).astype(np.float32)
    names = [pandas.Index([f"{what}{i}" for i in range(n)], dtype=object) for what, n in (("c", 240), ("g", 120))]
    made = anndata.AnnData(counts, pandas.DataFrame(index=names[0]), pandas.DataFrame(index=names[1]))
    made.write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    namespace: dict[str, Any] = {}
    exec(briefly(printed("scanpy"), 'n_clusters="auto"', "n_clusters=3, n_neighbors=30"), namespace)
    cells = namespace["adata"]
    assert adjusted_rand_score(kinds, cells.obs["distspectral"]) > 0.9
    assert cells.uns["rank_genes_groups"]["params"]["groupby"] == "distspectral"
