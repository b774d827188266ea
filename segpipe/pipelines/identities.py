"""Names that were read otherwise before: a patient whose scans would stand in the tables under two subjects.

Patients and visits are told by all names of an archive together, so that a new file can change how an old one is read:
`A07_1` alone is a patient, beside `A07_2` it is a visit. The old rows keep their subject, and its split; the same
patient under a new subject could come into another split. So it is with a DICOM series whose PatientID was changed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segpipe.errors import Reason
from segpipe.pipelines import series_rows
from segpipe.pipelines.ingest_task import IngestJob
from segpipe.readers.archive import Rejected, ScanSource, reject_scan
from segpipe.readers.series import Judged
from segpipe.warehouse.store import Store

_REMEDY = "give all its files the subject of those rows in a manifest, or ingest the archive into another cohort"
_Version = tuple[str, int, str]


def renamed(
    warehouse: Store,
    job: IngestJob,
    new: Sequence[ScanSource],
    vanished: Collection[str],
    series: Sequence[Judged] = (),
) -> tuple[list[ScanSource], list[Rejected]]:
    """Scans of `new` that may be written, and those of patients who are in the tables under another name.

    `vanished` are the scan_ids of rows that the source no longer gives. A patient is known again by a file of such a
    row: the same path, size and version; or by one of the DICOM `series` of the source that is in such a row.
    """
    if not new or not vanished:
        return list(new), []
    before = _files_of(warehouse, job.settings.cohort, vanished)
    other = _other_people(warehouse, job.settings.cohort, new, vanished, series)
    for source in new:
        for version in _versions(source, job):
            if version in before:
                other.setdefault(source.subject, before[version])
    rejected = [
        reject_scan(
            source,
            Reason.DUPLICATE,
            f"Subject {source.subject} has files of scan {other[source.subject]}, which an earlier ingest read as"
            " another subject or session",
            _REMEDY,
        )
        for source in new
        if source.subject in other
    ]
    return [source for source in new if source.subject not in other], rejected


def _other_people(
    warehouse: Store, cohort: str, new: Sequence[ScanSource], vanished: Collection[str], series: Sequence[Judged]
) -> dict[str, str]:
    """The subjects of `new` who have a series of a vanished scan of another subject, and that scan."""
    wanted = {source.identity for source in new if source.is_dicom} if series else set()
    before = series_rows.selected(warehouse, cohort) if wanted else {}
    found: dict[str, str] = {}
    for one in series:
        subject, session, _ = before.get(one.facts.series, ("", "", ""))
        scan_id = f"{cohort}:{subject}:{session}"
        if (
            subject not in ("", one.facts.subject)
            and scan_id in vanished
            and (one.facts.subject, one.session) in wanted
        ):
            found.setdefault(one.facts.subject, scan_id)
    return found


def _files_of(warehouse: Store, cohort: str, scan_ids: Collection[str]) -> dict[_Version, str]:
    rows = warehouse.scans(cohort, ["scan_id", "files"])
    rows = rows.filter(pc.is_in(rows["scan_id"], pa.array(list(scan_ids), pa.string())))
    files: list[dict[str, Any]] = rows.to_pylist()
    return {(file["path"], file["bytes"], file["modified"]): row["scan_id"] for row in files for file in row["files"]}


def _versions(source: ScanSource, job: IngestJob) -> list[_Version]:
    """The files of a scan as `scans` tells them; a DICOM series is known by its id instead."""
    if source.layout == "dicom":
        return []
    paths = job.naming.paths([file.path for file in source.files], False)
    return [(path, file.bytes, file.modified) for path, file in zip(paths, source.files, strict=True)]
