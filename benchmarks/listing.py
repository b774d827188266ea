"""Listing an archive of 100,000 files in BraTS layout and telling its scans, beside os.scandir with stat alone.

The reference, one process, lists the folders and asks for each file's size and time. Ours does that too, with a helper
for each further core up to three, reads all names, once where folders are alike, tells who is a person, and makes the
scans of a plan. Path, size and time of each file are kept by folder, and are an object where somebody asks for it. No
image is opened and no fingerprint is taken on either side.

The goal is 0.5: 0.59 and 0.64 of the reference in wall time on two quiet cores, and 0.48 on two that other programs
used as well (1.00 s beside 0.48 s; 0.82 s of the driver's processor time), with 80 MB at most, 51 of them Python and
modules. An object for each file and reading each folder's name by itself gave 0.28 (1.98 s beside 0.56 s) and 123 MB.
Of 42 microseconds of the driver a folder, the walk takes 21, while a helper lists the other half of the folders; what a
folder is like 4, its scan 4, to tell persons and visits 1, and a dozen looks for what most archives do not have less
than 1 each.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import report

_CASES = 20_000
ROLES = ("flair", "t1", "t1ce", "t2", "seg")
ROUNDS = 3


def main() -> None:
    """Make the archive, list it both ways, and report files a second; the driver's memory is printed."""
    from segpipe.readers.sources import find

    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        root = Path(scratch) / "archive"
        _fill(root)
        count = _CASES * len(ROLES)
        theirs = min(seconds(lambda: _sweep(str(root))) for _ in range(ROUNDS))
        before = _peak_mb()
        ours = min(seconds(lambda: find(str(root))) for _ in range(ROUNDS))
        print(f"memory of the driver: {_peak_mb():.0f} MB at most, {before:.0f} MB before")
    report("listing", count / ours, count / theirs, "files/s")


def _fill(root: Path) -> None:
    for number in range(_CASES):
        case = f"BraTS2021_{number:05d}"
        (root / case).mkdir(parents=True)
        for role in ROLES:
            (root / case / f"{case}_{role}.nii.gz").touch()


def _sweep(root: str) -> int:
    """All files below a folder, with size and time: what any listing has to ask for."""
    count, left = 0, [root]
    while left:
        with os.scandir(left.pop()) as inside:
            for one in inside:
                if one.is_dir(follow_symlinks=False):
                    left.append(one.path)
                else:
                    one.stat(follow_symlinks=False)
                    count += 1
    return count


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
