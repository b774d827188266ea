"""The same segmentation in the same Spark UDF, with OpenVINO and with Keras: slices per second of each."""

from __future__ import annotations

import os
import statistics

from benchmarks import report
from benchmarks._segmenting import bench

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


def main() -> None:
    """Measure both runtimes in turn and report the medians."""
    with bench("keras") as setup:
        rates: dict[str, list[float]] = {"openvino": [], "keras": []}
        _ = setup.bundle
        for number in range(ROUNDS + 1):
            for runtime, found in rates.items():
                rate = setup.brain_slices / setup.segment(runtime=runtime)
                print(f"{f'round {number}' if number else 'warm-up'}: {runtime} {rate:.1f} slices/s", flush=True)
                found += [rate] if number else []
    report("keras", statistics.median(rates["openvino"]), statistics.median(rates["keras"]), "slices/s")
