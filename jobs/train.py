"""Slice tables to a trained model directory."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from jobs.common import DONE, Context, check_warehouse, execute
from segpipe.settings import TrainSettings


def run(settings: TrainSettings, context: Context) -> int:
    """Train on the cohort's training split and write the model directory."""
    from segpipe.trainers import train

    with context.recorded("train", settings.warehouse, settings) as record:
        spark = None if settings.trainer == "local" else context.spark
        train(settings, spark, record, context.progress)
    return DONE


def check(settings: TrainSettings) -> None:
    """Refuse a warehouse that is not there."""
    check_warehouse(settings.warehouse)


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("train", TrainSettings, run, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
