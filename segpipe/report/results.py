"""What the report tells, read from the warehouse and the model directory."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import mean, median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from segpipe.core.codec import decode
from segpipe.core.regions import CONVENTIONS, LabelConvention
from segpipe.core.volume import scale
from segpipe.errors import ModelError, NotFound
from segpipe.storage.filesystem import filesystem
from segpipe.storage.model_directory import bundle_json, read_history
from segpipe.warehouse.predicted import PLANE_COLUMNS, assembled
from segpipe.warehouse.scan_slices import ScanPlace, scan_places, true_labels
from segpipe.warehouse.store import Store

Row = dict[str, Any]

SCAN_COLUMNS = (
    "scan_id", "cohort", "subject", "session", "split", "split_rule", "orientation", "label_convention", "modalities",
    "shape", "spacing_mm", "affine", "brain_box", "files", "intensity", "preparation", "flags", "follows",
)  # fmt: skip
_RESULT_COLUMNS = (
    "scan_id", "subject", "session", "split", "region", "volume_ml", "truth_volume_ml", "tp", "fp", "fn", "dice",
    "hd95_mm", "qc_flags",
)  # fmt: skip
_WHOSE = ("scan_id", "cohort", "subject", "session", "split")

_CHANGE_COLUMNS = (
    *("scan_id", "subject", "session", "region", "previous_session", "days_since_previous", "days_since_baseline"),
    *("volume_ml", "previous_volume_ml", "product_mm2", "change_from_baseline", "change_from_nadir", "flags"),
    *("decrease_threshold", "increase_threshold", "new_lesions", "gone_lesions", "grown_lesions", "shrunk_lesions"),
)


@dataclass(frozen=True)
class ReportedModel:
    """A model's id and, where its directory is at hand, its bundle and one row per epoch of its training."""

    model_id: str
    bundle: Row = field(default_factory=dict)
    history: tuple[dict[str, float], ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Its id, and the one that it was trained under where export has changed what it leaves out."""
        earlier = self.bundle.get("inference", {}).get("trained_as")
        return (self.model_id, earlier) if earlier else (self.model_id,)


@dataclass(frozen=True)
class Source:
    """The tables of a warehouse that are read once per scan, their footers read once altogether."""

    warehouse: Store

    @cached_property
    def slices(self) -> ds.Dataset:
        """The table `slices`."""
        return self.warehouse.table("slices")

    @cached_property
    def predictions(self) -> ds.Dataset:
        """The table `predictions`."""
        return self.warehouse.table("predictions")

    def places(self, cohort: str) -> dict[str, ScanPlace]:
        """Where each scan of a cohort stands, by scan_id."""
        if cohort not in self._places:
            self._places[cohort] = scan_places(self.warehouse, cohort)
        return self._places[cohort]

    @cached_property
    def _places(self) -> dict[str, dict[str, ScanPlace]]:
        return {}


@dataclass(frozen=True)
class Masks:
    """Label maps of one scan, uint8 (S, H, W); `truth` is None without one."""

    predicted: np.ndarray
    truth: np.ndarray | None


@dataclass(frozen=True)
class ReportedRegion:
    """How one region went over the scans of a split."""

    region: str
    scans: int
    mean_dice: float | None
    median_dice: float | None
    worst_dice: float | None
    median_hd95_mm: float | None
    median_volume_error_ml: float | None


def find_model(model: str) -> ReportedModel:
    """The model of a directory (path or URL) that holds bundle.json, else the model whose id the text is."""
    try:
        bundle = bundle_json(model)
    except NotFound:
        fs, folder = filesystem(model)
        if fs.exists(folder):
            raise ModelError(f"Folder {model} holds no bundle.json", "name a folder that `train` wrote") from None
        return ReportedModel(model)
    return ReportedModel(bundle["model_id"], bundle, tuple(read_history(model)))


def find_results(warehouse: Store, cohort: str, model: ReportedModel) -> tuple[dict[str, Row], list[Row]]:
    """Scans by scan_id, and rows of `segmentations` that are worst first within test, validation and train.

    Of scans that only `segment --source` saw, no more is known than whose they are, see `is_stored`. Raises NotFound if
    the model has segmented nothing of the cohort.
    """
    table = warehouse.table("segmentations")
    mine = ds.field("cohort") == cohort
    columns, wanted = ["cohort", *_RESULT_COLUMNS], mine & (ds.field("model_id") == model.model_id)
    rows = table.to_table(columns=columns, filter=wanted).to_pylist()
    by_id = {scan["scan_id"]: scan for scan in _stored(warehouse, cohort, may_be_none=bool(rows))}
    if not rows:
        models = table.to_table(columns=["model_id"], filter=mine)["model_id"].unique().to_pylist()
        known = f"name one that has: {', '.join(sorted(models))}" if models else "run `segment` first"
        what = "" if model.bundle else ", and no model directory has this name"
        raise NotFound(f"Model {model.model_id} has segmented no scan of cohort {cohort}{what}", known)
    for row in rows:
        if row["scan_id"] not in by_id:
            by_id[row["scan_id"]] = dict.fromkeys(SCAN_COLUMNS) | {name: row[name] for name in _WHOSE}
    return by_id, [_with_name(_finite(row), by_id[row["scan_id"]]) for row in rows]


def _stored(warehouse: Store, cohort: str, may_be_none: bool) -> list[Row]:
    try:
        return list(warehouse.scans(cohort, SCAN_COLUMNS).to_pylist())
    except NotFound:
        if not may_be_none:
            raise
        return []


def is_stored(scan: Row) -> bool:
    """Whether a scan stands in `scans` and `slices`, so that it can be drawn; else it came straight from an archive."""
    return scan["shape"] is not None


def changes(warehouse: Store, scans: dict[str, Row], model: ReportedModel, most: int) -> tuple[list[Row], int]:
    """Rows of `changes` of a model by patient, region and visit, at most so many, and how many more there are."""
    cohorts = {scan["cohort"] for scan in scans.values()}
    wanted = ds.field("cohort").isin(list(cohorts)) & (ds.field("model_id") == model.model_id)
    rows = warehouse.table("changes").to_table(columns=list(_CHANGE_COLUMNS), filter=wanted).to_pylist()
    rows = [row for row in rows if row["scan_id"] in scans]
    rows.sort(key=lambda row: (row["subject"], row["region"], row["days_since_baseline"] or 0.0, row["session"]))
    for row in rows:
        row["name"] = scan_name(row)
        for name in ("baseline", "nadir"):
            change = row[f"change_from_{name}"]
            row[f"{name}_percent"] = None if change is None else 100 * change
    return rows[:most], max(0, len(rows) - most)


def convention_of(model: ReportedModel, scans: Iterable[Row]) -> LabelConvention:
    """The label convention of predicted masks: the bundle's, else that of the cohort's own masks."""
    stated = model.bundle.get("label_convention")
    names = [stated] if isinstance(stated, str) else sorted({scan["label_convention"] for scan in scans} - {None})
    known = [CONVENTIONS[name] for name in names if name in CONVENTIONS]
    if not known:
        raise ModelError(
            f"Model {model.model_id} states no label convention known here ({names})",
            "give the model's directory as --model",
        )
    return known[0]


def measures(rows: Sequence[Row], region: str) -> ReportedRegion:
    """Means and medians over the scans of `rows`; None if no scan has the value."""
    mine = [row for row in rows if row["region"] == region]
    dices = _known(row["dice"] for row in mine)
    errors = [abs(row["volume_ml"] - row["truth_volume_ml"]) for row in mine if row["truth_volume_ml"] is not None]
    distances = _known(row["hd95_mm"] for row in mine)
    return ReportedRegion(
        region=region,
        scans=len(dices),
        mean_dice=mean(dices) if dices else None,
        median_dice=median(dices) if dices else None,
        worst_dice=min(dices) if dices else None,
        median_hd95_mm=median(distances) if distances else None,
        median_volume_error_ml=median(errors) if errors else None,
    )


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Rows by ascending Dice; those without one last, by name."""
    return sorted(rows, key=lambda row: (row["dice"] is None, row["dice"] or 0.0, row["name"]))


def read_masks(source: Source, scan: Row, model_id: str) -> Masks:
    """The predicted and the true label map of one scan, uint8 (S, H, W).

    Raises TableError if slices of the prediction are missing.
    """
    shape = tuple(scan["shape"])
    mine = ds.field("scan_id") == scan["scan_id"]
    found = source.predictions.to_table(PLANE_COLUMNS, filter=mine & (ds.field("model_id") == model_id))
    predicted, _ = assembled([found], shape, f"{scan['scan_id']} of model {model_id}")
    if scan["label_convention"] is None:
        return Masks(predicted, None)
    return Masks(predicted, true_labels(source.warehouse, source.places(scan["cohort"])[scan["scan_id"]], shape))


def read_channel(source: Source, scan: Row, modality: str, indices: Sequence[int]) -> dict[int, np.ndarray]:
    """Scaled float32 (H, W) images of one modality by slice index."""
    channel = scan["modalities"].index(modality)
    file = next(file for file in scan["files"] if file["role"] == modality)
    found = source.slices.to_table(
        columns=["slice_index", "dtypes", "image"],
        filter=(ds.field("scan_id") == scan["scan_id"]) & ds.field("slice_index").isin(list(indices)),
    )
    images = {}
    for index, dtypes, cell in zip(
        found["slice_index"].to_pylist(), found["dtypes"].to_pylist(), found["image"], strict=True
    ):
        planes = decode(_cells([cell]), scan["shape"][1], scan["shape"][2], dtypes)
        images[index] = scale(planes[channel][0], file["slope"], file["inter"])
    return images


def background_modality(modalities: Sequence[str]) -> str:
    """The modality that shows lesions best behind outlines: FLAIR, else the first."""
    return next((name for name in modalities if "flair" in name.lower()), modalities[0])


def surface_modality(modalities: Sequence[str]) -> str:
    """The modality in which folds of the brain's surface are seen best: T1, else the first."""
    return next((name for name in modalities if name.lower() in ("t1", "t1w", "t1n")), modalities[0])


def contrast_window(scan: Row, modality: str) -> tuple[float, float]:
    """Scaled values to show as black and white, from percentiles of the brain, with room for bright lesions."""
    row = next(row for row in scan["intensity"] if row["modality"] == modality)
    return row["p01"], min(row["max"], row["p99"] + 0.3 * (row["p99"] - row["median"]))


def runs_of(warehouse: Store, cohort: str, model_ids: Sequence[str]) -> list[Row]:
    """Runs that touched the cohort or the model, which may have had several ids, oldest first."""
    of_model = ds.field("model_id").isin(list(model_ids))
    mine = ((ds.field("cohort") == cohort) & ds.field("model_id").is_null()) | of_model
    return warehouse.table("runs").to_table(filter=mine).sort_by("started").to_pylist()


def quarantined(warehouse: Store, cohort: str) -> list[Row]:
    """Inputs of a cohort in quarantine by reason, most frequent first: reason, inputs, example.

    An input counts once however often it was tried, with the reason of its last try.
    """
    columns = ["fingerprint", "reason", "message", "paths", "time"]
    rows = warehouse.table("quarantine").to_table(columns, filter=ds.field("cohort") == cohort).sort_by("time")
    last = {(row["fingerprint"], tuple(row["paths"])): row for row in rows.to_pylist()}
    reasons: dict[str, list[Row]] = {}
    for row in last.values():
        reasons.setdefault(row["reason"], []).append(row)
    found = sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    return [{"reason": reason, "inputs": len(rows), "example": rows[0]["message"]} for reason, rows in found]


def series_of(warehouse: Store, cohort: str) -> list[Row]:
    """What the DICOM series of a cohort are and what became of them, most frequent first: decision, what, series.

    `what` is the role of those that were selected, else the reason. None for an archive without DICOM.
    """
    if not warehouse.parts("series"):
        return []
    rows = warehouse.table("series").to_table(["decision", "reason", "role"], filter=ds.field("cohort") == cohort)
    counts = Counter(
        (row["decision"], row["role"] if row["decision"] == "selected" else row["reason"]) for row in rows.to_pylist()
    )
    found = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"decision": decision, "what": what, "series": number} for (decision, what), number in found]


