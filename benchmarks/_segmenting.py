"""What the benchmarks of segmentation share: real scans in tables, a model, our job, and OpenVINO's benchmark_app.

`BENCH_SCRATCH` names a folder that keeps tables and model for the next benchmark; without it they are made again.
`BENCH_MODEL` names a trained model for four modalities; without it one is trained for a minute, whose masks have many
false lesions, so that measuring them takes longer than those of a good model. It looks at a slice once, so that the
network hides as little as possible of what is around it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._real import brats_subjects, link_or_copy
from segpipe.errors import SegpipeError
from segpipe.models.bundle import Bundle
from segpipe.settings import IngestSettings, SegmentSettings, TrainSettings
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.slices import stream
from segpipe.warehouse.store import Store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SCANS = int(os.environ.get("BENCH_SCANS", "24"))
CORES = len(os.sched_getaffinity(0))
REFERENCE_SECONDS = int(os.environ.get("BENCH_REFERENCE_SECONDS", "10"))
STEPS = 120
COHORT = "bench"
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}


@dataclass
class Bench:
    """Copies of the real scans in an archive and in tables, a U-Net of 16 filters trained for a minute, and a Spark."""

    spark: SparkSession
    folder: Path

    @cached_property
    def archive(self) -> Path:
        """The copies in BraTS layout."""
        target = self.folder / "archive"
        if not target.exists():
            copy_scans(target, SCANS)
        return target

    @cached_property
    def warehouse(self) -> Store:
        """The copies, ingested."""
        from segpipe.pipelines.ingest import ingest

        settings = IngestSettings(
            source=str(self.archive),
            warehouse=str(self.folder / "w"),
            cohort=COHORT,
            split_salt="bench",
            validation_fraction=0.3,
        )
        warehouse = Store(settings.warehouse)
        with record_run(warehouse, "ingest", settings) as run:
            ingest(self.spark, settings, run)
        return warehouse

    @cached_property
    def bundle(self) -> Bundle:
        """The model, exported with the precision that validation scans let it have."""
        from jobs.export import scans
        from segpipe.runtimes.export import export
        from segpipe.settings import ExportSettings
        from segpipe.trainers import train

        settings = TrainSettings(
            warehouse=self.warehouse.url,
            cohort=COHORT,
            model=str(self.folder / "model"),
            trainer="local",
            dimensions=2,
            epochs=1,
            steps_per_epoch=STEPS,
            batch_size=8,
            mirror=False,
        )
        if not (self.folder / "exported").exists():
            if trained := os.environ.get("BENCH_MODEL"):
                shutil.copytree(trained, settings.model, dirs_exist_ok=True)
            else:
                with record_run(self.warehouse, "train", settings) as run:
                    train(settings, None, run)
            exporting = ExportSettings(model=settings.model, warehouse=self.warehouse.url)
            trained_bundle = replace(Bundle.load(settings.model), cohort=COHORT)
            export(settings.model, scans(exporting, trained_bundle, "validation", 3))
            (self.folder / "exported").touch()
        bundle = Bundle.load(settings.model)
        print(f"network {bundle.network}, input {bundle.crop}, {bundle.inference}", flush=True)
        return bundle

    @cached_property
    def brain_slices(self) -> int:
        """The slices that show brain: those that the network sees."""
        return sum(
            int((batch.brain_pixels > 0).sum())
            for part in self.warehouse.slice_parts(COHORT)
            for batch in stream(part.path, self.warehouse.fs, None, ["brain_pixels"])
            if batch.brain_pixels is not None
        )

    def segment(self, **options: Any) -> float:
        """Seconds of a segmentation of the whole cohort, from packing the model to committed results."""
        from segpipe.pipelines.segment import segment
        from segpipe.runtimes.contract import PredictorSpec

        bundle = self.bundle
        chosen = {"warehouse": self.warehouse.url, "cohort": COHORT, "overwrite": True, **options}
        settings = SegmentSettings(model=bundle.url, **chosen)
        with record_run(Store(settings.warehouse), "segment", settings) as run:
            start = time.perf_counter()
            packed = PredictorSpec(settings.model, settings.runtime, settings.batch_size, settings.precision).pack()
            outcome = segment(self.spark, settings, packed, packed.bundle, run)
            seconds = time.perf_counter() - start
        if outcome.quarantined:
            raise SegpipeError(f"{len(outcome.quarantined)} scans were not segmented", "see the table quarantine")
        print("  " + ", ".join(f"{name} {value:.2f} s" for name, value in run.stage_seconds.items()), flush=True)
        return seconds


@contextlib.contextmanager
def bench(name: str, master: str = f"local[{CORES}]") -> Iterator[Bench]:
    """A Spark and a folder for a benchmark."""
    from segpipe.launch.session import build

    print(f"load {os.getloadavg()[0]:.2f} before the start, {CORES} cores", flush=True)
    kept = os.environ.get("BENCH_SCRATCH")
    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        folder = Path(kept or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        spark = build(f"benchmark {name}", master=master, extra_conf={"spark.ui.enabled": "false"})
        try:
            yield Bench(spark, folder)
        finally:
            spark.stop()


def copy_scans(target: Path, count: int) -> None:
    """`count` scans in BraTS layout, copies of the real ones as hard links where that is possible."""
    subjects = brats_subjects()
    for number in range(count):
        source, copy = subjects[number % len(subjects)], f"Case_{number:03d}"
        (target / copy).mkdir(parents=True)
        for path in source.glob("*.nii.gz"):
            link_or_copy(path, target / copy / path.name.replace(source.name, copy))


def benchmark_app(bundle: Bundle, size: Sequence[int], precision: str | None = None) -> float:
    """Slices per second of `benchmark_app -hint throughput` at a `size`, the better of a batch of 1 and of ours.

    It computes in the precision that the bundle chose, as our job does, unless another is named.
    """
    precision = precision or str(bundle.inference["precision"])
    return max(_benchmark_app(bundle, size, batch, precision) for batch in (1, SegmentSettings.batch_size))


def _benchmark_app(bundle: Bundle, size: Sequence[int], batch: int, precision: str) -> float:
    shape = ",".join(map(str, (batch, bundle.channels, *size)))
    command = [
        str(Path(sys.executable).with_name("benchmark_app")),
        *("-m", str(Path(bundle.url) / ("openvino-int8" if precision == "int8" else "openvino") / "model.xml")),
        *("-d", "CPU", "-hint", "throughput", "-t", str(REFERENCE_SECONDS)),
        *("-shape", f"image[{shape}]", "-infer_precision", _HINTS[precision]),
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    count, duration = re.search(r"Count:\s+(\d+)", told), re.search(r"Duration:\s+([\d.]+) ms", told)
    if count is None or duration is None:
        raise SegpipeError("benchmark_app told no rate", f"run it by hand: {' '.join(command)}")
    return int(count[1]) * batch / (float(duration[1]) / 1000)
