from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from distspectral.config import load_config
from distspectral.config.ray import MlflowConfig
from distspectral.errors import ConfigError, MissingDependencyError
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import run
from tests.runs import CHAIN, write_run


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory in which MLflow keeps runs without a server, told to it by the environment."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    return (tmp_path / "mlflow").as_uri()


def test_config_windows_and_results_of_a_run_are_in_mlflow(store: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    metrics = run(load_config(write_run(tmp_path, mlflow={})), LocalEngine(), SilentObserver())
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("distspectral")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("tiny", "FINISHED")
    assert found.data.params["train.batch_size"] == "64"
    assert found.data.params["cluster.n_clusters"] == "3"
    numbers = found.data.metrics
    assert numbers["results/embed/agreement/acc"] == metrics["embed"]["agreement"]["acc"]
    stages = {name.removeprefix("seconds/") for name in numbers if name.startswith("seconds/")}
    assert stages == set(CHAIN)
    losses = client.get_metric_history(found.info.run_id, "train/loss")
    assert [loss.step for loss in losses] == [20, 40]
    written = (tmp_path / "root" / "training" / "metrics.jsonl").read_text().splitlines()
    assert [loss.value for loss in losses] == [json.loads(line)["loss"] for line in written]
    assert "train/ritz/003" in numbers


def test_a_server_that_goes_away_ends_the_log_and_not_the_run(
    store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    from distspectral.orchestration.tracking import MlflowObserver

    calls, heard = [], []

    class Heard(SilentObserver):
        def finished(self, stage: str, seconds: float) -> None:
            heard.append(stage)

    def log_batch(self: Any, run_id: str, metrics: Any) -> None:
        calls.extend(metrics)
        raise MlflowException("connection refused")

    with MlflowObserver(Heard(), MlflowConfig(), "tiny", {}) as observer:
        monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
        for stage in ("pack", "graph"):
            observer.finished(stage, 1.0)
    assert heard == ["pack", "graph"]
    assert len(calls) == 1
    assert caplog.messages == ["mlflow does not answer (connection refused); the run goes on without it"]


def test_a_failed_run_is_failed_there_too(store: str) -> None:
    from mlflow.tracking import MlflowClient

    from distspectral.orchestration.tracking import MlflowObserver

    with pytest.raises(ZeroDivisionError):  # noqa: SIM117
        with MlflowObserver(SilentObserver(), MlflowConfig(experiment="failing"), "tiny", {}) as observer:
            raise ZeroDivisionError
    assert MlflowClient(store).get_run(observer.run_id).info.status == "FAILED"


def test_nobody_at_the_uri_and_no_mlflow_are_told_before_the_run(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_run(tmp_path, mlflow={"tracking_uri": "http://127.0.0.1:1"})
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match=r"mlflow: http://127\.0\.0\.1:1: .*set mlflow\.tracking_uri"):
        run(load_config(path), LocalEngine(), SilentObserver())
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[mlflow\]'"):
        run(load_config(path), LocalEngine(), SilentObserver())
    assert not (tmp_path / "root").exists()
