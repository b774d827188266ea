"""Names of patients stay in the archive: in no table, message, hash that can be guessed, or summary."""

import errno
import hashlib
import json
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from segpipe.core.splits import SplitRule
from segpipe.errors import BadInput, Reason, StorageError, UsageError
from segpipe.pipelines import ingest_task, masks, segment, segment_job
from segpipe.pipelines.ingest_task import IngestJob, quarantine_row
from segpipe.readers.archive import Archive, Entry
from segpipe.readers.layouts import dicom
from segpipe.readers.naming import KEY_FILE_VARIABLE, KEY_VARIABLE, Naming, SubjectKey, refuse_key_in_conf, subject_key
from segpipe.readers.sources import find
from segpipe.settings import IngestSettings
from segpipe.storage.lock import Fence
from segpipe.warehouse.predicted import PredictedPlace
from segpipe.warehouse.store import Store
from tests.pipelines.examples import COHORT, archive, run_ingest
from tests.readers.test_dicom import archive as write_dicom
from tests.readers.test_dicom import data_of, stack

KEY = SubjectKey(b"a secret of more than sixteen bytes")
NAMES = ("ROE^JANE_19700101", "Grünwald, Anna", "O'Neil_Tom", "MRN-0012345")
SECRETS = ("ROE", "JANE", "19700101", "Grünwald", "Anna", "Neil", "0012345", "nervous")


@pytest.fixture
def with_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    monkeypatch.setenv(KEY_VARIABLE, KEY.secret.decode())


def faulty_archive(folder: Path) -> Path:
    """A good series, and in folders named for patients one of each fault that a listing or a reader finds.

    Every fault has a study of its own, so that no series is left out for another.
    """
    for number, name in enumerate(NAMES):
        place = folder / name / "study"

        def of(fault: int, count: int = 1, uid: str = f"1.9.{number}", name: str = name, **changes) -> list:
            series = {"SeriesInstanceUID": f"{uid}.{fault}", "StudyInstanceUID": f"{uid}.{fault}.9", "PatientID": name}
            datasets = stack(count, **series | changes)
            for index, dataset in enumerate(datasets):
                dataset.SOPInstanceUID = f"{uid}.{fault}.{index}"
            return datasets

        write_dicom(place / "good", of(1, 4))
        write_dicom(place / "gap", [one for index, one in enumerate(of(2, 5)) if index != 2])
        (place / f"twice of {name}").write_bytes((place / "good" / "IM0000").read_bytes())
        broken = data_of(of(3)[0])
        (place / f"{name}.dcm").write_bytes(broken[: len(broken) - 6])
        (place / "colour").write_bytes(data_of(of(4, SamplesPerPixel=3)[0]))
        (nowhere,) = of(5)
        nowhere.ImagePositionPatient = None
        (place / "nowhere").write_bytes(data_of(nowhere))
    return folder


