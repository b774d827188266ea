"""What an ingest does to the tables, run by Spark on small generated archives and on the real scans."""

import gzip
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from segpipe.core.splits import SplitRule
from segpipe.errors import NotFound, UsageError, WarehouseBusy
from segpipe.pipelines import ingest as module
from segpipe.pipelines import ingest_task
from segpipe.pipelines.ingest import IngestPlan, _tell_privacy, ingest, lock_name, plan_parts
from segpipe.pipelines.ingest_task import PartOutcome
from segpipe.readers import sources
from segpipe.settings import IngestSettings
from segpipe.storage.lock import lock
from segpipe.warehouse import slices
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.slices import stream
from segpipe.warehouse.store import Store
from tests.pipelines.deadly import In
from tests.pipelines.examples import COHORT, archive, copy, leftovers, part_files, run_ingest, spoil, tables

SUBJECTS = [f"Synthetic_00_{number:03d}" for number in range(6)]


@pytest.fixture
def source(tmp_path):
    return archive(tmp_path / "source")


def scan_ids(warehouse) -> list[str]:
    return Store(str(warehouse)).scans(COHORT, ["scan_id"])["scan_id"].to_pylist()


def ids(*numbers: int) -> list[str]:
    return [f"{COHORT}:{SUBJECTS[number]}:1" for number in numbers]


def test_every_scan_gets_its_row_and_its_slices(spark, source, tmp_path):
    outcome, run = run_ingest(spark, source, tmp_path / "w")
    warehouse = Store(str(tmp_path / "w"))
    assert scan_ids(tmp_path / "w") == list(outcome.written) == ids(*range(6))
    row = warehouse.scans(COHORT).to_pylist()[0]
    assert row["modalities"] == ["FLAIR", "T1", "T1ce", "T2"]
    assert (row["orientation"], row["shape"], row["layout"]) == ("SPL", [8, 24, 20], "brats")
    assert row["split"] == SplitRule("segpipe", 0.7, 0.15).of(row["subject"])
    assert [file["role"] for file in row["files"]][-1] == "mask"
    assert sum(entry["voxels"] for entry in row["label_counts"]) == slice_sum(
        warehouse, row["scan_id"], "foreground_pixels"
    )
    assert row["brain_voxels"] == slice_sum(warehouse, row["scan_id"], "brain_pixels")
    assert dict(run.counts) | {"scans_written": 6, "scans_decoded": 6, "quarantined": 0, "parts": 2} == dict(run.counts)
    assert leftovers(tmp_path / "w") == []


def test_scans_that_kill_their_workers_cost_themselves_alone_however_many(spark, source, tmp_path, monkeypatch):
    deadly = In(module, "write_part", ingest_task, "load", lambda one, *_: one.subject in SUBJECTS[1:4])
    deadly.put(monkeypatch)
    outcome, _ = run_ingest(spark, source, tmp_path / "w")
    assert (outcome.written, outcome.quarantined) == (tuple(ids(0, 4, 5)), 3)
    assert {row["scan_id"]: row["reason"] for row in tables(tmp_path / "w")["quarantine"]} == dict.fromkeys(
        ids(1, 2, 3), "crashed"
    )
    monkeypatch.undo()
    outcome, _ = run_ingest(spark, source, tmp_path / "w")  # with workers that have more memory
    assert outcome.written == tuple(ids(1, 2, 3))


def test_a_patient_who_is_read_under_another_name_is_not_in_the_tables_twice(spark, source, tmp_path):
    """A second visit changes how the first is read; the rows that are there keep their subject and its split."""
    grown = tmp_path / "grown"

    def add(name: str, subject: str) -> None:
        (grown / name).mkdir(parents=True)
        for role in ("t1", "flair"):
            shutil.copy2(source / subject / f"{subject}_{role}.nii.gz", grown / name / f"{role}.nii.gz")

    add("A07_1", SUBJECTS[0])
    first, _ = run_ingest(spark, grown, tmp_path / "w")
    assert first.written == (f"{COHORT}:A07_1:1",)
    add("A07_2", SUBJECTS[1])
    add("A08_1", SUBJECTS[2])
    outcome, _ = run_ingest(spark, grown, tmp_path / "w")
    assert outcome.written == (f"{COHORT}:A08:1",)
    assert scan_ids(tmp_path / "w") == [f"{COHORT}:A07_1:1", f"{COHORT}:A08:1"]
    rows = Store(str(tmp_path / "w")).table("quarantine").to_table().to_pylist()
    assert {row["reason"] for row in rows} == {"duplicate"}
    assert sorted(path for row in rows for path in row["paths"]) == [
        f"A07_{visit}/{role}.nii.gz" for visit in (1, 2) for role in ("flair", "t1")
    ]
    assert all("Subject A07 has files of scan c:A07_1:1" in row["message"] for row in rows)
    again, _ = run_ingest(spark, grown, tmp_path / "w")
    assert (again.written, again.quarantined, again.known_bad) == ((), 0, 2)


