"""Patches of a 3D network: complete, shared without overlap, and what they should show."""

import math
from itertools import islice

import numpy as np
import pytest

from segpipe.core.regions import to_regions
from segpipe.core.tiles import cut
from segpipe.trainers.contract import ScanPlan
from segpipe.trainers.feed import normalise_stored
from segpipe.trainers.patches import (
    PatchFeed,
    box_shape,
    box_slices,
    grid,
    label_origin,
    patch_index,
    patch_shape,
    read_scan,
    tile_origin,
)
from segpipe.trainers.plan import make_plan

SOLID = {"dimensions": 3, "patch_size": 16, "batch_size": 4, "steps_per_epoch": None}


def scan_with(box: tuple[int, ...], split: str = "train") -> ScanPlan:
    return ScanPlan("s", "s", split, (99, 99, 99), box, np.zeros(1), np.ones(1))


def keys(batches: list[list[tuple[np.ndarray, np.ndarray]]]) -> list[list[bytes]]:
    return [[image.tobytes() + regions.tobytes() for image, regions in batch] for batch in batches]


def test_a_patch_is_no_longer_than_the_longest_brain():
    scans = [scan_with((0, 10, 5, 75, 0, 200)), scan_with((3, 20, 0, 60, 0, 150))]
    assert patch_shape(scans, 8, 64) == (24, 64, 64)
    assert patch_shape(scans, 8, 67) == (24, 64, 64)
    assert patch_shape(scans, 16, 256) == (32, 80, 208)


def test_tiles_and_a_quarter_as_many_patches_around_labels():
    scans = [
        scan_with((0, 10, 0, 33, 0, 16)),
        scan_with((0, 8, 0, 16, 0, 16), "validation"),
        scan_with((0, 8, 0, 1, 0, 9)),
    ]
    index = patch_index(scans, [True, True, False], (8, 16, 16))
    assert index.scan.tolist() == [0] * 6 + [0] * 2 + [2]
    assert index.row.tolist() == [*range(8), 0]
    assert index.foreground.tolist() == [False] * 6 + [True] * 2 + [False]


@pytest.mark.parametrize("box", [(3, 13, 0, 33, 7, 23), (0, 3, 0, 5, 0, 40)])
def test_the_tiles_of_an_epoch_show_every_voxel_of_the_brain(box: tuple[int, ...]):
    scan, patch = scan_with(box), (4, 8, 16)
    seen = np.zeros(box_shape(scan), int)
    for number in range(math.prod(grid(scan, patch))):
        origin = tile_origin(scan, patch, number, np.random.default_rng(5))
        seen[tuple(slice(max(start, 0), start + size) for start, size in zip(origin, patch, strict=True))] += 1
    assert (seen == 1).all()
    assert tile_origin(scan, patch, 0, np.random.default_rng(5)) != tile_origin(
        scan, patch, 0, np.random.default_rng(6)
    )


def test_a_patch_around_labels_shows_one_and_rare_labels_as_often():
    labels = np.zeros((20, 40, 12), np.uint8)
    labels[2:12, 5:30, 2:10] = 2
    labels[19, 39, 0] = 4
    rng = np.random.default_rng(0)
    rare = 0
    for _ in range(200):
        origin = label_origin(labels, (8, 16, 16), rng)
        assert 0 <= origin[0] <= 12
        assert 0 <= origin[1] <= 24
        assert origin[2] == -2  # longer than the box, which is in its middle
        shown = cut(labels, origin, (8, 16, 16))
        assert shown.any()
        rare += (shown == 4).any()
    assert 70 < rare < 130


def test_a_scan_without_labels_has_patches_anywhere():
    assert label_origin(np.zeros((8, 8, 8), np.uint8), (8, 8, 8), np.random.default_rng(0)) == (0, 0, 0)


