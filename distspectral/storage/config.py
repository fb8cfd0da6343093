"""What a run may keep on each node's own disk."""

from __future__ import annotations

from pydantic import BaseModel, ByteSize, ConfigDict, Field

from distspectral.storage.artifact.cache import NodeCache


class StorageConfig(BaseModel):
    """Node-local copies of vectors and graph where the root is an object store (YAML section ``storage``).

    A local or shared root is mapped where it is, without copies. Nothing here changes a result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cache_dir: str = Field("/tmp/distspectral-cache", description="on a local disk of every node; shared by all runs")
    cache_bytes: ByteSize = Field(
        ByteSize(100 << 30),
        description="of all copies on a node; those used longest ago go first; 0 keeps none and reads into memory",
    )

    @property
    def node_cache(self) -> NodeCache | None:
        """The cache, None where none is wanted."""
        return NodeCache(self.cache_dir, int(self.cache_bytes)) if self.cache_bytes else None
