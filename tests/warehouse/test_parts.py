"""A part is there in all of its tables or in none, wherever its writer, or the one who tidies up, is killed."""

import errno
import functools
import gc
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileOpener

from segpipe.errors import StorageError, WarehouseBusy
from segpipe.storage.lock import lock
from segpipe.warehouse.parts import STAMP, PartWriter
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS, SLICES
from tests.warehouse.examples import write_part

pytestmark = pytest.mark.process

FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.listdir", "os.scandir"}


@pytest.fixture
def warehouse(tmp_path) -> Store:
    folder = tmp_path / "w"
    folder.mkdir()
    return Store(str(folder))


def any_step(event: str, arguments: tuple) -> bool:
    return event in FILE_EVENTS


def changing_step(event: str, arguments: tuple) -> bool:
    """Steps after which there is something else on the disk, or should be."""
    if event == "open":
        return arguments[1] is None or bool(set(arguments[1]) & set("wxa+"))
    return event in FILE_EVENTS - {"os.listdir", "os.scandir"}


def killed_before_step(
    number: int, folder: Path, work: Callable[[], object], counts: Callable[[str, tuple], bool] = any_step
) -> bool:
    """Run `work` in a forked process that dies by SIGKILL before its n-th step on a file; whether it got that far."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return True
        assert os.WEXITSTATUS(status) == 0
        return False
    steps = 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal steps
        if counts(event, arguments) and str(arguments[0]).startswith(str(folder)):
            steps += 1
            if steps == number:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(count)
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def visible(warehouse: Store) -> dict[str, set[str]]:
    """The run_id or row count of every part that a reader sees, per table."""
    scans = {name: warehouse.table("scans").to_table().to_pylist()[0]["run_id"] for name in warehouse.parts("scans")}
    return {"scans": set(scans.items()), "slices": set(warehouse.parts("slices"))}


def staged(warehouse: Store) -> list[str]:
    """All staged files; the empty folder of a run goes when the run ends."""
    return [str(path) for path in Path(warehouse.path("_staging")).rglob("*") if path.is_file()]


def content(warehouse: Store) -> list:
    return [warehouse.table(name).to_table().to_pylist() for name in ("slices", "scans")]


def states(tmp_path: Path) -> tuple[list, list]:
    """The content of the tables with the part as run r1 wrote it, and as r2 did."""
    found = []
    for run_id in ("r1", "r2"):
        folder = tmp_path / f"expected-{run_id}"
        folder.mkdir()
        write_part(Store(str(folder)), "p", ["anna", "bert"], run_id)
        found.append(content(Store(str(folder))))
    return found[0], found[1]


def fresh(folder: Path, replacing: bool) -> Store:
    folder.mkdir()
    warehouse = Store(str(folder))
    if replacing:
        write_part(warehouse, "p", ["anna", "bert"], "r1")
    return warehouse


def crash(warehouse: Store, step: int) -> bool:
    """Kill run r2 before a step of its writing the part; whether it got that far."""
    work = functools.partial(write_part, Store(warehouse.url), "p", ["anna", "bert"], "r2")
    return killed_before_step(step, Path(warehouse.url), work)


@pytest.mark.parametrize("replacing", [False, True], ids=["new part", "part replaced"])
def test_a_writer_killed_before_any_step_leaves_all_or_nothing(tmp_path, replacing):
    before, after = states(tmp_path)
    seen = set()
    for step in itertools.count(1):
        warehouse = fresh(tmp_path / f"w{step}", replacing)
        killed = crash(warehouse, step)
        warehouse.recover()
        assert staged(warehouse) == []
        assert content(warehouse) in ([before if replacing else [[], []], after])
        seen.add(content(warehouse) == after)
        if not killed:
            break
    assert content(warehouse) == after
    assert seen == {False, True}
    assert step > 8


def test_a_recovery_killed_before_any_step_is_finished_by_the_next(tmp_path):
    before, after = states(tmp_path)
    situations: dict[tuple, set[bool]] = {}
    for step in itertools.count(1):
        warehouse = fresh(tmp_path / f"w{step}", replacing=True)
        killed = crash(warehouse, step)
        if situation(warehouse) not in situations:
            outcomes = situations[situation(warehouse)] = set()
            for recovery_step in itertools.count(1):
                copy = Store(str(tmp_path / f"w{step}-{recovery_step}"))
                shutil.copytree(warehouse.url, copy.url)
                recovery = Store(copy.url).recover
                recovery_killed = killed_before_step(recovery_step, Path(copy.url), recovery)
                copy.recover()
                assert staged(copy) == []
                assert content(copy) in (before, after)
                outcomes.add(content(copy) == after)
                if not recovery_killed:
                    break
        if not killed:
            break
    assert all(len(outcomes) == 1 for outcomes in situations.values()), "the outcome hangs on who tidies up"
    assert len(situations) >= 6


def situation(warehouse: Store) -> tuple:
    """Which files there are and which of them the tables hold, so that each situation is tried once."""
    found = [Path(path).name for path in staged(warehouse)]
    folders = sorted(path.name.split("-")[0] for path in Path(warehouse.path("_staging")).glob("*/*"))
    replaced = [pq.read_metadata(warehouse.path(table, "p.parquet")).metadata[STAMP] for table in ("slices", "scans")]
    return tuple(sorted(found)), tuple(folders), replaced[0] == replaced[1], frozenset(visible(warehouse)["scans"])


def test_a_part_without_a_scan_is_not_written(warehouse):
    with PartWriter(warehouse, (SLICES, SCANS), "p", "r1"):
        pass
    assert visible(warehouse) == {"scans": set(), "slices": set()}
    assert staged(warehouse) == []


def fail_halfway(warehouse: Store) -> None:
    with PartWriter(warehouse, (SLICES, SCANS), "p", "r2") as part:
        part.write("scans", warehouse.table("scans").to_table())
        raise ZeroDivisionError


def test_an_exception_leaves_the_part_as_it_was(warehouse):
    write_part(warehouse, "p", ["anna"], "r1")
    before = content(warehouse)
    with pytest.raises(ZeroDivisionError):
        fail_halfway(warehouse)
    assert content(warehouse) == before
    assert staged(warehouse) == []


def test_a_run_that_lost_its_lock_cannot_commit(warehouse):
    with lock(warehouse.url, "slices-c", 0, "r1") as old:
        pass
    with lock(warehouse.url, "slices-c", 0, "r2"), pytest.raises(WarehouseBusy, match="r1"):
        write_part(warehouse, "p", ["anna"], "r1", fence=old)
    assert visible(warehouse) == {"scans": set(), "slices": set()}
    assert staged(warehouse) == []


def test_a_run_taken_for_dead_after_its_last_check_cannot_commit_either(warehouse):
    """Recovery between the check of the fence and the first rename: the rename finds its file gone."""

    class Late:
        def check(self) -> None:
            warehouse.recover()

    with pytest.raises(WarehouseBusy, match="taken for dead"):
        write_part(warehouse, "p", ["anna"], "r1", fence=Late())
    assert visible(warehouse) == {"scans": set(), "slices": set()}
    assert staged(warehouse) == []


def test_what_a_live_run_has_staged_is_left_alone(warehouse):
    with lock(warehouse.url, "slices-c", 0, "r1") as fence, PartWriter(warehouse, (SLICES, SCANS), "p", "r1", fence):
        before = staged(warehouse)
        warehouse.recover()
        assert staged(warehouse) == before != []


def test_an_attempt_drops_what_an_earlier_one_of_its_part_staged(warehouse):
    first = PartWriter(warehouse, (SLICES, SCANS), "p", "r1")
    first.__enter__()
    write_part(warehouse, "p", ["anna"], "r1")
    first.write("scans", warehouse.table("scans").to_table())
    with pytest.raises(WarehouseBusy):
        first.__exit__(None, None, None)
    assert [row["scan_id"] for row in warehouse.table("scans").to_table().to_pylist()] == ["c:anna:1"]


def test_a_table_on_another_disk_is_told_and_nothing_is_lost(warehouse, monkeypatch):
    """Whoever links a table's folder to a larger disk cannot rename into it."""
    write_part(warehouse, "c.part", ["anna"])
    before = warehouse.scans("c")
    rename = os.replace

    def only_on_one_disk(source: str, target: str) -> None:
        if "/slices/" in target:
            raise OSError(errno.EXDEV, "Invalid cross-device link", source, None, target)
        rename(source, target)

    monkeypatch.setattr(os, "replace", only_on_one_disk)
    with pytest.raises(StorageError, match=r"slices lies on another disk than .*_staging.*: move all folders"):
        write_part(warehouse, "c.more", ["bert"])
    monkeypatch.undo()
    warehouse.recover()
    assert warehouse.scans("c").equals(before)
    assert warehouse.files("slices") == ["c.part"]


@pytest.mark.parametrize("written", [0, 500, 4000, 9000])
def test_a_full_disk_is_one_error_and_nothing_that_python_tells_beside_it(warehouse, monkeypatch, written):
    beside = []
    monkeypatch.setattr(sys, "unraisablehook", beside.append)
    write, room = LocalFileOpener.write, [written]

    def until_full(file: LocalFileOpener, data: bytes) -> int:
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    monkeypatch.setattr(LocalFileOpener, "write", until_full)
    with pytest.raises(OSError, match="No space left"):
        write_part(warehouse, "c.1", ["anna", "bert"])
    gc.collect()
    assert beside == []
    assert warehouse.parts("scans") == []
