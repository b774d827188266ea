"""The same archive under other paths is read alike: in a folder, with other ids, other separators, another case."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable

import pytest
from fsspec.implementations.local import LocalFileSystem

from segpipe.readers.archive import Archive, unique, without
from segpipe.readers.entries import Entries, Entry
from segpipe.readers.layouts import bids, plain

Reading = dict[str, tuple[frozenset[str], frozenset[str], str] | str]

FOUR = ("FLAIR", "T1", "T1ce", "T2")


def tree(pattern: str, roles: tuple[str, ...] = FOUR, visits: tuple[str, ...] = ("",)) -> tuple[str, ...]:
    """Three patients; `<p>` is a patient, `<v>` a visit, `<w>` a role."""
    people = ("GB101", "GB102", "GB117")
    return tuple(
        dict.fromkeys(
            f"{pattern}.nii.gz".replace("<p>", p).replace("<v>", v).replace("<w>", w)
            for p in people
            for v in visits
            for w in roles
        )
    )


TREES = {
    "folders": tree("<p>/<w>", (*FOUR, "seg")),
    "names": tree("<p>/<p>_<w>", (*FOUR, "seg")),
    "flat": tree("<p>_<w>", (*FOUR, "lesion_mask")),
    "roles first": tree("<w>_<p>"),
    "folders of roles": tree("<w>/<p>", (*FOUR, "masks")),
    "visits by words": tree("<p>/<v>/<w>", visits=("baseline", "month06")),
    "visits by dates": tree("<p>/<v>/<w>", visits=("2019-03-04", "2020-01-12")),
    "visits by numbers": tree("<p>/<v>/<p>_<v>_<w>", visits=("1", "2")),
    "visits behind": tree("<p>_<v>_<w>", visits=("V1", "V2")),
    "visits last": tree("<p>/<w>_<v>", visits=("V1", "V2")),
    "visits last by numbers": tree("<p>/<p>_<w>_<v>", visits=("1", "2")),
    "visits last by months": tree("<p>_<w>_<v>", visits=("m00", "m12")),
    "counted": tree("all/scan_<n>/<w>".replace("<n>", "00<v>"), ("T1", "seg"), ("01", "04")),
    "split": (*tree("train/<p>/<w>")[:8], *tree("test/<p>/<w>")[8:]),
    "copies": tree("<p>/<v>/<w>", visits=("raw", "registered")),
    "bids": tree("sub-<p>/ses-<v>/anat/sub-<p>_ses-<v>_<w>", ("FLAIR", "T1w", "T2w"), ("1", "2")),
    "time points": tree("<p>-<v>/<p>-<v>-<w>", ("t1n", "t1c", "t2w", "t2f", "seg"), ("100", "101")),
    "numbers behind": tree("ixi_<w>_<p>".replace("<p>", "00<v>"), ("t1", "t2"), ("5", "6")),
}


def renamed(*ids: str) -> Callable[[str], str]:
    """The three patients with other ids."""
    others = dict(zip(("GB101", "GB102", "GB117"), ids, strict=True))
    return lambda path: re.sub("GB1(?:01|02|17)", lambda match: others[match[0]], path)


REWRITTEN = {
    "release": "release_v1.2/{}".format,
    "study": "GliomaProject/{}".format,
    "wrapped": "wrapped/{}".format,
    "home": "home/john/data/{}".format,
    "export": "export_2021-06-01/{}".format,
    "year": "2021/{}".format,
    "site": renamed("UKE-01-012", "UKE-01-019", "UKE-02-026"),
    "hospital": renamed("0040011223", "0040012200", "0040013177"),
    "study ids": renamed("NEURO_2019_004", "NEURO_2019_005", "NEURO_2019_006"),
    "sexes": renamed("GB101M", "GB102F", "GB117M"),
    "words of masks": renamed("MSSEG012", "MSSEG013", "MSSEG014"),
    "words of images": renamed("T2DM014", "T2DM015", "T2DM016"),
}


def reading(paths: list[str], known: dict[str, str]) -> Reading:
    """By the path that each file is `known` by: all files of its subject, those of its scan, its role; or a reason."""
    entries = Entries.of({path: Entry(path, 1, "0.5") for path in paths})
    archive = Archive(LocalFileSystem(), "/archive", entries)
    first = bids.claim(archive, entries, False)
    second = plain.claim(archive, without(entries, set(first.taken)), False)
    scans, twice = unique(first.scans + second.scans)
    subjects: dict[str, set[str]] = defaultdict(set)
    for scan in scans:
        subjects[scan.subject] |= {known[path] for path in scan.paths}
    found: Reading = {
        known[path]: str(one.reason) for one in (*first.rejected, *second.rejected, *twice) for path in one.paths
    }
    for scan in scans:
        mine = frozenset(known[path] for path in scan.paths)
        found |= {known[file.path]: (frozenset(subjects[scan.subject]), mine, file.role) for file in scan.files}
    return found


@pytest.mark.parametrize("kind", TREES)
@pytest.mark.parametrize("change", REWRITTEN)
def test_other_paths_are_read_alike(kind: str, change: str) -> None:
    paths = list(TREES[kind])
    new = [REWRITTEN[change](path) for path in paths]
    assert reading(new, dict(zip(new, paths, strict=True))) == reading(paths, {path: path for path in paths})


@pytest.mark.parametrize("kind", [kind for kind in TREES if kind not in ("bids", "time points")])
@pytest.mark.parametrize("sign", ["-", ".", " "])
def test_other_separators_are_read_alike(kind: str, sign: str) -> None:
    paths = list(TREES[kind])
    new = [path.replace("_", sign) for path in paths]
    assert reading(new, dict(zip(new, paths, strict=True))) == reading(paths, {path: path for path in paths})


@pytest.mark.parametrize("kind", [kind for kind in TREES if kind != "bids"])
def test_capitals_are_read_alike(kind: str) -> None:
    paths = list(TREES[kind])
    new = [f"{path.removesuffix('.nii.gz').upper()}.nii.gz" for path in paths]
    assert reading(new, dict(zip(new, paths, strict=True))) == reading(paths, {path: path for path in paths})


def test_three_patients_are_read_in_every_tree() -> None:
    for kind, paths in TREES.items():
        read = reading(list(paths), {path: path for path in paths})
        people = {one[0] for one in read.values() if isinstance(one, tuple)}
        assert len(people) == (2 if kind in ("numbers behind", "counted") else 3), kind


PEOPLE = (
    ("GB101", "GB102", "GB117"),
    ("UKE-01-012", "UKE-01-019", "UKE-02-026"),
    ("NEURO_2019_004", "NEURO_2019_005", "NEURO_2020_006"),
    ("TCGA-06-0119", "TCGA-06-0122", "TCGA-12-0616"),
    ("Patient 3", "Patient 4", "Patient 11"),
    ("sub-01", "sub-02", "sub-07"),
    ("Meier_Anna", "Schulz_Bert", "Kowalski_Eva"),
    ("4455123", "4455199", "4460017"),
)
VISITS = (
    ("V1", "V2"),
    ("Y0", "Y1"),
    ("baseline", "month06"),
    ("2019-03-04", "2020-01-12"),
    ("20190304", "20200112"),
    ("2018", "2020"),
    ("preop", "postop"),
    ("day0", "day90"),
    ("scan1", "scan2"),
    ("BL", "FU1"),
    ("0M", "12M"),
    ("MR1", "MR2"),
    ("C1D1", "C3D1"),
    ("visitA", "visitB"),
    ("ses-1", "ses-2"),
    ("T0", "T1"),
    ("pre", "post"),
    ("190304", "200112"),
    ("SCR", "EOT"),
)
PLACES = (
    "<p>/<v>/<w>",
    "<p>/<v>/<p>_<v>_<w>",
    "<p>/<v>/<p>_<w>",
    "<p>/<v>/<w>/<w>",
    "<p>_<v>/<w>",
    "<p>_<v>_<w>",
    "<p>-<v>/<p>-<v>_<w>",
    "<p>/<p>_<v>_<w>",
    "<p>/<p>_<v>/<w>",
    "<p>/<v>_<w>",
    "<p>/<w>_<v>",
    "<p>_<w>_<v>",
    "<p>/<w>/<v>",
    "<p>/<w>/<p>_<v>",
    "<w>/<p>_<v>",
    "<v>/<p>/<w>",
    "<v>/<p>_<w>",
    "<v>/<w>/<p>",
    "data/<p>/MRI/<v>/nifti/<w>",
    "<v>_<p>_<w>",
    "<v>_<p>/<w>",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("visits", VISITS, ids=lambda visits: visits[0])
def test_visits_are_told_wherever_they_stand(place: str, visits: tuple[str, str]) -> None:
    for people in PEOPLE:
        ours = [(p, v) for p in people for v in visits if (p, v) != (people[2], visits[1])]
        files = {
            f"{place.replace('<p>', p).replace('<v>', v).replace('<w>', word)}.nii.gz": (p, v, word)
            for p, v in ours
            for word in ("T1", "FLAIR", "seg")
        }
        read = reading([*files], {path: path for path in files})
        for path, (p, v, word) in files.items():
            mine = frozenset(one for one, (whose, _, _) in files.items() if whose == p)
            beside = frozenset(one for one in mine if files[one][1] == v)
            assert read[path] == (mine, beside, "mask" if word == "seg" else word), (people[0], path)
