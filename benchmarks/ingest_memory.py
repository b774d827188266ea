"""Peak memory of a Python worker that ingests 10 scans, and of the same worker after 100 more; 1 is no growth."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks._memory import growth
from benchmarks._segmenting import copy_scans
from segpipe.settings import IngestSettings
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store


def main() -> None:
    """Ingest few copies of the real scans, then many, and report the peaks."""
    from segpipe.launch.session import build
    from segpipe.pipelines.ingest import ingest

    cores = len(os.sched_getaffinity(0))
    spark = build("benchmark ingest-memory", master=f"local[{cores}]", extra_conf={"spark.ui.enabled": "false"})
    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:

        def ingest_copies(count: int) -> None:
            source = Path(scratch) / f"copies-{count}"
            copy_scans(source, count)
            settings = IngestSettings(source=str(source), warehouse=f"{scratch}/w", cohort=f"of{count}")
            with record_run(Store(settings.warehouse), "ingest", settings) as run:
                ingest(spark, settings, run)
            assert run.counts["scans_written"] == count

        growth("ingest-memory", ingest_copies)
    spark.stop()
