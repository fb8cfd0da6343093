"""Names, ids and labels that try to be something else: they stay text on the page, in the terminal, in the output."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from distspectral.cli.app import app
from distspectral.storage.artifact.quarantine import FOLDER
from tests.datasets import as_lists, blobs
from tests.runs import DIM, N_ROWS, write_run

SCRIPT = "<script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(1)>"
MARKUP = "[red]{{ 7 * 7 }}[/red]"
SHELL = "$(touch pwned)"


class Tags(HTMLParser):
    """All tags of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    data = folder / "data" / MARKUP.replace("/", "") / SHELL
    data.mkdir(parents=True)
    vectors, labels = blobs(N_ROWS, DIM)
    vectors[7] = np.nan
    names = np.array([SCRIPT, IMAGE, MARKUP])
    ids = [f"{SCRIPT}{row}" for row in range(N_ROWS)]
    columns = {SCRIPT: as_lists(vectors), IMAGE: ids, MARKUP: names[labels].tolist()}
    pq.write_table(pa.table(columns), data / "[bold]a.parquet")
    path = write_run(
        folder,
        data={"path": str(data), "column": SCRIPT, "id_column": IMAGE, "label_column": MARKUP,
              "on_bad_rows": "quarantine"},
        train={"batch_size": 64, "max_steps": 20, "device": "cpu"},
    )  # fmt: skip
    done = CliRunner().invoke(app, ["run", str(path), "--local", "--quiet"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.stderr
    return folder


def test_the_page_has_no_tag_that_came_from_the_data(folder: Path) -> None:
    page = (folder / "root" / "report.html").read_text()
    tags = Tags(page).found
    assert not {"img", "iframe", "object", "embed"} & {tag for tag, _ in tags}
    assert [attributes for tag, attributes in tags if tag == "script"] == [
        {"type": "application/json", "id": "data"},
        {},
    ]
    assert page.count("</script>") == 2
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    for text in (SCRIPT, IMAGE):
        assert text.replace("<", "&lt;").replace(">", "&gt;") in page, "it is shown, as text"
    assert MARKUP in page, "a template in a name is not filled in"


def test_ids_and_labels_arrive_as_they_were(folder: Path) -> None:
    (file,) = (folder / "root" / "output").glob("*.parquet")
    assert pq.read_table(file)["id"].to_pylist() == [f"{SCRIPT}{row}" for row in range(N_ROWS) if row != 7]
    quarantine = pyarrow.dataset.dataset(folder / "root" / "output" / FOLDER, format="ipc")
    (left_out,) = quarantine.to_table().to_pylist()
    assert left_out["id"] == f"{SCRIPT}7"
    assert not list(Path.cwd().glob("pwned"))


def test_a_message_names_the_file_as_it_is_called(folder: Path) -> None:
    config = str(folder / "run.yaml")
    done = CliRunner().invoke(
        app, ["run", config, "--local", "--set", "data.on_bad_rows=error"], env={"COLUMNS": "400"}
    )
    assert done.exit_code != 0
    message = " ".join(done.stderr.split())
    assert f"[bold]a.parquet: row 7 of column '{SCRIPT}'" in message
    assert MARKUP.replace("/", "") in message
