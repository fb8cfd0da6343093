"""A run on a graph that was made elsewhere: read in place of a search, and trained on as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from distspectral.config import check, load_config
from distspectral.errors import ConfigError
from distspectral.graph.export import affinity_matrix, write_faiss, write_npz
from distspectral.graph.store import SQUARED_DISTANCES, MappedGraph
from distspectral.planning.sample import brief_config
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.receipts import write_receipt
from distspectral.storage.source.dataset import Source
from tests.runs import LEARNED, N_ROWS, write_run
from tests.stages.chain import opened, pipeline_upto

K = 8


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that searched, with its graph exported beside it."""
    folder = tmp_path_factory.mktemp("searched")
    pipeline = pipeline_upto(folder, "embed")
    write_faiss(pipeline.chain.artifact("neighbors"), str(folder / "pair"))
    write_npz(pipeline.chain.artifact("graph"), str(folder / "graph.npz"))
    return folder


def upto(folder: Path, last: str, path: Path, **sections: Any) -> Any:
    return pipeline_upto(folder, last, **({"graph": {"path": str(path)}} | sections))


def lists(root: Path) -> tuple[np.ndarray, np.ndarray]:
    return MappedGraph(Artifact(str(root / "neighbors")), weights=SQUARED_DISTANCES).block(0, N_ROWS)


def test_an_exported_pair_gives_the_same_neighbours_and_embedding(searched: Path, tmp_path: Path) -> None:
    pipeline = upto(tmp_path, "embed", searched / "pair", graph={"path": str(searched / "pair"), "block_rows": 50})
    manifest = pipeline.chain.artifact("neighbors").manifest()
    assert (manifest.properties["k"], manifest.properties["searched"]) == (K, "given")
    assert [shard.n_rows for shard in manifest.shards] == [50, 50, 20]
    for found, expected in zip(lists(tmp_path / "root"), lists(searched / "root"), strict=True):
        np.testing.assert_array_equal(found, expected)
    values = [
        Artifact(str(folder / "root/model")).manifest().properties["ritz_values"] for folder in (tmp_path, searched)
    ]
    assert values[0] == values[1]


def test_precomputed_affinities_are_those_trained_on(searched: Path, tmp_path: Path) -> None:
    upto(tmp_path, "graph", searched / "graph.npz", affinity={"kind": "precomputed"})
    given = scipy.sparse.load_npz(searched / "graph.npz")
    found = affinity_matrix(Artifact(str(tmp_path / "root/graph")))
    assert found.nnz == given.nnz
    np.testing.assert_allclose(found.toarray(), given.toarray() / given.max(), rtol=2e-3)  # float16


def test_auto_trains_on_the_graph_as_it_is(searched: Path, tmp_path: Path) -> None:
    path = write_run(
        tmp_path,
        graph={"path": str(searched / "pair")},
        representation="auto",
        affinity={},
        autoencoder={"n_components": 2},
    )
    assert not {"codes", "siamese"} & opened(path).chain.outputs.keys()
    path = write_run(tmp_path / "other", **(LEARNED | {"graph": {"path": str(searched / "pair")}}))
    assert {"codes", "siamese"} <= opened(path).chain.outputs.keys(), "what is asked for by name is made"


def test_components_are_linked(searched: Path, tmp_path: Path) -> None:
    upto(tmp_path, "graph", searched / "pair", graph={"path": str(searched / "pair"), "connect": "nearest"})
    assert Artifact(str(tmp_path / "root/graph")).manifest().properties["components"] == 1


def test_what_an_interrupted_run_took_over_stays(searched: Path, tmp_path: Path) -> None:
    graph = {"path": str(searched / "pair"), "block_rows": 50}
    pipeline = opened(write_run(tmp_path, graph=graph))
    pipeline.stage("pack")
    pipeline.stage("neighbors")
    root, first = tmp_path / "root/neighbors", pipeline.chain.artifact("neighbors").manifest()
    untouched = (root / "part-00000.arrow").stat().st_mtime_ns
    output = pipeline.chain.outputs["neighbors"]
    (root / ".manifest.json").unlink()
    (root / "part-00002.arrow").unlink()
    output.artifact.write_json(".building.json", {"stage": "neighbors", "fingerprint": output.fingerprint})
    for shard in first.shards[:2]:
        write_receipt(output.artifact, shard)
    assert pipeline.stage("neighbors").shards[2].name == "part-00002.arrow"
    assert (root / "part-00000.arrow").stat().st_mtime_ns == untouched


