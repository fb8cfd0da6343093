from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from distspectral.datasets import write_vectors
from distspectral.errors import ConstantDataError, DuplicateIdError, NonFiniteRowError, SourceError
from distspectral.mapping import Mapper, local_map
from distspectral.stages.pack import PACK, PackConfig, pack
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest, fingerprint
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.shard_rows import LAYOUT
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.storage.source.dataset import Source, SourceConfig
from tests.datasets import UNEVEN, as_lists, blobs, packed, vectors_output, write_table

VECTORS, LABELS = blobs(100, 6)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def dies_after(n_shards: int) -> Callable[..., Iterator[Any]]:
    def mapper(
        function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
    ) -> Iterator[Any]:
        yield from local_map(function, items[:n_shards], description)
        raise KeyboardInterrupt

    return mapper


def test_packed_shards_mirror_the_source(tmp_path: Path) -> None:
    artifact = packed(tmp_path, VECTORS, labels=LABELS, sizes=UNEVEN)
    manifest = artifact.manifest()
    assert [shard.n_rows for shard in manifest.shards] == list(UNEVEN)
    assert [shard.name for shard in manifest.shards] == [f"part-0000{index}.arrow" for index in range(4)]
    assert manifest.properties.keys() == {
        "dim", "dominant_feature", "dtype", "features", "frame", "has_labels", "id_type", "mean",
        "passed_over", "variance", "source_shards",
    }  # fmt: skip
    assert manifest.properties["source_shards"][1].endswith("source/part-00001.parquet")
    assert manifest.properties["variance"] == pytest.approx(VECTORS.astype(np.float64).var(axis=0).mean(), rel=1e-12)
    table = artifact.read_table("part-00001.arrow")
    assert table.schema == pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), 6)), ("label", pa.int64())])
    assert table["label"].to_pylist() == LABELS[1:41].tolist()
    assert table["id"].to_pylist() == list(range(1, 41))


def test_manifest_stays_small(tmp_path: Path) -> None:
    artifact = packed(tmp_path, VECTORS, sizes=UNEVEN)
    assert all(shard.details.keys() == {LAYOUT} for shard in artifact.manifest().shards)


