"""Real scans per minute, from the tables to committed results, beside a network that looks at every voxel.

The reference is benchmark_app's rate on full frames of 240 x 240 pixels, on the same IR in the same precision on the
same cores, divided by the 155 slices of a scan. Ours leaves out slices without brain and sees the window around the
brain alone.
"""

from __future__ import annotations

import os
import statistics

from benchmarks import report
from benchmarks._segmenting import COHORT, SCANS, bench, benchmark_app

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


def main() -> None:
    """Measure both sides in turn and report the medians."""
    with bench("segment-scan") as setup:
        bundle = setup.bundle
        slices, height, width = setup.warehouse.scans(COHORT, ["shape"])["shape"][0].as_py()
        size = [side + -side % bundle.multiple for side in (height, width)]
        ours, reference = [], []
        for number in range(ROUNDS + 1):
            rate, best = 60 * SCANS / setup.segment(), 60 * benchmark_app(bundle, size) / slices
            label = f"round {number}" if number else "warm-up"
            print(f"{label}: ours {rate:.2f} scans/min, benchmark_app {best:.2f} scans/min", flush=True)
            if number:
                ours.append(rate)
                reference.append(best)
    report("segment-scan", statistics.median(ours), statistics.median(reference), "scans/min")
