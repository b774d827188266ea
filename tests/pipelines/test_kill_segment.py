"""Exactly once: whatever of a segmentation is killed, the same command ends in the tables of an uninterrupted run.

Real processes are killed by SIGKILL at random moments, as in test_kill.py; `SEGPIPE_KILLS` sets how often. The default
of 1 kills the driver; for the gate, test_segment.py has a worker that dies at a moment that does not depend on chance.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from segpipe.pipelines import segment
from segpipe.readers.generate import write_brats
from segpipe.runtimes.export import export
from tests.pipelines.cohorts import COHORT, Cohort
from tests.pipelines.segment_process import MOST_SCANS
from tests.pipelines.test_kill import SEED, kill, process_of
from tests.runtimes.models import tiny_bundle

pytestmark = [pytest.mark.slow, pytest.mark.long]
KILLS = int(os.environ.get("SEGPIPE_KILLS", "1"))
SUBJECTS = 16
VICTIMS = ("driver", "worker", "jvm")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return export(tiny_bundle(str(tmp_path_factory.mktemp("model") / "m")).url).url


@pytest.fixture(scope="module")
def uninterrupted(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, model: str) -> tuple[Cohort, float]:
    """A cohort that nobody disturbed while it was segmented, and the seconds that took; one scan is bad."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    write_brats(folder / "archive", subjects=SUBJECTS, seed=3, shape=(16, 48, 48))
    (folder / "archive" / "Synthetic_03_005" / "Synthetic_03_005_t1.nii.gz").write_bytes(b"no image")
    cohort = Cohort(spark, folder / "archive", str(folder / "w"))
    begun = time.monotonic()
    cohort.segment(model, source=str(cohort.archive))
    return cohort, time.monotonic() - begun


@pytest.mark.timeout(60 * (KILLS + 3))
@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_segmentation_is_finished_by_the_next(
    uninterrupted: tuple[Cohort, float], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    whole, seconds = uninterrupted
    rng = np.random.default_rng([SEED, 1, number])
    victim = VICTIMS[number % len(VICTIMS)]
    cohort = Cohort(whole.spark, whole.archive, str(tmp_path / "w"))
    with process_of("tests.pipelines.segment_process", str(cohort.archive), cohort.url, model) as process:
        wait_for_parts(process, cohort, int(rng.integers(0, SUBJECTS // MOST_SCANS)))
        family = kill(process, victim, delay=float(rng.uniform(0, seconds / 4)))
        if victim == "worker":
            assert process.wait() == 0, process.stderr and process.stderr.read()
            assert cohort.content() == whole.content()
    before = part_files(cohort)
    finished = {scan for path in before if "segmentations" in path for scan in scans_of(path)}
    monkeypatch.setattr(segment, "MOST_SCANS", MOST_SCANS)
    outcome, run = cohort.segment(model, source=str(cohort.archive))
    psutil.wait_procs(family, timeout=60)
    assert cohort.content() == whole.content()
    assert before.items() <= part_files(cohort).items(), "a finished part was written again"
    assert finished.isdisjoint(outcome.segmented), "a finished scan was segmented again"
    assert outcome.skipped >= len(finished)
    assert run.counts["slices"] == 16 * len(outcome.segmented)
    again, _ = cohort.segment(model, source=str(cohort.archive))
    assert (again.skipped, again.known_bad, again.segmented) == (SUBJECTS - 1, 1, ())
    assert {row["scan_id"] for row in cohort.rows("quarantine", "time")} == {f"{COHORT}:Synthetic_03_005:1"}
    assert not [path for path in Path(cohort.url, "_staging").rglob("*") if path.is_file()]


def wait_for_parts(process: subprocess.Popen[str], cohort: Cohort, parts: int) -> None:
    """Return as soon as so many parts are visible, or the process has ended."""
    while process.poll() is None and len(cohort.warehouse.parts("segmentations")) < parts:
        time.sleep(0.002)


def part_files(cohort: Cohort) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every part: a part that was written again has others."""
    found = [path for name in ("predictions", "segmentations") for path in Path(cohort.url, name).glob("*.parquet")]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def scans_of(path: str) -> list[Any]:
    return pq.read_table(path, columns=["scan_id"])["scan_id"].to_pylist()
