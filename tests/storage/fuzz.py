"""Damaged shards and checkpoints, seeded: each is read in a child that must answer with rows or an error of ours.

    python -m tests.storage.fuzz FIRST COUNT FOLDER

reads the files of seeds FIRST to FIRST + COUNT - 1. It is a process of its own because a parser that crashes, hangs
or takes all memory would otherwise take the tests with it: the parent sees how far it came.
"""

from __future__ import annotations

import faulthandler
import io
import json
import random
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from distspectral.errors import DistSpectralError
from distspectral.models.state import read_state
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.source.dataset import Source, SourceConfig
from distspectral.storage.source.pieces import PIECE_ROWS
from tests.datasets import as_lists

PATIENCE_S = 20
"""A single file that takes longer hangs; thousands of times what one takes."""

MEMORY_BYTES = 6 << 30
"""Of address space, of which the libraries alone map some three GiB."""

GROWTH_BYTES = 700 << 20
"""Most resident memory that damaged files of a few kilobytes may add to the process at its peak."""

N_ROWS, DIM = 60, 5
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62, (1 << 64) - 1)


def whole_files() -> dict[str, bytes]:
    """Return one small file of every kind that is read, by name."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((N_ROWS, DIM)).astype(np.float32)
    ids, labels = [f"row {row}" for row in range(N_ROWS)], rng.integers(0, 3, N_ROWS)
    files: dict[str, bytes] = {}

    def table(kind: str) -> pa.Table:
        names = pa.array([f"kind {label}" for label in labels]).dictionary_encode()
        return pa.table({"vector": as_lists(matrix, kind), "id": ids, "label": names})

    for kind in ("fixed", "list", "large_list"):
        for compression in ("none", "snappy", "zstd"):
            sink = pa.BufferOutputStream()
            pq.write_table(table(kind), sink, row_group_size=25, compression=compression, use_dictionary=kind == "list")
            files[f"{kind}-{compression}.parquet"] = sink.getvalue().to_pybytes()
        for compression in (None, "lz4", "zstd"):
            options = pa.ipc.IpcWriteOptions(compression=compression)
            for opener, extension in ((pa.ipc.new_file, "arrow"), (pa.ipc.new_stream, "ipc")):
                sink = pa.BufferOutputStream()
                with opener(sink, table(kind).schema, options=options) as writer:
                    writer.write_table(table(kind), max_chunksize=25)
                files[f"{kind}-{compression}.{extension}"] = sink.getvalue().to_pybytes()
    for dtype in ("<f4", ">f8", "<f2", "u1"):
        sink = pa.BufferOutputStream()
        np.save(sink, matrix.astype(dtype))
        files[f"{dtype.strip('<>')}.npy"] = sink.getvalue().to_pybytes()
    state = io.BytesIO()
    torch.save({"weights": torch.from_numpy(matrix), "step": 7, "history": [{"loss": 0.5}]}, state)
    files["checkpoint.pt"] = state.getvalue()
    files["a.fbin"] = struct.pack("<II", N_ROWS, DIM) + matrix.tobytes()
    return files


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return the content with one to four seeded changes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(DAMAGES)(data, rng)
    return bytes(data)


def flip_bit(data: bytearray, rng: random.Random) -> None:
    """Flip one bit anywhere."""
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_bit_at_an_end(data: bytearray, rng: random.Random) -> None:
    """Flip one bit in the first or last 300 bytes, where headers and footers are."""
    if data:
        place = rng.randrange(min(len(data), 300))
        data[rng.choice((place, len(data) - 1 - place))] ^= 1 << rng.randrange(8)


def put_number(data: bytearray, rng: random.Random) -> None:
    """Write a number at the edge of some range over a word."""
    width = rng.choice((1, 2, 4, 8))
    if len(data) >= width:
        place = rng.randrange(len(data) - width + 1)
        number = rng.choice(INTERESTING) % (1 << 8 * width)
        data[place : place + width] = number.to_bytes(width, rng.choice(("little", "big")))


def truncate(data: bytearray, rng: random.Random) -> None:
    """Cut the end off."""
    del data[rng.randrange(len(data) + 1) :]


def delete(data: bytearray, rng: random.Random) -> None:
    """Take a piece out."""
    start = rng.randrange(len(data) + 1)
    del data[start : start + rng.choice((1, 4, 8, 64))]


def insert(data: bytearray, rng: random.Random) -> None:
    """Put random bytes in."""
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.randbytes(rng.choice((1, 4, 8, 64)))


def repeat(data: bytearray, rng: random.Random) -> None:
    """Copy a piece to another place."""
    if data:
        start, place = rng.randrange(len(data)), rng.randrange(len(data))
        piece = data[start : start + rng.choice((4, 8, 64, 512))]
        data[place : place + len(piece)] = piece


def zero(data: bytearray, rng: random.Random) -> None:
    """Write zeros over a piece, as a page that never reached the disk."""
    if data:
        start = rng.randrange(len(data))
        length = min(rng.choice((4, 64, 512)), len(data) - start)
        data[start : start + length] = bytes(length)


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bit, flip_bit_at_an_end, put_number, truncate, delete, insert, repeat, zero,
)  # fmt: skip


def read(path: Path, rng: random.Random) -> str:
    """Read one file to its end, in one of the ways that users can ask for; return what came of it."""
    if path.suffix == ".pt":
        try:
            state = read_state(Artifact(str(path.parent)), path.name)
        except DistSpectralError as error:
            return type(error).__name__
        assert set(state) == {"weights", "step", "history"}, "what passes the checksum is what was written"
        return "read"
    is_raw = path.suffix in (".npy", ".fbin")
    config: dict[str, Any] = {"on_bad_rows": rng.choice(("error", "quarantine"))}
    if not is_raw:
        config |= {"id_column": rng.choice((None, "id")), "label_column": rng.choice((None, "label"))}
    try:
        source = Source.open(SourceConfig(path=str(path), **config), most_rows=rng.choice((PIECE_ROWS, 20)))
        left_out: list[pa.RecordBatch] = []
        block_rows, n_threads = rng.choice((7, 1000)), rng.choice((1, 3))
        for shard in source.shards:
            for block in source.reader.read_blocks(shard, block_rows, left_out, n_threads=n_threads):
                assert np.isfinite(block.vectors).all()
                block.global_ids(shard.first_row).to_pylist()
                if block.labels is not None:
                    block.labels.to_pylist()
    except DistSpectralError as error:
        return type(error).__name__
    return "quarantined" if left_out else "read"


def peak_bytes() -> int:
    """Return the highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(first: int, count: int, folder: Path) -> None:
    """Read the files of some seeds; ``folder/progress.json`` says how far, ``folder/result.json`` how it went."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = whole_files()
    names = sorted(files)
    outcomes: Counter[str] = Counter()
    slowest, before = 0.0, peak_bytes()
    for seed in range(first, first + count):
        rng = random.Random(seed)
        name = names[seed % len(names)]
        (folder / "progress.json").write_text(json.dumps({"seed": seed, "name": name}))
        path = folder / f"damaged{Path(name).suffix}"
        path.write_bytes(damaged(files[name], rng))
        faulthandler.dump_traceback_later(PATIENCE_S, exit=True)
        began = time.perf_counter()
        outcomes[read(path, rng)] += 1
        slowest = max(slowest, time.perf_counter() - began)
        faulthandler.cancel_dump_traceback_later()
        path.unlink()
    result = {"outcomes": outcomes, "slowest_s": slowest, "grown_bytes": peak_bytes() - before}
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
