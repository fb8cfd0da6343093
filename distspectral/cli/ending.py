"""How a command ends that is told to: within seconds, saying how to go on, whatever it is doing.

The first signal raises in the main thread, so that what is open is closed. A thread that Python's wakeup descriptor
feeds hears of it too, while the main thread sits in a library, or in a handler that Ray has put in the place of ours:
after ``GRACE_S``, or at a second signal, it ends this process at once. What a run has written bears that, for its
files are whole or absent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import psutil

STOPPED = "stopped; run again to go on"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 4.0
"""For closing what is open; leaving Ray takes about two seconds."""
HEARD_S = 0.2
"""For the thread to hear of a signal that the main thread has met."""


class Ending:
    """The signals of one command.

    Attributes:
        family: processes below this one when the first signal came; those whose parent ends are not found later.
    """

    def __init__(self) -> None:
        self.family: list[psutil.Process] = []
        self._signal: int | None = None
        self._heard = threading.Event()
        self._has_raised = False

    def told(self, error: BaseException) -> int | None:
        """Return the signal that made the command end in this error, if one did."""
        if not isinstance(error, Exception):  # what handlers raise, ours and Ray's
            self._heard.wait(HEARD_S)
        return self._signal

    def leave(self, number: int) -> NoReturn:
        """End this process and those below it now, with the exit code that is customary for the signal.

        Not by way of the interpreter's own end, in which Ray's threads abort the process.
        """
        for process in [*self.family, *psutil.Process().children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError):
            os.write(2, f"{STOPPED}\n".encode())
        os._exit(128 + number)

    def _raise(self, number: int, frame: Any) -> None:
        if not self._has_raised:
            self._has_raised = True
            raise KeyboardInterrupt

    def _watch(self, signals: socket.socket) -> None:
        while told := signals.recv(1):
            if (number := told[0]) not in SIGNALS:
                continue
            if self._signal is not None:
                self.leave(self._signal)
            signal.alarm(0)  # by which Ray's handler, while Ray starts, would abort the process
            self.family = psutil.Process().children(recursive=True)
            self._signal = number
            self._heard.set()
            timer = threading.Timer(GRACE_S, self.leave, [number])
            timer.daemon = True
            timer.start()


@contextlib.contextmanager
def ends_when_told() -> Iterator[Ending]:
    """Yield what becomes of the signals while the block runs; one that is ignored, as under nohup, stays so."""
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():  # where no handler can be set
        yield ending
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    handled = [one for one in SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, ending._raise) for one in handled}
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=ending._watch, args=[reader], name="signals", daemon=True)
    watcher.start()
    try:
        yield ending
    finally:
        signal.set_wakeup_fd(descriptor)
        for one, handler in before.items():
            signal.signal(one, handler)
        writer.close()  # by which the thread ends
        watcher.join()
        reader.close()
