"""A manifest: a table with one row per image, for archives whose names tell too little.

Columns: `subject`, `modality` (or `mask`), `path` (relative to the manifest's folder) of a file or of a folder with one
DICOM series; if wanted `session`, `channel` (of a 4D file, from 0) and `label_convention` (a name in
`segpipe.core.regions.CONVENTIONS`). CSV, TSV or Parquet.
"""

import csv
import io
from collections.abc import Mapping
from typing import Any

from segpipe.core.regions import CONVENTIONS
from segpipe.errors import Reason, UsageError
from segpipe.readers.archive import Archive, Claim, Entry, Found, Rejected, gather, is_safe_name, pairs, reject
from segpipe.readers.layouts import dicom
from segpipe.readers.names import MASK, describe, modality

SUFFIXES = (".csv", ".tsv", ".parquet")
_REQUIRED = ("subject", "modality", "path")
_REMEDY = "write columns subject, modality, path and, if wanted, session, channel, label_convention"


def claim(archive: Archive, entries: Mapping[str, Entry], manifest: str) -> Claim:
    """Scans of the rows of `manifest`, a path in the archive. Raises UsageError for a file that is not such a table."""
    rows = _rows(archive.read(manifest), manifest)
    result = Claim(taken=set(entries))
    _, companions, _ = pairs(entries)
    folders = _folders(entries)
    found = []
    for number, row in enumerate(rows, start=2):
        path = _path(row["path"])
        where = f"{manifest} row {number}"
        files = _files(archive, entries, folders, path or "")
        if path is None:
            message = f"{where} has path {row['path']}, which leaves its folder"
            result.rejected.append(
                reject([Entry(row["path"], 0, "")], Reason.UNSAFE_PATH, message, "write it relative")
            )
        elif isinstance(files, Rejected):
            result.rejected.append(files)
        elif not files:
            message = f"{where} names {path}, which does not exist"
            result.rejected.append(reject([Entry(path, 0, "")], Reason.UNREADABLE, message, "correct the path"))
        else:
            found.append(_found(row, files[0], where))
            companions.setdefault(files[0].path, files[1:])
    scans, rejected = gather(found, "manifest", companions)
    result.scans += scans
    result.rejected += rejected
    return result


def _rows(content: bytes, name: str) -> list[dict[str, str]]:
    """All rows as text; missing values are empty."""
    try:
        table: list[dict[str, Any]]
        if name.lower().endswith(".parquet"):
            import pyarrow.parquet as pq

            read = pq.read_table(io.BytesIO(content))
            columns, table = read.column_names, read.to_pylist()
        else:
            delimiter = "\t" if name.lower().endswith(".tsv") else ","
            reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=delimiter)
            table = list(reader)
            columns = list(reader.fieldnames or ())
    except (ValueError, OSError, csv.Error) as error:
        raise UsageError(f"Manifest {name} is not a readable table ({type(error).__name__})", _REMEDY) from error
    missing = [column for column in _REQUIRED if column not in columns]
    if missing:
        raise UsageError(f"Manifest {name} lacks the columns {', '.join(missing)}", _REMEDY)
    rows = [{str(k): "" if v is None else str(v).strip() for k, v in row.items()} for row in table]
    for number, row in enumerate(rows, start=2):
        empty = [column for column in _REQUIRED if not row[column]]
        if empty:
            raise UsageError(f"Manifest {name} row {number} has no {', '.join(empty)}", "fill it in")
    return rows


def _path(text: str) -> str | None:
    """The path in normal form; None if it is absolute, a URL, or leads out of the folder."""
    parts = [part for part in text.split("/") if part != "."]
    return "/".join(parts) if parts and all(map(is_safe_name, parts)) and "://" not in text else None


def _folders(entries: Mapping[str, Entry]) -> dict[str, list[Entry]]:
    """All files below each folder."""
    below: dict[str, list[Entry]] = {}
    for entry in entries.values():
        folder = entry.folder
        while folder:
            below.setdefault(folder, []).append(entry)
            folder = folder.rpartition("/")[0]
    return below


def _files(
    archive: Archive, entries: Mapping[str, Entry], folders: Mapping[str, list[Entry]], path: str
) -> tuple[Entry, ...] | Rejected:
    """The file of a row, or those of the series in its folder; none where there is neither."""
    if path in entries:
        return (entries[path],)
    return dicom.one_series(archive, folders[path], path) if path in folders else ()


def _found(row: Mapping[str, str], entry: Entry, where: str) -> Found:
    named = describe(row["modality"]).role
    role = MASK if named == MASK else (modality(row["modality"]) or row["modality"])
    convention = row.get("label_convention") or None
    if convention is not None and convention not in CONVENTIONS:
        raise UsageError(f"{where} has label_convention {convention!r}", f"choose one of {', '.join(CONVENTIONS)}")
    channel = row.get("channel") or "0"
    if not channel.isdecimal():
        raise UsageError(f"{where} has channel {channel!r}", "write the number of a frame, from 0")
    session = row.get("session") or "1"
    return Found("manifest", row["subject"], session, role, entry, int(channel), convention)
