"""Specks are left out, lesions are not: sizes that can be counted by hand."""

import numpy as np
import pytest

from segpipe.core.cleaning import MOST_LOSS, Choice, PredictedScan, clean
from segpipe.core.cleaning import choose as choose_all
from segpipe.core.regions import CONVENTIONS, to_regions
from segpipe.core.runs import Runs, region_runs

BRATS, BINARY = CONVENTIONS["brats"], CONVENTIONS["binary"]


def blob(*boxes: tuple[int, int, int, int], label: int = 2) -> np.ndarray:
    """A label map with cubes: first slice, row, column, and edge."""
    labels = np.zeros((12, 30, 30), np.uint8)
    for first, row, column, edge in boxes:
        labels[first : first + edge, row : row + edge, column : column + edge] = label
    return labels


def test_what_is_smaller_goes_and_what_is_as_large_stays() -> None:
    labels = blob((1, 1, 1, 5), (1, 20, 20, 2), (9, 1, 20, 1))
    assert clean(labels, BRATS, {"whole_tumour": 8.0}, 1.0).sum() == 2 * (125 + 8)
    assert clean(labels, BRATS, {"whole_tumour": 8.001}, 1.0).sum() == 2 * 125
    assert clean(labels, BRATS, {"whole_tumour": 1.001}, 0.125).sum() == 2 * 125
    kept = clean(labels, BRATS, {"whole_tumour": 0.5, "tumour_core": 50.0}, 1.0)
    assert kept is labels, "nothing changes: no copy"


def test_voxels_that_touch_at_a_corner_are_one_component() -> None:
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[2, 2, 2] = 2
    assert clean(labels, BRATS, {"whole_tumour": 3.0}, 1.0).sum() == 6


def test_an_inner_speck_becomes_what_lies_around_it() -> None:
    labels = blob((0, 0, 0, 10))
    labels[2, 2, 2] = 4  # an enhancing speck, core as well
    labels[5:8, 5:8, 5:8] = 1
    labels[6, 6, 6] = 4  # an enhancing speck within the core
    found = clean(labels, BRATS, {"enhancing_tumour": 2.0}, 1.0)
    assert (found[2, 2, 2], found[6, 6, 6]) == (1, 1), "no longer enhancing, still core"
    found = clean(labels, BRATS, {"tumour_core": 2.0, "enhancing_tumour": 2.0}, 1.0)
    assert (found[2, 2, 2], found[6, 6, 6]) == (2, 1)
    assert (to_regions(found, BRATS)[..., 0] == to_regions(labels, BRATS)[..., 0]).all()


@pytest.mark.parametrize(
    ("convention", "region", "label"), [("brats2024", "resection_cavity", 4), ("brats-ped", "cyst", 3)]
)
def test_a_speck_of_a_region_within_no_other_becomes_no_other_tissue(convention: str, region: str, label: int) -> None:
    known = CONVENTIONS[convention]
    speck = np.zeros((1, 1, 9), np.uint8)
    speck[0, 0, 4] = label
    left = to_regions(clean(speck, known, {region: 2.0}, 1.0), known)
    held = [other for other, members in known.regions.items() if set(known.regions[region]) < set(members)]
    assert [name for name, one in zip(known.regions, left.any(axis=(0, 1, 2)), strict=True) if one] == held


def test_inner_regions_go_with_what_held_them() -> None:
    labels = blob((0, 0, 0, 10), (10, 28, 28, 2))
    labels[11, 29, 29] = 4
    found = clean(labels, BRATS, {"whole_tumour": 9.0}, 1.0)
    assert not found[10:].any()


@pytest.mark.parametrize("seed", range(3))
def test_cleaning_twice_is_cleaning_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 0, 0, 0, 0, 1, 2, 4], np.uint8), size=(6, 20, 20))
    least = {"whole_tumour": 3.0, "tumour_core": 2.0, "enhancing_tumour": 2.0}
    once = clean(labels, BRATS, least, 1.0)
    assert (clean(once, BRATS, least, 1.0) == once).all()
    sizes = Runs.of(to_regions(once, BRATS)[..., 0].astype(bool)).components.sizes
    assert sizes.min() >= 3


def pair(predicted: np.ndarray, true: np.ndarray, voxel_ml: float = 0.001, patient: str = "") -> PredictedScan:
    return PredictedScan.of((predicted > 0).astype(np.uint8), {"lesion": Runs.of(true > 0)}, voxel_ml, patient)


