"""Parts of a region without what belongs inside them: cubes that can be counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from segpipe.core.cleaning import PredictedScan
from segpipe.core.evidence import LEAST_WITH_INNER, SHARE, choose, keep_supported
from segpipe.core.regions import CONVENTIONS
from segpipe.core.runs import region_runs
from tests.core.test_cleaning import BINARY, BRATS, blob

WHOLE = {"whole_tumour": SHARE}


def tumour(*further: tuple[int, int, int, int], core: int = 3) -> np.ndarray:
    """Oedema of 6 cubed with a core, and further oedema without one."""
    labels = blob((1, 1, 1, 6), *further)
    labels[2 : 2 + core, 2 : 2 + core, 2 : 2 + core] = 4
    return labels


FAR = (2, 15, 15, 6)  # as large as the tumour


def scans(found: np.ndarray, truth: np.ndarray, count: int) -> list[PredictedScan]:
    return [PredictedScan.of(found, region_runs(truth, BRATS.regions), 0.001, f"P{n}") for n in range(count)]


def test_oedema_without_a_core_goes_also_where_it_is_as_large_as_the_tumour() -> None:
    np.testing.assert_array_equal(keep_supported(tumour(FAR), BRATS, WHOLE), tumour())


def test_a_second_tumour_stays() -> None:
    both = tumour((2, 15, 15, 5))
    both[3, 16, 16:19] = 4  # three voxels of core beside twenty-seven
    assert keep_supported(both, BRATS, WHOLE) is both, "nothing changes: no copy"
    both[3, 16, 17:19] = 2
    np.testing.assert_array_equal(keep_supported(both, BRATS, WHOLE), tumour())


def test_the_largest_stays_though_a_speck_holds_more_core() -> None:
    labels = blob((1, 1, 1, 9), (2, 20, 20, 2), label=2)
    labels[2, 20, 20] = 4
    assert (keep_supported(labels, BRATS, WHOLE) == labels).all()


def test_without_any_core_all_stays() -> None:
    labels = blob((1, 1, 1, 6), FAR)
    assert keep_supported(labels, BRATS, WHOLE) is labels
    assert keep_supported(np.zeros_like(labels), BRATS, WHOLE).sum() == 0


def test_an_unsupported_part_of_an_inner_region_becomes_what_holds_it() -> None:
    labels = blob((1, 1, 1, 9))
    labels[2:5, 2:5, 2:5] = 4
    labels[7, 7, 7] = 1  # core that does not enhance
    found = keep_supported(labels, BRATS, {"tumour_core": SHARE})
    assert (found[7, 7, 7], (found == 4).sum()) == (2, 27)


def test_a_region_with_nothing_inside_needs_nothing() -> None:
    labels = blob((1, 1, 1, 3), FAR, label=1)
    assert keep_supported(labels, BINARY, {"lesion": SHARE}) is labels
    assert choose([], BINARY) == {}


def test_it_is_chosen_where_no_true_tumour_stands_without_a_core() -> None:
    chosen = choose(scans(tumour(FAR), tumour(), LEAST_WITH_INNER), BRATS)["whole_tumour"]
    assert (chosen.share, chosen.patients, chosen.dice_after) == (SHARE, LEAST_WITH_INNER, 1.0)
    assert chosen.dice_before == pytest.approx(2 * 216 / (3 * 216))


def test_it_need_not_help_those_whose_labels_say_so() -> None:
    assert choose(scans(tumour(), tumour(), LEAST_WITH_INNER), BRATS)["whole_tumour"].share == SHARE


def test_few_patients_do_not_say_that_oedema_never_stands_alone() -> None:
    many = scans(tumour(FAR), tumour(), LEAST_WITH_INNER)
    assert choose(many[1:], BRATS)["whole_tumour"].share == 0
    assert choose([replace(scan, patient="same") for scan in many], BRATS)["whole_tumour"].patients == 1
    assert choose([], BRATS)["whole_tumour"].share == 0


def test_a_true_part_without_a_core_speaks_against_it() -> None:
    many = scans(tumour(), tumour(), LEAST_WITH_INNER)
    alone = scans(tumour(), tumour((8, 20, 20, 3)), 1)
    assert choose([*many, *alone], BRATS)["whole_tumour"].share == 0
    speck = scans(tumour(), tumour((8, 20, 20, 1)), 1)
    assert choose([*many, *speck], BRATS)["whole_tumour"].share == SHARE, "a voxel of 217 is nothing"


def test_no_predicted_region_may_lose_by_it() -> None:
    """The tumour's core was missed and one elsewhere was not: what is right would go."""
    many = scans(tumour(), tumour(), LEAST_WITH_INNER)
    truth = tumour((2, 15, 15, 5))
    truth[3:6, 16:19, 16:19] = 4
    missed = scans(tumour((2, 15, 15, 5)), truth, 1)
    assert choose([*many, *missed], BRATS)["whole_tumour"].share == 0


def test_every_region_with_another_inside_is_decided() -> None:
    for convention in CONVENTIONS.values():
        assert set(choose([], convention)) <= set(convention.regions)
