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

from benchmarks import in_turn, report
from benchmarks._segmenting import bench, benchmark_app

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


def main() -> None:
    """Measure both sides in turn and report the medians."""
    with bench("segment") as setup:
        bundle, slices = setup.bundle, setup.brain_slices
        ours, reference = in_turn(
            ROUNDS, "slices/s", lambda _: slices / setup.segment(), lambda _: benchmark_app(bundle, bundle.crop)
        )
    report("segment", ours, reference, "slices/s")
