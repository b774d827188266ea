"""Scans a minute that `ingest --prepare` brings into the tables, beside the same calls in a bare loop.

Both sides read the same raw scans and prepare them with the same functions, on one thread a process and with as many
processes. Ours runs them as Spark tasks, writes and commits tables; the bare loop drops what it has made. Both sides
keep their processes, so that brain networks are compiled in the first round, which is not counted. `BENCH_SCANS` is
the number of scans, copies of the open MS data; two take about half a minute of two cores on each side.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from multiprocessing.pool import Pool
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import in_turn, report
from benchmarks._real import real_folders
from segpipe.settings import IngestSettings
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.readers.archive import ScanSource

SCANS = int(os.environ.get("BENCH_SCANS", "4"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "1"))
PROCESSES = len(os.sched_getaffinity(0))
_HEADS = (("long_patient01", "study1"), ("long_patient04", "study1"), ("long_patient01", "study2"))
_ROLES = {"FLAIR": "flair", "T1W": "t1", "T2W": "t2"}


def main() -> None:
    """Measure both sides in turn, after a first round that is not counted, and report the medians."""
    from segpipe.launch.session import build

    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        folder = Path(scratch)
        source = _copies(folder / "source")
        spark = build("benchmark prepare", master=f"local[{PROCESSES}]", extra_conf={"spark.ui.enabled": "false"})
        with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
            ours, reference = in_turn(
                ROUNDS,
                "scans/min",
                lambda number: 60 * SCANS / _ours(spark, source, folder / f"w{number}"),
                lambda _: 60 * SCANS / _bare(pool, source),
            )
        spark.stop()
    report("prepare", ours, reference, "scans/min")


def _copies(folder: Path) -> Path:
    """Raw scans under subjects of their own, in the page cache by having been written."""
    real = real_folders("open_ms")[0].parent
    for number in range(SCANS):
        patient, study = _HEADS[number % len(_HEADS)]
        target = folder / f"sub-{number:03d}"
        target.mkdir(parents=True)
        for theirs, ours in _ROLES.items():
            shutil.copyfile(real / patient / f"{study}_{theirs}.nii.gz", target / f"{target.name}_{ours}.nii.gz")
    return folder


def _ours(spark: SparkSession, source: Path, warehouse: Path) -> float:
    """Seconds of an ingest. Raises AssertionError if a scan was not prepared."""
    from segpipe.pipelines.ingest import ingest

    settings = IngestSettings(source=str(source), warehouse=str(warehouse), cohort="bench", prepare=True)
    with record_run(Store(settings.warehouse), "ingest", settings) as run:
        start = time.perf_counter()
        ingest(spark, settings, run)
        seconds = time.perf_counter() - start
    assert run.counts["scans_written"] == SCANS, run.counts
    return seconds


def _bare(pool: Pool, source: Path) -> float:
    from segpipe.readers import sources

    start = time.perf_counter()
    found = sources.find(str(source)).scans
    pool.map(_prepare, [(str(source), one) for one in found], chunksize=1)
    return time.perf_counter() - start


def _prepare(job: tuple[str, ScanSource]) -> None:
    """Read and prepare one scan, in a process of the pool."""
    from segpipe.core.orientation import CANONICAL
    from segpipe.pipelines import arrange
    from segpipe.readers import scan as scan_reader

    settings, (root, source) = IngestSettings(), job
    arranged = arrange.preparing(source.subject, CANONICAL[settings.axis])
    scan_reader.load(root, source, settings.axis, None, settings.max_voxels, False, arranged)
