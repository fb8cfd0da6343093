"""Source shards to packed shards: validated once, then mapped and gathered by row for the rest of the run."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from pydantic import Field

from distspectral.costs.bill import Bill, Map
from distspectral.errors import ConstantDataError, TooFewRowsError
from distspectral.frozen import FrozenModel
from distspectral.mapping import Mapper, local_map
from distspectral.stages.stage import Manifests, Stage, Work
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import SOURCE, Output
from distspectral.storage.artifact.quarantine import FOLDER, quarantine_files, quarantine_metrics
from distspectral.storage.artifact.receipts import write_missing
from distspectral.storage.rows.frame import Frame, StoredType
from distspectral.storage.rows.ids import COMPARING, PART_ROWS, SORTING, refuse_duplicates
from distspectral.storage.rows.moments import DominantFeature, Moments, is_constant
from distspectral.storage.rows.packed import BATCH_BYTES
from distspectral.storage.rows.shard_rows import bare
from distspectral.storage.source.dataset import Source
from distspectral.storage.source.framing import framed
from distspectral.storage.source.packing import pack_shard

DETAILS = ".shards.json"
"""What the receipts said of each shard, for a later run over more shards."""


class PackConfig(FrozenModel):
    """How vectors are stored (section ``pack``)."""

    dtype: StoredType = Field(
        "float32", description="Stored type; float16 halves disk and page cache and keeps three digits."
    )


def pack(source: Source, output: Output, config: PackConfig, mapper: Mapper = local_map) -> Manifest:
    """Write one packed shard per source shard, same rows in the same order; unchanged ones of before are kept.

    A source shard is a file, or a piece of a large one.
    Where ``data.on_bad_rows`` is ``quarantine``, bad rows are left out and kept beside the shards instead; a shard of
    bad rows only becomes a packed shard without rows.

    Args:
        source: the opened dataset; unless its frame is decided, it is that of its rows.
        output: where the artifact ``vectors`` goes.
        config: how vectors are stored.
        mapper: hands out the shards that are still missing.

    Returns:
        The manifest; its properties are dim, dominant_feature, dtype, features, frame, has_labels, id_type, mean,
        passed_over, variance and source_shards.

    Raises:
        SourceError: a row cannot be used; the message names file and row.
        TooFewRowsError: all rows are bad.
        DuplicateIdError: an id occurs twice in the dataset.
        ConstantDataError: all rows are equal.
        OutputNotWritableError: the directory cannot be written.
    """
    source = source if source.is_framed else framed(source, config.dtype)
    names = [f"part-{index:05d}.arrow" for index in range(len(source.shards))]
    prints = dict(zip(names, source.shard_fingerprints(), strict=True))
    done = output.begin(prints, DETAILS)
    n_missing = len(prints.keys() - done.keys())
    task = functools.partial(pack_shard, source.reader, output.artifact, config.dtype)
    shards = write_missing(done, mapper, task, list(zip(names, source.shards, strict=True)), "packing")
    places = [(shard.uri, shard.file_row) for shard in source.shards]
    filled = [index for index, shard in enumerate(shards) if shard.n_rows]
    if not filled:
        raise TooFewRowsError(
            f"{source.shards[0].uri}: none of the dataset's {source.n_rows} rows can be used ({_reasons(shards)}); "
            f"{output.artifact.uri}/{FOLDER} lists them, check data.column and data.scale"
        )
    if source.config.id_column is not None:
        refuse_duplicates(output.artifact, [shards[i] for i in filled], [places[i] for i in filled], mapper)
    moments = Moments.of_shards(shards)
    if is_constant(moments.mean, float(np.sqrt(moments.variance))):
        raise ConstantDataError(
            f"{source.shards[0].uri}: all {moments.n_rows} rows of the dataset are equal, so no row is nearer than "
            "another; check data.column and data.scale"
        )
    dominant = DominantFeature.of(moments.variances)
    properties: dict[str, Any] = {
        "dim": source.dim,
        "dominant_feature": None if dominant is None else dominant._asdict(),
        "dtype": config.dtype,
        "features": list(source.features),
        "frame": source.reader.frame.properties(),
        "has_labels": source.label_type is not None,
        "id_type": source.id_type,
        "mean": moments.mean.tolist(),
        "passed_over": list(source.passed_over),
        "variance": moments.variance,
        "source_shards": [uri for uri, _ in places],
    }
    details = {shard.name: shard.details | {SOURCE: prints[shard.name]} for shard in shards}
    output.artifact.write_json(DETAILS, details)
    metrics: dict[str, Any] = {"packed_shards": n_missing}
    if source.config.on_bad_rows == "quarantine":
        metrics["quarantine"] = quarantine_metrics(shards)
    # the receipts' means would make the manifest as large as a small shard
    return output.commit([bare(shard) for shard in shards], properties, metrics, (*quarantine_files(shards), DETAILS))


def _reasons(shards: list[Shard]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in quarantine_metrics(shards)["reasons"].items())


def _run(work: Work) -> Manifest:
    return pack(work.source, work.output, work.settings["pack"], work.mapper)


def _cost(bill: Bill) -> None:
    parts = {"read": bill.rates.read_us, "pack": bill.us("packing")}
    bill.read, bill.written = bill.n_rows * bill.rates.source_bytes, bill.kept
    bill.maps = [Map(bill.n_shards, sum(parts.values()), bill.read, bill.written)]
    if compared := bill.us(COMPARING) + bill.us(SORTING):
        parts["compare ids"] = compared
        bill.scratch = 8 * bill.n_rows
        bill.maps += [
            Map(bill.n_shards, bill.us(COMPARING), 0.0, bill.scratch),
            Map(math.ceil(bill.n_rows / PART_ROWS), bill.us(SORTING), bill.scratch, 0.0),
        ]
        bill.read, bill.written = bill.read + bill.scratch, bill.written + bill.scratch
        bill.worker_bytes += 4 * 8 * PART_ROWS
    bill.cores(parts)
    bill.alone()
    bill.worker_bytes += 2 * min(BATCH_BYTES, 4 * bill.recipe.dim * bill.n_rows)


def _facts(manifests: Manifests) -> dict[str, Any]:
    packed = manifests["pack"]
    facts = {"quarantine": packed.metrics["quarantine"]} if "quarantine" in packed.metrics else {}
    excess = Frame.of_properties(packed.properties["frame"]).excess(float(np.sqrt(packed.properties["variance"])))
    if excess is not None:
        facts["times_as_far_as_usual"] = excess
    if passed_over := packed.properties["passed_over"]:
        facts["passed_over"] = passed_over
    if dominant := packed.properties["dominant_feature"]:
        names = packed.properties["features"]
        facts["dominant_feature"] = dominant | {"name": names[dominant["feature"]] if names else None}
    return facts


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    if "quarantine" not in facts:
        return {}
    left_out = facts["quarantine"]
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in left_out["reasons"].items())
    return {"rows in quarantine": f"{left_out['n_rows']:,}" + (f" ({reasons})" if reasons else "")}


def _notes(metrics: dict[str, Any]) -> list[str]:
    facts, notes = metrics["pack"], []
    if "times_as_far_as_usual" in facts:
        notes.append(
            f"A few rows lie so far away that the rows are {facts['times_as_far_as_usual']:,.0f} times as far from "
            "their mean as they usually are. A network sees little of what tells the others apart; leave the far rows "
            "out, or scale the features."
        )
    if "passed_over" in facts:
        notes.append(
            f"Columns that data.column fits hold no numbers and are no features: {', '.join(facts['passed_over'])}. "
            "Cast them to numbers where they should be, or fit fewer columns."
        )
    if "dominant_feature" in facts:
        feature, share, name = (facts["dominant_feature"][key] for key in ("feature", "share", "name"))
        notes.append(f"{DominantFeature(feature, share).in_words(name or f'Feature {feature}')}.")
    if "quarantine" in facts and (n_left_out := facts["quarantine"]["n_rows"]):
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in facts["quarantine"]["reasons"].items())
        notes.append(
            f"{n_left_out:,} of the {metrics['n_rows'] + n_left_out:,} source rows are missing from every result: "
            f"{reasons}. {PACK.folder}/{FOLDER} lists their ids, files and rows."
        )
    return notes


PACK = Stage(
    name="pack",
    folder="vectors",
    purpose="Check the source's shards and pack their rows.",
    done="packed",
    inputs=lambda recipe: (SOURCE,),
    sections=("pack",),
    workers="tasks",
    run=_run,
    cost=_cost,
    facts=_facts,
    lines=_lines,
    notes=_notes,
)
