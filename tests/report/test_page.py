from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import subprocess
import sys
import zlib
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
    return re.findall(r"<h[23][^>]*>(.*?)</h[23]>", page)


def scripts(page: str) -> list[str]:
    return re.findall(r"<script[^>]*>(.*?)</script>", page, flags=re.DOTALL)


def payload_of(page: str) -> Any:
    return json.loads(scripts(page)[0])


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def test_full_data_show_every_section_in_order(full_page: str) -> None:
    assert titles(full_page) == [
        "What are my clusters?",
        "The tree",
        "Clusters in numbers",
        "Can I trust them?",
        '<span class="mark" aria-hidden="true">✓</span> The learned functions<span class="hidden">: good</span>',
        '<span class="mark" aria-hidden="true">!</span> The graph<span class="hidden">: needs a look</span>',
        "Labels and clusters",
        "How right the functions are",
        "Error of each function",
        "Degrees of the graph",
        "The graph in numbers",
        "What next?",
        "Commands",
        "Open the rows",
        "Files",
        "How it was made",
        "Eigenvalue spectrum",
        "Convergence of the Ritz values",
        "Time of each stage",
        "Training loss",
        "Edges that training drew, and all",
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
        "It is in 3 pieces.",
        "Raise graph.n_neighbors.",
        "Look at the graph before you use these clusters.",
        "99.98%",
        "the Ritz sum no longer fell",
        "21 November 2026, 14:05 UTC",
        "distspectral recut &#39;/data/run&#39;&#34;&#39;&#34;&#39;s&#39; --n-clusters 2",
        "A random 200 of 70,000 rows. This run has no map",
        "5 rows of left (under 0.1% of them) in cluster 1, which is mostly right",
        "Configuration (4 settings)",
        "hidden:\n  - 512\n  - 256",
        "7 of 10 runs of k-means reached the best solution",
    ],
)
def test_facts_are_written_for_people(full_page: str, text: str) -> None:
    assert text in full_page


def test_the_table_of_labels_and_clusters_names_both_sides(full_page: str) -> None:
    table = full_page[full_page.index('<table class="confusion">') :]
    head = re.findall(r'<th scope="(\w+)"[^>]*>(\w+)</th>', table[: table.index("</thead>")])
    assert head[:2] == [("colgroup", "cluster"), ("col", "label")]


def test_page_is_well_formed_and_has_its_own_two_scripts_alone(full_page: str) -> None:
    tags = [tag for tag, _ in Outline(full_page).tags]
    assert tags.count("main") == 1
    assert tags.count("script") == 2
    assert "iframe" not in tags


def test_the_policy_names_the_hashes_of_script_and_style_and_allows_no_request(full_page: str) -> None:
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', full_page)
    assert found is not None
    policy = dict(rule.split(" ", 1) for rule in html.unescape(found[1]).split("; "))
    assert policy["default-src"] == "'none'"
    assert "connect-src" not in policy
    styles = re.findall(r"<style>(.*?)</style>", full_page, flags=re.DOTALL)
    for part, name in ((scripts(full_page)[1], "script-src"), (styles[0], "style-src-elem")):
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert policy[name] == f"'sha256-{digest}'"
    assert len(styles) == 1, "a figure's own rules would be refused"


def test_page_loads_nothing(full_page: str) -> None:
    for _, attributes in Outline(full_page).tags:
        for name, value in attributes.items():
            if name in {"src", "href", "xlink:href", "srcset", "data", "action"}:
                assert (value or "").startswith(("#", "data:")), f"{name}={value}"
    assert re.findall(r"url\((?!#)", full_page) == []
    assert "@import" not in full_page


def test_every_figure_is_xml_and_carries_a_caption(full_page: str) -> None:
    assert len(figures(full_page)) == 6
    for svg in figures(full_page):
        assert ElementTree.fromstring(svg).get("aria-label")
    assert len(re.findall(r"<figcaption[^>]*>[^<]{40,}</figcaption>", full_page)) == 7


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
        root=HOSTILE,
        config={HOSTILE: {"inner": HOSTILE}},
        seconds=dict.fromkeys([HOSTILE, *HOSTILE_LABELS], 1.0),
        checks=[{"title": HOSTILE, "status": "look", "words": HOSTILE, "remedies": [HOSTILE]}],
    )
    data["checks"][0]["causes"] = [{"words": HOSTILE, "rows": [{"id": HOSTILE, "drawn": 0}, {"id": HOSTILE}]}]
    data["graph"]["affinity"] = HOSTILE
    data["training"]["stopped_because"] = HOSTILE
    data["rows"]["labels"] = [*HOSTILE_LABELS, *data["rows"]["labels"][len(HOSTILE_LABELS) :]]
    data["rows"]["ids"][0] = HOSTILE
    data["rows"]["columns"][HOSTILE] = data["rows"]["columns"].pop("text")
    data["confusion"]["classes"] = [HOSTILE, "</script><script>alert(2)</script>"]
    page = render(ReportData.model_validate(data))
    assert page.count("<script") == page.count("</script>") == 2
    assert "{{" not in page.replace("{{ 7", "")
    assert "&lt;script&gt;" in page
    Outline(page)
    assert payload_of(page)["name"] == HOSTILE
    assert json.loads(unpacked(payload_of(page)["rows"]["ids"]))[0] == HOSTILE
    texts = ["".join(ElementTree.fromstring(svg).itertext()) for svg in figures(page)]
    assert sum("<script>" in text and "漢字" in text and "$x_{$" in text for text in texts) == 1


