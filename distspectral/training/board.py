"""TensorBoard's event file, appended window by window; a disk that is full costs points of a curve, never the run.

The libraries write from a thread behind a queue. Measured on a disk that fills up and is cleared again:

- tensorboardX 2.6.5: the thread dies, the queue of 10 events fills, and whoever adds the next point waits for ever.
- torch.utils.tensorboard (tensorboard 2.20): nobody waits, but half a record stays in the file, every later call raises
  though there is room again, and so do ``flush`` and ``close``.

So only tensorboardX's messages are used, which Ray brings along, and each window is appended at once.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

FILE_VERSION = "brain.Event:2"

logger = logging.getLogger(__name__)


class Board:
    """One event file of a local folder.

    Args:
        folder: made if it is not there.
        first_step: points from this step on that another file of the folder holds no longer count.
    """

    def __init__(self, folder: str, first_step: int) -> None:
        self.path = Path(folder, f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}")
        start = SessionLog(status=SessionLog.START)
        self._append([Event(file_version=FILE_VERSION), Event(step=first_step, session_log=start)])

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append one point to each curve."""
        self._append([Event(step=step, summary=scalar(name, value)) for name, value in values.items()])

    def _append(self, events: Sequence[Any]) -> None:
        data = b"".join(_record(event) for event in events)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab", buffering=0) as stream:
                size = stream.tell()
                if stream.write(data) < len(data):  # half a record would hide all that follow
                    os.truncate(self.path, size)
                    raise OSError("no space left")
        except OSError as error:
            logger.warning("%s: TensorBoard misses some points (%s)", self.path, error)


def _record(event: Any) -> bytes:
    """Return an event as a TFRecord: length, its checksum, the message, its checksum."""
    event.wall_time = time.time()
    message: bytes = event.SerializeToString()
    length = struct.pack("<Q", len(message))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, message))
    return length + next(checksums) + message + next(checksums)
