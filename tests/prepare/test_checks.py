"""A figure beyond its bounds is doubtful or has failed, on the side that it is on."""

import numpy as np
import pytest

from segpipe.errors import BadInput, Reason
from segpipe.prepare.checks import BOUNDS, DOUBTFUL, FAILED, GOOD, brain_at_edge, check, of_mask, settle


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("brain_volume_ml", 1300, GOOD),
        ("brain_volume_ml", 700, DOUBTFUL),
        ("brain_volume_ml", 2000, DOUBTFUL),
        ("brain_volume_ml", 300, FAILED),
        ("brain_volume_ml", 4000, FAILED),
        ("metric", -0.5, GOOD),
        ("metric", -0.25, DOUBTFUL),
        ("metric", -0.1, FAILED),
        ("masks_agree", 0.97, GOOD),
        ("masks_agree", 0.64, FAILED),
        ("moved_mm", 30, DOUBTFUL),
        ("atlas_metric", -0.48, GOOD),
        ("atlas_metric", -0.34, DOUBTFUL),
        ("turned", 0.79, GOOD),
        ("turned", 0.95, DOUBTFUL),
        ("turned", 1.09, FAILED),
        ("masks_agree", float("nan"), FAILED),
    ],
)
def test_a_figure_is_judged_by_its_bounds(name, value, verdict):
    assert check(name, value).verdict == verdict


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", BOUNDS)
def test_a_figure_that_is_no_number_has_failed(name, value):
    found = check(name, value, "T2")
    assert found.verdict == FAILED
    with pytest.raises(BadInput, match=f"{name} of T2 is no number"):
        settle("Scan a", [found])


@pytest.mark.parametrize("name", BOUNDS)
def test_doubt_comes_before_failure(name):
    bounds = BOUNDS[name]
    steps = (bounds.fails_below, bounds.doubt_below, bounds.doubt_above, bounds.fails_above)
    known = [step for step in steps if step is not None]
    assert known == sorted(known)
    assert known


def test_failures_are_told_with_their_figures_and_doubts_are_flags():
    good, doubtful, failed = check("main_part", 0.99), check("moved_mm", 20, "T2"), check("masks_agree", 0.5, "T2")
    assert settle("Scan a", [good, doubtful]) == ["moved_mm:T2"]
    with pytest.raises(BadInput, match=r"Scan a .* masks_agree of T2 is 0.5, bound 0.85") as caught:
        settle("Scan a", [good, doubtful, failed])
    assert caught.value.reason is Reason.BAD_PREPARATION


def test_a_brain_that_is_cut_off_shows_at_the_edge():
    brain = np.zeros((10, 10, 10), bool)
    brain[3:7, 3:7, 3:7] = True
    assert brain_at_edge(brain) == 0
    brain[3:5, 3:7, 7:] = True
    assert brain_at_edge(brain) == pytest.approx(0.5)


def test_a_mask_that_lies_beside_the_brain_or_on_a_grid_of_its_own_is_doubtful():
    brain, labels = np.zeros((2, 10, 10, 10), np.uint8)
    brain[2:8] = 1
    labels[4:7] = 4
    assert settle("Scan a", of_mask(labels, brain > 0, True)) == []
    assert settle("Scan a", of_mask(labels, brain > 0, False)) == ["mask_has_host"]
    assert settle("Scan a", of_mask(np.roll(labels, 3, axis=0), brain > 0, True)) == ["mask_in_brain"]
    assert settle("Scan a", of_mask(np.zeros_like(labels), brain > 0, True)) == []