def splits_of(scans: Iterable[Row], rows: Sequence[Row], region: str) -> list[Row]:
    """Per split: patients, scans, slices, scans with labels, and the median of the true volumes of `region`."""
    found = []
    every = list(scans)
    judged = {row["scan_id"] for row in rows if row["truth_volume_ml"] is not None}
    for split in ("train", "validation", "test"):
        mine = [scan for scan in every if scan["split"] == split]
        volumes = _known(row["truth_volume_ml"] for row in rows if row["split"] == split and row["region"] == region)
        if mine:
            found.append(
                {
                    "split": split,
                    "patients": len({scan["subject"] for scan in mine}),
                    "scans": len(mine),
                    "slices": sum(scan["shape"][0] for scan in mine if is_stored(scan)),
                    "labelled": sum(scan["label_convention"] is not None or scan["scan_id"] in judged for scan in mine),
                    "volume_ml": median(volumes) if volumes else None,
                }
            )
    return found


def grids_of(scans: Iterable[Row]) -> list[Row]:
    """The different grids of the scans, most frequent first: shape, spacing in mm, orientation, modalities, scans."""
    counts: Counter[tuple[Any, ...]] = Counter(
        (
            tuple(scan["shape"]),
            tuple(round(step, 2) for step in scan["spacing_mm"]),
            scan["orientation"],
            tuple(scan["modalities"]),
        )
        for scan in scans
        if is_stored(scan)
    )
    return [
        {"shape": shape, "spacing_mm": spacing, "orientation": orientation, "modalities": modalities, "scans": number}
        for (shape, spacing, orientation, modalities), number in sorted(
            counts.items(), key=lambda item: (-item[1], item[0])
        )
    ]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _finite(row: Row) -> Row:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def _with_name(row: Row, scan: Row) -> Row:
    return {**row, "name": scan_name(scan)}


def scan_name(scan: Row) -> str:
    """How a scan is called on the page: its subject, with the session where there is more than the default."""
    return scan["subject"] if scan["session"] == "1" else f"{scan['subject']} · {scan['session']}"


def _cells(values: Sequence[pa.BinaryScalar]) -> np.ndarray:
    return np.stack([np.frombuffer(value.as_buffer(), np.uint8) for value in values])
