"""Small parts become few, and nobody sees anything else than the same rows, wherever `compact` is killed."""

import functools
import itertools
import json
import re
import resource
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import segpipe
from segpipe.errors import NotFound, TableError, WarehouseBusy
from segpipe.pipelines import compact, quarantine
from segpipe.pipelines.verify import verify, verify_part
from segpipe.readers.generate import write_brats
from segpipe.settings import CompactSettings, VerifySettings
from segpipe.storage.lock import lock
from segpipe.warehouse import merges
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.scan_slices import read_planes
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import FAMILIES, PREDICTIONS, SEGMENTATIONS, TABLES
from tests.pipelines.deadly import In
from tests.pipelines.examples import archive, run_ingest, spoil, tables
from tests.warehouse.examples import write_part
from tests.warehouse.test_parts import changing_step, killed_before_step

KEEP = 24.0


def one_after_the_other(warehouse: Store) -> compact.Execute:
    return lambda tasks, fence: [compact.merge_part(warehouse.url, task, fence) for task in tasks]


def run_compact(warehouse: Store, **settings) -> dict[str, int]:
    chosen = CompactSettings(warehouse=warehouse.url, **settings)
    with record_run(None, "compact", chosen) as run:
        compact.compact_with(one_after_the_other(warehouse), chosen, run)
    return dict(run.counts)


def fresh(folder: Path, predicted: int = 2) -> Store:
    """Three parts of one scan each, and what a model predicted of so many of them, a part each."""
    folder.mkdir()
    warehouse = Store(str(folder))
    for number in range(3):
        write_part(warehouse, f"c.{number}", [f"anna{number}"], f"r{number}")
    for number in range(predicted):
        predict(warehouse, f"c.m.{number}", [f"anna{number}"])
    return warehouse


def predict(warehouse: Store, name: str, subjects: Sequence[str]) -> None:
    with PartWriter(warehouse, (PREDICTIONS, SEGMENTATIONS), name, "r9") as part:
        for subject in subjects:
            row = dict.fromkeys(SEGMENTATIONS.schema.names) | {
                **{"scan_id": f"c:{subject}:1", "cohort": "c", "subject": subject, "session": "1", "split": "train"},
                **{"model_id": "m", "region": "whole_tumour", "voxels": 1, "volume_ml": 0.1, "lesions": 1},
                **{"qc_flags": [], "run_id": "r9", "fingerprint": f"print of {subject}"},
            }
            plane = {**{name: row.get(name) for name in PREDICTIONS.schema.names}, "slice_index": 0, "height": 1}
            plane |= {"width": 1, "mask": b"\1", "region_pixels": []}
            part.write(PREDICTIONS.name, pa.Table.from_pylist([plane], PREDICTIONS.schema))
            part.write(SEGMENTATIONS.name, pa.Table.from_pylist([row], SEGMENTATIONS.schema))


def content(warehouse: Store) -> dict[str, list]:
    """All rows of all tables as our readers see them, in an order of their own, and the voxels of every scan."""
    found = {
        name: sorted(map(repr, warehouse.table(name).to_table().to_pylist()))
        for name in ("slices", "scans", "predictions", "segmentations")
    }
    for row in warehouse.scans("c").to_pylist():
        planes = read_planes(warehouse, row)
        found[row["scan_id"]] = [(name, plane.dtype.str, plane.tobytes()) for name, plane in planes.items()]
    return found


@pytest.mark.process
def test_killed_before_any_step_every_reader_sees_the_same_rows_before_and_after_recovery(tmp_path):
    """Old parts or new ones, never both and never none: at each step our readers are asked before anybody tidies up."""
    before = content(fresh(tmp_path / "expected", predicted=1))
    situations, counts = set(), set()
    for step in itertools.count(1):
        folder = tmp_path / f"w{step}"
        warehouse = Store(str(shutil.copytree(tmp_path / "expected", folder)))
        killed = killed_before_step(step, folder, functools.partial(run_compact, warehouse), changing_step)
        if (now := situation(folder)) not in situations:
            situations.add(now)
            assert content(warehouse) == before, f"killed before step {step}"
            counts.add(len(warehouse.parts("slices")))
            warehouse.recover()
            assert content(warehouse) == before, f"killed before step {step}, and recovered"
            run_compact(warehouse)
            assert content(warehouse) == before, f"killed before step {step}, and done again"
            for name in TABLES:
                assert warehouse.files(name) == warehouse.parts(name), f"files of {name} that do not count, {step}"
            assert len(warehouse.parts("slices")) == 1
        shutil.rmtree(folder)
        if not killed:
            break
    assert counts == {3, 1}
    assert len(situations) > 12


