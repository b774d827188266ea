"""Segment scans into the tables `predictions` and `segmentations`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from segpipe.cli import DONE, QUARANTINED, Context, check_model, check_output, check_source, check_warehouse, execute
from segpipe.errors import UsageError
from segpipe.settings import SegmentSettings

_OF_AN_ARCHIVE = ("layout", "session", "prefer", "also", "series_map", "label_convention", "resample_to")
"""Settings that say how an archive is read."""


def run(settings: SegmentSettings, context: Context) -> int:
    """Segment what this model has not segmented yet; QUARANTINED when masks could not be written as files, and
    with `strict` when scans were rejected.
    """
    from segpipe.pipelines.segment import segment
    from segpipe.readers.naming import key_notes
    from segpipe.runtimes.contract import PredictorSpec

    with context.recorded("segment", settings.warehouse, settings) as record:
        predictor = PredictorSpec(
            settings.model,
            settings.runtime,
            settings.batch_size,
            settings.precision,
            settings.expect_model,
            settings.looks,
        ).pack()
        record.parameters["precision"] = predictor.spec.precision
        outcome = segment(context.spark, settings, predictor, predictor.bundle, record, context.progress)
        record.lines += key_notes(settings.subject_key_file) if settings.source else []
    return QUARANTINED if outcome.masks_failed or (settings.strict and outcome.rejected) else DONE


def check(settings: SegmentSettings) -> None:
    """Refuse what is not there or cannot be written, an unknown label convention, a folder that is no model, DICOM
    SEG without its DICOM, how to read an archive without one, and --prepare without the packages that it needs.
    """
    if settings.label_convention is not None:
        from segpipe.pipelines.meanings import user_convention

        user_convention(settings.label_convention)
    if settings.source is not None:
        check_source(settings.source)
    elif settings.dicom_seg is not None or settings.dicom_sr is not None:
        flag = "--dicom-sr" if settings.dicom_seg is None else "--dicom-seg"
        raise UsageError(f"{flag} needs the DICOM files that it refers to", "give their archive as --source")
    else:
        _check_unread(settings)
    check_warehouse(settings.warehouse, make=settings.source is not None)
    for folder, flag in (
        (settings.nifti, "--nifti"),
        (settings.dicom_seg, "--dicom-seg"),
        (settings.dicom_sr, "--dicom-sr"),
    ):
        if folder is not None:
            check_output(folder, flag)
    check_model(settings.model, settings.expect_model)
    if settings.prepare and settings.source is not None:
        from segpipe.prepare.scan import check_installed

        check_installed()


def _check_unread(settings: SegmentSettings) -> None:
    """Refuse what says how an archive is read where scans of the tables are segmented: it would change nothing."""
    default = SegmentSettings()
    given = [name for name in _OF_AN_ARCHIVE if getattr(settings, name) != getattr(default, name)]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(
            f"{flags} would change nothing, because the scans of the tables are read already",
            "give the archive as --source, or leave it out",
        )


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("segment", SegmentSettings, run, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
