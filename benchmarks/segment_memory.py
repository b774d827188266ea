"""Peak memory of a Python worker that segments 10 scans, and of the same worker after 100 more; 1 is no growth.

The scans are real ones, read straight from their archive, so that files are unpacked in the worker too.
"""

from __future__ import annotations

import os

from benchmarks import report
from benchmarks._memory import peak_mb
from benchmarks._segmenting import bench, copy_scans

FEW, MANY = 10, int(os.environ.get("BENCH_MANY_SCANS", "100"))


def main() -> None:
    """Segment few scans, then many, and report the peaks."""
    peaks = []
    with bench("segment-memory") as setup:
        for count in (FEW, MANY):
            source = setup.folder / f"copies-{count}"
            if not source.exists():
                copy_scans(source, count)
            seconds = setup.segment(warehouse=str(setup.folder / "memory"), cohort=f"of{count}", source=str(source))
            peaks.append(peak_mb())
            print(f"{count} scans in {seconds:.0f} s: peak {peaks[-1]:.0f} MB", flush=True)
    report("segment-memory", peaks[1], peaks[0], "MB", less_is_better=True)
