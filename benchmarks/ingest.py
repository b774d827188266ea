"""Scans per second from gzipped NIfTI files to committed tables, beside a bare loop with the same number of processes.

The reference decompresses with isal, reads with nibabel and writes its slices as Parquet with pyarrow at the same
compression level: no Spark, no checks, no statistics, no guarantees. Both sides read the same files, copies of the real
scans of BraTS 2021, and are warm before they are measured. Also told: the size of the tables beside that of their
sources, and the time of a query over a large table `scans`.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.pool import Pool
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import in_turn, report
from benchmarks._real import brats_subjects
from segpipe.core.splits import SplitRule
from segpipe.settings import IngestSettings
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SCANS_IN_ALL = 24
PROCESSES = len(os.sched_getaffinity(0))
ROUNDS = 5
ROWS = 100_000
ROWS_PER_PART = 28
"""As many BraTS scans as fill a part file of 192 MB."""


def main() -> None:
    """Measure both sides in turn, several times, and report the median of the ratios' sides."""
    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        folder = Path(scratch)
        source = _copies(folder / "source")
        ours, reference, sizes = _measure(source, folder)
        print(f"table bytes / gzipped source bytes: {sizes:.3f}")
        _query(folder / "large")
    report("ingest", ours, reference, "scans/s")


def _copies(folder: Path) -> Path:
    """Copies of the real scans under new subjects, in the page cache by having been written."""
    subjects = brats_subjects()
    for number in range(SCANS_IN_ALL):
        subject = subjects[number % len(subjects)]
        target = folder / f"Case_{number:03d}"
        target.mkdir(parents=True)
        for path in subject.glob("*.nii.gz"):
            shutil.copyfile(path, target / path.name.replace(subject.name, target.name))
    return folder


def _measure(source: Path, folder: Path) -> tuple[float, float, float]:
    """Scans per second of both sides, medians of interleaved rounds, and table bytes per source byte."""
    from segpipe.launch.session import build

    spark = build("benchmark ingest", master=f"local[{PROCESSES}]", extra_conf={"spark.ui.enabled": "false"})
    sizes = []

    def measured(number: int) -> float:
        seconds, size = _ours(spark, source, folder / f"w{number}")
        sizes.append(size)
        return SCANS_IN_ALL / seconds

    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        rates = in_turn(
            ROUNDS, "scans/s", measured, lambda number: SCANS_IN_ALL / _bare(pool, source, folder / f"bare{number}")
        )
    spark.stop()
    return (*rates, sizes[-1])


def _ours(spark: SparkSession, source: Path, warehouse: Path) -> tuple[float, float]:
    from segpipe.pipelines.ingest import ingest

    settings = IngestSettings(source=str(source), warehouse=str(warehouse), cohort="bench")
    start = time.perf_counter()
    with record_run(Store(str(warehouse)), "ingest", settings) as run:
        ingest(spark, settings, run)
    seconds = time.perf_counter() - start
    print("  " + ", ".join(f"{name} {value:.2f} s" for name, value in run.stage_seconds.items()))
    shutil.rmtree(warehouse)
    return seconds, run.counts["table_bytes"] / run.counts["source_bytes"]


def _bare(pool: Pool, source: Path, target: Path) -> float:
    target.mkdir()
    folders = sorted(source.iterdir())
    shares = [(folders[number::PROCESSES], target / f"{number}.parquet") for number in range(PROCESSES)]
    start = time.perf_counter()
    pool.starmap(bare_loop, shares)
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


def bare_loop(folders: list[Path], target: Path) -> None:
    """Slices of scans to one Parquet file, a row group per scan: the least that anyone has to do."""
    writer = None
    for folder in folders:
        table = pa.table(dict(_bare_columns(folder)))
        writer = writer or pq.ParquetWriter(
            target, table.schema, compression="zstd", compression_level=1, use_dictionary=["scan"]
        )
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _bare_columns(folder: Path) -> Iterator[tuple[str, pa.Array]]:
    image = np.stack([_bare_voxels(folder, role) for role in ("flair", "t1", "t1ce", "t2")], axis=1)
    mask = _bare_voxels(folder, "seg")
    yield "scan", pa.array([folder.name] * len(image))
    yield "slice_index", pa.array(np.arange(len(image)))
    yield "image", pa.array([one.tobytes() for one in image], pa.large_binary())
    yield "mask", pa.array([one.tobytes() for one in mask], pa.large_binary())


def _bare_voxels(folder: Path, role: str) -> np.ndarray:
    """The stored voxels of a file as (slices, rows, columns)."""
    import nibabel as nib
    from isal import igzip

    content = igzip.decompress((folder / f"{folder.name}_{role}.nii.gz").read_bytes())
    return np.asarray(nib.Nifti1Image.from_stream(io.BytesIO(content)).dataobj).T


def _query(folder: Path) -> None:
    """Time a query over generated rows of `scans`, in parts of the size that ingest makes."""
    (folder / "scans").mkdir(parents=True)
    rule = SplitRule("segpipe", 0.7, 0.15)
    for start in range(0, ROWS, ROWS_PER_PART):
        rows = [_row(number, rule) for number in range(start, min(start + ROWS_PER_PART, ROWS))]
        pq.write_table(pa.Table.from_pylist(rows, SCANS.schema), folder / "scans" / f"large.{start:06d}.parquet")
    warehouse = Store(str(folder))
    for _ in range(2):
        start_time = time.perf_counter()
        rows_found = warehouse.scans("large", ["scan_id", "split", "brain_voxels"])
        by_split = rows_found.group_by("split").aggregate([("brain_voxels", "mean")])
        seconds = time.perf_counter() - start_time
    assert pc.sum(rows_found["brain_voxels"]).as_py() > 0
    parts = len(warehouse.parts("scans"))
    print(f"mean brain of {len(by_split)} splits over {len(rows_found):,} scans in {parts:,} parts: {seconds:.2f} s")


def _row(number: int, rule: SplitRule) -> dict:
    """A row as a BraTS scan makes it, headers of its five files included."""
    subject = f"Generated_{number:06d}"
    file = {
        "role": "FLAIR",
        "path": f"{subject}/{subject}_flair.nii.gz",
        "bytes": 2_000_000,
        "modified": "1700000000000000000",
        "sha256": f"{number:064x}",
        "dtype": "<i2",
        "shape": [240, 240, 155],
        "channel": 0,
        "orientation": "LPS",
        "affine": [1.0] * 16,
        "slope": 1.0,
        "inter": 0.0,
        "container": "nifti1",
        "header": bytes(348),
        "extensions": bytes(4),
    }
    intensity = dict(modality="FLAIR", voxels=1, mean=1.0, std=1.0, min=1.0, p01=1.0, median=1.0, p99=1.0, max=1.0)
    return {
        "scan_id": f"large:{subject}:1",
        "cohort": "large",
        "subject": subject,
        "session": "1",
        "split": rule.of(subject),
        "split_rule": str(rule),
        "layout": "brats",
        "label_convention": "brats",
        "modalities": ["FLAIR", "T1", "T1ce", "T2"],
        "orientation": "SPL",
        "shape": [155, 240, 240],
        "spacing_mm": [1.0, 1.0, 1.0],
        "affine": [1.0] * 16,
        "brain_box": [0, 136, 36, 213, 49, 183],
        "brain_voxels": 1_400_000 + number,
        "resampled_to": None,
        "files": [file] * 5,
        "intensity": [intensity] * 4,
        "label_counts": [{"label": 1, "voxels": 10}],
        "fingerprint": f"{number:064x}",
        "run_id": "generated",
    }
