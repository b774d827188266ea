"""Who may read what is written: as the umask and the setting say."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from segpipe.errors import UsageError
from segpipe.storage import modes
from segpipe.storage.lock import lock
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store
from tests.warehouse.examples import write_part


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


def written(folder: Path) -> set[tuple[bool, int]]:
    """Whether each thing that a job leaves is a folder, and its mode."""
    with record_run(Store(str(folder)), "ingest", {"cohort": "c"}), lock(str(folder), "slices-c", 0, "r1"):
        write_part(Store(str(folder)), "p", ["anna"])
    found = [folder, *folder.rglob("*")]
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in found}


@pytest.mark.parametrize(
    ("umask", "folders", "files"), [("027", 0o750, 0o640), ("077", 0o700, 0o600), ("0022", 0o755, 0o644)]
)
def test_tables_are_as_the_setting_says(tmp_path, monkeypatch, umask, folders, files):
    os.umask(0o002)
    monkeypatch.setenv(modes.VARIABLE, umask)
    modes.follow_setting()
    assert written(tmp_path / "w") == {(True, folders), (False, files)}
    assert (modes.folder_mode(), modes.file_mode()) == (folders, files)  # what HDFS is told


def test_without_the_setting_the_umask_of_the_process_counts(tmp_path, monkeypatch):
    monkeypatch.delenv(modes.VARIABLE, raising=False)
    os.umask(0o037)
    modes.follow_setting()
    assert written(tmp_path / "w") == {(True, 0o740), (False, 0o640)}


@pytest.mark.parametrize("value", ["rw-r-----", "9", "27", "777", "0o27", "-027"])
def test_what_is_no_umask_is_refused(monkeypatch, value):
    monkeypatch.setenv(modes.VARIABLE, value)
    with pytest.raises(UsageError, match="three octal digits"):
        modes.follow_setting()
