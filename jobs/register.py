"""Enter the tables into Spark's catalogue, so that spark-sql finds them by name."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from segpipe.cli import DONE, Context, check_warehouse, execute
from segpipe.errors import UsageError
from segpipe.settings import RegisterSettings


def run(settings: RegisterSettings, context: Context) -> int:
    """Enter the tables as external ones; their files stay where they are."""
    from segpipe.pipelines.catalog import register

    with context.recorded("register", settings.warehouse, settings) as record:
        register(context.spark, settings, record)
    return DONE


def check(settings: RegisterSettings) -> None:
    """Refuse a warehouse that is not there, and a name that Hive does not take."""
    check_warehouse(settings.warehouse)
    if not re.fullmatch(r"[A-Za-z0-9_]+", settings.database):
        raise UsageError(f"--database is {settings.database!r}", "use letters, digits and `_` alone")


def spark_conf(settings: RegisterSettings) -> dict[str, str]:
    """Hive's catalogue instead of one in memory."""
    from segpipe.pipelines.catalog import hive_conf

    return hive_conf(settings)


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("register", RegisterSettings, run, argv, check=check, spark_conf=spark_conf)


if __name__ == "__main__":
    sys.exit(main())
