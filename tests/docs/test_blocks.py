"""Every block of the README and the pages is run, or says why not; shell, Python and YAML of a page in their order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from distspectral.cli.app import app
from distspectral.config.load import validate_values
from tests.docs.conftest import run_here, save_briefly
from tests.docs.pages import PAGES, Block, blocks, name

BLOCKS = [block for page in PAGES for block in blocks(page)]
OURS = [
    pytest.param(words[words.index("distspectral") :], id=f"{name(block.page)}:{block.line}: {' '.join(words)}")
    for block in BLOCKS
    if block.language == "sh"
    for words in block.commands()
    if words[0] == "distspectral"
]
BUDGET = r"\g<0>max_steps=10, hidden=(16,), "
"""What examples are not patient enough for: the estimators run with it."""


def test_blocks_are_of_kinds_that_are_looked_after() -> None:
    assert {block.language for block in BLOCKS} <= {"sh", "python", "yaml", "text"}
    fences = sum(page.read_text("utf-8").count("```") for page in PAGES)
    assert len(BLOCKS) == fences / 2


@pytest.mark.parametrize("words", OURS)
def test_every_command_takes_what_a_page_gives_it(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    command.make_context("distspectral", words[1:])  # refuses unknown options before any command
    arguments = words[1:]
    while arguments and arguments[0].startswith("--"):
        arguments = arguments[2:]
    while hasattr(command, "commands"):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_context(command.name, arguments)  # parses and converts, runs nothing


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.reason is None for block in blocks(page))], ids=name
)
def test_the_blocks_of_a_page_run_as_they_are_printed(page: Path, workshop: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.reason is None:
            run_block(block, namespace)


def run_block(block: Block, namespace: dict[str, Any]) -> None:
    match block.language:
        case "sh":
            for words in block.commands():
                assert words[0] == "distspectral", f"line {block.line}: say why `{words[0]}` is not run"
                result = run_here(words[1:])
                assert result.exit_code == 0, f"line {block.line}: {' '.join(words)}\n{result.output}"
        case "python":
            text = re.sub(r"\b(SpectralNet|DSCL)\((?=.*\.fit)", BUDGET, block.text)
            exec(compile(text, f"{block.page.name}:{block.line}", "exec"), namespace)
        case "yaml":
            values = yaml.safe_load(block.text)
            validate_values(values, f"line {block.line}")
            save_briefly(block.text, Path(f"{values['name']}.yaml"))


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.reason is not None and block.language == "python"],
    ids=lambda block: f"{name(block.page)}:{block.line}",
)
def test_python_that_is_not_run_is_python(block: Block) -> None:
    compile(block.text, name(block.page), "exec")