def test_no_script_of_ours_makes_html_of_text(full_page: str) -> None:
    script = scripts(full_page)[1]
    assert "textContent" in script
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_run_without_labels_has_no_scores_and_no_confusions(values: Any) -> None:
    data = values(evaluation=None, confusion=None)
    data["rows"]["labels"] = None
    page = render(ReportData.model_validate(data))
    assert "Labels and clusters" not in page
    assert "ACC" not in page
    assert payload_of(page)["labels"] is payload_of(page)["rows"]["label"] is None


def test_empty_history_is_said_in_words(values: Any) -> None:
    data = values()
    data["training"]["history"] = []
    page = render(ReportData.model_validate(data))
    assert "No training steps were recorded" in page
    assert "Convergence of the Ritz values" not in titles(page)
    assert "Training loss" not in titles(page)


@pytest.mark.parametrize("n_clusters", [1, 2, 20, 60, 61, 1000])
def test_any_number_of_clusters_has_a_page(values: Any, n_clusters: int) -> None:
    page = render(ReportData.model_validate(values(n_clusters)))
    Outline(page)
    n_rows = page.count('<th scope="row">')
    assert n_rows == min(n_clusters, 20) + (2 if n_clusters <= 30 else 0)
    assert ("labels and clusters are too many for a table" in page) == (n_clusters > 30)


def test_a_run_with_hardly_anything_has_a_page(values: Any) -> None:
    data = values(1, config={}, seconds={}, evaluation=None, certificate=None, checks=[], peak_rss_bytes=0)
    data["graph"]["degree_histogram"] = {"counts": [], "edges": []}
    data["training"]["history"] = []
    data["spectrum"] = {"ritz_values": [], "n_kept": 0}
    data["rows"] = {"x": [], "y": [], "cluster": []}
    data |= {"exemplars": None, "tree": None, "candidates": [], "confusion": None, "edges": None}
    page = render(ReportData.model_validate(data))
    Outline(page)
    assert len(figures(page)) == 0
    assert "so there is no map" in page
    assert "Configuration" not in page


def test_few_rows_do_not_tell_how_stable_clusters_are(values: Any) -> None:
    data = values()
    n_clusters = data["clusters"]["n_clusters"]
    data["clusters"]["stability"] = [None] * (n_clusters - 1) + [0.5]
    assert '"stability": [null, ' in render(ReportData.model_validate(data))


def test_what_a_trial_chose_is_told_with_its_numbers(values: Any) -> None:
    data = values()
    predicted = {"rows, l2": 0.109, "rows, centered_cosine": 0.15}
    trial = {"space": "rows", "metric": "centered_cosine", "n_rows": 4000, "predicted": predicted}
    data["graph"] |= {"metric": "centered_cosine", "trial": trial}
    page = render(ReportData.model_validate(data))
    assert "half of the features of 4,000 rows" in page
    assert "10.9% by Euclidean of rows, 15.0% by centred cosine of rows" in page


def test_rising_ritz_sum_is_called_rising(values: Any) -> None:
    data = values()
    for window, total in zip(data["training"]["history"], range(1, 13), strict=True):
        window |= {"ritz_sum": float(total), "step": 50 * total}
    assert "Their sum rose by 33.3% over the last 150 of 600 steps." in render(ReportData.model_validate(data))


def test_rendering_never_loads_pyplot(full: ReportData) -> None:
    code = (
        "import sys; from distspectral.report.data import ReportData; from distspectral.report.page import render; "
        "render(ReportData.model_validate_json(sys.stdin.read())); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], input=full.model_dump_json(), text=True, check=False)
    assert run.returncode == 0


def test_edges_never_drawn_are_told_of_and_worst_cases_are_not(full_page: str, values: Any) -> None:
    for text in ("64%", "both &lt;are&gt; low"):
        assert text in full_page
    assert "VC dimension" not in full_page
    assert "Edges that training drew" not in render(ReportData.model_validate(values(edges=None)))
    assert "Ritz sum, every edge of the graph" in full_page
    sampled = values()["edges"] | {"sampled_rows": 262_144}
    assert "Ritz sum, edges of 262,144 sampled rows" in render(ReportData.model_validate(values(edges=sampled)))


def test_what_a_map_is_and_how_much_of_it_is_drawn_is_said(values: Any) -> None:
    data = values()
    data["rows"] |= {"place": "map", "density": {"side": 2, "counts": [0, 1, 2, 3], "n_rows": 6000}}
    page = render(ReportData.model_validate(data))
    assert "A random 200 of 70,000 rows, over the density of 6,000. Rows that lie together are near" in page
    assert "This run has no map" not in page


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


def test_a_run_with_a_map_is_told_of_tiles(values: Any) -> None:
    told = values()
    assert "distspectral tiles" not in render(ReportData.model_validate(told))
    told["rows"]["place"] = "map"
    assert "distspectral tiles &#39;/data/run&#39;" in render(ReportData.model_validate(told))