@pytest.mark.parametrize("sizes", [(100,), UNEVEN, (1,) * 100])
def test_recutting_shards_leaves_vectors_and_moments_alone(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    vectors = MappedVectors(packed(tmp_path, VECTORS, sizes=sizes))
    np.testing.assert_array_equal(vectors.block(0, 100), VECTORS)
    np.testing.assert_allclose(vectors.mean, VECTORS.mean(axis=0, dtype=np.float64), rtol=1e-12)


def test_interrupted_pack_resumes_without_rewriting_and_gives_identical_bytes(tmp_path: Path) -> None:
    whole = packed(tmp_path / "whole", VECTORS, labels=LABELS, sizes=UNEVEN)
    (tmp_path / "resumed").mkdir()
    (tmp_path / "whole/source").rename(tmp_path / "resumed/source")
    folder = tmp_path / "resumed/vectors"
    source = Source.open(SourceConfig(path=str(tmp_path / "resumed/source"), label_column="label"))
    output = vectors_output(folder, source)
    with pytest.raises(KeyboardInterrupt):
        pack(source, output, PackConfig(), dies_after(2))
    assert not (folder / MANIFEST).exists()
    before = {path.name: path.stat().st_ino for path in folder.glob("part-*")}
    assert sorted(before) == ["part-00000.arrow", "part-00001.arrow"]

    pack(source, output, PackConfig())

    assert {name: (folder / name).stat().st_ino for name in before} == before
    ours, theirs = digests(folder), digests(tmp_path / "whole/vectors")
    del ours[MANIFEST], theirs[MANIFEST]  # they name the source's folder
    assert ours == theirs
    properties = [artifact.manifest().properties for artifact in (whole, output.artifact)]
    assert properties[0].pop("source_shards") != properties[1].pop("source_shards")
    assert properties[0] == properties[1]


def test_shard_that_fails_leaves_no_file_and_the_others_stay(tmp_path: Path) -> None:
    bad = VECTORS.copy()
    bad[45, 2] = np.nan
    with pytest.raises(NonFiniteRowError, match=r"part-00002\.parquet: row 4 of column 'vector', feature 2"):
        packed(tmp_path, bad, sizes=UNEVEN)
    names = {path.name for path in (tmp_path / "vectors").iterdir()}
    assert {"part-00000.arrow", "part-00001.arrow"} <= names
    assert not any("part-00002" in name or name == MANIFEST for name in names)


def test_float16_halves_the_values_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    half = MappedVectors(packed(tmp_path / "fits", VECTORS, config=PackConfig(dtype="float16")))
    np.testing.assert_array_equal(half.block(0, 100), VECTORS.astype(np.float16))
    large = VECTORS.copy()
    large[45, 2] = 1e5
    with pytest.raises(SourceError, match=r"part-00002\.parquet: row 4 .*feature 2: 100000 is beyond float16.*float32"):
        packed(tmp_path / "large", large, sizes=UNEVEN, config=PackConfig(dtype="float16"))


def test_float16_keeps_rows_far_from_zero(tmp_path: Path) -> None:
    half = MappedVectors(packed(tmp_path, VECTORS * 100 + 1e5, config=PackConfig(dtype="float16")))
    apart = half.block(0, 100) - half.block(0, 1)
    unit = np.linalg.norm(VECTORS[7] - VECTORS[0]) / np.linalg.norm(apart[7])
    np.testing.assert_allclose(apart * unit, VECTORS - VECTORS[0], atol=0.03)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_seconds_since_1970_are_packed_from_an_origin(tmp_path: Path, dtype: Literal["float32", "float16"]) -> None:
    rows = VECTORS.astype(np.float64) + np.array([1.7e9, 0, 0, 0, 0, 0])
    vectors = MappedVectors(packed(tmp_path, rows, sizes=UNEVEN, config=PackConfig(dtype=dtype)))
    assert vectors.origin is not None
    np.testing.assert_array_equal(vectors.origin[1:], 0)
    tolerance = {"float32": 1e-6, "float16": 1e-2}[dtype]
    np.testing.assert_allclose(vectors.block(0, 100) + vectors.origin, rows, rtol=0, atol=tolerance * 10)


@pytest.mark.parametrize("factor", [1e-200, 1e-25, 1e18, 1e100])
def test_rows_of_any_size_are_packed_as_their_likes(tmp_path: Path, factor: float) -> None:
    block = MappedVectors(packed(tmp_path, VECTORS.astype(np.float64) * factor)).block(0, 100)
    assert 0.1 < np.abs(block).max() < 100
    np.testing.assert_allclose(block / block[0, 0], VECTORS / VECTORS[0, 0], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_row_too_far_for_the_others_is_named_or_left_out(
    tmp_path: Path, dtype: Literal["float32", "float16"]
) -> None:
    rows = VECTORS.copy()
    rows[45, 2] = 2e19
    config = PackConfig(dtype=dtype)
    with pytest.raises(NonFiniteRowError, match=r"part-00002\.parquet: row 4 .*feature 2: 2e\+19 is beyond float"):
        packed(tmp_path / "refused", rows, sizes=UNEVEN, config=config)
    write_vectors(str(tmp_path / "source"), rows, sizes=UNEVEN)
    source = Source.open(SourceConfig(path=str(tmp_path / "source"), on_bad_rows="quarantine"))
    manifest = pack(source, vectors_output(tmp_path / "vectors", source, config), config)
    assert manifest.n_rows == 99
    assert manifest.metrics["quarantine"]["reasons"] == {"beyond float32": 1}
    assert np.abs(MappedVectors(Artifact(str(tmp_path / "vectors"))).block(0, 99)).max() < 100


def test_equal_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConstantDataError, match="all 100 rows of the dataset are equal"):
        packed(tmp_path, np.full((100, 6), 0.1, np.float32), sizes=UNEVEN)
    assert not (tmp_path / "vectors" / MANIFEST).exists()


def as_strings(ids: NDArray[np.int64]) -> NDArray[Any]:
    return np.array([f"key-{one:04d}" for one in ids])


@pytest.mark.parametrize("make", [np.asarray, as_strings], ids=["integers", "strings"])
@pytest.mark.parametrize(
    ("first", "second", "places"),
    [
        (2, 3, "row 1 of .*part-00001.parquet and row 2 of .*part-00001.parquet"),
        (0, 99, "row 0 of .*part-00000.parquet and row 51 of .*part-00003.parquet"),
        (40, 41, "row 39 of .*part-00001.parquet and row 0 of .*part-00002.parquet"),
    ],
    ids=["neighbours", "far shards", "border"],
)
def test_duplicate_id_is_refused_with_both_places(
    tmp_path: Path, first: int, second: int, places: str, make: Callable[[NDArray[np.int64]], NDArray[Any]]
) -> None:
    ids = np.arange(100) * 3
    ids[second] = ids[first]
    ids = make(ids)
    with pytest.raises(DuplicateIdError, match=f"id {ids[first].item()!r} occurs twice: {places}"):
        packed(tmp_path, VECTORS, ids=ids, sizes=UNEVEN)
    assert not (tmp_path / "vectors" / MANIFEST).exists()


@pytest.mark.parametrize("make", [np.asarray, as_strings], ids=["integers", "strings"])
def test_shuffled_unique_ids_are_accepted(tmp_path: Path, make: Callable[[NDArray[np.int64]], NDArray[Any]]) -> None:
    ids = make(np.random.default_rng(0).permutation(100))
    assert MappedVectors(packed(tmp_path, VECTORS, ids=ids, sizes=UNEVEN)).ids().to_pylist() == ids.tolist()


def test_range_that_holds_two_others_is_compared_with_both(tmp_path: Path) -> None:
    ids = np.concatenate([np.arange(0, 100, 2), np.arange(1, 40, 2), np.arange(80, 110)])
    with pytest.raises(DuplicateIdError, match="id 80 occurs twice"):
        packed(tmp_path, VECTORS, ids=ids, sizes=(50, 20, 30))


# ---- large files ---------------------------------------------------------------------------------------------------


def packed_in_pieces(
    folder: Path, vectors: NDArray[np.float32], mapper: Mapper = local_map, dtype: Any = "float32", **columns: Any
) -> Artifact:
    """Pack one file of seven row groups as three pieces."""
    write_table(folder / "large.parquet", {"vector": as_lists(vectors), **columns})
    id_column = "id" if "id" in columns else None
    source = Source.open(SourceConfig(path=str(folder / "large.parquet"), id_column=id_column), most_rows=40)
    output = vectors_output(folder / "vectors", source)
    pack(source, output, PackConfig(dtype=dtype), mapper)
    return output.artifact


def test_pieces_of_a_large_file_are_items_and_shards_of_their_own(tmp_path: Path) -> None:
    handed_out: list[tuple[str, int, int]] = []

    def mapper(
        function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
    ) -> Iterator[Any]:
        handed_out.extend((name, shard.first_row, shard.n_rows) for name, shard in items)
        return local_map(function, items[::-1], description)

    artifact = packed_in_pieces(tmp_path, VECTORS, mapper)
    names = [f"part-0000{index}.arrow" for index in range(3)]
    assert handed_out == list(zip(names, (0, 48, 80), (48, 32, 20), strict=True))
    vectors = MappedVectors(artifact)
    np.testing.assert_array_equal(vectors.block(0, 100), VECTORS)
    assert vectors.ids().to_pylist() == list(range(100))
    assert artifact.manifest().properties["source_shards"] == [str(tmp_path / "large.parquet")] * 3


def test_a_duplicate_id_is_named_by_its_rows_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DuplicateIdError, match=r"id 7 occurs twice: row 7 of .*large\.parquet and row 90 of"):
        packed_in_pieces(tmp_path, VECTORS, id=[*range(90), 7, *range(91, 100)])


