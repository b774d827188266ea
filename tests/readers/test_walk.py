"""Listing an archive: nothing vanishes without a word, and no name is told that may be a patient's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from segpipe.errors import Reason
from segpipe.readers import sources
from segpipe.readers.archive import walk
from segpipe.readers.naming import Naming, SubjectKey
from tests.readers.test_dicom import KEY, stack
from tests.readers.test_dicom import archive as write_dicom


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of this name may not be listed: for root, who runs tests, there is none by itself."""
    scandir = os.scandir

    def refusing(path: str = ".") -> Any:
        if str(path).rstrip("/").endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


class Elsewhere(LocalFileSystem):
    """A file system that is not the operating system's own, with a folder that may not be listed."""

    protocol = "elsewhere"

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return super().ls(path, detail, **options)


@pytest.mark.parametrize("fs", [LocalFileSystem(), Elsewhere()], ids=["local", "elsewhere"])
@pytest.mark.usefixtures("closed")
def test_a_folder_that_cannot_be_listed_is_told(fs: LocalFileSystem, tmp_path: Path) -> None:
    for name in ("a/closed/t1.nii.gz", "a/open/t1.nii.gz", "b/x/y/t2.nii.gz", ".hidden/closed/t1.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    entries, rejected = walk(fs, str(tmp_path))
    assert list(entries) == ["a/open/t1.nii.gz", "b/x/y/t2.nii.gz"]
    ((path, reason, message),) = [(one.paths, one.reason, one.message) for one in rejected]
    assert path == ("a/closed/",)
    assert reason == Reason.UNREADABLE
    assert message == "a/closed/ cannot be listed (PermissionError)"


@pytest.mark.parametrize("fs", [LocalFileSystem(), Elsewhere()], ids=["local", "elsewhere"])
@pytest.mark.usefixtures("closed")
def test_a_source_that_cannot_be_listed_is_an_error(fs: LocalFileSystem, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    with pytest.raises(PermissionError):
        walk(fs, str(tmp_path / "closed"))


def test_files_whose_names_start_with_two_dots_are_there(tmp_path: Path) -> None:
    for name in ("..a/t1.nii.gz", "b/..t1.nii.gz", "b/...", "b/.t1.nii.gz", ".c/t1.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    entries, rejected = walk(LocalFileSystem(), str(tmp_path))
    assert sorted(entries) == ["..a/t1.nii.gz", "b/...", "b/..t1.nii.gz"]
    assert not rejected


def test_links_and_odd_names_are_listed_as_before(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "t1.nii.gz").write_bytes(b"x")
    (tmp_path / "folder").symlink_to(tmp_path / "x", target_is_directory=True)
    (tmp_path / "file.nii.gz").symlink_to(tmp_path / "x" / "t1.nii.gz")
    (tmp_path / "nothing.nii.gz").symlink_to(tmp_path / "none")
    (tmp_path / "around").symlink_to(tmp_path, target_is_directory=True)
    entries, rejected = walk(LocalFileSystem(), str(tmp_path))
    assert sorted(entries) == ["file.nii.gz", "x/t1.nii.gz"]
    assert [one.paths for one in rejected] == [("nothing.nii.gz",)]


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("key", [KEY, None], ids=["key", "no key"])
def test_what_is_no_image_beside_dicom_is_told_without_names(
    tmp_path: Path, key: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("SEGPIPE_SUBJECT_KEY", "SEGPIPE_SUBJECT_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)
    write_dicom(tmp_path / "ROE^JANE" / "study", stack(2))
    for name in ("ROE^JANE/closed/IM1", "ROE^JANE/odd\n/IM1", "ROE^JANE/letter.jane"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    listing = sources.find(str(tmp_path), subject_key=key)
    naming = Naming(SubjectKey(key) if key else None)
    rows = [
        (naming.paths(one.paths, one.is_dicom), naming.message(one.message, one.named, one.is_dicom))
        for one in listing.rejected
    ]
    assert {one.reason for one in listing.rejected} >= {Reason.UNREADABLE, Reason.UNSAFE_PATH}
    assert "ROE" not in repr(rows)
    assert "jane" not in repr((rows, listing.ignored, listing.told)).lower()


@pytest.mark.usefixtures("closed")
def test_a_folder_of_an_archive_without_dicom_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SEGPIPE_SUBJECT_KEY", "SEGPIPE_SUBJECT_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)
    for name in ("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/closed/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (told,) = [one for one in sources.find(str(tmp_path)).rejected if one.reason == Reason.UNREADABLE]
    assert Naming(None).paths(told.paths, told.is_dicom) == ["sub-02/closed/"]
