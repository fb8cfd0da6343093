from __future__ import annotations

from typing import Any

import pytest

from distspectral.report.checks import checks, headline
from distspectral.report.data import Cause, CauseRow, Check
from distspectral.stages.graph import GRAPH


def metrics(**changes: Any) -> dict[str, Any]:
    clusters = {"conductance": [0.1, 0.2], "rows": [5, 5]}
    found: dict[str, Any] = {
        "calibrate": {"certificate": {"verdict": "good", "words": "all 3 functions can be trusted"}},
        "graph": {"components": 1, "largest_component_share": 1.0},
        "neighbors": {},
        "cluster": {"asked": 2, "n_clusters": 2, "parts": 1, "strayed": 0.0},
        "tree": {"clusters": clusters},
        "embed": {},
    }
    return found | changes


def by_title(found: list[Check]) -> dict[str, Check]:
    return {check.title: check for check in found}


def test_a_run_without_warnings_is_trusted() -> None:
    found = checks(metrics(), {}, "graph")
    assert {check.status for check in found} == {"good"}
    assert found[0].words == "All 3 functions can be trusted."
    assert headline(found).startswith("Yes")


@pytest.mark.parametrize(
    ("verdict", "status", "said"),
    [
        ("mixed", "good", "Yes"),
        ("bad", "look", "Look at the learned functions before"),
        ("unproven", "open", "nothing is known of the learned"),
    ],
)
def test_the_certificate_decides_what_is_said_first(verdict: str, status: str, said: str) -> None:
    certificate = {"verdict": verdict, "words": "words"}
    found = checks(metrics(calibrate={"certificate": certificate}), {}, "graph")
    assert found[0].status == status
    assert said in headline(found)


def test_exemplars_that_are_not_there_are_no_doubt() -> None:
    found = checks(metrics(), {"exemplars": ["There are no exemplars."]}, "graph")
    assert by_title(found)["The exemplars"].status == "open"
    assert headline(found).endswith("nothing is known of the exemplars.")


def test_each_note_stands_beside_its_question_and_none_is_lost() -> None:
    notes = {"cluster": ["ask for another"], "pack": ["rows are missing", "repair them"], "reweight": ["pieces"]}
    told = metrics(reweight={"components": 3, "largest_component_share": 0.5})
    found = by_title(checks(told, notes, "reweight"))
    assert found["The number of clusters"].remedies == ["ask for another"]
    assert found["The graph"].words == "It is in 3 pieces; the largest holds 50% of the rows."
    assert found["The graph"].remedies == ["pieces"]
    assert found["The rows as they were read"].words == "rows are missing"
    assert found["The rows as they were read"].remedies == ["repair them"]
    assert {found[title].status for title in ("The number of clusters", "The graph")} == {"look"}


@pytest.mark.parametrize(("n_clusters", "words"), [(2, "Each is one cluster."), (3, "No cluster holds rows of two.")])
def test_pieces_that_are_clusters_are_a_fact_and_no_warning(n_clusters: int, words: str) -> None:
    clusters = {"asked": n_clusters, "n_clusters": n_clusters, "parts": 2, "strayed": 0.0}
    facts = {"components": 2, "largest_component_share": 0.5, "orphans": 0.0, "in_degree_skewness": 0.0}
    told = metrics(cluster=clusters, graph=facts)
    found = by_title(checks(told, {"graph": GRAPH.notes(told)}, "graph"))["The graph"]
    assert found.status == "good"
    assert found.words == f"It is in 2 pieces; the largest holds 50% of the rows. {words}"
    mixed = told | {"cluster": clusters | {"strayed": 0.1}}
    warned = by_title(checks(mixed, {"graph": GRAPH.notes(mixed)}, "graph"))["The graph"]
    assert (warned.status, "no edge joins" in warned.remedies[0]) == ("look", True)


def test_missed_neighbours_ask_for_more_cells() -> None:
    found = by_title(checks(metrics(neighbors={"reached_recall": 0.9}), {}, "graph"))["The neighbours"]
    assert found.status == "look"
    assert "graph.target_recall" in found.remedies[0]
    assert by_title(checks(metrics(neighbors={"reached_recall": 0.99}), {}, "graph"))["The neighbours"].status == "good"