def everything(warehouse: Path) -> str:
    """All cells of all tables and of whatever else is Parquet, and the names and contents of all other files."""
    rows = [pq.read_table(path).to_pylist() for path in warehouse.rglob("*.parquet")]
    others = [path for path in warehouse.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    contents = [path.read_bytes().decode("latin-1") for path in others]
    return "\n".join([json.dumps(rows, default=str, ensure_ascii=False), *map(str, warehouse.rglob("*")), *contents])


def test_nothing_of_a_dicom_archive_tells_a_name(spark, tmp_path, with_key, capfd, caplog):
    source = faulty_archive(tmp_path / "source")
    outcome, run = run_ingest(spark, source, tmp_path / "w")
    assert len(outcome.written) == len(NAMES)
    rows = Store(str(tmp_path / "w")).table("quarantine").to_table().to_pylist()
    assert len(rows) >= 5 * len(NAMES)  # the faults of every patient, though nobody's name tells them apart
    assert len({row["fingerprint"] for row in rows}) == len(rows)
    assert all(row["paths"] and all(path.startswith("keyed/") for path in row["paths"]) for row in rows)
    told = "\n".join([everything(tmp_path / "w"), run.summary(), *capfd.readouterr(), caplog.text])
    for secret in SECRETS:
        assert secret not in told.replace(str(source), ""), secret
    paths = [path.relative_to(source).as_posix() for path in source.rglob("*")]
    assert not [path for path in paths if "/" in path and path in told]
    again, _ = run_ingest(spark, source, tmp_path / "w")
    assert (again.skipped, again.quarantined, again.known_bad) == (len(NAMES), 0, len(rows))


@pytest.mark.parametrize(
    ("error", "reason", "said"),
    [
        (lambda path: OSError(errno.ESTALE, os.strerror(errno.ESTALE), path), Reason.UNREADABLE, "(Stale file handle)"),
        (lambda path: StorageError(f"HDFS refused {path}", "wait"), Reason.UNREADABLE, "(StorageError)"),
        (lambda path: KeyError(path), Reason.CRASHED, "made its reader fail (KeyError)"),
    ],
    ids=["local", "hdfs", "bug"],
)
def test_a_header_that_cannot_be_read_costs_its_file_and_tells_no_name(tmp_path, monkeypatch, error, reason, said):
    source = faulty_archive(tmp_path / "source")
    given = Archive.open

    def give(archive: Archive, path: str, block: int) -> BinaryIO:
        if path.endswith("good/IM0001"):
            raise error(f"{archive.root}/{path}")
        return given(archive, path, block)

    whole = find(str(source), subject_key=KEY.secret)
    monkeypatch.setattr(Archive, "open", give)
    listing = find(str(source), subject_key=KEY.secret)
    assert len(listing.series) == len(whole.series)
    job = IngestJob(
        IngestSettings(str(source), "w", COHORT), SplitRule("s", 0.7, 0.15), Fence("w", "x", 1, "r"), Naming(KEY)
    )
    rows = [quarantine_row(job, one, one.paths, ingest_task._error(one)) for one in listing.rejected]
    found = [row for row in rows if said in row["message"]]
    assert [row["reason"] for row in found] == [reason] * len(NAMES)
    assert not [secret for secret in SECRETS if secret in json.dumps(rows, default=str, ensure_ascii=False)]


def test_an_archive_that_is_gone_as_a_whole_is_no_fault_of_its_files(tmp_path):
    archive = Archive(*fsspec.url_to_fs(str(tmp_path / "source")), {})
    with pytest.raises(OSError, match=r"source'?$"):
        dicom.look(archive, Entry("ROE^JANE/IM0001", 9, "1"))


def test_without_a_key_dicom_is_told_without_names_and_hashes_of_them(spark, tmp_path, monkeypatch):
    for variable in (KEY_VARIABLE, KEY_FILE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    source = faulty_archive(tmp_path / "source")
    archive(source / "nifti", subjects=1)
    outcome, _ = run_ingest(spark, source, tmp_path / "w")
    assert len(outcome.written) == 1
    told = everything(tmp_path / "w")
    for secret in SECRETS:
        assert secret not in told, secret
    again, _ = run_ingest(spark, source, tmp_path / "w")
    assert (again.quarantined, again.known_bad) == (0, outcome.quarantined)


def test_fingerprints_hang_on_the_key(tmp_path):
    """Whoever knows archive and version, but not the key, cannot try out names."""
    source = faulty_archive(tmp_path / "source")
    listing = find(str(source), subject_key=KEY.secret)
    one, other = (
        IngestJob(None, None, None, Naming(SubjectKey(secret))) for secret in (KEY.secret, b"another secret, longer")
    )
    for item in (*listing.scans, *listing.rejected):
        prints = {one.input_fingerprint(item), other.input_fingerprint(item), item.fingerprint}
        assert len(prints) == 3
        assert hashlib.sha256(item.fingerprint.encode()).hexdigest() not in prints
    unkeyed = IngestJob(None, None, None, Naming(None))
    before = {unkeyed.input_fingerprint(item) for item in listing.scans}
    moved = source.rename(tmp_path / "moved")
    (moved / NAMES[0]).rename(moved / "somebody else")
    assert before == {unkeyed.input_fingerprint(item) for item in find(str(moved), subject_key=KEY.secret).scans}


def test_a_key_in_the_conf_is_refused():
    refuse_key_in_conf([("spark.executorEnv.SEGPIPE_SUBJECT_KEY_FILE", "hdfs:///key"), ("spark.app.name", "x")])
    for name in ("spark.yarn.appMasterEnv", "spark.executorEnv"):
        with pytest.raises(UsageError, match=r"event logs .* --subject-key-file"):
            refuse_key_in_conf([(f"{name}.{KEY_VARIABLE}", "secret")])


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("a/Roe_Jane/IM1 is truncated", ["a/Roe_Jane/IM1"]),
        ("a/Roe_Jane holds 3 DICOM series", ["a/Roe_Jane/x/IM1", "a/Roe_Jane/y/IM1"]),
        (r"Roe_Jane\x1b/IM1 has control characters", ["Roe_Jane\x1b/IM1"]),
        ("subject 'Roe_Jane' is not a usable name", ["data/Roe_Jane/t1.nii.gz"]),
        ("Roe_Jane.nii.gz and its series mix sizes", ["Roe_Jane.nii.gz"]),
        ("a/Roe_Jane.zip is a damaged archive", ["a/Roe_Jane.zip!/x/IM1", "a/Roe_Jane.zip!/x/IM2"]),
    ],
)
def test_messages_tell_a_keyed_hash_for_a_name(text, paths):
    told = Naming(KEY).message(text, paths, dicom=True)
    assert "Roe" not in told
    assert told.split()[-2:] == text.split()[-2:] or "…" in told
    assert Naming(KEY).message(text, paths, dicom=False) == text
    assert "Roe" not in Naming(None).message(text, paths, dicom=True)


