"""Masks go back to the grid of each series with their volumes."""

import numpy as np
import pytest

from segpipe.prepare.grids import Grid, resample
from segpipe.prepare.native import to_native


def _grid(shape, spacing, origin=(0, 0, 0)) -> Grid:
    return Grid(
        shape,
        np.array(
            [
                [spacing[0], 0, 0, origin[0]],
                [0, spacing[1], 0, origin[1]],
                [0, 0, spacing[2], origin[2]],
                [0, 0, 0, 1.0],
            ]
        ),
    )


SPACE = _grid((60, 60, 60), (1, 1, 1))


def _labels() -> np.ndarray:
    """A shell of label 2 around label 4 around label 1, and a far small ball of label 2."""
    grid = np.indices(SPACE.shape)
    distance = np.sqrt((np.square(grid - np.array([28, 30, 31])[:, None, None, None])).sum(axis=0))
    labels = np.zeros(SPACE.shape, np.uint8)
    labels[distance < 17] = 2
    labels[distance < 11] = 4
    labels[distance < 7] = 1
    return labels


def _turn(degrees: float, shift) -> np.ndarray:
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift
    return matrix


@pytest.mark.parametrize(
    "spacing", [(0.72, 0.72, 4.0), (0.5, 0.5, 3.3), (1, 1, 1), (0.9, 5.0, 0.9)], ids=lambda spacing: str(spacing)
)
def test_every_region_over_a_millilitre_keeps_its_volume_within_two_percent(spacing):
    labels = _labels()
    shape = tuple(int(np.ceil(100 / mm)) for mm in spacing)
    target = _grid(shape, spacing, (-20, -20, -20))
    native = to_native(labels, SPACE, target, _turn(12, (3.3, -8.1, 4.7)))
    for region in ((1,), (4,), (1, 4), (1, 2, 4)):
        volume = np.isin(labels, region).sum() * SPACE.voxel_ml
        assert volume > 1
        assert np.isin(native, region).sum() * target.voxel_ml == pytest.approx(volume, rel=0.02)


def test_there_and_back_is_the_same_mask():
    """Native to the space (as a prepared mask is made) and back; measured 0.996."""
    matrix = _turn(9, (2.2, -6.0, 3.0))
    native_grid = _grid((130, 130, 30), (0.72, 0.72, 3.0), (-15, -15, -10))
    drawn = to_native(_labels(), SPACE, native_grid, matrix)
    there = resample(drawn, native_grid, SPACE, matrix, nearest=True)
    back = to_native(there, SPACE, native_grid, matrix)
    one, other = drawn > 0, back > 0
    assert 2 * (one & other).sum() / (one.sum() + other.sum()) >= 0.99


def test_what_lies_outside_the_field_of_view_is_left_out():
    labels = _labels()
    half = _grid((60, 60, 20), (1, 1, 1), (0, 0, 31))
    native = to_native(labels, SPACE, half, np.eye(4))
    assert (native == labels[:, :, 31:51]).all()
    assert not to_native(labels, SPACE, _grid((5, 5, 5), (1, 1, 1), (500, 0, 0)), np.eye(4)).any()
    assert not to_native(np.zeros_like(labels), SPACE, half, np.eye(4)).any()
