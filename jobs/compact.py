"""Merge the small part files of many runs into fewer, larger ones."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from segpipe.cli import DONE, FAILED, Context, check_warehouse, execute
from segpipe.settings import CompactSettings


def run(settings: CompactSettings, context: Context) -> int:
    """Merge small parts; FAILED, with the names of what is damaged, where some had to stay as they are."""
    from segpipe.pipelines.compact import compact

    with context.recorded("compact", settings.warehouse, settings) as record:
        problems = compact(context.spark, settings, record, context.progress)
        if problems:
            record.lines.append("`verify` names all that is damaged; what could be merged, was")
    return FAILED if problems else DONE


def check(settings: CompactSettings) -> None:
    """Refuse a warehouse that is not there."""
    check_warehouse(settings.warehouse)


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("compact", CompactSettings, run, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
