"""One holder at a time, the dead replaced, the slow refused."""

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from segpipe.errors import WarehouseBusy
from segpipe.storage.lock import LEASE_SECONDS, live_runs, lock
from segpipe.warehouse.store import Store

pytestmark = pytest.mark.process


@pytest.fixture
def warehouse(tmp_path) -> Store:
    return Store(str(tmp_path / "w"))


def hold(url: str, taken, done) -> None:
    with lock(url, "c", 0, "child"):
        taken.set()
        done.wait()


@pytest.fixture
def holder(warehouse):
    """Another process that holds the lock `c`, and the event that makes it let go."""
    spawn = multiprocessing.get_context("spawn")
    taken, done = spawn.Event(), spawn.Event()
    process = spawn.Process(target=hold, args=(warehouse.url, taken, done))
    process.start()
    assert taken.wait(60)
    yield process, done
    process.kill()
    process.join()


def test_a_second_holder_is_refused_with_the_first_named(warehouse, holder):
    refused = pytest.raises(WarehouseBusy, match=f"run child .process {holder[0].pid} ")
    with refused, lock(warehouse.url, "c", 0, "second"):
        pass


def test_a_second_holder_waits_for_the_first(warehouse, holder):
    done = holder[1]
    threading.Timer(0.3, done.set).start()
    with lock(warehouse.url, "c", 60, "second"):
        assert done.is_set()


def test_a_killed_holder_is_replaced_at_once_and_its_run_is_no_longer_live(warehouse, holder):
    process, _ = holder
    assert live_runs(warehouse.url) == {"child"}
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with lock(warehouse.url, "c", 0, "second"):
        assert live_runs(warehouse.url) == {"second"}
    assert live_runs(warehouse.url) == set()


def test_other_cohorts_are_not_in_the_way(warehouse, holder):
    with lock(warehouse.url, "d", 0, "second"):
        assert live_runs(warehouse.url) == {"child", "second"}


def test_a_silent_holder_on_another_machine_is_replaced_after_its_lease(warehouse):
    with lock(warehouse.url, "c", 0, "first"):
        pass
    file = next(Path(warehouse.path("_locks", "c")).iterdir())
    elsewhere = json.loads(file.read_text()) | {"host": "elsewhere", "released": False}
    file.write_text(json.dumps(elsewhere | {"heartbeat": time.time() - LEASE_SECONDS / 2}))
    with pytest.raises(WarehouseBusy, match="elsewhere"), lock(warehouse.url, "c", 0, "second"):
        pass
    file.write_text(json.dumps(elsewhere | {"heartbeat": time.time() - LEASE_SECONDS - 1}))
    with lock(warehouse.url, "c", 0, "second") as fence:
        fence.check()


def test_the_fence_of_a_replaced_holder_raises(warehouse):
    with lock(warehouse.url, "c", 0, "first") as first:
        first.check()
    first.check()  # given back and not taken: nobody else writes
    with lock(warehouse.url, "c", 0, "second") as second:
        second.check()
        with pytest.raises(WarehouseBusy, match="first"):
            first.check()


def count_up(url: str, rounds: int) -> None:
    """Add to a number in a file, in steps that lose counts when two do so at once."""
    for _ in range(rounds):
        with lock(url, "c", 120, str(os.getpid())):
            file = Path(url) / "number"
            number = int(file.read_text()) if file.exists() else 0
            draft = file.with_suffix(f".{os.getpid()}")
            draft.write_text(str(number + 1))
            draft.rename(file)


def test_many_holders_at_once_take_turns(warehouse):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=count_up, args=(warehouse.url, 8)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (Path(warehouse.url) / "number").read_text() == "24"
    assert len(list(Path(warehouse.path("_locks", "c")).iterdir())) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run_id": "r"}'])
def test_a_lock_that_a_power_cut_left_half_written_is_named(warehouse, content):
    with lock(warehouse.url, "c", 0, "first"):
        pass
    path = Path(warehouse.path("_locks", "c", "00000001.json"))
    path.write_text(content)
    for ask in (lambda: live_runs(warehouse.url), lambda: lock(warehouse.url, "c", 0, "second").__enter__()):
        with pytest.raises(WarehouseBusy, match=r"00000001\.json is damaged: delete that file, once"):
            ask()
    path.unlink()
    with lock(warehouse.url, "c", 0, "second"):
        pass


def test_files_of_others_in_the_folder_of_a_lock_are_left_alone(warehouse):
    folder = Path(warehouse.path("_locks", "c"))
    folder.mkdir(parents=True)
    others = {"x.json", "desktop.ini", ".DS_Store", "copy of 00000001.json"}
    for name in others:
        (folder / name).touch()
    for run in ("first", "second"):
        with lock(warehouse.url, "c", 0, run):
            assert live_runs(warehouse.url) == {run}
    assert {path.name for path in folder.iterdir()} == {*others, "00000002.json"}
