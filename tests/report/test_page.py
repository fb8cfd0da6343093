from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from distspectral.report.data import ReportData
from distspectral.report.page import render

HOSTILE_LABELS = ["<script>", "bell\x00\x07", "漢字", "$x_{$", "]]>&amp;", ""]  # short: long ones are cut in figures
HOSTILE = "<script>alert('1')</script> & \"quoted\" $x_{$ \x00 漢字"
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Outline(HTMLParser):
    """Tags with attributes in order; refuses tags that are not closed in the order in which they were opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def figures(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)


def titles(page: str) -> list[str]:
    return re.findall(r"<h[23]>(.*?)</h[23]>", page)


def test_full_data_show_every_section_in_order(full_page: str) -> None:
    assert titles(full_page) == [
        "Result",
        "The embedding by cluster",
        "The embedding by label",
        "Cluster sizes",
        "Clusters in numbers",
        "How far to trust it",
        "Notes",
        "How right the functions are",
        "Error of each function",
        "Eigenvalue spectrum",
        "Convergence of the Ritz values",
        "Degrees of the graph",
        "The graph in numbers",
        "The network beside the data",
        "How it was made",
        "Time of each stage",
        "Training loss",
        "The run in numbers",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "70,000",
        "0.681",
        "0.766",
        "0.602",
        "2 min 5 s",
        "1.5 GiB",
        "The graph has 3 components.",
        "99.98%",
        "the Ritz sum no longer fell",
        "21 November 2026, 14:05 UTC",
        "The largest relative gap suggests 4 clusters, the number used here.",
        "A random sample of 200 of the 70,000 rows",
        "Configuration (4 settings)",
        "hidden:\n  - 512\n  - 256",
        "7 of 10 runs of k-means reached the best solution",
    ],
)
def test_facts_are_written_for_people(full_page: str, text: str) -> None:
    assert text in full_page


def test_page_is_well_formed_and_has_no_script(full_page: str) -> None:
    tags = [tag for tag, _ in Outline(full_page).tags]
    assert tags.count("main") == 1
    assert "script" not in tags
    assert "iframe" not in tags


def test_page_loads_nothing(full_page: str) -> None:
    for _, attributes in Outline(full_page).tags:
        for name, value in attributes.items():
            if name in {"src", "href", "xlink:href", "srcset", "data", "action"}:
                assert (value or "").startswith(("#", "data:")), f"{name}={value}"
    assert re.findall(r"url\((?!#)", full_page) == []
    assert "@import" not in full_page


def test_every_figure_is_xml_and_carries_a_caption(full_page: str) -> None:
    assert len(figures(full_page)) == 9
    for svg in figures(full_page):
        assert ElementTree.fromstring(svg).get("aria-label")
    assert len(re.findall(r"<figcaption>[^<]{40,}</figcaption>", full_page)) == 9


def test_ids_are_not_repeated_on_the_page(full_page: str) -> None:
    ids = [attributes["id"] for _, attributes in Outline(full_page).tags if "id" in attributes]
    assert sorted(ids) == sorted(set(ids))


def test_two_renders_are_equal(full: ReportData, full_page: str) -> None:
    assert render(full) == full_page


def test_hostile_strings_stay_text(values: Any) -> None:
    data = values(
        name=HOSTILE,
        version=HOSTILE,
        dtype=HOSTILE,
        config={HOSTILE: {"inner": HOSTILE}},
        seconds=dict.fromkeys([HOSTILE, *HOSTILE_LABELS], 1.0),
        notes=[HOSTILE],
    )
    data["graph"]["affinity"] = HOSTILE
    data["training"]["stopped_because"] = HOSTILE
    data["scatter"]["labels"] = [*HOSTILE_LABELS, *data["scatter"]["labels"][len(HOSTILE_LABELS) :]]
    page = render(ReportData.model_validate(data))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "script" not in [tag for tag, _ in Outline(page).tags]
    texts = ["".join(ElementTree.fromstring(svg).itertext()) for svg in figures(page)]
    assert sum("<script>" in text and "漢字" in text and "$x_{$" in text for text in texts) == 2


def test_run_without_labels_has_no_scores_and_one_scatter(values: Any) -> None:
    data = values(evaluation=None)
    data["scatter"]["labels"] = None
    page = render(ReportData.model_validate(data))
    assert "The embedding by label" not in page
    assert "ACC" not in page
    assert "The embedding by cluster" in page


def test_empty_history_is_said_in_words(values: Any) -> None:
    data = values()
    data["training"]["history"] = []
    page = render(ReportData.model_validate(data))
    assert "No training steps were recorded" in page
    assert "Convergence of the Ritz values" not in titles(page)
    assert "Training loss" not in titles(page)


def test_no_notes_are_said_in_words(values: Any) -> None:
    page = render(ReportData.model_validate(values(notes=[])))
    assert "The run raised no warnings." in page
    assert "#notes" not in page


@pytest.mark.parametrize("n_clusters", [1, 2, 20, 60, 61, 1000])
def test_any_number_of_clusters_has_a_page(values: Any, n_clusters: int) -> None:
    page = render(ReportData.model_validate(values(n_clusters)))
    Outline(page)
    n_rows = page.count('<th scope="row">')
    assert n_rows == min(n_clusters, 20)
    assert ("from the largest to the smallest" in page) == (n_clusters > 60)


def test_a_run_with_hardly_anything_has_a_page(values: Any) -> None:
    data = values(1, config={}, seconds={}, evaluation=None, certificate=None, notes=[], peak_rss_bytes=0)
    data["graph"]["degree_histogram"] = {"counts": [], "edges": []}
    data["training"]["history"] = []
    data["spectrum"] = {"ritz_values": [], "n_kept": 0}
    data["scatter"] = {"x": [], "y": [], "cluster": [], "labels": None, "n_rows_sampled": 0}
    page = render(ReportData.model_validate(data))
    Outline(page)
    assert len(figures(page)) == 1
    assert "Configuration" not in page


def test_the_metric_that_a_trial_chose_is_told_with_its_numbers(values: Any) -> None:
    data = values()
    by = {"l2": {"orphans": 0.42, "skewness": 17.9}, "centered_cosine": {"orphans": 0.02, "skewness": 2.1}}
    data["graph"] |= {"metric": "centered_cosine", "hubs": {"n_rows": 4186, **by}}
    page = render(ReportData.model_validate(data))
    assert "centred cosine, because of 4,186 sampled rows 42.0% are nobody" in page


def test_rising_ritz_sum_is_called_rising(values: Any) -> None:
    data = values()
    for window, total in zip(data["training"]["history"], range(1, 13), strict=True):
        window["ritz_sum"] = float(total)
    assert "Their sum rose by 33.3% over the last quarter" in render(ReportData.model_validate(data))


def test_other_suggestion_than_the_number_used_is_pointed_out(values: Any) -> None:
    page = render(ReportData.model_validate(values(7)))
    assert "suggests 4 clusters, this run used 7." in page


def test_rendering_never_loads_pyplot(full: ReportData) -> None:
    code = (
        "import sys; from distspectral.report.data import ReportData; from distspectral.report.page import render; "
        "render(ReportData.model_validate_json(sys.stdin.read())); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], input=full.model_dump_json(), text=True, check=False)
    assert run.returncode == 0


def test_the_network_is_set_beside_the_data_where_that_is_known(full_page: str, values: Any) -> None:
    for text in ("20-512-256-5", "a tenth of them, 7,000", "64%", "both &lt;are&gt; low"):
        assert text in full_page
    assert "7.60e6 reaches it" in full_page
    assert "The network beside the data" not in render(ReportData.model_validate(values(capacity=None)))


def test_the_certificate_says_what_it_judged_by_and_what_it_does_not_see(full_page: str, values: Any) -> None:
    assert "whose eigenvalue is near &lt;at the cut&gt;" in full_page
    assert "polished from the network" in full_page
    assert "neighbours that say nothing about the data" in full_page
    assert "did not converge" not in full_page
    by_sample = values()["certificate"] | {"method": "residuals"}
    assert "stays unseen" in render(ReportData.model_validate(values(certificate=by_sample)))
    unfinished = values()["certificate"] | {"converged": False}
    assert "did not converge" in render(ReportData.model_validate(values(certificate=unfinished)))
    assert "Error of each function" not in render(ReportData.model_validate(values(certificate=None)))
