"""BIDS as people have it, and as pybids reads the data sets that its validator is tried on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from segpipe.errors import Reason
from segpipe.readers.archive import Listing
from segpipe.readers.names import BRAIN, MASK
from segpipe.readers.scan import load
from segpipe.readers.sources import find
from tests.readers.conftest import head, save

Reading = dict[str, tuple[str, str, str]]  # path -> subject, session, role

WEIGHTS = {"T1w": "T1", "T2w": "T2", "FLAIR": "FLAIR", "UNIT1": "T1"}
PYBIDS = {  # bids.layout.config: bids.json of pybids 0.22
    "subject": re.compile(r"[/\\]+sub-([a-zA-Z0-9+]+)"),
    "session": re.compile(r"[_/\\]+ses-([a-zA-Z0-9+]+)"),
    "suffix": re.compile(r"(?:^|[_/\\])([a-zA-Z0-9+]+)\.[^/\\]+$"),
    "datatype": re.compile(r"[/\\]+(anat|beh|dwi|eeg|fmap|func|ieeg|meg|micr|motion|mrs|nirs|perf|pet)[/\\]+"),
}
NOT_RAW = ("derivatives", "code", "stimuli", "sourcedata", "models")  # that its layout does not look into


def read(root: Path, *paths: str) -> Listing:
    """The listing of an archive whose files only have names."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return find(str(root))


def files(listing: Listing) -> Reading:
    return {file.path: (scan.subject, scan.session, file.role) for scan in listing.scans for file in scan.files}


def examples() -> Iterator[tuple[str, str]]:
    """Data set and path of each image of the examples."""
    text = Path(__file__).with_name("bids_examples.txt").read_text("utf-8")
    name, subjects = "", []
    for line in text.splitlines():
        if line.startswith(" "):
            yield from ((name, line.strip().replace("@", f"sub-{subject}")) for subject in subjects)
        elif not line.startswith("#"):
            name, _, rest = line.partition(": ")
            subjects = rest.split()


def as_pybids_says(path: str) -> tuple[str, str, str] | None:
    """Subject, session and role of a raw anatomical image; None for other files."""
    said = {name: match[1] for name, pattern in PYBIDS.items() if (match := pattern.search(f"/{path}"))}
    if path.partition("/")[0] in NOT_RAW or said.get("datatype") != "anat" or said["suffix"] not in WEIGHTS:
        return None
    session = f"ses-{said['session']}" if "session" in said else "1"
    return f"sub-{said['subject']}", session, WEIGHTS[said["suffix"]]


class TestExamples:
    """The 57 data sets of bids-examples that have anatomical images."""

    def test_each_is_read_as_pybids_does(self, tmp_path: Path) -> None:
        every: dict[str, list[str]] = {}
        for name, path in examples():
            every.setdefault(name, []).append(path)
        same = doubled = 0
        for name, paths in every.items():
            listing = read(tmp_path / name, *paths)
            found = files(listing)
            twice = {path for one in listing.rejected if one.reason == Reason.DUPLICATE for path in one.paths}
            wanted = {path: said for path in paths if (said := as_pybids_says(path))}
            assert wanted.keys() <= found.keys() | twice
            assert {path: found[path] for path in wanted.keys() - twice} == {
                path: said for path, said in wanted.items() if path not in twice
            }
            others = {path: role for path, (*_, role) in found.items() if path not in wanted}
            assert not {*others.values()} & {*WEIGHTS.values(), "T1ce"}, name
            same += len(wanted.keys() - twice)
            doubled += len(wanted.keys() & twice)
        assert (same, doubled) == (598, 82)  # the page on archives tells these figures

    def test_all_in_one_archive_are_people_of_their_own(self, tmp_path: Path) -> None:
        paths = [f"{name}/{path}" for name, path in examples()]
        descriptions = [f"{name}/dataset_description.json" for name in dict(examples())]
        listing = read(tmp_path, *paths, *descriptions)
        people: dict[str, set[tuple[str, str]]] = {}
        for path, (subject, _, _) in files(listing).items():
            name, _, inside = path.partition("/")
            if said := as_pybids_says(inside):
                people.setdefault(subject, set()).add((name, said[0]))
        assert {len(found) for found in people.values()} == {1}
        assert len(people) == len({one for found in people.values() for one in found}) > 500


