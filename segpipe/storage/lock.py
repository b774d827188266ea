"""One writer at a time for a cohort's tables or a model, on any file system, and proof that it still is the one.

A lock is a folder of numbered files, and the highest number holds it. Taking a lock means to create the next
number, which succeeds for exactly one of any number of takers; giving it back means to mark one's own file as released.
The highest file is never deleted, so the number only grows, and a worker of a run that was taken for dead finds
a higher number than its own: the number is the fencing token (Kleppmann 2016, "How to do distributed locking").
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from segpipe.errors import WarehouseBusy
from segpipe.storage import filesystem as files

LOCKS = "_locks"

LEASE_SECONDS = 120.0
"""A holder that has not been heard of for this long is taken for dead, wherever it runs."""

_HEARTBEAT_SECONDS = 10.0
_POLL_SECONDS = 0.5
_NUMBERED = re.compile(r"\d{8,}\.json")
_OWN = re.compile(r"\.?(\d{8,})\.json(?:\..*\.draft)?")  # drafts of killed writers too


@dataclass(frozen=True)
class Holder:
    """What a lock file says: who holds the lock, since when, and when it was last heard of (seconds since 1970)."""

    run_id: str
    host: str
    pid: int
    process_start: str
    taken: float
    heartbeat: float
    released: bool = False

    def is_gone(self) -> bool:
        """Whether the lock may be taken over: given back, its process dead, or silent for a whole lease."""
        if self.released or time.time() - self.heartbeat > LEASE_SECONDS:
            return True
        return self.host == _host() and _process_start(self.pid) != self.process_start


@dataclass(frozen=True)
class Fence:
    """The right of a run to commit, to be carried to its workers."""

    url: str
    name: str
    number: int
    run_id: str

    def check(self) -> None:
        """Raise WarehouseBusy where another run has taken the lock over."""
        if max(_Folder(self.url, self.name).numbers(), default=self.number) > self.number:
            raise WarehouseBusy(
                f"Run {self.run_id} was taken for dead and another run now writes {self.name} in {self.url}",
                "let that one finish; nothing of this run is lost or doubled",
            )


@contextlib.contextmanager
def lock(url: str, name: str, wait_seconds: float, run_id: str) -> Iterator[Fence]:
    """Hold the lock `name` of a folder, a warehouse's or a model's, while the block runs.

    Waits up to `wait_seconds` for another holder, then raises WarehouseBusy. A holder whose process is dead, or that
    was silent for `LEASE_SECONDS`, is replaced at once.
    """
    folder = _Folder(url, name)
    number, holder = folder.take(time.monotonic() + wait_seconds, run_id)
    stop = threading.Event()
    beat = threading.Thread(target=_keep_alive, args=(folder, number, holder, stop), daemon=True)
    beat.start()
    try:
        yield Fence(url, name, number, run_id)
    finally:
        stop.set()
        beat.join()
        with contextlib.suppress(FileNotFoundError):  # tidied up by the run that took the lock over
            folder.write(number, replace(holder, heartbeat=time.time(), released=True))


def live_runs(warehouse_url: str) -> set[str]:
    """The run_ids that hold a lock of this warehouse, dead ones that nobody has replaced yet included."""
    fs, root = files.filesystem(warehouse_url)
    names = [name for name in files.names(fs, files.join(root, LOCKS)) if name[0] != "."]
    holders = [_Folder(warehouse_url, name).newest()[1] for name in names]
    return {holder.run_id for holder in holders if holder is not None and not holder.released}


class _Folder:
    """The numbered files of one lock."""

    def __init__(self, url: str, name: str):
        self.url, self.name = url, name
        self.fs, root = files.filesystem(url)
        self.path = files.join(root, LOCKS, name)

    def numbers(self) -> list[int]:
        found = files.names(self.fs, self.path)
        return sorted(int(file.removesuffix(".json")) for file in found if _NUMBERED.fullmatch(file))

    def newest(self) -> tuple[int, Holder | None]:
        while True:
            numbers = self.numbers()
            if not numbers:
                return 0, None
            with contextlib.suppress(FileNotFoundError):  # tidied up by a newer holder: look again
                return numbers[-1], self._holder(self.fs.cat_file(self._file(numbers[-1])), numbers[-1])

    def _holder(self, content: bytes, number: int) -> Holder:
        try:
            return Holder(**json.loads(content))
        except (ValueError, TypeError, RecursionError):
            raise WarehouseBusy(
                f"Nobody knows who holds {self.name} in {self.url}, because {self._file(number)} is damaged",
                "delete that file, once you are sure that no job writes there",
            ) from None

    def take(self, deadline: float, run_id: str) -> tuple[int, Holder]:
        files.make_folder(self.fs, self.path)
        while True:
            number, holder = self.newest()
            if holder is None or holder.is_gone():
                mine = self._claim(number + 1, run_id)
                if mine is not None:
                    return number + 1, mine
            elif time.monotonic() >= deadline:
                raise WarehouseBusy(
                    f"{self.name} in {self.url} is being written by run {holder.run_id}"
                    f" (process {holder.pid} on {holder.host.split()[0]})",
                    "wait for it, or give --lock-wait-seconds",
                )
            else:
                time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def write(self, number: int, holder: Holder) -> None:
        files.replace(self.fs, self._file(number), _text(holder))

    def _claim(self, number: int, run_id: str) -> Holder | None:
        """Create the file with this number and tidy up the lower ones; None where another run was faster."""
        now = time.time()
        holder = Holder(run_id, _host(), os.getpid(), _process_start(os.getpid()), now, now)
        try:
            files.exclusive_create(self.fs, self._file(number), _text(holder))
        except (FileExistsError, FileNotFoundError):
            return None
        if max(self.numbers()) > number:  # the number was taken, given back and tidied up since it was chosen
            files.remove(self.fs, self._file(number))
            return None
        for name in files.names(self.fs, self.path):
            match = _OWN.fullmatch(name)
            if match and int(match[1]) < number:
                files.remove(self.fs, files.join(self.path, name))
        return holder

    def _file(self, number: int) -> str:
        return files.join(self.path, f"{number:08d}.json")


def _keep_alive(folder: _Folder, number: int, holder: Holder, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):  # a missed beat is made up for by the next; the lease allows for many
            folder.write(number, replace(holder, heartbeat=time.time()))


def _text(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _host() -> str:
    """This machine and, in containers that share its name, this container."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _process_start(pid: int) -> str:
    """When a process was started, so that a later process with the same pid is told from it; empty where it is dead."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return "" if Path("/proc/self").exists() else _alive(pid)
    return "" if state == "Z" else fields[18]


def _alive(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
