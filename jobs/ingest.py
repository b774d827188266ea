"""Read an archive of scans into the tables `scans` and `slices`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from segpipe.cli import DONE, QUARANTINED, Context, check_apart, check_source, check_warehouse, execute
from segpipe.errors import UsageError
from segpipe.settings import IngestSettings


def run(settings: IngestSettings, context: Context) -> int:
    """Bring the archive into the tables; QUARANTINED when inputs were rejected and `strict` is set."""
    if settings.plan and not _is_dicom_archive(settings):
        return _print_plan(settings)
    from segpipe.pipelines.ingest import ingest
    from segpipe.readers.naming import key_notes

    with context.recorded("ingest", settings.warehouse, settings) as record:
        outcome = ingest(context.spark, settings, record, context.progress)
        record.lines += key_notes(settings.subject_key_file)
    return QUARANTINED if settings.strict and outcome.rejected else DONE


def _is_dicom_archive(settings: IngestSettings) -> bool:
    from segpipe.pipelines.listing import is_dicom_archive
    from segpipe.readers.naming import naming_of

    return is_dicom_archive(settings, naming_of(settings.subject_key_file, settings.hash_subjects))


def _print_plan(settings: IngestSettings) -> int:
    from segpipe.pipelines import series_rows
    from segpipe.pipelines.ingest import check_reference
    from segpipe.pipelines.meanings import as_user_says
    from segpipe.readers import sources
    from segpipe.readers.naming import naming_of
    from segpipe.readers.plan import lines
    from segpipe.warehouse.store import Store

    naming = naming_of(settings.subject_key_file, settings.hash_subjects)
    warehouse = Store(settings.warehouse) if settings.warehouse and settings.cohort else None
    wanted = series_rows.options(settings, warehouse, settings.cohort)
    listing = sources.find(settings.source, settings.layout, naming.secret, naming.every, wanted)
    check_reference(listing, settings.resample_to)
    if settings.label_convention is not None:
        listing = as_user_says(listing, settings.label_convention)
    print("\n".join(lines(listing, naming)))
    return QUARANTINED if settings.strict and listing.rejected else DONE


def check(settings: IngestSettings) -> None:
    """Refuse a source that is not there, a warehouse that cannot be written, a subject key that can be guessed,
    an unknown label convention, and --prepare without the packages that it needs.
    """
    from segpipe.readers.naming import naming_of

    check_source(settings.source)
    if not settings.plan or _is_dicom_archive(settings):
        if missing := [f"--{name}" for name in ("warehouse", "cohort") if not getattr(settings, name)]:
            problem = f"missing {', '.join(missing)}, because the plan of a DICOM archive is its table `series`"
            raise UsageError(problem, "name a warehouse and a cohort")
        check_apart(settings.source, settings.warehouse)
        check_warehouse(settings.warehouse, make=True)
    naming_of(settings.subject_key_file, settings.hash_subjects)
    if settings.label_convention is not None:
        from segpipe.pipelines.meanings import user_convention

        user_convention(settings.label_convention)
    if settings.prepare and not settings.plan:
        from segpipe.prepare.scan import check_installed

        check_installed()


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("ingest", IngestSettings, run, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
