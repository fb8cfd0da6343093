"""Files of named arrays and of lines of text are read as tables are."""

from __future__ import annotations

import json
import random
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.orc
import pytest
import scipy.sparse
import torch

from distspectral.errors import (
    CorruptShardError,
    DistSpectralError,
    MissingDependencyError,
    SourceError,
    UnknownColumnError,
    UnsupportedTypeError,
)
from distspectral.storage.rows.block import Block
from distspectral.storage.source.dataset import Source, SourceConfig
from distspectral.storage.source.framing import framed
from tests.datasets import as_lists

MATRIX = np.arange(24, dtype=np.float32).reshape(6, 4) % 7
IDS, KINDS = ["a", "b", "c", "d", "é", "f"], [3, 1, 2, 2, 1, 3]
COLUMNS = {"vector": MATRIX, "id": np.array(IDS), "kind": np.array(KINDS)}


def read(path: Path, **config: Any) -> list[Block]:
    source = framed(Source.open(SourceConfig(path=str(path), **config), most_rows=4)).carrying()
    return [block for shard in source.shards for block in source.read_blocks(shard, 2)]


def vectors(blocks: list[Block]) -> np.ndarray[Any, Any]:
    return np.concatenate([block.vectors for block in blocks])


def write_npz(path: Path) -> None:
    np.savez(path, **COLUMNS)


def write_compressed_npz(path: Path) -> None:
    np.savez_compressed(path, **COLUMNS)


def write_hdf5(path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, column in COLUMNS.items():
            file[name] = IDS if name == "id" else column


def write_tensors(path: Path) -> None:
    torch.save({"vector": torch.from_numpy(MATRIX), "id": IDS, "kind": torch.tensor(KINDS)}, path)


def write_lines(path: Path) -> None:
    rows = zip(MATRIX.tolist(), IDS, KINDS, strict=True)
    path.write_text("".join(json.dumps({"vector": v, "id": i, "kind": k}) + "\n" for v, i, k in rows))


def write_orc(path: Path) -> None:
    pa.orc.write_table(pa.table({"vector": as_lists(MATRIX, "list"), "id": IDS, "kind": KINDS}), path)


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "npz": ("a.npz", write_npz),
    "compressed npz": ("a.npz", write_compressed_npz),
    "HDF5": ("a.h5", write_hdf5),
    "tensors": ("a.pt", write_tensors),
    "JSON lines": ("a.jsonl", write_lines),
    "ORC": ("a.orc", write_orc),
}


@pytest.mark.parametrize("form", WRITERS)
def test_vectors_ids_labels_and_what_is_carried_are_read_in_blocks(tmp_path: Path, form: str) -> None:
    name, write = WRITERS[form]
    write(tmp_path / name)
    blocks = read(tmp_path, id_column="id", label_column="kind", carry=["kind"])
    assert max(block.n_rows for block in blocks) == 2
    np.testing.assert_array_equal(vectors(blocks), MATRIX)
    assert [one for block in blocks for one in block.ids.to_pylist()] == IDS
    assert [one for block in blocks for one in block.labels.to_pylist()] == KINDS
    assert [one for block in blocks for one in block.carried.column("kind").to_pylist()] == KINDS


@pytest.mark.parametrize(("name", "sign"), [("a.csv", ","), ("a.tsv", "\t")])
def test_text_has_a_column_for_each_feature(tmp_path: Path, name: str, sign: str) -> None:
    table = pa.table({**{f"x{i}": MATRIX[:, i] for i in range(4)}, "id": IDS, "kind": KINDS})
    pa.csv.write_csv(table, tmp_path / name, pa.csv.WriteOptions(delimiter=sign))
    blocks = read(tmp_path, column="x*", id_column="id", label_column="kind")
    np.testing.assert_array_equal(vectors(blocks), MATRIX)
    assert [one for block in blocks for one in block.ids.to_pylist()] == IDS
    with pytest.raises(UnknownColumnError, match=r"has no column 'vector'.*x0, x1, x2, x3, id, kind; set data\.column"):
        read(tmp_path)


def test_one_cell_of_text_does_not_drop_a_feature(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x0,x1,xkind\n1,2,a\n3,abc,b\n")
    for on_bad_rows in ("error", "quarantine"):
        with pytest.raises(UnsupportedTypeError, match=r"a\.csv: column 'x1' fits data\.column = 'x\*', but holds"):
            read(tmp_path, column="x*", on_bad_rows=on_bad_rows)
    (tmp_path / "a.csv").write_text("x0,x1,xkind\n1,2,a\n3,4,b\n")
    np.testing.assert_array_equal(vectors(read(tmp_path, column="x[0-9]*")), [[1, 2], [3, 4]])


def test_features_of_an_npz_may_be_arrays_of_their_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{f"x{i}": MATRIX[:, i] for i in range(4)})
    np.testing.assert_array_equal(vectors(read(tmp_path, column="x*")), MATRIX)


