"""The table `quarantine` as the jobs use it: what they reject, and what earlier runs have rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from typing import Any

import pyarrow as pa

from segpipe.errors import Reason
from segpipe.readers import scan as scan_reader
from segpipe.readers.archive import Rejected, ScanSource, packed_file
from segpipe.readers.dicom_index import Series
from segpipe.storage.lock import Fence
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import QUARANTINE

_SHOWN = 3
_PIXELS = {
    str(reason)
    for reason in (
        *(Reason.TRUNCATED, Reason.CORRUPT, Reason.UNSUPPORTED, Reason.NOT_FINITE, Reason.BAD_GEOMETRY),
        *(Reason.UNPREPARABLE, Reason.NO_BRAIN, Reason.BAD_PREPARATION),
    )
}
"""Reasons that lie in a series alone: another series of its modality may do in its place."""


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


def told(warehouse: Store, cohort: str, run_id: str, known_bad: int) -> list[str]:
    """What the summary of a run says of its rows: how many of each reason, the first messages, and where the rest is.

    `known_bad` inputs were rejected by earlier runs and have not changed.
    """
    rows = warehouse.rows(QUARANTINE, ["reason", "message", "run_id"], cohort).to_pylist()
    mine = [one for one in rows if one["run_id"] == run_id]
    lines = []
    if mine:
        counts = sorted(Counter(one["reason"] for one in mine).items())
        lines.append("quarantine: " + ", ".join(f"{number} {reason}" for reason, number in counts))
        lines += [f"  {one['reason']}: {one['message']}" for one in mine[:_SHOWN]]
    if known_bad:
        lines.append(f"known bad {known_bad}: rejected by earlier runs, and not changed since")
    if mine or known_bad:
        lines.append(f"table `quarantine` says why, where cohort is {cohort}; what is mended is taken by the next run")
    return lines


def reported(warehouse: Store, job: str, cohort: str) -> list[tuple[str, str]]:
    """Fingerprint and reason of every row that `job` has written for a cohort."""
    rows = warehouse.rows(QUARANTINE, ["fingerprint", "reason", "job"], cohort).to_pylist()
    return [(one["fingerprint"], one["reason"]) for one in rows if one["job"] == job]


def unusable(
    warehouse: Store, cohort: str, fingerprints: Mapping[str, Callable[[Rejected], str]]
) -> Callable[[Series], bool]:
    """Whether an earlier run has rejected the pixels of a DICOM series as it lies there now.

    `fingerprints` gives, by job, the fingerprint under which that job rejects an input.
    """

    @cache  # read if a series is asked about; an archive without DICOM asks about none
    def bad() -> frozenset[tuple[str, str]]:
        rows = [(job, *one) for job in fingerprints for one in reported(warehouse, job, cohort)]
        return frozenset((job, fingerprint) for job, fingerprint, reason in rows if reason in _PIXELS)

    def is_bad(series: Series) -> bool:
        files = scan_reader.fingerprints(ScanSource("", "", (packed_file("", series.entries()),), "dicom"))
        return any((job, of(one)) in bad() for one in files for job, of in fingerprints.items())

    return lambda series: warehouse.exists() and bool(bad()) and is_bad(series)
