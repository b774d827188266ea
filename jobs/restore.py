"""Write the source files of a scan back from the tables."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from segpipe.cli import DONE, Context, check_warehouse, execute
from segpipe.settings import RestoreSettings


def run(settings: RestoreSettings, context: Context) -> int:
    """Write the scan's files below the output folder, and say on screen which."""
    from segpipe.pipelines.restore import restore

    with context.recorded("restore", settings.warehouse, settings) as record:
        with record.stage("rebuild"):
            paths = restore(settings, record.lines.append)
        record.count("files_written", len(paths))
        record.lines.extend(paths)
    return DONE


def check(settings: RestoreSettings) -> None:
    """Refuse a warehouse that is not there."""
    check_warehouse(settings.warehouse)


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("restore", RestoreSettings, run, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
