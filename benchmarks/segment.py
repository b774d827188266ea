"""Slices per second from the tables on disk to committed results, beside OpenVINO's own benchmark_app.

Both sides run the same IR with the same input shape on the same cores, in turn, several times. Ours reads and decodes
Parquet, sends the slices that show brain through the network in Spark's workers, measures regions in 3D, Hausdorff
distance included, and commits; only slices that the network saw are counted. benchmark_app (`-hint throughput`) infers
and does nothing else; the better of a batch of 1 and of our batch is taken. The scans are copies of the real ones
of BraTS 2021, the network is a U-Net with 16 filters, trained for a minute so that its masks resemble tumours.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import report
from segpipe.errors import NotFound, SegpipeError
from segpipe.settings import IngestSettings, SegmentSettings, TrainSettings
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.slices import stream
from segpipe.warehouse.store import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.models.bundle import Bundle

COPIES = int(os.environ.get("BENCH_SCANS", "24"))
CORES = len(os.sched_getaffinity(0))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
REFERENCE_SECONDS = 10
STEPS = 120
COHORT = "bench"


def main() -> None:
    """Measure both sides in turn and report the medians."""
    from segpipe.spark.session import build

    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        folder = Path(scratch)
        spark = build("benchmark segment", master=f"local[{CORES}]", extra_conf={"spark.ui.enabled": "false"})
        warehouse = _tables(spark, folder)
        bundle = _model(warehouse, folder)
        slices = _brain_slices(warehouse)
        ours, reference = [], []
        for number in range(ROUNDS + 1):
            seconds = _ours(spark, warehouse, bundle)
            best = max(_reference(bundle, batch) for batch in (1, SegmentSettings.batch_size))
            label = f"round {number}" if number else "warm-up"
            print(f"{label}: ours {slices / seconds:.1f} slices/s, benchmark_app {best:.1f} slices/s", flush=True)
            if number:
                ours.append(slices / seconds)
                reference.append(best)
        spark.stop()
    report("segment", statistics.median(ours), statistics.median(reference), "slices/s")


def _tables(spark: SparkSession, folder: Path) -> Warehouse:
    """Copies of the real scans, ingested."""
    from segpipe.spark.ingest import ingest

    real = Path(os.environ.get("SEGPIPE_REAL_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")) / "brats2021"
    subjects = sorted(path.name for path in real.glob("*") if path.is_dir())
    if not subjects:
        raise NotFound(f"No real scans in {real}", "set SEGPIPE_REAL_DATA to the folder that holds brats2021/")
    for number in range(COPIES):
        subject, copy = subjects[number % len(subjects)], f"Copy_{number:03d}"
        (folder / "source" / copy).mkdir(parents=True)
        for path in (real / subject).glob("*.nii.gz"):
            shutil.copyfile(path, folder / "source" / copy / path.name.replace(subject, copy))
    settings = IngestSettings(
        source=str(folder / "source"),
        warehouse=str(folder / "w"),
        cohort=COHORT,
        split_salt="bench",
        validation_fraction=0.3,
    )
    warehouse = Warehouse(settings.warehouse)
    with record_run(warehouse, "ingest", settings) as run:
        ingest(spark, settings, run)
    shutil.rmtree(folder / "source")
    return warehouse


def _model(warehouse: Warehouse, folder: Path) -> Bundle:
    """A lightly trained model, exported."""
    from segpipe.runtimes.openvino import export
    from segpipe.trainers import train

    settings = TrainSettings(
        warehouse=warehouse.url,
        cohort=COHORT,
        model=str(folder / "model"),
        trainer="local",
        epochs=1,
        steps_per_epoch=STEPS,
        batch_size=8,
    )
    with record_run(warehouse, "train", settings) as run:
        train(settings, None, run)
    bundle = export(settings.model)
    print(f"network {bundle.network}, input {bundle.crop}", flush=True)
    return bundle


def _brain_slices(warehouse: Warehouse) -> int:
    return sum(
        int((batch.brain_pixels > 0).sum())
        for part in warehouse.slice_parts(COHORT)
        for batch in stream(part.path, warehouse.fs, None, ["brain_pixels"])
        if batch.brain_pixels is not None
    )


def _ours(spark: SparkSession, warehouse: Warehouse, bundle: Bundle) -> float:
    """Seconds of a segmentation of the whole cohort."""
    from segpipe.runtimes.contract import PredictorSpec
    from segpipe.spark.segment import segment

    settings = SegmentSettings(warehouse=warehouse.url, cohort=COHORT, model=bundle.url, overwrite=True)
    with record_run(warehouse, "segment", settings) as run:
        start = time.perf_counter()
        packed = PredictorSpec(settings.model, settings.runtime, settings.batch_size, settings.precision).pack()
        outcome = segment(spark, settings, packed, packed.bundle, run)
        seconds = time.perf_counter() - start
    if len(outcome.segmented) != COPIES:
        raise SegpipeError(f"{len(outcome.segmented)} of {COPIES} scans were segmented", "see the table quarantine")
    print("  " + ", ".join(f"{name} {value:.2f} s" for name, value in run.stage_seconds.items()), flush=True)
    return seconds


def _reference(bundle: Bundle, batch: int) -> float:
    """Slices per second of benchmark_app."""
    shape = ",".join(map(str, (batch, len(bundle.modalities), *bundle.crop)))
    command = [
        str(Path(sys.executable).with_name("benchmark_app")),
        *("-m", str(Path(bundle.url) / "openvino" / "model.xml")),
        *("-d", "CPU", "-hint", "throughput", "-t", str(REFERENCE_SECONDS)),
        *("-shape", f"image[{shape}]"),
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    count, duration = re.search(r"Count:\s+(\d+)", told), re.search(r"Duration:\s+([\d.]+) ms", told)
    if count is None or duration is None:
        raise SegpipeError("benchmark_app told no rate", f"run it by hand: {' '.join(command)}")
    return int(count[1]) * batch / (float(duration[1]) / 1000)
