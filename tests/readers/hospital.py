"""Made-up studies as hospitals' archives hold them: every series of a tumour protocol, as three vendors name them.

Pixels are tiny. Each series has a value of its own, which is found again in a scan.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from segpipe.readers.archive import Listing

AXIAL, CORONAL, SAGITTAL = ((1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1))
MODALITIES = ("FLAIR", "T1", "T1ce", "T2")


@dataclass(frozen=True)
class Sketch:
    """One series: what it is, its times in ms and what tells it from the others; `is_right` for a role to take."""

    kind: str
    tr: float
    te: float
    ti: float | None = None
    sequence: tuple[str, ...] = ("SE",)
    variant: tuple[str, ...] = ("SK",)
    dimensions: str = "2D"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "ND")
    plane: tuple[int, ...] = AXIAL
    slices: int = 5
    step: float = 12.0
    times: int = 1
    agent: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    role: str | None = None
    text: str = ""


DERIVED = ("DERIVED", "SECONDARY")
PROTOCOL = (
    Sketch(
        "localizer", 8, 3.6, None, ("GR",), ("SP",), image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), slices=3, step=20
    ),
    Sketch("t1 sag", 500, 9, plane=SAGITTAL),
    Sketch("t1 ax", 520, 9, role="T1"),
    Sketch("t2 ax", 4500, 95, role="T2"),
    Sketch("t2 cor", 4500, 95, plane=CORONAL),
    Sketch("flair", 9000, 110, 2500, ("SE", "IR"), role="FLAIR"),
    Sketch("dwi", 5000, 80, None, ("EP", "SE"), times=2),
    Sketch("adc", 5000, 80, None, ("EP", "SE"), image_type=(*DERIVED, "ADC")),
    Sketch("swi", 28, 20, None, ("GR",), ("SP",), "3D", slices=8, step=7),
    Sketch("swi mip", 28, 20, None, ("GR",), ("SP",), "3D", (*DERIVED, "MNIP"), slices=8, step=7),
    Sketch("swi phase", 28, 20, None, ("GR",), ("SP",), "3D", ("ORIGINAL", "PRIMARY", "P", "ND"), slices=8, step=7),
    Sketch("perfusion", 1500, 30, None, ("EP", "GR"), times=20, slices=1),
    Sketch("t1ce ax", 520, 9, agent="Gadovist", role="T1ce"),
    Sketch(
        "t1ce 3d", 1900, 2.5, 900, ("GR", "IR"), ("SP", "MP"), "3D", plane=SAGITTAL, slices=20, step=3, agent="Gadovist"
    ),
    Sketch(
        "reformat", 1900, 2.5, 900, ("GR", "IR"), ("SP", "MP"), "3D", (*DERIVED, "MPR"), CORONAL, 8, 7, agent="Gadovist"
    ),
)

SIEMENS = {
    "localizer": "AAHead_Scout",
    "t1 sag": "t1_se_sag",
    "t1 ax": "t1_se_tra",
    "t2 ax": "t2_tse_tra_512",
    "t2 cor": "t2_tse_cor",
    "flair": "t2_tirm_tra_dark-fluid",
    "dwi": "ep2d_diff_3scan_trace_p2",
    "adc": "ep2d_diff_3scan_trace_p2_ADC",
    "swi": "t2_swi3d_tra",
    "swi mip": "mIP_Images(SW)",
    "swi phase": "Pha_Images",
    "perfusion": "ep2d_perf_p2",
    "t1ce ax": "t1_se_tra_KM",
    "t1ce 3d": "t1_mprage_sag_p2_iso_KM",
    "reformat": "t1_mprage_sag_p2_iso_KM_MPR_cor",
}
GE = {
    "localizer": "3-Plane Loc SSFSE",
    "t1 sag": "Sag T1 SE",
    "t1 ax": "Ax T1 SE",
    "t2 ax": "Ax T2 FRFSE",
    "t2 cor": "Cor T2 FRFSE",
    "flair": "Ax T2 FLAIR",
    "dwi": "Ax DWI 1000b",
    "adc": "Apparent Diffusion Coefficient (mm2/s)",
    "swi": "Ax SWAN",
    "swi mip": "MIN IP Ax SWAN",
    "swi phase": "FILT_PHA: Ax SWAN",
    "perfusion": "Ax DSC Perfusion",
    "t1ce ax": "Ax T1 SE +C",
    "t1ce 3d": "Sag BRAVO +C",
    "reformat": "COR BRAVO +C REFORMAT",
}
PHILIPS = {
    "localizer": "Survey_SHC",
    "t1 sag": "T1W_SE_sag",
    "t1 ax": "sT1W_SE",
    "t2 ax": "T2W_TSE",
    "t2 cor": "T2W_TSE_cor",
    "flair": "FLAIR_longTR_SENSE",
    "dwi": "DWI_SSh_SENSE",
    "adc": "dReg - DWI ADC",
    "swi": "SWIp",
    "swi mip": "SWIp mIP",
    "swi phase": "SWIp phase",
    "perfusion": "T2* Perf FEEPI",
    "t1ce ax": "sT1W_SE GADO",
    "t1ce 3d": "T1W_3D_TFE GADO",
    "reformat": "T1W_3D_TFE GADO MPR",
}
_VENDORS = {"SIEMENS": SIEMENS, "GE MEDICAL SYSTEMS": GE, "Philips Medical Systems": PHILIPS}


@dataclass(frozen=True)
class Study:
    """A patient's study: `series` in the order of their acquisition."""

    name: str
    vendor: str
    series: tuple[Sketch, ...]
    study_per_series: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def only(self, *kinds: str) -> Study:
        """The study with series of some kinds alone."""
        return replace(self, series=tuple(one for one in self.series if one.kind in kinds))


