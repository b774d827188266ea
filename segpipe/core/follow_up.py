"""How a region changes from visit to visit of one patient: lesion by lesion, and by the product of its diameters.

All is numbers. The thresholds are those of RANO 2.0 (Wen et al. 2023, 10.1200/JCO.23.01059). Whether a patient responds
or progresses also depends on steroids, symptoms, the time since irradiation and a second scan, which no table knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
_SESSION = re.compile(r"([^\W\d]*)[\W_]*(\d{1,14}(?:[\W_]+\d{1,8})*)", re.ASCII)


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
    they are where dates were wiped, names tell, if they are one word and numbers, such as a count or a date with the
    year first.
    """
    times = sorted(time for time in sessions.values() if time is not None)
    if len(times) == len(sessions) and all(later - time >= _DAY_SECONDS for time, later in pairwise(times)):
        return sorted(sessions, key=lambda name: sessions[name] or 0.0)
    keys = {name: _session_key(name) for name in sessions}
    words = {key[0] if key else None for key in keys.values()}
    numbers = [key[1] for key in keys.values() if key]
    if None in words or len(words) > 1 or len(set(numbers)) < len(sessions) or len({len(one) for one in numbers}) > 1:
        return None
    return sorted(sessions, key=lambda name: numbers[list(sessions).index(name)])


def _session_key(name: str) -> tuple[str, tuple[int, ...]] | None:
    match = _SESSION.fullmatch(name)
    if match is None:
        return None
    numbers = re.findall(r"\d+", match[2])
    year_last = len(numbers) == 3 and len(numbers[2]) == 4
    if year_last or (len(numbers[0]) == 8 and not numbers[0].startswith(("19", "20"))):
        return None
    return match[1].lower(), tuple(map(int, numbers))
