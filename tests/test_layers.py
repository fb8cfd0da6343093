"""The order of the packages: imports point one way, and no module imports itself by way of others."""

from __future__ import annotations

import ast
import graphlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import distspectral

ROOT = Path(distspectral.__file__).parent
LAYERS = (
    ("errors", "frozen", "mapping", "secrets", "text"),
    ("devices", "logs", "precision", "spectral", "storage"),
    ("comm", "datasets", "graph", "models", "plotting"),
    ("embedding", "objectives"),
    ("clustering", "training"),
    ("calibration", "recipes"),
    ("costs",),
    ("stages",),
    ("curation", "report", "estimators", "config", "tiles"),
    ("serving", "scanpy"),
    ("orchestration",),
    ("planning",),
    ("bench",),
    ("cli",),
)
"""From the lowest; a package imports those of lower layers alone."""
RANK = {package: rank for rank, layer in enumerate(LAYERS) for package in layer}
ENTRY = {"distspectral", "distspectral.__main__"}
"""What stands above all: they hand on what users import and start."""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in ROOT.rglob("*.py")}


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the modules of ours that an import statement names."""
    if isinstance(node, ast.ImportFrom) and node.module is not None:
        for name in (f"{node.module}.{alias.name}" for alias in node.names):
            yield name if name in MODULES else node.module
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)


def package(module: str) -> str:
    return module.split(".")[1]


def test_every_package_has_its_layer() -> None:
    assert {package(module) for module in MODULES if module not in ENTRY} == set(RANK)


def test_imports_point_to_lower_layers_also_those_for_types_and_inside_functions() -> None:
    upwards = [
        f"{module} imports {target}"
        for module, path in MODULES.items()
        if module not in ENTRY
        for node in ast.walk(ast.parse(path.read_text()))
        for target in imported(node)
        if target.startswith("distspectral.")
        and package(target) != package(module)
        and RANK[package(target)] >= RANK[package(module)]
    ]
    assert not upwards, upwards


def test_no_module_imports_itself_by_way_of_others() -> None:
    needs: dict[str, set[str]] = defaultdict(set)
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            needs[module] |= {target for target in imported(node) if target in MODULES and target != module}
    for module in ENTRY:
        del needs[module]
    graphlib.TopologicalSorter({module: others - ENTRY for module, others in needs.items()}).prepare()
