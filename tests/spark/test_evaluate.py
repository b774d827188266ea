"""Predictions judged again from the tables alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from segpipe.errors import ModelError, NotFound
from segpipe.models.bundle import Bundle
from segpipe.readers.generate import write_brats
from segpipe.runtimes.openvino import export
from segpipe.settings import EvaluateSettings
from segpipe.spark.evaluate import Evaluation, evaluate, summarise
from segpipe.warehouse.runs import RunRecord, record_run
from segpipe.warehouse.tables import SEGMENTATIONS
from tests.runtimes.models import tiny_bundle
from tests.spark.cohorts import COHORT, Cohort


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(tiny_bundle(str(tmp_path_factory.mktemp("model") / "m")).url)


@pytest.fixture(scope="module")
def segmented(spark: SparkSession, model: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Four scans, the last of them without a mask."""
    folder = tmp_path_factory.mktemp("cohort")
    write_brats(folder / "archive", subjects=4, seed=0, shape=(8, 32, 32))
    unlabelled = sorted((folder / "archive").iterdir())[-1]
    (unlabelled / f"{unlabelled.name}_seg.nii.gz").unlink()
    cohort = Cohort(spark, folder / "archive", str(folder / "warehouse"))
    cohort.ingest()
    cohort.segment(model.url)
    return cohort


def judge(cohort: Cohort, model: str, split: str = "all") -> tuple[Evaluation, RunRecord]:
    settings = EvaluateSettings(warehouse=cohort.url, cohort=COHORT, model=model, split=split)
    with record_run(cohort.warehouse, "evaluate", settings) as run:
        return evaluate(cohort.spark, settings, run), run


def test_measures_computed_again_are_those_stored(segmented: Cohort, model: Bundle) -> None:
    found, run = judge(segmented, model.url)
    assert found.differences == ()
    assert found.rows.to_pylist() == segmented.rows("segmentations", "scan_id", "region")
    assert (run.counts["scans"], run.model_id) == (4, model.model_id)
    assert all(one.scans == 3 for one in found.summary)
    assert any("whole_tumour: Dice" in line for line in run.lines)


def test_a_model_id_will_do(segmented: Cohort, model: Bundle) -> None:
    assert judge(segmented, model.model_id)[0].rows == judge(segmented, model.url)[0].rows


def test_only_the_split_asked_for(segmented: Cohort, model: Bundle) -> None:
    split = segmented.rows("scans", "scan_id")[0]["split"]
    wanted = [row for row in segmented.rows("segmentations", "scan_id", "region") if row["split"] == split]
    assert judge(segmented, model.url, split)[0].rows.to_pylist() == wanted


def test_a_value_that_is_wrong_in_the_table_is_named(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = segmented.copy(tmp_path)
    path = next(Path(cohort.url, "segmentations").glob("*.parquet"))
    rows = pq.read_table(path).to_pylist()
    rows[0]["volume_ml"] += 1.0
    pq.write_table(pa.Table.from_pylist(rows, SEGMENTATIONS.schema), path)
    found, run = judge(cohort, model.url)
    (difference,) = found.differences
    assert f"{rows[0]['scan_id']} {rows[0]['region']} volume_ml: {rows[0]['volume_ml']} in the table" in difference
    assert run.counts["values_that_differ_from_the_table"] == 1


def test_what_is_not_there_is_named(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a model directory nor the model_id"):
        judge(segmented, str(tmp_path / "nothing"))
    other = tiny_bundle(str(tmp_path / "other"), modalities=("T2",))
    with pytest.raises(NotFound, match=f"Model {other.model_id} has segmented nothing of cohort 'c': run segment"):
        judge(segmented, other.url)
    splits = {row["split"] for row in segmented.rows("scans", "scan_id")}
    for split in {"train", "validation", "test"} - splits:
        with pytest.raises(NotFound, match=f"no scan in its {split} split"):
            judge(segmented, model.url, split)


def row(voxels: int, truth: int | None, dice: float | None, hd95_mm: float | None = None) -> dict[str, Any]:
    return {"region": "r", "voxels": voxels, "truth_voxels": truth, "dice": dice, "hd95_mm": hd95_mm}


def test_empty_regions_in_the_summary() -> None:
    rows = [
        row(4, 4, 1.0, 0.0),
        row(4, 4, 0.5, 3.0),
        row(0, 9, 0.0),
        row(9, 0, 0.0),
        row(0, 0, None),
        row(5, None, None),
    ]
    (found,) = summarise(rows, ["r"])
    assert (found.scans, found.mean_dice, found.median_dice, found.mean_hd95_mm) == (5, 0.375, 0.25, 1.5)
    assert (found.both_empty, found.missed, found.false_alarms) == (1, 1, 1)


def test_a_summary_of_nothing() -> None:
    (found,) = summarise([row(5, None, None)], ["r"])
    assert (found.scans, found.mean_dice, found.mean_hd95_mm) == (0, None, None)
