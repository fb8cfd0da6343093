"""What the stages that only send rows through a network declare alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn

from distspectral.costs.bill import NETWORK, Bill
from distspectral.embedding.encode import encode
from distspectral.embedding.forward import forward, rows_of_block
from distspectral.embedding.stream import held_bytes
from distspectral.mapping import Mapper
from distspectral.stages.stage import Piece, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.joined import open_vectors
from distspectral.storage.rows.packed import BATCH_BYTES

WRITER_BYTES = BATCH_BYTES / 4
"""Of encoded rows before they are written; they are narrow."""

PIECE_ROWS = 4096
"""That a forward pass is timed on."""


def encoding_stage(
    name: str,
    coder: Callable[[Any], str],
    load: Callable[[Work], nn.Module],
    rows: Callable[[Any], str] | None = None,
    judging: str | None = None,
    **more: Any,
) -> Stage:
    """Return a stage that sends rows through a network and writes what comes out, with its cost.

    Args:
        name: of the stage.
        coder: of a recipe, the stage that makes the network.
        load: returns the network on the CPU.
        rows: of a recipe, the stage whose rows pass the network; by default ``pack``.
        judging: kind of a task before all others, on some rows whatever their number; None: there is none.
        more: of the declaration.
    """
    source = rows or (lambda recipe: "pack")

    def cost(bill: Bill) -> None:
        made = coder(bill.recipe)
        bill.through((made,), bill.us("encoding"))
        judged_s = 0.0 if judging is None else bill.us(judging) * bill.rates.sample_rows / 1e6
        bill.driver({}, bill.alone_s + judged_s)
        bill.read, bill.written = bill.kept_by(source(bill.recipe)), bill.kept
        bill.worker_bytes += WRITER_BYTES + held_bytes(
            rows_of_block(bill.recipe.dim), bill.recipe.dim, bill.widest(made)
        )

    def pieces(work: Work) -> dict[str, Piece]:
        return forward_piece(load(work), (work.artifacts[source(work.recipe)],))

    return Stage(name=name, cost=cost, pieces=pieces, workers="actors", **more)


def passed(
    vectors: Sequence[Artifact], load: Callable[[], nn.Module], output: Output, device: str, mapper: Mapper
) -> Artifact:
    """Return what a network makes of every row, in a folder of a stage's artifact; the stage deletes it at its end.

    Args:
        vectors: finished ``vectors`` artifacts, side by side.
        load: picklable; returns the network on the CPU.
        output: of the stage, begun; what an interrupted run wrote stands.
        device: ``auto``, ``cpu`` or ``cuda``.
        mapper: hands out shards.
    """
    features = output.artifact.child("features")
    if not features.is_current(output.fingerprint):
        encode(vectors, Output(features, "features", output.fingerprint, {}, {}), load, device, mapper)
    return features


def forward_piece(network: nn.Module, vectors: Sequence[Artifact]) -> dict[str, Piece]:
    """Return a network's forward pass alone, on a few rows; see :attr:`Stage.pieces`."""
    rows = open_vectors(vectors)
    block = np.array(rows.block(0, min(rows.n_rows, PIECE_ROWS)))
    return {NETWORK: Piece(lambda: forward(network, block), len(block))}
