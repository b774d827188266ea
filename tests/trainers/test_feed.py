"""What a worker is fed with."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from segpipe.core.regions import to_regions
from segpipe.trainers.contract import ScanPlan
from segpipe.trainers.feed import Feed, crop, halve, normalise_stored, uncrop
from segpipe.trainers.plan import make_plan


def keys(batches: list[list[tuple[np.ndarray, np.ndarray]]]) -> list[list[bytes]]:
    return [[image.tobytes() + regions.tobytes() for image, regions in batch] for batch in batches]


@pytest.mark.parametrize("size", [2, 3])
def test_the_shares_of_all_workers_are_the_global_batch(settings, size: int):
    plan = make_plan(settings())
    whole = keys(list(Feed(plan, 0, 1).epoch(1)))
    shares = [keys(list(Feed(plan, rank, size).epoch(1))) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1  # equal steps
    for step, batch in enumerate(whole):
        assert [key for lane in range(12) for key in [shares[lane % size][step][lane // size]]] == batch


def test_same_seed_same_examples_other_epoch_others(settings):
    plan = make_plan(settings())
    first, again, later = (keys(list(Feed(plan, 0, 2).epoch(epoch))) for epoch in (0, 0, 1))
    assert first == again
    assert first != later


def test_an_example_is_the_normalised_slice_of_the_tables(settings, tables):
    from segpipe.warehouse.slices import stream
    from segpipe.warehouse.store import Store

    plan = make_plan(settings(augment=False))
    place = 7
    scan = plan.scans[plan.slices.scan[place]]
    path, number = plan.groups[plan.slices.group[place]]
    (stored,) = stream(path, Store(tables).fs, [number])
    row = plan.slices.row[place]
    row_of_scan = next(r for r in Store(tables).scans("tiny").to_pylist() if r["scan_id"] == scan.scan_id)
    image, regions = Feed(plan, 0, 1)._example(place, 0, 0, 0)
    for channel, entry in enumerate(row_of_scan["intensity"]):
        expected = (stored.image[channel][row].astype(np.float64) - entry["mean"]) / entry["std"]
        shown = uncrop(image[None, ..., channel], scan)[0]
        brain = shown != 0
        np.testing.assert_allclose(shown[brain], expected[brain], atol=1e-4)
    truth = to_regions(stored.mask[row], plan.convention)
    assert truth.any() == plan.slices.foreground[place]
    np.testing.assert_array_equal(uncrop(regions[None], scan)[0], truth)


def test_neighbours_are_channels_in_the_order_of_slices(settings):
    """Those of another row group are not read: the last one that is there stands for them."""
    alone = make_plan(settings(augment=False))
    plan = replace(alone, settings=replace(alone.settings, neighbours=2))
    assert plan.channels == 3 * alone.channels
    ends = set()
    for place in range(len(plan.slices)):
        group, row = int(plan.slices.group[place]), int(plan.slices.row[place])
        stored, labels = Feed(plan, 0, 1)._groups.held(group)
        image, regions = Feed(plan, 0, 1)._example(place, 0, 0, 0)
        scan = plan.scans[plan.slices.scan[place]]
        near = [max(row - 2, 0), row, min(row + 2, len(labels) - 1)]
        ends.add(tuple(other - row for other in near))
        np.testing.assert_array_equal(image, np.concatenate([normalise_stored(stored[r], scan) for r in near], axis=-1))
        np.testing.assert_array_equal(regions, Feed(alone, 0, 1)._example(place, 0, 0, 0)[1])
        if len(ends) > 3:
            return
    raise AssertionError(f"too few kinds of places: {ends}")


def test_neighbours_are_augmented_alike(settings):
    """One flip, rotation and change of intensity for all three, so that equal slices stay equal."""
    plan = make_plan(settings(neighbours=2))
    assert plan.settings.augment
    feed = Feed(plan, 0, 1)
    place = int(np.flatnonzero(plan.slices.foreground)[0])
    group, row = int(plan.slices.group[place]), int(plan.slices.row[place])
    stored, labels = feed._groups.held(group)
    feed._groups._held[group] = np.stack([stored[row]] * len(stored)), np.stack([labels[row]] * len(labels))
    changed = 0
    for step in range(12):
        image, regions = feed._example(place, 0, step, 0)
        before, own, behind = np.split(image, 3, axis=-1)
        if step_has_noise := not np.array_equal(before, own):
            assert np.abs(before - own).max() < 2, "noise alone tells them apart"
        else:
            np.testing.assert_array_equal(own, behind)
        changed += not step_has_noise
        assert image.flags["C_CONTIGUOUS"]
        assert regions.shape == (*plan.crop, 3)
    assert changed > 6


def test_coarse_epochs_show_the_same_slices_at_half_the_size(settings):
    coarse, fine = (make_plan(settings(augment=False, epochs=3, coarse_share=share)) for share in (0.7, 0.0))
    assert [plan.coarse_epochs for plan in (coarse, fine)] == [2, 0]
    assert all(side % (2 << coarse.settings.depth) == 0 for side in coarse.crop)
    fine = replace(fine, crop=coarse.crop)
    for epoch, is_coarse in ((0, True), (1, True), (2, False)):
        for shown, whole in zip(*(next(Feed(plan, 0, 1).epoch(epoch)) for plan in (coarse, fine)), strict=True):
            wanted = halve(*whole) if is_coarse else whole
            for array, other in zip(shown, wanted, strict=True):
                assert array.dtype == other.dtype
                np.testing.assert_allclose(array, other, atol=1e-6)


def test_half_the_size_is_the_mean_of_four_pixels_and_the_label_of_the_first():
    image = np.arange(24, dtype=np.float32).reshape(4, 6, 1)
    labels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    small, small_labels = halve(image, labels)
    np.testing.assert_array_equal(small[..., 0], [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]])
    np.testing.assert_array_equal(small_labels, [[0, 2, 4], [12, 14, 16]])
    assert (small.dtype, small_labels.dtype) == (np.float32, np.uint8)


def test_memory_is_bounded_by_row_groups_not_by_the_cohort(settings):
    plan = make_plan(settings(batch_size=2))
    feed = Feed(plan, 0, 1, cache_bytes=0)
    for _ in islice(feed.epoch(0), 3):
        assert len(feed._groups._held) <= 2


def test_the_scans_of_a_step_are_remembered(settings):
    plan = make_plan(settings())
    feed = Feed(plan, 0, 1)
    list(feed.epoch(0))
    assert set(feed.scans_of(0, 2)) <= {scan.scan_id for scan in plan.scans if scan.split == "train"}
    assert feed.scans_of(0, 2)
    assert feed.scans_of(5, 0) == []


@pytest.mark.parametrize("shape", [(1, 20, 30), (1, 6, 30), (1, 5, 5)])
def test_crop_and_its_inverse(settings, shape: tuple[int, int, int]):
    scan = ScanPlan("s", "s", "train", shape, (0, 1, 1, 5, 2, 4), np.zeros(1), np.ones(1))
    slices = np.random.default_rng(0).integers(1, 99, shape)
    window = crop(slices, scan, (8, 12))
    assert window.shape == (1, 8, 12)
    back = uncrop(window, scan)
    assert back.shape == slices.shape
    assert ((back == slices) | (back == 0)).all()
    assert (back[:, 1:5, 2:4] == slices[:, 1:5, 2:4]).all()


def test_unlabelled_and_test_scans_are_not_trained_on(settings):
    plan = make_plan(settings())
    assert {plan.scans[scan].split for scan in plan.slices.scan} == {"train"}
    assert replace(plan).of_split("validation")
