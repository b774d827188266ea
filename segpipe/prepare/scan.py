"""All modalities of a scan to one grid, with the brain alone: `prepare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np

import segpipe
from segpipe.core.orientation import reorient, reorient_affine
from segpipe.core.volume import scale
from segpipe.errors import BadInput, Reason
from segpipe.prepare import atlas, checks, raw
from segpipe.prepare.brain import Brain, filled, find_brain, largest_component
from segpipe.prepare.checks import Check, check
from segpipe.prepare.grids import LPS, Grid, resample
from segpipe.prepare.raw import Raw
from segpipe.prepare.register import Head, Rigid, brains_overlap, moved_mm, rigid, upright

REFERENCES = ("T1ce", "T1", "FLAIR", "T2")
"""What the others are registered to: the first of these that a scan has, else its first modality."""

PREPARED, RECOGNISED = "prepared", "recognised"
_EDGE = 0.5


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan in the space `brain-1mm`; arrays are (S, H, W) along `orientation`.

    `images` holds stored values, float32, interpolated; what is no brain means 0 once scaled. `masks` have their
    labels' dtypes. `affine` maps indices to RAS+ mm. `record` is the PREPARATION struct of the table `scans`, `follows`
    the FOLLOWS struct: None for a scan that stands in the space on its own.
    """

    images: dict[str, np.ndarray]
    masks: list[np.ndarray]
    brain: np.ndarray
    affine: np.ndarray
    record: dict[str, Any]
    flags: list[str]
    follows: dict[str, str] | None = None


@dataclass(frozen=True, eq=False)
class Baseline:
    """Another visit of a patient, in the space: its reference modality there, which later visits are registered to."""

    session: str
    fingerprint: str
    head: Head


def baseline_of(
    session: str, fingerprint: str, image: np.ndarray, orientation: str, slope: float = 1.0, inter: float = 0.0
) -> Baseline:
    """A visit as others follow it, from the stored values (S, H, W) of its reference modality in the space."""
    ras = np.ascontiguousarray(reorient(image, orientation, "RAS"))
    brain = filled(ras != np.float32(-inter / slope))
    return Baseline(session, fingerprint, Head(scale(ras, slope, inter), atlas.grid(), brain, alone=True))


def recognised(raws: Sequence[Raw]) -> dict[str, Any] | None:
    """The PREPARATION struct of a scan that is stripped and co-registered already and is to be left alone, else None.

    Its voxels must be cubes of 1 mm as well: any other scan has to be resampled.
    """
    brains = [raw.stripped_brain(one) for one in raws]
    spacing = raws[0].grid.spacing_mm
    if not raw.is_prepared(raws, brains) or np.abs(spacing - 1).max() > 0.01:
        return None
    return {
        "how": RECOGNISED,
        "reference": raws[0].role,
        "transforms": [_transform_row(one.role, np.eye(4), None, 0.0) for one in raws],
        "checks": [],
        "versions": {"segpipe": segpipe.__version__},
    }


def prepare(
    name: str, raws: Sequence[Raw], masks: Sequence[Raw], orientation: str, baseline: Baseline | None = None
) -> Prepared:
    """Bring the modalities `raws` of the scan `name`, and its masks, to the grid of the atlas, with the brain alone.

    Every modality's brain is found on its own image. The others are registered to the reference, and it to the atlas,
    rigidly; then each is resampled once, linearly, with both transforms chained. Where the patient has a `baseline`,
    the reference is registered to that instead, so that visits lie on each other; if that cannot be trusted, the scan
    stands on its own and is flagged. A mask goes with the modality that it
    was drawn on, else with the reference. Raises BadInput if a volume cannot be prepared, shows no brain, or where
    the result cannot be trusted.
    """
    for one in raws:
        raw.refuse(one)
    reference = _reference(raws)
    brains = {one.role: _brain(one) for one in raws}
    heads = {one.role: Head(one.scaled, one.grid, brains[one.role].mask) for one in raws}
    main = heads[reference.role]
    found = {one.role: rigid(main, heads[one.role]) for one in raws if one is not reference}
    turned = upright(main, atlas.head())
    to_reference = np.linalg.inv(turned.matrix)
    beside: list[Check] = []
    if baseline is not None:
        followed, beside = _followed(baseline, main, to_reference)
        to_reference = to_reference if followed is None else followed.matrix
        baseline = None if followed is None else baseline
    judged = [*_checks(brains, heads, reference.role, found, to_reference), *_atlas_checks(turned), *beside]
    flags = checks.settle(name, judged)
    matrices = {role: one.matrix @ to_reference for role, one in found.items()} | {reference.role: to_reference}
    space = atlas.grid()
    brain = resample(main.brain.astype(np.float32), main.grid, space, to_reference) > _EDGE
    transforms = [
        _transform_row(one.role, matrices[one.role], found.get(one.role), moved(main, found, one)) for one in raws
    ]
    labels = []
    for mask in masks:
        host = raw.host(mask, raws)
        matrix = matrices[(host or reference).role]
        labels.append(resample(mask.ras, mask.grid, space, matrix, nearest=True))
        transforms.append(_transform_row(mask.role, matrix, None, 0.0))
        of_mask = checks.of_mask(labels[-1], brain, host is not None)
        judged += of_mask
        flags += checks.settle(name, of_mask)
    return Prepared(
        images={one.role: _turned(_masked(one, space, matrices[one.role], brain), orientation) for one in raws},
        masks=[_turned(one, orientation) for one in labels],
        brain=_turned(brain, orientation),
        affine=reorient_affine(space.affine, space.shape, "RAS", orientation),
        record={
            "how": PREPARED,
            "reference": reference.role,
            "transforms": transforms,
            "checks": [one.row for one in judged],
            "versions": dict(_versions()),
        },
        flags=flags,
        follows=None if baseline is None else {"session": baseline.session, "fingerprint": baseline.fingerprint},
    )


