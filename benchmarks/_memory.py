"""What the Python workers of a local Spark need."""

import contextlib
import re
from pathlib import Path

import psutil

MB_OF_KB = 1 / 1000


def peak_mb() -> float:
    """The largest resident size that any of the Python workers below this process has had, MB."""
    sizes = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(OSError, psutil.Error):  # it may end while it is looked at
            if "python" in process.name():
                status = Path(f"/proc/{process.pid}/status").read_text()
                sizes.append(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * MB_OF_KB)  # type: ignore[index]
    return max(sizes)