def slice_sum(warehouse: Store, scan_id: str, column: str) -> int:
    part = next(p for p in warehouse.slice_parts(COHORT) for s in p.scans if s.scan_id == scan_id)
    groups = next(s.row_groups for s in part.scans if s.scan_id == scan_id)
    return sum(int(getattr(batch, column).sum()) for batch in slices.stream(part.path, warehouse.fs, groups, [column]))


def test_what_is_no_image_is_counted_by_kind_in_the_summary_and_in_runs(spark, source, tmp_path):
    for name in ("a.txt", "b.TXT", "c.json", f"{SUBJECTS[0]}/{SUBJECTS[0]}_brain_mask.nii.gz"):
        (source / name).write_bytes(b"x")
    _, run = run_ingest(spark, source, tmp_path / "w")
    assert "ignored 4: 2 .txt, 1 .json, 1 map of anatomy" in run.lines
    (row,) = Store(str(tmp_path / "w")).table("runs").to_table().to_pylist()
    counts = {name: count for name, count in row["counts"] if name.startswith("ignored")}
    assert counts == {"ignored": 4, "ignored .txt": 2, "ignored .json": 1, "ignored map of anatomy": 1}


def test_spark_reads_the_tables_as_they_stand(spark, source, tmp_path):
    run_ingest(spark, source, tmp_path / "w")
    found = spark.read.parquet(str(tmp_path / "w" / "slices"))
    assert found.count() == 6 * 8
    assert spark.read.parquet(str(tmp_path / "w" / "scans")).selectExpr("files[0].path").distinct().count() == 6


def test_a_rerun_opens_nothing_and_writes_nothing(spark, source, tmp_path):
    run_ingest(spark, source, tmp_path / "w")
    before = part_files(tmp_path / "w")
    for path in source.rglob("*.nii.gz"):  # whoever opened one now would quarantine it
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        path.write_bytes(bytes(path.stat().st_size))
        os.utime(path, ns=times)
    outcome, run = run_ingest(spark, source, tmp_path / "w")
    assert (outcome.written, outcome.replaced, outcome.skipped) == ((), (), 6)
    assert run.counts["scans_decoded"] == 0
    assert part_files(tmp_path / "w") == before


def test_new_scans_come_in_new_parts(spark, source, tmp_path):
    late = copy(source, tmp_path / "late")
    for subject in SUBJECTS[:2]:
        shutil.rmtree(source / subject)
    run_ingest(spark, source, tmp_path / "w")
    before = part_files(tmp_path / "w")
    outcome, _ = run_ingest(spark, late, tmp_path / "w")
    assert list(outcome.written) == ids(0, 1)
    assert before.items() < part_files(tmp_path / "w").items()
    run_ingest(spark, late, tmp_path / "once")
    assert tables(tmp_path / "w") == tables(tmp_path / "once")


def test_a_changed_scan_comes_in_a_new_part_with_its_neighbours(spark, source, tmp_path):
    run_ingest(spark, source, tmp_path / "w")
    before, files = tables(tmp_path / "w"), part_files(tmp_path / "w")
    planned = Store(str(tmp_path / "w")).slice_parts(COHORT)
    other = archive(tmp_path / "other", subjects=2, seed=1)
    flair = next(other.glob("*/*_flair.nii.gz")).read_bytes()
    spoil(source, SUBJECTS[2], "flair", flair)
    outcome, run = run_ingest(spark, source, tmp_path / "w")
    assert list(outcome.replaced) == ids(2)
    assert (outcome.skipped, run.counts["scans_decoded"]) == (5, 1)
    now = part_files(tmp_path / "w")
    assert len(now) == len(files)
    assert len(now.keys() - files.keys()) == 2, "the other part is left as it is"
    assert sum(len(list(stream(part.path, Store(str(tmp_path / "w")).fs))) for part in planned) == 6, "kept aside"
    after = tables(tmp_path / "w")
    run_ingest(spark, source, tmp_path / "once")
    assert after == tables(tmp_path / "once") != before


