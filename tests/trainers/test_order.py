"""Which slices make up an epoch: complete, shared without overlap, the same for any number of workers."""

import numpy as np
import pytest

from segpipe.trainers.contract import SliceIndex
from segpipe.trainers.order import epoch_order, foreground_lanes, steps_for_all


def index(count: int, labelled: int, groups: int = 5) -> SliceIndex:
    rng = np.random.default_rng(count)
    foreground = np.zeros(count, bool)
    foreground[rng.permutation(count)[:labelled]] = True
    group = np.sort(rng.integers(0, groups, count)).astype(np.int32)
    return SliceIndex(group.copy(), group, np.arange(count, dtype=np.int32), foreground)


CASES = [(100, 30, 8), (100, 90, 8), (7, 3, 16), (50, 0, 4), (50, 50, 4), (33, 1, 6), (10, 4, 1)]


@pytest.mark.parametrize(("count", "labelled", "batch"), CASES)
def test_every_slice_is_used_in_an_epoch_of_all_steps(count: int, labelled: int, batch: int):
    slices = index(count, labelled)
    order = epoch_order(slices, batch, 0.5, steps_for_all(slices, batch, 0.5), seed=0, epoch=0)
    assert set(order.ravel().tolist()) == set(range(count))


@pytest.mark.parametrize(("count", "labelled", "batch"), [case for case in CASES if case[2] > 1])
def test_every_batch_has_its_share_of_foreground(count: int, labelled: int, batch: int):
    slices = index(count, labelled)
    order = epoch_order(slices, batch, 0.5, 20, seed=0, epoch=0)
    shares = slices.foreground[order].mean(axis=1)
    if 0 < labelled < count:
        assert (shares >= 0.5).all()
        assert (shares < 1).all()
    assert (shares == shares[0]).all()
    assert foreground_lanes(slices, batch, 0.5) == round(shares[0] * batch)


def test_no_slice_comes_twice_before_its_kind_is_through():
    slices = index(96, 48)
    order = epoch_order(slices, 8, 0.5, 12, seed=0, epoch=0)
    assert len(set(order.ravel().tolist())) == order.size


def test_reshuffled_by_epoch_and_seed_alone():
    slices = index(100, 30)
    first, again, later, other = (epoch_order(slices, 8, 0.5, 12, *when) for when in ((0, 0), (0, 0), (0, 1), (1, 0)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, other)


def test_a_lane_walks_through_row_groups_one_after_the_other():
    slices = index(400, 120, groups=40)
    order = epoch_order(slices, 4, 0.25, 90, seed=0, epoch=0)
    for lane in order.T:
        groups = slices.group[lane]
        changes = np.count_nonzero(np.diff(groups)) + 1
        assert changes == len(set(groups.tolist()))
