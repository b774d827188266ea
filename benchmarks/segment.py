"""Slices per second from the tables on disk to committed results, beside OpenVINO's own benchmark_app.

Both sides run the same IR in the same precision with the same input shape on the same cores, in turn, several times.
Ours reads and decodes Parquet, sends the slices that show brain through the network in Spark's workers, measures
regions in 3D, Hausdorff distance included, and commits; only slices that the network saw are counted. benchmark_app
(`-hint throughput`) infers and does nothing else; the better of a batch of 1 and of our batch is taken. The scans are
copies of the real ones of BraTS 2021, the network is a U-Net with 16 filters, trained for a minute so that its masks
resemble tumours.
"""

from __future__ import annotations

import os
import statistics

from benchmarks import report
from benchmarks._segmenting import bench, benchmark_app

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


def main() -> None:
    """Measure both sides in turn and report the medians."""
    with bench("segment") as setup:
        bundle, slices = setup.bundle, setup.brain_slices
        ours, reference = [], []
        for number in range(ROUNDS + 1):
            rate, best = slices / setup.segment(), benchmark_app(bundle, bundle.crop)
            label = f"round {number}" if number else "warm-up"
            print(f"{label}: ours {rate:.1f} slices/s, benchmark_app {best:.1f} slices/s", flush=True)
            if number:
                ours.append(rate)
                reference.append(best)
    report("segment", statistics.median(ours), statistics.median(reference), "slices/s")
