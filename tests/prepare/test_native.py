"""Masks go back to the grid of each series with their volumes."""

import numpy as np
import pytest
import scipy.ndimage

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


def _tilted(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


@pytest.mark.parametrize("label", [2, 4], ids=["same label", "another label"])
@pytest.mark.parametrize(
    ("size", "thickness", "degrees"),
    [((5, 5, 4), 6.0, 8), ((4, 4, 3), 5.0, 10), ((6, 6, 2), 6.0, 0), ((3, 3, 2), 5.0, 0)],
)
def test_a_satellite_stays_where_it_is_with_its_volume(label, size, thickness, degrees):
    """A far smaller lesion, thinner than a slice: none of its voxels is filled as much as those of the large one."""
    space = _grid((100, 100, 100), (1, 1, 1))
    labels = np.zeros(space.shape, np.uint8)
    labels[(np.square(np.indices(space.shape) - 35).sum(axis=0)) <= 400] = 2
    satellite = tuple(slice(first, first + extent) for first, extent in zip((75, 75, 52), size, strict=True))
    labels[satellite] = label
    target = _grid((100, 100, 24), (1, 1, thickness), (0, -15, -5))
    native = to_native(labels, space, target, _tilted(degrees))
    ids, count = scipy.ndimage.label(native, np.ones((3, 3, 3)))
    assert count == 2
    small = ids == int(np.argmin(np.bincount(ids.ravel())[1:])) + 1
    assert set(np.unique(native[small])) == {label}
    assert np.count_nonzero(small) == pytest.approx(np.prod(size) / thickness, abs=1)
    assert np.count_nonzero(native) * thickness == pytest.approx(np.count_nonzero(labels), rel=0.02)
    middle = (_tilted(degrees) @ [*(np.array([75, 75, 52]) + (np.array(size) - 1) / 2), 1])[:3]
    drawn = target.affine[:3, :3] @ np.argwhere(small).mean(axis=0) + target.affine[:3, 3]
    assert np.abs(drawn - middle).max() <= thickness / 2


def test_no_voxel_gets_a_label_that_does_not_reach_it():
    """Specks of each label at random: many are smaller than a voxel of the target."""
    rng = np.random.default_rng(5)
    labels = np.zeros((40, 40, 40), np.uint8)
    for label in (1, 2, 4):
        for corner in rng.integers(2, 34, (12, 3)):
            labels[tuple(slice(one, one + rng.integers(1, 4)) for one in corner)] = label
    native = to_native(labels, _grid(labels.shape, (1, 1, 1)), _grid((40, 40, 8), (1, 1, 5), (0, 0, 2)), np.eye(4))
    for label in (1, 2, 4):
        reached = scipy.ndimage.binary_dilation(labels == label, np.ones((3, 3, 3)))
        slabs = reached.reshape(40, 40, 8, 5).any(axis=3)
        assert not ((native == label) & ~slabs).any()
        assert np.count_nonzero(native == label) * 5 == pytest.approx(np.count_nonzero(labels == label), rel=0.1)


def test_noise_keeps_its_volume_as_well():
    """A voxel in seven has a label, at random, as an untrained network gives."""
    rng = np.random.default_rng(7)
    labels = np.where(rng.random(SPACE.shape) < 0.15, rng.choice([1, 2, 4], SPACE.shape), 0).astype(np.uint8)
    target = _grid((80, 70, 24), (1, 1.2, 4), (-10, -12, -15))
    native = to_native(labels, SPACE, target, _turn(6, (0, 0, 0)))
    for region in ((1,), (2,), (4,), (1, 2, 4)):
        volume = np.isin(labels, region).sum() * SPACE.voxel_ml
        assert np.isin(native, region).sum() * target.voxel_ml == pytest.approx(volume, rel=0.02)


@pytest.mark.parametrize("spacing", [(0.9, 0.9, 6.0), (0.5, 0.5, 3.3)], ids=str)
def test_nested_labels_have_no_holes_and_stay_in_the_middle(spacing):
    labels, matrix = _labels(), _turn(12, (3.3, -8.1, 4.7))
    target = _grid(tuple(int(np.ceil(100 / mm)) for mm in spacing), spacing, (-20, -20, -20))
    native = to_native(labels, SPACE, target, matrix)
    assert (scipy.ndimage.binary_fill_holes(native > 0) == (native > 0)).all()
    middle = (matrix @ [28, 30, 31, 1])[:3]
    for label in (1, 2, 4):
        drawn = target.affine[:3, :3] @ np.argwhere(native == label).mean(axis=0) + target.affine[:3, 3]
        assert np.linalg.norm(drawn - middle) < spacing[2] / 6


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