def test_a_vanished_scan_is_told_and_kept(spark, source, tmp_path):
    run_ingest(spark, source, tmp_path / "w")
    before = tables(tmp_path / "w")
    shutil.rmtree(source / SUBJECTS[3])
    outcome, run = run_ingest(spark, source, tmp_path / "w")
    assert list(outcome.vanished) == ids(3)
    assert SUBJECTS[3] in run.summary()
    assert tables(tmp_path / "w") == before


def test_bad_files_are_quarantined_once_and_the_others_are_there(spark, source, tmp_path):
    spoil(source, SUBJECTS[0], "t1", b"")
    spoil(source, SUBJECTS[1], "seg", b"this is no image")
    spoil(source, SUBJECTS[2], "t2", (source / SUBJECTS[2] / f"{SUBJECTS[2]}_t2.nii.gz").read_bytes()[:500])
    outcome, first = run_ingest(spark, source, tmp_path / "w")
    assert outcome.rejected == 3
    assert "  quarantine: 1 empty_file, 1 not_an_image, 1 truncated\n    " in first.summary()
    assert f"  table `quarantine` says why, where cohort is {COHORT}" in first.summary()
    assert scan_ids(tmp_path / "w") == ids(*range(6))
    rejected = tables(tmp_path / "w")["quarantine"]
    assert len(rejected) == 3
    assert all(row["reason"] and row["message"] and row["paths"] for row in rejected)
    again, run = run_ingest(spark, source, tmp_path / "w")
    assert (again.quarantined, again.known_bad, again.rejected) == (0, 3, 3)
    assert run.counts["scans_decoded"] == 0
    assert "  known bad 3: rejected by earlier runs, and not changed since\n" in run.summary()
    assert "  quarantine: " not in run.summary()
    assert tables(tmp_path / "w")["quarantine"] == rejected


def test_a_mended_scan_is_taken_in(spark, source, tmp_path):
    good = copy(source, tmp_path / "good")
    spoil(source, SUBJECTS[0], "t1", b"")
    run_ingest(spark, source, tmp_path / "w")
    outcome, _ = run_ingest(spark, good, tmp_path / "w")
    assert list(outcome.replaced) == ids(0)
    assert all("T1" in row["modalities"] for row in tables(tmp_path / "w")["scans"])


def test_a_scan_that_goes_bad_keeps_its_rows(spark, source, tmp_path):
    run_ingest(spark, source, tmp_path / "w")
    before = tables(tmp_path / "w")
    spoil(source, SUBJECTS[0], "t1", b"")
    outcome, _ = run_ingest(spark, source, tmp_path / "w")
    assert (outcome.replaced, outcome.quarantined) == ((), 1)
    after = tables(tmp_path / "w")
    assert (after["scans"], after["slices"]) == (before["scans"], before["slices"])


def test_only_bad_scans_make_no_part(spark, source, tmp_path):
    for path in source.rglob("*.nii.gz"):
        path.write_bytes(b"nothing")
    outcome, _ = run_ingest(spark, source, tmp_path / "w")
    assert outcome.rejected == 6
    assert part_files(tmp_path / "w") == {}


def test_other_split_settings_are_refused_with_the_flags_that_mend_it(spark, source, tmp_path):
    run_ingest(spark, source, tmp_path / "w", split_salt="it's", train_fraction=0.5)
    before = tables(tmp_path / "w")
    with pytest.raises(UsageError, match=r"--split-salt .* --train-fraction 0.5 --validation-fraction 0.15"):
        run_ingest(spark, source, tmp_path / "w")
    assert tables(tmp_path / "w") == before


def test_another_axis_replaces_the_scans(spark, source, tmp_path):
    run_ingest(spark, source, tmp_path / "w")
    outcome, _ = run_ingest(spark, source, tmp_path / "w", axis="sagittal")
    assert list(outcome.replaced) == ids(*range(6))
    run_ingest(spark, source, tmp_path / "once", axis="sagittal")
    assert tables(tmp_path / "w") == tables(tmp_path / "once")


def test_two_cohorts_share_a_warehouse(spark, source, tmp_path):
    run_ingest(spark, source, tmp_path / "w")
    settings = IngestSettings(source=str(source), warehouse=str(tmp_path / "w"), cohort="a b")
    with record_run(Store(settings.warehouse), "ingest", settings) as run:
        ingest(spark, settings, run)
    warehouse = Store(str(tmp_path / "w"))
    assert len(warehouse.scans("a b")) == len(warehouse.scans(COHORT)) == 6


