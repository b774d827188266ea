"""What a model's predictions are worth: measures per patient and region, computed again from stored masks."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from segpipe.core.lesions import LesionScore, mean_lesion_dice
from segpipe.errors import BadInput, ModelError, NotFound
from segpipe.pipelines import attempts
from segpipe.pipelines.measures import region_rows
from segpipe.settings import EvaluateSettings
from segpipe.storage.model_directory import model_id_of
from segpipe.warehouse.predicted import PredictedPlace, label_map, predicted_places
from segpipe.warehouse.runs import RunRecord
from segpipe.warehouse.scan_slices import ScanPlace, scan_places, scan_rows, true_labels
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import LATER_COLUMNS, SEGMENTATIONS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.pipelines.progress import Progress

_UNMEASURED = ("run_id", "model_id", "placed", "brain")
_SHOWN = 3
_LEAST_PAIRS = 6
_EMPTY_RULES = {
    "penalise": "patients without a true region: Dice 0 where something was predicted, else left out",
    "reward": "patients without a true region: Dice 0 where something was predicted, else 1",
    "skip": "patients without a true region are left out of Dice",
}


@dataclass(frozen=True)
class RegionSummary:
    """How a region fares over the scans that have a truth.

    Dice is over the scans that have one by the rule asked for, HD95 over those where truth and prediction have a voxel,
    lesion-wise Dice over those with a lesion, true or false. `both_empty` and `missed` (truth without prediction) count
    scans, `false_alarms` predictions without truth. None: over no scan.
    """

    region: str
    scans: int
    mean_dice: float | None
    median_dice: float | None
    mean_hd95_mm: float | None
    mean_lesion_dice: float | None
    both_empty: int
    missed: int
    false_alarms: int


@dataclass(frozen=True)
class RegionComparison:
    """Two models on the scans that both have segmented and that have a Dice by the rule asked for.

    `mean_difference` is the model's Dice less the other's; `better` and `worse` count the scans where it is above and
    below; `p_value` is that of Wilcoxon's signed-rank test, None for fewer than six scans that differ.
    """

    region: str
    scans: int
    mean_dice: float | None
    other_mean_dice: float | None
    mean_difference: float | None
    better: int
    worse: int
    p_value: float | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """`rows` has the columns of `segmentations`; `differences` name the values that the table holds otherwise.

    `as_stored` are the scans whose measures stand as segment wrote them: their slices are not in the tables, or they
    are `deadly` to the workers that measure them.
    """

    model_id: str
    rows: pa.Table
    summary: tuple[RegionSummary, ...]
    differences: tuple[str, ...]
    as_stored: tuple[str, ...] = ()
    deadly: tuple[str, ...] = ()
    other_model_id: str | None = None
    comparison: tuple[RegionComparison, ...] = ()


@dataclass(frozen=True)
class _Task:
    """Scans whose predictions stand in one part: where their slices and their predictions are."""

    scans: tuple[tuple[ScanPlace, PredictedPlace], ...]


_Known = Mapping[str, Sequence[Mapping[str, Any]]]
"""Rows of `segmentations` as they stand, by scan."""


def evaluate(
    spark: SparkSession, settings: EvaluateSettings, run: RunRecord, progress: Progress | None = None
) -> Evaluation:
    """Measure what a model predicted for a split of a cohort against the masks in `slices`, without a network.

    With `settings.other` that model is measured too and compared on the scans that both have. Nothing is written.
    Raises NotFound if a model has predicted nothing of that split, and ModelError if one is neither a model
    directory nor a model_id of the table.
    """
    warehouse = Store(settings.warehouse)
    found = _measure(spark, warehouse, settings, settings.model, run, progress)
    run.model_id = found.model_id
    if settings.other is not None:
        other = _measure(spark, warehouse, settings, settings.other, run, progress)
        comparison = compare(found.rows.to_pylist(), other.rows.to_pylist(), settings.empty_truth)
        found = replace(found, other_model_id=other.model_id, comparison=tuple(comparison))
    _account(found, settings, run)
    return found


def _measure(
    spark: SparkSession,
    warehouse: Store,
    settings: EvaluateSettings,
    model: str,
    run: RunRecord,
    progress: Progress | None,
) -> Evaluation:
    stored = _stored(warehouse, settings, model)
    model_id = next(iter(stored.values()))["model_id"]
    with run.stage("plan"):
        tasks = _tasks(warehouse, settings.cohort, model_id, {scan_id for scan_id, _ in stored})
    with run.stage("measure"):
        found = _run_tasks(spark, tasks, settings.warehouse, run.run_id, stored, progress)
    differences = tuple(text for row in found for text in _differences(row, stored[row["scan_id"], row["region"]]))
    measured = {row["scan_id"] for row in found}
    left = [row for (scan_id, _), row in stored.items() if scan_id not in measured]
    rows = sorted([*found, *left], key=lambda row: (row["scan_id"], row["region"]))
    regions = list(dict.fromkeys(region for _, region in stored))
    deadly = {place.scan_id for task in tasks for place, _ in task.scans} - measured
    return Evaluation(
        model_id,
        pa.Table.from_pylist(rows, SEGMENTATIONS.schema),
        tuple(summarise(rows, regions, settings.empty_truth, settings.least_lesion_voxels)),
        differences,
        tuple(sorted({row["scan_id"] for row in left})),
        tuple(sorted(deadly)),
    )


def dice_by_rule(row: Mapping[str, Any], empty_truth: str) -> float | None:
    """The Dice of a row of `segmentations` by a rule for patients without a true region; None if it has none.

    >>> [dice_by_rule({"truth_voxels": 0, "voxels": 5, "dice": 0.0}, rule) for rule in ("penalise", "reward", "skip")]
    [0.0, 0.0, None]
    >>> [dice_by_rule({"truth_voxels": 0, "voxels": 0, "dice": None}, rule) for rule in ("penalise", "reward", "skip")]
    [None, 1.0, None]
    """
    if row["truth_voxels"] is None or (row["truth_voxels"] == 0 and empty_truth == "skip"):
        return None
    if row["truth_voxels"] == 0 and row["voxels"] == 0:
        return 1.0 if empty_truth == "reward" else None
    return float(row["dice"])


def summarise(
    rows: Iterable[Mapping[str, Any]],
    regions: Sequence[str],
    empty_truth: str = "penalise",
    least_lesion_voxels: int = 0,
) -> list[RegionSummary]:
    """The summary of each region, from rows of `segmentations`."""
    judged: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["truth_voxels"] is not None:
            judged[row["region"]].append(row)
    return [_summary(region, judged[region], empty_truth, least_lesion_voxels) for region in regions]


def _summary(region: str, rows: Sequence[Mapping[str, Any]], empty_truth: str, least: int) -> RegionSummary:
    dice = [value for row in rows if (value := dice_by_rule(row, empty_truth)) is not None]
    distances = [row["hd95_mm"] for row in rows if row["hd95_mm"] is not None]
    lesion_dice = [value for row in rows if (value := _lesion_dice(row, least)) is not None]
    return RegionSummary(
        region=region,
        scans=len(rows),
        mean_dice=fmean(dice) if dice else None,
        median_dice=median(dice) if dice else None,
        mean_hd95_mm=fmean(distances) if distances else None,
        mean_lesion_dice=fmean(lesion_dice) if lesion_dice else None,
        both_empty=sum(not row["truth_voxels"] and not row["voxels"] for row in rows),
        missed=sum(bool(row["truth_voxels"]) and not row["voxels"] for row in rows),
        false_alarms=sum(not row["truth_voxels"] and bool(row["voxels"]) for row in rows),
    )


def _lesion_dice(row: Mapping[str, Any], least_voxels: int) -> float | None:
    if row.get("lesion_scores") is None:
        return None
    scores = [LesionScore(**score) for score in row["lesion_scores"]]
    value = mean_lesion_dice(scores, row["false_lesions"], least_voxels)
    return None if math.isnan(value) else value


def compare(
    rows: Iterable[Mapping[str, Any]], other_rows: Iterable[Mapping[str, Any]], empty_truth: str = "penalise"
) -> list[RegionComparison]:
    """Two models' rows of `segmentations`, region by region, paired by scan."""
    others = {(row["scan_id"], row["region"]): dice_by_rule(row, empty_truth) for row in other_rows}
    pairs: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        one, other = dice_by_rule(row, empty_truth), others.get((row["scan_id"], row["region"]))
        pairs[row["region"]] += [(one, other)] if one is not None and other is not None else []
    return [_comparison(region, found) for region, found in pairs.items()]


