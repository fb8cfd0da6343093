from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from distspectral.config.ray import RayConfig

REFUSED = """
import sys
from distspectral.errors import ConfigError
from distspectral.orchestration.connection import connect
from distspectral.config.ray import RayConfig
for address in sys.argv[1:]:
    try:
        connect(RayConfig(address=address))
    except ConfigError as error:
        print(error)
"""


def test_a_dead_address_is_refused_with_the_key_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    addresses = [f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"]
    command = [sys.executable, "-c", REFUSED, *addresses]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    for address in addresses:
        assert f"ray.address: no Ray cluster at '{address}'" in done.stdout


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_connected_process_stays_where_it_is() -> None:
    import ray

    from distspectral.orchestration.connection import connect
    from distspectral.orchestration.engine import RayEngine

    here = ray.get_runtime_context().gcs_address
    assert connect(RayConfig(address="nowhere:1")) is False
    engine = RayEngine(RayConfig())
    engine.start([])
    engine.close()
    assert ray.get_runtime_context().gcs_address == here
