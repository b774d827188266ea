"""A file where a folder of the warehouse is to be is named, with what to do, by whoever needs the folder."""

import re
from pathlib import Path

import pytest

from segpipe.errors import StorageError
from segpipe.pipelines import cohort_key
from segpipe.readers.archive import Listing, ScanSource
from segpipe.readers.naming import Naming, SubjectKey
from segpipe.storage.lock import live_runs, lock
from segpipe.warehouse import merges
from segpipe.warehouse.merges import Record
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store
from tests.warehouse.examples import write_part


@pytest.fixture
def warehouse(tmp_path) -> Store:
    (tmp_path / "w").mkdir()
    made = Store(str(tmp_path / "w"))
    write_part(made, "c.0", ["anna"])
    return made


def write(warehouse: Store) -> None:
    write_part(warehouse, "c.1", ["bert"], run_id="r2")


def take_lock(warehouse: Store) -> None:
    with lock(warehouse.url, "c", 0, "r2"):
        pass


def merge(warehouse: Store) -> None:
    merges.announce(warehouse, Record("r2", ("slices", "scans"), {"c.1": ["c.0"]}))
    write(warehouse)
    merges.finish(warehouse, "r2")


def know_a_key(warehouse: Store) -> None:
    listing = Listing([ScanSource("s", "1", (), "dicom")], [])
    cohort_key.check(warehouse, "c", Naming(SubjectKey(b"k" * 16)), listing, [])


def record_a_run(warehouse: Store) -> None:
    with record_run(warehouse, "test", {}):
        pass


def list_parts(warehouse: Store) -> None:
    warehouse.parts("slices")


NEEDS = [
    ("_staging", write),
    ("_staging", Store.recover),
    ("_merges", Store.recover),
    ("_merges", merge),
    ("_replaced", merge),
    ("_replaced/scans", merge),
    ("_locks", live_runs),
    ("_locks", take_lock),
    ("_locks/c", take_lock),
    ("_keys", know_a_key),
    ("runs", record_a_run),
    ("slices", write),
    ("scans", list_parts),
]


@pytest.mark.parametrize("kind", ["a file", "a broken link"])
@pytest.mark.parametrize(("name", "need"), NEEDS, ids=lambda value: getattr(value, "__name__", value))
def test_what_is_in_the_way_is_named(warehouse, tmp_path, name, need, kind):
    place = Path(warehouse.path(name))
    place.rename(tmp_path / "aside") if place.exists() else place.parent.mkdir(exist_ok=True)
    place.write_text("notes") if kind == "a file" else place.symlink_to("nothing")
    with pytest.raises(StorageError, match=rf"^{re.escape(str(place))} is {kind}, .*: (move|mount) .* again$"):
        need(warehouse.url if need is live_runs else warehouse)


def test_hidden_files_of_a_file_manager_are_left_alone(warehouse):
    for folder in ("_staging", "_merges", "_locks", "_replaced", "scans"):
        place = Path(warehouse.path(folder, ".DS_Store"))
        place.parent.mkdir(exist_ok=True)
        place.touch()
    merge(warehouse)
    take_lock(warehouse)
    warehouse.recover()
    assert warehouse.parts("scans") == ["c.1"]
    assert len(list(Path(warehouse.path()).rglob(".DS_Store"))) == 5
