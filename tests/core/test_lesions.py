"""Lesion-wise agreement on masks whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from segpipe.core.lesions import dilated, lesion_wise, mean_lesion_dice
from segpipe.core.metrics import counts, dice, hd95_mm, lesions
from segpipe.core.runs import Runs

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
    assert mean_lesion_dice(found.scores, found.false_voxels) == pytest.approx(first.dice / 3)
    assert mean_lesion_dice(found.scores, found.false_voxels, least_voxels=5) == pytest.approx(first.dice / 2)
    assert mean_lesion_dice(found.scores, found.false_voxels, least_voxels=9) == pytest.approx(first.dice)


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
    assert np.isnan(mean_lesion_dice([], []))
    assert lesion_wise(something, nothing, UNIT) == ([], [27])
    assert mean_lesion_dice([], [27]) == 0
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


def plainly(pred: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], reach: int) -> tuple[list, list[int]]:
    """The definition, on whole arrays."""
    full, wide = np.ones((3, 3, 3)), ndimage.generate_binary_structure(3, 2)
    parts, _ = ndimage.label(pred, full)
    near = ndimage.binary_dilation(truth, wide, iterations=reach) if truth.any() else truth
    joined, number = ndimage.label(near, full)
    scores, belonging = [], set()
    for place in range(1, number + 1):
        members = set(np.unique(parts[joined == place]).tolist()) - {0}
        belonging |= members
        found, lesion = np.isin(parts, list(members)), truth & (joined == place)
        tp, fp, fn = counts(found, lesion)
        scores.append((tp + fn, tp + fp, tp, dice(tp, fp, fn), hd95_mm(found, lesion, spacing)))
    scores.sort(key=lambda score: (-score[0], -score[1], -score[3]))
    sizes = np.bincount(parts.ravel())
    return scores, sorted((int(sizes[part]) for part in set(range(1, len(sizes))) - belonging), reverse=True)


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.sampled_from([0.0, 0.002, 0.01, 0.1])] * 2),
    st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * 3),
    st.integers(1, 4),
)
def test_it_is_what_the_definition_says(
    seed: int, shares: tuple[float, float], spacing: tuple[float, float, float], reach: int
) -> None:
    rng = np.random.default_rng(seed)
    pred, truth = rng.random((2, 8, 20, 22)) < np.array(shares)[:, None, None, None]
    truth[2:4, 3:6, 0:3] |= bool(seed % 2)
    found = lesion_wise(pred, truth, spacing, reach)
    scores, false_voxels = plainly(pred, truth, spacing, reach)
    assert found.false_voxels == false_voxels
    assert [score[:3] for score in found.scores] == [score[:3] for score in scores]
    np.testing.assert_allclose([score[3:] for score in found.scores], [score[3:] for score in scores], atol=1e-9)


@given(
    st.tuples(*[st.integers(1, 9)] * 3).flatmap(
        lambda shape: hnp.arrays(bool, shape, elements=st.integers(0, 6).map(lambda n: n == 0))
    ),
    st.integers(0, 4),
)
def test_dilation_is_that_by_18_neighbours_within_the_array(mask: np.ndarray, times: int) -> None:
    mask[tuple(length // 2 for length in mask.shape)] = True
    wide = ndimage.generate_binary_structure(3, 2)
    expected = ndimage.binary_dilation(mask, wide, iterations=times) if times else mask
    found = dilated(Runs.of(mask), times)
    assert found.shape == mask.shape
    np.testing.assert_array_equal(found.starts, Runs.of(expected).starts)
    np.testing.assert_array_equal(found.stops, Runs.of(expected).stops)


def test_masks_of_other_shapes_or_types() -> None:
    with pytest.raises(ValueError, match="two grids"):
        lesion_wise(np.zeros((2, 2, 2), bool), np.zeros((2, 2, 3), bool), UNIT)
    with pytest.raises(ValueError, match="bool"):
        lesion_wise(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), UNIT)
