"""Series of hospital studies: what each is recognised as, and which enter a scan."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from segpipe.errors import BadInput
from segpipe.readers.archive import Entry
from segpipe.readers.dicom_index import ENHANCED, Facts, Instance, Series, merged
from segpipe.readers.layouts import dicom
from segpipe.readers.recognise import recognise
from segpipe.readers.scan import load
from segpipe.readers.series import Options, judge
from segpipe.readers.sources import find
from tests.readers.hospital import MODALITIES, Study, chosen, studies, write
from tests.readers.hospital_more import MORE

KEY = b"a secret of more than sixteen bytes"


@pytest.mark.parametrize("study", studies(), ids=lambda study: study.name)
def test_a_hospital_study_becomes_one_scan_of_its_four_modalities(study: Study, tmp_path: Path) -> None:
    right = write(tmp_path, study)
    listing = find(str(tmp_path), "dicom", KEY)
    told = [(one.role, one.decision, one.reason, one.evidence, one.facts.said.words) for one in listing.series]
    assert [scan.modalities for scan in listing.scans] == [MODALITIES], told
    assert not listing.rejected
    assert len(listing.series) == len(study.series)
    assert all(one.reason for one in listing.series if one.decision != "selected"), told
    scan = load(listing.root, listing.scans[0])
    assert {name: int(image.max()) for name, image in scan.images.items()} == right


@pytest.mark.parametrize("study", MORE, ids=lambda study: study.name)
def test_other_vendors_languages_and_habits(study: Study, tmp_path: Path) -> None:
    right = write(tmp_path, study)
    listing = find(str(tmp_path), "dicom", KEY)
    told = [(one.role, one.decision, one.reason, one.evidence, one.facts.said.words) for one in listing.series]
    assert chosen(listing, tmp_path) == right, told
    assert [set(scan.modalities) for scan in listing.scans] == ([set(right)] if right else [])
    assert len(listing.series) == len(study.series)
    assert all(one.reason for one in listing.series if one.decision != "selected"), told


def test_a_series_that_cannot_be_used_drops_out_alone(tmp_path: Path) -> None:
    study = studies()[0].only("t1 ax", "t2 ax", "flair", "t1ce ax")
    write(tmp_path, study)
    scan = find(str(tmp_path), "dicom", KEY).scans[0]
    bad = next(file for file in scan.files if file.role == "T2")
    (tmp_path / bad.paths[2]).write_bytes((tmp_path / bad.paths[2]).read_bytes()[:-9])
    listing = find(str(tmp_path), "dicom", KEY)
    loaded = load(listing.root, listing.scans[0])
    assert loaded.modalities == ("FLAIR", "T1", "T1ce")
    (dropped,) = loaded.dropped
    assert (str(dropped.reason), set(dropped.paths), dropped.is_dicom) == ("truncated", set(bad.paths), True)
    (tmp_path / bad.paths[2]).unlink()  # what was left out must have been there
    with pytest.raises(BadInput, match="cannot be read"):
        load(listing.root, listing.scans[0])


def facts(**changes: object) -> Facts:
    """An axial T1 spin echo of the head, but for `changes`."""
    said = recognise(str(changes.pop("text", "T1")))
    plain = Facts(
        subject="s",
        study="v",
        day="d",
        accession=None,
        series="1",
        frame="f",
        modality="MR",
        kind="image",
        vendor="ge",
        body="HEAD",
        image_type=("ORIGINAL", "PRIMARY"),
        sequence=("SE",),
        variant=(),
        dimensions="2D",
        echo_planar=False,
        angiography=False,
        acquisition_contrast=None,
        component="magnitude",
        echo_time=None,
        repetition_time=None,
        inversion_time=None,
        flip_angle=None,
        b_values=(),
        rows=4,
        columns=4,
        pixel_mm=(1.0, 1.0),
        thickness_mm=5.0,
        direction=(1.0, 0, 0, 0, 1.0, 0),
        agent=None,
        bolus=None,
        number=None,
        moment=None,
        said=said,
        protocol_said=recognise(""),
        text=said.role or "",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def series(count: int = 20, times: int = 1, moment: float | None = None, **changes: object) -> Series:
    members = [
        Instance(Entry(f"{n}-{t}", 1, ""), 1000 * n + t, 5.0 * n, moment) for n in range(count) for t in range(times)
    ]
    return Series.of(facts(**changes), members)


def told(*found: Series, options: Options | None = None) -> list[tuple[str | None, str]]:
    """Role and decision of each series, in the order of their ids."""
    return [(one.role, one.decision) for one in judge(found, options or Options())]


def test_the_next_series_takes_the_place_of_one_whose_pixels_cannot_be_used() -> None:
    old, new, thick = series(series="1", moment=1.0), series(series="2", moment=2.0), series(10, series="3", moment=3.0)
    assert told(old, new, thick) == [("T1", "not selected"), ("T1", "selected"), ("T1", "not selected")]
    bad = Options(unusable=lambda one: one.facts.series == "2")
    found = judge([old, new, thick], bad)
    assert [one.decision for one in found] == ["selected", "not selected", "not selected"]
    assert "took its place" in found[1].reason
    nothing = Options(unusable=lambda one: True)  # nobody could take its place
    assert told(old, new, thick, options=nothing) == told(old, new, thick)


@pytest.mark.parametrize("refers_to", ["1", "2"])
def test_a_seg_object_says_which_modality_it_was_drawn_on(refers_to: str) -> None:
    seg = series(1, series="9", kind="segmentation", modality="SEG", refers_to=(refers_to,), volumes=1)
    images = [series(series="1", text="T1"), series(series="2-a", text="T2")]
    (scan,) = dicom._scans(judge([*images, seg], Options()))
    assert {one.role: one.drawn_on for one in scan.files} == {"T1": None, "T2": None, "mask": f"T{refers_to}"}


def many_frames(number: int, echo: float, repetition: float, inversion: float | None, **words: object) -> bytes:
    """An enhanced image of twelve slices that has no description; its value is ten times its number."""
    image, shared = Dataset(), Dataset()
    plane, measures, timing, echoes, modifier, agent = (Dataset() for _ in range(6))
    plane.ImageOrientationPatient, measures.PixelSpacing, timing.RepetitionTime = [1, 0, 0, 0, 1, 0], [1, 1], repetition
    echoes.EffectiveEchoTime, agent.CodeMeaning = echo, words.pop("agent", "None")
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    shared.MRTimingAndRelatedParametersSequence, shared.MREchoSequence = [timing], [echoes]
    if inversion is not None:
        modifier.InversionTimes, image.InversionRecovery = inversion, "YES"
        shared.MRModifierSequence = [modifier]
    frames = [Dataset() for _ in range(12)]
    for place, frame in enumerate(frames):
        frame.PlanePositionSequence = [Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 6 * place]
    image.SOPClassUID, image.SOPInstanceUID, image.SeriesInstanceUID = ENHANCED[0], f"1.2.{number}.1", f"1.2.{number}"
    image.StudyInstanceUID, image.FrameOfReferenceUID, image.PatientID, image.Modality = "1.2", "1.3", "P", "MR"
    image.StudyDate, image.AcquisitionDateTime, image.SeriesNumber = "20240102", f"2024010209{number:02d}00", number
    image.EchoPulseSequence, image.ContrastBolusAgentSequence = "SPIN", [agent]
    for name, value in words.items():
        setattr(image, name, value)
    image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [shared], frames
    image.NumberOfFrames, image.Rows, image.Columns, image.SamplesPerPixel = 12, 6, 5, 1
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    pixels = np.full((12, 6, 5), 10 * number, "<u2")
    pixels[:, 0] = 0
    image.PhotometricInterpretation, image.PixelData, image.file_meta = (
        "MONOCHROME2",
        pixels.tobytes(),
        FileMetaDataset(),
    )
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID, image.file_meta.MediaStorageSOPInstanceUID = ENHANCED[0], f"1.2.{number}.1"
    file = io.BytesIO()
    pydicom.dcmwrite(file, image, enforce_file_format=True)
    return file.getvalue()


def test_enhanced_images_without_a_name_are_known_by_their_pulses_and_their_agent(tmp_path: Path) -> None:
    images = [
        many_frames(1, 9, 520, None),
        many_frames(2, 95, 4500, None),
        many_frames(3, 110, 9000, 2500),
        many_frames(4, 80, 5000, None, EchoPlanarPulseSequence="YES"),
        many_frames(5, 9, 520, None, agent="Gadobutrol"),
        many_frames(6, 20, 600, None, EchoPulseSequence="GRADIENT"),
    ]
    for number, content in enumerate(images):
        (tmp_path / f"IM{number}").write_bytes(content)
    listing = find(str(tmp_path), "dicom", KEY)
    loaded = load(listing.root, listing.scans[0])
    wanted = {"FLAIR": 30, "T1": 10, "T1ce": 50, "T2": 20}
    assert {name: int(image.max()) for name, image in loaded.images.items()} == wanted


EXCLUDED = {
    "not MR": {"modality": "CT"},
    "not head": {"body": "KNEE"},
    "phantom": {"body": "PHANTOM", "text": "ACR T1"},
    "localizer": {"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")},
    "reformat": {"image_type": ("DERIVED", "SECONDARY", "MPR")},
    "projection": {"image_type": ("DERIVED", "PRIMARY", "PROJECTION")},
    "subtraction": {"image_type": ("DERIVED", "PRIMARY", "SUBTRACTION")},
    "phase image": {"component": "phase", "text": "t1 se or so T2"},
    "derived": {"image_type": ("DERIVED", "SECONDARY")},
    "diffusion": {"b_values": (0.0, 1000.0)},
    "dynamic": {"times": 40},
    "EPI": {"echo_planar": True},
    "map": {"text": "T1 MAP"},
    "T2*": {"text": "T2 tra", "sequence": ("GR",), "echo_time": 20.0, "repetition_time": 600.0},
    "angiography": {"acquisition_contrast": "TOF"},
}


@pytest.mark.parametrize("reason", EXCLUDED)
def test_what_never_enters_a_scan_is_told_by_its_reason(reason: str) -> None:
    (one,) = judge([series(**EXCLUDED[reason])], Options())  # type: ignore[arg-type]
    assert (one.decision, one.reason, one.role) == ("excluded", reason, "other")


PHYSICS = {
    "FLAIR": (110.0, 9000.0, 2500.0, ("SE", "IR")),
    "T1": (9.0, 500.0, None, ("SE",)),
    "T2": (95.0, 4500.0, None, ("SE",)),
}


@pytest.mark.parametrize("role", PHYSICS)
def test_physics_names_what_words_do_not_and_vetoes_what_they_say_wrongly(role: str) -> None:
    te, tr, ti, sequence = PHYSICS[role]
    times = {"echo_time": te, "repetition_time": tr, "inversion_time": ti, "sequence": sequence}
    assert told(series(text="Reihe 4", **times)) == [(role, "selected")]
    wrong = {"FLAIR": "T1", "T1": "T2", "T2": "T1"}[role]
    assert told(series(text=wrong, **times)) == [(wrong, "conflict")]
    assert told(series(text="Reihe 4", count=4, **times)) == [(None, "unknown")]


def test_the_physics_of_a_scout_are_not_those_of_a_t1() -> None:
    quick = {"sequence": ("GR",), "variant": ("SP",), "echo_time": 1.4, "dimensions": "3D"}
    assert told(series(text="", repetition_time=3.2, **quick)) == [(None, "unknown")]
    assert told(series(text="", repetition_time=4.9, **quick)) == [("T1", "selected")]


def test_a_localizer_without_a_name_is_no_t1() -> None:
    slices = {"text": "", "sequence": ("GR",), "variant": ("SP",), "echo_time": 4.0}
    assert told(series(repetition_time=8.6, **slices)) == [(None, "unknown")]
    assert told(series(repetition_time=8.6, dimensions="3D", **slices)) == [("T1", "selected")]
    assert told(series(repetition_time=180.0, **slices)) == [("T1", "selected")]


def test_an_inversion_that_nulls_fat_is_no_flair() -> None:
    tirm = {"text": "t2_tirm_cor", "sequence": ("SE", "IR"), "echo_time": 60.0, "repetition_time": 4200.0}
    assert told(series(inversion_time=160.0, **tirm)) == [("FLAIR", "conflict")]
    assert told(series(inversion_time=2500.0, **tirm)) == [("FLAIR", "selected")]


BRAIN = {"body": "CHEST", "names_brain": True}


@pytest.mark.parametrize(
    ("others", "decision"),
    [
        ([{"text": "FLAIR", "body": "CHEST"}], "selected"),
        ([{"text": "T2 sag HWS", "body": "CHEST"}], "excluded"),
        ([{"text": "T2 sag", "body": "CSPINE"}], "excluded"),
        ([{"text": "", "body": None, "modality": "SR", "kind": "other"}], "selected"),
    ],
    ids=["a copied protocol", "words of a spine", "two parts of the body", "a report beside"],
)
def test_a_brain_that_is_labelled_as_another_part_is_a_brain(others: list[dict[str, object]], decision: str) -> None:
    found = [series(series="1", text="T1 tra Kopf", **BRAIN)]
    found += [series(series=str(number), **one) for number, one in enumerate(others, start=2)]
    judged = judge(found, Options())
    assert judged[0].decision == decision
    assert judged[0].facts.body == "CHEST"
    assert ("words of the study say brain" in judged[0].evidence) == (decision == "selected")


def test_one_series_of_the_brain_makes_no_head_of_a_spine() -> None:
    spine = [series(series=name, body="CSPINE", text=f"{name} sag", names_brain=name == "T1") for name in ("T1", "T2")]
    assert {one.reason for one in judge(spine, Options())} == {"not head"}


@pytest.mark.parametrize("text", ["FLAIR", "T2"])
@pytest.mark.parametrize(
    ("first", "second", "right"),
    [
        ({}, {}, "2"),
        ({}, {"text": "{} KM"}, "1"),
        ({"agent": False}, {"agent": True}, "1"),
        ({"agent": True}, {"agent": True}, "2"),
        ({"direction": (1.0, 0, 0, 0, 0, -1.0)}, {"agent": True}, "2"),
    ],
    ids=["a repeat", "words", "the agent", "the agent on all", "another plane before"],
)
def test_flair_and_t2_before_contrast_are_better(
    text: str, first: dict[str, object], second: dict[str, object], right: str
) -> None:
    words = {"text": str(second.get("text", "{}")).format(text)}
    before = series(series="1", moment=10.0, **{"text": text, **first})
    after = series(series="2", moment=900.0, **{**second, **words})
    found = judge([before, after], Options())
    assert [one.facts.series for one in found if one.decision == "selected"] == [right]
    alone = judge([after], Options())
    assert alone[0].decision == "selected"


def test_a_t1_after_a_nameless_dynamic_series_and_another_t1_is_a_conflict() -> None:
    spins = {"text": "", "echo_time": 9.0, "repetition_time": 520.0}
    before, after = series(series="1", moment=10.0, **spins), series(series="3", moment=900.0, **spins)
    fast = {"text": "", "sequence": ("EP", "GR"), "echo_planar": True, "echo_time": 30.0, "times": 20}
    dynamic = series(series="2", moment=500.0, repetition_time=1600.0, **fast)
    assert told(before, dynamic, after) == [("T1", "selected"), ("other", "excluded"), ("T1", "conflict")]
    assert told(dynamic, after)[1] == ("T1", "selected")  # as before images of activity
    slow = series(series="2", moment=500.0, repetition_time=4000.0, **fast)
    assert told(before, slow, after)[2] == ("T1", "selected")
    marked = series(series="3", moment=900.0, agent=True, **spins)
    assert told(before, dynamic, marked)[2] == ("T1ce", "selected")


PLAIN = {"PatientName": "Meier^Anna", "PatientID": "P-1"}


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"SeriesDescription": "QA_Fantôme 3 T2"}, "phantom"),
        ({"BodyPartExamined": "PHANTOM"}, "phantom"),
        ({"PatientName": "Test^Phantom", "PatientID": "PHANTOM"}, ""),
        ({"SeriesDescription": "T2 phantomlimb"}, ""),
        ({"BodyPartExamined": "CHEST", "ProtocolName": "Schädel"}, ""),
        ({"BodyPartExamined": "CHEST", "ProtocolName": "cranio-cervical"}, "not head"),
    ],
)
def test_headers_tell_phantoms_and_brains(extra: dict[str, object], reason: str, tmp_path: Path) -> None:
    write(tmp_path, replace(studies()[0].only("t2 ax"), extra={**PLAIN, **extra}))
    (one,) = find(str(tmp_path), "dicom", KEY).series
    assert (one.reason, one.decision) == (reason, "excluded" if reason else "selected")


def test_an_image_in_colours_takes_no_place_of_another(tmp_path: Path) -> None:
    study = studies()[0].only("t2 ax")
    right = write(tmp_path / "grey", study)
    write(tmp_path / "colours", replace(study, extra={"SeriesInstanceUID": "1.2.3", "PixelSpacing": [0.5, 0.5]}))
    for path in (tmp_path / "colours").iterdir():
        image = pydicom.dcmread(path)
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelData = 8, 8, 7, bytes(90)
        image.SOPInstanceUID += ".1"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.save_as(path)
    listing = find(str(tmp_path), "dicom", KEY)
    assert chosen(listing, tmp_path) == right
    assert {one.reason for one in listing.series} == {"", "it is a colour image"}


def test_a_modality_that_is_none_is_not_kept(tmp_path: Path) -> None:
    write(tmp_path, replace(studies()[0].only("t2 ax"), extra={"Modality": "MEIER"}))
    (one,) = find(str(tmp_path), "dicom", KEY).series
    assert (one.facts.modality, one.reason) == ("OT", "not MR")


@pytest.mark.parametrize("date", ["", "20210304"])
def test_a_study_may_go_on_past_midnight(date: str, tmp_path: Path) -> None:
    kinds = {"t1 ax": "233500", "perfusion": "235500", "t1ce ax": "001500"}
    plain = studies()[0].only(*kinds)
    late = [
        replace(one, text=one.text.removesuffix("_KM"), agent=None,
                extra={"AcquisitionTime": kinds[one.kind], "AcquisitionDate": date, "SeriesDate": date})
        for one in plain.series
    ]  # fmt: skip
    right = write(tmp_path, replace(plain, series=tuple(late), extra={"StudyTime": "233000"}))
    assert chosen(find(str(tmp_path), "dicom", KEY), tmp_path) == right


def test_the_standards_word_names_a_series_and_contradicts_words() -> None:
    assert told(series(text="", acquisition_contrast="FLUID_ATTENUATED")) == [("FLAIR", "selected")]
    assert told(series(text="T2", acquisition_contrast="T1")) == [("T2", "conflict")]


def test_the_agent_tells_contrast_unless_it_stands_on_every_t1() -> None:
    pre, post = series(series="1", agent=False, text="T1 SE"), series(series="2", agent=True, text="T1 SE")
    assert told(pre, post) == [("T1", "selected"), ("T1ce", "selected")]
    everywhere = series(series="1", agent=True, text="T1 SE")
    assert told(everywhere, post) == [("T1", "conflict"), ("T1", "conflict")]
    assert told(everywhere, series(series="2", agent=True, text="T1 SE GD")) == [
        ("T1", "conflict"),
        ("T1ce", "selected"),
    ]


def test_words_that_the_agents_tag_contradicts_are_a_conflict() -> None:
    native = series(series="1", agent=False, text="T1 enhanced", moment=10.0)
    after = series(series="2", agent=True, text="T1 SE C+", moment=900.0)
    assert told(native, after) == [("T1", "conflict"), ("T1ce", "selected")]
    unmarked = series(series="2", agent=False, text="T1 SE C+", moment=900.0)
    assert told(native, unmarked)[1] == ("T1ce", "selected")  # a tag that stands nowhere contradicts nothing


@pytest.mark.parametrize(("first", "later"), [("T1 tra nativ", "T1 tra"), ("AX T1 WO", "AX T1 W")])
def test_a_t1_of_unknown_contrast_behind_one_before_contrast_is_a_conflict(first: str, later: str) -> None:
    native, silent = series(series="1", text=first, moment=10.0), series(series="2", text=later, moment=900.0)
    assert told(native, silent) == [("T1", "selected"), ("T1", "conflict")]
    assert told(replace(native, moment=1900.0), silent)[1][1] != "conflict"  # nobody was given an agent before it
    without = replace(silent, facts=replace(silent.facts, agent=False))
    assert told(native, without)[1][1] != "conflict"
    assert told(silent) == [("T1", "selected")]


def test_time_after_the_first_series_with_contrast_tells_contrast() -> None:
    before = series(series="1", agent=True, moment=10.0, text="T1 SE")
    after = series(series="3", agent=True, moment=300.0, text="T1 COR", direction=(1.0, 0, 0, 0, 0, -1.0))
    named = series(series="2", agent=True, moment=200.0, text="T1 SE GD")
    judged = judge([before, named, after], Options())
    assert [one.role for one in judged] == ["T1", "T1ce", "T1ce"]
    assert judged[0].evidence[-1] == "before the first series with contrast"
    native = series(series="3", moment=300.0, text="T1 nativ")
    assert told(before, named, native)[2] == ("T1", "conflict")


@pytest.mark.parametrize(
    ("text", "role"), [("FLAIR KM", "T1ce"), ("MRA carotids KM", "T1ce"), ("FLAIR", "T1"), ("ASL post", "T1")]
)
def test_other_series_after_contrast_tell_it_of_a_t1_behind_them(text: str, role: str) -> None:
    other, silent = series(series="1", text=text, moment=10.0), series(series="2", text="T1 tra", moment=900.0)
    assert told(other, silent)[1] == (role, "selected")
    assert told(replace(other, moment=1900.0), silent)[1] == ("T1", "selected")


def test_an_agent_that_is_named_before_the_bolus_is_a_conflict() -> None:
    plain = series(series="1", text="SAG T1", moment=10.0)
    early = series(series="2", text="T1 SE", agent=True, moment=100.0)
    bolus = series(series="3", text="DSC", agent=True, moment=500.0)
    after = series(series="4", text="T1 SE COR", agent=True, moment=900.0, direction=(1.0, 0, 0, 0, 0, -1.0))
    assert told(plain, early, bolus, after) == [
        ("T1", "selected"), ("T1", "conflict"), ("other", "excluded"), ("T1ce", "selected"),
    ]  # fmt: skip
    assert told(plain, early, after)[1] == ("T1ce", "selected")


@pytest.mark.parametrize(
    ("image_type", "times", "role"),
    [
        (("ORIGINAL", "PRIMARY"), {"echo_time": 2.5, "repetition_time": 1900.0, "inversion_time": 900.0}, "T1ce"),
        (("DERIVED", "PRIMARY"), {"echo_time": 2.5, "repetition_time": 1900.0, "inversion_time": 900.0}, "other"),
        (("ORIGINAL", "PRIMARY"), {"echo_time": 95.0, "repetition_time": 4500.0}, "other"),
    ],
)
def test_an_original_image_called_mpr_is_an_mprage(
    image_type: tuple[str, ...], times: dict[str, float], role: str
) -> None:
    assert told(series(text="AX MPR POST", image_type=image_type, **times))[0][0] == role
    assert told(series(text="AX MPR reformat POST", image_type=image_type, **times))[0][0] == "other"


NO_BOLUS = ("Perfusion 3D ohne KM", "perfusion non contrast", "PWI without contrast", "CBF", "Cerebral Blood Flow",
            "WIP SOURCE - PERF", "3D ASL", "PERF")  # fmt: skip
BOLUS = ("DSC", "T2* perfusion DSC", "DCE", "rCBV", "MTT", "ep2d_perf KM", "Perfusion with contrast")


@pytest.mark.parametrize("text", [*NO_BOLUS, *BOLUS])
def test_only_a_perfusion_series_that_needs_an_agent_tells_of_a_bolus(text: str) -> None:
    before, after = series(series="1", moment=10.0, text="T1 tra"), series(series="3", moment=900.0, text="T1 tra")
    perfusion = series(series="2", moment=500.0, text=text)
    roles = [role for role, _ in told(before, perfusion, after)]
    assert roles == ["T1", "other", "T1ce" if text in BOLUS else "T1"]


@pytest.mark.parametrize(
    ("changes", "role"),
    [
        ({}, "T1ce"),
        ({"repetition_time": 1500.0}, "T1ce"),
        ({"repetition_time": 4000.0}, "T1"),  # arterial spins are labelled before each image
        ({"image_type": ("DERIVED", "PRIMARY")}, "T1"),
        ({"acquisition_contrast": "SPIN_TAGGING"}, "T1"),
    ],
)
def test_raw_and_fast_perfusion_images_tell_of_a_bolus(changes: dict[str, object], role: str) -> None:
    raw = series(series="1", times=40, moment=500.0, text="perfusion", echo_planar=True, **changes)
    assert told(raw, series(series="2", moment=900.0, text="T1 tra"))[1] == (role, "selected")


@pytest.mark.parametrize(("bolus", "role"), [(200.0, "T1ce"), (-300.0, "T1ce"), (-40000.0, "T1"), (9000.0, "T1")])
def test_a_bolus_outside_the_visit_tells_nothing(bolus: float, role: str) -> None:
    other = series(series="1", moment=0.0, text="T2 tra")
    assert told(other, series(series="2", moment=400.0, text="T1 tra", bolus=bolus))[1] == (role, "selected")


def test_fat_and_opposed_images_of_a_dixon_series_are_left_out() -> None:
    types = {"WATER": "DERIVED", "FAT": "ORIGINAL", "IN_PHASE": "ORIGINAL", "OPP_PHASE": "ORIGINAL"}
    found = [
        series(series=kind, text="T1 dixon", number=place, image_type=(first, "PRIMARY", kind))
        for place, (kind, first) in enumerate(types.items(), start=1)
    ]
    assert {one.facts.series: (one.decision, one.reason) for one in judge(found, Options())} == {
        "WATER": ("selected", ""),
        "FAT": ("excluded", "fat image"),
        "IN_PHASE": ("not selected", "it is an in-phase image"),
        "OPP_PHASE": ("excluded", "opposed-phase image"),
    }
    assert told(found[2]) == [("T1", "selected")]


def test_selection_follows_its_rules() -> None:
    thick = series(series="1", text="T1 tra")
    volume = series(series="2", text="MPRAGE", dimensions="3D", direction=(0, 1.0, 0, 0, 0, -1.0), thickness_mm=1.0)
    short = series(series="3", count=8, text="T1 tra dünn", moment=50.0)
    assert told(thick, volume, short) == [("T1", "selected"), ("T1", "not selected"), ("T1", "not selected")]
    assert told(thick, volume, options=Options(prefer="3d")) == [("T1", "not selected"), ("T1", "selected")]
    reasons = [one.reason for one in judge([thick, volume, short], Options())]
    assert reasons == ["", "its plane and kind are preferred less", "it covers less of the head"]


def test_a_whole_body_is_no_better_than_a_head() -> None:
    head = series(series="1", text="MPRAGE", dimensions="3D", direction=(0, 1.0, 0, 0, 0, -1.0), count=32)
    body = series(series="2", text="T1 vibe tra", dimensions="3D", count=120)
    assert told(head, body) == [("T1", "selected"), ("T1", "not selected")]
    assert told(body) == [("T1", "selected")]
    neck = series(series="2", text="T1 vibe cor", dimensions="3D", direction=(1.0, 0, 0, 0, 0, -1.0), count=50)
    axial = series(series="1", text="T1 tra", count=28)
    assert told(axial, neck) == [("T1", "selected"), ("T1", "not selected")]


def test_a_fragment_is_no_modality_of_a_whole_head() -> None:
    whole = series(series="1", text="T2")
    broken_off = series(series="2", text="T1 SE GD", count=6)
    assert told(whole, broken_off) == [("T2", "selected"), ("T1ce", "not selected")]
    assert told(whole, series(series="2", text="T1 SE GD", count=7))[1] == ("T1ce", "selected")
    assert told(whole, series(series="2", text="T1 VIBE GD", count=6, dimensions="3D"))[1] == ("T1ce", "selected")
    body = series(series="3", text="T1 dixon in", count=120)
    assert told(series(series="2", text="FLAIR", count=24), body)[0] == ("FLAIR", "selected")
    assert told(broken_off) == [("T1ce", "selected")]
    mapped = series(series="2", text="T1 SE GD", count=6, override="T1ce")
    assert told(whole, mapped)[1] == ("T1ce", "override")
    before = Options(earlier={"2": ("s", "v", "T1ce")})
    assert told(whole, broken_off, options=before)[1] == ("T1ce", "selected")


def test_sessions_are_studies_days_or_accession_numbers() -> None:
    visits_of_a_day = [
        series(series=f"{study}{text}", study=study, accession=accession, text=text)
        for study, accession in (("a", "x"), ("b", "y"))
        for text in ("T1", "T2")
    ]
    for by, visits in {"study": {"a", "b"}, "date": {"d"}, "accession": {"x", "y"}}.items():
        assert {one.session for one in judge(visits_of_a_day, Options(session=by))} == visits


SINGLE = [{"study": f"v{n}", "series": str(n), "text": text, "moment": 300.0 * n}
          for n, text in enumerate(("T1 tra", "T2 tra", "FLAIR"))]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "more", "visits"),
    [
        ([{}, {}, {}], [], 1),
        ([{}, {}, {"moment": 7000.0}], [], 3),
        ([{"accession": "x"}, {"accession": "y"}, {}], [], 3),
        ([{}, {"text": "T1 tra"}, {"text": "T1 tra"}], [], 3),
        ([{"day": None}, {"day": None}, {"day": None}], [], 1),
        ([{"day": None}, {"day": None, "frame": "g"}, {"day": None, "frame": None}], [], 3),
        ([{}, {}, {}], [(subject, text) for subject in "abcd" for text in ("T1", "T2", "FLAIR")], 3),
    ],
    ids=[
        "a study per series",
        "a pause",
        "two requests",
        "follow-ups",
        "without dates",
        "without dates, other frames",
        "an archive of whole studies",
    ],
)
def test_studies_of_one_series_are_one_visit_only_where_they_look_like_one(
    changes: list[dict[str, object]], more: list[tuple[str, str]], visits: int
) -> None:
    found = [series(**{**one, **change}) for one, change in zip(SINGLE, changes, strict=True)]
    found += [series(subject=name, study=name, series=f"{name}{text}", text=text) for name, text in more]
    assert len({one.session for one in judge(found, Options()) if one.facts.subject == "s"}) == visits


def test_more_kinds_enter_where_they_are_asked_for() -> None:
    adc = series(text="dADC", echo_planar=True)
    assert told(adc) == [("other", "excluded")]
    assert told(adc, options=Options(also=("ADC",))) == [("ADC", "selected")]


def test_a_modality_of_an_earlier_run_stays() -> None:
    first = series(series="1", agent=True, text="T1 SE")
    assert told(first) == [("T1ce", "selected")]
    later = series(series="2", agent=True, text="T1 COR")
    assert told(first, later) == [("T1", "conflict"), ("T1", "conflict")]
    kept = Options(earlier={"1": ("s", "v", "T1ce")})
    assert told(first, later, options=kept) == [("T1ce", "selected"), ("T1", "conflict")]


def test_an_earlier_run_makes_no_t1_of_what_is_after_contrast_by_now() -> None:
    first = series(series="1", moment=500.0, text="T1 tra")
    kept = Options(earlier={"1": ("s", "v", "T1")})
    assert told(first, options=kept) == [("T1", "selected")]
    named = series(series="2", moment=100.0, text="T1 tra KM", pixel_mm=(0.5, 0.5))
    perfusion = series(series="3", moment=50.0, text="DSC perfusion")
    for later in ([named], [perfusion], [named, perfusion]):
        judged = judge([first, *later], kept)
        assert [one.role for one in judged if one.decision == "selected"] == ["T1ce"]
        assert not any("earlier run" in one.reason for one in judged)


def test_a_sites_map_decides() -> None:
    assert told(series(override="FLAIR", text="T2 special")) == [("FLAIR", "override")]
    (ignored,) = judge([series(override="ignore")], Options())
    assert (ignored.decision, ignored.role) == ("override", None)


def test_a_sites_map_decides_after_an_earlier_run_too() -> None:
    kept = Options(earlier={"1": ("s", "v", "T1"), "2": ("s", "v", "T2")})
    named, ignored = series(series="1", override="T1ce", text="T1"), series(series="2", override="ignore", text="T2")
    assert told(named, ignored, options=kept) == told(named, ignored) == [("T1ce", "override"), (None, "override")]


@pytest.mark.parametrize(("vendor", "role"), [("siemens healthineers", "FLAIR"), ("siemens", "FLAIR"), ("ge", None)])
def test_a_sites_map_names_a_vendor_as_the_table_does(vendor: str, role: str | None, tmp_path: Path) -> None:
    study = studies()[0].only("t2 ax")
    write(tmp_path, replace(study, vendor="Siemens Healthineers"))
    mapped = {f"{vendor}\t{study.series[0].text}": "FLAIR"}
    (one,) = find(str(tmp_path), "dicom", KEY, options=Options(overrides=mapped)).series
    assert one.facts.override == role


def enhanced(file: int, heights: list[float], **changes: object) -> Series:
    """One enhanced file of series E."""
    one = Instance(Entry(f"f{file}", 1, ""), file, 0.0, None)
    return Series.of(facts(**{"series": "E", "kind": "enhanced", **changes}), [one], heights)


TWICE = {
    "two enhanced files": [enhanced(n, [5.0 * place for place in range(20)]) for n in (1, 2)],
    "many enhanced files": [enhanced(n, [5.0 * place for place in range(20)]) for n in range(300)],
    "two stacks turned a little": [
        series(direction=(1.0, 0, 0, 0, 1.0, 0)),
        series(direction=(1.0, 0, 0, 0, 0.98, 0.199)),
    ],
    "two patients": [series(), series(subject="other", direction=(1.0, 0, 0, 0, 1.0, 0))],
}


@pytest.mark.parametrize("case", TWICE)
def test_parts_of_a_series_have_ids_of_their_own_that_stay(case: str) -> None:
    parts = TWICE[case]
    found, again = merged(parts), merged(parts[::-1])
    names = [one.facts.series for one in found]
    assert len(set(names)) == len(names) == len(parts)
    assert set(names) == {one.facts.series for one in again}
    assert {name.partition("-")[0] for name in names} == {parts[0].facts.series}


def test_enhanced_files_that_show_the_same_place_are_times_of_one_series() -> None:
    places = [5.0 * place for place in range(20)]
    for count, reason in ((1, ""), (2, "several images at each position"), (40, "dynamic")):
        judged = judge(merged([enhanced(n, places) for n in range(count)]), Options())
        assert {one.reason for one in judged} == {reason}, count
    slabs = merged([enhanced(1, places), enhanced(2, [100.0 + place for place in places])])
    echoes = merged([enhanced(1, places, echo_time=10.0), enhanced(2, places, echo_time=100.0)])
    assert [one.times for one in slabs + echoes] == [1, 1, 1, 1]
