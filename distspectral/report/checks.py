"""The verdict: what a run answers of itself, in words, and what to do where the answer is a warning.

Remedies are the notes of the run's stages, each beside the question that it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from distspectral.clustering.candidates import candidates_in_words
from distspectral.graph.facts import pieces_are_clusters
from distspectral.report.data import Cause, Check
from distspectral.report.formats import count, percent
from distspectral.spectral.candidates import Candidate
from distspectral.stages.tree import DISSOLVED, LEAKING, MANY_OUTLIERS
from distspectral.text import plural

Status = Literal["good", "look", "open"]
STATUS: Mapping[str, Status] = {"good": "good", "mixed": "good", "bad": "look", "unproven": "open"}
"""Of a certificate's verdict."""
ENOUGH_RECALL = 0.95
"""Recall below which neighbours are a reason to doubt; cells aim at .985."""
UNSTABLE_CLUSTER = 0.7
"""Share of a cluster that is found again below which it depends on chance. Reference: Hennig, Cluster-wise assessment
of cluster stability, 2007: above .75 valid and stable, below .6 not to be trusted."""
SHOWN = 10

OF_NOTES: Mapping[str, Status] = {"exemplars": "open"}
"""Status of what a stage notes, where it is no doubt: that there are no exemplars."""
TITLES = {
    "calibrate": "The learned functions",
    "neighbors": "The neighbours",
    "graph": "The graph",
    "cluster": "The number of clusters",
    "tree": "The clusters",
    "pack": "The rows as they were read",
    "train": "The training",
    "distill": "Rows that were not taught",
    "embed": "The rows in the clusters",
    "exemplars": "The exemplars",
    "outliers": "Outliers",
}
"""By stage; outliers have none."""


def checks(
    metrics: Mapping[str, Any],
    notes: Mapping[str, list[str]],
    embedded_graph: str,
    causes: Mapping[str, list[Cause]] | None = None,
) -> list[Check]:
    """Return what is to be said of a run, what matters most first.

    Args:
        metrics: of the run, as in ``metrics.json``.
        notes: by stage, what its declaration says of these metrics.
        embedded_graph: stage that writes the graph whose functions are learned.
        causes: by the title of a check, rows that would cause a warning; see
            :func:`distspectral.report.causes.causes`.
    """
    left = {stage: list(told) for stage, told in notes.items()}
    found = [
        _certificate(metrics, left.pop("calibrate", [])),
        _neighbors(metrics, left.pop("neighbors", [])),
        _graph(metrics[embedded_graph], metrics["cluster"], _of_graphs(left, embedded_graph)),
        _number(metrics["cluster"], left.pop("cluster", [])),
        _clusters(metrics["tree"]["clusters"], left.pop("tree", [])),
        *_stability(metrics["tree"]["clusters"]),
        *_outliers(metrics),
    ]
    others = [
        Check(
            title=TITLES.get(stage, f"The stage {stage}"),
            status=OF_NOTES.get(stage, "look"),
            words=told[0],
            remedies=told[1:],
        )
        for stage, told in left.items()
        if told
    ]
    known = {} if causes is None else causes
    return [
        one.model_copy(update={"causes": known[one.title]}) if one.status == "look" and one.title in known else one
        for one in found + others
    ]


def headline(found: list[Check]) -> str:
    """Return the verdict on all of it in one sentence."""
    doubtful = [check.title.lower() for check in found if check.status == "look"]
    unknown = [check.title.lower() for check in found if check.status == "open"]
    if doubtful:
        return f"Look at {_listed(doubtful)} before you use these clusters."
    if unknown:
        return f"Nothing speaks against these clusters; nothing is known of {_listed(unknown)}."
    return "Yes, as far as a run can know without labels: no check found a reason to doubt these clusters."


def _of_graphs(left: dict[str, list[str]], embedded: str) -> list[str]:
    """Take the notes of the graph out of those that are left, each once: weighed anew, it has what it had before."""
    told = [note for stage in dict.fromkeys(("graph", embedded)) for note in left.pop(stage, [])]
    return list(dict.fromkeys(told))


def _certificate(metrics: Mapping[str, Any], notes: list[str]) -> Check:
    certificate = metrics["calibrate"]["certificate"]
    status = STATUS[certificate["verdict"]]
    words = certificate["words"]
    told = f"{words[0].upper()}{words[1:]}."
    if any(words in note for note in notes):  # which says it with the remedy
        told = (
            "They are not the eigenfunctions of the graph."
            if certificate["verdict"] == "bad"
            else "Whether they are the eigenfunctions of the graph is open."
        )
    is_noted = status == "good" and notes
    return Check(title=TITLES["calibrate"], status="look" if is_noted else status, words=told, remedies=notes)


