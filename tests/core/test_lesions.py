"""Lesion-wise agreement on masks whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.core.lesions import lesion_wise, mean_dice
from segpipe.core.metrics import lesions

UNIT = (1.0, 1.0, 1.0)


def boxes(*where: tuple[slice, slice, slice], shape: tuple[int, int, int] = (24, 24, 24)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for box in where:
        mask[box] = True
    return mask


def cube(start: int, size: int) -> tuple[slice, slice, slice]:
    side = slice(start, start + size)
    return side, side, side


def test_found_missed_and_false_lesions() -> None:
    truth = boxes(cube(1, 4), cube(18, 2))
    pred = boxes(cube(2, 4), (slice(1, 3), slice(18, 20), slice(1, 2)))
    found = lesion_wise(pred, truth, UNIT)
    first, second = found.scores
    assert first[:3] == (64, 64, 27)
    assert first.dice == pytest.approx(2 * 27 / 128)
    assert second[:4] == (8, 0, 0, 0.0)
    assert np.isnan(second.hd95_mm)
    assert found.false_voxels == [4]
    assert mean_dice(found.scores, found.false_voxels) == pytest.approx(first.dice / 3)
    assert mean_dice(found.scores, found.false_voxels, least_voxels=5) == pytest.approx(first.dice / 2)
    assert mean_dice(found.scores, found.false_voxels, least_voxels=9) == pytest.approx(first.dice)


def test_distance_is_in_millimetres() -> None:
    (score,) = lesion_wise(boxes(cube(4, 2)), boxes((slice(4, 6), slice(4, 6), slice(6, 8))), (1.0, 1.0, 2.5)).scores
    assert score.hd95_mm == pytest.approx(5.0)


@pytest.mark.parametrize(("gap", "together"), [(6, True), (7, False)])
def test_true_lesions_that_are_close_are_one(gap: int, together: bool) -> None:
    """Three dilations from either side bridge six voxels, for touching is enough."""
    truth = boxes((slice(5, 6), slice(5, 6), slice(2, 4)), (slice(5, 6), slice(5, 6), slice(4 + gap, 6 + gap)))
    assert len(lesion_wise(truth, truth, UNIT).scores) == (1 if together else 2)


def test_a_component_may_belong_to_two_lesions() -> None:
    truth = boxes((slice(5, 6), slice(5, 6), slice(0, 4)), (slice(5, 6), slice(5, 6), slice(16, 20)))
    pred = boxes((slice(5, 6), slice(5, 6), slice(0, 20)))
    found = lesion_wise(pred, truth, UNIT)
    assert [score[:3] for score in found.scores] == [(4, 20, 4), (4, 20, 4)]
    assert found.false_voxels == []


def test_nothing() -> None:
    nothing, something = boxes(), boxes(cube(3, 3))
    assert lesion_wise(nothing, nothing, UNIT) == ([], [])
    assert np.isnan(mean_dice([], []))
    assert lesion_wise(something, nothing, UNIT) == ([], [27])
    assert mean_dice([], [27]) == 0
    assert lesion_wise(nothing, something, UNIT).scores[0][:4] == (27, 0, 0, 0.0)


@given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.05), st.floats(0.001, 0.05))
def test_every_voxel_is_accounted_for(seed: int, share: float, other: float) -> None:
    rng = np.random.default_rng(seed)
    truth, pred = rng.random((2, 9, 10, 11)) < np.array([share, other])[:, None, None, None]
    found = lesion_wise(pred, truth, UNIT)
    assert sum(score.truth_voxels for score in found.scores) == truth.sum()
    assert sum(score.tp for score in found.scores) == (truth & pred).sum()
    assert len(found.false_voxels) <= lesions(pred)
    same = lesion_wise(truth, truth, UNIT)
    assert all(score.tp == score.truth_voxels for score in same.scores)
    assert same.false_voxels == []


def test_masks_of_other_shapes_or_types() -> None:
    with pytest.raises(ValueError, match="two grids"):
        lesion_wise(np.zeros((2, 2, 2), bool), np.zeros((2, 2, 3), bool), UNIT)
    with pytest.raises(ValueError, match="bool"):
        lesion_wise(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), UNIT)
