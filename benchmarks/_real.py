"""The real scans that benchmarks read; they are no part of the project."""

import os
import shutil
from pathlib import Path

from segpipe.errors import NotFound


def brats_subjects() -> list[Path]:
    """The folders of the BraTS 2021 cases, sorted. Raises NotFound if there are none."""
    return real_folders("brats2021")


def labelled_subjects() -> list[Path]:
    """The folders of all glioma cases with masks, sorted within each archive. Raises NotFound if one is missing."""
    return [path for archive in ("brats2021", "brats_tcga") for path in real_folders(archive)]


def real_folders(archive: str) -> list[Path]:
    """The folders of an archive of real scans, sorted. Raises NotFound if there are none."""
    real = Path(os.environ.get("SEGPIPE_REAL_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")) / archive
    subjects = sorted(path for path in real.glob("*") if path.is_dir())
    if not subjects:
        raise NotFound(f"No real scans in {real}", f"set SEGPIPE_REAL_DATA to the folder that holds {archive}/")
    return subjects


def link_or_copy(path: Path, place: Path) -> None:
    """The same file at another place, as a hard link where that is possible; one that is there is left."""
    if place.exists():
        return
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)
