"""The same segmentation in the same Spark UDF, with OpenVINO and with Keras: slices per second of each."""

from __future__ import annotations

import os

from benchmarks import in_turn, report
from benchmarks._segmenting import bench

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


def main() -> None:
    """Measure both runtimes in turn and report the medians."""
    with bench("keras") as setup:
        _ = setup.bundle
        slices = setup.brain_slices
        openvino, keras = in_turn(
            ROUNDS,
            "slices/s",
            lambda _: slices / setup.segment(runtime="openvino"),
            lambda _: slices / setup.segment(runtime="keras"),
        )
    report("keras", openvino, keras, "slices/s")
