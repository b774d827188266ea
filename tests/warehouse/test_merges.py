"""What counts while parts are replaced, and what is left to later jobs, where several runs are at work at once."""

import errno
import itertools
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from segpipe.errors import TableError
from segpipe.pipelines import verify
from segpipe.warehouse import merges, store
from segpipe.warehouse.merges import Record
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS, SLICES
from tests.warehouse.examples import scan_row, write_part

TABLES = ("slices", "scans")
LONG_AGO = time.time() - 2 * merges.KEEP_SECONDS


@pytest.fixture
def warehouse(tmp_path) -> Store:
    folder = tmp_path / "w"
    folder.mkdir()
    found = Store(str(folder))
    for number in range(2):
        write_part(found, f"c.{number}", [f"anna{number}"])
    return found


def replaced(warehouse: Store, old: str, new: str, run_id: str) -> Record:
    """A part whose record is there and whose predecessor is still in its place, as a kill leaves it."""
    record = Record(run_id, TABLES, {new: [old]})
    merges.announce(warehouse, record)
    write_part(warehouse, new, [f"anna{old[-1]}"], run_id)
    return record


def aside(warehouse: Store) -> list[str]:
    return sorted(path.stem for path in Path(warehouse.path("_replaced", "slices")).glob("*"))


def test_on_a_file_system_of_python_a_table_that_was_opened_before_is_read_after():
    warehouse = Store(f"memory://{uuid.uuid4().hex}")
    for number in range(2):
        write_part(warehouse, f"c.{number}", [f"anna{number}"])
    rows, opened = warehouse.table("scans").to_table(), warehouse.table("scans")
    merges.move_aside(warehouse, TABLES, ["c.0"])
    assert opened.to_table().equals(rows)
    assert opened.count_rows() == opened.head(10).num_rows == 2
    warehouse.fs.rm(warehouse.path("_replaced"), recursive=True)
    for ask in (opened.to_table, opened.count_rows, lambda: opened.head(10)):
        with pytest.raises(FileNotFoundError, match=r"c\.0\.parquet"):
            ask()


def test_recovery_leaves_alone_what_began_after_it_had_looked(warehouse, monkeypatch):
    replaced(warehouse, "c.0", "n.0", "dead")
    late = PartWriter(warehouse, (SLICES, SCANS), "n.1", "late")
    asked = store.live_runs

    def then_another_run_begins(url: str) -> set[str]:
        live = asked(url)
        merges.announce(warehouse, Record("late", TABLES, {"n.1": ["c.1"]}))
        late.__enter__()
        return live

    monkeypatch.setattr(store, "live_runs", then_another_run_begins)
    warehouse.recover()
    late.write("scans", pa.Table.from_pylist([scan_row("anna1")], SCANS.schema))
    late.__exit__(None, None, None)
    assert {record.run_id: record.retired is None for record in merges.records(warehouse)} == {
        "dead": False,
        "late": True,
    }
    assert warehouse.parts("scans") == ["n.0", "n.1"]


def test_a_record_is_not_retired_while_its_part_is_half_done(warehouse):
    merges.announce(warehouse, Record("dead", TABLES, {"n.0": ["c.0"]}))
    with PartWriter(warehouse, (SLICES, SCANS), "n.0", "dead") as part:
        part.write("scans", pa.Table.from_pylist([scan_row("anna0")], SCANS.schema))
        merges.tidy(warehouse, (), [record.name for record in merges.records(warehouse)])
    assert warehouse.parts("scans") == ["c.1", "n.0"]


def test_a_record_stays_as_long_as_a_part_that_it_hides(warehouse):
    record = replaced(warehouse, "c.0", "n.0", "dead")
    merges.announce(warehouse, replace(record, retired=LONG_AGO))
    warehouse.recover()
    (kept,) = merges.records(warehouse)
    assert kept.retired > time.time() - 60
    assert aside(warehouse) == ["c.0"]
    merges.announce(warehouse, replace(record, retired=LONG_AGO))
    warehouse.recover()
    assert (merges.records(warehouse), aside(warehouse)) == ([], [])
    assert warehouse.parts("scans") == ["c.1", "n.0"]


