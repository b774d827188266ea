"""Whose a study is, where PatientID does not say it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segpipe.readers.dicom_tags import Elements
from segpipe.readers.patients import Shared, Study, is_placeholder, marks, subjects
from segpipe.readers.series import Options
from segpipe.readers.sources import find
from tests.readers.hospital import studies, write

KEY = b"a secret of more than sixteen bytes"
ANNA, ANNA_LATER, PAUL = ("1950", "F", "anna", "a"), ("1950", "F", "anna meier", "b"), ("1999", "M", "paul", "b")
SLIP, BLANK = ("1951", "F", "anna", "a"), ("", "", "", "")


def whose(*people: tuple[str, ...], placeholder: bool = False, earlier: dict[str, str] | None = None) -> list[str]:
    """The subject of each of some studies of one ID; the n-th study has the one series `n`."""
    return told(*people, placeholder=placeholder, earlier=earlier)[0]


def told(
    *people: tuple[str, ...], placeholder: bool = False, earlier: dict[str, str] | None = None
) -> tuple[list[str], Shared]:
    found = [Study(f"study {n}") for n in range(len(people))]
    for place, (one, person) in enumerate(zip(found, people, strict=True)):
        one.add(str(place), person)
    named, shared = subjects("plain", found, placeholder, earlier or {})
    return [named[f"study {n}"] for n in range(len(people))], shared


@pytest.mark.parametrize(
    ("people", "same"),
    [
        ([ANNA, ANNA_LATER], True),
        ([ANNA, SLIP], True),
        ([ANNA, BLANK], True),
        ([BLANK, BLANK], True),
        ([("1950", "F", "anna meier", ""), ("1951", "F", "anna maria meier", "")], True),
        ([("1950", "F", "anna", "site a"), ("1950", "M", "anna", "site b")], True),
        ([("1950", "F", "anna meier", ""), ("1951", "F", "paula kurz", "")], False),
        ([ANNA, PAUL], False),
        ([("1950", "F", "", ""), ("1999", "M", "", "")], False),
        ([("1950", "M", "", "site a"), ("1999", "M", "", "site b")], False),
    ],
)
def test_one_id_is_one_subject_unless_it_is_surely_of_two(people: list[tuple[str, ...]], same: bool) -> None:
    names = whose(*people)
    assert (names == ["plain", "plain"]) if same else len({*names, "plain"}) == 3
    assert set(whose(*people[::-1])) == set(names)


def test_a_third_study_goes_to_its_person() -> None:
    anna, paul, later, nobody = whose(ANNA, PAUL, ANNA_LATER, BLANK)
    assert anna == later != paul
    assert nobody == "plain"
    assert whose(ANNA, PAUL)[0] == anna


def test_under_a_placeholder_birth_dates_and_names_tell_people() -> None:
    anna, paul, later, slip, one, other = whose(ANNA, PAUL, ANNA_LATER, SLIP, BLANK, BLANK, placeholder=True)
    assert anna == later == slip
    assert len({anna, paul, one, other, "plain"}) == 5
    assert whose(ANNA, placeholder=True) == [anna]


def test_a_name_or_a_birth_date_that_many_have_joins_nobody() -> None:
    people = [(str(year), "", "brain tumour", "") for year in range(1950, 1960)]
    assert len(set(whose(*people, placeholder=True))) == 10
    people = [("1950", "", f"case {n}", "") for n in range(10)]
    assert len(set(whose(*people, placeholder=True))) == 10
    couple = [("1950", sex, "", "") for sex in "MF"]
    assert len(set(whose(*couple, placeholder=True))) == 2


def test_an_id_of_very_many_people_is_a_placeholder() -> None:
    people = [(str(number), "", f"case {number}", "") for number in range(100)]
    assert len(set(whose(*people))) == 100


def test_a_subject_of_the_tables_stays() -> None:
    assert whose(ANNA, PAUL, earlier={"0": "plain"})[0] == "plain"
    assert whose(ANNA, PAUL, earlier={"0": "plain", "1": "plain"}) == ["plain", "plain"]
    assert whose(ANNA, ANNA_LATER, placeholder=True, earlier={"1": "plain"}) == ["plain", "plain"]


def test_subjects_of_the_tables_whom_a_later_study_joins_keep_their_names() -> None:
    people = [("b1", "F", "n1", ""), ("b2", "M", "n2", ""), ("", "", "n1", ""), ("b2", "", "", "")]
    names, shared = told(*people, earlier={"0": "X", "1": "Y"})
    assert names == ["X", "Y", "X", "Y"]
    assert (shared.alike, "keeps its name" in shared.sentences[-1]) == (1, True)
    people = [("b1", "F", "n1", ""), ("b2", "F", "n2", ""), ("b1", "F", "n2", "")]
    names, shared = told(*people, placeholder=True, earlier={"0": "X", "1": "Y"})
    assert (names[:2], names[2] in "XY", shared.alike) == (["X", "Y"], True, 1)
    assert told(*people[:2], placeholder=True, earlier={"0": "X", "1": "Y"})[1].alike == 0


def test_a_few_studies_of_a_placeholder_are_one_subject_unless_they_tell_of_several() -> None:
    names, shared = told(BLANK, BLANK, placeholder=True)
    assert (names, shared.silent, shared.alone) == (["plain", "plain"], 1, 0)
    assert len(set(whose(ANNA, BLANK, ANNA_LATER, placeholder=True))) == 1
    names, shared = told(*[BLANK] * 30, placeholder=True)
    assert (len(set(names)), shared.alone) == (30, 30)


def test_more_studies_than_a_patient_has_are_told() -> None:
    shared = told(*[ANNA] * 30, PAUL, placeholder=True)[1]
    assert shared.crowded == 1
    assert any("1 subjects whose PatientID is a placeholder have more than" in line for line in shared.sentences)
    assert told(*[ANNA] * 20, PAUL, placeholder=True)[1].crowded == 0


@pytest.mark.parametrize(
    ("date", "says"), [("19600515", True), ("19600101", False), ("19600000", False), ("1960", False)]
)
def test_a_birth_date_without_a_day_is_no_mark(date: str, says: bool) -> None:
    assert bool(marks(Elements({"PatientBirthDate": date.encode()}))[0]) == says


@pytest.mark.parametrize("text", ["ANONKXQZ", "ANONABCD", "deidB", "1234567", "Pseudo-Q", "case", "9999"])
def test_pseudonyms_are_no_placeholders(text: str) -> None:
    assert not is_placeholder(text)


@pytest.mark.parametrize(
    "text",
    ["ANON", "Anonymous^Patient", "Anonymisé", "anonimizzato", "De-identified", "pseudonymized", "anoniem", "AnonID"],
)
def test_whole_words_that_hide_a_person_are_placeholders(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["Anonymous", "anonymisiert", "N/A", "XXXX", "0000", "^^", "Unknown", "PATIENT^"])
def test_words_that_stand_for_nobody(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["ANON_012", "P-17", "Nana", "TCGA-02-0003", "1", "4711", ""])
def test_ids_that_stand_for_somebody(text: str) -> None:
    assert not is_placeholder(text)


def test_two_patients_of_one_placeholder_are_two_subjects_and_told_without_a_name(tmp_path: Path) -> None:
    for study, birth, sex in zip(studies()[:2], ("19500101", "19990101"), "MF", strict=True):
        extra = {"PatientID": "ANONYMOUS", "PatientBirthDate": birth, "PatientSex": sex}
        write(tmp_path / study.name, replace(study, extra={**study.extra, **extra}).only("t1 ax", "flair"))
    listing = find(str(tmp_path), "dicom", KEY)
    assert len({scan.subject for scan in listing.scans}) == len(listing.scans) == 2
    (told,) = listing.told
    assert told.startswith("PatientID is a placeholder in 2 studies: these are 2 subjects")
    assert not any(word in repr((listing.told, listing.series)) for word in ("ANONYMOUS", "1950", "Meier", "meier"))


def test_a_middle_name_and_an_unknown_day_of_birth_tear_no_patient(tmp_path: Path) -> None:
    said = (("Meier^Anna", "19600515"), ("Meier^Anna Maria", "19600101"))
    for study, (name, birth) in zip(studies()[:2], said, strict=True):
        extra = {"PatientID": "4711", "PatientName": name, "PatientBirthDate": birth, "PatientSex": "F"}
        write(tmp_path / study.name, replace(study, extra={**study.extra, **extra}).only("t1 ax", "flair"))
    listing = find(str(tmp_path), "dicom", KEY)
    assert (len(listing.scans), len({scan.subject for scan in listing.scans})) == (2, 1)
    assert not listing.told


def test_a_subject_that_was_segmented_without_ingest_keeps_its_name(tmp_path: Path) -> None:
    """The table `series` knows nothing of it, and a second person has come under its ID."""
    people = (("Meier^Anna", "19600515", "F"), ("Kurz^Paul", "19700203", "M"))
    for number, (study, (name, birth, sex)) in enumerate(zip(studies()[:2], people, strict=True)):
        extra = {"PatientID": "4711", "PatientName": name, "PatientBirthDate": birth, "PatientSex": sex}
        write(tmp_path / study.name, replace(study, extra={**study.extra, **extra}).only("t1 ax", "flair"))
        if number == 0:
            (before,) = find(str(tmp_path), "dicom", KEY).scans
    fresh = {scan.session: scan.subject for scan in find(str(tmp_path), "dicom", KEY).scans}
    assert before.subject not in fresh.values()
    options = Options(visits=lambda: {before.session: before.subject})
    later = {scan.session: scan.subject for scan in find(str(tmp_path), "dicom", KEY, options=options).scans}
    assert later == {**fresh, before.session: before.subject}


@pytest.mark.parametrize(
    ("other", "is_told"),
    [({}, True), ({"PatientBirthDate": "19500303"}, False), ({"PatientSex": ""}, False), ({"PatientName": ""}, False)],
)
def test_one_person_under_two_ids_is_two_subjects_and_told(
    other: dict[str, str], is_told: bool, tmp_path: Path
) -> None:
    anna = {"PatientName": "Meier^Anna", "PatientBirthDate": "19500302", "PatientSex": "F"}
    for number, who in enumerate((anna, {**anna, "PatientName": "MEIER^ANNA", **other})):
        study = studies()[number].only("t2 ax")
        write(tmp_path / str(number), replace(study, extra={**who, "PatientID": f"MRN {number}"}))
    listing = find(str(tmp_path), "dicom", KEY)
    assert len({scan.subject for scan in listing.scans}) == 2
    assert [line[:46] for line in listing.told] == ["2 PatientIDs share name, birth date and sex wi"] * is_told


@pytest.mark.parametrize(
    ("other", "is_told"), [("GBM-12", True), ("gbm_012", True), ("gbm-120", False), ("gbm-1-2", False)]
)
def test_ids_that_may_be_one_typed_twice_are_told(other: str, is_told: bool, tmp_path: Path) -> None:
    for number, patient in enumerate(("gbm-12", other)):
        nobody = {"PatientName": "", "PatientBirthDate": "", "PatientSex": "", "PatientID": patient}
        write(tmp_path / str(number), replace(studies()[number].only("t2 ax"), extra=nobody))
    listing = find(str(tmp_path), "dicom", KEY)
    assert len({scan.subject for scan in listing.scans}) == 2
    assert [line[:36] for line in listing.told] == ["2 PatientIDs differ from another in "] * is_told


def test_without_an_id_name_birth_date_and_sex_tell_whose_a_study_is(tmp_path: Path) -> None:
    anna = {"PatientName": "Meier^Anna", "PatientBirthDate": "19500302", "PatientSex": "F"}
    people = [anna, anna, {**anna, "PatientSex": "M"}, {**anna, "PatientSex": ""}, {**anna, "PatientSex": ""}]
    for number, who in enumerate(people):
        study = studies()[number].only("t2 ax")
        write(tmp_path / str(number), replace(study, extra={**who, "PatientID": ""}))
    listing = find(str(tmp_path), "dicom", KEY)
    found = {int(scan.files[0].paths[0].partition("/")[0]): scan.subject for scan in listing.scans}
    assert found[0] == found[1]
    assert len(set(found.values())) == 4
    known = {one.facts.series: ("known", "v", "T2") for one in listing.series if one.facts.subject == found[0]}
    again = find(str(tmp_path), "dicom", KEY, options=Options(earlier=known))
    assert sorted(scan.subject for scan in again.scans).count("known") == 2
