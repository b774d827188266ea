"""`ingest --plan` says what would become of an archive; it needs no tables and writes none."""

from __future__ import annotations

from pathlib import Path

import pytest

import jobs.ingest
from segpipe.cli.options import parse
from segpipe.errors import UsageError
from segpipe.settings import IngestSettings

FILES = ("P01_1_T1.nii", "P01_2_T1.nii", "P02_1_T1.nii", "P02_1_seg.nii", "P02_1_x.nii.xz", "notes.txt")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGPIPE_CONF", str(tmp_path / "site.toml"))
    (tmp_path / "site.toml").write_text("")
    folder = tmp_path / "archive"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(b"x")
    return folder


def test_it_says_who_and_what_and_how_many_and_writes_nothing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert jobs.ingest.main(["--source", str(archive), "--plan"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert capsys.readouterr().out.splitlines() == [
        "subjects 2, scans 3 (plain 3)",
        "  sessions of a subject: 1 (subjects 1), 2 (subjects 1)",
        "  T1 3, mask 1",
        "  meaning of the masks' labels: told by all masks 1",
        "  P01: 1 (T1), 2 (T1)",
        "  P02: 1 (T1 mask)",
        "quarantine 1: unsupported 1",
        "  unsupported: P02_1_x.nii.xz is in a format that is not read: unpack it",
        "ignored 1: 1 .txt",
        "ends of patients' names (1, 2) were read as visits of one patient each; if they are patients, name them in a"
        " manifest",
    ]
    assert jobs.ingest.main(["--source", str(archive), "--plan", "--strict"]) == 3


@pytest.mark.parametrize("given", [[], ["--warehouse", "w"], ["--cohort", "c"]], ids=" ".join)
def test_the_tables_are_named_by_whoever_writes_them(archive: Path, given: list[str]) -> None:
    settings = parse("ingest", IngestSettings, ["--source", str(archive), "--plan", *given])
    assert settings.plan
    with pytest.raises(UsageError, match="missing --"):
        parse("ingest", IngestSettings, ["--source", str(archive), *given])
    with pytest.raises(UsageError, match="is empty"):
        parse("ingest", IngestSettings, ["--source", str(archive), "--warehouse", "", "--cohort", ""])
    with pytest.raises(UsageError, match=r"missing --.*the plan of a DICOM archive is its table `series`"):
        jobs.ingest.check(
            parse("ingest", IngestSettings, ["--source", str(archive), "--plan", "--layout", "dicom", *given])
        )


def test_the_site_may_ask_for_plans_alone(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text("[ingest]\nplan = true\n")
    assert parse("ingest", IngestSettings, ["--source", str(archive)]).warehouse == ""