def test_clusters_that_leak_or_depend_on_chance_are_named_the_worst_first() -> None:
    clusters = {"conductance": [0.6, 0.1, 0.9], "rows": [1, 1, 1], "stability": [0.9, None, 0.2]}
    found = by_title(checks(metrics(tree={"clusters": clusters}), {}, "graph"))
    assert found["The clusters"].clusters == [2, 0], "that it is dissolved, too, is no second cause"
    assert found["Stability"].clusters == [2]
    assert found["Stability"].status == "look"
    clusters = {"conductance": [0.1, 0.1], "rows": [1, 1], "stability": [0.9, 0.3]}
    noted = checks(metrics(tree={"clusters": clusters}), {"tree": ["not found again: 1"]}, "graph")
    assert by_title(noted)["The clusters"].clusters == [1]
    assert "Stability" not in by_title(checks(metrics(), {}, "graph"))


@pytest.mark.parametrize(
    ("stability", "said"),
    [
        ([1.0, 1.0], "From other random choices, every cluster is found again as it is."),
        ([0.9, 1.0], "From other random choices, at least 90% of every cluster is found again."),
        (
            [0.9, None],
            "From other random choices, at least 90% of every other cluster is found again. How stable 1 cluster is "
            "is unknown.",
        ),
    ],
)
def test_how_stable_clusters_are_is_said_of_those_of_which_it_is_known(stability: list[Any], said: str) -> None:
    clusters = {"conductance": [0.1, 0.1], "rows": [1, 1], "stability": stability}
    assert by_title(checks(metrics(tree={"clusters": clusters}), {}, "graph"))["Stability"].words == said


@pytest.mark.parametrize(
    ("titles", "said"),
    [
        (["The graph"], "Look at the graph before you use these clusters."),
        (["The clusters", "Outliers"], "Look at the clusters and outliers before you use these clusters."),
    ],
)
def test_the_headline_names_what_is_to_be_looked_at(titles: list[str], said: str) -> None:
    assert headline([Check(title=title, status="look", words="") for title in titles]) == said


def test_the_number_of_clusters_stands_out_or_not() -> None:
    more = {"rise": 0.1, "gap": 0.0, "stability": 0.9}
    candidates = [{"n_clusters": 4, "score": 0.1, **more}, {"n_clusters": 9, "score": 0.05, **more}]
    found = by_title(checks(metrics(cluster={"asked": "auto", "n_clusters": 4, "candidates": candidates}), {}, "graph"))
    assert found["The number of clusters"].words == "4 was taken and does not stand out."
    candidates[0]["score"] = 0.3
    found = by_title(checks(metrics(cluster={"asked": "auto", "n_clusters": 4, "candidates": candidates}), {}, "graph"))
    assert found["The number of clusters"].words == (
        "4 stands out among the candidates (score, stability): 4 (0.30, 0.90), 9 (0.05, 0.90)."
    )
    candidates[0]["stability"] = 0.5
    found = by_title(checks(metrics(cluster={"asked": "auto", "n_clusters": 4, "candidates": candidates}), {}, "graph"))
    assert "does not stand out" in found["The number of clusters"].words


def test_what_a_remedy_says_is_not_said_twice() -> None:
    note = "The learned functions are not the graph's: too wrong. Train longer."
    certificate = {"verdict": "bad", "words": "too wrong"}
    found = checks(metrics(calibrate={"certificate": certificate}), {"calibrate": [note]}, "graph")
    assert found[0].words == "They are not the eigenfunctions of the graph."
    both = {"graph": ["3 components"], "reweight": ["3 components"]}
    told = checks(metrics(reweight={"components": 3, "largest_component_share": 0.5}), both, "reweight")
    assert [check.remedies for check in told if check.title == "The graph"] == [["3 components"]]


def test_outliers_are_told_where_they_are_known() -> None:
    assert by_title(checks(metrics(outlier_share=0.2), {}, "graph"))["Outliers"].status == "look"
    assert by_title(checks(metrics(outlier_share=0.02), {}, "graph"))["Outliers"].status == "good"


def test_warnings_name_the_rows_that_cause_them_and_good_answers_none() -> None:
    cause = [Cause(words="Farthest", rows=[CauseRow(id="a", drawn=3)])]
    named = {"Outliers": cause, "The graph": cause}
    found = by_title(checks(metrics(outlier_share=0.2), {}, "graph", named))
    assert found["Outliers"].causes == cause
    assert found["The graph"].causes == []
