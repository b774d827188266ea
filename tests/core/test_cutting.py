"""Where probabilities are cut: gains that can be counted by hand, and gains that are none."""

from dataclasses import replace

import numpy as np
import pytest

from segpipe.core.cutting import Levels, Tally, choose, grid_with
from segpipe.core.regions import CONVENTIONS, to_labels, to_regions

BRATS, BINARY = CONVENTIONS["brats"], CONVENTIONS["binary"]
GRID = grid_with(0.5)
SHAPE = (1, 1, 40)
WHOLE = tuple(slice(0, length) for length in SHAPE)


def patient(*likely: tuple[int, float], true: int = 10, unseen: bool = True, name: str = "") -> Tally:
    """One region of a row of voxels: the first `true` are of it; so many after each other have a probability."""
    probability = np.zeros((*SHAPE, 1), np.float32)
    start = 0
    for count, value in likely:
        probability[0, 0, start : start + count] = value
        start += count
    truth = np.arange(40).reshape(*SHAPE, 1) < true
    return Levels.of(SHAPE, WHOLE, probability, GRID).tally(truth, unseen, name)


def threshold(*tallies: Tally) -> float:
    return choose(tallies, BINARY, 0.5)["lesion"].threshold


TOO_MUCH = patient((10, 0.95), (10, 0.65))
TOO_LITTLE = patient((6, 0.95), (4, 0.45))
SURE_ABOVE = patient((6, 0.95), (4, 0.65))


def test_a_threshold_moves_to_where_dice_is_better() -> None:
    chosen = choose([TOO_MUCH] * 4, BINARY, 0.5)["lesion"]
    assert (chosen.threshold, chosen.dice_before, chosen.dice_after) == (0.7, pytest.approx(2 / 3), 1.0)
    assert (chosen.patients, chosen.unseen) == (4, 4)
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
        [TOO_MUCH, *[patient((10, 0.95))] * 9],
        [TOO_MUCH, *[patient((10, 0.95))] * 40],
        [patient((10, 0.95))] * 5,
    ],
    ids=["nobody", "few", "of two minds", "one alone", "one of many", "right already"],
)
def test_without_a_plain_gain_it_stays(tallies: list[Tally]) -> None:
    assert threshold(*tallies) == 0.5


def test_patients_whom_the_network_has_not_learnt_from_forbid_a_move() -> None:
    seen = [replace(TOO_MUCH, unseen=False)] * 6
    assert threshold(*seen, patient((10, 0.95), (10, 0.65))) == 0.7
    assert threshold(*seen, patient((6, 0.95), (4, 0.55))) == 0.5
    assert threshold(*seen) == 0.5, "nobody is there who could forbid it"


@pytest.mark.parametrize(
    ("unseen", "moved"),
    [
        ([TOO_LITTLE] * 3, 0.4),
        ([TOO_LITTLE] * 2, 0.5),
        ([patient((10, 0.95))] * 3, 0.5),
        ([TOO_LITTLE, *[patient((10, 0.95))] * 9], 0.5),
    ],
    ids=["they gain", "two say little", "they lose nothing", "one alone gains"],
)
def test_only_patients_whom_the_network_has_not_learnt_from_lower_a_threshold(
    unseen: list[Tally], moved: float
) -> None:
    """On the others it is right in what it half believes in, because it has learnt the answer."""
    assert threshold(*[replace(TOO_LITTLE, unseen=False)] * 30, *unseen) == moved
    assert threshold(*[replace(TOO_MUCH, unseen=False)] * 30, patient((10, 0.95))) == 0.7, "they raise it"


def test_below_is_below_the_threshold_of_the_training() -> None:
    grid = grid_with(0.7)
    lower = replace(TOO_LITTLE, unseen=False), replace(TOO_LITTLE, unseen=True)
    assert choose([lower[0]] * 30 + [lower[1]], BINARY, 0.7, grid)["lesion"].threshold == 0.7
    assert choose([lower[0]] * 30 + [lower[1]] * 3, BINARY, 0.7, grid)["lesion"].threshold == 0.4


def test_scans_of_one_patient_are_one_patient() -> None:
    visit, other = (patient((10, 0.95), (10, 0.65), name=name) for name in "ab")
    assert threshold(*[visit] * 3) == 0.5
    assert threshold(*[visit] * 9, other) == 0.5
    chosen = choose([*[visit] * 3, other, TOO_MUCH], BINARY, 0.5)["lesion"]
    assert (chosen.threshold, chosen.patients, chosen.unseen) == (0.7, 3, 3)


def test_what_is_empty_and_left_empty_counts_as_right() -> None:
    chosen = choose([patient((5, 0.75), true=0)] * 3, BINARY, 0.5)["lesion"]
    assert (chosen.threshold, chosen.dice_before, chosen.dice_after) == (0.8, 0.0, 1.0)


