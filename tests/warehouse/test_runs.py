"""Every run leaves a row, however it ends."""

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from segpipe.errors import UsageError
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store


@dataclass(frozen=True)
class Settings:
    cohort: str = "c"
    source: str = "s3a://key:secret@bucket/archive"
    limit: int | None = None


@pytest.fixture
def warehouse(tmp_path) -> Store:
    folder = tmp_path / "w"
    folder.mkdir()
    return Store(str(folder))


def rows(warehouse: Store) -> list[dict]:
    return warehouse.table("runs").to_table().to_pylist()


def test_a_finished_run_is_on_record(warehouse):
    with record_run(warehouse, "ingest", Settings()) as run:
        with run.stage("read"):
            run.count("scans", 3)
        run.count("scans", 2)
        run.count("nothing", 0)
    (row,) = rows(warehouse)
    assert (row["job"], row["cohort"], row["outcome"], row["message"]) == ("ingest", "c", "done", None)
    assert dict(row["counts"]) == {"scans": 5, "nothing": 0}
    assert dict(row["parameters"]) == {"cohort": "c", "source": "s3a://bucket/archive", "limit": "None"}
    assert list(dict(row["stage_seconds"])) == ["read"]
    assert 0 <= dict(row["stage_seconds"])["read"] <= row["seconds"]
    assert {"segpipe", "python", "pyarrow"} <= set(dict(row["versions"]))
    assert "scans 5" in run.summary()
    assert run.run_id in run.summary()


def test_a_failed_run_is_on_record_with_its_error(warehouse):
    with pytest.raises(UsageError), record_run(warehouse, "ingest", Settings()):
        raise UsageError("Source s3a://key:secret@bucket is empty", "name another")
    (row,) = rows(warehouse)
    assert (row["outcome"], row["message"]) == ("failed", "Source s3a://bucket is empty: name another")


INTERRUPTED = """
import os, signal, sys
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts its background jobs with SIGINT ignored
before = signal.getsignal(signal.SIGTERM)
try:
    with record_run(Store(sys.argv[1]), "ingest", {"cohort": "c"}):
        os.kill(os.getpid(), int(sys.argv[2]))
        signal.sigtimedwait([], 60)
except KeyboardInterrupt:
    print("interrupted", signal.getsignal(signal.SIGTERM) is before)
"""


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_on_record(warehouse, number):
    """In a process of its own: a signal reaches any thread of a process, and this one has many of other libraries."""
    command = [sys.executable, "-c", INTERRUPTED, warehouse.url, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "interrupted True\n"
    (row,) = rows(warehouse)
    assert row["outcome"] == "interrupted"


def test_a_run_that_failed_without_a_warehouse_makes_none(tmp_path):
    warehouse = Store(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError), record_run(warehouse, "ingest", Settings()) as run:
        raise UsageError("a", "b")
    assert run.outcome == "failed"
    assert not warehouse.exists()


def test_a_table_that_cannot_be_written_costs_neither_a_result_nor_the_reason_of_a_failure(warehouse):
    """As on a read-only disk: the kernel takes no new files in /sys, not even from root."""
    Path(warehouse.path("runs")).symlink_to("/sys/kernel")
    with record_run(warehouse, "evaluate", Settings()) as run:
        run.count("scans", 3)
    assert "scans 3" in run.summary()
    assert "this run is not in the table runs, which cannot be written" in run.summary()
    with pytest.raises(UsageError, match="Source is empty"), record_run(warehouse, "ingest", Settings()):
        raise UsageError("Source is empty", "name another")
