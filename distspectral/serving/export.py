"""A finished run as programs for runtimes that know nothing of distspectral, each compared with the network first.

Shape letters: B rows, D features.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distspectral import logs
from distspectral.errors import ExportError, MissingDependencyError, OutputNotWritableError, first_line
from distspectral.models.assigner import squared_distances
from distspectral.models.embedder import Embedder
from distspectral.models.framed import Framed
from distspectral.serving import loaders
from distspectral.serving.predictor import Predictor
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest, fingerprint
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import MappedVectors

ExportFormat = Literal["torch", "onnx"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
FILES: dict[ExportFormat, tuple[str, str, str]] = {
    "torch": ("model.pt2", "embed_torch.py", loaders.TORCH),
    "onnx": ("model.onnx", "embed_onnx.py", loaders.ONNX),
}
"""By format: the program's file, its loader's file, the loader."""
CARD, CARD_PAGE = "model_card.json", "MODEL_CARD.md"

STAGE = "export"
CHECKED_ROWS = 512
TOLERANCE = 1e-5
"""Largest difference allowed in any case, relative to values above 1; of distances, between their squares."""
ROUNDINGS = 4
"""How many times the network's own rounding is allowed: what its outputs at a row depend on the rows beside it."""
KINDS = {"cluster": "centroids", "leaf": "leaves"}
AT_FENCE = 1e-3
"""How near to the fence of outliers a row may lie on either side, in units of its distance."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Program = Callable[[NDArray[np.floating[Any]]], Sequence[NDArray[Any]]]
"""Raw rows (B, D) to the outputs, as arrays."""


def export(predictor: Predictor, artifact: Artifact, formats: Sequence[ExportFormat] = FORMATS) -> Manifest:
    """Write the artifact ``export``: the programs, a loader for each, and the model card as JSON and as a page.

    Nothing is written unless every program gave the network's outputs on rows of the training data: see
    :func:`checked`.

    Args:
        predictor: of a finished run.
        artifact: where it goes.
        formats: of the programs.

    Raises:
        ExportError: the network cannot be exported, or a program gives something else.
        MissingDependencyError: what ONNX needs is not installed.
        OutputNotWritableError: the directory cannot be written, or holds something else than an export.
    """
    formats = tuple(dict.fromkeys(formats))
    if "onnx" in formats and (missing := [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]):
        raise MissingDependencyError(
            f"{missing[0]} is not installed: pip install '.[export]', or export --format torch only"
        )
    if artifact.has(MANIFEST) and (stage := artifact.manifest().stage) != STAGE:
        raise OutputNotWritableError(f"{artifact.uri}: holds what the stage {stage} wrote; choose another --output")
    raw, rows = Framed(predictor.frame, predictor.module).eval(), sample_rows(predictor)
    written: dict[str, bytes] = {}
    differences: dict[str, dict[str, float]] = {}
    with quiet():
        exported = exported_program(raw, predictor.dim)
        for name in formats:
            file, loader, text = FILES[name]
            written[file] = torch_bytes(exported) if name == "torch" else onnx_bytes(exported, predictor.outputs)
            program = torch_program(written[file]) if name == "torch" else onnx_program(written[file])
            differences[name] = checked(file, program, predictor, raw, rows)
            written[loader] = text.replace("float32", predictor.frame.input_type).encode()
    card = predictor.card | {
        "programs": {name: FILES[name][0] for name in formats},
        "made_with": {name: version(name) for name in ("torch", *(ONNX_PACKAGES if "onnx" in formats else ()))},
        "check": {"rows": len(rows), "tolerance": TOLERANCE, "largest_differences": differences},
    }
    written[CARD_PAGE] = card_page(card).encode()
    config = {"formats": list(formats)}
    output = Output(artifact, STAGE, fingerprint(STAGE, config, predictor.inputs), config, predictor.inputs)
    output.begin()
    for file, content in written.items():
        artifact.write_bytes(file, content)
    artifact.write_json(CARD, card)
    properties = {"dim": predictor.dim, "outputs": list(predictor.outputs)}
    return output.commit([], properties, card["check"], (*written, CARD))


def sample_rows(predictor: Predictor) -> NDArray[np.floating[Any]]:
    """Return up to 512 rows of the training data as they were before the frame, (B, D), spread over all of it."""
    assert predictor.vectors is not None, "only a run can be exported"
    vectors = MappedVectors(predictor.vectors)
    rows = np.unique(np.linspace(0, vectors.n_rows - 1, CHECKED_ROWS).astype(np.int64))
    return predictor.frame.raw(vectors.gather(rows))


def exported_program(raw: Framed, dim: int) -> torch.export.ExportedProgram:
    """Return the module as a program for any number of rows, without the paths of the files it was written in.

    Raises:
        ExportError: torch cannot trace it.
    """
    rows = torch.export.Dim("rows")
    try:
        exported = torch.export.export(raw, (torch.zeros(2, dim, dtype=raw.input_type),), dynamic_shapes=({0: rows},))
    except Exception as error:  # a trunk of the user's may do anything
        raise ExportError(
            f"the network cannot be exported ({first_line(error)}); network.trunk has to be traceable "
            "by torch.export for any number of rows"
        ) from error
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)
    return exported


def torch_bytes(exported: torch.export.ExportedProgram) -> bytes:
    """Return the content of a ``.pt2`` file."""
    content = io.BytesIO()
    torch.export.save(exported, content)
    return content.getvalue()


def onnx_bytes(exported: torch.export.ExportedProgram, outputs: Sequence[str]) -> bytes:
    """Return the content of an ``.onnx`` file, weights within.

    Raises:
        ExportError: an operation has no ONNX counterpart.
    """
    try:
        program = torch.onnx.export(exported, (), dynamo=True, output_names=outputs, external_data=False, verbose=False)
        assert program is not None, "dynamo=True returns the program"
        content: bytes = program.model_proto.SerializeToString()
    except Exception as error:
        raise ExportError(f"the network has no ONNX form ({first_line(error)}); export --format torch only") from error
    return content


def torch_program(content: bytes) -> Program:
    """Return a ``.pt2`` file's program."""
    module = torch.export.load(io.BytesIO(content)).module()

    @torch.inference_mode()
    def run(rows: NDArray[np.floating[Any]]) -> list[NDArray[Any]]:
        return [output.numpy() for output in module(torch.from_numpy(rows))]

    return run


