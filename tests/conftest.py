"""Fixtures that several packages' tests share."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.runs import write_run

if TYPE_CHECKING:
    from tests.storage.s3 import S3Server

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads on a busy machine cost tenfold
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")  # 2 by default, once per checkpoint and start
os.environ.setdefault(
    "RAY_worker_niceness", "0"
)  # 15 by default: beside tests that compute, ranks starve until given up
# of the S3 server that tests start; Ray's workers inherit them
os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
# NN-descent is compiled for a minute and runs for a moment. Numba keeps what it compiles, slow as it is, beside the
# package, where every later program would find it: so these tests have a place of their own
os.environ.setdefault("NUMBA_OPT", "0")
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache/numba"))
torch.set_num_threads(1)
# whoever starts the tests in the background has them ignored, and all that tests start would ignore them, too
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

OBJECT_STORE_BYTES = 200 << 20
DISK_BYTES = 4 << 20


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray with two CPUs; tests that use it carry the marker ``ray``."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a tiny run that is finished, its report included; a test that spoils it copies it first."""
    from tests.stages.chain import opened

    path = write_run(tmp_path_factory.mktemp("finished"))
    opened(path).run()
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four MiB in memory; skipped where mounting is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, f"size={DISK_BYTES}".encode()) != 0:
        pytest.skip(f"mounting a tmpfs: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(str(folder).encode(), 2)  # lazily: a mapped file may still be open


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A server with an empty bucket; tests write below a name of their own."""
    from tests.storage.s3 import S3Server

    with S3Server() as server:
        yield server


@pytest.fixture
def own_log() -> Iterator[None]:
    """A process that writes no log yet, whatever ran before in this one; its log is then as it was."""
    from distspectral import logs

    handlers, level, facts = list(logs.LOGGER.handlers), logs.LOGGER.level, dict(logs.CONTEXT)
    for handler in handlers:
        logs.LOGGER.removeHandler(handler)
    logs.CONTEXT.clear()
    logs.CONTEXT["rank"] = "driver"
    yield
    for handler in list(logs.LOGGER.handlers):
        logs.LOGGER.removeHandler(handler)
        handler.close()
    for handler in handlers:
        logs.LOGGER.addHandler(handler)
    logs.LOGGER.setLevel(level)
    logs.CONTEXT.clear()
    logs.CONTEXT.update(facts)
