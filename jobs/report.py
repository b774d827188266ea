"""Write one HTML page about a model on a cohort."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from segpipe.cli import DONE, Context, check_warehouse, execute
from segpipe.settings import ReportSettings


def run(settings: ReportSettings, context: Context) -> int:
    """Write the page and say where it is."""
    from segpipe.report import build, build_preparations

    with context.recorded("report", settings.warehouse, settings) as record, record.stage("write"):
        most = settings.preparations
        if settings.model is None:
            build_preparations(
                settings.warehouse, settings.cohort, settings.output, note=settings.note, preparations=most
            )
            record.lines.append(f"preparations: {settings.output}")
            return DONE
        build(
            settings.warehouse,
            settings.cohort,
            settings.model,
            settings.output,
            note=settings.note,
            strips=settings.cases,
            surfaces=settings.surfaces,
            preparations=most,
        )
        record.lines.append(f"report: {settings.output}")
    return DONE


def check(settings: ReportSettings) -> None:
    """Refuse a warehouse that is not there."""
    check_warehouse(settings.warehouse)


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("report", ReportSettings, run, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