def test_a_locked_cohort_is_refused_or_waited_for(spark, source, tmp_path):
    warehouse = Store(str(tmp_path / "w"))
    let_go = threading.Event()
    taken = threading.Event()

    def hold() -> None:
        with lock(warehouse.url, lock_name(COHORT), 0, "other"):
            taken.set()
            let_go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(30)
    with pytest.raises(WarehouseBusy, match="run other"):
        run_ingest(spark, source, tmp_path / "w")
    threading.Timer(0.5, let_go.set).start()
    outcome, _ = run_ingest(spark, source, tmp_path / "w", lock_wait_seconds=60)
    holder.join()
    assert len(outcome.written) == 6


def test_two_ingests_at_once_end_in_the_tables_of_one(spark, source, tmp_path):
    """The second waits for the first, finds it all done, and writes nothing; a third into the same folder too."""
    run_ingest(spark, source, tmp_path / "once")
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(run_ingest, spark, source, tmp_path / "w", lock_wait_seconds=120) for _ in range(3)]
        outcomes = [run.result()[0] for run in runs]
    assert sorted((len(one.written), one.skipped) for one in outcomes) == [(0, 6), (0, 6), (6, 0)]
    assert tables(tmp_path / "w") == tables(tmp_path / "once")
    assert leftovers(tmp_path / "w") == []


def test_no_source_makes_no_warehouse(spark, tmp_path):
    with pytest.raises(NotFound):
        run_ingest(spark, tmp_path / "nowhere", tmp_path / "w")
    assert not (tmp_path / "w").exists()


def listed(folder):
    found = sources.find(str(folder)).scans
    return plan_parts(found, IngestSettings(source=str(folder), warehouse="w", cohort=COHORT), cores=2)


def test_parts_hold_whole_scans_once_in_order_and_are_the_same_each_time(source):
    parts = listed(source)
    assert [scan.subject for part in parts for scan in part.sources] == SUBJECTS
    assert len({part.name for part in parts}) == len(parts) == 2
    assert parts == listed(source)


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 2), (4, 4), (6, 6), (50, 6)])
def test_a_small_cohort_keeps_all_cores_busy(source, cores, count):
    found = sources.find(str(source)).scans
    settings = IngestSettings(source=str(source), warehouse="w", cohort=COHORT)
    assert len(plan_parts(found, settings, cores)) == count


def test_a_large_cohort_is_cut_into_parts_of_the_wanted_size(source):
    scan = sources.find(str(source)).scans[0]
    large = replace(scan, files=tuple(file._replace(bytes=2_000_000) for file in scan.files))
    many = [replace(large, subject=f"s{number:04d}") for number in range(1000)]
    settings = IngestSettings(source=str(source), warehouse="w", cohort=COHORT, part_mb=192)
    parts = plan_parts(many, settings, cores=2)
    sizes = [sum(file.bytes for one in part.sources for file in one.files) * 0.85 / 1e6 for part in parts]
    assert len(parts) % 2 == 0
    assert min(sizes) > 128
    assert max(sizes) < 256


@pytest.mark.real
def test_the_tables_of_real_scans_are_smaller_than_their_gzipped_files(spark, real_gliomas, tmp_path):
    _, run = run_ingest(spark, real_gliomas, tmp_path / "w")
    assert run.counts["scans_written"] == 2
    assert run.counts["table_bytes"] < run.counts["source_bytes"]
    assert run.counts["source_bytes"] == sum(path.stat().st_size for path in real_gliomas.rglob("*.gz"))


def test_a_gzip_bomb_does_not_stop_the_others(spark, source, tmp_path):
    spoil(source, SUBJECTS[0], "t1", gzip.compress(bytes(50_000_000)))
    outcome, _ = run_ingest(spark, source, tmp_path / "w")
    assert outcome.rejected == 1
    assert scan_ids(tmp_path / "w") == ids(*range(6))


def test_it_is_told_how_many_scans_may_show_a_face_and_whose_header_text_was_not_kept():
    """Those that the tables hold already count as well, unless this run has written them again."""
    plan = IngestPlan([], [], (), 2, 0, (), faces=frozenset({"c:anna:1", "c:bert:1"}))
    outcome = PartOutcome("p", ("c:bert:1", "c:carl:1"), (), 2, 1, 1, faces=("c:carl:1",), texts=("c:bert:1",))
    with record_run(None, "ingest", {"cohort": "c"}) as run:
        _tell_privacy(plan, [outcome], run)
    assert (run.counts["scans_that_may_show_a_face"], run.counts["headers_blanked"]) == (2, 1)
    assert run.lines[0].startswith("2 scans of the cohort may show a face: their heads are not stripped")
    assert run.lines[1].startswith("free text in the headers of 1 scans was not kept; --keep-header-text keeps it")
