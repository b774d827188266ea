"""Which subject key a cohort's names were hashed with, so that another one is refused: it would double every patient.

One small file per cohort, below `_keys` in the warehouse, holds a check value of the key and whether all names are
hashed. The key itself is nowhere.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from segpipe.errors import TableError, UsageError
from segpipe.readers.archive import Listing
from segpipe.readers.naming import Naming
from segpipe.storage import filesystem as files
from segpipe.warehouse.store import Store, cohort_slug

FOLDER = "_keys"


@dataclass(frozen=True)
class KeyRecord:
    """What a cohort remembers of its key."""

    check_value: str
    hash_subjects: bool


def check(
    warehouse: Store, cohort: str, naming: Naming, listing: Listing, known_scans: Iterable[Mapping[str, str]]
) -> None:
    """Compare the key with the one that the cohort was made with, and remember it where there was none.

    `known_scans` are the scans that the cohort has, with their `layout`. Raises UsageError for another key, and where
    names are to be hashed that were not so far, or the other way round.
    """
    known = _read(warehouse, cohort)
    named = any(scan.layout != "dicom" for scan in listing.scans)
    if named and any(scan["layout"] != "dicom" for scan in known_scans):
        _check_names(cohort, hashed=known is not None and known.hash_subjects, asked=naming.every)
    is_dicom = any(scan.is_dicom for scan in listing.scans) or any(one.is_dicom for one in listing.rejected)
    is_dicom = is_dicom or bool(listing.series)
    if naming.key is None or not (naming.every or is_dicom):
        return
    record = KeyRecord(naming.key.check_value(cohort), naming.every)
    if known is None:
        known = _remember(warehouse, cohort, record)
    if known.check_value != record.check_value:
        raise UsageError(
            f"Cohort {cohort} was made with another subject key (its check value is {known.check_value}, this key's"
            f" {record.check_value}): every patient would be there twice, under two names",
            "give the key that it was made with, or ingest into another cohort",
        )
    if named and known != record:  # so far it held DICOM alone
        files.replace(warehouse.fs, _path(warehouse, cohort), _content(record))


def _check_names(cohort: str, hashed: bool, asked: bool) -> None:
    if hashed != asked:
        told = "with --hash-subjects" if hashed else "without --hash-subjects"
        raise UsageError(
            f"Cohort {cohort} was made {told}: every subject would be there twice, under two names",
            f"ingest it {told}, or into another cohort",
        )


def _remember(warehouse: Store, cohort: str, record: KeyRecord) -> KeyRecord:
    """The cohort's record, which is now this one unless another job was faster."""
    files.make_folder(warehouse.fs, warehouse.path(FOLDER))
    with contextlib.suppress(FileExistsError):
        files.exclusive_create(warehouse.fs, _path(warehouse, cohort), _content(record))
    return _read(warehouse, cohort) or record


def _content(record: KeyRecord) -> bytes:
    return json.dumps(asdict(record)).encode()


def _read(warehouse: Store, cohort: str) -> KeyRecord | None:
    try:
        content = warehouse.fs.cat_file(_path(warehouse, cohort))
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        content = b""
    except NotADirectoryError:
        files.make_folder(warehouse.fs, warehouse.path(FOLDER))  # which says what is in its place
        raise
    try:
        found = json.loads(content)
        return KeyRecord(str(found["check_value"]), bool(found["hash_subjects"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise TableError(
            f"{_path(warehouse, cohort)} is damaged", "put it back from a copy; without it, a wrong key is not noticed"
        ) from None


def _path(warehouse: Store, cohort: str) -> str:
    return warehouse.path(FOLDER, f"{cohort_slug(cohort)}.json")
