"""The pictures of the report: learning curve, volumes, strips of slices with outlines, and surfaces to turn."""

import json
import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from segpipe.core.faces import may_show_face
from segpipe.core.intensity import brain_mask
from segpipe.core.regions import CONVENTIONS, LabelConvention, to_regions
from segpipe.report import charts, overlays, results, solids
from segpipe.report.results import ReportedModel, Row, Source


def history_charts(model: ReportedModel) -> list[Row]:
    if not model.history:
        return []
    names = [name for name in model.history[0] if name != "epoch"]
    losses = [name for name in names if "loss" in name]
    dices = [name for name in names if "dice" in name and name not in losses]
    dices = [name for name in dices if name.startswith("val")] or dices
    found = [
        ("Loss", "loss", losses, None),
        ("Validation Dice while training", "Dice", dices, charts.Axis("Dice", 0.0, 1.0)),
    ]
    return [_history_chart(model.history, title, label, columns, y) for title, label, columns, y in found if columns]


def _history_chart(
    history: Sequence[dict[str, float]], title: str, label: str, columns: Sequence[str], y: charts.Axis | None
) -> Row:
    epochs = [row.get("epoch", number + 1.0) for number, row in enumerate(history)]
    series = [_measured(name, epochs, [row[name] for row in history]) for name in columns]
    y = y or charts.spanning(label, [value for one in series for value in one.y], zero=True)
    return {
        "title": title,
        "picture": charts.line_chart(title, series, charts.spanning("epoch", epochs, whole=True), y),
        "legend": [
            {"symbol": charts.line_symbol(number), "name": _series_name(name)} for number, name in enumerate(columns)
        ],
    }


def _measured(name: str, epochs: Sequence[float], values: Sequence[float]) -> charts.Series:
    """A series of the epochs that have a value: not every epoch is validated."""
    points = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if math.isfinite(value)]
    return charts.Series(name, [epoch for epoch, _ in points], [value for _, value in points])


def _series_name(column: str) -> str:
    words = column.replace("/", "_").split("_")
    if "dice" in words:
        return " ".join(word for word in words if word not in ("val", "validation", "dice")) or "all regions"
    return " ".join("validation" if word == "val" else word for word in words)


def volume_charts(rows: Sequence[Row], regions: Sequence[str], split: str) -> list[Row]:
    known = [row for row in rows if row["truth_volume_ml"] is not None]
    if not known:
        return []
    series = []
    for region in regions:
        mine = [row for row in known if row["region"] == region]
        series.append(
            charts.Series(
                region,
                [row["truth_volume_ml"] for row in mine],
                [row["volume_ml"] for row in mine],
                [f"{row['name']}: {row['volume_ml']:.1f} of {row['truth_volume_ml']:.1f} ml" for row in mine],
                [row["split"] != split for row in mine],
            )
        )
    values = [value for one in series for value in (*one.x, *one.y)]
    x, y = (charts.spanning(f"{kind} volume, ml", values, zero=True) for kind in ("true", "predicted"))
    return [
        {
            "title": "Volumes, predicted and true",
            "picture": charts.scatter_chart("Volumes, predicted and true", series, x, y),
            "legend": [{"symbol": charts.mark_symbol(number), "name": region} for number, region in enumerate(regions)],
            "remark": f"Filled: {split} patients; hollow: all others. On the dashed line both volumes are equal.",
        }
    ]