def _followed(baseline: Baseline, main: Head, alone: np.ndarray) -> tuple[Rigid | None, list[Check]]:
    """The transform from points of the space to points of a scan that is laid onto its baseline, and its checks.

    `alone` is the transform that the atlas gives. None if one check is in doubt.
    """
    found = rigid(baseline.head, main, start=alone)
    judged = [
        check("baseline_overlap", brains_overlap(baseline.head, main, found.matrix)),
        check("baseline_metric", found.metric),
        check("baseline_beside_atlas_mm", moved_mm(baseline.head, np.linalg.inv(alone) @ found.matrix)),
    ]
    return (found if all(one.verdict == checks.GOOD for one in judged) else None), judged


def moved(main: Head, found: dict[str, Rigid], one: Raw) -> float:
    """How far a modality lay from where its header says, mm; 0 for the reference."""
    return moved_mm(main, found[one.role].matrix) if one.role in found else 0.0


def _reference(raws: Sequence[Raw]) -> Raw:
    by_role = {one.role: one for one in raws}
    return next((by_role[role] for role in REFERENCES if role in by_role), raws[0])


def _brain(one: Raw) -> Brain:
    stripped = raw.stripped_brain(one)
    found = find_brain(one.scaled) if stripped is None else Brain(filled(largest_component(stripped)), 1.0)
    if not found.mask.any():
        raise BadInput(Reason.NO_BRAIN, f"{one.name} ({one.role}) shows no brain", "choose a series of the head")
    return found


def _checks(
    brains: dict[str, Brain], heads: dict[str, Head], reference: str, found: dict[str, Rigid], to_reference: np.ndarray
) -> list[Check]:
    main, template = heads[reference], atlas.head()
    volume = main.brain.sum() * main.grid.voxel_ml
    made = [
        check("brain_volume_ml", volume),
        check("main_part", min(brain.main_part for brain in brains.values())),
        check("brain_at_edge", max(checks.brain_at_edge(head.brain) for head in heads.values())),
        check("size_of_atlas", float(np.cbrt(volume / (template.brain.sum() * template.grid.voxel_ml)))),
        check("atlas_overlap", brains_overlap(main, template, np.linalg.inv(to_reference))),
    ]
    for role, one in found.items():
        made += [
            check("masks_agree", brains_overlap(main, heads[role], one.matrix), role),
            check("metric", one.metric, role),
            check("moved_mm", moved_mm(main, one.matrix), role),
        ]
    return made


def _atlas_checks(turned: Rigid) -> list[Check]:
    made = [check("atlas_metric", turned.metric)]
    return made if turned.turned is None else [*made, check("turned", turned.turned)]


def _masked(one: Raw, space: Grid, matrix: np.ndarray, brain: np.ndarray) -> np.ndarray:
    outside = -one.inter / one.slope
    stored = np.nan_to_num(one.ras.astype(np.float32), nan=outside, posinf=outside, neginf=outside)
    return np.where(brain, resample(stored, one.grid, space, matrix, outside=outside), np.float32(outside))


def _turned(array: np.ndarray, orientation: str) -> np.ndarray:
    return np.ascontiguousarray(reorient(array, "RAS", orientation))


def _transform_row(role: str, matrix: np.ndarray, found: Rigid | None, distance: float) -> dict[str, Any]:
    return {
        "role": role,
        "matrix": matrix.ravel().tolist(),
        "itk": itk_text(matrix),
        "metric": None if found is None else found.metric,
        "moved_mm": distance,
    }


def itk_text(matrix: np.ndarray) -> str:
    """A transform of RAS+ points as an ITK transform file, which speaks of LPS points.

    >>> print(itk_text(np.eye(4)).splitlines()[3])
    Parameters: 1 0 0 0 1 0 0 0 1 0 0 0
    """
    lps = LPS @ matrix @ LPS
    numbers = " ".join(f"{value + 0.0:.17g}" for value in [*lps[:3, :3].ravel(), *lps[:3, 3]])
    lines = ("#Insight Transform File V1.0", "#Transform 0", "Transform: AffineTransform_double_3_3")
    return "\n".join((*lines, f"Parameters: {numbers}", "FixedParameters: 0 0 0", ""))


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    packages = ("SimpleITK", "openvino", "deepbet", "nilearn")
    return {"segpipe": segpipe.__version__, "atlas": atlas.NAME, **{name: version(name) for name in packages}}
