"""How a region changes from visit to visit of one patient: lesion by lesion, and by the product of its diameters.

All is numbers. The thresholds are those of RANO 2.0 (Wen et al. 2023, 10.1200/JCO.23.01059). Whether a patient responds
or progresses also depends on steroids, symptoms, the time since irradiation and a second scan, which no table knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from segpipe.core.lesions import REACH, dilated
from segpipe.core.metrics import Affine, Mask, Point, centroid_mm, pair
from segpipe.core.runs import Runs, shared

NEW, GONE, GROWN, SHRUNK, SAME = "new", "gone", "grown", "shrunk", "same"

PRODUCT_DECREASE, PRODUCT_INCREASE = -0.5, 0.25
"""Changes of the product of diameters, of 1, beside which RANO 2.0 looks at a tumour: against baseline, and nadir."""
VOLUME_DECREASE, VOLUME_INCREASE = -0.65, 0.4
"""The same of volumes; a lesion that changed by less is called the same."""

_DAY_SECONDS = 86400.0
_FIRST_YEAR, _LEAP_YEAR = 1970, 2000
_SESSION = re.compile(r"([^\W\d]*)[\W_]*(\d{1,14}(?:[\W_]+\d{1,8})*)", re.ASCII)


def _dates(*forms: str, rest: str = "") -> list[re.Pattern[str]]:
    """Patterns of dates, run together and with a hyphen between: Y is a year of four digits, y one of two."""
    pieces = {"Y": r"(?P<year>(?:19|20)\d\d)", "y": r"(?P<year>\d\d)", "m": r"(?P<month>\d\d)", "d": r"(?P<day>\d\d)"}
    apart = {**pieces, "m": r"(?P<month>\d\d?)", "d": r"(?P<day>\d\d?)"}
    return [
        re.compile(text)
        for form in forms
        for text in ("".join(pieces[one] for one in form) + rest, "-".join(apart[one] for one in form) + rest)
    ]


_UNIT = re.compile(r"(day|week|month|year|tag|woche|monat|jahr)s?")
_COUNTS = [re.compile(r"(?P<rest>\d{1,5})"), re.compile(r"(?P<rest>\d{1,3}(?:-\d{1,3})+)")]
_YEAR_FIRST = [*_dates("Ymd", rest=r"(?P<rest>(?:\d{4}|\d{6})?(?:-\d{1,8})*)"), *_dates("Ym", "ymd")]
_YEAR_LAST = _dates("dmy", "mdy", "my", "ym", "dm", "md")
"""What the same digits may mean where others write dates: it tells no order, but may speak against one."""


class LesionChange(NamedTuple):
    """A lesion at two visits: voxels before and now, 0 where it is not there, and the middle of what is there now."""

    fate: str
    voxels_before: int
    voxels: int
    centroid_mm: Point


class ProductChange(NamedTuple):
    """The product of diameters at a visit, mm2, beside the first and the least before it; changes are parts of 1.

    `nadir` is the place of the visit with the least product before this one. A change is NaN where its reference is 0.
    """

    product_mm2: float
    baseline_mm2: float
    nadir_mm2: float
    nadir: int
    from_baseline: float
    from_nadir: float


def lesion_changes(before: Mask, now: Mask, affine: Affine, reach: int = REACH) -> list[LesionChange]:
    """Every lesion of two visits on one grid, bool (S, H, W) or Runs, largest first.

    >>> before, now = np.zeros((2, 1, 1, 30), bool)
    >>> before[..., :2] = now[..., :5] = now[..., 20] = True
    >>> [change[:3] for change in lesion_changes(before, now, np.eye(4))]
    [('grown', 2, 5), ('new', 0, 1)]

    Components (26 neighbours) of both visits are one lesion where they meet once those before are dilated `reach`
    times, so that a small error of the registration makes no new lesion out of an old one. Raises ValueError for masks
    that are not bool or not of one shape.
    """
    before, now = pair(before, now)
    groups_before, groups_now, count = _groups(before, now, reach)
    sizes_before = np.bincount(groups_before, before.components.sizes, count).astype(int).tolist()
    sizes_now = np.bincount(groups_now, now.components.sizes, count).astype(int).tolist()
    found = []
    for number, (old, new) in enumerate(zip(sizes_before, sizes_now, strict=True)):
        there, groups = (now, groups_now) if new else (before, groups_before)
        middle = centroid_mm(_chosen(there, groups == number), affine)
        assert middle is not None  # a group has voxels at one visit at least
        found.append(LesionChange(_fate(old, new), old, new, middle))
    return sorted(found, key=lambda one: (-max(one.voxels, one.voxels_before), one.centroid_mm))


def _fate(before: int, now: int) -> str:
    if not before or not now:
        return GONE if before else NEW
    change = now / before - 1
    return GROWN if change >= VOLUME_INCREASE else SHRUNK if change <= VOLUME_DECREASE else SAME


def _groups(before: Runs, now: Runs, reach: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The lesion of each component before and now, and how many lesions there are."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    old, new = len(before.components.sizes), len(now.components.sizes)
    if not old or not new:
        return np.arange(old), np.arange(new), old + new
    wide = dilated(before, reach)
    old_run, wide_run, _ = shared(before, wide)
    new_run, touched, _ = shared(now, wide)
    first = np.concatenate([before.components.of_run[old_run], old + now.components.of_run[new_run]])
    second = old + new + np.concatenate([wide.components.of_run[wide_run], wide.components.of_run[touched]])
    number = old + new + len(wide.components.sizes)
    links = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(number, number))
    count, group = connected_components(links, directed=False)
    return group[:old], group[old : old + new], count


def _chosen(runs: Runs, components: np.ndarray) -> Runs:
    """The runs of some components, bool (n,)."""
    chosen = components[runs.components.of_run]
    return Runs(runs.shape, runs.starts[chosen], runs.stops[chosen])


def product_changes(products_mm2: Sequence[float]) -> list[ProductChange]:
    """What became of the product of diameters at each visit after the first; visits in order, 0 where there is nothing.

    >>> [(round(one.from_baseline, 2), round(one.from_nadir, 2)) for one in product_changes([400.0, 100.0, 150.0])]
    [(-0.75, -0.75), (-0.62, 0.5)]
    """
    found = []
    for place in range(1, len(products_mm2)):
        now, baseline = products_mm2[place], products_mm2[0]
        nadir = min(range(place), key=lambda at: products_mm2[at])
        least = products_mm2[nadir]
        found.append(ProductChange(now, baseline, least, nadir, _change(now, baseline), _change(now, least)))
    return found


def _change(now: float, reference: float) -> float:
    return now / reference - 1 if reference else float("nan")


def in_order(sessions: Mapping[str, float | None]) -> list[str] | None:
    """Visits of one patient from the first to the last, or None if nothing tells which came first.

    >>> in_order({"ses-10": None, "ses-2": None}), in_order({"a": 9e6, "b": 3e6}), in_order({"9f3a": None, "b": None})
    (['ses-2', 'ses-10'], ['b', 'a'], None)

    The values are seconds on a clock of the patient's own. Where one is missing, or two are less than a day apart, as
    they are where dates were wiped, names tell, if they are one word and a count, or a date with the year first. Where
    the same digits are dates with the day, month or year elsewhere too, and these are in another order, nothing tells.

    >>> in_order({"190105": None, "190301": None}), in_order({"990105": None, "010301": None})
    (None, ['990105', '010301'])
    """
    times = sorted(time for time in sessions.values() if time is not None)
    if len(times) == len(sessions) and all(later - time >= _DAY_SECONDS for time, later in pairwise(times)):
        return sorted(sessions, key=lambda name: sessions[name] or 0.0)
    matches = [_SESSION.fullmatch(name) for name in sessions]
    words = {match and match[1].lower() for match in matches}
    if len(words) > 1:
        return None
    numbers = ["-".join(re.findall(r"\d+", match[2])) for match in matches if match]
    counted = bool(_UNIT.fullmatch(str(words.pop())))
    told = _orders(numbers, _COUNTS if counted else [*_COUNTS, *_YEAR_FIRST])
    against = [] if counted else _orders(numbers, _YEAR_LAST)
    if not told or not told[0] or any(order != told[0] for order in [*told, *against]):
        return None
    return [list(sessions)[place] for place in told[0]]


def _orders(numbers: Sequence[str], patterns: Sequence[re.Pattern[str]]) -> list[tuple[int, ...]]:
    return [order for pattern in patterns if (order := _order(numbers, pattern)) is not None]


def _order(numbers: Sequence[str], pattern: re.Pattern[str]) -> tuple[int, ...] | None:
    """The places of names in order if all are read by the pattern; None if one is not, empty if two are the same."""
    keys = [_key(match) for one in numbers if (match := pattern.fullmatch(one))]
    if not numbers or len(keys) < len(numbers) or None in keys or len({len(key or ()) for key in keys}) > 1:
        return None
    return tuple(sorted(range(len(keys)), key=lambda at: keys[at] or ())) if len(set(keys)) == len(keys) else ()


def _key(match: re.Match[str]) -> tuple[int, ...] | None:
    """What a name is sorted by; None for what is no date, such as a month 20."""
    found = match.groupdict()
    rest = tuple(map(int, re.findall(r"\d+", found.get("rest") or "")))
    if len(found) == 1:
        return rest
    year, month, day = (int(found[name]) if name in found else None for name in ("year", "month", "day"))
    if year is not None and year < 100:
        year += 2000 if year < _FIRST_YEAR - 1900 else 1900
    try:
        date(year or _LEAP_YEAR, month or 1, day or 1)
    except ValueError:
        return None
    return (year or 0, month or 0, day or 0, *rest)
