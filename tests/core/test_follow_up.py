"""Change between visits of masks and numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from segpipe.core.follow_up import GONE, GROWN, NEW, SAME, SHRUNK, in_order, lesion_changes, product_changes

AFFINE = np.diag([2.0, 1.0, 1.0, 1.0])
SHAPE = (30, 40, 40)


def boxes(*where: tuple[int, int, int, int]) -> np.ndarray:
    """Cubes of an edge at a corner."""
    mask = np.zeros(SHAPE, bool)
    for slice_, row, column, edge in where:
        mask[slice_ : slice_ + edge, row : row + edge, column : column + edge] = True
    return mask


def test_each_lesion_has_its_fate() -> None:
    before = boxes((1, 1, 1, 6), (1, 30, 1, 4), (20, 1, 30, 6), (15, 20, 20, 4))
    now = boxes((1, 1, 1, 7), (20, 1, 30, 3), (15, 20, 21, 4), (1, 20, 33, 2))
    found = {lesion[:3] for lesion in lesion_changes(before, now, AFFINE)}
    assert found == {(GROWN, 216, 343), (GONE, 64, 0), (SHRUNK, 216, 27), (SAME, 64, 64), (NEW, 0, 8)}


def test_lesions_are_largest_first_and_lie_where_they_are() -> None:
    first, second = lesion_changes(boxes((0, 0, 0, 3)), boxes((20, 20, 20, 5)), AFFINE)
    assert (first.fate, second.fate) == (NEW, GONE)
    assert first.centroid_mm == pytest.approx((44.0, 22.0, 22.0))
    assert second.centroid_mm == pytest.approx((2.0, 1.0, 1.0))


@pytest.mark.parametrize(("gap", "fates"), [(2, [SAME]), (3, [NEW, GONE])])
def test_a_small_shift_makes_no_new_lesion(gap: int, fates: list[str]) -> None:
    before, now = boxes((10, 10, 10, 3)), boxes((10, 10, 13 + gap, 3))
    assert sorted(lesion.fate for lesion in lesion_changes(before, now, AFFINE)) == sorted(fates)


def test_lesions_that_grow_together_are_one() -> None:
    before, now = boxes((5, 5, 5, 4), (5, 5, 20, 4)), np.zeros(SHAPE, bool)
    now[5:9, 5:9, 5:24] = True
    assert [lesion[:3] for lesion in lesion_changes(before, now, AFFINE)] == [(GROWN, 128, 304)]


@pytest.mark.parametrize("swapped", [False, True])
def test_nothing_before_or_now(swapped: bool) -> None:
    masks = [np.zeros(SHAPE, bool), boxes((1, 1, 1, 2))]
    before, now = masks[::-1] if swapped else masks
    assert [lesion.fate for lesion in lesion_changes(before, now, AFFINE)] == [GONE if swapped else NEW]
    assert lesion_changes(masks[0], masks[0], AFFINE) == []


def test_nadir_is_the_least_of_all_visits_before() -> None:
    found = product_changes([900.0, 300.0, 0.0, 150.0])
    assert [one.nadir for one in found] == [0, 1, 2]
    assert [one.from_baseline for one in found] == pytest.approx([-2 / 3, -1.0, -5 / 6])
    assert [one.from_nadir for one in found[:2]] == pytest.approx([-2 / 3, -1.0])
    assert np.isnan(found[2].from_nadir)
    assert np.isnan(product_changes([0.0, 20.0])[0].from_baseline)


DAY = 86400.0


@pytest.mark.parametrize(
    ("sessions", "order"),
    [
        ({"2": None, "10": None, "1": None}, ["1", "2", "10"]),
        ({"week-012": None, "Week-000": None}, ["Week-000", "week-012"]),
        ({"2019-03-01": None, "2018-11-30": None}, ["2018-11-30", "2019-03-01"]),
        ({"b": 4 * DAY, "a": 5 * DAY}, ["b", "a"]),
        ({"b": 4 * DAY, "a": 4.5 * DAY}, None),
        ({"3f0c5b": None, "90ab11": None}, None),
        ({"pre1": None, "post2": None}, None),
        ({"01-05-2019": None, "02-03-2018": None}, None),
        ({"01052019": None, "02032018": None}, None),
        ({"1": None, "01": None}, None),
        ({"311219": None, "010120": None}, None),
        ({"20012019": None, "19032019": None}, None),
        ({"12_2019": None, "01_2020": None}, None),
        ({"ses-12-2019": None, "ses-01-2020": None}, None),
        ({"31-12-19": None, "02-01-20": None}, None),
        ({"01-02-19": None, "15-01-19": None}, None),
        ({"1_10_2018": None, "05_02_2019": None}, None),
        ({"1218": None, "0119": None}, None),
        ({"12_18": None, "01_19": None}, None),
        ({"10023481": None, "10023482": None}, None),
        ({"20191301": None, "20191201": None}, None),
        ({"201912": None, "202001": None, "201812": None}, ["201812", "201912", "202001"]),
        ({"2019": None, "2018": None}, ["2018", "2019"]),
        ({"20190102_101500": None, "20181231_093000": None}, ["20181231_093000", "20190102_101500"]),
        ({"201901020930": None, "201812310930": None}, ["201812310930", "201901020930"]),
        ({"2019-1-15": None, "2018-12-5": None}, ["2018-12-5", "2019-1-15"]),
        ({"20190102": None, "20190102_2": None}, None),
        ({"day0365": None, "day0090": None}, ["day0090", "day0365"]),
        ({"day0402": None, "day0330": None}, ["day0330", "day0402"]),
        ({"tp0402": None, "tp0330": None}, None),
        ({"v1.10": None, "v1.2": None}, ["v1.2", "v1.10"]),
        ({"990101": None, "320201": None}, ["990101", "320201"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_the_order_of_visits_is_known_or_not_told(sessions: dict[str, float | None], order: list[str] | None) -> None:
    assert in_order(sessions) == order
