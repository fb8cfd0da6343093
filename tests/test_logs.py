from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distspectral import logs
from distspectral.cli.app import app
from distspectral.errors import ConfigError
from distspectral.storage.artifact.directory import Artifact
from tests.runs import CHAIN, write_run

pytestmark = pytest.mark.usefixtures("own_log")


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_of_a_run_says_run_stage_and_rank(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    done = CliRunner().invoke(app, ["--log", str(log), "run", str(write_run(tmp_path)), "--local", "--quiet"])
    assert done.exit_code == 0, done.output
    events = lines(log.read_text())
    assert {(line["run"], line["rank"]) for line in events} == {("tiny", "driver")}
    (run_id,) = {line["run_id"] for line in events}
    assert Artifact(str(tmp_path / "root" / "exemplars")).manifest().fingerprint == run_id
    finished = [line["stage"] for line in events if line["event"] == "stage finished"]
    assert tuple(finished) == CHAIN
    windows = [line for line in events if line["event"] == "training window"]
    assert [(line["stage"], line["step"]) for line in windows] == [
        (stage, step) for stage in ("train", "distill", "map") for step in (20, 40)
    ]


def test_an_error_is_a_line_too(tmp_path: Path) -> None:
    command = ["run", str(tmp_path / "missing.yaml")]
    done = CliRunner().invoke(app, command, env={"DISTSPECTRAL_LOG": "-"})
    assert done.exit_code == 2
    (line,) = lines(done.stderr.splitlines()[0])
    assert (line["level"], line["rank"]) == ("error", "driver")
    assert "missing.yaml" in str(line["event"])


def test_a_worker_says_what_the_driver_said_with_a_rank_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert logs.context() is None, "nothing is written unless asked for"
    logs.adopt_context(None, 3)
    logs.event("not written")
    logs.adopt_context({"run": "r", "stage": "train", "rank": "driver"}, 3)
    with logs.timed("training", workers=4):
        logging.getLogger("distspectral.training.skipping").warning("a step was %s", "skipped")
    with pytest.raises(ZeroDivisionError), logs.timed("item"):
        raise ZeroDivisionError("none")
    skipped, finished, failed = lines(capsys.readouterr().err)
    assert all((line["run"], line["stage"], line["rank"]) == ("r", "train", 3) for line in (skipped, finished, failed))
    assert (skipped["event"], skipped["level"]) == ("a step was skipped", "warning")
    assert (finished["event"], finished["workers"]) == ("training finished", 4)
    assert (failed["level"], failed["error"]) == ("error", "ZeroDivisionError: none")


def test_warnings_stay_on_the_terminal_beside_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.write_log(str(tmp_path / "log.jsonl"))
    logging.getLogger("distspectral.stages").warning("look")
    logs.event("quiet")
    assert capsys.readouterr().err == "look\n"
    assert [line["event"] for line in lines((tmp_path / "log.jsonl").read_text())] == ["look", "quiet"]


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name another file"):
        logs.write_log(str(tmp_path / "missing" / "log.jsonl"))
