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
from segpipe.core.regions import CONVENTIONS
from segpipe.core.runs import Runs, region_runs

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
    affine = np.array(scan["affine"], np.float64).reshape(4, 4)
    true_regions = {} if truth is None else _regions(truth, scan["label_convention"])
    brain_ml = scan["brain_voxels"] * abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    rows = []
    for region, runs in _regions(labels, convention).items():
        measures = metrics.measure(runs, affine)
        true = true_regions.get(region)
        agreement = dict.fromkeys(_AGREEMENT) if true is None else _agreement(runs, true, affine)
        row = {
            **{name: scan[name] for name in ("scan_id", "cohort", "subject", "session", "split", "fingerprint")},
            "region": region,
            **asdict(measures),
            "mean_probability": mean_probability.get(region),
            "max_probability": max_probability.get(region),
            "qc_flags": qc_flags(runs, measures.volume_ml, brain_ml, mean_probability.get(region)),
            **agreement,
        }
        rows.append({name: _null(value) for name, value in row.items()})
    return rows


def _agreement(runs: Runs, truth: Runs, affine: np.ndarray) -> dict[str, Any]:
    whole = metrics.compare(runs, truth, affine)
    found = lesion_wise(runs, truth, spacing_mm(affine).tolist(), hd95_mm=whole.hd95_mm)
    scores = [{name: _null(value) for name, value in score._asdict().items()} for score in found.scores]
    return asdict(whole) | {
        "lesion_scores": scores,
        "false_lesions": found.false_voxels,
    }


def _regions(labels: np.ndarray, convention: str | None) -> dict[str, Runs]:
    """Each region of a label map, uint8 (slices, rows, columns)."""
    if convention is None or convention not in CONVENTIONS:
        return {}
    return region_runs(labels, CONVENTIONS[convention].regions)


def _null(value: Any) -> Any:
    """NaN is null in a table; points are lists."""
    if isinstance(value, float) and np.isnan(value):
        return None
    return list(value) if isinstance(value, tuple) else value
