"""Whose a study is, where PatientID does not say it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segpipe.readers.patients import Study, is_placeholder, subjects
from segpipe.readers.sources import find
from tests.readers.hospital import studies, write

KEY = b"a secret of more than sixteen bytes"
ANNA, ANNA_LATER, PAUL = ("1950", "F", "anna", "a"), ("1950", "F", "anna meier", "b"), ("1999", "M", "paul", "b")
SLIP, BLANK = ("1951", "F", "anna", "a"), ("", "", "", "")


def whose(*people: tuple[str, ...], placeholder: bool = False, earlier: dict[str, str] | None = None) -> list[str]:
    """The subject of each of some studies of one ID; the n-th study has the one series `n`."""
    found = [Study(f"study {n}") for n in range(len(people))]
    for place, (one, person) in enumerate(zip(found, people, strict=True)):
        one.add(str(place), person)
    named, _ = subjects("plain", found, placeholder, earlier or {})
    return [named[f"study {n}"] for n in range(len(people))]


@pytest.mark.parametrize(
    ("people", "same"),
    [
        ([ANNA, ANNA_LATER], True),
        ([ANNA, SLIP], True),
        ([ANNA, BLANK], True),
        ([BLANK, BLANK], True),
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
