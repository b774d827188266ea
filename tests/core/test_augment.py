from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import affine_transform

from segpipe.core import augment

MOVES = [augment.flip, augment.rotate, augment.scale, augment.augment]
moves = pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)


def blob(height=48, width=40, zoom=1):
    """An image whose first channel is what its labels say, off the middle, and whose second is a ramp."""
    rows, columns = np.indices((height * zoom, width * zoom)) / zoom
    labels = np.zeros(rows.shape, np.uint8)
    labels[np.hypot(rows - 17, columns - 24) < 9] = 2
    labels[np.hypot(rows - 15, columns - 22) < 4] = 4
    image = np.stack([labels > 0, (rows + 2 * columns) / 100], axis=-1).astype(np.float32)
    return image, labels


@moves
@given(seed=st.integers(0, 2**32))
def test_image_and_labels_move_together(move, seed):
    with patch.object(augment, "_change_intensity", lambda image, rng: image):
        image, labels = move(*blob(zoom=2), np.random.default_rng(seed))  # borders weigh less at 0.7
    first = image[..., 0]
    wrong = (first > (first.min() + first.max()) / 2) != (labels > 0)
    assert labels.any()
    assert wrong.sum() <= 0.04 * (labels > 0).sum()


@moves
@given(seed=st.integers(0, 2**32))
def test_shapes_dtypes_and_labels_stay(move, seed):
    image, labels = blob()
    before = image.copy(), labels.copy()
    moved, moved_labels = move(image, labels, np.random.default_rng(seed))
    assert (moved.shape, moved.dtype) == (image.shape, np.float32)
    assert (moved_labels.shape, moved_labels.dtype) == (labels.shape, np.uint8)
    assert set(np.unique(moved_labels)) <= {0, 2, 4}
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


@moves
def test_the_rng_decides(move):
    first, again = (move(*blob(), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    others = [move(*blob(), np.random.default_rng(seed))[0] for seed in range(8)]
    assert any(not np.array_equal(first[0], other) for other in others)


def test_flip_gives_each_of_the_four_pictures_and_nothing_else():
    image, labels = blob()
    wanted = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    rng = np.random.default_rng(0)
    seen = [0] * 4
    for _ in range(200):
        flipped, _ = augment.flip(image, labels, rng)
        (match,) = [place for place, picture in enumerate(wanted) if np.array_equal(picture, flipped)]
        seen[match] += 1
    assert min(seen) > 25


@given(st.integers(0, 2**32))
def test_rotation_keeps_area_and_distance_from_the_middle(seed):
    _, labels = blob()
    _, turned = augment.rotate(*blob(), np.random.default_rng(seed))
    assert (turned > 0).sum() == pytest.approx((labels > 0).sum(), rel=0.06)

    def offset(mask):
        return np.argwhere(mask).mean(axis=0) - (np.array(mask.shape) - 1) / 2

    assert np.hypot(*offset(turned > 0)) == pytest.approx(np.hypot(*offset(labels > 0)), abs=0.4)
    cosine = offset(turned > 0) @ offset(labels > 0) / np.hypot(*offset(turned > 0)) / np.hypot(*offset(labels > 0))
    assert cosine > np.cos(np.deg2rad(34))


@given(st.integers(0, 2**32))
def test_scaling_moves_area_and_offset_by_the_same_factor(seed):
    _, labels = blob()
    _, scaled = augment.scale(*blob(), np.random.default_rng(seed))
    factor = np.sqrt((scaled > 0).sum() / (labels > 0).sum())
    assert 0.67 < factor < 1.43
    middle = (np.array(labels.shape) - 1) / 2
    before, after = (np.argwhere(mask > 0).mean(axis=0) - middle for mask in (labels, scaled))
    np.testing.assert_allclose(after, before * factor, atol=0.4)


@given(st.integers(0, 2**32))
def test_shift_intensity_is_a_straight_line_per_channel_within_its_bounds(seed):
    image, _ = blob()
    shifted = augment.shift_intensity(image, np.random.default_rng(seed))
    assert shifted.dtype == np.float32
    for channel in range(2):
        gain, offset = np.polyfit(image[..., channel].ravel(), shifted[..., channel].ravel(), 1)
        assert 0.4 - 1e-4 <= gain <= 1.6 + 1e-4
        assert abs(offset) <= 0.6 + 1e-4
        np.testing.assert_allclose(shifted[..., channel], image[..., channel] * gain + offset, atol=1e-4)


@given(st.integers(0, 2**32))
def test_bending_keeps_order_mean_and_deviation_of_each_channel(seed):
    image, _ = blob()
    bent = augment.bend_intensity(image, np.random.default_rng(seed))
    assert bent.dtype == np.float32
    for before, after in zip(np.moveaxis(image, -1, 0), np.moveaxis(bent, -1, 0), strict=True):
        order = np.argsort(before, axis=None, kind="stable")
        assert (np.diff(after.ravel()[order]) >= -1e-5).all()
        assert after.mean() == pytest.approx(before.mean(), abs=1e-3)
        assert after.std() == pytest.approx(before.std(), rel=1e-3)


def test_a_channel_of_one_value_is_not_bent():
    image = np.full((8, 8, 3), -2.5, np.float32)
    for seed in range(20):
        np.testing.assert_array_equal(augment.bend_intensity(image, np.random.default_rng(seed)), image)


@pytest.mark.parametrize("shape", [(64, 48, 2), (5, 64, 48, 2)], ids=["slice", "patch"])
def test_sharpness_varies_both_ways_in_the_plane_channel_by_channel_in_one_image_of_two(shape):
    image = np.random.default_rng(0).standard_normal(shape, np.float32)  # all of it is fine structure
    results = [augment.change_sharpness(image, np.random.default_rng(seed)) for seed in range(200)]
    changed = [one for one in results if one is not image]
    assert 75 <= len(changed) <= 125
    assert all(one.dtype == np.float32 and 0.1 < one.std() < 2.2 for one in changed)
    factors = np.array([one.std(axis=tuple(range(image.ndim - 1))) for one in changed])
    assert (factors < 0.6).any(axis=0).all()
    assert (factors > 1.6).any(axis=0).all()
    assert np.abs(factors[:, 0] - factors[:, 1]).max() > 1
    between_channels = np.corrcoef(changed[0][..., 0].ravel(), image[..., 1].ravel())[0, 1]
    assert abs(between_channels) < 0.05


def test_sharpness_leaves_what_is_smooth():
    slope = np.broadcast_to(np.linspace(-1, 1, 64, dtype=np.float32)[:, None, None], (64, 48, 2))
    for seed in range(10):
        middle = augment.change_sharpness(slope, np.random.default_rng(seed))[12:-12]
        np.testing.assert_allclose(middle, slope[12:-12], atol=1e-4)


def test_noise_is_added_to_one_image_in_seven_and_has_no_bias():
    image = np.zeros((64, 48, 2), np.float32)
    changed = [
        one for one in (augment.add_noise(image, np.random.default_rng(seed)) for seed in range(200)) if one.any()
    ]
    assert 12 <= len(changed) <= 50
    assert all(one.dtype == np.float32 and one.std() <= 0.21 and abs(one.mean()) < 0.02 for one in changed)


def test_background_that_is_not_zero_goes_on_beyond_the_border():
    image = np.full((32, 32, 1), -1.5, np.float32)
    for seed in range(5):
        moved, _ = augment.rotate(image, np.zeros((32, 32), np.uint8), np.random.default_rng(seed))
        np.testing.assert_allclose(moved, -1.5, rtol=1e-6)


@pytest.mark.parametrize("move", [augment.rotate, augment.scale], ids=lambda move: move.__name__)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(40, 32), (33, 47), (1, 9), (9, 1)], ids=str)
def test_resampling_is_that_of_scipy(move, shape, seed, monkeypatch):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(*shape, 3)).astype(np.float32)
    labels = rng.integers(0, 5, shape, dtype=np.uint8)
    seen = []
    resample = augment._resample
    monkeypatch.setattr(augment, "_resample", lambda *given: seen.append(given[2]) or resample(*given))
    moved, moved_labels = move(image, labels, np.random.default_rng(seed))

    (matrix,) = seen
    middle = (np.array(shape) - 1) / 2
    offset = middle - matrix @ middle
    for channel in range(3):
        wanted = affine_transform(image[..., channel], matrix, offset, order=1, mode="nearest")
        np.testing.assert_allclose(moved[..., channel], wanted, atol=1e-3)
    wanted = affine_transform(labels, matrix, offset, order=0, mode="grid-constant")
    assert (moved_labels != wanted).sum() <= 2


