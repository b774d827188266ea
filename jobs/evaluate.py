"""Compute the measures of all predictions, per patient and region, and print them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from segpipe.cli import DONE, Context, check_model, check_warehouse, execute
from segpipe.settings import EvaluateSettings


def run(settings: EvaluateSettings, context: Context) -> int:
    """Measure what is predicted against what is true, and print the measures of the chosen split."""
    from segpipe.pipelines.evaluate import evaluate

    with context.recorded("evaluate", settings.warehouse, settings) as record:
        evaluate(context.spark, settings, record, context.progress)
    return DONE


def check(settings: EvaluateSettings) -> None:
    """Refuse a warehouse that is not there, and a model directory of another seal than expected."""
    check_warehouse(settings.warehouse)
    if settings.expect_model is not None:
        check_model(settings.model, settings.expect_model)


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("evaluate", EvaluateSettings, run, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
