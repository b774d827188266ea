"""Masks as DICOM SEG objects of series that were de-identified."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest

from segpipe.core.regions import CONVENTIONS
from segpipe.errors import BadInput
from segpipe.readers.dicom_seg import dicom_seg
from segpipe.readers.scan import load
from segpipe.readers.sources import find
from tests.readers.hospital import Study, studies, write

KEY = b"a secret of more than sixteen bytes"
TYPE_2 = [
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "ReferringPhysicianName",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
]


def seg_of(folder: Path, without: list[str]) -> pydicom.Dataset:
    """The SEG of a scan whose files lack some elements; one voxel is a lesion."""
    study = studies()[0]
    write(folder, Study("s", study.vendor, tuple(one for one in study.series if one.kind == "t2 ax")))
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        for name in without:
            if name in image:
                delattr(image, name)
        image.save_as(path)
    listing = find(str(folder), "dicom", KEY)
    scan = load(listing.root, listing.scans[0])
    row = {
        "scan_id": "c:s:1",
        "files": scan.file_rows,
        "orientation": scan.orientation,
        "shape": scan.shape,
        "resampled_to": None,
    }
    labels = np.zeros(scan.shape, np.uint8)
    labels[2, 3, 2] = 1
    contents = [(folder / path).read_bytes() for path in listing.scans[0].paths]
    content = dicom_seg(labels, row, CONVENTIONS["binary"], "segpipe m r", "m", contents)
    return pydicom.dcmread(io.BytesIO(content))


def test_elements_that_may_be_empty_may_be_missing(tmp_path: Path) -> None:
    seg = seg_of(tmp_path, TYPE_2)
    assert seg.pixel_array.sum() == 1
    assert [seg[name].value or "" for name in TYPE_2] == [""] * len(TYPE_2)


@pytest.mark.parametrize("name", ["FrameOfReferenceUID", "SOPInstanceUID"])
def test_an_element_that_must_have_a_value_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=f"lacks {name}"):
        seg_of(tmp_path, [name])
