"""Places that a job is given, judged in an instant: before a JVM is started, and without making anything."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from segpipe.errors import MissingPackage, NotFound, SegpipeError, UsageError

_WAREHOUSE = "give the folder that ingest wrote to"


def check_source(url: str) -> None:
    """Raise NotFound if there is no archive."""
    if not _exists(url):
        raise NotFound(f"Source {url} does not exist", "check the path and the rights to read it")


def check_apart(source: str, warehouse: str) -> None:
    """Raise UsageError if the tables would be written into the very folder that the scans are read from."""
    from segpipe.storage.filesystem import filesystem

    (one, scans), (other, tables) = filesystem(source), filesystem(warehouse)
    if type(one) is type(other) and scans == tables:
        raise UsageError(f"--warehouse {warehouse} is the --source itself", "give the tables a folder of their own")


def check_warehouse(url: str, make: bool = False) -> None:
    """Raise NotFound if a warehouse is missing, unless it may be made, and SegpipeError where it cannot be written.

    A folder that holds other things is no warehouse either, such as the one above it.

    Only places on a local disk can be judged before something is written.
    """
    from segpipe.warehouse.store import Store

    if not make and not _exists(url):
        raise NotFound(f"Warehouse {url} does not exist", _WAREHOUSE)
    _check_writable(url, "Warehouse", "--warehouse")
    if not make and Store(url).is_another_folder():
        raise NotFound(f"{url} is not a warehouse: it has no table", _WAREHOUSE)


def check_output(url: str, flag: str) -> None:
    """Raise SegpipeError where a folder for results cannot be written, before hours of work are done for it.

    Only places on a local disk can be judged before something is written.
    """
    _check_writable(url, "Folder", flag)


def check_file(url: str, what: str) -> None:
    """Raise NotFound if a file is missing or a folder; `what` it is called."""
    from segpipe.storage.filesystem import filesystem

    if not _exists(url):
        raise NotFound(f"{what} {url} does not exist", "check the path and the rights to read it")
    fs, path = filesystem(url)
    if fs.isdir(path):
        raise NotFound(f"{what} {url} is a folder", "give the path of the file in it")


def check_model(url: str, expected: str | None = None) -> None:
    """Raise ModelError if there is no model directory, one that is not whole, or one of another seal."""
    from segpipe.models.bundle import Bundle

    Bundle.load(url, expected)


def _nearest_that_exists(folder: Path) -> Path:
    while not os.path.lexists(folder):
        folder = folder.parent
    return folder


def _check_writable(url: str, what: str, flag: str) -> None:
    from segpipe.storage.filesystem import filesystem, is_local

    fs, path = filesystem(url)
    if not is_local(fs):
        return
    folder, remedy = _nearest_that_exists(Path(path)), f"give {flag} a folder that you may write to"
    if not folder.is_dir():
        raise SegpipeError(f"{what} {url} cannot be made because {folder} is not a folder", remedy)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        reason = f"{folder} takes no files ({error.strerror})"
        raise SegpipeError(f"{what} {url} cannot be written because {reason}", remedy) from None


def _exists(url: str) -> bool:
    from segpipe.storage import PLACES
    from segpipe.storage.filesystem import filesystem

    fs, path = filesystem(url)
    try:
        return bool(fs.exists(path))
    except MissingPackage:
        raise
    except (ImportError, ValueError) as error:  # a name that no file can have
        raise UsageError(f"{url} cannot be opened ({error})", PLACES) from None
