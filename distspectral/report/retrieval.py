"""The page of a run of objective dscl: rows of unseen classes with their nearest, and what is taken for what.

Shape letters: N rows looked at, Q queries among them, M rows nearest to each.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from distspectral import __version__
from distspectral.errors import ConfigError, TooFewClassesError
from distspectral.report import plots
from distspectral.report.data import TrainingWindow
from distspectral.report.formats import count, duration, n_bytes, number, percent
from distspectral.report.next_steps import metric_steps
from distspectral.report.packing import shortened
from distspectral.report.page import Card, Plot, date_in_words, filled, settings_text
from distspectral.report.pictures import as_png, picture_look
from distspectral.report.rows import as_text
from distspectral.secrets import redacted_values
from distspectral.stages.evaluate import UnitRows, comparison, rows_in_words, unseen_rows
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.text import plural
from distspectral.training.run_log import read_windows

LOOKED_AT, QUERIES = 20_000, 500
"""Rows of unseen classes that nearest ones are sought among, and those that they are sought for."""
SHOWN, NEAREST, PAIRS = 10, 6, 8
"""Queries that the page shows of either kind, rows nearest to each, and pairs of classes."""
LONGEST_NAME = 30
SECTIONS = (
    ("result", "What does it find?"),
    ("trust", "Can I trust it?"),
    ("next", "What next?"),
    ("made", "How it was made"),
)


@dataclasses.dataclass(frozen=True)
class Found:
    """A row as it is shown: with the address of its picture, and for a query the rows nearest to it."""

    id: str
    label: str
    picture: str | None = None
    nearest: Sequence[Found] = ()


@dataclasses.dataclass(frozen=True)
class Retrieved:
    """What the page shows of rows.

    Attributes:
        queries: a random choice.
        misses: those whose nearest is of another class.
        pairs: classes taken for one another, in words.
        chance: share of queries whose nearest would be of their class if any row were as near; None without rows.
    """

    queries: Sequence[Found] = ()
    misses: Sequence[Found] = ()
    pairs: Sequence[str] = ()
    chance: float | None = None


def metric_page(
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    artifacts: Mapping[str, Artifact],
    manifests: Mapping[str, Manifest],
) -> str:
    """Return the page of a finished run as HTML that runs no script and loads nothing.

    Args:
        config: the whole resolved config as plain values.
        metrics: of the run, as in ``metrics.json``.
        artifacts: by stage name.
        manifests: by stage name.
    """
    found = retrieved(artifacts["pack"], artifacts["embed"], config)
    told, training = metrics["evaluate"], manifests["train"].metrics
    windows = _windows(artifacts["train"])
    loss = (
        [Plot("Training loss", Markup(plots.loss_curve(windows)), "It should fall and level off.")] if windows else []
    )
    seconds = dict(metrics["seconds"])
    facts = [
        ("Data", f"{plural(metrics['n_rows'], 'row')} by {count(metrics['dim'])}"),
        ("Training", plural(training["steps"], "step")),
        ("Training stopped because", training["stopped_because"]),
        ("Peak memory, all processes", n_bytes(metrics["peak_rss_bytes"])),
        ("distspectral", __version__),
    ]
    return filled(
        "metric.html.j2",
        script="",
        kind="A metric learned from labels",
        name=metrics["name"],
        made=date_in_words(datetime.now(UTC)),
        version=__version__,
        sections=SECTIONS,
        cards=_cards(metrics),
        **vars(found),
        headline=_headline(told, found.chance),
        scores=_scores(told),
        steps=metric_steps(artifacts["embed"].uri.rpartition("/")[0]),
        trained=bool(windows),
        made_plots=[Plot("Time of each stage", Markup(plots.stage_seconds(seconds)), "Wall-clock time."), *loss],
        edges=[],
        taught=[],
        facts=facts,
        **settings_text(redacted_values(config)),
    )


def retrieved(vectors: Artifact, embedding: Artifact, config: Mapping[str, Any]) -> Retrieved:
    """Return rows of unseen classes and the rows nearest to them by the metric, of a seeded choice; nothing of none.

    Args:
        vectors: finished ``vectors`` artifact, for pictures.
        embedding: finished ``embedding`` artifact of the same rows.
        config: of the run.
    """
    mapped = MappedVectors(embedding)
    try:
        rows, _ = unseen_rows(mapped, embedding)
    except (ConfigError, TooFewClassesError):
        return Retrieved()
    generator = np.random.default_rng(config["seed"])
    center, basis = comparison(mapped, rows, config["evaluate"]["spectral_step"])
    rows = np.sort(generator.choice(rows, min(len(rows), LOOKED_AT), replace=False))
    if len(rows) < 2:
        return Retrieved()
    points = UnitRows(mapped, rows, center, basis).block(0, len(rows))
    queries = np.sort(generator.choice(len(rows), min(len(rows), QUERIES), replace=False))
    cosines = points[queries] @ points.T
    cosines[np.arange(len(queries)), queries] = -np.inf
    n_nearest = min(NEAREST, len(rows) - 1)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :n_nearest]

    column = mapped.labels()
    assert column is not None, "unseen classes have labels"
    labels = [str(one) for one in shortened([str(one) for one in column.take(rows).to_pylist()], LONGEST_NAME)]
    ids = [str(one) for one in shortened(as_text(mapped.ids().take(rows)), LONGEST_NAME)]
    raw = MappedVectors(vectors)
    look = picture_look(raw, config["data"]["image_shape"])

    def found(row: int, near: Sequence[int] = ()) -> Found:
        picture = None if look is None else as_png(raw, look, int(rows[row]))
        return Found(ids[row], labels[row], picture, [found(int(one)) for one in near])

    names = np.asarray(labels)
    wrong = np.flatnonzero(names[nearest[:, 0]] != names[queries])
    confused = Counter((labels[queries[one]], labels[nearest[one, 0]]) for one in wrong)
    chosen = np.sort(generator.choice(len(queries), min(len(queries), SHOWN), replace=False))
    sizes = np.unique(names, return_counts=True)[1]
    return Retrieved(
        queries=[found(int(queries[one]), nearest[one].tolist()) for one in chosen],
        misses=[found(int(queries[one]), nearest[one].tolist()) for one in _spread(wrong, names[queries[wrong]])],
        pairs=[
            f"{own} taken for {other}, {plural(n, 'time')} of {(names[queries] == own).sum()}"
            for (own, other), n in confused.most_common(PAIRS)
        ],
        chance=float((sizes * (sizes - 1)).sum() / (len(names) * (len(names) - 1))),
    )


def _spread(misses: NDArray[np.int64], classes: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return so many misses as are shown, of as many classes as there are."""
    first = np.sort(np.unique(classes, return_index=True)[1])
    order = np.concatenate([first, np.setdiff1d(np.arange(len(misses)), first)])
    return np.sort(misses[order[:SHOWN]])


