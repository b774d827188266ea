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
from segpipe.pipelines import evaluate as module
from segpipe.pipelines.evaluate import Evaluation, compare, evaluate, summarise
from segpipe.readers.generate import write_brats
from segpipe.runtimes.export import export
from segpipe.settings import EvaluateSettings
from segpipe.warehouse.runs import RunRecord, record_run
from segpipe.warehouse.scan_slices import ScanPlace
from segpipe.warehouse.tables import SEGMENTATIONS
from tests.pipelines.cohorts import COHORT, Cohort
from tests.pipelines.deadly import In
from tests.runtimes.models import tiny_bundle
from tests.warehouse.earlier import unsealed


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


def judge(cohort: Cohort, model: str, split: str = "all", name: str = COHORT) -> tuple[Evaluation, RunRecord]:
    settings = EvaluateSettings(warehouse=cohort.url, cohort=name, model=model, split=split)
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
    with pytest.raises(NotFound, match=f"cohort 'c': run segment, or name a model that has: .*{model.model_id}"):
        judge(segmented, other.url)
    with pytest.raises(NotFound, match=r"Cohort 'd' has no scans in .*: run ingest, or name one of c$"):
        judge(segmented, model.url, name="d")
    splits = {row["split"] for row in segmented.rows("scans", "scan_id")}
    for split in {"train", "validation", "test"} - splits:
        others = " or ".join(sorted(splits))
        with pytest.raises(NotFound, match=f"no scan in its {split} split.*: give --split {others}$"):
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


@pytest.mark.parametrize(
    ("rule", "mean"),
    [("penalise", 1.5 / 4), ("reward", 2.5 / 5), ("skip", 1.5 / 3)],
    ids=["penalise", "reward", "skip"],
)
def test_empty_truth_is_judged_by_the_rule_asked_for(rule: str, mean: float) -> None:
    rows = [row(4, 4, 1.0), row(4, 4, 0.5), row(0, 9, 0.0), row(9, 0, 0.0), row(0, 0, None), row(5, None, None)]
    (found,) = summarise(rows, ["r"], rule)
    assert found.mean_dice == pytest.approx(mean)


def test_lesions_too_small_to_count() -> None:
    score = {"truth_voxels": 9, "voxels": 9, "tp": 9, "dice": 1.0, "hd95_mm": 0.0}
    small = score | {"truth_voxels": 2, "dice": 0.0}
    one = row(4, 4, 1.0) | {"lesion_scores": [score, small], "false_lesions": [3]}
    nothing = row(0, 0, None) | {"lesion_scores": [], "false_lesions": []}
    assert summarise([one, nothing], ["r"])[0].mean_lesion_dice == pytest.approx(1 / 3)
    assert summarise([one, nothing], ["r"], least_lesion_voxels=3)[0].mean_lesion_dice == pytest.approx(1 / 2)
    assert summarise([one, nothing], ["r"], least_lesion_voxels=4)[0].mean_lesion_dice == 1


def test_two_models_are_paired_by_scan() -> None:
    def rows(*values: float | None) -> list[dict[str, Any]]:
        return [
            row(0 if v is None else 1, 0 if v is None else 1, v) | {"scan_id": f"s{n}"} for n, v in enumerate(values)
        ]

    (found,) = compare(rows(0.9, 0.8, 0.7, None, 0.5), rows(0.8, 0.8, 0.9, 0.3))
    assert (found.scans, found.better, found.worse, found.p_value) == (3, 1, 1, None)
    assert found.mean_difference == pytest.approx(-0.1 / 3)
    (found,) = compare(rows(*[0.9] * 8), rows(*[0.1 * n for n in range(1, 9)]))
    assert (found.better, found.worse) == (8, 0)
    assert found.p_value == pytest.approx(2 / 2**8)


def test_models_compared_on_one_cohort(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = segmented.copy(tmp_path)
    other = export(tiny_bundle(str(tmp_path / "other"), modalities=("T2", "FLAIR")).url)
    cohort.segment(other.url)
    settings = EvaluateSettings(warehouse=cohort.url, cohort=COHORT, model=model.url, split="all", other=other.url)
    with record_run(cohort.warehouse, "evaluate", settings) as run:
        found = evaluate(cohort.spark, settings, run)
    assert found.other_model_id == other.model_id
    dice: dict[str, dict[str, float]] = {}
    for one in cohort.rows("segmentations", "scan_id"):
        if one["region"] == "whole_tumour" and one["dice"] is not None:
            dice.setdefault(one["model_id"], {})[one["scan_id"]] = one["dice"]
    pairs = [(dice[model.model_id][scan], dice[other.model_id][scan]) for scan in dice[model.model_id]]
    whole = next(one for one in found.comparison if one.region == "whole_tumour")
    assert whole.scans == 3
    assert whole.mean_difference == pytest.approx(sum(a - b for a, b in pairs) / 3)
    assert any(other.model_id in line for line in run.lines)


def test_scans_whose_slices_are_not_stored(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = Cohort(segmented.spark, segmented.archive, str(tmp_path / "w"))
    cohort.segment(model.url, source=str(cohort.archive))
    found, run = judge(cohort, model.url)
    assert found.rows.drop("run_id").to_pylist() == judge(segmented, model.url)[0].rows.drop("run_id").to_pylist()
    assert run.counts["scans_not_measured_again"] == len(found.as_stored) == 4
    assert any("straight from an archive" in line for line in run.lines)


@pytest.mark.parametrize("how", ["kills", "memory"])
def test_a_scan_that_nobody_can_measure_keeps_its_measures(
    segmented: Cohort, model: Bundle, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    wanted, _ = judge(segmented, model.url)
    deadly = wanted.rows["scan_id"][0].as_py()

    def is_deadly(_: Any, place: ScanPlace, *__: Any) -> bool:
        if place.scan_id == deadly and how == "memory":
            raise MemoryError
        return place.scan_id == deadly

    In(module, "measure_part", module, "true_labels", is_deadly).put(monkeypatch)
    found, run = judge(segmented, model.url)
    assert (found.rows, found.as_stored, found.deadly) == (wanted.rows, (deadly,), (deadly,))
    assert any(f"such as {deadly}, need more memory than workers have" in line for line in run.lines)
    assert not any("straight from an archive" in line for line in run.lines)


def test_rows_of_an_earlier_version(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    """Columns that came later are null, and filled where a part is written again."""
    cohort = segmented.copy(tmp_path)
    for path in Path(cohort.url, "segmentations").glob("*.parquet"):
        with pq.ParquetFile(path) as parquet:
            groups = [parquet.read_row_group(number) for number in range(parquet.num_row_groups)]
        groups = [group.drop(["lesion_scores", "false_lesions"]) for group in groups]
        with pq.ParquetWriter(path, unsealed(groups[0].schema)) as writer:
            for group in groups:
                writer.write_table(group)
    assert {row["lesion_scores"] for row in cohort.rows("segmentations", "scan_id")} == {None}
    assert judge(cohort, model.url)[0].differences == ()
    cohort.segment(model.url, overwrite=True)
    assert judge(cohort, model.url)[0].rows.drop("run_id") == judge(segmented, model.url)[0].rows.drop("run_id")


def test_a_summary_of_nothing() -> None:
    (found,) = summarise([row(5, None, None)], ["r"])
    assert (found.scans, found.mean_dice, found.mean_hd95_mm) == (0, None, None)
