from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from distspectral.orchestration.gauges import GAUGES, MetricsObserver
from distspectral.orchestration.observer import SilentObserver

DASHBOARD = Path(__file__).parents[2] / "cluster_configs" / "grafana.json"


def scraped() -> str:
    import ray

    (node,) = [node for node in ray.nodes() if node["Alive"]]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_prometheus_finds_progress_and_rates_by_run_and_stage() -> None:
    class Heard(SilentObserver):
        windows: list[dict[str, Any]] = []  # noqa: RUF012

        def window(self, record: dict[str, Any]) -> None:
            self.windows.append(record)

    observer = MetricsObserver(Heard(), "scraped", "fingerprint")
    observer.started("train")
    observer.progress("training", 20, 40)
    observer.window({"step": 20, "loss": 1.5, "edges_per_second": 1234.0, "ritz_values": [0.0]})
    assert Heard.windows[0]["step"] == 20
    deadline = time.monotonic() + 60
    pattern = r"ray_distspectral_train_rate{.*} 1234"
    while not re.search(pattern, text := scraped()):
        assert time.monotonic() < deadline, text[-3000:]
        time.sleep(0.5)
    (line,) = [line for line in text.splitlines() if re.match(pattern, line)]
    assert all(part in line for part in ('run="scraped"', 'stage="train"', 'work="edges"'))
    assert re.search(r"ray_distspectral_items_done{.*} 20", text)


def test_the_dashboard_draws_metrics_that_exist() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    ours = {name for expression in expressions for name in re.findall(r"ray_(distspectral_\w+)", expression)}
    assert ours == set(GAUGES)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert {name for expression in expressions for name in re.findall(r"\$(\w+)", expression)} <= variables
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
