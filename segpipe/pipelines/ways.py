"""What a prepared scan's masks need to go back to its series, kept from its segmentation until they are written.

A scan of an archive whose slices are not stored would else be prepared once more for it. What is kept is its row of
`scans`, below the run's staging folder, which the run removes when it ends; where it is missing, as after a kill, the
scan is read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from segpipe.storage import filesystem as files
from segpipe.warehouse import checked, parts
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS

_FOLDER = "ways"


def keep(warehouse: Store, run_id: str, row: Mapping[str, Any]) -> None:
    """Keep the row of `scans` of a scan for this run."""
    content = pa.BufferOutputStream()
    with parts.open_writer(content, SCANS, {}) as writer:
        writer.write_table(pa.Table.from_pylist([dict(row)], SCANS.schema))
    files.make_folder(warehouse.fs, warehouse.path(parts.STAGING, run_id, _FOLDER))
    files.replace(warehouse.fs, _path(warehouse, run_id, row["scan_id"]), content.getvalue().to_pybytes())


def kept(warehouse: Store, run_id: str, scan_id: str) -> dict[str, Any] | None:
    """The row of a scan that this run has kept; None if it has not."""
    try:
        with checked.open_part(warehouse.fs, _path(warehouse, run_id, scan_id)) as part:
            return dict(part.read().to_pylist()[0])
    except FileNotFoundError:
        return None


def _path(warehouse: Store, run_id: str, scan_id: str) -> str:
    name = hashlib.sha256(scan_id.encode()).hexdigest()[:32]
    return warehouse.path(parts.STAGING, run_id, _FOLDER, f"{name}.parquet")