def onnx_program(content: bytes) -> Program:
    """Return an ``.onnx`` file's program in onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda rows: session.run(None, {name: rows})


def checked(
    file: str, program: Program, predictor: Predictor, raw: nn.Module, rows: NDArray[np.floating[Any]]
) -> dict[str, float]:
    """Return by output the largest difference between a program and the network, on one row and on all.

    Differences are relative to values above 1. Of distances the squares are compared: a root near zero has few digits
    left in either. A row between two centroids or leaves may go to either, and one at a fence may lie
    on both sides of it.

    Args:
        file: the program's, for messages.
        program: to be checked.
        predictor: what it was made from.
        raw: the predictor's module, its frame included.
        rows: (B, D) raw.

    Raises:
        ExportError: a difference is not a number, or above 1e-5 and four times that between the network's own outputs
            at pairs of rows and at all together.
    """
    largest = dict.fromkeys(predictor.outputs, 0.0)
    whole = _outputs(raw, rows)
    apart = [torch.cat(column) for column in zip(*(_outputs(raw, pair) for pair in _pairs(rows)), strict=True)]
    rounding = _differences(predictor, rows, whole, apart)
    for part, expected in ((rows[:1], _outputs(raw, rows[:1])), (rows, whole)):
        found = _differences(predictor, part, expected, [torch.from_numpy(array) for array in program(part)])
        for name, worst in found.items():
            allowed = max(TOLERANCE, ROUNDINGS * rounding[name])
            if not worst <= allowed:
                raise ExportError(
                    f"{file}: {name} differs from the network's by {worst:.2g} on {len(part)} training rows, "
                    f"{allowed:.2g} is allowed; nothing was written. The other --format may do"
                )
            largest[name] = max(largest[name], worst)
    return largest


def _pairs(rows: NDArray[np.floating[Any]]) -> list[NDArray[np.floating[Any]]]:
    return [rows[start : start + 2] for start in range(0, len(rows), 2)]


@torch.inference_mode()
def _outputs(raw: nn.Module, rows: NDArray[np.floating[Any]]) -> list[Tensor]:
    return list(raw(torch.from_numpy(rows)))


def _differences(
    predictor: Predictor, rows: NDArray[np.floating[Any]], whole: Sequence[Tensor], others: Sequence[Tensor]
) -> dict[str, float]:
    """Return by output the largest difference between two answers to rows (B, D) raw."""
    expected, found = (dict(zip(predictor.outputs, one, strict=True)) for one in (whole, others))
    if "cluster" in expected:
        assert isinstance(predictor.module, Embedder)
        rows_framed = torch.from_numpy(predictor.frame.framed(rows))
        in_place = _compared(predictor.module, rows_framed, expected, found)
        expected, found = expected | in_place[0], found | in_place[1]
    return {
        name: float(((found[name] - expected[name]).abs() / expected[name].abs().clamp(min=1)).max())
        for name in predictor.outputs
    }


def _compared(
    embedder: Embedder, rows: Tensor, expected: dict[str, Tensor], found: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return numbers to compare in place of numbers of clusters and leaves, roots, and truth values, of both."""
    assigner, cluster, leaf = embedder.assigner, expected["cluster"], expected["leaf"]
    points = assigner.coordinates(expected["embedding"])
    near = {name: squared_distances(points, getattr(assigner, which)) for name, which in KINDS.items()}
    with torch.inference_mode():
        seen, embedding = embedder.seen_and_embedding(rows)
        excess = embedder.outliers.excess(seen, cluster, assigner.leaf_distances(embedding, leaf))
    either = (excess - 1).abs() < AT_FENCE
    both = []
    for one in (expected, found):
        numbers = {name: squared.gather(1, one[name][:, None]) for name, squared in near.items()}
        is_outlier = torch.where(either, 0.0, one["is_outlier"].float())
        both.append(numbers | {"distance": one["distance"].square(), "is_outlier": is_outlier})
    return both[0], both[1]