def situation(folder: Path) -> frozenset[str]:
    """The files there are, without what is random in their names."""
    found = (
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "_locks" not in path.parts
    )
    return frozenset(re.sub(r"[0-9a-f]{12,}|\d{8}T\d{6}Z-[0-9a-f]{8}", "*", one) for one in found)


def test_a_reader_that_planned_before_finds_the_voxels_after(tmp_path):
    warehouse = fresh(tmp_path / "w")
    row = warehouse.scans("c").to_pylist()[0]
    planned = warehouse.slice_parts("c")
    dataset, rows = warehouse.table("scans"), warehouse.table("scans").to_table()
    opened = segpipe.open_warehouse(warehouse.url)
    relations = [opened.scans.select("scan_id").duckdb(), opened.sql("select scan_id from scans")]
    assert run_compact(warehouse)["parts_after"] == 2
    for part in planned:
        assert warehouse.slice_part(part.name, [])  # its footers, aside
        assert verify_part(warehouse.url, "slices", part.name).problem is None
    assert np.array_equal(read_planes(warehouse, row)["flair"], read_planes(Store(warehouse.url), row)["flair"])
    assert dataset.to_table().equals(rows)
    assert dataset.count_rows() == dataset.head(10).num_rows == 3
    for relation in relations:
        assert sorted(relation.fetchall()) == [(scan_id,) for scan_id in sorted(rows["scan_id"].to_pylist())]


def test_what_was_replaced_goes_when_its_time_has_come(tmp_path):
    warehouse = fresh(tmp_path / "w")
    before = content(warehouse)
    run_compact(warehouse, keep_hours=KEEP)
    aside = tmp_path / "w" / "_replaced" / "slices"
    assert len(list(aside.iterdir())) == 3
    warehouse.recover()
    assert len(list(aside.iterdir())) == 3
    for record in merges.records(warehouse):
        assert record.retired is not None
        merges.announce(warehouse, replace(record, retired=record.retired - KEEP * 3600 - 1))
    warehouse.recover()
    assert list(aside.iterdir()) == []
    assert merges.records(warehouse) == []
    assert content(warehouse) == before


def test_large_parts_and_single_ones_are_left_alone(tmp_path):
    sizes = {"a": 100, "b": 10, "c": 20, "d": 30, "e": 45, "f": 60}
    group = compact.MergeGroup("lock", FAMILIES[1], "c.", sizes)
    tasks = compact.plan(group, 100, "run")
    assert [task.members for task in tasks] == [("b", "c", "d")]
    assert compact.plan(compact.MergeGroup("lock", FAMILIES[1], "c.", {"a": 1}), 100, "run") == []
    assert tasks[0].name != compact.plan(group, 100, "other run")[0].name


def test_no_merged_part_holds_more_scans_than_one_task_is_to_do(tmp_path):
    most = compact.MOST_SCANS
    scans = {"a": most - 1, "b": 1, "c": 1, "d": 2 * most, "e": 1, "f": 1}
    tasks = compact.plan(compact.MergeGroup("lock", FAMILIES[1], "c.", dict.fromkeys(scans, 1), scans), 100, "run")
    assert [task.members for task in tasks] == [("a", "b"), ("e", "f")]
    warehouse = fresh(tmp_path / "w")
    predict(warehouse, "c.m.2", ["anna1", "anna2"])
    assert [one.scans for one in compact.groups(warehouse, "c")] == [
        {"c.0": 1, "c.1": 1, "c.2": 1},
        {"c.m.0": 1, "c.m.1": 1, "c.m.2": 2},
    ]


def test_a_damaged_part_is_named_and_stays_with_its_neighbours(tmp_path):
    warehouse = fresh(tmp_path / "w")
    path = tmp_path / "w" / "slices" / "c.1.parquet"
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    chosen = CompactSettings(warehouse=warehouse.url)
    with record_run(None, "compact", chosen) as run:
        problems = compact.compact_with(one_after_the_other(warehouse), chosen, run)
    assert len(problems) == 1
    assert "c.1.parquet is damaged" in problems[0]
    assert warehouse.parts("slices") == ["c.0", "c.1", "c.2"]
    assert len(warehouse.parts("segmentations")) == 1


