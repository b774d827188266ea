"""The real scans that benchmarks read; they are no part of the project."""

import os
from pathlib import Path

from segpipe.errors import NotFound


def brats_subjects() -> list[Path]:
    """The folders of the BraTS 2021 cases, sorted. Raises NotFound where there are none."""
    real = Path(os.environ.get("SEGPIPE_REAL_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")) / "brats2021"
    subjects = sorted(path for path in real.glob("*") if path.is_dir())
    if not subjects:
        raise NotFound(f"No real scans in {real}", "set SEGPIPE_REAL_DATA to the folder that holds brats2021/")
    return subjects
