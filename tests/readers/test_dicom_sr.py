"""Measures as DICOM structured reports: what TID 1500 and its IOD ask for, and what a viewer reads."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from segpipe.errors import BadInput
from segpipe.readers.dicom_sr import dicom_sr, sr_uid
from tests.readers.hospital import studies, write
from tests.readers.test_dicom_seg import seg_of

TYPE_1 = re.findall(
    # of a Comprehensive SR (PS3.3, A.35.3, C.17)
    r"\w+",
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality SeriesNumber InstanceNumber ContentDate"
    " ContentTime CompletionFlag VerificationFlag ValueType ConceptNameCodeSequence ContinuityOfContent Manufacturer"
    " ManufacturerModelName DeviceSerialNumber SoftwareVersions ContentTemplateSequence",
)
TYPE_2 = re.findall(
    r"\w+",
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName StudyID"
    " AccessionNumber ReferencedPerformedProcedureStepSequence PerformedProcedureCodeSequence",
)
CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
ROWS = [
    {"region": "whole_tumour", "volume_ml": 12.3456, "longest_diameter_mm": 31.25, "perpendicular_diameter_mm": 20.5},
    {"region": "enhancing_tumour", "volume_ml": 0.0, "longest_diameter_mm": None, "perpendicular_diameter_mm": None},
]


def report_of(folder: Path, *without: str) -> tuple[pydicom.Dataset, list[pydicom.Dataset]]:
    """A report on a series of a few slices whose files lack some elements."""
    write(folder, studies()[0].only("t2 ax"))
    images = []
    for path in sorted(folder.iterdir()):
        image = pydicom.dcmread(path)
        for name in without:
            if name in image:
                delattr(image, name)
        image.save_as(path)
        images.append(image)
    contents = [path.read_bytes() for path in sorted(folder.iterdir())]
    return pydicom.dcmread(io.BytesIO(dicom_sr(ROWS, "c:s:1", "segpipe m r", "m", contents))), images


def items(dataset: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All content items below one, each with the meanings of its concept names from the root."""
    for item in dataset.get("ContentSequence") or ():
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
        yield (*path, name), item
        yield from items(item, (*path, name))


def test_a_report_has_what_the_standard_asks_for(tmp_path: Path) -> None:
    report, images = report_of(tmp_path)
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
    assert [name for name in TYPE_1 if not report.get(name)] == []
    assert [name for name in TYPE_2 if name not in report] == []
    assert (report.Modality, report.CompletionFlag, report.VerificationFlag) == ("SR", "COMPLETE", "UNVERIFIED")
    assert (report.ContentTemplateSequence[0].TemplateIdentifier, report.SOPInstanceUID) == (
        "1500",
        sr_uid("c:s:1", "segpipe m r"),
    )
    assert (report.PatientID, report.StudyInstanceUID) == (images[0].PatientID, images[0].StudyInstanceUID)
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    uids = {image.SOPInstanceUID for image in images}
    assert {one.ReferencedSOPInstanceUID for one in evidence} == uids
    allowed = {"CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS PROPERTIES", "INFERRED FROM"}
    for path, item in items(report):
        assert item.RelationshipType in allowed, path
        assert item.get("ValueType"), path
        assert path[-1] or item.ValueType == "IMAGE", path
        for sequence in (element for element in item if element.keyword.endswith("CodeSequence")):
            for code in sequence.value:
                assert all(code.get(name) for name in CODE), path


@pytest.mark.process
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy, of Debian's dicom3tools")
def test_an_independent_checker_finds_no_fault(tmp_path: Path) -> None:
    report, _ = report_of(tmp_path / "series")
    seg = seg_of(tmp_path / "images", [])
    for name, made in (("sr", report), ("seg", seg)):
        made.save_as(tmp_path / name)
        checked = subprocess.run(["dciodvfy", tmp_path / name], capture_output=True, text=True, check=False)
        told = [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("Error")]
        assert (checked.returncode, told) == (0, []), name


def test_a_viewer_reads_volume_and_both_diameters_of_every_region(tmp_path: Path) -> None:
    report, images = report_of(tmp_path)
    groups = [item for path, item in items(report) if path[-1] == "Measurement Group"]
    found = []
    for group in groups:
        texts = {path[-1]: item.TextValue for path, item in items(group) if item.ValueType == "TEXT"}
        numbers = {
            path[-1]: (float(value.NumericValue), value.MeasurementUnitsCodeSequence[0].CodeValue)
            for path, item in items(group)
            if item.ValueType == "NUM"
            for value in item.MeasuredValueSequence
        }
        found.append((texts["Tracking Identifier"], numbers))
        seen = {
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for _, item in items(group)
            if item.ValueType == "IMAGE"
        }
        assert seen == {image.SOPInstanceUID for image in images}
    assert found == [
        ("whole_tumour", {"Volume": (12.346, "cm3"), "Long axis": (31.25, "mm"), "Short axis": (20.5, "mm")}),
        ("enhancing_tumour", {"Volume": (0.0, "cm3")}),
    ]


def test_elements_that_may_be_empty_may_be_missing(tmp_path: Path) -> None:
    report, _ = report_of(tmp_path, "PatientName", "PatientSex", "StudyDate", "StudyTime", "FrameOfReferenceUID")
    assert report.PatientName == ""


@pytest.mark.parametrize("name", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_an_element_that_must_have_a_value_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=f"structured report: it lacks {name}"):
        report_of(tmp_path, name)
