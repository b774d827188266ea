"""What lies in the folders of a local archive, in several processes where there are many: `swept`.

Listing is one short question after another to the file system. Threads ask no faster, because the interpreter is what
they wait for. Helpers are processes of their own, no copies of this one: it may hold a JVM, threads and locks.
"""

import contextlib
import marshal
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, cast

from segpipe.readers import folders
from segpipe.readers.folders import Inside, inside

_MANY = 1000  # folders that wait: so many are worth a helper, and are asked for at a time
_MOST = 3  # helpers: a file system on the network answers several questions at a time


def swept(base: str, left: list[str], alone: bool) -> Iterator[Inside]:
    """What lies in the folders of `left` below `base`, which are taken out; who asks may add to them meanwhile.

    No other process helps with `alone`. Raises OSError as `inside` does.
    """
    helpers: list[_Helper] = []
    try:
        while left:
            some = left[-_MANY:]
            del left[-_MANY:]
            if len(some) == _MANY and not helpers and not alone:
                helpers = _helpers(base)
            own, *shares = (some[place :: len(helpers) + 1] for place in range(len(helpers) + 1))
            for helper, share in zip(helpers, shares, strict=True):
                helper.ask(share)
            yield from (inside(base, folder) for folder in own)
            for helper, share in zip(helpers, shares, strict=True):
                yield from helper.answer() or (inside(base, folder) for folder in share)
    finally:
        for helper in helpers:
            helper.end()


def _helpers(base: str) -> "list[_Helper]":
    with contextlib.suppress(OSError):  # no memory, or no program to start: it goes without
        return [_Helper(base) for _ in range(min(len(os.sched_getaffinity(0)) - 1, _MOST))]
    return []


class _Helper:
    """Another process that lists folders; it ends with this one, and nothing stops because it has ended before."""

    def __init__(self, base: str) -> None:
        same_names = ("-X", f"utf8={sys.flags.utf8_mode}")  # decoded alike
        self._process = subprocess.Popen(
            [sys.executable, "-S", *same_names, folders.__file__, base],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a terminal's Ctrl-C ends it too, which is nothing to tell
        )

    def ask(self, some: list[str]) -> None:
        """Hand over folders; `answer` is to be called next."""
        pipe = cast(IO[bytes], self._process.stdin)
        with contextlib.suppress(BrokenPipeError):
            pipe.write(folders.sent(some))
            pipe.flush()

    def answer(self) -> list[Inside]:
        """What lies in the folders; nothing if the helper is gone."""
        pipe = cast(IO[bytes], self._process.stdout)
        try:
            return cast(list[Inside], marshal.loads(pipe.read(int.from_bytes(pipe.read(8), "little"))))
        except (EOFError, ValueError, TypeError):
            return []

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.communicate()