SIZE = (6, 24, 16)


@given(seed=st.integers(0, 2**32))
def test_a_patch_and_its_labels_move_together_and_only_its_own_flips_change_the_order_of_slices(seed):
    wide = augment.surroundings(SIZE)
    rows, columns = np.indices(wide[1:])
    labels = np.zeros(wide, np.uint8)
    for number in range(wide[0]):  # a disc that grows from slice to slice
        labels[number][np.hypot(rows - wide[1] / 2, columns - wide[2] / 2) < 3 + number] = 1
    image = np.repeat(labels[..., None] * 10.0, 2, axis=-1).astype(np.float32)
    before = image.copy()
    moved, moved_labels = augment.augment_patch(image, labels, SIZE, np.random.default_rng(seed))
    assert (moved.shape, moved.dtype) == ((*SIZE, 2), np.float32)
    assert (moved_labels.shape, moved_labels.dtype) == (SIZE, np.uint8)
    np.testing.assert_array_equal(image, before)
    sizes = moved_labels.reshape(SIZE[0], -1).sum(axis=1).astype(int)
    assert (np.diff(sizes) >= 0).all() or (np.diff(sizes) <= 0).all()
    first = moved[..., 0]
    wrong = (first > (first.min() + first.max()) / 2) != (moved_labels > 0)
    assert wrong.mean() < 0.12


@given(seed=st.integers(0, 2**32), size=st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40)))
def test_surroundings_hold_all_that_may_turn_into_a_patch(seed, size):
    """Beyond the given patch labels end; none of that is seen."""
    wide = augment.surroundings(size)
    labels = np.full(wide, 2, np.uint8)
    _, moved = augment.augment_patch(np.zeros((*wide, 1), np.float32), labels, size, np.random.default_rng(seed))
    assert (moved == 2).all()
