"""Train a network on the slices of a cohort, into a model directory."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from segpipe.cli import DONE, Context, check_warehouse, execute
from segpipe.registry import TRAINERS
from segpipe.settings import TrainSettings


def run(settings: TrainSettings, context: Context) -> int:
    """Train on the cohort's training split and write the model directory."""
    from segpipe.launch.session import submitted_conf
    from segpipe.trainers import train
    from segpipe.trainers.cluster import check_cluster

    with context.recorded("train", settings.warehouse, settings) as record:
        if TRAINERS[settings.trainer].on_spark and (conf := submitted_conf()):
            check_cluster(conf, settings.workers)  # before a session takes executors
        train(settings, lambda: context.spark, record, context.progress)
    return DONE


def check(settings: TrainSettings) -> None:
    """Refuse a warehouse that is not there, and settings that cannot work together."""
    from segpipe.trainers.plan import check_settings

    check_warehouse(settings.warehouse)
    check_settings(settings)


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("train", TrainSettings, run, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
