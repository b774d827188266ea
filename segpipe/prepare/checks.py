"""Figures that tell a good preparation from a bad one: bounds as data, and what follows from a figure beyond them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from segpipe.errors import BadInput, Reason

GOOD, DOUBTFUL, FAILED = "good", "doubtful", "failed"


@dataclass(frozen=True)
class Bounds:
    """Where doubt and failure begin, below and above; None if there is no such bound."""

    fails_below: float | None = None
    doubt_below: float | None = None
    doubt_above: float | None = None
    fails_above: float | None = None


BOUNDS = {
    "brain_volume_ml": Bounds(600, 850, 1950, 2300),
    "main_part": Bounds(0.7, 0.9),
    "brain_at_edge": Bounds(None, None, 0.2, 0.7),
    "masks_agree": Bounds(0.85, 0.94),
    "metric": Bounds(None, None, -0.33, -0.2),
    "moved_mm": Bounds(None, None, 12.0, None),
    "atlas_overlap": Bounds(0.72, 0.8),
    "size_of_atlas": Bounds(0.7, 0.82, 1.08, 1.2),
    "mask_has_host": Bounds(None, 0.5),
    "mask_in_brain": Bounds(None, 0.9),
    "baseline_overlap": Bounds(None, 0.9),
    "baseline_metric": Bounds(None, None, -0.25, None),
    "baseline_beside_atlas_mm": Bounds(None, None, 10.0, None),
    "atlas_metric": Bounds(None, None, -0.4, None),
    "turned": Bounds(None, None, 0.9, 1.0),
    "mirrored": Bounds(None, None, 1.03, 1.1),
    "baseline_mirrored": Bounds(None, None, 1.03, None),
}
"""What each check is:

* `brain_volume_ml`: of the brain mask.
* `main_part`: share of what the network calls brain that is one part, of the modality where it is least.
* `brain_at_edge`: brain in an outermost slice of the field of view, as a share of the fullest slice, of the modality
  where it is most. What fails in this, in `main_part` or in its volume drops out alone if another modality does not.
* `masks_agree`: Dice of the brain masks of the reference and of another modality, each found on its own image, after
  the registration that has not looked at the second.
* `metric`: mutual information of a modality and the reference inside the brain, negative.
* `moved_mm`: how far a modality lay from where its header says.
* `atlas_overlap`: Dice of the brain and the atlas's, turned onto each other but not scaled.
* `size_of_atlas`: the cube root of the ratio of their volumes.
* `mask_has_host`: 1 if the mask refers to a modality or has voxels of its grid; 0 if it lies where its own header says,
  with the reference.
* `mask_in_brain`: share of what it labels that is brain.
* `baseline_overlap`: Dice of the brain and that of the patient's baseline, once laid onto it.
* `baseline_metric`: mutual information of the two references inside the baseline's brain, negative.
* `baseline_beside_atlas_mm`: how far that is from where the atlas alone would have put the brain.
* `baseline_mirrored`: as `mirrored`, of the two references. A scan of which one of these four is in doubt does not
  follow its baseline.
* `atlas_metric`: mutual information of the reference and the atlas once fitted affinely, negative.
* `turned`: mutual information with the atlas of the best pose that is turned by 90 or 180 degrees from what the header
  says, as a share of that of the header's pose. All modalities agree on a header that is wrong by such a turn or has
  an axis mirrored, and the outline fits nearly as well. The scan is refused, not turned, because a mirrored axis looks
  the same as a half turn, which would bring left to the right.
* `mirrored`: mutual information of the reference and the mirror image of a modality, as a share of that of the two as
  they are. Above 1, left is right in one of the two: 0.43 to 0.81 of pairs that agree, 1.20 to 1.41 of pairs that do
  not. Where all modalities and all visits have left and right exchanged, nothing in the images tells.
"""


@dataclass(frozen=True)
class Check:
    """One figure, the bounds on its side, and the verdict."""

    name: str
    role: str | None
    value: float
    doubt: float | None
    failure: float | None
    verdict: str

    @property
    def row(self) -> dict[str, Any]:
        """The CHECK struct of the table `scans`."""
        return asdict(self)

    @property
    def flag(self) -> str:
        """What `scans.flags` says of a doubtful one."""
        return self.name if self.role is None else f"{self.name}:{self.role}"

    def __str__(self) -> str:
        about = f" of {self.role}" if self.role else ""
        if not math.isfinite(self.value):
            return f"{self.name}{about} is no number"
        bound = self.failure if self.verdict == FAILED else self.doubt
        return (
            f"{self.name}{about} is {self.value:.3g}, bound {bound:g}" if bound is not None else f"{self.name}{about}"
        )


def check(name: str, value: float, role: str | None = None) -> Check:
    """Judge a figure by its bounds; one that is no number has failed."""
    bounds = BOUNDS[name]
    if not math.isfinite(value):
        return Check(name, role, float(value), None, None, FAILED)
    low = bounds.doubt_above is None
    if bounds.doubt_above is not None and bounds.doubt_below is not None:
        low = value < (bounds.doubt_above + bounds.doubt_below) / 2
    doubt, failure = (bounds.doubt_below, bounds.fails_below) if low else (bounds.doubt_above, bounds.fails_above)
    sign = 1 if low else -1
    verdict = GOOD
    if doubt is not None and sign * value < sign * doubt:
        verdict = DOUBTFUL
    if failure is not None and sign * value < sign * failure:
        verdict = FAILED
    return Check(name, role, float(value), doubt, failure, verdict)


def settle(name: str, checks: Sequence[Check]) -> list[str]:
    """The flags of a scan called `name`; BadInput with all failed figures where there is one."""
    failed = [str(one) for one in checks if one.verdict == FAILED]
    if failed:
        raise BadInput(
            Reason.BAD_PREPARATION,
            f"{name} could not be prepared well enough to be trusted: {'; '.join(failed)}",
            "look at the series, prepare it by hand, and ingest the result",
        )
    return [one.flag for one in checks if one.verdict == DOUBTFUL]


def brain_at_edge(brain: np.ndarray) -> float:
    """Brain in the fullest outermost slice, along any axis, as a share of the fullest slice along that axis."""
    found = 0.0
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        area = brain.sum(axis=others)
        if area.max():
            found = max(found, float(max(area[0], area[-1]) / area.max()))
    return found


def of_mask(labels: np.ndarray, brain: np.ndarray, has_host: bool) -> list[Check]:
    """The checks of a label map beside the brain, bool, on one grid; `has_host` if it was drawn on a known modality."""
    labelled = labels != 0
    inside = float(brain[labelled].mean()) if labelled.any() else 1.0
    return [check("mask_has_host", float(has_host)), check("mask_in_brain", inside)]
