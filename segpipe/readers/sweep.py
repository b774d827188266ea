"""What lies in the folders of a local archive, in several processes where there are many: `swept`.

Listing is one short question after another to the file system. Threads ask no faster, because the interpreter is what
they wait for. Helpers are processes of their own, no copies of this one: it may hold a JVM, threads and locks.
"""

import contextlib
import marshal
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import IO, cast

from segpipe.readers import folders
from segpipe.readers.folders import Inside, inside

_MANY = 1000  # folders that wait: so many are worth a helper
_MOST = 3  # helpers: a file system on the network answers several questions at a time
_SHARE = 250  # folders that a helper is asked for at a time
_OWN = 25  # folders between two looks at the helpers


def swept(base: str, left: list[str], alone: bool) -> Iterator[Inside]:
    """What lies in the folders of `left` below `base`, which are taken out; who asks may add to them meanwhile.

    No other process helps with `alone`. Nobody waits for a helper that is slow before all else is done. Raises OSError
    as `inside` does.
    """
    helpers: list[_Helper] = []
    try:
        while left or any(helper.asked for helper in helpers):
            if len(left) >= _MANY and not helpers and not alone:
                helpers = _helpers(base)
            for helper in helpers:
                if helper.is_ready() or not left:
                    yield from helper.answer()
                    helper.ask(_taken(left, _SHARE))
            yield from (inside(base, folder) for folder in _taken(left, _OWN))
    finally:
        for helper in helpers:
            helper.end()


def _taken(left: list[str], count: int) -> list[str]:
    """The last of the folders, no longer among them."""
    some = left[-count:]
    del left[-count:]
    return some


def _helpers(base: str) -> "list[_Helper]":
    with contextlib.suppress(OSError):  # no memory, or no program to start: it goes without
        return [_Helper(base) for _ in range(min(len(os.sched_getaffinity(0)) - 1, _MOST))]
    return []


class _Helper:
    """Another process that lists folders; it ends with this one, and nothing stops because it has ended before."""

    def __init__(self, base: str) -> None:
        self.asked: list[str] = []
        self._base = base
        same_names = ("-X", f"utf8={sys.flags.utf8_mode}")  # decoded alike
        self._process = subprocess.Popen(
            [sys.executable, "-S", *same_names, folders.__file__, base],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a terminal's Ctrl-C ends it too, which is nothing to tell
        )
        self._answers = select.poll()
        self._answers.register(cast(IO[bytes], self._process.stdout))

    def is_ready(self) -> bool:
        """Whether `answer` need not wait."""
        return not self.asked or bool(self._answers.poll(0))

    def ask(self, some: list[str]) -> None:
        """Hand over folders; what was asked before has been answered."""
        self.asked = some
        if some:
            pipe = cast(IO[bytes], self._process.stdin)
            with contextlib.suppress(BrokenPipeError):
                pipe.write(folders.sent(some))
                pipe.flush()

    def answer(self) -> Iterable[Inside]:
        """What lies in the folders that were asked for; where the helper is gone, they are listed here."""
        some, self.asked = self.asked, []
        if not some:
            return ()
        pipe = cast(IO[bytes], self._process.stdout)
        try:
            return cast(list[Inside], marshal.loads(pipe.read(int.from_bytes(pipe.read(8), "little"))))
        except (EOFError, ValueError, TypeError):
            return (inside(self._base, folder) for folder in some)

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.communicate()