def test_another_graph_at_the_same_place_is_read_anew_and_the_same_elsewhere_is_not(
    searched: Path, tmp_path: Path
) -> None:
    place = tmp_path / "g.npz"
    np.savez(place, **{name: np.load(searched / f"pair/{name}.npy") for name in ("ids", "squared_distances")})
    path = write_run(tmp_path, graph={"path": str(place)})
    before = opened(path).chain.outputs["neighbors"].fingerprint
    (tmp_path / "there").mkdir()
    place.rename(tmp_path / "there/g.npz")
    moved = opened(path, f"graph.path={tmp_path}/there/g.npz").chain.outputs["neighbors"].fingerprint
    assert moved == before
    np.savez(place, ids=np.zeros((N_ROWS, 1), int), distances=np.ones((N_ROWS, 1)))
    assert opened(path).chain.outputs["neighbors"].fingerprint != before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["affinity.kind=precomputed", "graph.path=null"],
            r"affinity\.kind: is precomputed, but there is no graph\.path",
        ),
        (
            ["affinity.kind=precomputed", "affinity.space=siamese"],
            r"affinity\.space: is siamese, which needs distances",
        ),
        (["affinity.kind=precomputed", "affinity.scope=batch"], r"affinity\.scope: is batch, which needs distances"),
        (["affinity.kind=precomputed", "graph.connect=nearest"], r"graph\.connect: is nearest, which needs distances"),
        (["affinity.kind=precomputed"], r"has ids and squared_distances, expected affinities beside them"),
        (["affinity.scale_neighbor=9"], r"affinity\.scale_neighbor: is 9, but each row has only 8 neighbours"),
        (["graph.path=absent.npz"], r"graph\.path: .*absent\.npz does not exist"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    searched: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    path = write_run(tmp_path, graph={"path": str(searched / "pair")})
    config = load_config(path, overrides)
    with pytest.raises(ConfigError, match=message):
        check(config, Source.open(config.data))


def test_a_graph_of_other_rows_is_refused(searched: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", ids=np.zeros((9, 1), int), distances=np.ones((9, 1)))
    pipeline = opened(write_run(tmp_path, graph={"path": str(tmp_path / "g.npz")}))
    with pytest.raises(ConfigError, match=r"graph\.path: .*is of 9 rows, but data\.path has 120"):
        check(pipeline.config, pipeline.source)
    pipeline.stage("pack")
    with pytest.raises(ConfigError, match="is of 9 rows"):
        pipeline.stage("neighbors")


def test_the_plan_measures_a_search_of_its_sample(searched: Path, tmp_path: Path) -> None:
    path = write_run(tmp_path, graph={"path": str(searched / "graph.npz")}, affinity={"kind": "precomputed"})
    pipeline = opened(path)
    brief = brief_config(pipeline.config, N_ROWS, str(tmp_path), pipeline.source)
    assert (brief.graph.path, brief.affinity.kind, brief.affinity.space) == (None, "gaussian", "euclidean")
    assert brief.recipe(pipeline.source.dim).chain == pipeline.recipe.chain


def test_the_plan_measures_on_this_machine_whatever_devices_the_run_has(tmp_path: Path) -> None:
    asked = ("graph.device=cuda", "train.device=cuda", "siamese.device=cuda", "affinity.space=siamese")
    pipeline = opened(write_run(tmp_path), *asked)
    brief = brief_config(pipeline.config, N_ROWS, str(tmp_path), pipeline.source)
    assert (brief.graph.device, brief.train.device, brief.siamese.device) == ("auto", "auto", "auto")
