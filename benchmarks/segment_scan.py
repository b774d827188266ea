"""Real scans per minute, from the tables to committed results, beside a network that looks at every voxel.

The reference is benchmark_app's rate on full frames of 240 x 240 pixels, on the same IR in the same precision on the
same cores, divided by the 155 slices of a scan. Ours leaves out slices without brain and sees the window around the
brain alone.
"""

from __future__ import annotations

import os

from benchmarks import in_turn, report
from benchmarks._segmenting import COHORT, SCANS, bench, benchmark_app

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


def main() -> None:
    """Measure both sides in turn and report the medians."""
    with bench("segment-scan") as setup:
        bundle = setup.bundle
        slices, height, width = setup.warehouse.scans(COHORT, ["shape"])["shape"][0].as_py()
        size = [side + -side % bundle.multiple for side in (height, width)]
        ours, reference = in_turn(
            ROUNDS,
            "scans/min",
            lambda _: 60 * SCANS / setup.segment(),
            lambda _: 60 * benchmark_app(bundle, size) / slices,
        )
    report("segment-scan", ours, reference, "scans/min")