def test_what_is_beyond_float16_is_named_by_its_row_of_the_file(tmp_path: Path) -> None:
    large = VECTORS.copy()
    large[90, 2] = 1e5
    with pytest.raises(SourceError, match=r"large\.parquet: row 90 .*feature 2: 100000 is beyond float16"):
        packed_in_pieces(tmp_path, large, dtype="float16")


# ---- a source that grew --------------------------------------------------------------------------------------------


def followed(folder: Path, source: Source) -> Output:
    """Return an output of ``pack`` as a plan makes it, with what its fingerprint is made of."""
    inputs, identity = {"source": source.fingerprint()}, {"pack": {"dtype": "float32"}}
    return Output(Artifact(str(folder)), "pack", fingerprint("pack", identity, inputs), {}, inputs, identity)


def test_a_source_that_grew_packs_its_new_shards_only(tmp_path: Path) -> None:
    rows, ids = blobs(120, 6)[0], np.arange(120)
    folder = tmp_path / "data"

    def pack_all(place: str) -> tuple[list[str], Manifest]:
        source = Source.open(SourceConfig(path=str(folder), id_column="id"))
        handed_out: list[str] = []

        def mapper(
            function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
        ) -> Iterator[Any]:
            handed_out.extend(shard.file.name for _, shard in items)
            return local_map(function, items, description)

        return handed_out, pack(source, followed(tmp_path / place, source), PackConfig(), mapper)

    write_vectors(str(folder / "m"), rows[:80], ids=ids[:80], sizes=(50, 30))
    assert pack_all("grown")[0] == ["m/part-00000.parquet", "m/part-00001.parquet"]
    write_vectors(str(folder / "a"), rows[80:100], ids=ids[80:100])
    write_vectors(str(folder / "z"), rows[100:], ids=ids[100:])
    handed_out, grown = pack_all("grown")
    assert handed_out == ["a/part-00000.parquet", "z/part-00000.parquet"]
    handed_out, fresh = pack_all("fresh")
    assert len(handed_out) == 4
    assert grown.properties == fresh.properties
    assert digests(tmp_path / "grown").items() - digests(tmp_path / "fresh").items() <= {
        (MANIFEST, digests(tmp_path / "grown")[MANIFEST])
    }


