"""What is imported is declared, and what is declared brings nothing under the GPL."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from distspectral.bench.baselines import REQUIREMENTS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
OF_USERS = [name for name in EXTRAS if name not in ("dev", "docs", "gpu")]
SCRIPT = Path("distspectral/bench/baseline_methods.py")
"""It runs in an environment of its own."""
OURS = {"distspectral", "docs", "jobs", "tests"}


def declared(extras: Iterable[str]) -> list[Requirement]:
    return [Requirement(text) for text in (*PROJECT["dependencies"], *(one for name in extras for one in EXTRAS[name]))]


def imported(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                yield name.partition(".")[0], path.relative_to(ROOT)


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("distspectral", OF_USERS),
        ("jobs", []),
        ("tests", [*OF_USERS, "dev"]),
        ("docs", ["docs"]),
    ],
)
def test_every_import_is_of_a_declared_distribution(folder: str, extras: list[str]) -> None:
    if folder == "docs":
        pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    of_module = {"umap": ["umap-learn"]} | importlib.metadata.packages_distributions()  # umap: nobody need have it
    allowed = {canonicalize_name(one.name) for one in declared(extras)}
    comparisons = allowed | {canonicalize_name(one.name) for one in declared(["dev"])}
    of_baselines = {canonicalize_name(Requirement(pin).name) for pins in REQUIREMENTS.values() for pin in pins}
    undeclared = {
        f"{path} imports {module}"
        for module, path in imported(ROOT / folder)
        if module not in OURS | set(sys.stdlib_module_names)
        and not {canonicalize_name(name) for name in of_module.get(module, [module])}
        & (of_baselines if path == SCRIPT else comparisons if "bench" in path.parts else allowed)
    }
    assert not undeclared


def brought(requirements: Iterable[Requirement]) -> dict[str, importlib.metadata.Distribution]:
    """The distributions that requirements bring here, those that these bring included, by name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    left = [(one, extra) for one in requirements for extra in ("", *one.extras)]
    seen = set()
    while left:
        requirement, extra = left.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        for text in found[name].requires or []:
            inner = Requirement(text)
            if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                left += [(inner, one) for one in ("", *inner.extras)]
    return found


def licence(distribution: importlib.metadata.Distribution) -> str:
    facts = distribution.metadata
    classifiers = [one for one in facts.get_all("Classifier", []) if one.startswith("License")]
    stated = (facts.get("License-Expression"), *(facts.get("License") or "").splitlines()[:1], *classifiers)
    return "; ".join(one for one in stated if one)


def is_gpl(text: str) -> bool:
    return re.search(r"\bA?GPL|GNU (Affero )?General Public", text) is not None and " OR " not in text


def test_nothing_that_users_install_is_under_the_gpl() -> None:
    found = brought(declared(OF_USERS))
    assert {"ray", "uvicorn", "torch", "aiohttp"} <= set(found)
    assert {name: licence(one) for name, one in found.items() if is_gpl(licence(one))} == {}


def test_what_is_the_gpl() -> None:
    texts = ("GPLv2", "GNU General Public License v2", "AGPL-3.0-only", "LGPL-2.1", "GPL-2.0 OR MIT", "Apache-2.0")
    assert [is_gpl(text) for text in texts] == [True] * 3 + [False] * 3
