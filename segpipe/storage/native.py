"""Native clients where processes fork and end: their threads know nothing of either.

**Fork.** Threads do not follow a fork, but all of their state does. Two things follow for a client with threads of its
own (hdfs-native, with a Tokio runtime per client):

* Its destructor waits for its threads: a child that let go of one would hang for ever.
* hdfs-native keeps connections to data nodes for three seconds in a pool of the process. A child that was given one of
  those would wait on an event that is reported to the parent alone, until the data node hangs up after a minute; and
  letting go of one would take it out of the parent's event queue, because that is the same queue.

So nobody ever lets go of a client, and in a child all descriptors that belong to the parent's runtimes are replaced by
a dead socket: the pool's connections fail at once, and new ones are made.

**End.** A thread that comes back from a native call while the interpreter is being taken down is ended in the middle of
Rust, which aborts the process, or leaves locks behind on which others wait for ever. TensorFlow's threads, which read
slices ahead, do come back then. So calls under way end before the interpreter does, and none begins after that.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

_DESCRIPTORS = Path("/proc/self/fd")  # without it (not on Linux) event queues are not inherited at all

_queues: set[int] = set()
_owned: set[int] = set()
_making = threading.Lock()
_LAST_CALLS_SECONDS = 20.0
_OBJECTS = ("RawFileReader", "RawFileWriter", "FileStatusIter", "FileReadStream")


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


class Guarded:
    """A native object, and what its methods give, whose calls end before the interpreter does."""

    def __init__(self, inner: Any):
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return partial(_calls.run, value) if callable(value) else value

    def __iter__(self) -> Guarded:
        return self

    def __next__(self) -> Any:
        return _calls.run(next, self._inner)


class _Calls:
    """The native calls under way."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._running = 0
        self._closed = False

    def run(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """Call `function`; a thread that outlives the interpreter ends here instead."""
        with self.changed:
            if self._closed and threading.current_thread() is not threading.main_thread():
                raise SystemExit
            self._running += 1
        try:
            result = function(*arguments, **options)
        finally:
            with self.changed:
                self._running -= 1
                self.changed.notify_all()
        return Guarded(result) if type(result).__name__ in _OBJECTS else result

    def close(self) -> None:
        """Let no call begin any more but the main thread's, and wait for those under way."""
        with self.changed:
            self._closed = True
            self.changed.wait_for(lambda: self._running == 0, _LAST_CALLS_SECONDS)

    def forget(self) -> None:
        """In a forked child: the parent's other threads are not here."""
        self._running = 0


_calls = _Calls()
atexit.register(_calls.close)


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
    _calls.changed.acquire()
    _owned.clear()
    _owned.update(_queues, *map(_waited_for, _queues))


def _after_in_parent() -> None:
    _calls.changed.release()
    _making.release()


def _after_in_child() -> None:
    _calls.forget()
    _calls.changed.release()
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
