"""Voxels and affines beside dcm2niix, on every real DICOM series that both can read."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from segpipe.readers import dicom
from segpipe.readers.archive import Archive, walk
from segpipe.readers.layouts.dicom import candidates, read
from segpipe.storage import url_to_fs

PROGRAM = Path(sys.executable).with_name("dcm2niix")
SERIES = {
    "axial mosaics": "dcm_qa/dicom/ax/axasc35",
    "coronal mosaics": "dcm_qa/dicom/cor/corasc35",
    "sagittal mosaics": "dcm_qa/dicom/sag/sagasc35",
    "jpeg mosaics": "dcm_qa/dicom/axmb/AxAsc36mb2a",
    "jpeg 2000 mosaics": "dcm_qa/dicom/axmb/AxInt36mb",
    "siemens b 0": "nibabel/siemens_dwi_0.dcm.gz",
    "siemens b 1000": "nibabel/siemens_dwi_1000.dcm.gz",
    "philips": "nibabel/philips_mprage.dcm.gz",
    "ge slice": "pydicom/MR_small.dcm",
    "ge slice, implicit": "pydicom/MR_small_implicit.dcm",
    "ge slice, big-endian": "pydicom/MR_small_bigendian.dcm",
    "ge slice, RLE": "pydicom/MR_small_RLE.dcm",
}


@pytest.mark.parametrize("name", SERIES)
def test_voxels_and_affine_are_those_of_dcm2niix(real_data: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    place = real_data / "odd" / SERIES[name]
    for path in [place] if place.is_file() else [one for one in place.iterdir() if one.suffix != ".nii"]:
        if path.suffix == ".gz":
            (tmp_path / "in" / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            shutil.copy(path, tmp_path / "in")
    command = [str(PROGRAM), "-b", "n", "-z", "n", "-f", "x%s", "-o", str(tmp_path / "out"), str(tmp_path / "in")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (theirs,) = [nibabel.load(path) for path in (tmp_path / "out").glob("*.nii")]
    fs, root = url_to_fs(str(tmp_path / "in"))
    entries, _ = walk(fs, root)
    (series,) = read(Archive(fs, root, entries), candidates(entries.values()), b"key").series
    paths = [entry.path for entry in series.entries()]
    ours = dicom.series([(tmp_path / "in" / path).read_bytes() for path in paths], paths, 1 << 26)
    ours = nibabel.as_closest_canonical(nibabel.Nifti1Image(ours.voxels * ours.slope + ours.inter, ours.affine))
    theirs = nibabel.as_closest_canonical(theirs)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=2e-3)
    np.testing.assert_allclose(ours.get_fdata(), theirs.get_fdata(), atol=1e-3)
