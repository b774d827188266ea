"""What subjects are called: one name whatever its Unicode form, and no formula."""

from pathlib import Path

import pytest

from segpipe.errors import Reason
from segpipe.readers.archive import identity_of, printable
from segpipe.readers.naming import KEY_FILE_VARIABLE, key_notes
from segpipe.readers.sources import find

COMPOSED, DECOMPOSED = "M\u00fcller", "Mu\u0308ller"


def archive(folder: Path, *rows: tuple[str, str, str]) -> str:
    """A manifest of files of subject, session and path."""
    lines = ["subject,session,modality,path"]
    for subject, session, path in rows:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"no image is opened")
        lines.append(f'"{subject}",{session},FLAIR,{path}')
    (folder / "manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    return str(folder / "manifest.csv")


def test_two_unicode_forms_are_one_subject(tmp_path: Path) -> None:
    listing = find(archive(tmp_path, (COMPOSED, "1", "a.nii"), (DECOMPOSED, "2", "b.nii")))
    assert [(scan.subject, scan.session) for scan in listing.scans] == [(COMPOSED, "1"), (COMPOSED, "2")]


def test_two_forms_with_one_session_are_a_conflict_that_is_told(tmp_path: Path) -> None:
    listing = find(archive(tmp_path, (COMPOSED, "1", "a.nii"), (DECOMPOSED, "1", "b.nii")))
    assert len(listing.scans) == 1
    assert [item.reason for item in listing.rejected] == [Reason.DUPLICATE]


def test_folders_in_two_forms_are_one_subject_and_told(tmp_path: Path) -> None:
    for name, visit in ((COMPOSED, "visit1"), (DECOMPOSED, "visit2"), ("Maier", "visit1")):
        folder = tmp_path / name / visit
        folder.mkdir(parents=True)
        for role in ("flair", "t1"):
            (folder / f"{role}.nii.gz").write_bytes(b"no image is opened")
    listing = find(str(tmp_path))
    assert {scan.subject for scan in listing.scans} == {COMPOSED, "Maier"}
    assert len(listing.scans) == 3
    assert any("2 paths are not in Unicode's NFC" in line for line in listing.told)


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1+1", "-2", "@SUM(1)"])
def test_no_name_is_a_formula_to_a_spreadsheet(tmp_path: Path, name: str) -> None:
    listing = find(archive(tmp_path, (name.replace("/", ""), "1", "a.nii")))
    (scan,) = listing.scans
    assert scan.subject == "_" + name.replace("/", "")
    assert printable(name)[0] == "\\"
    assert identity_of("sub-01") == "sub-01"


@pytest.mark.parametrize(("mode", "notes"), [(0o600, 0), (0o640, 0), (0o644, 1)])
def test_a_key_that_everybody_may_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, notes: int
) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"a secret of more than sixteen bytes")
    file.chmod(mode)
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    assert key_notes() == []
    assert len(key_notes(str(file))) == notes
    monkeypatch.setenv(KEY_FILE_VARIABLE, f"file://{file}")
    assert all("chmod 600" in line and str(file) in line for line in key_notes())
    assert len(key_notes()) == notes