def test_the_key_is_read_from_a_file_and_is_long_enough(tmp_path, monkeypatch):
    for variable in (KEY_VARIABLE, KEY_FILE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    assert subject_key() is None
    file = tmp_path / "key"
    file.write_text("fifteen bytes..\n")
    with pytest.raises(UsageError, match=r"15 bytes.*openssl rand -hex 32"):
        subject_key(str(file))
    file.write_text(KEY.secret.decode() + "\n")
    assert subject_key(str(file)) == KEY
    monkeypatch.setenv(KEY_FILE_VARIABLE, f"file://{file}")
    assert subject_key() == KEY
    monkeypatch.setenv(KEY_VARIABLE, "short")
    assert subject_key() == KEY
    monkeypatch.delenv(KEY_FILE_VARIABLE)
    with pytest.raises(UsageError, match=KEY_VARIABLE):
        subject_key()
    with pytest.raises(
        UsageError, match=r"none does not exist: check the path .*; make a key only for a new warehouse"
    ):
        subject_key(str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"cannot be read \(IsADirectoryError\): check the path"):
        subject_key(str(tmp_path))
    assert KEY.secret.decode() not in repr(Naming(KEY))


def test_another_key_is_refused_and_the_tables_stay(spark, tmp_path, with_key, monkeypatch):
    source = write_dicom(tmp_path / "source" / "x", stack(4)).parent
    run_ingest(spark, source, tmp_path / "w")
    before = everything(tmp_path / "w")
    monkeypatch.setenv(KEY_VARIABLE, "another secret of more than sixteen bytes")
    with pytest.raises(UsageError, match="another subject key"):
        run_ingest(spark, source, tmp_path / "w")
    assert Store(str(tmp_path / "w")).scans(COHORT).num_rows == 1
    assert KEY.secret.decode() not in before
    monkeypatch.setenv(KEY_VARIABLE, KEY.secret.decode())
    assert run_ingest(spark, source, tmp_path / "w")[0].skipped == 1


def test_subjects_of_any_layout_are_hashed_where_that_is_asked(spark, tmp_path, with_key):
    source = archive(tmp_path / "source", subjects=3)
    subjects = sorted(path.name for path in source.iterdir())
    for role in ("flair", "t1", "t1ce", "t2"):
        (source / subjects[0] / f"{subjects[0]}_{role}.nii.gz").write_bytes(b"")
    outcome, run = run_ingest(spark, source, tmp_path / "w", hash_subjects=True)
    assert (len(outcome.written), outcome.quarantined) == (2, 1)
    told = everything(tmp_path / "w") + run.summary()
    assert not [name for name in subjects if name in told]
    names = {KEY.token("patient", name) for name in subjects[1:]}
    assert set(Store(str(tmp_path / "w")).scans(COHORT)["subject"].to_pylist()) == names
    with pytest.raises(UsageError, match="made with --hash-subjects"):
        run_ingest(spark, source, tmp_path / "w")
    (row,) = Store(str(tmp_path / "w")).table("quarantine").to_table().to_pylist()
    assert KEY.path(f"{subjects[0]}/{subjects[0]}_t1.nii.gz") in row["paths"]
    assert np.all([path.endswith(".nii.gz") for path in row["paths"]])


def test_the_owner_of_the_key_finds_files_and_scans_again(tmp_path, with_key, capsys):
    from jobs.locate import main

    source = faulty_archive(tmp_path / "source")
    scan = next(one for one in find(str(source), subject_key=KEY.secret).scans)
    path = f"{NAMES[0]}/study/colour"
    for token in (KEY.path(path), KEY.path(path).removeprefix("keyed/")):
        assert main(["--source", str(source), "--token", token]) == 0
        assert capsys.readouterr().out.splitlines() == [path]
    for token in (scan.subject, f"c:{scan.subject}:{scan.session}"):
        assert main(["--source", str(source), "--token", token]) == 0
        assert set(scan.paths) <= set(capsys.readouterr().out.splitlines())
    file = tmp_path / "key"
    file.write_text("another secret of more than sixteen bytes")
    assert main(["--source", str(source), "--token", KEY.path(path), "--subject-key-file", str(file)]) == 1
    assert "is not a file or scan" in capsys.readouterr().err


def test_a_file_that_vanishes_before_its_mask_is_written_costs_that_mask_and_tells_no_name(tmp_path, with_key):
    source = tmp_path / "source"
    for number, name in enumerate(NAMES[:1]):
        write_dicom(source / name, stack(4, SeriesInstanceUID=f"1.9.{number}", PatientID=name))
    (scan,) = find(str(source), subject_key=KEY.secret).scans
    reading = IngestSettings(source=str(source), warehouse="w", cohort=COHORT)
    job = IngestJob(reading, SplitRule("s", 0.7, 0.15), Fence("w", "x", 1, "r"), Naming(KEY))
    row = {"files": [{"role": scan.modalities[0]}], "resampled_to": None, "scan_id": job.scan_id(scan)}
    shutil.rmtree(source / NAMES[0])
    asked = segment_job.ArchivedJob("w", COHORT, "m", (), "SPL", "brats", job.fence, reader=job)
    wanted = masks.MaskScan(PredictedPlace(row["scan_id"], "p", (), "f", "r"), scan)
    with pytest.raises(BadInput) as told, masks._no_scan_stops_others(row["scan_id"]):
        masks._series(asked, wanted, row)
    assert told.value.reason is Reason.UNREADABLE
    assert row["scan_id"] in str(told.value)
    assert not [secret for secret in SECRETS if secret in str(told.value)]
    assert told.value.__cause__ is None


def test_an_archive_that_is_damaged_before_its_mask_is_written_tells_no_name(tmp_path, with_key):
    write_dicom(tmp_path / "plain", stack(4))
    source = tmp_path / "source"
    source.mkdir()
    with zipfile.ZipFile(source / f"{NAMES[0]}.zip", "w") as packed:
        for path in (tmp_path / "plain").iterdir():
            packed.write(path, f"study/{path.name}")
    (scan,) = find(str(source), subject_key=KEY.secret).scans
    reading = IngestSettings(source=str(source), warehouse="w", cohort=COHORT)
    job = IngestJob(reading, SplitRule("s", 0.7, 0.15), Fence("w", "x", 1, "r"), Naming(KEY))
    row = {"files": [{"role": scan.modalities[0]}], "resampled_to": None, "scan_id": job.scan_id(scan)}
    (source / f"{NAMES[0]}.zip").write_bytes(b"PK no more")
    asked = segment_job.ArchivedJob("w", COHORT, "m", (), "SPL", "brats", job.fence, reader=job)
    wanted = masks.MaskScan(PredictedPlace(row["scan_id"], "p", (), "f", "r"), scan)
    for read in (lambda: masks._series(asked, wanted, row), lambda: ingest_task.load(scan, job)):
        with pytest.raises(BadInput, match=r"keyed/\w+ is a damaged archive") as told:
            read()
        assert not [secret for secret in SECRETS if secret in str(told.value)]


@pytest.mark.parametrize("kept", [False, True], ids=["blanked", "kept"])
def test_scans_of_an_archive_are_those_of_the_tables_whether_header_text_was_kept(tmp_path, kept):
    source = archive(tmp_path / "source", subjects=2)
    listing = find(str(source))
    reading = IngestSettings(source=str(source), warehouse="w", cohort=COHORT)
    reader = IngestJob(reading, SplitRule("s", 0.7, 0.15), Fence("w", "x", 1, "r"))
    ingested = replace(reader, settings=replace(reading, keep_header_text=kept))
    index = {ingested.scan_id(scan): {"fingerprint": ingested.fingerprint(scan)} for scan in listing.scans[1:]}
    found = segment.as_ingested(reader, listing, index)
    assert found.settings.keep_header_text == kept
    assert all(found.fingerprint(scan) == ingested.fingerprint(scan) for scan in listing.scans)
    assert not segment.as_ingested(reader, listing, {}).settings.keep_header_text
