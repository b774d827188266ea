"""Masks as runs against the plain definitions on whole arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from segpipe.core.runs import Runs, region_runs, shared

shapes = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7))
masks = shapes.flatmap(lambda shape: hnp.arrays(bool, shape))
pairs = shapes.flatmap(lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape)))


def painted(shape: tuple[int, ...], runs: Runs, values: np.ndarray) -> np.ndarray:
    """An array with the value of each run in its voxels, 0 elsewhere."""
    array = np.zeros(shape, np.int64)
    for (plane, row, first), (_, _, last), value in zip(runs.first.T, runs.last.T, values, strict=True):
        assert not array[plane, row, first : last + 1].any()
        array[plane, row, first : last + 1] = value
    return array


def test_runs_by_hand() -> None:
    mask = np.array([[[1, 1, 0, 1], [1, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 1, 1]]], bool)
    runs = Runs.of(mask)
    assert runs.first.T.tolist() == [[0, 0, 0], [0, 0, 3], [0, 1, 0], [1, 1, 2]]
    assert runs.last.T.tolist() == [[0, 0, 1], [0, 0, 3], [0, 1, 0], [1, 1, 3]]
    assert runs.lengths.tolist() == [2, 1, 1, 2]
    assert runs.components.sizes.tolist() == [6]  # across slices at a corner
    assert runs.planar_components.sizes.tolist() == [3, 1, 2]
    assert Runs.of(runs) is runs


@given(masks)
def test_runs_hold_the_voxels_of_the_mask_and_no_others(mask: np.ndarray) -> None:
    runs = Runs.of(mask)
    np.testing.assert_array_equal(painted(mask.shape, runs, np.ones(len(runs.starts))), mask)
    np.testing.assert_array_equal(runs.dense([slice(0, length) for length in mask.shape]), mask)
    assert runs.voxels == np.count_nonzero(mask)
    assert runs.slice_voxels.tolist() == np.count_nonzero(mask, axis=(1, 2)).tolist()
    left_free = np.pad(mask, [(0, 0), (0, 0), (1, 0)])
    assert len(runs.starts) == np.count_nonzero(left_free[..., 1:] & ~left_free[..., :-1])


@given(masks)
def test_components_are_those_of_scipy_in_the_same_order(mask: np.ndarray) -> None:
    runs = Runs.of(mask)
    parts, number = ndimage.label(mask, np.ones((3, 3, 3)))
    np.testing.assert_array_equal(painted(mask.shape, runs, runs.components.of_run + 1), parts)
    assert runs.components.sizes.tolist() == np.bincount(parts.ravel(), minlength=number + 1)[1:].tolist()


@given(masks)
def test_planar_components_are_those_of_each_slice(mask: np.ndarray) -> None:
    runs = Runs.of(mask)
    flat = np.zeros((3, 3, 3))
    flat[1] = 1
    parts, _ = ndimage.label(mask, flat)
    np.testing.assert_array_equal(painted(mask.shape, runs, runs.planar_components.of_run + 1), parts)


@given(masks)
def test_the_surface_is_what_an_erosion_by_faces_takes(mask: np.ndarray) -> None:
    run, indices = Runs.of(mask).surface
    np.testing.assert_array_equal(indices.T, np.argwhere(mask & ~ndimage.binary_erosion(mask)))
    first = Runs.of(mask).first
    np.testing.assert_array_equal(first[:2, run], indices[:2])


def test_the_surface_of_a_solid_block_is_its_shell() -> None:
    assert Runs.of(np.ones((5, 6, 7), bool)).surface.indices.shape == (3, 5 * 6 * 7 - 3 * 4 * 5)


@given(pairs)
def test_shared_voxels_are_counted_once(masks: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = (Runs.of(mask) for mask in masks)
    run, other_run, voxels = shared(one, other)
    assert (voxels > 0).all()
    assert voxels.sum() == np.count_nonzero(masks[0] & masks[1])
    assert (one.first[:2, run] == other.first[:2, other_run]).all()


@given(shapes.flatmap(lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 2, 4, 9]))))
def test_regions_are_unions_of_labels(labels: np.ndarray) -> None:
    regions = {"whole": (1, 2, 4), "core": (1, 4), "rim": (4,), "none": (7,)}
    found = region_runs(labels, regions)
    assert list(found) == list(regions)
    for region, members in regions.items():
        expected = Runs.of(np.isin(labels, members))
        np.testing.assert_array_equal(found[region].starts, expected.starts)
        np.testing.assert_array_equal(found[region].stops, expected.stops)


@given(masks, st.tuples(*[st.integers(0, 3)] * 3), st.tuples(*[st.integers(0, 3)] * 3))
def test_a_moved_mask_is_the_padded_one(mask: np.ndarray, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    wide = np.pad(mask, list(zip(before, after, strict=True)))
    moved = Runs.of(mask).moved(np.array(before), wide.shape)
    np.testing.assert_array_equal(moved.starts, Runs.of(wide).starts)
    np.testing.assert_array_equal(moved.stops, Runs.of(wide).stops)


@pytest.mark.parametrize("mask", [np.zeros((2, 2), bool), np.zeros((2, 2, 2), np.uint8)], ids=["flat", "numbers"])
def test_other_arrays_are_refused(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="masks are bool"):
        Runs.of(mask)