def test_a_cohort_that_a_job_works_on_is_left_alone(tmp_path):
    warehouse = fresh(tmp_path / "w")
    with lock(warehouse.url, "slices-c", 0, "r1"):
        with pytest.raises(WarehouseBusy):
            run_compact(warehouse, cohort="c")
        with pytest.raises(NotFound, match="Cohort 'd' has no scans"):
            run_compact(warehouse, cohort="d")
        run_compact(warehouse)
    assert len(warehouse.parts("segmentations")) == 1
    assert warehouse.parts("slices") == ["c.0", "c.1", "c.2"]


def test_rows_of_a_run_that_goes_on_are_not_merged_and_runs_and_quarantine_are(tmp_path):
    warehouse = fresh(tmp_path / "w")
    bad = quarantine.row("segment", "r", "c", None, ["x"], "corrupt", "why", "print")  # type: ignore[arg-type]
    for run_id in ("r1", "r2", "live"):
        with lock(warehouse.url, "predictions-c-n", 0, run_id) as fence:
            quarantine.write(warehouse, fence, f"{run_id}-plan", [bad])
        with record_run(warehouse, "segment", {"cohort": "c"}):
            pass
    with lock(warehouse.url, "predictions-c-n", 0, "live"):
        run_compact(warehouse)
        assert "live-plan" in warehouse.parts("quarantine")
        assert len(warehouse.parts("quarantine")) == 2
    assert len(warehouse.parts("runs")) == 1
    assert len(warehouse.rows(TABLES["quarantine"], ["run_id"])) == 3
    assert len(warehouse.rows(TABLES["runs"], ["run_id"])) == 3


HOSTILE = {
    "other parts": lambda told: told["record"]["parts"].update({"c.0": ["c.1"]}),
    "elsewhere": lambda told: told["record"]["parts"].update({"c.0": ["../../../victim"]}),
    "no list": lambda told: told.update(record=[3]),
    "no digest": lambda told: told.pop("sha256"),
}


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.write_bytes(b"[" * 100_000)], ids=["folder", "deep"])
def test_what_is_no_record_is_named(make, tmp_path):
    warehouse = fresh(tmp_path / "w")
    (tmp_path / "w" / "_merges").mkdir()
    make(tmp_path / "w" / "_merges" / "x.json")
    with pytest.raises(TableError, match=r"_merges/x\.json is damaged"):
        warehouse.scans("c")


@pytest.mark.parametrize("how", HOSTILE)
def test_a_record_that_is_not_as_it_was_written_hides_and_deletes_nothing(how, tmp_path):
    warehouse = fresh(tmp_path / "w")
    (tmp_path / "victim.parquet").touch()
    run_compact(warehouse, keep_hours=0.0)
    path = next((tmp_path / "w" / "_merges").iterdir())
    told = json.loads(path.read_text())
    HOSTILE[how](told)
    if how == "elsewhere":  # by somebody who knows how to seal it
        told["sha256"] = merges._digest(told["record"])
    path.write_text(json.dumps(told))
    for asked in (warehouse.recover, lambda: warehouse.scans("c"), lambda: warehouse.table("segmentations")):
        with pytest.raises(TableError, match=r"_merges.* is damaged"):
            asked()
    assert (tmp_path / "victim.parquet").exists()
    assert len(list((tmp_path / "w" / "_replaced" / "slices").iterdir())) == 3


def test_a_file_that_is_gone_is_told(tmp_path):
    warehouse = fresh(tmp_path / "w")
    (tmp_path / "w" / "slices" / "c.1.parquet").unlink()
    with pytest.raises(TableError, match=r"slices/c\.1\.parquet is missing"):
        warehouse.table("slices")


def test_a_full_disk_leaves_the_older_parts(tmp_path):
    warehouse = fresh(tmp_path / "w")
    before, limits = content(warehouse), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            run_compact(warehouse)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(warehouse) == before
    assert not [path for path in (tmp_path / "w" / "_staging").rglob("*") if path.is_file()]


