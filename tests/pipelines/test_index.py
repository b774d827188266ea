"""The index of a DICOM archive: what tasks read, what they keep, and what an ingest makes of hospital studies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segpipe.errors import UsageError
from segpipe.pipelines import index
from segpipe.pipelines.attempts import Watch
from segpipe.pipelines.index import Indexed, IndexJob, among, index_bucket, looks_like_dicom, plan
from segpipe.pipelines.listing import is_dicom_archive
from segpipe.pipelines.listing import listing as listed
from segpipe.pipelines.series_rows import series_map
from segpipe.readers.dicom_index import from_json, merged, to_json
from segpipe.readers.generate import write_brats
from segpipe.readers.layouts import dicom
from segpipe.readers.naming import KEY_VARIABLE, Naming, SubjectKey
from segpipe.readers.series import Options
from segpipe.readers.sources import find
from segpipe.settings import IngestSettings
from segpipe.storage import url_to_fs
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store
from tests.pipelines.deadly import In
from tests.pipelines.examples import COHORT, leftovers, run_ingest, tables
from tests.readers.hospital import MODALITIES, studies, write

SECRET = "a secret of more than sixteen bytes"


def indexed(source: Path, warehouse: Path, **overrides: str) -> Indexed:
    """One bucket with all units of an archive, as a task does it."""
    job = IndexJob(str(source), str(warehouse), "c", SECRET.encode(), overrides)
    return index_bucket(job, 0, plan(*url_to_fs(str(source))), watch(job))


def watch(job: IndexJob) -> Watch:
    return Watch(Store(job.warehouse), "r1", takes_notes=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    write(folder / "Doe_Jane" / "a", studies()[0])
    write(folder / "Doe_John", studies()[2])
    (folder / "notes.txt").write_text("no image")
    (folder / "Doe_John" / "LIESMICH").write_text("no image")
    return folder


@pytest.fixture
def source(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "source"))


def test_tasks_find_the_series_that_a_driver_finds(source: Path, tmp_path: Path) -> None:
    ours = indexed(source, tmp_path / "w")
    theirs = find(str(source), "dicom", SECRET.encode())
    wanted = {one.facts.series: one.series.entries() for one in theirs.series}
    assert {one.facts.series: one.entries() for one in merged(ours.series)} == wanted
    assert ours.kinds == theirs.kinds == {".txt": 1, "no suffix": 1}
    assert (ours.files, ours.rejected) == (sum(map(len, wanted.values())) + 2, [])


def test_only_new_and_changed_files_are_opened_again(source: Path, tmp_path: Path) -> None:
    first = indexed(source, tmp_path / "w")
    assert first.opened == first.files - 1  # the name of one says that it is none
    before = {one.facts.series: one for one in merged(first.series)}
    again = indexed(source, tmp_path / "w")
    assert again.opened == 0
    assert again.kinds == first.kinds
    for one in merged(again.series):
        known = before[one.facts.series]
        assert (one.facts, one.entries(), one.places, one.moment) == (
            known.facts,
            known.entries(),
            known.places,
            known.moment,
        )
    path = source / "Doe_John" / "00003"
    os.utime(path, (1, 1))
    changed = indexed(source, tmp_path / "w")
    assert 0 < changed.opened <= 5  # the files of its series
    assert {one.facts.series: one.count for one in merged(changed.series)} == {
        name: one.count for name, one in before.items()
    }
    (source / "Doe_John" / "copy").write_bytes(path.read_bytes())
    (twice,) = indexed(source, tmp_path / "w").rejected
    assert twice.reason == "duplicate"
    assert indexed(source, tmp_path / "w", text="T1").opened > 100  # another map of the site


def test_what_was_kept_gives_what_a_first_look_gives(source: Path, tmp_path: Path) -> None:
    place = source / "Doe_John"
    some = (place / "00004").read_bytes()
    changes: list[Callable[[], object]] = [
        lambda: None,
        (place / "00003").unlink,
        lambda: (place / "00004").rename(place / "other"),
        lambda: (place / "broken").write_bytes(some[: some.index(b"LO") + 3]),
        lambda: (place / "they").write_bytes(
            some
        ),  # of two copies the first by name is taken, or the one that is known
        lambda: (place / "LIESMICH").unlink(),
        lambda: (place / "scan.nii").write_bytes(b"?"),
        lambda: (place / "read.me").write_bytes(b"?"),
        lambda: (place / "broken").unlink(),
        lambda: None,
    ]
    for number, change in enumerate(changes):
        change()
        again, first = indexed(source, tmp_path / "w"), indexed(source, tmp_path / f"w{number}")
        assert told(again) == told(first), number
        again.opened = first.opened = 0
    assert indexed(source, tmp_path / "w").opened <= 2  # the copy, and the file that it is one of


def told(found: Indexed) -> dict[str, Any]:
    rejected = sorted((one.paths, str(one.reason)) for one in (*found.rejected, *found.others))
    series = {
        one.facts.series: (one.facts, one.entries(), one.places, one.moment, one.size) for one in merged(found.series)
    }
    return {"series": series, "rejected": rejected, "kinds": found.kinds, "files": found.files, "images": found.images}


def test_a_flipped_bit_in_what_was_kept_is_noticed(source: Path, tmp_path: Path) -> None:
    first = indexed(source, tmp_path / "w")
    (kept,) = (tmp_path / "w").rglob("000.parquet")
    content, opened = kept.read_bytes(), []
    for place in range(100, len(content) - 8, len(content) // 7):
        kept.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        again = indexed(source, tmp_path / "w")
        assert told(again) == told(first), place
        opened.append(again.opened)
    assert max(opened) == first.opened  # all were read from their source again


def test_what_is_kept_names_nobody(source: Path, tmp_path: Path) -> None:
    indexed(source, tmp_path / "w")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "w").rglob("*.parquet"))
    assert kept
    for secret in ("Doe", "Jane", "Meier", "P-siemens", "20210304", "1.2.826", "tirm"):
        assert secret.encode() not in kept, secret


def test_facts_survive_as_text(source: Path) -> None:
    for one in find(str(source), "dicom", SECRET.encode()).series:
        assert from_json(to_json(one.facts)) == one.facts


def test_a_large_folder_is_shared_by_tasks(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segpipe.pipelines.index._SHARE_FILES", 40)
    job = IndexJob(str(source / "Doe_John"), str(tmp_path / "w"), "c", SECRET.encode(), {})
    units = plan(*url_to_fs(job.source))
    assert len(units) > 3
    parts = [index_bucket(job, number, [unit], watch(job)) for number, unit in enumerate(units)]
    found = merged(series for part in parts for series in part.series)
    wanted = find(job.source, "dicom", SECRET.encode()).series
    assert {one.facts.series: one.count for one in found} == {one.facts.series: one.series.count for one in wanted}


def test_hospital_studies_become_scans_and_every_series_a_row(
    spark: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    t2s = {one.series.first.split("/")[0]: one for one in find(str(source), "dicom", SECRET.encode()).series
           if (one.role, one.decision) == ("T2", "selected")}  # fmt: skip
    john, jane = (t2s[name] for name in ("Doe_John", "Doe_Jane"))
    good = cut(source / john.series.first)
    outcome, run = run_ingest(spark, source, tmp_path / "w", resample_to="FLAIR")  # it is DICOM by its content
    warehouse = Store(str(tmp_path / "w"))
    scans = {row["subject"]: row for row in warehouse.scans(COHORT).to_pylist()}
    assert scans[jane.facts.subject]["modalities"] == list(MODALITIES)
    assert scans[john.facts.subject]["modalities"] == ["FLAIR", "T1", "T1ce"]
    assert [row["reason"] for row in warehouse.table("quarantine").to_table().to_pylist()] == ["truncated"]
    rows = series_of(warehouse)
    assert len(rows) == run.counts["series"] == 30
    assert {row["scan_id"] for row in rows.values() if row["decision"] == "selected"} == set(outcome.written)
    assert all(row["reason"] and row["scan_id"] is None for row in rows.values() if row["decision"] != "selected")
    assert "quarantine" in rows[john.facts.series]["reason"]
    assert run.counts["headers_read"] > 0

    outcome, run = run_ingest(spark, source, tmp_path / "w", resample_to="FLAIR")
    assert (outcome.skipped, outcome.replaced) == (1, (scans[john.facts.subject]["scan_id"],))
    scans = {row["subject"]: row for row in warehouse.scans(COHORT).to_pylist()}
    assert scans[john.facts.subject]["modalities"] == list(MODALITIES)
    assert "the next series took its place" in series_of(warehouse)[john.facts.series]["reason"]
    of_john = [one for one in series_of(warehouse).values() if one["subject"] == john.facts.subject]
    (second,) = (one for one in of_john if (one["role"], one["decision"]) == ("T2", "selected"))
    assert (second["scan_id"], second["plane"]) == (scans[john.facts.subject]["scan_id"], "coronal")
    outcome, run = run_ingest(spark, source, tmp_path / "w", resample_to="FLAIR")
    assert (outcome.skipped, run.counts["headers_read"], run.counts["series_changed"]) == (2, 0, 0)

    (source / john.series.first).write_bytes(good)
    cut(source / jane.series.first)
    write_brats(source / "other", subjects=1, seed=0, shape=(8, 12, 10))
    monkeypatch.setattr("segpipe.pipelines.listing._FEW", 0)
    outcome, run = run_ingest(spark, source, tmp_path / "w", resample_to="FLAIR")
    assert run.counts["headers_read"] == john.series.count + jane.series.count
    assert outcome.replaced == (scans[john.facts.subject]["scan_id"],)
    scans = {row["subject"]: row for row in warehouse.scans(COHORT).to_pylist()}
    assert len(scans) == 3
    for one in (john, jane):  # the one has got better, and a bad copy takes nothing from the other
        assert scans[one.facts.subject]["modalities"] == list(MODALITIES)
        assert series_of(warehouse)[one.facts.series]["scan_id"] == scans[one.facts.subject]["scan_id"]
    assert "quarantine" in series_of(warehouse)[jane.facts.series]["reason"]
    before = {name: row["scan_id"] for name, row in series_of(warehouse).items()}
    run_ingest(spark, source, tmp_path / "w", layout="dicom", plan=True, resample_to="FLAIR")
    assert {name: row["scan_id"] for name, row in series_of(warehouse).items()} == before


def series_of(warehouse: Store) -> dict[str, dict[str, Any]]:
    return {row["series_id"]: row for row in warehouse.table("series").to_table().to_pylist()}


def cut(path: Path) -> bytes:
    """Take the last bytes from a file; gives what it was."""
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    return content


@pytest.mark.parametrize(("more", "wanted"), [({}, True), ({"A/t1.nii.gz": b"?"}, False), ({"notes.xyz": b"?"}, True)])
def test_an_archive_is_known_by_its_content(source: Path, more: dict[str, bytes], wanted: bool) -> None:
    for name, content in more.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(content)
    assert looks_like_dicom(*url_to_fs(str(source))) is wanted


@pytest.mark.parametrize(
    ("layout", "secret", "wanted"),
    [("dicom", None, True), ("auto", SECRET, True), ("auto", None, False), ("plain", SECRET, False)],
)
def test_a_plan_of_a_dicom_archive_is_a_table(source: Path, layout: str, secret: str | None, wanted: bool) -> None:
    settings = IngestSettings(source=str(source), warehouse="w", cohort="c", layout=layout, plan=True)
    assert is_dicom_archive(settings, Naming(SubjectKey(secret.encode()) if secret else None)) is wanted


def test_an_archive_that_is_dicom_is_refused_at_once_without_a_key(source: Path, tmp_path: Path) -> None:
    settings = IngestSettings(source=str(source), warehouse=str(tmp_path / "w"), cohort="c")
    with record_run(Store(settings.warehouse), "ingest", settings) as run:
        with pytest.raises(UsageError, match=r"is a DICOM archive.*keyed hashes"):
            listed(None, settings, Naming(None), Options(), run)  # type: ignore[arg-type]  (no task is needed)
        shutil.rmtree(source / "Doe_John")
        write_brats(source, subjects=1, seed=0, shape=(8, 12, 10))
        mixed = listed(None, settings, Naming(None), Options(), run)  # type: ignore[arg-type]
    assert (len(mixed.scans), {one.is_dicom for one in mixed.rejected}) == (1, {True})


@pytest.mark.parametrize("part", [",", ";", "\t"])
def test_a_series_map_is_read_as_spreadsheets_write_it(tmp_path: Path, part: str) -> None:
    lines = (("vendor", "text", "role"), ("", "Übersicht KM", "t1CE"), ("Siemens", "Navi", "ignore"))
    (tmp_path / "map.csv").write_bytes("".join(f"{part.join(line)}\r\n" for line in lines).encode("utf-8-sig"))
    assert series_map(str(tmp_path / "map.csv")) == {"übersicht km": "T1ce", "siemens\tnavi": "ignore"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"name,modality\nNavi,T1\n", "has the columns name, modality"),
        (b"", "has the columns of an empty file"),
        ("text,role\nÜbersicht,T1\n".encode("cp1252"), "is not in UTF-8"),
        (b"text,role\nNavi,T1\nHirn,T9\n", "line 3"),
        (b"text,role\n,T1\n", "line 2"),
    ],
)
def test_what_is_no_series_map_is_told(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "map.csv").write_bytes(content)
    with pytest.raises(UsageError, match=problem):
        series_map(str(tmp_path / "map.csv"))


def test_names_alone_are_no_dicom_archive(tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(b"no DICOM")
    (tmp_path / "empty").write_bytes(b"")
    assert not looks_like_dicom(*url_to_fs(str(tmp_path)))


def test_what_other_layouts_have_taken_is_left_out(source: Path, tmp_path: Path) -> None:
    found = indexed(source, tmp_path / "w")
    entries = [entry for one in found.series for entry in one.entries() if "Jane" in entry.path]
    chosen = among(found, entries)
    assert 0 < len(chosen.series) < len(found.series)
    assert chosen.taken == {entry.path for entry in entries}


def test_a_file_that_kills_whoever_reads_its_header_costs_itself_alone(
    spark: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    shutil.copyfile(source / "Doe_John" / "00003", source / "Doe_John" / "deadly")
    deadly = In(index, "index_bucket", dicom, "look", lambda _, entry: entry.path.endswith("deadly"))
    deadly.put(monkeypatch)
    run_ingest(spark, source, tmp_path / "w", layout="dicom")
    monkeypatch.undo()
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    (source / "Doe_John" / "deadly").unlink()
    run_ingest(spark, source, tmp_path / "alone", layout="dicom")
    (row,) = [row for row in tables(tmp_path / "w")["quarantine"] if row["reason"] == "crashed"]
    assert (row["scan_id"], len(row["paths"])) == (None, 1)
    assert "killed 2 workers" in row["message"]
    assert "Doe" not in row["message"]
    assert tables(tmp_path / "w")["scans"] == tables(tmp_path / "alone")["scans"]
    assert leftovers(tmp_path / "w") == []


def test_a_plan_writes_the_table_series_alone(
    spark: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    outcome, run = run_ingest(spark, source, tmp_path / "w", layout="dicom", plan=True)
    rows = Store(str(tmp_path / "w")).table("series").to_table().to_pylist()
    assert (len(rows), outcome.written, run.lines) == (
        30,
        (),
        ["planned: 2 scans of 30 DICOM series, 0 inputs rejected"],
    )
    assert {row["scan_id"] for row in rows} == {None}
    assert not (tmp_path / "w" / "scans").exists()