def choose(pairs: list[PredictedScan], *sizes: tuple[float, ...], **named: tuple[float, ...]) -> Choice:
    return choose_all(pairs, BINARY, *sizes, **named)["lesion"]


TRUE, SPECKS = blob((1, 1, 1, 8)), blob((1, 1, 1, 8), (1, 20, 20, 4), (8, 20, 1, 4))  # 512 and 2 x 64 voxels


def test_specks_are_left_out_by_the_least_volume_that_helps() -> None:
    chosen = choose([pair(SPECKS, TRUE)] * 3, candidates_ml=(2.0, 0.06, 0.1, 0.5))
    assert chosen == Choice(0.1, pytest.approx(2 * 512 / (512 + 640)), 1.0, 3, 0.0, pytest.approx(1 / 3), 1.0)


def test_a_speck_that_hardly_changes_dice_is_a_false_lesion() -> None:
    chosen = choose([pair(blob((1, 1, 1, 8), (8, 20, 20, 1)), TRUE)] * 3, (0.01,))
    assert (chosen.least_ml, chosen.lesion_dice_before, chosen.lesion_dice_after) == (0.01, 0.5, 1.0)
    assert chosen.dice_before > 0.999


def test_a_region_of_which_there_is_little_is_none() -> None:
    nothing, scattered = np.zeros_like(TRUE), blob((1, 1, 1, 4), (1, 20, 20, 4), (8, 20, 1, 4))  # 3 x 64 voxels
    pairs = [pair(TRUE, TRUE), pair(scattered, nothing), pair(scattered, nothing)]
    chosen = choose(pairs, (0.05,), (0.1, 0.2, 0.4))
    assert (chosen.least_ml, chosen.presence_ml, chosen.dice_after) == (0, 0.2, 1.0)
    assert chosen.dice_before == pytest.approx(1 / 3)
    assert choose([pair(TRUE, TRUE), *pairs[:2]], (0.05,), (0.2,)).presence_ml == 0, "one patient alone says nothing"
    assert choose([*pairs, pair(scattered, scattered)], (0.05,), (0.2,)).presence_ml == 0, "someone has as little"


def test_little_of_an_inner_region_becomes_what_holds_it() -> None:
    labels = blob((0, 0, 0, 10))
    labels[1:3, 1:3, 1:3] = labels[6:8, 6:8, 6:8] = 4  # 2 x 8 voxels that enhance
    assert clean(labels, BRATS, {}, 1.0, {"enhancing_tumour": 16.0}) is labels
    found = clean(labels, BRATS, {}, 1.0, {"enhancing_tumour": 16.001})
    assert (found[1:3, 1:3, 1:3] == 1).all()
    assert (found == 4).sum() == 0
    assert (clean(labels, BRATS, {"enhancing_tumour": 9.0}, 1.0) == found).all()


def test_small_true_lesions_are_not_given_up_for_the_specks_of_others() -> None:
    small = blob((1, 20, 20, 4))
    assert choose([pair(SPECKS, TRUE)] * 5 + [pair(small, small)], (0.1,)).least_ml == 0
    assert choose([pair(SPECKS, TRUE)] * 5 + [pair(small, small)], (0.06,)).least_ml == 0


def test_a_patient_without_tumour_counts() -> None:
    nothing, speck = np.zeros_like(TRUE), blob((1, 20, 20, 4))
    chosen = choose([pair(TRUE, TRUE), pair(speck, nothing), pair(speck, nothing)], (0.1,))
    assert (chosen.least_ml, chosen.dice_before, chosen.dice_after) == (0.1, pytest.approx(1 / 3), 1.0)
    assert choose([pair(TRUE, TRUE), pair(TRUE, TRUE), pair(speck, nothing)], (0.1,)).least_ml == 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_patients_say_nothing(count: int) -> None:
    assert choose([pair(SPECKS, TRUE)] * count).least_ml == 0


def test_a_gain_that_is_noise_is_none() -> None:
    almost = blob((1, 1, 1, 8), (8, 10, 1, 1))  # so near that it is part of the lesion
    assert choose([pair(almost, TRUE)] * 4, (0.01,)).least_ml == 0


