"""The table `quarantine` as the jobs use it: what they reject, and what earlier runs have rejected."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa

from segpipe.errors import Reason
from segpipe.storage.lock import Fence
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import QUARANTINE


def row(
    job: str,
    run_id: str,
    cohort: str,
    scan_id: str | None,
    paths: Sequence[str],
    reason: Reason,
    message: str,
    fingerprint: str,
) -> dict[str, Any]:
    """A row for an input that `job` rejects now; an equal `fingerprint` later means that it is as bad again."""
    return {
        "run_id": run_id,
        "job": job,
        "cohort": cohort,
        "scan_id": scan_id,
        "paths": list(paths),
        "reason": str(reason),
        "message": message,
        "fingerprint": fingerprint,
        "time": datetime.now(timezone.utc),
    }


def write(warehouse: Store, fence: Fence, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Commit rows as a part of this name; none where there are no rows."""
    if rows:
        with PartWriter(warehouse, (QUARANTINE,), name, fence.run_id, fence) as part:
            part.write(QUARANTINE.name, pa.Table.from_pylist(list(rows), QUARANTINE.schema))


def reported(warehouse: Store, job: str, cohort: str) -> list[tuple[str, str]]:
    """Fingerprint and reason of every row that `job` has written for a cohort."""
    rows = warehouse.rows(QUARANTINE, ["fingerprint", "reason", "job"], cohort).to_pylist()
    return [(one["fingerprint"], one["reason"]) for one in rows if one["job"] == job]
