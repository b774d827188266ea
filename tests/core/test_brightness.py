"""Tumour that is not bright: rows of voxels that can be counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from segpipe.core.brightness import Found, Passing, channels_of, choose, keep_bright
from segpipe.core.patients import LEAST_GAIN
from segpipe.core.prediction import ScanInput
from segpipe.core.regions import CONVENTIONS

BRATS = CONVENTIONS["brats"]
SCAN = ScanInput((2, 1, 4), (0.0, 100.0), (1.0, 20.0), (1.0, 10.0), (0.0, 0.0), (0, 2, 0, 1, 0, 4))  # 12 is 1 deviation


REGION = "enhancing_tumour"
CHANNELS = {REGION: 1}
LEAST = {REGION: 1.0}


def passed(stored: np.ndarray, channels: dict[str, int] = CHANNELS) -> Passing:
    passing = Passing(SCAN, channels)
    batches = [([index], [np.zeros((1, 1, 4), stored.dtype), stored[index : index + 1]]) for index in (1, 0)]
    assert [indices for indices, _ in passing.of(batches)] == [[1], [0]]
    return passing


def found(dull: int, bright: int = 10, true_dull: int = 0, unseen: bool = True) -> Found:
    """So many voxels at 0 and at 2 deviations; true are the bright ones and some of the others."""
    brightness = np.repeat(np.float32([0, 2]), [dull, bright])
    return Found(brightness, np.arange(dull + bright) >= dull - true_dull, 0, unseen)


def test_voxels_are_as_bright_as_the_brain_says() -> None:
    stored = np.array([[[10, 12, 8, 14]], [[0, 0, 0, 13]]], np.int16)
    np.testing.assert_allclose(passed(stored).brightness(REGION, np.array([0, 1, 2, 7])), [0, 1, -1, 1.5])
    blank = passed(np.where(stored == 8, np.nan, stored.astype(np.float32))).brightness(REGION, np.array([1, 2]))
    assert (blank[0], np.isnan(blank[1])) == (1, True)
    assert np.isnan(Passing(SCAN, CHANNELS).brightness(REGION, np.array([3]))).all(), "no slice came"


def test_what_is_too_dull_becomes_core() -> None:
    stored = np.array([[[10, 12, 8, 14]], [[0, 0, 0, 13]]], np.int16)
    labels = np.array([[[4, 4, 2, 4]], [[0, 1, 4, 4]]], np.uint8)
    kept = keep_bright(labels, BRATS, LEAST, passed(stored))
    np.testing.assert_array_equal(kept, [[[1, 1, 2, 4]], [[0, 1, 1, 4]]])
    assert keep_bright(kept, BRATS, LEAST, passed(stored)) is kept, "nothing changes: no copy"
    unknown = passed(np.full(stored.shape, np.nan, np.float32))
    assert not (keep_bright(labels, BRATS, LEAST, unknown) == 4).any(), "nobody knows that it is bright"


def test_what_is_too_dull_in_the_whole_tumour_alone_is_none() -> None:
    """Core stays, however dark it is, and so does what becomes core because it does not enhance."""
    stored = np.array([[[10, 12, 8, 14]], [[0, 0, 14, 13]]], np.int16)
    labels = np.array([[[2, 2, 1, 2]], [[2, 4, 2, 0]]], np.uint8)
    both = passed(stored, {REGION: 1, "whole_tumour": 1})
    kept = keep_bright(labels, BRATS, {"whole_tumour": 1.0, **LEAST}, both)
    np.testing.assert_array_equal(kept, [[[0, 0, 1, 2]], [[0, 1, 2, 0]]])
    np.testing.assert_array_equal(keep_bright(labels, BRATS, LEAST, both), [[[2, 2, 1, 2]], [[2, 1, 2, 0]]])


def test_each_region_is_looked_at_in_images_of_its_own() -> None:
    passing = Passing(SCAN, {REGION: 1, "whole_tumour": 0})
    stored = [np.full((1, 1, 4), value, np.int16) for value in (3, 12)]
    assert len([*passing.of([([0], stored)])]) == 1
    assert passing.brightness(REGION, np.array([2])).tolist() == [1]
    assert passing.brightness("whole_tumour", np.array([2])).tolist() == [3]


def test_only_models_that_look_at_its_images_know_what_is_bright() -> None:
    assert channels_of(("T1", "FLAIR", "T1ce", "T2"), BRATS.regions) == {REGION: 2, "whole_tumour": 1}
    assert channels_of(("FLAIR", "T1"), BRATS.regions) == {"whole_tumour": 0}
    assert channels_of(("FLAIR", "T1ce"), CONVENTIONS["binary"].regions) == {}


def test_dull_voxels_that_are_false_say_how_bright_it_must_be() -> None:
    chosen = choose([found(10)] * 3)
    assert (chosen.least, chosen.patients, chosen.unseen) == (0.25, 3, 3), "of equal ones the least"
    assert (chosen.dice_before, chosen.dice_after) == (pytest.approx(2 / 3), 1.0)


def test_unseen_patients_may_lose_what_is_noise_in_a_gain() -> None:
    learnt = [found(10, unseen=False)] * 9
    loses_little = found(1, bright=100, true_dull=1)
    assert 0 < loses_little.dice() - loses_little.dice(0.25) < LEAST_GAIN
    assert choose([*learnt, loses_little]).least == 0.25
    loses_more = found(3, bright=100, true_dull=3)
    assert loses_more.dice() - loses_more.dice(0.25) > LEAST_GAIN
    assert choose([*learnt, loses_more]).least is None


def test_a_scan_in_which_nothing_is_left_and_nothing_true_counts_as_right() -> None:
    nothing = Found(np.zeros(5, np.float32), np.zeros(5, bool), 0)
    assert (nothing.dice(), nothing.dice(0.5)) == (0.0, 1.0)
    assert replace(nothing, missed=3).dice(0.5) == 0.0
    dark = Found(np.float32([np.nan]), np.ones(1, bool), 0)
    assert (dark.dice(), dark.dice(0.25)) == (1.0, 0.0)


@pytest.mark.parametrize(
    "scans",
    [
        [],
        [found(10)] * 2,
        [found(10, unseen=False)] * 9,
        [replace(found(10), patient="a")] * 9,
        [found(10, true_dull=10)] * 3,
        [*[found(10, unseen=False)] * 9, found(4, true_dull=4)],
        [*[found(0)] * 9, found(10)],
    ],
    ids=["nobody", "few", "none unseen", "one patient", "dull but true", "the unseen lose", "one alone"],
)
def test_without_a_plain_gain_none_is_asked_for(scans: list[Found]) -> None:
    chosen = choose(scans)
    assert chosen.least is None
    assert chosen.dice_after == chosen.dice_before or not scans