def test_an_id_of_a_new_shard_that_a_kept_one_has_is_refused(tmp_path: Path) -> None:
    rows = blobs(60, 6)[0]
    for name, part, ids in (("a", rows[:40], np.arange(40)), ("b", rows[40:], np.arange(39, 59))):
        write_vectors(str(tmp_path / "data" / name), part, ids=ids)
        source = Source.open(SourceConfig(path=str(tmp_path / "data"), id_column="id"))
        if name == "a":
            pack(source, followed(tmp_path / "out", source), PackConfig())
    with pytest.raises(DuplicateIdError, match="39"):
        pack(source, followed(tmp_path / "out", source), PackConfig())


@pytest.mark.parametrize(("far", "is_noted"), [(1e3, False), (1e6, True)])
def test_a_row_that_hides_the_others_is_noted(tmp_path: Path, far: float, is_noted: bool) -> None:
    rows = np.vstack([VECTORS, np.full((1, 6), far, np.float32)])
    facts = PACK.facts({"pack": packed(tmp_path, rows).manifest()})
    assert ("times_as_far_as_usual" in facts) == is_noted
    assert [note[:30] for note in PACK.notes({"pack": facts, "n_rows": 101})] == [
        "A few rows lie so far away tha"
    ] * is_noted


@pytest.mark.parametrize(("times", "is_noted"), [(1.0, False), (30.0, True)])
def test_a_column_that_decides_who_is_near_is_noted_by_name(tmp_path: Path, times: float, is_noted: bool) -> None:
    columns = {f"f{place}": column for place, column in enumerate((VECTORS - VECTORS.mean(0)).T)}
    columns["f3"] = columns["f3"] * np.float32(times)
    write_table(tmp_path / "a.parquet", columns)
    source = Source.open(SourceConfig(path=str(tmp_path / "a.parquet"), column="f*"))
    facts = PACK.facts({"pack": pack(source, followed(tmp_path / "out", source), PackConfig())})
    assert [note[:17] for note in PACK.notes({"pack": facts, "n_rows": 100})] == ["f3 alone has 99% "] * is_noted


def test_columns_without_numbers_are_noted(tmp_path: Path) -> None:
    write_table(
        tmp_path / "a.parquet", {f"f{place}": column for place, column in enumerate(VECTORS.T)} | {"f9": LABELS > 0}
    )
    source = Source.open(SourceConfig(path=str(tmp_path / "a.parquet"), column="f*"))
    facts = PACK.facts({"pack": pack(source, followed(tmp_path / "out", source), PackConfig())})
    (note,) = PACK.notes({"pack": facts, "n_rows": 100})
    assert "hold no numbers and are no features: f9 (bool)." in note
