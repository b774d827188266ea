"""Convert the Keras model of a model directory to OpenVINO."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from segpipe.cli import DONE, Context, check_model, execute
from segpipe.errors import UsageError
from segpipe.settings import ExportSettings

if TYPE_CHECKING:
    from segpipe.core.prediction import Sample
    from segpipe.models.bundle import Bundle


VALIDATION_SCANS = 8
LEARNT_SCANS = 12
CALIBRATION_SCANS = 16


def run(settings: ExportSettings, context: Context) -> int:
    """Write the OpenVINO model, and the INT8 one where it is asked for and as good; say which precision was chosen."""
    from segpipe.models.bundle import Bundle
    from segpipe.runtimes.export import export
    from segpipe.runtimes.export.told import told

    with context.recorded("export", settings.warehouse, settings) as record:
        trained = Bundle.load(settings.model, settings.expect_model)
        with record.stage("plan"):
            validation = scans(settings, trained, "validation", VALIDATION_SCANS)
            decides = settings.clean or settings.cut
            learnt = scans(settings, trained, "train", LEARNT_SCANS) if decides else []
            calibration = scans(settings, trained, "train", CALIBRATION_SCANS) if settings.int8 else None
        with record.stage("convert and measure"):
            bundle = export(
                settings.model,
                validation,
                calibration,
                settings.expect_model,
                settings.clean,
                learnt,
                settings.cut,
            )
        record.model_id = bundle.model_id
        record.lines.append(bundle.seal_line)
        record.count("validation_scans", len(validation))
        record.lines += told(trained, bundle, settings.warehouse is not None)
    return DONE


def scans(settings: ExportSettings, model: Bundle, split: str, most: int) -> list[Sample]:
    """Scans of a split of the cohort that the model was trained on; none where no warehouse was given or holds it."""
    from segpipe.errors import NotFound
    from segpipe.warehouse.scan_slices import samples
    from segpipe.warehouse.store import Store

    if settings.warehouse is None:
        return []
    try:
        return samples(Store(settings.warehouse), model.cohort, split, model, most)
    except NotFound:
        return []


def check(settings: ExportSettings) -> None:
    """Refuse a folder that is no model, and INT8 without the tables to calibrate it on."""
    check_model(settings.model, settings.expect_model)
    if settings.int8 and settings.warehouse is None:
        raise UsageError(
            "--int8 needs scans to calibrate and judge it on", "give --warehouse the tables that it was trained on"
        )


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("export", ExportSettings, run, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