def strip(
    source: Source, scan: Row, model: ReportedModel, convention: LabelConvention, rows: Sequence[Row], count: int
) -> Row:
    masks = results.read_masks(source, scan, model.model_id)
    predicted = to_regions(masks.predicted, convention).astype(bool)
    truth = _true_regions(scan, masks, convention)
    both = predicted if truth is None else predicted | truth
    wrong = np.zeros_like(predicted) if truth is None else predicted ^ truth
    wrong_pixels = wrong[..., 0].sum(axis=(1, 2))
    box = scan["brain_box"]
    indices = overlays.telling_slices(both[..., 0].sum(axis=(1, 2)), wrong_pixels, (box[0], box[1]), count)
    part = _in_plane_window(scan, both[..., 0])
    modality = results.background_modality(scan["modalities"])
    images = results.read_channel(source, scan, modality, indices)
    low, high = results.contrast_window(scan, modality)
    panels = []
    for index in indices:
        picture = overlays.grey(images[index][part], low, high)
        panels.append(
            overlays.Panel(
                slice_index=index,
                most_wrong=bool(wrong_pixels.any()) and index == int(wrong_pixels.argmax()),
                picture=overlays.png(picture),
                width=picture.shape[1],
                height=picture.shape[0],
                width_mm=picture.shape[1] * scan["spacing_mm"][2],
                height_mm=picture.shape[0] * scan["spacing_mm"][1],
                truth=None if truth is None else _outlines(truth[index][part], convention.region_names),
                predicted=_outlines(predicted[index][part], convention.region_names),
            )
        )
    mine = [row for row in rows if row["scan_id"] == scan["scan_id"]]
    return {"name": results.scan_name(scan), "panels": panels, "rows": mine}


def solid(source: Source, scan: Row, model: ReportedModel, convention: LabelConvention, rows: Sequence[Row]) -> Row:
    """Brain and regions of one scan as surfaces, with its name and the Dice of each region.

    Where the scan may show a face there is no surface but those of the regions, because that of a head which was not
    stripped would be a likeness of the patient.
    """
    masks = results.read_masks(source, scan, model.model_id)
    kinds = {"predicted": to_regions(masks.predicted, convention).astype(bool)}
    if (truth := _true_regions(scan, masks, convention)) is not None:
        kinds["truth"] = truth
    modality = results.surface_modality(scan["modalities"])
    planes = results.read_channel(source, scan, modality, range(scan["shape"][0]))
    image = np.stack([planes[index] for index in range(scan["shape"][0])])
    regions = {
        kind: {name: maps[..., place] for place, name in enumerate(convention.region_names) if maps[..., place].any()}
        for kind, maps in kinds.items()
    }
    affine = np.reshape(scan["affine"], (4, 4))
    window = results.contrast_window(scan, modality)
    faceless = not may_show_face([image], scan["spacing_mm"])
    shell = brain_mask([image]) if faceless else np.zeros(image.shape, bool)
    content = solids.solids(image, shell, regions, affine, window)
    dices = [
        f"{row['region'].replace('_', ' ')}: Dice {'–' if row['dice'] is None else format(row['dice'], '.3f')}"
        for row in rows
        if row["scan_id"] == scan["scan_id"]
    ]
    return {
        "name": results.scan_name(scan),
        "facts": ", ".join(dices if faceless else [*dices, "without a surface of the head, which is not stripped"]),
        "json": Markup(json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")),
    }


def _true_regions(scan: Row, masks: results.Masks, convention: LabelConvention) -> np.ndarray | None:
    """Bool (S, H, W, R) of the truth; None if there is none, or none of the regions that the model predicts."""
    if masks.truth is None or (own := CONVENTIONS[scan["label_convention"]]).region_names != convention.region_names:
        return None
    return to_regions(masks.truth, own).astype(bool)


def _in_plane_window(scan: Row, regions: np.ndarray, margin: int = 3) -> tuple[slice, slice]:
    box = scan["brain_box"]
    parts = []
    for axis in (1, 2):
        used = np.flatnonzero(regions.any(axis=(0, 3 - axis)))
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (box[2 * axis], box[2 * axis + 1])
        parts.append(overlays.window((box[2 * axis], box[2 * axis + 1]), low, high, scan["shape"][axis], margin))
    return parts[0], parts[1]


def _outlines(maps: np.ndarray, regions: Sequence[str]) -> dict[str, str]:
    return {region: overlays.outline(maps[..., place]) for place, region in enumerate(regions)}
