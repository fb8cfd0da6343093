from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from distspectral.config.ray import RayConfig

REFUSED = """
from distspectral.errors import ConfigError
from distspectral.orchestration.connection import connect
from distspectral.config.ray import RayConfig
try:
    connect(RayConfig(address={address!r}))
except ConfigError as error:
    print(error)
"""


def test_a_dead_address_is_refused_at_once_with_the_key_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        began = time.monotonic()
        code = REFUSED.format(address=address)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert f"ray.address: no Ray cluster at '{address}'" in done.stdout
        assert time.monotonic() - began < 40


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_connected_process_stays_where_it_is() -> None:
    import ray

    from distspectral.orchestration.connection import connect
    from distspectral.orchestration.engine import RayEngine

    here = ray.get_runtime_context().gcs_address
    assert connect(RayConfig(address="nowhere:1")) is False
    engine = RayEngine(RayConfig())
    engine.start()
    engine.close()
    assert ray.get_runtime_context().gcs_address == here


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_gpus_are_asked_for_only_where_there_are_enough() -> None:
    from distspectral.orchestration.connection import wants_gpus

    assert wants_gpus(RayConfig(use_gpu="auto")) is False
    assert wants_gpus(RayConfig(use_gpu=True)) is True