def test_merging_twice_changes_nothing_more(tmp_path):
    warehouse = fresh(tmp_path / "w")
    run_compact(warehouse)
    names = {name: warehouse.files(name) for name in TABLES}
    counts = run_compact(warehouse)
    assert {name: warehouse.files(name) for name in TABLES} == names
    assert counts["rows"] == 0


def test_a_merged_cohort_is_ingested_verified_and_asked_as_before(spark, tmp_path):
    source = archive(tmp_path / "source", subjects=5)
    late = sorted(source.iterdir())[3:]
    for folder in late:
        folder.rename(tmp_path / folder.name)
    run_ingest(spark, source, tmp_path / "w")
    for folder in late:  # a run a day
        (tmp_path / folder.name).rename(source / folder.name)
        run_ingest(spark, source, tmp_path / "w")
    before, warehouse = tables(tmp_path / "w"), Store(str(tmp_path / "w"))
    assert len(warehouse.parts("slices")) == 4
    chosen = CompactSettings(warehouse=warehouse.url)
    with record_run(warehouse, "compact", chosen) as run:
        assert compact.compact(spark, chosen, run) == []
    assert run.counts["parts_before"] - run.counts["parts_after"] == 3 + 2  # slices, and the rows of runs
    assert len(warehouse.files("slices")) == len(warehouse.files("scans")) == 1
    assert tables(tmp_path / "w") == before
    outcome, _ = run_ingest(spark, source, tmp_path / "w")
    assert (outcome.skipped, outcome.written) == (5, ())
    write_brats(tmp_path / "other", subjects=1, seed=1, shape=(8, 24, 20))
    flair = next((tmp_path / "other").glob("*/*_flair.nii.gz")).read_bytes()
    spoil(source, sorted(source.iterdir())[2].name, "flair", flair)
    outcome, _ = run_ingest(spark, source, tmp_path / "w")
    assert (outcome.skipped, len(outcome.replaced)) == (4, 1)
    run_ingest(spark, source, tmp_path / "once")
    assert tables(tmp_path / "w") == tables(tmp_path / "once")
    opened = segpipe.open_warehouse(warehouse.url)
    query = "select count(*) as n from slices"
    assert opened.spark_sql(query, spark).collect()[0].n == opened.sql(query).fetchall()[0][0] == len(before["slices"])
    settings = VerifySettings(warehouse=warehouse.url, rebuild=True)
    with record_run(warehouse, "verify", settings) as run:
        assert verify(spark, settings, run) == []


def test_spark_is_given_the_parts_that_count_alone(spark, tmp_path):
    """A run that was killed after its commit leaves the older files in place: no answer holds both.

    A DataFrame of before fails where files were moved, and never answers with fewer rows.
    """
    warehouse = fresh(tmp_path / "w")
    query = "select count(*) as n, count(distinct scan_id) as scans from slices"
    opened = segpipe.open_warehouse(warehouse.url)
    before, kept = opened.spark_sql(query, spark).collect(), opened.slices.spark(spark)
    run_compact(warehouse)
    with pytest.raises(Exception, match=r"FILE_NOT_EXIST|does not exist"):  # loudly, as docs/decisions/0003 says
        kept.count()
    assert opened.slices.spark(spark).count() == before[0].n
    for table in ("slices", "scans"):
        for path in (tmp_path / "w" / "_replaced" / table).iterdir():
            path.rename(tmp_path / "w" / table / path.name)
    assert len(warehouse.files("slices")) == 4
    assert segpipe.open_warehouse(warehouse.url).spark_sql(query, spark).collect() == before


def test_parts_that_kill_whoever_merges_them_stay_and_the_others_are_merged(spark, tmp_path, monkeypatch):
    In(compact, "merge_part", compact, "_copy", lambda part, *_: part.tables[0].name == "slices").put(monkeypatch)
    warehouse = fresh(tmp_path / "w")
    chosen = CompactSettings(warehouse=warehouse.url)
    with record_run(None, "compact", chosen) as run:
        problems = compact.compact(spark, chosen, run)
    assert problems == ["scans: Merging killed 2 workers, most likely because memory ran out, so 3 parts stay"]
    assert (len(warehouse.parts("scans")), len(warehouse.parts("segmentations"))) == (3, 1)
