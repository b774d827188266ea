"""Keras model to OpenVINO model, inside the model directory."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from jobs.common import DONE, Context, check_model, execute
from segpipe.settings import ExportSettings


def run(settings: ExportSettings, context: Context) -> int:
    """Write the OpenVINO model, and the INT8 one where it is asked for."""
    from segpipe.runtimes.openvino import export

    with context.recorded("export", settings.warehouse, settings) as record, record.stage("convert"):
        bundle = export(settings.model, settings.int8)
        record.model_id = bundle.model_id
    return DONE


def check(settings: ExportSettings) -> None:
    """Refuse a folder that is no model."""
    check_model(settings.model)


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("export", ExportSettings, run, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