def card_page(card: dict[str, Any]) -> str:
    """Return the model card as a page of Markdown."""
    lines = [
        f"# Model card\n\nThis {card['what']}.\n",
        "| | name | shape | dtype | what |",
        "| --- | --- | --- | --- | --- |",
    ]
    for side in ("inputs", "outputs"):
        for one in card[side]:
            shape = " x ".join(str(size) for size in one["shape"])
            lines.append(f"| {side[:-1]} | {one['name']} | {shape} | {one['dtype']} | {one['meaning']} |")
    data = card["training_data"]
    lines.append(f"\nTrained on {data['rows']:,} rows of {data['features']:,} features in {data['shards']:,} shards.")
    if values := card.get("eigenvalues"):
        lines.append(f"Eigenvalues: {', '.join(f'{value:.4g}' for value in values)}.")
    for name, scores in card["metrics"].items():
        lines.append(f"Scores, {name}: " + ", ".join(f"{key} {_score(value)}" for key, value in scores.items()) + ".")
    files = ", ".join(f"`{FILES[name][0]}` (loader `{FILES[name][1]}`)" for name in card["programs"])
    check = card["check"]
    lines.append(f"\nPrograms: {files}, for any number of rows. Their outputs are the network's within")
    lines.append(f"{check['tolerance']:g}, or a few times its own rounding, on {check['rows']:,} rows of the training")
    lines.append("data; squared, of distances.")
    lines.append(f"\nLimits: {card['limits']}. `{CARD}` holds all of this and the settings.\n")
    return "\n".join(lines)


def _score(value: Any) -> str:
    if isinstance(value, dict):
        return " / ".join(f"@{key} {_score(inner)}" for key, inner in value.items())
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what torch's exporters tell their own developers off stderr; what fails is raised all the same."""
    with logs.level("torch.onnx", logging.ERROR), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        yield
