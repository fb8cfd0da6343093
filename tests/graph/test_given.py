"""A graph on disk gives the lists that it was made of, whatever its form, or says what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from scipy.spatial.distance import cdist

from distspectral.errors import ConfigError, SourceError
from distspectral.graph.given import GivenGraph, fingerprint
from tests.datasets import blobs

N, K = 60, 5
ROWS = blobs(N, 4)[0].astype(np.float64)
ALL = cdist(ROWS, ROWS)
SEARCHED = np.argsort(ALL, axis=1, kind="stable")[:, : K + 1]
"""As a search of the base returns it: the row itself first."""
IDS, DISTANCES = SEARCHED[:, 1:], np.take_along_axis(ALL, SEARCHED[:, 1:], 1)


def matrix(values: np.ndarray, ids: np.ndarray = IDS) -> scipy.sparse.csr_matrix:
    return scipy.sparse.csr_matrix((values.ravel(), (np.repeat(np.arange(N), ids.shape[1]), ids.ravel())), (N, N))


def lists(path: Path | str, *, precomputed: bool = False, rows: int = 25) -> tuple[np.ndarray, np.ndarray]:
    graph = GivenGraph.open(str(path), precomputed=precomputed).with_largest()
    graph.require_rows(N)
    blocks = list(graph.blocks([(start, min(start + rows, N)) for start in range(0, N, rows)]))
    return np.concatenate([ids for ids, _ in blocks]), np.concatenate([squared for _, squared in blocks])


def write_folder(path: Path) -> None:
    path.mkdir()
    np.save(path / "ids.npy", IDS.astype(np.uint32))
    np.save(path / "distances.npy", DISTANCES.astype(np.float32))


def write_h5ad(path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, made in (("distances", matrix(DISTANCES)), ("connectivities", matrix(np.exp(-DISTANCES)))):
            group = file.create_group(f"obsp/{name}")
            group.attrs.update({"encoding-type": "csr_matrix", "shape": made.shape})
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(made, part)


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "folder": ("graph", write_folder),
    "squared": ("a.npz", lambda path: np.savez(path, ids=IDS, squared_distances=DISTANCES**2)),
    "compressed": ("a.npz", lambda path: np.savez_compressed(path, ids=IDS, distances=DISTANCES)),
    "with the row itself": (
        "a.npz",
        lambda path: np.savez(path, ids=SEARCHED, distances=np.take_along_axis(ALL, SEARCHED, 1)),
    ),
    "SciPy": ("a.npz", lambda path: scipy.sparse.save_npz(path, matrix(DISTANCES))),
    "AnnData": ("a.h5ad", write_h5ad),
}


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_the_lists_it_was_made_of(tmp_path: Path, form: str) -> None:
    name, write = WRITERS[form]
    write(tmp_path / name)
    ids, squared = lists(tmp_path / name)
    np.testing.assert_array_equal(ids, IDS)
    np.testing.assert_allclose(squared, DISTANCES**2, rtol=1e-6)


@pytest.mark.parametrize("form", ["SciPy", "AnnData", "pair"])
def test_affinities_come_back_over_the_largest(tmp_path: Path, form: str) -> None:
    affinities = 3 * np.exp(-DISTANCES)
    path = tmp_path / ("a.h5ad" if form == "AnnData" else "a.npz")
    if form == "AnnData":
        write_h5ad(path)
    elif form == "pair":
        np.savez(path, ids=IDS, affinities=affinities)
    else:
        scipy.sparse.save_npz(path, matrix(affinities))
    ids, squared = lists(path, precomputed=True)
    np.testing.assert_array_equal(ids, IDS)
    np.testing.assert_allclose(np.exp(-squared), affinities / affinities.max(), rtol=1e-5)


def test_rows_of_a_matrix_may_have_fewer_neighbours_and_the_rest_is_missing(tmp_path: Path) -> None:
    made = matrix(DISTANCES).tolil()
    made[7] = 0
    made[7, 3] = 2.0
    scipy.sparse.save_npz(tmp_path / "a.npz", made.tocsr())
    ids, squared = lists(tmp_path / "a.npz")
    assert ids[7].tolist() == [3, 7, 7, 7, 7]
    assert squared[7].tolist() == [4.0, *[np.inf] * 4]


def test_minus_one_self_repeats_and_zero_affinities_are_no_neighbours(tmp_path: Path) -> None:
    ids, distances = IDS.copy(), DISTANCES.copy()
    ids[4, 1:] = [-1, 4, ids[4, 0], ids[4, 0]]
    distances[4, 1:] = [3.4e38, 0.5, distances[4, 0], distances[4, 0]]
    np.savez(tmp_path / "a.npz", ids=ids, distances=distances)
    assert lists(tmp_path / "a.npz")[0][4].tolist() == [ids[4, 0], 4, 4, 4, 4]
    affinities = np.exp(-DISTANCES)
    affinities[4, 1:] = 0
    np.savez(tmp_path / "b.npz", ids=IDS, affinities=affinities)
    assert lists(tmp_path / "b.npz", precomputed=True)[0][4].tolist() == [IDS[4, 0], 4, 4, 4, 4]


def with_(value: float, row: int = 30) -> np.ndarray:
    found = DISTANCES.copy()
    found[row, 2] = value
    return found


@pytest.mark.parametrize(
    ("ids", "distances", "message"),
    [
        (np.where(np.arange(N)[:, None] == 30, N, IDS), DISTANCES, r"row 30, neighbour 0: 60 is no row of 60"),
        (IDS, with_(np.nan), r"row 30, neighbour 2: nan is none of the distances"),
        (IDS, with_(-1), r"row 30, neighbour 2: -1\.0 is none of the distances"),
        (IDS, with_(1e30), r"row 30, neighbour 2: 1e\+30 has a square beyond float32"),
        (np.where(np.arange(N)[:, None] == 30, 30, IDS), DISTANCES, r"row 30 has no neighbour but itself"),
        (IDS, -np.sort(-np.exp(-DISTANCES), axis=1), r"distances fall along the lists, as similarities do"),
    ],
)
def test_lists_that_are_none_are_named(tmp_path: Path, ids: np.ndarray, distances: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "a.npz", ids=ids, distances=distances)
    with pytest.raises(SourceError, match=r"a\.npz: " + message):
        lists(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: np.savez(path, ids=IDS), r"has ids and nothing else, expected squared_distances or distances"),
        (lambda path: np.savez(path, ids=IDS, distances=DISTANCES[:-1]), r"ids of shape \(60, 5\), int64, and dist"),
        (lambda path: np.savez(path, ids=IDS * 1.0, distances=DISTANCES), r"\(60, 5\), float64.*expected integers"),
        (lambda path: np.savez(path, x=IDS), r"is no graph of distances \(it has x\); expected a folder of ids\.npy"),
        (lambda path: scipy.sparse.save_npz(path, matrix(DISTANCES).tocsc()), r"form csc,.*matrix\.tocsr\(\)"),
        (lambda path: scipy.sparse.save_npz(path, matrix(DISTANCES)[:, :9]), r"shape \(60, 9\), expected a row and a"),
        (
            lambda path: scipy.sparse.save_npz(path, matrix(DISTANCES)[:50, :50]),
            r"is of 50 rows, but data\.path has 60",
        ),
    ],
)
def test_files_that_are_no_graph_are_answered_with_what_is(
    tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    write(tmp_path / "a.npz")
    with pytest.raises(ConfigError, match=message) as caught:
        lists(tmp_path / "a.npz")
    assert str(caught.value).startswith("graph.path: ")


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"graph\.path: .*absent\.npz does not exist"):
        lists(tmp_path / "absent.npz")
    np.savez(tmp_path / "a.npz", ids=IDS, distances=DISTANCES)
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[:900])
    with pytest.raises(SourceError, match=r"a\.npz: cannot be read as a graph .*write it again"):
        lists(tmp_path / "a.npz")


def test_lists_longer_than_any_graph_holds_are_refused(tmp_path: Path) -> None:
    wide = np.zeros((N, 1025), np.int64)
    np.savez(tmp_path / "a.npz", ids=wide, distances=wide * 1.0)
    with pytest.raises(ConfigError, match=re.escape("lists of up to 1,025 neighbours, expected 1 to 1,024")):
        lists(tmp_path / "a.npz")


def test_its_fingerprint_follows_its_files(tmp_path: Path) -> None:
    write_folder(tmp_path / "graph")
    first = fingerprint(str(tmp_path / "graph"), precomputed=False)
    assert fingerprint(str(tmp_path / "graph"), precomputed=False) == first
    assert fingerprint(str(tmp_path / "graph"), precomputed=True) != first
    np.save(tmp_path / "graph/distances.npy", DISTANCES)
    assert fingerprint(str(tmp_path / "graph"), precomputed=False) != first
