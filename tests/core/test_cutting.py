"""Where probabilities are cut: gains that can be counted by hand, and gains that are none."""

import numpy as np
import pytest

from segpipe.core.cutting import Levels, Tally, choose, grid_with
from segpipe.core.regions import CONVENTIONS, to_labels, to_regions

BRATS, BINARY = CONVENTIONS["brats"], CONVENTIONS["binary"]
GRID = grid_with(0.5)
SHAPE = (1, 1, 40)
WHOLE = tuple(slice(0, length) for length in SHAPE)


def patient(*likely: tuple[int, float], true: int = 10, unseen: bool = False) -> Tally:
    """One region of a row of voxels: the first `true` are of it; so many after each other have a probability."""
    probability = np.zeros((*SHAPE, 1), np.float32)
    start = 0
    for count, value in likely:
        probability[0, 0, start : start + count] = value
        start += count
    truth = np.arange(40).reshape(*SHAPE, 1) < true
    return Levels.of(SHAPE, WHOLE, probability, GRID).tally(truth, unseen)


def threshold(*tallies: Tally) -> float:
    return choose(tallies, BINARY, 0.5)["lesion"].threshold


TOO_MUCH = patient((10, 0.95), (10, 0.65))
TOO_LITTLE = patient((6, 0.95), (4, 0.45))
SURE_ABOVE = patient((6, 0.95), (4, 0.65))


def test_a_threshold_moves_to_where_dice_is_better() -> None:
    chosen = choose([TOO_MUCH] * 4, BINARY, 0.5)["lesion"]
    assert (chosen.threshold, chosen.dice_before, chosen.dice_after) == (0.7, pytest.approx(2 / 3), 1.0)
    assert (chosen.patients, chosen.unseen) == (4, 0)
    assert threshold(*[TOO_LITTLE] * 4) == 0.4


def test_it_moves_no_farther_than_it_must() -> None:
    """Half of what can be gained, for a third of the way."""
    assert threshold(*[patient((10, 0.95), (6, 0.55), (4, 0.75))] * 3) == 0.6


@pytest.mark.parametrize(
    "tallies",
    [
        [],
        [TOO_MUCH] * 2,
        [TOO_MUCH, SURE_ABOVE, TOO_MUCH, SURE_ABOVE],
        [TOO_MUCH, *[patient((10, 0.95))] * 40],
        [patient((10, 0.95))] * 5,
    ],
    ids=["nobody", "few", "of two minds", "one of many", "right already"],
)
def test_without_a_plain_gain_it_stays(tallies: list[Tally]) -> None:
    assert threshold(*tallies) == 0.5


def test_patients_whom_the_network_has_not_learnt_from_forbid_a_move() -> None:
    seen = [TOO_MUCH] * 6
    assert threshold(*seen, patient((10, 0.95), (10, 0.65), unseen=True)) == 0.7
    assert threshold(*seen, patient((6, 0.95), (4, 0.55), unseen=True)) == 0.5


def test_what_is_empty_and_left_empty_counts_as_right() -> None:
    chosen = choose([patient((5, 0.75), true=0)] * 3, BINARY, 0.5)["lesion"]
    assert (chosen.threshold, chosen.dice_before, chosen.dice_after) == (0.8, 0.0, 1.0)


def test_the_threshold_of_the_training_may_be_any() -> None:
    grid = grid_with(0.35)
    assert grid == (0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)
    probability = np.zeros((*SHAPE, 1), np.float32)
    truth = np.arange(40).reshape(*SHAPE, 1) < 10
    tally = Levels.of(SHAPE, WHOLE, probability, grid).tally(truth)
    assert choose([tally] * 5, BINARY, 0.35)["lesion"].threshold == 0.35


@pytest.mark.parametrize("name", ["brats", "brats2024"])
def test_masks_and_dice_are_those_of_the_label_map(name: str) -> None:
    """Regions inside of each other and side by side; some of the truth where nothing is likely."""
    convention = CONVENTIONS[name]
    rng = np.random.default_rng(5)
    shape, box = (4, 12, 12), (slice(1, 3), slice(2, 10), slice(0, 12))
    probability = rng.random((2, 8, 12, len(convention.regions)), dtype=np.float32)
    truth = to_regions(rng.choice(np.array([0, *convention.labels], np.uint8), shape), convention).astype(bool)
    levels = Levels.of(shape, box, probability, GRID)
    cut = [0.3, 0.7, 0.5, 0.8][: len(convention.regions)]
    labels = np.zeros(shape, np.uint8)
    labels[box] = to_labels(probability > np.asarray(cut, np.float32), convention)
    np.testing.assert_array_equal(levels.labels(cut, convention), labels)
    found, tally = to_regions(labels, convention).astype(bool), levels.tally(truth)
    for place in range(len(convention.regions)):
        both = (found[..., place] & truth[..., place]).sum()
        total = found[..., place].sum() + truth[..., place].sum()
        told = tally.dice(place, [GRID.index(one) for one in cut], convention)
        assert told == pytest.approx(2 * both / total)


def test_an_inner_region_is_chosen_before_what_holds_it() -> None:
    """What is in the core at 0.7 is in the whole tumour, however it is cut; the whole tumour has its own."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[..., :20], truth[..., :5] = 2, 1
    probability = np.zeros((*SHAPE, 3), np.float32)
    probability[0, 0, :20, 0], probability[0, 0, 20:30, 0] = 0.95, 0.55
    probability[0, 0, :5, 1], probability[0, 0, 5:15, 1] = 0.95, 0.65
    tally = Levels.of(SHAPE, WHOLE, probability, GRID).tally(to_regions(truth, BRATS).astype(bool))
    chosen = {region: one.threshold for region, one in choose([tally] * 4, BRATS, 0.5).items()}
    assert chosen == {"whole_tumour": 0.6, "tumour_core": 0.7, "enhancing_tumour": 0.5}
