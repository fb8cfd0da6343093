from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distspectral import __version__
from distspectral.cli.app import EXIT_REFUSED, EXIT_STOPPED
from distspectral.cli.demo import digits_values
from distspectral.cli.run import SHOWN_CLUSTERS, by_cluster
from distspectral.datasets import write_vectors
from distspectral.errors import ConfigError
from distspectral.stages import STAGES
from distspectral.storage.source.dataset import Source
from tests.cli.invoking import invoke
from tests.runs import CHAIN, FOLDERS, LEARNED, N_ROWS, write_drowned_run, write_run


@pytest.fixture
def finished(finished_run: Path) -> Path:
    return finished_run


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for command in ("run", "stage", "embed", "report", "submit"):
        assert f" {command} " in result.stdout
    for command in ("inspect", "demo", "export", "plan", "schema", "serve", "submit", "validate"):
        assert f" {command} " in result.stdout
    code = (
        "import sys; from distspectral.cli import main;"
        "print(sorted({'torch', 'ray', 'faiss', 'pyarrow', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_printed() -> None:
    assert invoke("--version").stdout.strip() == __version__


def test_a_run_prints_a_table_and_where_the_report_is(finished: Path) -> None:
    result = invoke("run", finished, "--local")
    assert result.exit_code == 0
    assert "embed             up to date" in result.stderr
    assert "ACC / NMI / ARI" in result.stdout
    assert "conductance" in result.stdout
    assert "cluster 2" in result.stdout
    assert "functions: bad, " in result.stdout
    assert "verdict: Look at the learned functions" in result.stdout
    assert "\n  The learned functions: " in result.stdout, "and why"
    assert max(len(line) for line in result.stdout.splitlines() if "cluster 2" in line or "conductance" in line) <= 80
    assert f"report: {finished.parent}/root/report.html" in result.stdout


def test_of_many_clusters_the_terminal_shows_the_largest() -> None:
    columns: dict[str, list[Any]] = {
        "rows": [*range(20)],
        "share": [0.05] * 20,
        "conductance": [0.1] * 20,
        "affinity": [0.2] * 20,
    }
    shown = by_cluster(columns)
    assert list(shown) == [f"cluster {number}" for number in range(19, 19 - SHOWN_CLUSTERS, -1)]
    assert shown["cluster 19"] == {"rows": 19, "conductance": 0.1}
    few = {name: column[:3] for name, column in columns.items()}
    assert list(by_cluster(few)) == ["cluster 0", "cluster 1", "cluster 2"]
    labels = {"label": ["\x1b[31mred\n", "x" * 99, "[bold]"], "label_share": [1.0, 0.5, 0.25]}
    named = by_cluster(few | labels)
    assert named["cluster 0"]["label"] == "[31mred 100%", "no terminal obeys a label"
    assert len(named["cluster 1"]["label"]) == 24 + len(" 50%")
    assert named["cluster 2"]["label"] == "[bold] 25%"


def test_a_log_tells_each_window_of_training(tmp_path: Path) -> None:
    result = invoke("run", write_run(tmp_path), "--local")
    lines = [line for line in result.stderr.splitlines() if "Ritz sum" in line]
    assert [line.split()[1] for line in lines] == ["20", "40"]
    assert all("loss" in line and "edges/s" in line for line in lines)


def test_json_is_alone_on_stdout(finished: Path) -> None:
    result = invoke("run", finished, "--local", "--json")
    assert json.loads(result.stdout)["n_rows"] == N_ROWS
    assert "up to date" in result.stderr


def test_quiet_leaves_stderr_empty(finished: Path) -> None:
    assert invoke("run", finished, "--local", "--quiet").stderr == ""


def test_our_errors_are_one_line_and_exit_code_2(finished: Path) -> None:
    result = invoke("run", finished, "--set", "train.max_step=[/bold]")
    assert result.exit_code == EXIT_REFUSED
    assert result.stdout == ""
    assert result.stderr == f"error: {finished}: unknown key `train.max_step`; did you mean `train.max_steps`?\n"


def test_rows_that_are_all_equal_are_refused_in_the_words_of_the_config(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    write_vectors(str(tmp_path / "data"), np.full((50, 20), 3.0, np.float32), labels=np.zeros(50, np.int64))
    for part in ("part-00001.parquet", "part-00002.parquet"):
        (tmp_path / "data" / part).unlink()
    result = invoke("run", path, "--local")
    assert result.exit_code == EXIT_REFUSED
    assert "error: " in result.stderr
    assert "part-00000.parquet: all 50 rows of the dataset are equal" in result.stderr
    assert "check data.column and data.scale" in result.stderr
    assert "Traceback" not in result.stderr


def test_markup_in_a_message_is_printed_as_it_is(tmp_path: Path) -> None:
    result = invoke("run", tmp_path / "[bold]x[/bold].yaml")
    assert result.exit_code == EXIT_REFUSED
    assert "[bold]x[/bold].yaml: cannot be read" in result.stderr


def test_debug_lets_the_exception_through(tmp_path: Path) -> None:
    result = invoke("--debug", "run", tmp_path / "absent.yaml")
    assert isinstance(result.exception, ConfigError)


def test_ctrl_c_says_how_to_go_on(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distspectral.cli.run.run_config", interrupted)
    result = invoke("run", finished)
    assert result.exit_code == EXIT_STOPPED
    assert result.stderr == "stopped; run again to go on\n"


def test_validate_accepts_a_sound_run_and_starts_nothing(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    result = invoke("validate", path)
    assert result.exit_code == 0, result.stderr
    assert f"valid; {N_ROWS} rows of width 5 in 3 shards, 4 eigenfunctions kept" in result.stdout
    assert not (tmp_path / "root").exists()
    facts = json.loads(invoke("validate", path, "--json").stdout)
    assert facts["valid"] is True
    assert facts["config"]["train"]["max_steps"] == 40


def test_validate_refuses_what_contradicts_the_data(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    assert "is 500, but data.path holds 120 rows" in invoke("validate", path, "--set", "cluster.n_clusters=500").stderr
    assert "did you mean 'vector'" in invoke("validate", path, "--set", "data.column=vectr").stderr
    assert invoke("validate", path, "--set", "data.column=vectr").exit_code == EXIT_REFUSED


def test_the_schema_is_json() -> None:
    assert "cluster" in json.loads(invoke("schema").stdout)["properties"]


def test_stages_run_in_order_and_demand_their_inputs(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    refused = invoke("stage", "neighbors", path, "--local")
    assert refused.exit_code == EXIT_REFUSED
    assert "vectors: holds no finished artifact" in refused.stderr
    for stage in CHAIN:
        result = invoke("stage", stage, path, "--local", "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["stage"] == stage
    assert not (tmp_path / "root/report.html").exists()
    assert json.loads(invoke("report", path, "--json").stdout)["n_rows"] == N_ROWS
    assert "root/figures" in invoke("report", path, "--figures").stdout.replace("\n", "")
    assert (path.parent / "root/figures/map.png").stat().st_size > 1000
    assert (tmp_path / "root/report.html").exists()


def test_embed_takes_other_rows_by_a_config(finished: Path, tmp_path: Path) -> None:
    assert "is for other rows" in invoke("embed", finished, "--output", tmp_path / "x").stderr
    source, output = finished.parent / "data/part-00000.parquet", tmp_path / "embedded"
    result = invoke("embed", finished, "--local", source, "--output", output)
    assert result.exit_code == 0, result.stderr
    assert "1, 50 rows" in result.stdout
    assert (output / "part-00000.parquet").exists()


def test_embed_writes_the_columns_asked_for(finished: Path, tmp_path: Path) -> None:
    other = (finished.parent / "data/part-00000.parquet", "--output", tmp_path / "out", "--local", "--json")
    result = invoke("embed", finished, *other, "--columns", "cluster,probabilities")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["properties"]["columns"] == ["cluster", "probabilities"]
    assert "--columns: 'clusters' is none of" in invoke("embed", finished, *other, "--columns", "clusters").stderr


def test_embed_takes_a_range_of_shards_and_says_what_is_missing(finished: Path, tmp_path: Path) -> None:
    other = (finished.parent / "data", "--output", tmp_path / "out", "--local", "--columns", "cluster")
    first = invoke("embed", finished, *other, "--shard-range", "0:2")
    assert first.exit_code == 0, first.stderr
    assert first.stdout.startswith("unfinished: 2 of 3 shards are there; embed the others")
    again = invoke("embed", finished, *other, "--shard-range", "0:2", "--json")
    assert json.loads(again.stdout)["complete"] is False
    last = invoke("embed", finished, *other)
    assert last.exit_code == 0, last.stderr
    assert "3, 120 rows" in last.stdout


@pytest.mark.parametrize("text", ["2", "2:1", "1:1", "a:b", "-1:2"])
def test_a_range_that_means_none_is_refused(finished: Path, text: str) -> None:
    result = invoke("embed", finished, "--local", f"--shard-range={text}")
    assert result.exit_code == EXIT_REFUSED
    assert f"--shard-range: is {text}, expected FIRST:LAST" in result.stderr


def test_inspect_shows_an_artifact_or_a_whole_run(finished: Path, tmp_path: Path) -> None:
    root = finished.parent / "root"
    one = invoke("inspect", root / "vectors")
    assert "3, 120 rows" in one.stdout
    assert "float32" in one.stdout
    assert list(json.loads(invoke("inspect", root, "--json").stdout)) == [
        f"{root}/{folder}" for folder in FOLDERS.values()
    ]
    assert "neither a finished artifact nor a run" in invoke("inspect", tmp_path).stderr


def test_the_demo_runs_its_config_on_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brief = {"max_steps": 60, "hidden": [64]}
    learned = {
        "autoencoder": brief,
        "siamese": brief,
        "map": brief,
        "train": {"max_steps": 60},
        "distill": {"max_steps": 60},
    }
    small = digits_values(str(tmp_path)) | learned | {"network": {"hidden": [64]}}
    monkeypatch.setattr("distspectral.cli.demo.digits_values", lambda root: small)
    first = invoke("demo", "--root", tmp_path, "--local", "--json")
    assert first.exit_code == 0, first.stderr
    assert json.loads(first.stdout)["n_rows"] == 1797
    second = invoke("demo", "--root", tmp_path, "--local")
    assert second.stderr.count("up to date") == 16


def test_the_help_of_stage_lists_all_of_them() -> None:
    shown = invoke("stage", "-h").stdout
    for stages in STAGES.values():
        assert all(re.search(rf"\b{name} [A-Z]", shown) for name in stages)


def test_evaluate_prints_scores_and_writes_the_picture(finished: Path) -> None:
    scores = json.loads(invoke("evaluate", finished.parent / "root", "--json").stdout)
    assert set(scores) == {"acc", "nmi", "ari", "n_rows"}
    assert scores["n_rows"] == N_ROWS
    shown = invoke("evaluate", finished.parent / "root", "--labels", finished.parent / "data")
    assert shown.exit_code == 0, shown.stderr
    assert f"{scores['acc']:.4f}" in shown.stdout
    assert "most frequent label" in shown.stdout
    assert "<svg" in (finished.parent / "root/confusion.svg").read_text()
    refused = invoke("evaluate", finished.parent / "root", "--spectral-step")
    assert refused.exit_code == EXIT_REFUSED


def test_learned_spaces_have_their_stages(tmp_path: Path) -> None:
    path = write_run(tmp_path, **LEARNED)
    for stage in ("pack", "autoencoder", "codes", "neighbors", "graph", "siamese", "features", "reweight"):
        result = invoke("stage", stage, path, "--local", "--quiet")
        assert result.exit_code == 0, result.stderr
    assert (tmp_path / "root/reweight/.manifest.json").exists()
    refused = invoke("stage", "codes", write_run(tmp_path / "plain"), "--local")
    assert refused.exit_code == EXIT_REFUSED
    assert "stage codes: is none of this run, whose stages are pack, neighbors, graph, train" in refused.stderr
    unknown = invoke("stage", "represent", path)
    assert unknown.exit_code == EXIT_REFUSED
    assert "stage represent: is none; there are pack, trial, autoencoder, pca, codes," in unknown.stderr


def test_the_demo_runs_on_generated_rows_beside_that_of_the_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small: list[tuple[Any, ...]] = []

    def stand_in(config: Any, local: bool, quiet: bool) -> dict[str, Any]:
        small.append((config.root, config.cluster.n_clusters, Source.open(config.data).n_rows, local))
        return {}

    monkeypatch.setattr("distspectral.cli.demo.run_config", stand_in)
    result = invoke("demo", "--rows", 300, "--root", tmp_path / "demo", "--local", "--json")
    assert result.exit_code == 0, result.stderr
    assert small == [(f"{tmp_path}/demo-300", 20, 300, True)]
    assert not (tmp_path / "demo").exists()


def test_the_table_that_ends_a_run_is_of_the_stages_that_its_trial_decided_on(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "distspectral.recipes.spectral_spaces.CODED_ROWS", 100
    )  # undecided, it would have an autoencoder
    told = invoke("run", write_drowned_run(tmp_path), "--local")
    assert told.exit_code == 0, told.output
    assert re.search(r"principal components +│ 50 ", told.output)
