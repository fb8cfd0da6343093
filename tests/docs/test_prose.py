"""What a reader may count on: a short README, cells that fit, links that lead somewhere, tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import generated
from tests.docs.pages import PAGES, ROOT, name

LINK = re.compile(r"\]\((?!https?://)([^)#]*)(?:#[^)]*)?\)")
WIDEST = 120


def test_the_readme_is_short() -> None:
    assert len(PAGES[0].read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_cell_of_a_table_is_too_wide(page: Path) -> None:
    rows = [line for line in page.read_text("utf-8").splitlines() if line.startswith("|")]
    cells = [cell.strip() for row in rows for cell in row.strip("|").split(" | ")]
    assert [cell for cell in cells if len(cell) > WIDEST] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files(page: Path) -> None:
    made = {ROOT / "docs" / page_name for page_name in generated.PAGES}
    targets = [(page.parent / link).resolve() for link in LINK.findall(page.read_text("utf-8")) if link]
    assert [target for target in targets if not target.exists() and target not in made] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = [page.relative_to(ROOT / "docs") for page in PAGES[1:]]
    assert [page for page in [*map(str, pages), *generated.PAGES] if page not in navigation] == []


def test_the_tests_that_the_failure_table_names_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/explanation/failures.md").read_text("utf-8")))
    defined = {
        one for path in ROOT.glob("tests/**/test_*.py") for one in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(named) > 10
    assert {one for one in named if not any(test.startswith(one) for test in defined)} == set()


def test_files_that_the_pages_name_exist() -> None:
    pattern = re.compile(r"`((?:tests|jobs|cluster_configs|docs|distspectral)/[\w./-]+\w)`(?!, new)")
    named = {one for page in PAGES for one in pattern.findall(page.read_text("utf-8"))}
    assert len(named) > 5
    assert {one for one in named if not (ROOT / one).exists()} == set()


def test_the_tests_that_the_table_of_forms_names_exist() -> None:
    named = set(re.findall(r"\| `(\w+/[\w/]+\.py)` \|", (ROOT / "docs/reference/formats.md").read_text("utf-8")))
    assert len(named) > 8
    assert {one for one in named if not (ROOT / "tests" / one).exists()} == set()
