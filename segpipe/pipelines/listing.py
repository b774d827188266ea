"""What a source holds: names are read on the driver, folders and headers of DICOM archives in Spark tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from segpipe.errors import UsageError
from segpipe.pipelines import index
from segpipe.readers import sources
from segpipe.readers.archive import Archive, Entry, Listing
from segpipe.readers.layouts import dicom
from segpipe.readers.naming import KEY_REMEDY, Naming
from segpipe.readers.series import Options
from segpipe.settings import IngestSettings, SegmentSettings
from segpipe.storage import filesystem as files
from segpipe.warehouse.runs import RunRecord

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_FEW = 2000  # files whose headers the driver reads before tasks have started


def is_dicom_archive(settings: IngestSettings | SegmentSettings, naming: Naming) -> bool:
    """Whether the source is a DICOM archive, as its layout or its content says."""
    if settings.layout != "auto" or naming.secret is None:
        return settings.layout == "dicom"
    fs, path = files.filesystem(settings.source or "")
    return bool(fs.isdir(path)) and index.looks_like_dicom(fs, path)


def listing(
    spark: SparkSession, settings: IngestSettings | SegmentSettings, naming: Naming, options: Options, run: RunRecord
) -> Listing:
    """What the source of `settings` holds.

    An archive that is DICOM alone, as its layout or its content says, is listed and read in tasks. Of any other the
    names are looked at together, and the headers of many DICOM files are read in tasks. Raises what
    `sources.find` does, and UsageError for an archive that is DICOM by its content if there is no key.
    """
    source = settings.source or ""
    fs, path = files.filesystem(source)
    if naming.secret is None and settings.layout == "auto" and fs.isdir(path) and index.looks_like_dicom(fs, path):
        message = f"Source {source} is a DICOM archive, and its patients appear in tables as keyed hashes only"
        remedy = f"{KEY_REMEDY}; or give the --layout of its other images"
        raise UsageError(message, remedy)  # before all headers are read to no purpose
    if naming.secret is None or settings.layout not in ("auto", "dicom") or not fs.isdir(path):
        return sources.find(source, settings.layout, naming.secret, naming.every, options)
    job = index.IndexJob(source, settings.warehouse, settings.cohort, naming.secret, options.overrides)
    found: list[index.Indexed] = []

    def gathered() -> index.Indexed:
        if not found:
            found.append(index.gather(spark, job, run.run_id))
            run.count("files_listed", found[0].files)
            run.count("headers_read", found[0].opened)
        return found[0]

    def read(archive: Archive, entries: Sequence[Entry], key: bytes, overrides: Mapping[str, str]) -> dicom.Read:
        if not found and len(entries) < _FEW:
            return dicom.read(archive, entries, key, overrides)
        return index.among(gathered(), entries)

    if is_dicom_archive(settings, naming) and (settings.layout == "dicom" or not gathered().images):
        return index.dicom_listing(job, gathered(), options)
    return sources.find(source, settings.layout, naming.secret, naming.every, options, read)
