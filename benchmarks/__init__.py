"""Figures of merit, each beside its reference, measured in one run on one machine.

A benchmark NAME is the module `benchmarks/NAME.py` with a function `main() -> None` that measures both sides and
ends with one call of `report`. `make bench-NAME` and `python -m benchmarks NAME` run it.
"""

import math
import statistics
from collections.abc import Callable

from segpipe.errors import SegpipeError


def report(name: str, ours: float, reference: float, unit: str, *, less_is_better: bool = False) -> float:
    """Print the last line of a benchmark and return its ratio R, where 1 is the reference and more is better.

    >>> report("decode", ours=6.0, reference=4.0, unit="scans/s")
    decode: 1.50 of the reference (ours 6 scans/s, reference 4 scans/s)
    1.5
    >>> report("size", ours=0.8, reference=1.0, unit="GB", less_is_better=True)
    size: 1.25 of the reference (ours 0.8 GB, reference 1 GB)
    1.25

    Raises SegpipeError if a figure is not a positive number: there is no ratio to print then.
    """
    for side, figure in (("ours", ours), ("reference", reference)):
        if not (math.isfinite(figure) and figure > 0):
            raise SegpipeError(f"Benchmark {name} measured {figure} {unit} ({side})", "see what it printed above")
    ratio = reference / ours if less_is_better else ours / reference
    print(
        f"{name}: {ratio:.2f} of the reference (ours {ours:.4g} {unit}, reference {reference:.4g} {unit})", flush=True
    )
    return ratio


def in_turn(
    rounds: int, unit: str, ours: Callable[[int], float], reference: Callable[[int], float]
) -> tuple[float, float]:
    """The medians of both sides, measured in turn; a first round, number 0, warms both up and is not counted.

    >>> in_turn(2, "scans/s", ours=lambda number: 4.0 + number, reference=lambda number: 2.0)
    warm-up: ours 4 scans/s, reference 2 scans/s
    round 1: ours 5 scans/s, reference 2 scans/s
    round 2: ours 6 scans/s, reference 2 scans/s
    (5.5, 2.0)
    """
    measured = []
    for number in range(rounds + 1):
        measured.append((ours(number), reference(number)))
        label = f"round {number}" if number else "warm-up"
        print(f"{label}: ours {measured[-1][0]:.4g} {unit}, reference {measured[-1][1]:.4g} {unit}", flush=True)
    counted = measured[1:]
    return statistics.median(one for one, _ in counted), statistics.median(other for _, other in counted)