def _named(vendor: str, change: Callable[[Sketch], Sketch] = lambda one: one) -> tuple[Sketch, ...]:
    return tuple(change(replace(one, text=_VENDORS[vendor][one.kind])) for one in PROTOCOL)


def _without_agent(one: Sketch) -> Sketch:
    """No agent in any header, and of the series after contrast only the axial one says so."""
    return replace(one, agent=None, text="t1_mprage_sag_p2_iso" if one.kind == "t1ce 3d" else one.text)


def _agent_everywhere(one: Sketch) -> Sketch:
    """The agent stands on every series, and names do not tell before from after."""
    return replace(one, agent="Dotarem", text={"t1ce ax": "Ax T1 SE", "t1ce 3d": "Sag BRAVO"}.get(one.kind, one.text))


def _t1_flair(one: Sketch) -> Sketch:
    if one.kind not in ("t1 ax", "t1ce ax"):
        return one
    text = "Ax T1 FLAIR" + (" +C" if one.kind == "t1ce ax" else "")
    return replace(one, tr=2200, te=25, ti=860, sequence=("SE", "IR"), text=text)


def studies() -> list[Study]:
    """Eight studies, each with one right series for each modality."""
    flair = next(one for one in _named("SIEMENS") if one.kind == "flair")
    repeated = [replace(one, role=None) if one.kind == "flair" else one for one in _named("SIEMENS")]
    repeated.insert(6, flair)
    return [
        Study("siemens", "SIEMENS", _named("SIEMENS")),
        Study("ge", "GE MEDICAL SYSTEMS", _named("GE MEDICAL SYSTEMS")),
        Study("philips", "Philips Medical Systems", _named("Philips Medical Systems")),
        Study("no-agent", "SIEMENS", _named("SIEMENS", _without_agent)),
        Study("agent-everywhere", "GE MEDICAL SYSTEMS", _named("GE MEDICAL SYSTEMS", _agent_everywhere)),
        Study("t1-flair", "GE MEDICAL SYSTEMS", _named("GE MEDICAL SYSTEMS", _t1_flair)),
        Study("repeated-flair", "SIEMENS", tuple(repeated)),
        Study("study-per-series", "Philips Medical Systems", _named("Philips Medical Systems"), True),
    ]


