"""SIGTERM as an exception, so that whoever is at work can put things in order before the process ends."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

TERMINATED = "terminated"


def terminate(_number: int, _frame: Any) -> None:
    """A handler of signals: raise KeyboardInterrupt, with the word by which the job's edge knows it."""
    raise KeyboardInterrupt(TERMINATED)


def interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The first interrupt that led to an error; None if none did.

    What an interrupt breaks off may fail while it tidies up, and its error takes the interrupt's place: py4j shuts its
    connections down, and Spark's JVM may have got the same signal.
    """
    found: KeyboardInterrupt | None = None
    at: BaseException | None = error
    while at is not None:
        found = at if isinstance(at, KeyboardInterrupt) else found
        at = at.__context__
    return found


def was_terminated(interrupt: KeyboardInterrupt) -> bool:
    """Whether it was a SIGTERM, not Ctrl-C."""
    return str(interrupt) == TERMINATED


def ended_by(interrupt: KeyboardInterrupt) -> int:
    """The exit code of a launcher that was interrupted; after a SIGTERM also a line, because no key was pressed."""
    if not was_terminated(interrupt):
        return 130
    print("segpipe: terminated before a job had begun: run the same command again", file=sys.stderr)
    return 143


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM, where it would end the process, end the block as a KeyboardInterrupt; only the main thread can."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
