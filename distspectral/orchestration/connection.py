"""Joining and leaving Ray: quietly, only when a stage has work, and never ending a Ray that another one started."""

from __future__ import annotations

import logging
import os
import socket

import ray

from distspectral.config.ray import RayConfig
from distspectral.errors import ConfigError, first_line
from distspectral.orchestration.environment import environment_defaults

OBJECT_STORE_BYTES = 256 << 20
"""Of a local Ray: tasks exchange receipts and paths, the vectors stay in files."""

LOCAL_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    # Ray Data warns from C++ of every actor pool (ray-project/ray issue 53727); failures reach Python anyway.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
"""Of the processes of a local Ray."""

ANSWER_S = 10
"""An address that nobody answers is refused after it; Ray by itself tries for minutes."""


def connect(config: RayConfig) -> bool:
    """Join the cluster, or start a local one; return whether this call did so.

    A process that is connected already stays where it is. With ``address: null`` a job started by
    ``ray job submit`` joins the cluster it was submitted to.

    Raises:
        ConfigError: nothing answers at ``ray.address``.
    """
    if ray.is_initialized():
        return False
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        with environment_defaults(RAY_USAGE_STATS_ENABLED="0", **(LOCAL_ENVIRONMENT if address == "local" else {})):
            if address == "local":
                ray.init(
                    address="local",
                    num_cpus=max(os.cpu_count() or 1, (config.max_workers or 1) * config.cpus_per_worker),
                    object_store_memory=OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
            else:
                _knock(address)
                ray.init(address=address, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"ray.address: no Ray cluster at {address!r} ({first_line(error)}); start one with "
            "`ray start --head`, or set ray.address to null for a local one",
            ["ray.address"],
        ) from error
    return True


def _knock(address: str) -> None:
    """Raise OSError if nothing listens at host:port or ray://host:port."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()


def disconnect() -> None:
    """Leave the cluster; ends a local one that :func:`connect` started."""
    ray.shutdown()


def cluster_cores() -> int:
    """Return the cores of the connected cluster of this moment."""
    return max(1, int(ray.cluster_resources().get("CPU", 0)))
