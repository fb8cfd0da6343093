"""What another process of a node does in the tests of its cache; imports little, for it is started anew."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.synchronize import Barrier

from distspectral.storage.artifact.cache import NodeCache
from distspectral.storage.filesystems import resolve


def fetch_all(cache: NodeCache, uri: str, names: Sequence[str], barrier: Barrier) -> None:
    """Wait for the others, then ask for copies of the files."""
    filesystem, place = resolve(uri)
    barrier.wait(60)
    for name in names:
        cache.path(filesystem, f"{place}/{name}", name)
