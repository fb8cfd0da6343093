"""One process at a time writes a directory: it says so in a lease beside the files, which beats while it lives.

Works on any pyarrow filesystem whose listings are consistent, for no filesystem is asked to refuse a write. Each
process writes a lease of its own that asks, and then looks at the others: of two that write at the same moment at least
one sees the other. Who sees one that holds is refused; of two that ask, the one with the lower id waits until the other
holds or is gone. On one machine a lease is dead when its process is; on another when it has not beaten for ``LEASE_S``,
by the watch of who waits, for clocks differ.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from pydantic import BaseModel, ConfigDict

from distspectral.errors import DirectoryHeldError, MissingArtifactError, OutputNotWritableError
from distspectral.storage.artifact.directory import Artifact

HOLDERS = ".holders"
"""Folder of the leases."""
BEAT_S = 5.0
LEASE_S = 30.0
"""Without a beat, after which a process on another machine is taken for dead; six beats."""
LOOK_S = 0.2
"""Between two looks at those that may be dead."""
SAME_START_S = 2.0
"""By which the start of one process may seem to differ, as the machine's clock is set right."""

logger = logging.getLogger(__name__)


class Lease(BaseModel):
    """What a process says of itself.

    Attributes:
        id: of this lease; its file's name.
        work: what it does there, for people.
        user: who started it.
        host: on which machine, for people.
        place: within which process ids mean the same processes.
        pid: of the process.
        began: when the process did, in Unix seconds.
        since: when the lease was written first, in UTC.
        is_shared: whether others that share may write beside it.
        holds: False while it asks.
        beat: number of the last beat.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    work: str = "something whose lease cannot be read"
    user: str = "unknown"
    host: str = "unknown"
    place: str = ""
    pid: int = 0
    began: float = 0.0
    since: str = "unknown"
    is_shared: bool = False
    holds: bool = True
    beat: int = 0

    @classmethod
    def mine(cls, work: str, is_shared: bool = False) -> Lease:
        """Return the lease of this process, which asks."""
        return cls(
            id=uuid.uuid4().hex,
            work=work,
            user=_user(),
            host=socket.gethostname(),
            place=_place(),
            pid=os.getpid(),
            began=psutil.Process().create_time(),
            since=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            is_shared=is_shared,
            holds=False,
        )

    def __str__(self) -> str:
        return f"{self.work} (process {self.pid} of {self.user} on {self.host}, since {self.since})"

    def lives(self) -> bool | None:
        """Whether its process does; None where that cannot be seen from here."""
        if self.place != _place():
            return None
        try:
            process = psutil.Process(self.pid)
            return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - self.began) < SAME_START_S
        except psutil.NoSuchProcess:
            return False


class Hold:
    """A directory held by this process; a context that may be entered again within itself.

    Args:
        artifact: the directory.
        work: what is done there, for those that are refused.
        shared: whether others that share may hold it at the same time.
        beat_s: between two beats.
        lease_s: after which a process elsewhere that does not beat is taken for dead.
    """

    def __init__(
        self, artifact: Artifact, work: str, *, shared: bool = False, beat_s: float = BEAT_S, lease_s: float = LEASE_S
    ) -> None:
        self.artifact, self.work, self.shared = artifact, work, shared
        self.beat_s, self.lease_s = beat_s, lease_s
        self._depth = 0
        self._is_lost = False

    def __enter__(self) -> Self:
        """Take the directory.

        Raises:
            DirectoryHeldError: another process holds it.
            OutputNotWritableError: it cannot be written.
        """
        if not self._depth:
            self._take()
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._release()

    def require(self) -> None:
        """Raise DirectoryHeldError if another process has taken the directory, having heard no beat of this one."""
        if self._is_lost:
            raise DirectoryHeldError(
                f"{self.artifact.uri}: was taken by another process, which had heard nothing of this one for "
                f"{self.lease_s:.0f} s; let that one finish, or run again to go on"
            )

    # ---- taking ------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        self._lease, self._is_lost = Lease.mine(self.work, self.shared), False
        self._is_new = self.artifact.is_local and not os.path.exists(self.artifact.path)
        self._ended, self._writing = threading.Event(), threading.Lock()
        try:
            self._write()
        except OSError as error:
            raise OutputNotWritableError(
                f"{self.artifact.uri}: cannot be written ({error}); choose another place"
            ) from error
        self._beats = threading.Thread(target=self._beat, name="beats", daemon=True)
        self._beats.start()
        try:
            self._outwait()
            with self._writing:
                self._lease = self._lease.model_copy(update={"holds": True})
                self._write()
        except BaseException:
            self._release()
            raise

    def _outwait(self) -> None:
        """Return when no other process holds the directory, or asks for it before this one.

        Raises:
            DirectoryHeldError: one does.
        """
        seen: dict[str, tuple[Lease, float]] = {}
        while rivals := self._rivals():
            for rival in rivals:
                before, since = seen.setdefault(rival.id, (rival, time.monotonic()))
                lives = rival.lives()
                if lives is None and rival.place and rival != before:  # one that cannot be read now tells nothing
                    lives = True
                elif lives is None and time.monotonic() - since > self.lease_s:
                    lives = False
                if lives and (rival.holds or rival.id < self._lease.id):
                    raise DirectoryHeldError(
                        f"{self.artifact.uri}: is held by {rival}; wait until it ends, stop it, or choose another place"
                    )
                if lives is False:
                    logger.warning("%s: was held by %s, which has died; taken over", self.artifact.uri, rival)
                    self.artifact.delete_file(_file(rival))
                elif lives is None and before is rival:
                    logger.warning(
                        "%s: is held by %s; waiting up to %.0f s for a sign of life",
                        self.artifact.uri,
                        rival,
                        self.lease_s,
                    )
            time.sleep(LOOK_S)

    def _rivals(self) -> list[Lease]:
        """Return the leases of others beside which this process may not write."""
        found = []
        for entry in self.artifact.entries(HOLDERS):
            name = entry.base_name
            if name.startswith(".") or not name.endswith(".json") or name == Path(_file(self._lease)).name:
                continue
            try:
                found.append(Lease.model_validate_json(self.artifact.read_bytes(f"{HOLDERS}/{name}")))
            except MissingArtifactError:  # let go
                continue
            except (OSError, ValueError):  # one that is being written, perhaps
                found.append(Lease(id=name.removesuffix(".json")))
        return [one for one in found if not (one.is_shared and self.shared)]

    # ---- holding -----------------------------------------------------------------------------------------------

    def _write(self) -> None:
        content = self._lease.model_dump_json(indent=2).encode()
        for is_last in (False, False, True):
            try:
                self.artifact.write_bytes(_file(self._lease), content)
                return
            except FileNotFoundError:  # another one has let go of the directory, and its folder with it
                if is_last:
                    raise

    def _beat(self) -> None:
        beaten = time.monotonic()
        while not self._ended.wait(self.beat_s):
            was_silent = time.monotonic() - beaten > self.lease_s  # so that another may be about to take it
            try:
                with self._writing:
                    if not self.artifact.has(_file(self._lease)) or (was_silent and self._rivals()):
                        self._is_lost = True
                        return
                    self._lease = self._lease.model_copy(update={"beat": self._lease.beat + 1})
                    self._write()
                    beaten = time.monotonic()
            except (OSError, OutputNotWritableError) as error:
                logger.warning("%s: its lease could not be written (%s); tried again", self.artifact.uri, error)

    def _release(self) -> None:
        self._ended.set()
        self._beats.join()
        try:
            self.artifact.delete_file(_file(self._lease))
            if self.artifact.is_local:
                with contextlib.suppress(OSError):  # something is there
                    os.rmdir(self.artifact.file_path(HOLDERS))
                    if self._is_new:
                        os.rmdir(self.artifact.path)
        except OSError as error:
            logger.warning("%s: its lease could not be removed (%s)", self.artifact.uri, error)


def _file(lease: Lease) -> str:
    return f"{HOLDERS}/{lease.id}.json"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # of a container, who is in no list
        return str(os.getuid())


def _place() -> str:
    """Return what processes have in common whose ids mean the same: a machine since its start, and one namespace."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)
