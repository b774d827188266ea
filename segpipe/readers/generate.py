"""A generated archive: synthetic glioma scans written as the files that real ones come in."""

import os
import shutil
from pathlib import Path

import numpy as np

from segpipe.readers import nifti
from segpipe.readers.synthetic import glioma


def subject_id(seed: int, index: int) -> str:
    """The name of a generated patient; it says that there is none."""
    return f"Synthetic_{seed:02d}_{index:03d}"


def write_brats(folder: str | os.PathLike, subjects: int, seed: int, shape: tuple[int, int, int]) -> list[str]:
    """Write `subjects` scans of `shape` (slices, rows, columns) in BraTS layout and give their subjects.

    See `write_subject`; the files depend on `seed` and `shape` alone.
    """
    return [write_subject(folder, seed, index, shape) for index in range(subjects)]


def write_subject(folder: str | os.PathLike, seed: int, index: int, shape: tuple[int, int, int]) -> str:
    """Write one scan: `<id>/<id>_{flair,t1,t1ce,t2,seg}.nii.gz`, axes L, P, S; gives its id.

    What is already there is left alone, and a folder appears with all of its files at once. Raises OSError if the
    folder cannot be written.
    """
    subject = subject_id(seed, index)
    target = Path(folder) / subject
    if target.is_dir():
        return subject
    scan = glioma(np.random.default_rng([seed, index]), shape)
    affine = scan.affine[:, [2, 1, 0, 3]]
    draft = Path(folder) / f".{subject}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for role, array in {**scan.images, "seg": scan.mask}.items():
        nifti.write(nifti.from_array(array.T, affine), draft / f"{subject}_{role}.nii.gz")
    draft.rename(target)
    return subject
