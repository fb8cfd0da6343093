"""The reference says all there is: keys, commands, stages, errors; artifacts as a real run writes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main
import yaml

from distspectral import errors
from distspectral.cli.app import app
from distspectral.config import RunConfig
from distspectral.datasets import write_vectors
from distspectral.stages import FOLDERS, NAMES
from docs import generated
from tests.datasets import blobs
from tests.docs.conftest import run_here
from tests.docs.pages import ROOT
from tests.runs import write_run

ARTIFACTS = (ROOT / "docs/reference/artifacts.md").read_text("utf-8")
GROUPS = ("bench", "graph")
WORDS = {"int32": "int32", "int64": "int64", "float": "float32", "halffloat": "float16", "uint32": "uint32"}


def schema_keys(schema: dict[str, Any], root: dict[str, Any], prefix: str = "") -> set[str]:
    """Return the keys that hold a value, as the JSON schema tells them."""
    found: set[str] = set()
    for key, value in schema["properties"].items():
        options = [value, *value.get("anyOf", [])]
        models = [root["$defs"][one["$ref"].rpartition("/")[2]] for one in options if "$ref" in one]
        for model in models:
            found |= schema_keys(model, root, f"{prefix}{key}.")
        if not models or any(one.get("type", "null") != "null" for one in options):
            found.add(f"{prefix}{key}")
    return found


def test_every_key_has_an_entry_with_type_default_and_meaning() -> None:
    schema, page = RunConfig.model_json_schema(), generated.config_page()
    keys = schema_keys(schema, schema)
    assert len(keys) > 110
    entries = dict(re.findall(r"^`([\w.]+)`\{#[\w.]+\}\n:   (.+)$", page, re.M))
    assert keys - set(entries) == set()
    assert [key for key, facts in entries.items() if not re.search(r", (required|default .+)$", facts)] == []
    meanings = re.findall(r"^:   .+\n\n    (.*)$", page, re.M)
    assert len(meanings) == len(entries)
    assert min(map(len, meanings)) > 5


def test_every_command_and_option_is_named() -> None:
    page = generated.commands_page()
    group: Any = typer.main.get_command(app)
    commands = {name: one for name, one in group.commands.items() if name not in GROUPS}
    for name in GROUPS:
        commands |= {f"{name} {inner}": one for inner, one in group.commands[name].commands.items()}
    for name, command in commands.items():
        section = page.partition(f"\n## {name} {{#")[2].partition("\n## ")[0]
        options = [option for one in command.params if one.param_type_name == "option" for option in one.opts]
        assert [option for option in options if option not in section] == []
        assert section


def test_every_stage_and_error_is_named() -> None:
    stages, page = generated.stages_page(), generated.errors_page()
    assert [name for name in NAMES if f"`{name}`{{#" not in stages] == []
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]
    assert [kind.__name__ for kind in kinds if f"`{kind.__name__}`{{#" not in page] == []


def test_every_folder_of_a_run_is_described() -> None:
    described = set(re.findall(r"^## ([\w-]+)$|^\| `([\w-]+)` \| `\w+` \|", ARTIFACTS, re.M))
    names = {name for pair in described for name in pair if name} | {"siamese-neighbors", "siamese-graph"}
    assert set(FOLDERS) - names == set()


def described_columns(artifact: str) -> dict[str, str]:
    """Return type by column, as the page has them."""
    section = ARTIFACTS.partition(f"\n## {artifact}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", section, re.M))


def in_words(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"list of {WORDS[str(kind.value_type)]}"
    return WORDS.get(str(kind), str(kind))


def columns(file: Path) -> dict[str, str]:
    schema = pq.read_schema(file) if file.suffix == ".parquet" else pa.ipc.open_file(file).schema
    return {field.name: in_words(field.type) for field in schema}


@pytest.mark.parametrize(
    ("artifact", "run"),
    [
        *((name, "demo") for name in ("vectors", "features", "neighbors", "graph", "reweight")),
        ("codes", "coded"),
        ("embedding", "metric"),
    ],
)
def test_columns_are_those_of_a_real_run(artifact: str, run: str, finished: Path) -> None:
    compare(described_columns(artifact), columns(finished / "runs" / run / artifact / "part-00000.arrow"))


def test_columns_of_the_exemplars_are_those_of_a_real_run(finished: Path) -> None:
    compare(described_columns("exemplars"), columns(finished / "runs/demo/exemplars/exemplars.parquet"))


def test_columns_of_the_output_are_all_that_can_be_written(workshop: Path) -> None:
    described = described_columns("output")
    written = ",".join(list(described)[1:])
    result = run_here(["embed", "run.yaml", "new", "--output", "all", "--columns", written])
    assert result.exit_code == 0, result.output
    compare(described, columns(workshop / "all/part-00000.parquet"))


def test_columns_of_the_tiles_are_those_of_a_real_run(workshop: Path) -> None:
    result = run_here(["tiles", "runs/demo", "--layers", "10,2"])
    assert result.exit_code == 0, result.output
    compare(described_columns("tiles"), columns(workshop / "runs/demo/tiles/level-00-00000.parquet"))


def test_columns_of_the_quarantine_are_those_of_a_real_run(tmp_path: Path) -> None:
    config = write_run(tmp_path)
    vectors, labels = blobs(120, 5)
    vectors[3, 2] = float("nan")
    write_vectors(str(tmp_path / "data"), vectors, labels=labels, sizes=(50, 30, 40))
    values = yaml.safe_load(config.read_text())
    values["data"]["on_bad_rows"] = "quarantine"
    config.write_text(yaml.safe_dump(values))
    result = run_here(["stage", "pack", str(config)])
    assert result.exit_code == 0, result.output
    compare(described_columns(".quarantine"), columns(tmp_path / "root/vectors/.quarantine/part-00000.arrow"))


def compare(described: dict[str, str], found: dict[str, str]) -> None:
    """Compare columns; the types of ids and labels are the user's own."""
    assert list(described) == list(found)
    assert {key: kind for key, kind in found.items() if described[key] not in ("as in your shards", kind)} == {}