def test_a_part_that_never_came_into_being_deletes_nothing(warehouse):
    never = Record("first", TABLES, {"x.0": ["c.0"], "n.1": ["c.1"]}, keep_seconds=0.0)
    merges.announce(warehouse, never)
    merges.announce(warehouse, Record("other", TABLES, {"x.1": ["c.1"]}))
    write_part(warehouse, "n.1", ["anna1"])
    replaced(warehouse, "c.0", "n.0", "second")
    for run_id in ("second", "first", "other"):
        merges.finish(warehouse, run_id)
    warehouse.recover()
    assert aside(warehouse) == ["c.0"]
    assert [record.run_id for record in merges.records(warehouse)] == ["second"]


def test_a_part_that_was_replaced_itself_has_come_into_being(warehouse):
    replaced(warehouse, "c.0", "n.0", "first")
    replaced(warehouse, "n.0", "m.0", "second")
    merges.move_aside(warehouse, TABLES, ["n.0"])
    warehouse.recover()
    assert aside(warehouse) == ["c.0", "n.0"]
    assert len(merges.records(warehouse)) == 2


def test_on_a_full_disk_what_makes_room_comes_first(warehouse, monkeypatch):
    old = replaced(warehouse, "c.0", "n.0", "z")
    merges.finish(warehouse, "z")
    merges.announce(warehouse, replace(old, retired=LONG_AGO))
    replaced(warehouse, "c.1", "n.1", "a")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(merges, "announce", full)
    warehouse.recover()
    assert aside(warehouse) == ["c.1"]
    assert [record.run_id for record in merges.records(warehouse)] == ["a"]
    assert warehouse.parts("scans") == ["n.0", "n.1"]


def test_other_files_of_a_run_are_no_parts(warehouse):
    """The digests in their names begin with a digit by chance."""
    root = Path(warehouse.path())
    for folder in ("ways", "c.0.at", "c.0.at/deeper", "c.9-0123456789ab"):
        for name in ("1f0c9a.parquet", "12-a.parquet", "3.json"):
            path = root / "_staging" / "dead" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    before = {path for path in root.rglob("*") if "_staging" not in path.parts}
    warehouse.recover()
    assert {path for path in root.rglob("*") if "_staging" not in path.parts} == before
    assert not (root / "_staging" / "dead").exists()


def listings(monkeypatch, *first: list[str]) -> list[str]:
    """Let the first listings of `scans` tell this, as one does that runs while files are renamed; what was listed."""
    answers, told, asked = iter(first), [], Store.files

    def files(warehouse: Store, table: str) -> list[str]:
        told.append(table)
        return next(answers, None) or asked(warehouse, table)

    monkeypatch.setattr(Store, "files", files)
    return told


def test_a_listing_that_met_neither_the_older_part_nor_the_new_one_is_not_believed(warehouse, monkeypatch):
    replaced(warehouse, "c.0", "n.0", "r")
    listings(monkeypatch, ["c.1"])
    assert warehouse.parts("scans") == ["c.1", "n.0"]
    listings(monkeypatch, ["c.1"])
    assert verify._files(warehouse, "scans") == ["c.1", "n.0"]


def test_parts_that_are_added_or_moved_aside_cost_one_more_listing_and_no_third(warehouse, monkeypatch):
    replaced(warehouse, "c.0", "n.0", "r")
    told = listings(monkeypatch, ["c.0", "n.0"], ["c.1", "n.0"])
    assert warehouse.parts("scans") == ["n.0"]
    assert told == ["scans", "scans"]


def test_a_table_that_changes_all_the_time_is_told(warehouse, monkeypatch):
    numbers = itertools.count()
    monkeypatch.setattr(Store, "files", lambda *_: [f"c.{next(numbers)}"])
    with pytest.raises(TableError, match="changes all the time"):
        warehouse.parts("scans")
