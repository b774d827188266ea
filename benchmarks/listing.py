"""Listing an archive of 100,000 files in BraTS layout and telling its scans, beside os.scandir with stat alone.

Both run in one process on the same files. The reference lists the folders and asks for each file's size and time;
ours does that too, reads all names, tells who is a person, and makes the scans of a plan with a path, size and time for
each file. No image is opened and no fingerprint is taken on either side.

The goal of 0.5 is not reached: 0.15 to 0.18 on two busy cores. Of some 3.7 processor seconds (the reference takes
0.6) the listing takes 1: half are the same system calls, half an object, a sort and an index for each file. Reading
names takes 0.4, because words are read once for all folders that go on alike; people 0.35; most of the rest are
objects, which are made for each file four times on its way from a name to a scan. Only a plan that keeps the files of a
folder as columns, and makes objects where a folder differs from its like, would come near the listing alone, which is
some 0.5 by itself.
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
_ROLES = ("flair", "t1", "t1ce", "t2", "seg")
_ROUNDS = 3


def main() -> None:
    """Make the archive, list it both ways, and report files a second; the driver's memory is printed."""
    from segpipe.readers.sources import find

    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as scratch:
        root = Path(scratch) / "archive"
        _fill(root)
        count = _CASES * len(_ROLES)
        theirs = min(_seconds(lambda: _sweep(str(root))) for _ in range(_ROUNDS))
        before = _peak_mb()
        ours = min(_seconds(lambda: find(str(root))) for _ in range(_ROUNDS))
        print(f"memory of the driver: {_peak_mb():.0f} MB at most, {before:.0f} MB before")
    report("listing", count / ours, count / theirs, "files/s")


def _fill(root: Path) -> None:
    for number in range(_CASES):
        case = f"BraTS2021_{number:05d}"
        (root / case).mkdir(parents=True)
        for role in _ROLES:
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


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
