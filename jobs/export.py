"""Keras model to OpenVINO model, inside the model directory."""

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
        record.lines += decisions(bundle)
        record.lines += taken_back(trained, bundle)
        record.lines += undecided(settings, bundle)
        record.lines.append(f"precision {bundle.inference['precision']}: {bundle.inference['reason']}")
        if int8 := bundle.inference.get("int8"):
            record.lines.append(f"INT8 {'published' if int8['published'] else 'not published'}: {int8['reason']}")
    return DONE


def decisions(bundle: Bundle) -> list[str]:
    """What the export chose, in lines."""
    told = [
        ("cut where the probability is above", "{} {:g}", bundle.thresholds),
        ("left out as not bright enough", "{} at {:g} deviations above the brain's mean or less", bundle.brightness),
        ("left out as too small", "{} below {:g} ml", bundle.cleaning),
        ("none at all where there is less", "{} below {:g} ml", bundle.presence),
        ("a part goes that holds less of what lies inside", "{} below {:g} of its main part", bundle.evidence),
    ]
    return [
        f"{what}: {', '.join(how.format(region, number) for region, number in values.items())}"
        for what, how, values in told
        if values
    ]


def taken_back(earlier: Bundle, bundle: Bundle) -> list[str]:
    """What an earlier export had chosen and this one has not, in a line: the model decides as it was trained there."""
    fields = (
        ("threshold", "{:g}", earlier.thresholds, bundle.thresholds),
        ("least component", "{:g} ml", earlier.cleaning, bundle.cleaning),
        ("least volume", "{:g} ml", earlier.presence, bundle.presence),
        ("least evidence", "{:g}", earlier.evidence, bundle.evidence),
        ("least brightness", "{:g}", earlier.brightness, bundle.brightness),
    )
    gone = [
        f"{what} {how.format(number)} of {region}"
        for what, how, before, now in fields
        for region, number in before.items()
        if region not in now
    ]
    return [f"taken back, because this export did not choose it: {', '.join(gone)}"] if gone else []


def undecided(settings: ExportSettings, bundle: Bundle) -> list[str]:
    """Why nothing was chosen, in a line."""
    why = bundle.inference.get("undecided")
    remedy = "; give --warehouse the tables that it was trained on" if settings.warehouse is None else ""
    return [f"undecided: {why}{remedy}"] if why else []


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
