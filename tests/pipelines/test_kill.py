"""Exactly once: whatever of an ingest is killed, the same command ends in the tables of an uninterrupted run.

Real processes are killed by SIGKILL at random moments: of a local Spark, and executors of a Spark that has them as
processes of their own. `SEGPIPE_KILLS` sets how often, `SEGPIPE_KILL_SEED` which moments. The default of 1 kills the
driver; `make test-all` kills thirty times. tests/warehouse/test_parts.py kills before every single step of a commit.
What outlives the loss of a worker is the ingest itself, so that it runs in the Spark of the tests.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from tests.pipelines.examples import archive, leftovers, part_files, run_ingest, spoil, tables
from tests.pipelines.ingest_process import PART_MB
from tests.processes import workers_of_spark

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("SEGPIPE_KILLS", "1"))
SEED = int(os.environ.get("SEGPIPE_KILL_SEED", "0"))
SUBJECTS = 24
VICTIMS = ("driver", "jvm", "executor")
MASTERS = {"executor": "local-cluster[2,1,1024]"}
SURVIVED = ("worker", "executor")
"""Spark starts another one, and the run itself comes to its end."""

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Scans for a dozen parts of PART_MB; one scan is bad."""
    folder = archive(tmp_path_factory.mktemp("killed") / "source", SUBJECTS, seed=3, shape=(20, 56, 48))
    for role in ("flair", "t1", "t1ce", "t2"):  # one damaged file would drop out alone
        spoil(folder, "Synthetic_03_005", role, b"no image")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(spark, source, tmp_path_factory) -> tuple[dict, float, int]:
    """The tables of a run that nobody killed, its seconds, and its parts."""
    warehouse = tmp_path_factory.mktemp("uninterrupted") / "w"
    begun = time.monotonic()
    run_ingest(spark, source, warehouse, part_mb=PART_MB)
    seconds = time.monotonic() - begun
    parts = len(scans_by_part(warehouse))
    assert parts >= 8
    return tables(warehouse), seconds, parts


@pytest.mark.timeout(60 * (KILLS + 4))  # the first makes what all are compared with
@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_ingest_is_finished_by_the_next(spark, source, uninterrupted, tmp_path, number):
    expected, seconds, parts = uninterrupted
    rng = np.random.default_rng([SEED, number])
    victim = VICTIMS[number % len(VICTIMS)]
    warehouse = tmp_path / "w"
    with started(source, warehouse, MASTERS.get(victim, "local[2]")) as process:
        wait_for_parts(lambda: process.poll() is not None, warehouse, int(rng.integers(0, parts)))
        family = kill(process, victim, delay=rng.uniform(0, seconds / parts))
        before = part_files(warehouse)
        if victim in SURVIVED:
            assert process.wait() == 0, process.stderr.read()
            assert tables(warehouse) == expected
    finished = sum(map(len, scans_by_part(warehouse).values()))
    # The next run starts at once, while the children of the killed one may still be at work.
    outcome, run = run_ingest(spark, source, warehouse, part_mb=PART_MB)
    psutil.wait_procs(family, timeout=60)
    assert tables(warehouse) == expected
    assert before.items() <= part_files(warehouse).items(), "a finished part was written again"
    print(
        f"{victim} killed with {len(before) / 2} of {parts} parts written; the next run had {outcome.skipped} to skip"
    )
    assert outcome.skipped >= finished
    assert run.counts["scans_decoded"] == SUBJECTS - outcome.skipped - outcome.known_bad
    assert_finished(spark, source, warehouse)


@pytest.mark.parametrize("number", range(-(-KILLS // len(VICTIMS))))
def test_an_ingest_outlives_its_worker(spark, source, uninterrupted, tmp_path, number):
    expected, seconds, parts = uninterrupted
    rng = np.random.default_rng([SEED, 1, number])
    warehouse = tmp_path / "w"
    with futures.ThreadPoolExecutor(1) as pool:
        job = pool.submit(run_ingest, spark, source, warehouse, part_mb=PART_MB)
        wait_for_parts(job.done, warehouse, int(rng.integers(0, parts // 2)))
        futures.wait([job], timeout=rng.uniform(0, seconds / parts))
        before = part_files(warehouse)
        assert not job.done(), "nothing was killed"
        for worker in workers_of_spark():
            worker.kill()
        job.result()
    assert tables(warehouse) == expected
    assert before.items() <= part_files(warehouse).items(), "a finished part was written again"
    assert_finished(spark, source, warehouse)


def assert_finished(spark, source: Path, warehouse: Path) -> None:
    """There is nothing left to do, and nothing left over."""
    again, _ = run_ingest(spark, source, warehouse, part_mb=PART_MB)
    assert (again.skipped, again.known_bad, again.written) == (SUBJECTS - 1, 1, ())
    assert [path for path in leftovers(warehouse) if path.is_file()] == []


def started(source: Path, warehouse: Path, master: str = "local[2]") -> contextlib.AbstractContextManager:
    """An ingest in a process of its own whose Spark is up; it does not outlive the block."""
    return process_of("tests.pipelines.ingest_process", str(source), str(warehouse), master)


@contextlib.contextmanager
def process_of(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A module in a process of its own that has said `ready`; it does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_parts(ended: Callable[[], bool], warehouse: Path, parts: int) -> None:
    """Return as soon as so many parts are visible, or the run has ended."""
    while not ended() and len(list((warehouse / "scans").glob("*.parquet"))) < parts:
        time.sleep(0.002)


def kill(process: subprocess.Popen, victim: str, delay: float) -> list[psutil.Process]:
    """SIGKILL one of the processes of an ingest after `delay` seconds; all of its processes that were there."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    driver = psutil.Process(process.pid)
    family = [driver, *driver.children(recursive=True)]
    victims = {
        "driver": [driver],
        "jvm": javas(family),
        "executor": javas(family)[-1:],  # the driver's comes first
        "worker": workers(family)[-1:],
    }
    for one in victims[victim]:
        one.kill()
    if victim not in SURVIVED:
        process.wait(60)
    return family


def javas(family: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in family if one.is_running() and "java" in one.name()]


def workers(family: list[psutil.Process]) -> list[psutil.Process]:
    """The Python processes that Spark started, the daemon that forks them first."""
    return [one for one in family[1:] if one.is_running() and "python" in one.name()]


def scans_by_part(warehouse: Path) -> dict[str, list[str]]:
    """The scans whose rows are in the index, by part."""
    files = (warehouse / "scans").glob("*.parquet")
    return {path.stem: pq.read_table(path, columns=["scan_id"])["scan_id"].to_pylist() for path in files}