def test_scans_of_one_patient_are_one_patient() -> None:
    visits = [pair(SPECKS, TRUE, patient="a")] * 3
    assert (choose(visits).least_ml, choose(visits).patients) == (0, 1)
    others = [pair(SPECKS, TRUE, patient=name) for name in "bc"]
    chosen = choose([*visits, *others])
    assert (chosen.least_ml, chosen.patients) == (0.1, 3)


def test_a_mean_is_of_patients_not_of_scans() -> None:
    almost = [pair(TRUE, TRUE, patient="a")] * 6
    chosen = choose([*almost, *[pair(SPECKS, TRUE, patient=name) for name in "bcd"]])
    assert chosen.dice_before == pytest.approx((1 + 3 * 2 * 512 / (512 + 640)) / 4)


def scan(found: np.ndarray, true: np.ndarray) -> PredictedScan:
    return PredictedScan.of(found, region_runs(true, BRATS.regions), 0.001)


def test_an_inner_lesion_is_not_given_up_for_the_specks_of_an_outer_region() -> None:
    """A metastasis that enhances is little of the whole tumour of a patient and all that enhances in it."""
    metastasis = blob((1, 1, 1, 11))
    metastasis[2:5, 25:28, 25:28] = 4
    tumour = blob((1, 1, 1, 11))
    tumour[3:9, 3:9, 3:9] = 4
    speckled = np.maximum(tumour, blob((1, 20, 20, 3), (8, 20, 1, 3)))
    scans = [scan(speckled, tumour)] * 3
    without = choose_all(scans, BRATS)
    assert without["whole_tumour"].least_ml == 0.05, "three specks that are no lesions"
    chosen = choose_all([*scans, scan(metastasis, metastasis)], BRATS)
    least = {region: one.least_ml for region, one in chosen.items()}
    presence = {region: one.presence_ml for region, one in chosen.items()}
    np.testing.assert_array_equal(clean(metastasis, BRATS, least, 0.001, presence), metastasis)
    assert set(least.values()) | set(presence.values()) == {0.0}


def test_what_an_outer_region_takes_with_it_need_not_be_cleaned_again() -> None:
    tumour = blob((1, 1, 1, 11))
    tumour[3:9, 3:9, 3:9] = 4
    speckled = tumour.copy()
    speckled[1:4, 20:23, 20:23] = 4
    chosen = choose_all([scan(speckled, tumour)] * 3, BRATS)
    assert {region: one.least_ml for region, one in chosen.items()} == {
        "whole_tumour": 0.05,
        "tumour_core": 0.0,
        "enhancing_tumour": 0.0,
    }
    enhancing = chosen["enhancing_tumour"]
    assert (enhancing.dice_before, enhancing.dice_after) == (pytest.approx(2 * 216 / (2 * 216 + 27)), 1.0)


@pytest.mark.parametrize("seed", range(4))
def test_no_region_of_any_scan_loses_by_what_is_chosen(seed: int) -> None:
    """Figures are those of the maps that `clean` makes, whole heads and not what was cut out of them."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(4):
        truth = blob((1, 1, 1, 10))
        truth[3:9, 3:9, 3:9] = 4
        found = truth.copy()
        for _ in range(4):
            label, edge = int(rng.choice([1, 2, 4])), int(rng.integers(2, 5))
            place = tuple(slice(at, at + edge) for at in (int(rng.integers(8)), *rng.integers(13, 26, 2).tolist()))
            found[place] = label
            if rng.random() < 0.3:
                truth[place] = label
        pairs.append((found, truth))
    chosen = choose_all([scan(*one) for one in pairs], BRATS, (0.01, 0.03, 0.07), (0.01, 0.1))
    least = {region: one.least_ml for region, one in chosen.items()}
    presence = {region: one.presence_ml for region, one in chosen.items()}
    after = []
    for found, truth in pairs:
        both = [to_regions(one, BRATS).astype(bool) for one in (clean(found, BRATS, least, 0.001, presence), truth)]
        raw = to_regions(found, BRATS).astype(bool)
        before, now = (
            2 * (one & both[1]).sum((0, 1, 2)) / (one.sum((0, 1, 2)) + both[1].sum((0, 1, 2))) for one in (raw, both[0])
        )
        assert (before - now <= MOST_LOSS + 1e-12).all()
        after.append(now)
    np.testing.assert_allclose([one.dice_after for one in chosen.values()], np.mean(after, axis=0))
