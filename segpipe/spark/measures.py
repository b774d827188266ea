"""Rows of `segmentations` from label maps: what segment writes and evaluate computes again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from segpipe.core import metrics
from segpipe.core.lesions import lesion_wise
from segpipe.core.orientation import spacing_mm
from segpipe.core.quality import qc_flags
from segpipe.core.regions import CONVENTIONS, to_regions

_AGREEMENT = (
    *("truth_voxels", "truth_volume_ml", "tp", "fp", "fn", "dice", "hd95_mm"),
    *("lesion_scores", "false_lesions"),
)

Probabilities = Mapping[str, float | None]


def region_rows(
    scan: Mapping[str, Any],
    labels: np.ndarray,
    convention: str,
    truth: np.ndarray | None,
    mean_probability: Probabilities,
    max_probability: Probabilities,
) -> list[dict[str, Any]]:
    """One row per region of `convention`, without the columns that name model and run.

    `scan` is the scan's row of `scans`; `labels` uint8 and `truth` (of the scan's own convention, or None), both
    (slices, rows, columns). Measures without a meaning are None, and so is all agreement in a region that the truth's
    convention does not know.
    """
    box = _surroundings(labels if truth is None else labels | truth)
    affine = np.array(scan["affine"], np.float64).reshape(4, 4)
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    regions = _masks(labels[box], convention)
    true_regions = {} if truth is None else _masks(truth[box], scan["label_convention"])
    brain_ml = scan["brain_voxels"] * abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    rows = []
    for region, mask in regions.items():
        parts = metrics.components(mask)
        measures = metrics.measure(mask, affine, parts)
        true = true_regions.get(region)
        agreement = dict.fromkeys(_AGREEMENT) if true is None else _agreement(mask, true, affine, parts)
        row = {
            **{name: scan[name] for name in ("scan_id", "cohort", "subject", "session", "split", "fingerprint")},
            "region": region,
            **asdict(measures),
            "mean_probability": mean_probability.get(region),
            "max_probability": max_probability.get(region),
            "qc_flags": qc_flags(mask, measures.volume_ml, brain_ml, mean_probability.get(region), parts),
            **agreement,
        }
        rows.append({name: _null(value) for name, value in row.items()})
    return rows


def _agreement(mask: np.ndarray, truth: np.ndarray, affine: np.ndarray, parts: metrics.Components) -> dict[str, Any]:
    whole = metrics.compare(mask, truth, affine)
    found = lesion_wise(mask, truth, spacing_mm(affine).tolist(), predicted=parts, hd95_mm=whole.hd95_mm)
    scores = [{name: _null(value) for name, value in score._asdict().items()} for score in found.scores]
    return asdict(whole) | {
        "lesion_scores": scores,
        "false_lesions": found.false_voxels,
    }


def _surroundings(labels: np.ndarray) -> tuple[slice, slice, slice]:
    """The box around all labels, a voxel wider where the volume goes on, so that a mask touches both borders or none.

    Most of a scan has no label, and every measure would look at it again.
    """
    sides = []
    for axis in range(3):
        used = np.flatnonzero(labels.any(axis=tuple({0, 1, 2} - {axis})))
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        sides.append(slice(max(first - 1, 0), min(last + 1, labels.shape[axis])))
    return sides[0], sides[1], sides[2]


def _masks(labels: np.ndarray, convention: str | None) -> dict[str, np.ndarray]:
    """Each region of a label map as bool (slices, rows, columns)."""
    if convention not in CONVENTIONS:
        return {}
    known = CONVENTIONS[convention]
    tables = to_regions(np.array([0, *known.labels]), known).astype(bool)
    found = {}
    for place, region in enumerate(known.region_names):
        table = np.zeros(256, bool)
        table[[0, *known.labels]] = tables[:, place]
        found[region] = table[labels]
    return found


def _null(value: Any) -> Any:
    """NaN is null in a table; points are lists."""
    if isinstance(value, float) and np.isnan(value):
        return None
    return list(value) if isinstance(value, tuple) else value
