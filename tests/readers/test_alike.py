"""Folders that are called alike are read once for all: what is read, and what is kept of files, is as of each alone."""

from __future__ import annotations

import pickle
from unittest import mock

from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from segpipe.readers import people
from segpipe.readers.archive import Archive, Claim, Files, ScanSource, SourceFile
from segpipe.readers.entries import Entries, Entry, Rows
from segpipe.readers.layouts import plain

CASES = (
    "BraTS2021_{:05d}",
    "BraTS-GLI-{:05d}-100",
    "BraTS-GLI-{:05d}-101",
    "P{:03d}",
    "{:05d}",
    "{:05d}_{:05d}",
    "T1_{:05d}",
    "scan_{:05d}",
    "case_{:05d} (1)",
    "Pat_{:05d}_2019",
    "A_{:05d}",
    "=x{:05d}",
    "BraTS2021_00001_{:05d}",
)
ABOVE = ("", "HGG/", "train/", "test/", "lesion/", "imagesTr/", "2021/01/02/", "BraTS2021_00001/", "week-04/", "3T/")
ENDS = (
    ("_flair", "_t1", "_t1ce", "_t2", "_seg"),
    ("-t1n", "-t1c", "-t2w", "-t2f", "-seg"),
    ("_T1", "_lesion", "_x"),
    ("_T1_T2", "_T2"),
    ("_ses-1_t1", "_ses-2_t1"),
    ("_t1+c", "_t1-c"),
    ("", "_mask"),
    ("x_t1", "_brain_mask"),
)
BELOW = ("", "", "anat/", "T1/", "2019-01-02/")


@st.composite
def archives(draw: st.DrawFn) -> Entries:
    """Cases in folders of their own, files of each called for it."""
    some = st.sampled_from
    cases, above, ends = (draw(st.lists(some(words), min_size=1, max_size=2)) for words in (CASES, ABOVE, ENDS))
    found = {}
    for number in draw(st.lists(st.integers(1, 30), min_size=1, max_size=6, unique=True)):
        case, top, below = draw(some(cases)).format(number, 7 * number), draw(some(above)), draw(some(BELOW))
        for end in draw(some(ends)):
            path = f"{top}{case}/{below}{case}{end}.nii.gz"
            found[path] = Entry(path, number, "0.5")
    return Entries.of(found)


def claimed(entries: Entries) -> Claim:
    return plain.claim(Archive(LocalFileSystem(), "/archive", entries), entries, False)


@given(archives())
def test_folders_that_are_alike_are_read_as_each_alone(entries: Entries) -> None:
    together = claimed(entries)
    with (
        mock.patch.object(plain, "_pattern", return_value=None),
        mock.patch.object(people, "_are_names_alone", return_value=False),
    ):
        alone = claimed(entries)
    assert together.scans == alone.scans
    assert together.rejected == alone.rejected
    assert (together.ignored, together.told) == (alone.ignored, alone.told)


def test_thousands_of_cases_are_read_once() -> None:
    cases = [f"BraTS2021_{number:05d}" for number in range(1, 51)]
    paths = [f"{case}/{case}_{role}.nii.gz" for case in cases for role in ("flair", "t1", "t1ce", "t2", "seg")]
    with (
        mock.patch.object(plain, "_read", wraps=plain._read) as read,
        mock.patch.object(plain, "_meaning", wraps=plain._meaning) as meaning,
    ):
        found = claimed(Entries.of({path: Entry(path, 1, "0.5") for path in paths}))
    assert (read.call_count, meaning.call_count) == (5, 1)
    assert [scan.subject for scan in found.scans] == cases
    assert {(scan.layout, scan.label_convention) for scan in found.scans} == {("brats", "brats")}


@given(archives())
def test_files_are_kept_by_folder(entries: Entries) -> None:
    every = {entry.path: entry for entry in entries.values()}
    assert list(entries) == entries.paths() == list(every)
    assert [entries[path] for path in every] == list(every.values())
    assert not any(f"{path}0" in entries or path[:-1] in entries for path in every)
    for words in (("ses-", "1_t"), ("brats",), ("00-", "+c")):
        wanted = [one for path, one in every.items() if any(word in path.lower() for word in words)]
        assert list(entries.naming(words)) == wanted


def test_files_of_one_folder_equal_a_tuple_of_them() -> None:
    rows = Rows.of("P1/", [("P1_t1.nii", 3, 0.5), ("P1_seg.nii", 2, "v1")])
    files = Files("P1/", rows, ((1, "T1"), (0, "mask")))
    same = (SourceFile("T1", "P1/P1_t1.nii", 3, "0.5"), SourceFile("mask", "P1/P1_seg.nii", 2, "v1"))
    assert files == same == tuple(files)
    assert files[-1] == same[-1]
    assert files[:1] == same[:1]
    one, other = (ScanSource("P1", "1", kept, "plain") for kept in (files, same))
    assert one == other == pickle.loads(pickle.dumps(one))
    assert hash(one) == hash(other)
    assert one.fingerprint == other.fingerprint