def _windows(training: Artifact) -> list[TrainingWindow]:
    nothing = {"ritz_values": [], "ritz_sum": 0.0}
    return [TrainingWindow.model_validate(nothing | window) for window in read_windows(training)]


def _cards(metrics: Mapping[str, Any]) -> list[Card]:
    cards = [Card(count(metrics["n_rows"]), "rows"), Card(count(metrics["dim"]), "dimensions")]
    if (scores := metrics["evaluate"].get("retrieval")) is not None:
        cards += [
            Card(f"{scores['recall_at']['1']:.3f}", "Recall@1, the nearest is of the same class"),
            Card(f"{scores['map_at_r']:.3f}", "MAP@R, how pure the nearest are"),
        ]
    return [*cards, Card(duration(sum(metrics["seconds"].values())), "total time")]


def _headline(told: Mapping[str, Any], chance: float | None) -> str:
    if (scores := told.get("retrieval")) is None:
        return f"Nothing is known: {told['not_evaluated']}."
    share = percent(scores["recall_at"]["1"])
    by_chance = "" if chance is None else f" By chance, {percent(chance)} would."
    learned = f"Of rows whose class training never saw, {share} have a nearest row of the same class.{by_chance}"
    return f"{learned} {rows_in_words(dict(told))}"


def _scores(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    if (scores := told.get("retrieval")) is None:
        return [("Not evaluated", told["not_evaluated"])]
    recall = [
        (f"One of the {at} nearest is of the same class", percent(share)) for at, share in scores["recall_at"].items()
    ]
    recall[0] = ("The nearest is of the same class", recall[0][1])
    of_rows = ("The same of the rows as they are", percent(told["retrieval_of_rows"]["recall_at"]["1"]))
    recall.insert(1, of_rows)
    return [*recall, ("MAP@R", number(scores["map_at_r"])), ("NMI of k-means with the classes", number(scores["nmi"]))]
