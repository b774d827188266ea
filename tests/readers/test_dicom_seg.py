"""Masks as DICOM SEG objects of series that were de-identified."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from segpipe.core.regions import CONVENTIONS, LabelConvention
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


def seg_of(
    folder: Path, without: list[str], changes: dict[str, Any] | None = None, convention: str = "binary"
) -> pydicom.Dataset:
    """The SEG of a scan whose files lack some elements, or have others; one voxel is a lesion."""
    study = studies()[0]
    write(folder, Study("s", study.vendor, tuple(one for one in study.series if one.kind == "t2 ax")))
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        for name in without:
            if name in image:
                delattr(image, name)
        for name, value in (changes or {}).items():
            setattr(image, name, value)
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
    content = dicom_seg(labels, row, CONVENTIONS[convention], "segpipe m r", "m", contents)
    return pydicom.dcmread(io.BytesIO(content))


def test_elements_that_may_be_empty_may_be_missing(tmp_path: Path) -> None:
    seg = seg_of(tmp_path, TYPE_2)
    assert seg.pixel_array.sum() == 1
    assert [seg[name].value or "" for name in TYPE_2] == [""] * len(TYPE_2)


@pytest.mark.parametrize("name", ["FrameOfReferenceUID", "SOPInstanceUID"])
def test_an_element_that_must_have_a_value_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=f"lacks {name}"):
        seg_of(tmp_path, [name])


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞"),
        (["ISO 2022 IR 6", "ISO 2022 IR 100"], "Müller^Jürgen"),
        ("ISO_IR 100", "Müller^Jürgen"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 192", "Łukasz^Żółć"),
    ],
)
def test_names_in_any_character_set_come_out_as_they_were(tmp_path: Path, said: Any, name: str) -> None:
    changes = {"SpecificCharacterSet": said, "PatientName": name}
    seg = seg_of(tmp_path, [], changes, LabelConvention("m", {1: "lésion"}, {"lésion": (1,)}).text)
    assert (seg.SpecificCharacterSet, str(seg.PatientName)) == ("ISO_IR 192", name)
    assert seg.SegmentSequence[0].SegmentLabel == "lésion"


def test_utf8_that_is_not_declared_is_read_as_such(tmp_path: Path) -> None:
    seg = seg_of(tmp_path, ["SpecificCharacterSet"], {"PatientName": "Müller".encode()})
    assert str(seg.PatientName) == "Müller"


def test_a_convention_of_ones_own_has_its_short_name_and_codes_of_what_it_means(tmp_path: Path) -> None:
    labels = {1: "necrosis", 2: "peritumoural oedema", 3: "enhancing", 4: "resection cavity", 5: "cyst", 6: "MS lesion"}
    own = LabelConvention("mine", labels, {name: (value,) for value, name in labels.items()})
    assert len(own.text) > 64
    seg = seg_of(tmp_path, [], convention=own.text)
    assert seg.SeriesDescription == "segpipe mine m"
    codes = [one.SegmentedPropertyTypeCodeSequence[0] for one in seg.SegmentSequence]
    assert [(one.CodingSchemeDesignator, one.CodeMeaning) for one in codes] == [
        ("SCT", "Necrosis"),
        ("SCT", "Edema"),
        ("NCIt", "Enhancing Lesion"),
        ("99SEGPIPE", "resection cavity"),
        ("SCT", "Cyst"),
        ("SCT", "Lesion"),
    ]