def test_the_only_matrix_needs_no_name_and_of_several_one_is_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", emb=MATRIX, y=KINDS)
    np.testing.assert_array_equal(vectors(read(tmp_path)), MATRIX)
    torch.save(torch.from_numpy(MATRIX).bfloat16(), tmp_path / "b.pt")
    np.testing.assert_array_equal(vectors(read(tmp_path / "b.pt")), MATRIX)
    np.savez(tmp_path / "a.npz", emb=MATRIX, other=MATRIX[:, :2])
    with pytest.raises(UnknownColumnError, match=r"no array 'vector'; it has emb \(6, 4\), other \(6, 2\); set data\."):
        read(tmp_path / "a.npz")
    np.testing.assert_array_equal(vectors(read(tmp_path / "a.npz", column="other")), MATRIX[:, :2])


@pytest.mark.parametrize("sparse", [False, True])
def test_anndata_gives_its_components_else_its_counts(tmp_path: Path, sparse: bool) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "cells.h5ad", "w") as file:
        if sparse:
            counts = scipy.sparse.csr_matrix(MATRIX)
            group = file.create_group("X")
            group.attrs.update({"encoding-type": "csr_matrix", "shape": counts.shape})
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(counts, part)
        else:
            file["X"] = np.zeros((6, 9))
            file["obsm/X_pca"] = MATRIX
        file["obs/barcode"] = IDS
        file["obs"].attrs["_index"] = "barcode"
        file["obs/kind/categories"], file["obs/kind/codes"] = ["T", "B"], np.array([0, 1, 1, -1, 0, 0], np.int8)
    blocks = read(tmp_path, id_column="obs_names", label_column="kind")
    np.testing.assert_array_equal(vectors(blocks), MATRIX)
    assert [one for block in blocks for one in block.ids.to_pylist()] == IDS
    assert [one for block in blocks for one in block.labels.to_pylist()] == ["T", "B", "B", None, "T", "T"]


def test_hdf5_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hdf5(tmp_path / "a.h5")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"a\.h5: h5py is not installed: pip install '\.\[hdf5\]'"):
        read(tmp_path)


def test_no_code_runs(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", vector=MATRIX, what=np.array([object()] * 6))
    with pytest.raises(UnsupportedTypeError, match="holds Python objects"):
        read(tmp_path / "a.npz")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "b.pt")
    with pytest.raises(CorruptShardError, match=r"b\.pt: cannot be read as torch"):
        read(tmp_path / "b.pt")


@pytest.mark.parametrize("form", WRITERS)
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, form: str) -> None:
    name, write = WRITERS[form]
    write(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(SourceError, match=rf"{name}: (cannot be read|has no)"):
        read(tmp_path, id_column="id")


def test_an_array_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "b.npz")
    with zipfile.ZipFile(tmp_path / "b.npz") as whole, zipfile.ZipFile(tmp_path / "a.npz", "w") as cut:
        cut.writestr("vector.npy", whole.read("vector.npy")[:-8])
    with pytest.raises(CorruptShardError, match=r"a\.npz: cannot be read as npz .*ends too early"):
        read(tmp_path / "a.npz")


def test_tables_beside_shards_are_no_shards(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", MATRIX)
    (tmp_path / "labels.csv").write_text("kind\n1\n")
    torch.save({"weight": torch.ones(3)}, tmp_path / "model.pt")
    assert len(Source.open(SourceConfig(path=str(tmp_path))).files) == 1


@pytest.mark.parametrize("form", WRITERS)
def test_a_damaged_file_is_read_or_refused_by_an_error_of_ours(tmp_path: Path, form: str) -> None:
    name, write = WRITERS[form]
    write(tmp_path / name)
    whole, outcomes = (tmp_path / name).read_bytes(), Counter[str]()
    for seed in range(60):
        rng = random.Random(seed)
        content = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            place = rng.randrange(len(content))
            content[place : place + 8] = rng.randbytes(rng.choice((1, 8)))
        (tmp_path / name).write_bytes(content)
        try:
            read(tmp_path, id_column="id", label_column="kind")
            outcomes["read"] += 1
        except DistSpectralError as error:
            outcomes[type(error).__name__] += 1
    assert outcomes["CorruptShardError"] > 6
