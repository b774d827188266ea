"""Measures of regions whose place and size are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segpipe.core import metrics
from segpipe.core.regions import CONVENTIONS, to_regions
from segpipe.pipelines.measures import region_rows

AFFINE = np.array([[0, 0, 2.0, -30], [0, -1.5, 0, 40], [3, 0, 0, 5], [0, 0, 0, 1]])


def scan(convention: str | None = "brats") -> dict[str, Any]:
    identity = dict.fromkeys(("scan_id", "cohort", "subject", "session", "split", "fingerprint"), "x")
    return identity | {"label_convention": convention, "affine": AFFINE.ravel().tolist(), "brain_voxels": 5000}


def rows(labels: np.ndarray, truth: np.ndarray | None, **options: Any) -> dict[str, dict[str, Any]]:
    found = region_rows(scan(**options), labels, "brats", truth, {"whole_tumour": 0.9}, {"whole_tumour": 1.0})
    return {row["region"]: row for row in found}


@pytest.mark.parametrize("seed", range(6))
def test_measures_are_those_of_the_whole_volume(seed: int) -> None:
    """Whatever is cut away before measuring changes nothing."""
    rng = np.random.default_rng(seed)
    labels, truth = np.zeros((2, 9, 14, 12), np.uint8)
    for volume in (labels, truth):
        for label in (2, 1, 4):
            start = rng.integers(0, 8, 3)
            volume[tuple(slice(at, at + size) for at, size in zip(start, rng.integers(1, 6, 3), strict=True))] = label
    regions, true = (to_regions(volume, CONVENTIONS["brats"]).astype(bool) for volume in (labels, truth))
    for place, (region, row) in enumerate(rows(labels, truth).items()):
        mask, real = regions[..., place], true[..., place]
        measured = vars(metrics.measure(mask, AFFINE)) | vars(metrics.compare(mask, real, AFFINE))
        for name, value in measured.items():
            undefined = value is None or (isinstance(value, float) and np.isnan(value))
            assert row[name] == (None if undefined else pytest.approx(value)), f"{region} {name}"
        faces = any(np.take(mask, (0, -1), axis=axis).any() for axis in range(3))
        assert ("touches_border" in row["qc_flags"]) == faces


def test_nothing_predicted_and_nothing_there() -> None:
    empty = np.zeros((4, 5, 6), np.uint8)
    row = rows(empty, empty)["whole_tumour"]
    assert (row["voxels"], row["volume_ml"], row["lesions"], row["truth_voxels"], row["tp"]) == (0, 0.0, 0, 0, 0)
    assert [row[name] for name in ("centroid_mm", "box_mm", "longest_diameter_mm", "dice", "hd95_mm")] == [None] * 5
    assert row["qc_flags"] == []


def test_without_truth_there_is_no_agreement() -> None:
    labels = np.full((2, 3, 4), 4, np.uint8)
    row = rows(labels, None, convention=None)["enhancing_tumour"]
    assert row["voxels"] == 24
    assert row["box_mm"] == [-30, 37, 5, -24, 40, 8]
    assert {row[name] for name in ("truth_voxels", "truth_volume_ml", "tp", "fp", "fn", "dice", "hd95_mm")} == {None}


def test_truth_in_another_convention_is_compared_by_region() -> None:
    """BraTS 2023 calls enhancing tumour 3; Decathlon calls oedema 1."""
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 1:3, 1:4] = 4
    labels[2, 2, 2] = 2
    for convention, enhancing, oedema in (("brats2023", 3, 2), ("decathlon", 3, 1)):
        truth = np.select([labels == 4, labels == 2], [enhancing, oedema]).astype(np.uint8)
        assert {row["dice"] for row in rows(labels, truth, convention=convention).values()} == {1.0}


def test_a_region_that_the_truth_does_not_know_is_not_judged() -> None:
    labels = np.full((2, 3, 4), 1, np.uint8)
    assert {row["tp"] for row in rows(labels, labels, convention="binary").values()} == {None}