def _comparison(region: str, pairs: Sequence[tuple[float, float]]) -> RegionComparison:
    from scipy.stats import wilcoxon

    differences = [one - other for one, other in pairs if one != other]
    return RegionComparison(
        region=region,
        scans=len(pairs),
        mean_dice=fmean(one for one, _ in pairs) if pairs else None,
        other_mean_dice=fmean(other for _, other in pairs) if pairs else None,
        mean_difference=fmean(one - other for one, other in pairs) if pairs else None,
        better=sum(difference > 0 for difference in differences),
        worse=sum(difference < 0 for difference in differences),
        p_value=float(wilcoxon(differences).pvalue) if len(differences) >= _LEAST_PAIRS else None,
    )


def _stored(warehouse: Store, settings: EvaluateSettings, model: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of `segmentations` by scan_id and region, of the model, cohort and split asked for."""
    table = warehouse.table(SEGMENTATIONS.name) if warehouse.parts(SEGMENTATIONS.name) else None
    wanted = ds.field("cohort") == settings.cohort
    known = set() if table is None else set(table.to_table(["model_id"], filter=wanted)["model_id"].to_pylist())
    model_id = model if model in known else _model_id(model)
    if table is not None and model_id in known:
        wanted &= ds.field("model_id") == model_id
        chosen = wanted if settings.split == "all" else wanted & (ds.field("split") == settings.split)
        if rows := table.to_table(filter=chosen).to_pylist():
            return {(row["scan_id"], row["region"]): row for row in rows}
        there = set(table.to_table(["split"], filter=wanted)["split"].to_pylist())
        raise NotFound(
            f"Cohort {settings.cohort!r} has no scan in its {settings.split} split that model {model_id} has segmented",
            f"give --split {' or '.join(sorted(there))}",
        )
    if not known and not warehouse.index(settings.cohort):
        raise warehouse.no_scans(settings.cohort)
    others = f", or name a model that has: {', '.join(sorted(known))}" if known else ""
    raise NotFound(f"Model {model_id} has segmented nothing of cohort {settings.cohort!r}", f"run segment{others}")


def _model_id(url: str) -> str:
    """The model_id that a model directory states."""
    try:
        return model_id_of(url)
    except (NotFound, ModelError):
        raise ModelError(
            f"{url} is neither a model directory nor the model_id of a row in segmentations",
            "give the --model that segment was given",
        ) from None


def _tasks(warehouse: Store, cohort: str, model_id: str, wanted: set[str]) -> list[_Task]:
    """The scans, by the part of `predictions` that holds them; those whose slices are not stored are left out."""
    places = scan_places(warehouse, cohort) if warehouse.index(cohort) else {}
    by_part: defaultdict[str, list[tuple[ScanPlace, PredictedPlace]]] = defaultdict(list)
    for scan_id, predicted in predicted_places(warehouse, cohort, model_id).items():
        if scan_id in wanted and scan_id in places:
            by_part[predicted.part].append((places[scan_id], predicted))
    return [_Task(tuple(scans)) for scans in by_part.values()]


def _run_tasks(
    spark: SparkSession,
    tasks: Sequence[_Task],
    url: str,
    run_id: str,
    stored: Mapping[tuple[str, str], Mapping[str, Any]],
    progress: Progress | None,
) -> list[dict[str, Any]]:
    todo = [(task, _of_task(task, stored)) for task in tasks]
    if not todo:
        return []

    def measure(one: tuple[_Task, _Known], watch: attempts.Watch) -> list[dict[str, Any]]:
        task, known = one
        return list(measure_part(task, url, known, watch))

    with attempts.running(spark, run_id, sum(len(task.scans) for task in tasks), "evaluate", progress):
        found = attempts.each(spark, Store(url), run_id, todo, measure, len(todo))
        return [row for rows in found for row in rows]


def _of_task(task: _Task, stored: Mapping[tuple[str, str], Mapping[str, Any]]) -> _Known:
    scans = {place.scan_id for place, _ in task.scans}
    found: dict[str, list[Mapping[str, Any]]] = {scan_id: [] for scan_id in scans}
    for (scan_id, _), row in stored.items():
        if scan_id in scans:
            found[scan_id].append(row)
    return found


def measure_part(task: _Task, url: str, stored: _Known, watch: attempts.Watch) -> Iterator[dict[str, Any]]:
    """Rows of `segmentations` for the scans of a part, one scan in memory at a time; none of one that kills its worker.

    `stored` has the rows as they stand: probabilities are taken from there, for without the network they cannot be had.
    """
    warehouse = Store(url)
    for place, predicted in task.scans:
        with contextlib.suppress(BadInput, MemoryError):
            watch.enter(place.scan_id)
            yield from _measured(warehouse, place, predicted, stored[place.scan_id])


def _measured(
    warehouse: Store, place: ScanPlace, predicted: PredictedPlace, stored: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    scan = scan_rows(warehouse, place.part, [place.scan_id])[place.scan_id]
    labels, convention = label_map(warehouse, predicted, scan["shape"])
    known = {row["region"]: row for row in stored}
    means = {region: row["mean_probability"] for region, row in known.items()}
    highest = {region: row["max_probability"] for region, row in known.items()}
    truth = true_labels(warehouse, place, scan["shape"])
    rows = region_rows(scan, labels, convention, truth, means, highest)
    return [row | {name: known[row["region"]][name] for name in _UNMEASURED} for row in rows]


def _differences(row: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """What the table holds otherwise than computed now."""
    return [
        f"{row['scan_id']} {row['region']} {name}: {stored[name]} in the table, {row[name]} now"
        for name in SEGMENTATIONS.schema.names
        if not _same(row[name], stored[name]) and not (name in LATER_COLUMNS and stored[name] is None)
    ]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return bool(one == other)


def _account(evaluation: Evaluation, settings: EvaluateSettings, run: RunRecord) -> None:
    run.count("scans", len(set(evaluation.rows["scan_id"].to_pylist())))
    run.count("scans_not_measured_again", len(evaluation.as_stored))
    run.count("values_that_differ_from_the_table", len(evaluation.differences))
    which = "all splits" if settings.split == "all" else f"{settings.split} split"
    run.lines.append(f"{which} of {settings.cohort}, model {evaluation.model_id}")
    run.lines.append(_EMPTY_RULES[settings.empty_truth])
    for one in evaluation.summary:
        if not one.scans:
            run.lines.append(f"{one.region}: no scan has a truth")
            continue
        run.lines.append(
            f"{one.region}: Dice {_text(one.mean_dice)} (median {_text(one.median_dice)}), HD95 "
            f"{_text(one.mean_hd95_mm, 1, ' mm')}, lesion-wise Dice {_text(one.mean_lesion_dice)} over {one.scans}"
            f" scans; {one.both_empty} empty in both, {one.missed} missed, {one.false_alarms} false alarms"
        )
    for pair in evaluation.comparison:
        run.lines.append(
            f"{pair.region}: Dice {_text(pair.mean_dice)} beside {_text(pair.other_mean_dice)} of model"
            f" {evaluation.other_model_id} over {pair.scans} scans, difference {_text(pair.mean_difference)}; better in"
            f" {pair.better}, worse in {pair.worse}, p {_text(pair.p_value)}"
        )
    if foreign := len(evaluation.as_stored) - len(evaluation.deadly):
        run.lines.append(
            f"{foreign} scans were segmented straight from an archive: their slices are not in the"
            " tables, so their measures stand as segment wrote them"
        )
    if evaluation.deadly:
        run.lines.append(
            f"{len(evaluation.deadly)} scans, such as {evaluation.deadly[0]}, need more memory than workers have, or"
            " killed them, so their measures stand as segment wrote them: give the workers more memory"
        )
    run.lines += evaluation.differences[:_SHOWN]


def _text(value: float | None, digits: int = 3, unit: str = "") -> str:
    return "undefined" if value is None else f"{value:.{digits}f}{unit}"
