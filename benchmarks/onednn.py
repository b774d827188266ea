"""The training step with oneDNN beside the same step without it, on all cores of one process.

The talk that this project comes from reports 43 h instead of 76 h of training, a factor of 1.77.
"""

import os
import statistics
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks._training import ROUNDS, measured, tables

_SWITCH = "TF_ENABLE_ONEDNN_OPTS"


def main() -> None:
    """Measure both in turn and report the medians."""
    cores = len(os.sched_getaffinity(0))
    rates: dict[str, list[float]] = {"1": [], "0": []}
    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        url = tables(Path(scratch))
        for number in range(ROUNDS):
            for switch in rates:
                rates[switch].append(measured("plain", url, cores, {_SWITCH: switch})["images_per_second"])
            print(f"round {number + 1}: with {rates['1'][-1]:.1f}, without {rates['0'][-1]:.1f} images/s", flush=True)
    report("onednn", statistics.median(rates["1"]), statistics.median(rates["0"]), "images/s")
