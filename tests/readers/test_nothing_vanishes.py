"""Every file of an archive is in a scan, in a row of `quarantine`, or counted by its kind."""

from __future__ import annotations

import bz2
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.errors import BadInput, Reason
from segpipe.readers.archive import Listing
from segpipe.readers.plan import ignored_line
from segpipe.readers.scan import load
from segpipe.readers.sources import find
from tests.readers.conftest import LPS, head, save
from tests.tiers import examples

FOLDERS = (
    "P1",
    "P2",
    "sub-01",
    "ses-1",
    "anat",
    "dwi",
    "derivatives",
    "masks",
    "lesion",
    "2019-01-02",
    "T1",
    "imagesTr",
)
STEMS = ("P1", "sub-01", "T1", "FLAIR", "t1c", "seg", "brain_mask", "c1T1", "adc", "x", "notes", "case_0000", "P1 (1)")
SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img", ".mgz", ".nrrd", ".mnc", ".mhd", ".nii.bz2", ".nii.xz", ".txt", "")


@st.composite
def paths(draw: st.DrawFn) -> list[str]:
    """Names of files as an archive may have them, and an image."""
    part = st.lists(st.sampled_from(FOLDERS), max_size=3).map("/".join)
    stem = st.lists(st.sampled_from(STEMS), min_size=1, max_size=3).map("_".join)
    some = draw(st.lists(st.tuples(part, stem, st.sampled_from(SUFFIXES)), min_size=1, max_size=12))
    return sorted({"P9/P9_T2.nii", *(f"{folder}/{name}{suffix}".lstrip("/") for folder, name, suffix in some)})


def told(listing: Listing) -> list[str]:
    """The paths that scans and rejections tell of."""
    return [path for one in (*listing.scans, *listing.rejected) for path in one.paths]


