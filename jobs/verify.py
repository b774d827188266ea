"""Check that every part of a warehouse is as it was written."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from segpipe.cli import DONE, FAILED, Context, check_warehouse, execute
from segpipe.settings import VerifySettings


def run(settings: VerifySettings, context: Context) -> int:
    """Read all of the tables; FAILED, with the names of what is damaged, where something is."""
    from segpipe.pipelines.verify import verify

    with context.recorded("verify", settings.warehouse, settings) as record:
        problems = verify(context.spark, settings, record, context.progress)
        if problems:
            record.lines.append("put these parts back from a copy, or ingest and segment their cohort again elsewhere")
    return FAILED if problems else DONE


def check(settings: VerifySettings) -> None:
    """Refuse a warehouse that is not there."""
    check_warehouse(settings.warehouse)


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("verify", VerifySettings, run, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
