"""Parts of a region that nothing inside of them speaks for, such as oedema far from any tumour.

A bright cerebellum or the white matter beside a ventricle can look like oedema, and such a part may be as large as the
lesion: no least volume tells it. But where the true parts of a region all hold some of what lies inside it, as oedema
surrounds a core, a part without is false. Whether they do is not known in advance: oedema may be all that shows of a
metastasis, and a region may have nothing inside. So the labels of many patients must say so, and no scan may lose by
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segpipe.core.cleaning import MOST_LOSS, PredictedScan, keep_components, outer_labels
from segpipe.core.metrics import dice
from segpipe.core.patients import by_patient, patient_numbers
from segpipe.core.regions import LabelConvention
from segpipe.core.runs import Runs, region_runs, shared

SHARE = 0.1
"""What a part must hold of the inner region, as a share of what the main part holds."""

LEAST_WITH_INNER = 8
"""Fewer patients with the inner region than these do not tell that a lesion never stands alone."""


@dataclass(frozen=True)
class Evidence:
    """The share for a region, 0 where parts need nothing inside, and mean Dice over `patients` without it and with."""

    share: float
    dice_before: float
    dice_after: float
    patients: int


def inner_regions(convention: LabelConvention) -> dict[str, str]:
    """For each region with others inside, the largest of these.

    >>> from segpipe.core.regions import CONVENTIONS
    >>> inner_regions(CONVENTIONS["brats"])
    {'whole_tumour': 'tumour_core', 'tumour_core': 'enhancing_tumour'}
    """
    regions = convention.regions
    inside = {
        name: [other for other in regions if set(regions[other]) < set(members)] for name, members in regions.items()
    }
    return {name: max(others, key=lambda one: len(regions[one])) for name, others in inside.items() if others}


def supported(outer: Runs, inner: Runs, share: float) -> np.ndarray:
    """Which components of a region stay, bool (n,), by what they hold of the region inside it.

    The main component is the one with the most voxels of both together. Others stay where they hold at least `share` of
    what it holds of the inner region; so all stay where it holds none.
    """
    components = outer.components
    run, _, overlap = shared(outer, inner)
    held = np.bincount(components.of_run[run], overlap, len(components.sizes))
    if not len(held):
        return np.zeros(0, bool)
    main = int(np.argmax(components.sizes + held))
    kept: np.ndarray = held >= share * held[main]
    kept[main] = True
    return kept


def keep_supported(labels: np.ndarray, convention: LabelConvention, shares: Mapping[str, float]) -> np.ndarray:
    """A label map, uint8 (slices, rows, columns), without components of regions that too little inside speaks for.

    `shares` names the regions, see `supported`. Components are 26-connected, outer regions come first, and what goes
    becomes what may lie around it, as in `segpipe.core.cleaning.clean`. A new array where something changes, else
    `labels` itself.

    >>> from segpipe.core.regions import CONVENTIONS
    >>> keep_supported(np.array([[[2, 4, 4, 0, 2, 2, 2, 2]]], np.uint8), CONVENTIONS["brats"], {"whole_tumour": 0.1})
    array([[[2, 4, 4, 0, 0, 0, 0, 0]]], dtype=uint8)
    """
    around = outer_labels(convention)
    for region, inner in inner_regions(convention).items():
        if not shares.get(region):
            continue
        runs = region_runs(labels, {name: convention.regions[name] for name in (region, inner)})
        kept = supported(runs[region], runs[inner], shares[region])
        labels = keep_components(labels, runs[region], kept, around[region])
    return labels


def choose(scans: Sequence[PredictedScan], convention: LabelConvention) -> dict[str, Evidence]:
    """The share of each region that has another inside, chosen outermost first.

    It is `SHARE` if the truth of at least `LEAST_WITH_INNER` patients has the inner region, and neither a true region
    nor any predicted one, of any scan, would lose more than `MOST_LOSS` of Dice by it; else 0. It need not help these
    scans: what their labels say of lesions is why.
    """
    chosen: dict[str, Evidence] = {}
    patients = [scan.patient for scan in scans]
    before = _dice(scans, convention)
    for region, inner in inner_regions(convention).items():
        without = [replace(one, labels=keep_supported(one.labels, convention, {region: SHARE})) for one in scans]
        after = _dice(without, convention)
        number = _patients([scan for scan in scans if scan.truth[inner].voxels])
        takes = number >= LEAST_WITH_INNER and all(_loses_little(scan.truth, region, inner) for scan in scans)
        takes = takes and bool((before - after <= MOST_LOSS).all())
        place = list(convention.regions).index(region)
        means = [
            float(by_patient(scores[:, place], patients).mean()) if number else np.nan for scores in (before, after)
        ]
        chosen[region] = Evidence(SHARE if takes else 0.0, means[0], means[takes], number)
        if takes:
            scans, before = without, after
    return chosen


def _patients(scans: Sequence[PredictedScan]) -> int:
    """How many patients these scans are of."""
    return len(set(patient_numbers([scan.patient for scan in scans]).tolist()))


def _dice(scans: Sequence[PredictedScan], convention: LabelConvention) -> np.ndarray:
    """Dice of scans and regions, float64 (n, R)."""
    scores = [[score for score, _ in scan.scores(scan.labels, convention)] for scan in scans]
    return np.array(scores).reshape(len(scans), len(convention.regions))


def _loses_little(truth: Mapping[str, Runs], region: str, inner: str) -> bool:
    """Whether the true region would be next to itself without its parts that hold too little of the inner one."""
    sizes = truth[region].components.sizes
    lost = int(sizes[~supported(truth[region], truth[inner], SHARE)].sum())
    return 1 - dice(truth[region].voxels - lost, 0, lost) <= MOST_LOSS
