"""Native clients and fork: a child can neither use nor end what its parent's native threads were doing.

Threads do not follow a fork, but all of their state does. Two things follow for a client with threads of its own
(hdfs-native, with a Tokio runtime per client):

* Its destructor waits for its threads: a child that let go of one would hang for ever, and so might a process that
  ends while they work.
* hdfs-native keeps connections to data nodes for three seconds in a pool of the process. A child that was given one of
  those would wait on an event that is reported to the parent alone, until the data node hangs up after a minute; and
  letting go of one would take it out of the parent's event queue, for that is the same queue.

So nobody ever lets go of a client, and in a child all descriptors that belong to the parent's runtimes are replaced by
a dead socket: the pool's connections fail at once, and new ones are made.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_DESCRIPTORS = Path("/proc/self/fd")  # without it (not on Linux) event queues are not inherited at all

_queues: set[int] = set()
_owned: set[int] = set()
_making = threading.Lock()


@contextmanager
def watched() -> Iterator[list[Any]]:
    """Make native clients in this block and append them to the list: they stay for ever, children leave them alone."""
    made: list[Any] = []
    with _making:
        before = _event_queues()
        yield made
        _queues.update(_event_queues() - before)
        for client in made:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


def _event_queues() -> set[int]:
    """The numbers of this process's epoll descriptors."""
    found = set()
    for number in _numbers():
        with suppress(OSError):
            if os.readlink(_DESCRIPTORS / number) == "anon_inode:[eventpoll]":
                found.add(int(number))
    return found


def _numbers() -> list[str]:
    with suppress(OSError):
        return os.listdir(_DESCRIPTORS)
    return []


def _waited_for(queue: int) -> set[int]:
    """The descriptors that are registered with an epoll descriptor."""
    with suppress(OSError):
        lines = Path(f"/proc/self/fdinfo/{queue}").read_text().splitlines()
        return {int(line.split()[1]) for line in lines if line.startswith("tfd:")}
    return set()


def _before_fork() -> None:
    _making.acquire()
    _owned.clear()
    _owned.update(_queues, *map(_waited_for, _queues))


def _after_in_parent() -> None:
    _making.release()


def _after_in_child() -> None:
    _making.release()
    if _owned:
        dead, other = socket.socketpair()
        other.close()
        for descriptor in _owned:
            os.dup2(dead.fileno(), descriptor, inheritable=False)
        dead.close()
    _queues.clear()
    _owned.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
