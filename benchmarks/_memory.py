"""What the Python workers of a local Spark need, on few scans and on many."""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks import report

FEW, MANY = 10, int(os.environ.get("BENCH_MANY_SCANS", "100"))
MB_OF_KB = 1 / 1000


def growth(name: str, work: Callable[[int], None]) -> None:
    """Have the workers of this process work on few scans, then on many, and report the peaks; 1 is no growth."""
    peaks = []
    for count in (FEW, MANY):
        work(count)
        peaks.append(_peak_mb())
        print(f"{count} scans: peak {peaks[-1]:.0f} MB", flush=True)
    report(name, peaks[1], peaks[0], "MB", less_is_better=True)


def _peak_mb() -> float:
    """The largest resident size that any of the Python workers below this process has had, MB."""
    sizes = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(OSError, psutil.Error):  # it may end while it is looked at
            if "python" in process.name():
                status = Path(f"/proc/{process.pid}/status").read_text()
                sizes.append(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * MB_OF_KB)  # type: ignore[index]
    return max(sizes)
