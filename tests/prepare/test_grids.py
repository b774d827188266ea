"""Arrays move between grids as points do."""

import numpy as np
import pytest

from segpipe.prepare.grids import Grid, box_grid, resample


def _grid(shape, spacing, origin=(0, 0, 0), order=(0, 1, 2), signs=(1, 1, 1)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * spacing[axis]
    affine[:3, 3] = origin
    return Grid(shape, affine)


def _ramp(grid: Grid) -> np.ndarray:
    """x + 2 y + 3 z in mm at every voxel: linear interpolation knows it everywhere."""
    ijk = np.indices(grid.shape).reshape(3, -1)
    xyz = grid.affine[:3, :3] @ ijk + grid.affine[:3, 3:]
    return (np.array([1, 2, 3]) @ xyz).reshape(grid.shape).astype(np.float32)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, 1)], ids=str)
def test_a_value_stays_where_it_is_in_space_whatever_the_order_of_the_axes(signs):
    origin = [0 if sign > 0 else 20 for sign in signs]
    source = _grid((21, 21, 21), (1, 1, 1), origin, (0, 1, 2), signs)
    target = _grid((5, 6, 7), (1.5, 2, 1), (4, 5, 6), (2, 0, 1))
    np.testing.assert_allclose(resample(_ramp(source), source, target), _ramp(target), atol=1e-3)


def test_a_transform_maps_points_of_the_target_to_points_of_the_source():
    grid = _grid((20, 20, 20), (1, 1, 1))
    turn = np.eye(4)
    turn[:2, :2] = [[0, -1], [1, 0]]
    turn[:3, 3] = [19, 0, 0]  # (x, y) -> (19 - y, x)
    array = np.random.default_rng(0).integers(0, 9, grid.shape).astype(np.int16)
    moved = resample(array, grid, grid, turn, nearest=True)
    assert moved.dtype == np.int16
    assert (moved[3, 5] == array[14, 3]).all()


def test_what_lies_beyond_the_source_gets_the_value_for_outside():
    grid = _grid((4, 4, 4), (1, 1, 1))
    far = _grid((2, 2, 2), (1, 1, 1), (50, 0, 0))
    assert (resample(np.ones(grid.shape), grid, far, outside=-3) == -3).all()


def test_a_box_around_a_mask_has_its_margin_on_every_side():
    grid = _grid((40, 30, 10), (1, 2, 4), (7, 8, 9), signs=(1, -1, 1))
    mask = np.zeros(grid.shape, bool)
    mask[10:21, 5:11, 4:7] = True
    box = box_grid(grid, mask, 1.0, 3.0)
    assert box.shape == (17, 17, 15)
    np.testing.assert_allclose(box.affine @ [3, 3, 3, 1], grid.affine @ [10, 5, 4, 1])
    assert grid.voxel_ml == pytest.approx(0.008)
