"""Tiles cover a volume, and what is said of them is put together without a seam."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.core.tiles import Blender, cut, gaussian, origins, predict

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(shape=sizes, tile=sizes, overlap=st.floats(0, 0.99))
def test_tiles_cover_every_voxel_and_overlap_by_what_was_asked(shape, tile, overlap):
    seen = np.zeros(shape, int)
    for origin in origins(shape, tile, overlap):
        for place, length, limit in zip(origin, tile, shape, strict=True):
            assert 0 <= place <= limit - length if length <= limit else place == -((length - limit) // 2)
        seen[tuple(slice(max(p, 0), p + n) for p, n in zip(origin, tile, strict=True))] += 1
    assert seen.min() >= 1
    for axis in range(2):
        starts = sorted({origin[axis] for origin in origins(shape, tile, overlap)})
        step = max(1, math.ceil(tile[axis] * (1 - overlap)))
        assert all(0 < b - a <= step for a, b in pairwise(starts))


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "starts"),
    [
        (34, 17, 0.5, [0, 8, 17]),
        (32, 15, 0.5, [0, 6, 11, 17]),
        (100, 10, 0.9, list(range(91))),
        (30, 12, 0.6, [0, 4, 9, 14, 18]),
    ],
)
def test_tiles_of_an_odd_length_are_those_of_nnunet(length: int, tile: int, overlap: float, starts: list[int]):
    """By hand from its rule: as few as overlap by this share of the tile's length, evenly spread."""
    assert [first for (first,) in origins((length,), (tile,), overlap)] == starts


def test_whole_steps_are_those_of_monai():
    assert [first for (first,) in origins((34,), (17,), 0.5, "stepped")] == [0, 8, 16, 17]
    assert [first for (first,) in origins((32,), (16,), 0.5, "stepped")] == [0, 8, 16]


@pytest.mark.parametrize("overlap", [-0.1, 1.0])
def test_an_overlap_that_makes_no_sense(overlap: float):
    with pytest.raises(ValueError, match="overlap by 0 up to"):
        origins((4,), (2,), overlap)


def test_a_tile_is_the_voxels_from_its_origin_on():
    volume = np.arange(1, 13, dtype=np.int16).reshape(3, 4)
    np.testing.assert_array_equal(cut(volume, (1, 2), (2, 2)), [[7, 8], [11, 12]])
    np.testing.assert_array_equal(cut(volume, (-1, 3), (2, 2)), [[0, 0], [4, 0]])
    assert cut(volume, (5, 9), (2, 2)).tolist() == [[0, 0], [0, 0]]
    channels = np.stack([volume, volume * 2], axis=-1)
    assert cut(channels, (0, 0), (1, 2)).tolist() == [[[1, 2], [2, 4]]]


def test_weights_fall_from_the_middle_the_same_to_both_sides():
    weights = gaussian((8, 5, 6))
    assert weights.shape == (8, 5, 6)
    assert weights.dtype == np.float32
    assert weights.max() == np.float32(np.exp(-0.5 * (0.5**2 + (0.5 / 0.75) ** 2)))  # an even length has no middle
    assert gaussian((7, 5, 3)).max() == 1
    assert weights.min() == np.float32(1e-3)
    for axis in range(3):
        np.testing.assert_array_equal(weights, np.flip(weights, axis))
    line = gaussian((16,))  # by hand: one deviation is two voxels
    assert line[9] / line[8] == pytest.approx(np.exp(-0.5 * (0.75**2 - 0.25**2)))


@given(shape=sizes, tile=sizes, overlap=st.floats(0, 0.8), batch=st.integers(1, 5))
def test_a_network_that_looks_at_single_voxels_gives_the_same_tile_by_tile(shape, tile, overlap, batch):
    volume = np.random.default_rng(0).normal(size=(*shape, 2)).astype(np.float32)
    sizes_seen = []

    def network(tiles: np.ndarray) -> np.ndarray:
        sizes_seen.append(len(tiles))
        return np.stack([tiles.sum(-1), tiles[..., 0] * 2, tiles[..., 1] ** 2], axis=-1)

    blended = predict(volume, network, tile, overlap, batch)
    np.testing.assert_allclose(blended, network(volume[None])[0], atol=1e-5)
    assert max(sizes_seen[:-1]) <= batch
    assert blended.dtype == np.float32


def test_where_tiles_differ_the_one_whose_middle_is_nearer_counts_more():
    blender = Blender((6,), (4,), 1)
    blender.add((0,), np.zeros((4, 1), np.float32))
    blender.add((2,), np.ones((4, 1), np.float32))
    mean = blender.result()[:, 0]
    assert mean[:2].tolist() == [0, 0]
    assert mean[4:].tolist() == [1, 1]
    assert 0 < mean[2] < 0.5 < mean[3] < 1
    assert mean[2] == pytest.approx(1 - mean[3], abs=1e-6)


def test_what_no_tile_shows_is_nothing():
    blender = Blender((4,), (2,), 1)
    blender.add((0,), np.ones((2, 1), np.float32))
    assert blender.result()[:, 0].tolist() == [1, 1, 0, 0]