def chosen(listing: Listing, folder: Path) -> dict[str, int]:
    """The greatest value of the series that was selected for each modality."""
    found = {}
    for one in listing.series:
        if one.decision == "selected":
            first = pydicom.dcmread(folder / one.series.first)
            found[one.role] = max(np.frombuffer(first.PixelData, "<u2").tolist())
    return found


def write(folder: Path, study: Study) -> dict[str, int]:
    """Write a study's files with names that say nothing; gives the value of the right series of each modality."""
    folder.mkdir(parents=True, exist_ok=True)
    right: dict[str, int] = {}
    count = 0
    for place, one in enumerate(study.series):
        value = 100 + 10 * place
        if one.role:
            right[one.role] = value
        template = _bytes(_image(study, one, place, value))
        for time in range(one.times):
            for number in range(one.slices):
                (folder / f"{count:05d}").write_bytes(_filled(template, _own(study, one, place, time, number)))
                count += 1
    return right


def _own(study: Study, one: Sketch, place: int, time: int, number: int) -> tuple[str, ...]:
    """What an image has of its own, always as long: its UID, its numbers, its time and its place."""
    at = np.cross(one.plane[:3], one.plane[3:]) * one.step * number
    return (
        f"{_uid(study)}.{place}.1{time:02d}.1{number:02d}",
        f"{number + 1 + time * one.slices:05d}",
        f"{time + 1:05d}",
        f"{9 + place // 12:02d}{5 * place % 60:02d}{time % 60:02d}.0",
        "\\".join(f"{x:+09.2f}" for x in at),
    )


def _filled(template: bytes, own: tuple[str, ...]) -> bytes:
    marks = (_UID_MARK.ljust(len(own[0]), "9"), *_MARKS)
    for mark, text in zip(marks, own, strict=True):
        assert len(mark) == len(text)
        template = template.replace(mark.encode(), text.encode())
    return template


_UID_MARK, _PLACE_MARK = "2.25.9", "+44444.44"
_MARKS = ("55555", "33333", "121212.0", "\\".join([_PLACE_MARK] * 3))


def _uid(study: Study) -> str:
    return f"1.2.826.{sum(map(ord, study.name))}"


def _image(study: Study, one: Sketch, place: int, value: int) -> Dataset:
    """An image of a series, with marks where each has values of its own."""
    uid, blank, minute = _uid(study), _own(study, one, place, 0, 0), f"{9 + place // 12:02d}{5 * place % 60:02d}"
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, _UID_MARK.ljust(len(blank[0]), "9")
    ds.StudyInstanceUID = f"{uid}.{place}.77" if study.study_per_series else f"{uid}.77"
    ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{uid}.{place}", f"{uid}.9"
    ds.PatientID, ds.PatientName, ds.Modality, ds.Manufacturer = f"P-{study.name}", "Meier^Anna", "MR", study.vendor
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20210304"
    ds.StudyTime = "093000"
    ds.SeriesTime, ds.AcquisitionTime = f"{minute}00", _MARKS[2]
    ds.SeriesDescription, ds.BodyPartExamined = one.text, "HEAD"
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = place + 1, *_MARKS[:2]
    ds.ImageType, ds.ScanningSequence, ds.SequenceVariant = list(one.image_type), list(one.sequence), list(one.variant)
    ds.MRAcquisitionType, ds.RepetitionTime, ds.EchoTime = one.dimensions, one.tr, one.te
    if one.ti is not None:
        ds.InversionTime = one.ti
    if one.agent is not None:
        ds.ContrastBolusAgent = one.agent
    ds.Rows, ds.Columns, ds.PixelSpacing, ds.SliceThickness = 6, 5, [1, 1], one.step
    ds.ImageOrientationPatient, ds.ImagePositionPatient = list(one.plane), [_PLACE_MARK] * 3
    for name, new in (study.extra | one.extra).items():
        setattr(ds, name, new)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    pixels = np.full((6, 5), value, np.uint16)
    pixels[0] = 0
    ds.PixelData = pixels.tobytes()
    return ds


def _bytes(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
