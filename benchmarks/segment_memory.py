"""Peak memory of a Python worker that segments 10 scans, and of the same worker after 100 more; 1 is no growth.

The scans are real ones, read straight from their archive, so that files are unpacked in the worker too.
"""

from __future__ import annotations

from benchmarks._memory import growth
from benchmarks._segmenting import bench, copy_scans


def main() -> None:
    """Segment few scans, then many, and report the peaks."""
    with bench("segment-memory") as setup:

        def segment_copies(count: int) -> None:
            source = setup.folder / f"copies-{count}"
            if not source.exists():
                copy_scans(source, count)
            setup.segment(warehouse=str(setup.folder / "memory"), cohort=f"of{count}", source=str(source))

        growth("segment-memory", segment_copies)
