"""Whether a face may be seen: heads whose size and parts are known."""

import numpy as np
import pytest

from segpipe.core.faces import may_show_face

SHAPE, MM = (64, 80, 72), (3.0, 3.0, 3.0)


def ellipsoid(radii_mm: tuple[float, float, float]) -> np.ndarray:
    grid = np.indices(SHAPE).astype(float)
    middle = (np.array(SHAPE) - 1) / 2
    return sum(((grid[axis] - middle[axis]) * MM[axis] / radii_mm[axis]) ** 2 for axis in range(3)) <= 1


BRAIN = ellipsoid((65, 85, 70))  # 1.6 litres
HEAD = ellipsoid((92, 105, 92))  # 3.7 litres
SKULL = ellipsoid((78, 96, 80)) & ~ellipsoid((70, 88, 73))


def image(mask: np.ndarray, dtype: str = "i2") -> np.ndarray:
    noise = np.random.default_rng(0).integers(50, 200, SHAPE)
    return np.where(mask, noise, 0).astype(dtype)


@pytest.mark.parametrize("dtype", ["i2", "f4", ">u2"])
def test_a_brain_alone_shows_none(dtype):
    assert not may_show_face([image(BRAIN, dtype), image(BRAIN, dtype)], MM)
    assert not may_show_face([image(BRAIN, dtype) - np.ones(SHAPE, dtype)], MM)


def test_a_brain_that_reaches_the_lowest_slice_shows_none():
    assert not may_show_face([np.roll(image(BRAIN), -10, axis=0)], MM)


def test_a_brain_whose_background_is_not_a_number_shows_none():
    assert not may_show_face([np.where(BRAIN, 1.5, np.nan)], MM)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(image(HEAD), id="air is zero"),
        pytest.param(image(HEAD & ~SKULL), id="air and bone are zero"),
        pytest.param(image(HEAD) + np.random.default_rng(1).integers(0, 9, SHAPE), id="air is noise"),
        pytest.param(image(HEAD)[20:40], id="a slab of a head"),
        pytest.param(image(HEAD)[:, 20:60, 20:50], id="a piece of a head"),
    ],
)
def test_a_head_may(head):
    assert may_show_face([head], MM)


def test_one_modality_that_is_not_stripped_is_enough():
    assert may_show_face([image(BRAIN), image(HEAD)], MM)