@given(paths())
@settings(max_examples=examples(150), deadline=None)
def test_whatever_files_are_called(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    root = tmp_path_factory.mktemp("archive")
    for name in names:
        if not (root / name).is_dir() and not any(above.is_file() for above in (root / name).parents):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("{}")
    there = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    listing = find(str(root))
    known = told(listing)
    assert len(known) == len(set(known))
    assert set(known) <= there
    assert len(known) + listing.ignored == len(there)


def test_kinds_are_counted(tmp_path: Path) -> None:
    for name in ("P1_T1.nii", *(f"{n}.txt" for n in range(9)), "a.json", "b.JSON", "c.json", ".hidden", "roe.jane"):
        (tmp_path / name).write_bytes(b"x")
    listing = find(str(tmp_path))
    assert ignored_line(listing) == "ignored 14: 9 .txt, 3 .json, 1 another suffix, 1 hidden file"


def test_images_that_a_layout_or_a_manifest_leaves_out_are_counted_as_images(tmp_path: Path) -> None:
    for name in ("sub-1/anat/sub-1_T1w.nii.gz", "P2/T1.nii", "P3/T1.mgz"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    assert find(str(tmp_path), "bids").kinds == {"image left out": 2}
    (tmp_path / "m.csv").write_text("subject,modality,path\np,T1,P3/T1.mgz\n")
    assert find(str(tmp_path / "m.csv")).kinds == {".csv": 1, "image left out": 2}


class TestOtherFormats:
    """Formats that a library of the lock reads, and those that none does."""

    def test_what_is_read_is_in_a_scan(self, tmp_path: Path) -> None:
        import SimpleITK

        save(tmp_path / "P1/P1_T1.nii")
        image = SimpleITK.ReadImage(str(tmp_path / "P1/P1_T1.nii"))
        for role, suffix in (("FLAIR", ".nrrd"), ("T1ce", ".mha")):
            SimpleITK.WriteImage(image, str(tmp_path / f"P1/P1_{role}{suffix}"))
        (tmp_path / "P1/P1_T2.nii.bz2").write_bytes(bz2.compress((tmp_path / "P1/P1_T1.nii").read_bytes()))
        listing = find(str(tmp_path))
        scan = load(listing.root, listing.scans[0])
        assert scan.modalities == ("FLAIR", "T1", "T1ce", "T2")
        assert not scan.dropped
        for array in scan.images.values():
            assert (array == scan.images["T1"]).all()

    @pytest.mark.parametrize("name", ["P1_T2.mhd", "P1_T2.nhdr", "P1_T2+orig.BRIK", "P1_T2.PAR", "P1_T2.nii.xz"])
    def test_what_is_not_read_has_a_row(self, tmp_path: Path, name: str) -> None:
        save(tmp_path / "P1_T1.nii")
        (tmp_path / name).write_bytes(b"x")
        (one,) = find(str(tmp_path)).rejected
        assert (one.paths, one.reason) == ((name,), Reason.UNSUPPORTED)
        assert one.remedy in ("convert it to NIfTI", "unpack it")

    @pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mnc", ".nii.bz2", ".mgz", ".nii.gz"])
    def test_what_is_broken_has_a_row_and_costs_no_other(self, tmp_path: Path, suffix: str) -> None:
        save(tmp_path / "P1/P1_T1.nii")
        (tmp_path / f"P1/P1_T2{suffix}").write_bytes(b"no image, " * 50)
        listing = find(str(tmp_path))
        scan = load(listing.root, listing.scans[0])
        assert scan.modalities == ("T1",)
        assert [one.paths for one in scan.dropped] == [(f"P1/P1_T2{suffix}",)]


POINTERS = {
    "annex": b"/annex/objects/MD5E-s9213--0123456789abcdef0123456789abcdef.nii.gz\n",
    "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a4d7a\nsize 12345\n",
}


@pytest.mark.parametrize("kind", POINTERS)
def test_a_pointer_says_how_its_content_is_fetched_and_costs_no_other(tmp_path: Path, kind: str) -> None:
    (tmp_path / "P1_T1.nii.gz").write_bytes(POINTERS[kind])
    listing = find(str(tmp_path))
    with pytest.raises(BadInput, match="fetch it with `git") as caught:
        load(listing.root, listing.scans[0])
    assert caught.value.reason == Reason.NOT_FETCHED
    save(tmp_path / "P1_FLAIR.nii")
    listing = find(str(tmp_path))
    scan = load(listing.root, listing.scans[0])
    assert scan.modalities == ("FLAIR",)
    assert [(one.paths, one.reason) for one in scan.dropped] == [(("P1_T1.nii.gz",), Reason.NOT_FETCHED)]


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder, looked at by a user whom rights bind: root may read everything."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        me = os.geteuid()
        yield Path(folder)
        os.seteuid(me)


def test_an_image_without_rights_costs_no_other_and_comes_in_when_it_has_them(as_nobody: Path) -> None:
    for role in ("T1", "FLAIR"):
        save(as_nobody / f"P1_{role}.nii").chmod(0o644)
    (as_nobody / "notes.txt").write_text("x")
    for name in ("P1_FLAIR.nii", "notes.txt"):
        (as_nobody / name).chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65534)
    listing = find(str(as_nobody))
    assert load(listing.root, listing.scans[0]).modalities == ("T1",)
    assert [(one.paths, one.reason) for one in listing.rejected] == [(("P1_FLAIR.nii",), Reason.UNREADABLE)]
    assert listing.kinds == {".txt": 1}
    os.seteuid(as_nobody.stat().st_uid)
    (as_nobody / "P1_FLAIR.nii").chmod(0o644)
    (again,) = find(str(as_nobody)).scans
    assert again.modalities == ("FLAIR", "T1")
    assert again.fingerprint != listing.scans[0].fingerprint


def test_a_hdr_finds_its_img_in_capitals(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(head(), LPS), tmp_path / "P1_T1.hdr")
    (tmp_path / "P1_T1.img").rename(tmp_path / "P1_T1.IMG")
    listing = find(str(tmp_path))
    (scan,) = listing.scans
    assert scan.paths == ("P1_T1.hdr", "P1_T1.IMG")
    assert (load(listing.root, scan).images["T1"] == head().T).all()


def test_files_of_a_data_set_with_a_description_are_told(tmp_path: Path) -> None:
    for name in ("imagesTr/a_0000.nii", "imagesTr/readme.md", "labelsTr/a.nii", "labelsTr/b.nii", "imagesTs/c.nii.xz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    content = {"channel_names": {"0": "T2"}, "labels": {"background": 0, "lesion": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    listing = find(str(tmp_path))
    assert len(told(listing)) + listing.ignored == 6
