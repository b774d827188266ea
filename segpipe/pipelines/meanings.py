"""What the labels of an archive's masks mean, settled over the whole archive before any scan is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segpipe.errors import BadInput, NotFound
from segpipe.pipelines import attempts
from segpipe.pipelines.ingest_task import IngestJob
from segpipe.readers import labels
from segpipe.readers import scan as scan_reader
from segpipe.readers.names import MASK
from segpipe.readers.sources import Listing, ScanSource
from segpipe.storage import filesystem as files
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_COLUMNS = ("scan_id", "fingerprint", "label_convention", "label_counts")


def with_conventions(spark: SparkSession, warehouse: Store, job: IngestJob, listing: Listing) -> Listing:
    """The listing with a label convention for every scan that has a mask.

    The user's comes before the data set's; where neither says it, all masks do: of those in the tables their counts
    are known, the others are read in Spark tasks. Raises UsageError for an unknown convention.
    """
    wanted = job.settings.label_convention
    if wanted is not None:
        return as_user_says(listing, wanted)
    pending = [scan for scan in listing.scans if scan.label_convention is None and scan.files[-1].role == MASK]
    if not pending:
        return listing
    found = _in_tables(warehouse, job, pending)
    unread = [scan for scan in pending if scan.identity not in found]
    return replace(listing, scans=labels.with_shared_convention(listing.scans, found | _read(spark, job, unread)))


def as_user_says(listing: Listing, wanted: str) -> Listing:
    """The listing with the label convention that the user names. Raises UsageError or NotFound if it is unknown."""
    return replace(listing, scans=labels.with_convention(listing.scans, user_convention(wanted)))


def user_convention(wanted: str) -> str:
    """The name of the convention that a user names. Raises UsageError, and NotFound for a file that is not there."""
    return labels.from_user(wanted, _content(wanted))


def _content(wanted: str) -> bytes | None:
    """The bytes of a convention's file; None if it is a name."""
    if not wanted.lower().endswith(".toml"):
        return None
    fs, path = files.filesystem(wanted)
    if not fs.exists(path):
        raise NotFound(f"Label convention {wanted} does not exist", "check the path and the rights to read it")
    return bytes(fs.cat_file(path))


def _in_tables(
    warehouse: Store, job: IngestJob, pending: Sequence[ScanSource]
) -> dict[tuple[str, str], frozenset[int]]:
    """The labels of masks that have not changed since they were written."""
    if not warehouse.parts(SCANS.name):
        return {}
    try:
        rows = warehouse.scans(job.settings.cohort, _COLUMNS).to_pylist()
    except NotFound:
        return {}
    known = {row["scan_id"]: row for row in rows if row["label_counts"] is not None}
    return {
        scan.identity: found for scan in pending if (found := _of(known.get(job.scan_id(scan)), job, scan)) is not None
    }


def _of(row: Mapping[str, Any] | None, job: IngestJob, scan: ScanSource) -> frozenset[int] | None:
    if row is None or row["fingerprint"] != job.fingerprint(replace(scan, label_convention=row["label_convention"])):
        return None
    return frozenset(entry["label"] for entry in row["label_counts"])


def _read(spark: SparkSession, job: IngestJob, scans: Sequence[ScanSource]) -> dict[tuple[str, str], frozenset[int]]:
    """The labels of masks, read where the cores are; none of those that cannot be read, as the run will tell."""
    if not scans:
        return {}
    source, most = job.settings.source, job.settings.max_voxels

    def read(scan: ScanSource, watch: attempts.Watch) -> tuple[tuple[str, str], frozenset[int] | None]:
        try:
            watch.enter(job.scan_id(scan))
        except BadInput:
            return scan.identity, None
        return scan.identity, scan_reader.mask_labels(source, scan, most)

    answers = attempts.each(spark, Store(job.settings.warehouse), job.run_id, scans, read)
    return {identity: found for identity, found in answers if found is not None}