def test_the_threshold_of_the_training_may_be_any() -> None:
    grid = grid_with(0.35)
    assert grid == (0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)
    probability = np.zeros((*SHAPE, 1), np.float32)
    truth = np.arange(40).reshape(*SHAPE, 1) < 10
    tally = Levels.of(SHAPE, WHOLE, probability, grid).tally(truth, unseen=True)
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
    told = tally.dice([GRID.index(one) for one in cut], convention)
    for place in range(len(convention.regions)):
        both = (found[..., place] & truth[..., place]).sum()
        total = found[..., place].sum() + truth[..., place].sum()
        assert told[place] == pytest.approx(2 * both / total)


def test_an_inner_region_is_chosen_before_what_holds_it() -> None:
    """What is in the core at 0.7 is in the whole tumour, however it is cut; the whole tumour has its own."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[..., :20], truth[..., :5] = 2, 1
    probability = np.zeros((*SHAPE, 3), np.float32)
    probability[0, 0, :20, 0], probability[0, 0, 20:30, 0] = 0.95, 0.55
    probability[0, 0, :5, 1], probability[0, 0, 5:15, 1] = 0.95, 0.65
    tally = Levels.of(SHAPE, WHOLE, probability, GRID).tally(to_regions(truth, BRATS).astype(bool), unseen=True)
    chosen = {region: one.threshold for region, one in choose([tally] * 4, BRATS, 0.5).items()}
    assert chosen == {"whole_tumour": 0.6, "tumour_core": 0.7, "enhancing_tumour": 0.5}


def in_core(unseen: bool, beyond: float = 0.45, name: str = "") -> Tally:
    """A tumour of 100 voxels that is core all over: 40 of them, and 30 beyond it, are core at 0.4 only."""
    shape = (1, 1, 200)
    truth, probability = np.zeros(shape, np.uint8), np.zeros((*shape, 3), np.float32)
    truth[..., :100] = 1
    probability[..., :100, 0], probability[..., :60, 1], probability[..., 60:100, 1] = 0.95, 0.95, 0.45
    probability[..., 100:130, 1] = beyond
    levels = Levels.of(shape, tuple(slice(0, length) for length in shape), probability, GRID)
    return levels.tally(to_regions(truth, BRATS).astype(bool), unseen, name)


@pytest.mark.parametrize("seen", [0, 3], ids=["all unseen", "half of them unseen"])
def test_an_inner_region_gains_nothing_at_the_cost_of_an_outer_one(seen: int) -> None:
    """At 0.4 the core has a Dice of 0.87 instead of 0.75, and the whole tumour one of 0.87 instead of 1."""
    costly = choose([*[in_core(False)] * seen, *[in_core(True)] * 3], BRATS, 0.5)
    assert {one.threshold for one in costly.values()} == {0.5}
    assert (costly["whole_tumour"].dice_before, costly["whole_tumour"].dice_after) == (1.0, 1.0)
    free = choose([*[in_core(False, 0.0)] * seen, *[in_core(True, 0.0)] * 3], BRATS, 0.5)
    assert (free["tumour_core"].threshold, free["tumour_core"].dice_after) == (0.4, 1.0)


def test_patients_learnt_from_bound_what_an_outer_region_loses() -> None:
    unharmed, harmed = in_core(True, 0.0), in_core(False)
    assert choose([unharmed] * 3 + [harmed], BRATS, 0.5)["tumour_core"].threshold == 0.5, "a mean of 0.03 is too much"
    assert choose([unharmed] * 40 + [harmed], BRATS, 0.5)["tumour_core"].threshold == 0.4
    assert choose([in_core(False, 0.0)] * 100 + [in_core(True)] * 3, BRATS, 0.5)["tumour_core"].threshold == 0.5


def test_dice_before_is_that_of_the_training_in_all_regions() -> None:
    """What the core no longer believes in too much is part of the whole tumour as well."""
    truth, probability = np.zeros(SHAPE, np.uint8), np.zeros((*SHAPE, 3), np.float32)
    truth[..., :10] = 1
    probability[..., :10, :2], probability[..., 10:20, 1] = 0.95, 0.65
    tally = Levels.of(SHAPE, WHOLE, probability, GRID).tally(to_regions(truth, BRATS).astype(bool), unseen=True)
    chosen = choose([tally] * 3, BRATS, 0.5)
    assert (chosen["tumour_core"].threshold, chosen["whole_tumour"].threshold) == (0.7, 0.5)
    whole = chosen["whole_tumour"]
    assert (whole.dice_before, whole.dice_after) == (pytest.approx(2 / 3), 1.0)