def _neighbors(metrics: Mapping[str, Any], notes: list[str]) -> Check:
    reached = metrics.get("neighbors", {}).get("reached_recall")
    if reached is None:
        words, status = "Every row was compared with every other, so no true neighbour is missing.", "good"
    else:
        words = f"{percent(reached)} of the true neighbours were found, by a sample."
        status = "good" if reached >= ENOUGH_RECALL else "look"
        if status == "look":
            notes = [*notes, "Raise graph.target_recall, so that more cells are searched."]
    return Check(title=TITLES["neighbors"], status="look" if notes else status, words=words, remedies=notes)


def _graph(facts: Mapping[str, Any], clusters: Mapping[str, Any], notes: list[str]) -> Check:
    words = "It is in one piece: every row is reachable from every other."
    if facts["components"] > 1:
        words = (
            f"It is in {count(facts['components'])} pieces; the largest holds "
            f"{percent(facts['largest_component_share'])} of the rows."
        )
        if pieces_are_clusters(facts, clusters):
            as_many = facts["components"] == clusters["n_clusters"]
            words += " Each is one cluster." if as_many else " No cluster holds rows of two."
    return Check(title=TITLES["graph"], status="look" if notes else "good", words=words, remedies=notes)


def _number(facts: Mapping[str, Any], notes: list[str]) -> Check:
    if facts["asked"] != "auto":
        words = f"{plural(facts['n_clusters'], 'cluster')} were asked for, so no other number was weighed."
        if facts["n_clusters"] == 1:
            words = "One cluster was asked for."
    elif facts.get("candidates"):
        first, ranks = facts["candidates"][0], candidates_in_words(facts["candidates"])
        words = f"{first['n_clusters']} stands out among the candidates (score, stability): {ranks}."
        if not Candidate(**first).stands_out:
            words = f"{first['n_clusters']} was taken and does not stand out."
    else:
        words = f"{plural(facts['n_clusters'], 'cluster')} by the largest gap of the eigenvalues; rows are few."
    return Check(title=TITLES["cluster"], status="look" if notes else "good", words=words, remedies=notes)


def _clusters(facts: Mapping[str, list[Any]], notes: list[str]) -> Check:
    conductance = facts["conductance"]
    leaking = sorted(
        (one for one in range(len(conductance)) if conductance[one] > LEAKING), key=lambda one: -conductance[one]
    )
    stability = facts.get("stability") or []
    dissolved = [one for one, found in enumerate(stability) if found and found < DISSOLVED and one not in leaking]
    worst = max(range(len(conductance)), key=conductance.__getitem__)
    words = f"The one that leaks most, {worst}, has {percent(conductance[worst])} of its affinity to others."
    return Check(
        title=TITLES["tree"],
        status="look" if notes or leaking else "good",
        words=words,
        remedies=notes,
        clusters=[*leaking, *dissolved][:SHOWN],
    )


def _stability(facts: Mapping[str, list[Any]]) -> list[Check]:
    if not (stability := facts.get("stability")):
        return []
    known = [one for one in range(len(stability)) if stability[one] is not None]
    if not known:
        return []
    unstable = sorted((one for one in known if stability[one] < UNSTABLE_CLUSTER), key=stability.__getitem__)
    least = min(known, key=stability.__getitem__)
    n_unknown = len(stability) - len(known)
    found, every = percent(stability[least]), "every other cluster" if n_unknown else "every cluster"
    words = f"From other random choices, at least {found} of {every} is found again."
    if stability[least] >= 1:
        words = f"From other random choices, {every} is found again as it is."
    remedies = []
    if unstable:
        few = f"{plural(len(unstable), 'cluster')} of {len(stability)}"
        words = (
            f"From other random choices, {few} {'come' if len(unstable) > 1 else 'comes'} out otherwise; "
            f"of cluster {least}, {found} is found again."
        )
        remedies = ["Ask for fewer clusters (distspectral recut), or look at the nearest cluster of each in the tree."]
    if n_unknown:
        words = f"{words} How stable {plural(n_unknown, 'cluster')} {'is' if n_unknown == 1 else 'are'} is unknown."
    return [
        Check(
            title="Stability",
            status="look" if unstable else "good",
            words=words,
            remedies=remedies,
            clusters=unstable[:SHOWN],
        )
    ]


def _outliers(metrics: Mapping[str, Any]) -> list[Check]:
    share = metrics.get("outlier_share")
    if share is None:
        return []
    remedies = []
    if share > MANY_OUTLIERS:
        remedies = ["Colour the map by outlier: rows that lie together are a cluster of their own, so ask for more."]
    words = f"{percent(share)} of the rows drawn are marked as outliers."
    return [Check(title=TITLES["outliers"], status="look" if remedies else "good", words=words, remedies=remedies)]


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
