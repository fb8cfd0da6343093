"""Train on a cluster of two nodes, lose one, get it back.

Prints Ray's session directory, then the windows heard, with wall-clock seconds, as JSON.

A process of its own: it starts a cluster, and the tests' process is part of another one already.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from distspectral.config import load_config
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline
from distspectral.orchestration.train import train
from distspectral.storage.sources import Source
from tests.runs import write_run

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
HEAD = {**NODE, "include_dashboard": False, "dashboard_agent_listen_port": 0}  # the tests' own cluster has the default
TRAIN = {"batch_size": 512, "max_steps": 100_000, "window_steps": 50, "checkpoint_steps": 100, "patience": 0,
         "device": "cpu"}  # fmt: skip


def main(folder: Path) -> None:
    """Write the run to ``folder`` and train it until the lost node is back and a window was trained with it."""
    config = load_config(write_run(folder, train=TRAIN, ray={"workers": {"min": 1, "max": 2, "check_s": 2}}))
    pipeline = Pipeline(config, Source.open(config.data), LocalEngine(), SilentObserver())
    pipeline.command("pack")
    pipeline.command("graph")
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    print(ray._private.worker.global_worker.node.get_session_dir_path(), flush=True)  # its logs, should Ray end this
    node = cluster.add_node(**NODE)
    windows: queue.Queue[dict[str, Any]] = queue.Queue()
    inputs = (pipeline.plan.artifact("pack"),), pipeline.plan.artifact("graph")
    arguments = (*inputs, pipeline.plan.outputs["train"], config.train_settings, config.ray, windows.put)
    threading.Thread(target=train, args=arguments, daemon=True).start()  # only a main thread can start a node

    heard: list[dict[str, Any]] = []
    lost = returned = False
    while not (returned and heard[-1]["workers"] == 2):
        record = windows.get()
        heard.append({key: record[key] for key in ("step", "workers", "loss")} | {"at": time.monotonic()})
        if record["workers"] == 2 and record["step"] >= 200 and not lost:
            cluster.remove_node(node, allow_graceful=False)
            lost = True
        if record["workers"] == 1 and lost and not returned:
            cluster.add_node(**NODE)
            returned = True
    print(json.dumps(heard), flush=True)
    os._exit(0)  # training would go on for long; the kernel ends the cluster with its parent


if __name__ == "__main__":
    main(Path(sys.argv[1]))
