"""The speed-up that 1 to 64 workers would have, from what one worker and one all-reduce take, checked with two.

A step of n workers takes the step of one and a ring all-reduce of the gradients, 2 (n - 1) / n times their bytes over
the bandwidth and 2 (n - 1) times the latency (Patarasuk and Yuan 2009), nothing overlapping: a lower bound. Bandwidth
and latency of the loopback are measured, and the prediction for two workers there is the reference for two real ones.
The talk that this project comes from saw 5.8 times the speed of one worker with 8, and 8.7 times with 16.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import report
from benchmarks._training import ROUNDS, measured, tables

WORKERS = (1, 2, 4, 8, 16, 32, 64)
GIGABITS = (1, 10, 25)
NETWORK_LATENCY = 50e-6
"""Seconds a message takes on the clusters that are predicted for; usual in one data centre."""
TALK = {8: 5.8, 16: 8.7}


def main() -> None:
    """Measure, print the predictions, and report two real workers beside what is predicted for them."""
    measurements = []
    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        url = tables(Path(scratch))
        gradient_bytes = measured("plain", url)["gradient_bytes"]
        for number in range(ROUNDS):
            one, two = (statistics.median(measured(what, url)["images_per_second"][1:]) for what in _REAL)
            bandwidth, latency = line(**measured("all-reduce", url))
            measurements.append((two / one, one, bandwidth, latency))
            loopback = f"loopback {bandwidth / 1e6:.0f} MB/s, {latency * 1e6:.0f} us"
            print(f"round {number + 1}: one worker {one:.1f}, two {two:.1f} images/s; {loopback}", flush=True)
    seen, one, bandwidth, latency = np.median(measurements, axis=0)
    step = 8 / one
    print(f"step of one worker {step:.3f} s, gradients {gradient_bytes / 1e6:.1f} MB")
    print("workers          " + "".join(f"{workers:>8}" for workers in WORKERS))
    for gigabits in GIGABITS:
        found = (speed_up(n, step, gradient_bytes, gigabits * 1e9 / 8, NETWORK_LATENCY) for n in WORKERS)
        print(f"at {gigabits:>2} Gbit/s    " + "".join(f"{value:>8.2f}" for value in found))
    print("the talk         " + "".join(f"{TALK.get(workers, ''):>8}" for workers in WORKERS))
    report("scaling", float(seen), speed_up(2, step, gradient_bytes, bandwidth, latency), "times one worker")


_REAL = ("horovod-alone", "horovod")


def line(bytes: list[int], seconds: list[float]) -> tuple[float, float]:
    """Bandwidth (bytes/s) and latency (s) of a ring of two, in which each passes its bytes on once, in two messages."""
    slope, start = np.polyfit(bytes, seconds, 1)
    return 1 / max(slope, 1e-12), max(start, 0.0) / 2


def speed_up(workers: int, step: float, gradient_bytes: float, bandwidth: float, latency: float) -> float:
    """How many times as many images a second `workers` train as one, whose step takes `step` seconds."""
    ring = 2 * (workers - 1) / workers * gradient_bytes / bandwidth + 2 * (workers - 1) * latency
    return workers * step / (step + ring)
