from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.storage.s3 import S3Server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A server with an empty bucket; tests write below a name of their own."""
    with S3Server() as server:
        yield server
