"""SIGTERM as an exception, so that whoever is at work can put things in order before the process ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

TERMINATED = "terminated"


def terminate(_number: int, _frame: Any) -> None:
    """A handler of signals: raise KeyboardInterrupt, with the word by which the job's edge knows it."""
    raise KeyboardInterrupt(TERMINATED)


def was_terminated(interrupt: KeyboardInterrupt) -> bool:
    """Whether it was a SIGTERM, not Ctrl-C."""
    return str(interrupt) == TERMINATED


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as a KeyboardInterrupt; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