class TestAsPeopleHaveIt:
    """What breaks a rule of BIDS, or lies where no rule foresees it."""

    @pytest.mark.parametrize(
        ("paths", "right"),
        [
            (  # dashes and underscores in labels
                ["sub-ADNI-002/anat/sub-ADNI-002_T1w.nii.gz", "sub-a_b/anat/sub-a_b_T1w.nii.gz"],
                [("sub-ADNI-002", "1", "T1"), ("sub-a_b", "1", "T1")],
            ),
            (
                [f"sub-05/ses-{v}-op/anat/sub-05_ses-{v}-op_T1w.nii.gz" for v in ("pre", "post")],
                [("sub-05", "ses-pre-op", "T1"), ("sub-05", "ses-post-op", "T1")],
            ),
            (  # `rawdata` beside `derivatives`
                ["rawdata/sub-01/anat/sub-01_T1w.nii", "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii"],
                [("sub-01", "1", "T1"), ("sub-01", "1", MASK)],
            ),
            (  # derivatives in folders, without `anat`, and flat
                [
                    *("sub-1/anat/sub-1_T1w.nii", "derivatives/a/b/sub-1/anat/sub-1_label-lesion_mask.nii"),
                    *("sub-2/anat/sub-2_T1w.nii", "derivatives/a/sub-2/sub-2_label-lesion_mask.nii"),
                    *("sub-3/anat/sub-3_T1w.nii", "derivatives/a/sub-3_label-lesion_mask.nii"),
                ],
                [(f"sub-{n}", "1", role) for n in "123" for role in ("T1", MASK)],
            ),
            (  # images beside `anat`
                ["sub-1/sub-1_T1w.nii.gz", "sub-2/ses-1/sub-2_ses-1_T1w.nii.gz"],
                [("sub-1", "1", "T1"), ("sub-2", "ses-1", "T1")],
            ),
            (  # ivadomed
                ["sub-u1/anat/sub-u1_T2w.nii.gz", "derivatives/labels/sub-u1/anat/sub-u1_T2w_lesion-manual.nii.gz"],
                [("sub-u1", "1", "T2"), ("sub-u1", "1", MASK)],
            ),
            (
                [f"sub-1/anat/sub-1_{word}.nii.gz" for word in ("UNIT1", "inv-1_MP2RAGE", "inv-2_MP2RAGE")],
                [("sub-1", "1", role) for role in ("T1", "MP2RAGE-inv-1", "MP2RAGE-inv-2")],
            ),
            (  # ATLAS R2.0: both lie in the space of a template
                [
                    f"Training/R001/sub-r1s1/ses-1/anat/sub-r1s1_ses-1_space-MNI152NLin2009aSym_{word}.nii.gz"
                    for word in ("T1w", "label-L_desc-T1lesion_mask")
                ],
                [("sub-r1s1", "ses-1", "T1"), ("sub-r1s1", "ses-1", MASK)],
            ),
            (  # ISLES 2022
                [
                    "sub-strokecase0001/ses-0001/anat/sub-strokecase0001_ses-0001_FLAIR.nii.gz",
                    "derivatives/sub-strokecase0001/ses-0001/sub-strokecase0001_ses-0001_msk.nii.gz",
                ],
                [("sub-strokecase0001", "ses-0001", "FLAIR"), ("sub-strokecase0001", "ses-0001", MASK)],
            ),
        ],
        ids=[
            *("labels with dashes", "sessions with dashes", "rawdata", "derivatives", "without anat"),
            *("lesion-manual", "MP2RAGE", "ATLAS R2.0", "ISLES 2022"),
        ],
    )
    def test_whose_each_file_is(self, tmp_path: Path, paths: list[str], right: list[tuple[str, str, str]]) -> None:
        listing = read(tmp_path, *paths)
        assert files(listing) == dict(zip(paths, right, strict=True))
        assert not listing.rejected

    def test_what_shows_no_anatomy_is_counted(self, tmp_path: Path) -> None:
        words = ("dwi/sub-1_dwi", "func/sub-1_task-rest_bold", "anat/sub-1_desc-brain_mask", "anat/sub-1_T1w")
        listing = read(tmp_path, *(f"sub-1/{word}.nii.gz" for word in words))
        assert [*files(listing)] == ["sub-1/anat/sub-1_T1w.nii.gz"]
        assert listing.kinds == {"BIDS dwi": 1, "BIDS func": 1, BRAIN: 1}

    @pytest.mark.parametrize("fits", [True, False], ids=["the same grid", "another grid"])
    def test_a_mask_in_another_space_is_used_where_grids_agree(self, tmp_path: Path, fits: bool) -> None:
        mask = np.zeros((6, 5, 4), np.uint8)
        mask[2, 2, 1] = 1
        save(tmp_path / "sub-1/anat/sub-1_T1w.nii", head())
        path = "derivatives/manual/sub-1/anat/sub-1_space-MNI152_label-lesion_mask.nii"
        save(tmp_path / path, mask if fits else mask[:-1])
        listing = find(str(tmp_path))
        scan = load(listing.root, listing.scans[0])
        assert (scan.mask is not None) == fits
        assert [(one.paths, one.reason) for one in scan.dropped] == [((path,), Reason.MASK_MISMATCH)] * (not fits)