@pytest.mark.parametrize("size", [2, 4])
def test_the_shares_of_all_workers_are_the_global_batch(settings, size: int):
    plan = make_plan(settings(**SOLID))
    whole = keys(list(PatchFeed(plan, 0, 1).epoch(1)))
    shares = [keys(list(PatchFeed(plan, rank, size).epoch(1))) for rank in range(size)]
    assert len(whole) == plan.steps
    for step, batch in enumerate(whole):
        assert [shares[lane % size][step][lane // size] for lane in range(4)] == batch


def test_an_epoch_is_complete_repeatable_and_another_the_next_time(settings):
    from segpipe.trainers.order import epoch_order

    plan = make_plan(settings(**SOLID))
    order = epoch_order(plan.slices, 4, 0.5, plan.steps, 0, 0)
    assert set(order.ravel().tolist()) == set(range(len(plan.slices)))
    first, again, later = (keys(list(PatchFeed(plan, 0, 2).epoch(epoch))) for epoch in (0, 0, 1))
    assert first == again
    assert first != later
    assert first[2:] == keys(list(PatchFeed(plan, 0, 2).epoch(0, first_step=2)))


def test_shapes_dtypes_and_foreground(settings):
    plan = make_plan(settings(**SOLID))
    assert plan.crop == (12, 16, 16)
    for batch in islice(PatchFeed(plan, 0, 1).epoch(0), 5):
        for image, regions in batch:
            assert (image.shape, image.dtype) == ((12, 16, 16, 4), np.float32)
            assert (regions.shape, regions.dtype) == ((12, 16, 16, 3), np.uint8)
        assert batch[0][1].any()  # a lane of patches around labels
        assert batch[1][1].any()


def test_an_example_is_the_normalised_scan_of_the_tables(settings):
    plan = make_plan(settings(**SOLID, augment=False))
    place = 1
    scan_place = int(plan.slices.scan[place])
    scan = plan.scans[scan_place]
    stored, labels = read_scan(plan, scan)
    assert labels.shape == scan.shape
    origin = tile_origin(scan, plan.crop, int(plan.slices.row[place]), np.random.default_rng((0, 3, scan_place)))
    image, regions = PatchFeed(plan, 0, 1)._example(place, 3, 0, 0)
    np.testing.assert_array_equal(image, normalise_stored(cut(stored, origin, plan.crop), scan))
    boxed = labels[box_slices(scan)]
    np.testing.assert_array_equal(regions, to_regions(cut(boxed, origin, plan.crop), plan.convention))


def test_a_scan_is_stacked_as_it_was(settings, tables):
    from segpipe.warehouse.scan_slices import ScanSlices, scan_places, scan_rows
    from segpipe.warehouse.store import Store

    plan = make_plan(settings(**SOLID))
    scan = plan.scans[0]
    stored, labels = read_scan(plan, scan)
    place = scan_places(Store(tables), "tiny")[scan.scan_id]
    row = scan_rows(Store(tables), place.part, [scan.scan_id])[scan.scan_id]
    slices = ScanSlices(Store(tables), place, row, plan.modalities)
    volume = np.zeros((*scan.shape, 4), stored.dtype)
    for indices, channels in slices:
        volume[indices] = np.stack(channels, axis=-1)
    np.testing.assert_array_equal(stored, volume[box_slices(scan)])
    np.testing.assert_array_equal(labels, slices.truth)


def test_memory_is_bounded_by_scans_not_by_the_cohort(settings):
    plan = make_plan(settings(**{**SOLID, "batch_size": 2}))
    feed = PatchFeed(plan, 0, 1, cache_bytes=0)
    for _ in islice(feed.epoch(0), 8):
        assert len(feed._groups._held) <= 2


def test_overlapping_tiles_are_blended_in_validation(settings):
    """A network that says of each voxel what its first channel is finds the same as without tiles."""
    import tensorflow as tf

    from segpipe.core.metrics import counts, dice
    from segpipe.trainers.contract import Alone
    from segpipe.trainers.validation import TileValidator

    plan = make_plan(settings(**SOLID, threshold=0.5))
    scan = plan.scans[plan.of_split("validation")[0]]
    found = TileValidator(plan, Alone(), lambda image, training: tf.repeat(tf.sigmoid(image[..., :1]), 3, -1)).dice()
    stored, labels = read_scan(plan, scan)
    bright = np.zeros(scan.shape, bool)
    bright[box_slices(scan)] = normalise_stored(stored, scan)[..., 0] > 0
    truth = to_regions(labels, plan.convention).astype(bool)
    expected = {name: dice(*counts(bright, truth[..., r])) for r, name in enumerate(plan.regions)}
    assert found[scan.scan_id] == pytest.approx(expected)
