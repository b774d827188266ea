"""All modalities of a scan to one grid, with the brain alone: `prepare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np

import segpipe
from segpipe.core.orientation import reorient, reorient_affine
from segpipe.core.volume import scale
from segpipe.errors import BadInput, Reason
from segpipe.prepare import atlas, checks, network, raw, shipped
from segpipe.prepare.brain import Brain, filled, find_brain, largest_component
from segpipe.prepare.checks import Check, check
from segpipe.prepare.grids import LPS, Grid, resample
from segpipe.prepare.raw import Raw
from segpipe.prepare.register import Head, Rigid, brains_overlap, mirror_similarity, moved_mm, rigid, upright

REFERENCES = ("T1ce", "T1", "FLAIR", "T2")
"""What the others are registered to: the first of these that a scan has, else its first modality."""

PREPARED, RECOGNISED = "prepared", "recognised"
WITHOUT = "without"
"""The flag of a scan of which a modality dropped out, with the modality."""
_EDGE = 0.5


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan in the space `brain-1mm`; arrays are (S, H, W) along `orientation`.

    `images` holds stored values, float32, interpolated; what is no brain means 0 once scaled. `masks` have their
    labels' dtypes, and are None where they went with a modality that dropped out. `affine` maps indices to RAS+ mm.
    `record` is the PREPARATION struct of the table `scans`, `follows` the FOLLOWS struct: None for a scan that stands
    in the space on its own. `dropped` are the volumes that could not be prepared where others could, by the names of
    their files, and why.
    """

    images: dict[str, np.ndarray]
    masks: list[np.ndarray | None]
    brain: np.ndarray
    affine: np.ndarray
    record: dict[str, Any]
    flags: list[str]
    follows: dict[str, str] | None = None
    dropped: tuple[tuple[str, BadInput], ...] = ()


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


@dataclass(frozen=True, eq=False)
class Recognised:
    """A scan that is left as it is: the PREPARATION struct of the table `scans`, and what is in doubt."""

    record: dict[str, Any]
    flags: list[str]


def recognised(raws: Sequence[Raw]) -> Recognised | None:
    """What is known of a scan that is stripped and co-registered already and is to be left alone, else None.

    Its voxels must be cubes of 1 mm as well: any other scan has to be resampled. Whoever prepared it had reasons, so
    that a check which would have failed is a flag as well.
    """
    brains = [raw.stripped_brain(one) for one in raws]
    if np.abs(raws[0].grid.spacing_mm - 1).max() > 0.01 or not raw.is_prepared(raws, brains):
        return None
    masks = {one.role: brain for one, brain in zip(raws, brains, strict=True) if brain is not None}
    judged = _checks_of_recognised(raws, masks)
    record = {
        "how": RECOGNISED,
        "reference": _reference(raws).role,
        "transforms": [_transform_row(one.role, np.eye(4), None, 0.0) for one in raws],
        "checks": [one.row for one in judged],
        "versions": {"segpipe": segpipe.__version__},
    }
    return Recognised(record, [one.flag for one in judged if one.verdict != checks.GOOD])


def _checks_of_recognised(raws: Sequence[Raw], brains: Mapping[str, np.ndarray]) -> list[Check]:
    """Those that need no registration: whether a whole brain is there, and the same in all modalities."""
    reference = _reference(raws)
    brain, template = brains[reference.role], atlas.head()
    volume = np.count_nonzero(brain) * reference.grid.voxel_ml
    ends_below = np.pad(brain, ((0, 0), (0, 0), (1, 0)))  # grids of templates end in the cerebellum or above
    return [
        check("brain_volume_ml", volume),
        check("brain_at_edge", checks.brain_at_edge(ends_below), reference.role),
        check("size_of_atlas", float(np.cbrt(volume / (template.brain.sum() * template.grid.voxel_ml)))),
        *(check("masks_agree", raw.overlap(brain, brains[role]), role) for role in brains if role != reference.role),
    ]


def prepare(
    name: str, raws: Sequence[Raw], masks: Sequence[Raw], orientation: str, baseline: Baseline | None = None
) -> Prepared:
    """Bring the modalities `raws` of the scan `name`, and its masks, to the grid of the atlas, with the brain alone.

    Every modality's brain is found on its own image. The others are registered to the reference, and it to the atlas,
    rigidly; then each is resampled once, linearly, with both transforms chained. Where the patient has a `baseline`,
    the reference is registered to that instead, so that visits lie on each other; if that cannot be trusted, the scan
    stands on its own and is flagged. A mask goes with the modality that it
    was drawn on, else with the reference.

    A modality drops out alone, with the masks drawn on it, if it cannot be prepared while another can, or if it cannot
    be laid onto the reference while another can: two that agree outvote a third. Raises BadInput if no volume can be
    prepared or shows a brain, or where the result cannot be trusted.
    """
    aligned = _aligned(raws, baseline)
    flags = checks.settle(name, aligned.checks)
    brain = aligned.brain()
    placed = [_placed(name, mask, aligned, raws, brain) for mask in masks]
    lost = [*aligned.lost, *(one.mask.role for one in placed if one.lost)]
    dropped = {one.name: aligned.lost[one.role] for one in raws if one.role in aligned.lost}
    dropped |= {one.mask.name: one.lost for one in placed if one.lost}
    follows, space = aligned.baseline, atlas.grid()
    return Prepared(
        images={
            role: _turned(_masked(one, space, aligned.matrices[role], brain), orientation)
            for role, one in aligned.kept.items()
        },
        masks=[None if one.labels is None else _turned(one.labels, orientation) for one in placed],
        brain=_turned(brain, orientation),
        affine=reorient_affine(space.affine, space.shape, "RAS", orientation),
        record=_record(aligned, placed),
        flags=[
            *flags,
            *(flag for one in placed for flag in one.flags),
            *(f"{WITHOUT}:{role}" for role in dict.fromkeys(role.partition(".")[0] for role in lost)),
        ],
        follows=None if follows is None else {"session": follows.session, "fingerprint": follows.fingerprint},
        dropped=tuple(dropped.items()),
    )


@dataclass(frozen=True, eq=False)
class _Aligned:
    """The modalities of a scan, by role, that lie on the reference, and with it in the space.

    `main` is the head of the reference, `found` lays the others onto it, `matrices` take points of the space to points
    of each modality. `lost` are those that dropped out, `baseline` is the visit that is followed.
    """

    reference: str
    main: Head
    kept: dict[str, Raw]
    lost: dict[str, BadInput]
    found: dict[str, Rigid]
    matrices: dict[str, np.ndarray]
    checks: list[Check]
    baseline: Baseline | None

    def brain(self) -> np.ndarray:
        """The brain of the reference in the space, bool (R, A, S)."""
        mask = self.main.brain.astype(np.float32)
        return resample(mask, self.main.grid, atlas.grid(), self.matrices[self.reference]) > _EDGE

    def transforms(self) -> list[dict[str, Any]]:
        """A TRANSFORM struct for each modality that is kept."""
        return [
            _transform_row(role, self.matrices[role], self.found.get(role), moved(self.main, self.found, one))
            for role, one in self.kept.items()
        ]


@dataclass(frozen=True, eq=False)
class _PlacedMask:
    """A mask in the space: its labels (R, A, S), or why it has none there."""

    mask: Raw
    labels: np.ndarray | None = None
    matrix: np.ndarray | None = None
    checks: Sequence[Check] = ()
    flags: Sequence[str] = ()
    lost: BadInput | None = None


def _aligned(raws: Sequence[Raw], baseline: Baseline | None) -> _Aligned:
    """Find brains, and lay the modalities onto the reference and that onto the baseline, or else the atlas."""
    brains, lost = _usable(raws)
    usable = [one for one in raws if one.role in brains]
    reference = _reference(usable)
    heads = {one.role: Head(one.scaled, one.grid, brains[one.role].mask) for one in usable}
    main = heads[reference.role]
    found = {one.role: rigid(main, heads[one.role]) for one in usable if one is not reference}
    turned = upright(main, atlas.head())
    by_atlas = np.linalg.inv(turned.matrix)
    pairs = {role: _pair_checks(role, main, heads[role], one, by_atlas) for role, one in found.items()}
    lost |= _untrusted(usable, reference, pairs)
    kept = {one.role: one for one in usable if one.role not in lost}
    followed, beside = (None, []) if baseline is None else _followed(baseline, main, by_atlas)
    to_reference = by_atlas if followed is None else followed.matrix
    return _Aligned(
        reference=reference.role,
        main=main,
        kept=kept,
        lost=lost,
        found=found,
        matrices={role: found[role].matrix @ to_reference if role in found else to_reference for role in kept},
        checks=[
            *_checks({role: brains[role] for role in kept}, main, to_reference),
            *(one for role, of_pair in pairs.items() if role in kept for one in of_pair),
            *_atlas_checks(turned),
            *beside,
        ],
        baseline=None if followed is None else baseline,
    )


def _placed(name: str, mask: Raw, aligned: _Aligned, raws: Sequence[Raw], brain: np.ndarray) -> _PlacedMask:
    """A mask in the space, laid there as the modality is that it was drawn on. Raises BadInput if it fits no brain."""
    host = raw.host(mask, list(aligned.kept.values()))
    lost = _lost_host(mask, host, [one for one in raws if one.role in aligned.lost])
    if lost is not None:
        return _PlacedMask(mask, lost=lost)
    matrix = aligned.matrices[aligned.reference if host is None else host.role]
    labels = resample(mask.ras, mask.grid, atlas.grid(), matrix, nearest=True)
    judged = checks.of_mask(labels, brain, host is not None)
    return _PlacedMask(mask, labels, matrix, judged, checks.settle(name, judged))


def _record(aligned: _Aligned, placed: Sequence[_PlacedMask]) -> dict[str, Any]:
    """The PREPARATION struct of the table `scans`."""
    judged = [*aligned.checks, *(found for one in placed for found in one.checks)]
    of_masks = [_transform_row(one.mask.role, one.matrix, None, 0.0) for one in placed if one.matrix is not None]
    return {
        "how": PREPARED,
        "reference": aligned.reference,
        "transforms": [*aligned.transforms(), *of_masks],
        "checks": [one.row for one in judged],
        "versions": dict(_versions()),
    }


def _usable(raws: Sequence[Raw]) -> tuple[dict[str, Brain], dict[str, BadInput]]:
    """The brains of the modalities that can be prepared, by role, and what is wrong with the others.

    Raises BadInput where none is left, or none of the four that others can be registered to where there was one.
    """
    brains: dict[str, Brain] = {}
    lost: dict[str, BadInput] = {}
    for one in raws:
        try:
            raw.refuse(one)
            brain = _brain(one)
            name = f"{one.name} ({one.role})"
            checks.settle(name, _own_checks(brain, one.grid, one.role))
            brains[one.role] = brain
        except BadInput as error:
            lost[one.role] = error
    wanted = {one.role for one in raws} & {*REFERENCES}
    if not brains or (wanted and not wanted & {*brains}):
        raise next(iter(lost.values()))
    return brains, lost


def _own_checks(brain: Brain, grid: Grid, role: str) -> list[Check]:
    """Checks of one modality: does its own image show a whole brain?"""
    return [
        check("brain_volume_ml", brain.mask.sum() * grid.voxel_ml, role),
        check("main_part", brain.main_part, role),
        check("brain_at_edge", checks.brain_at_edge(brain.mask), role),
    ]


def _untrusted(usable: Sequence[Raw], reference: Raw, pairs: Mapping[str, Sequence[Check]]) -> dict[str, BadInput]:
    """The modalities that could not be laid onto the reference, by role, if another one could be."""
    found: dict[str, BadInput] = {}
    for one in usable:
        try:
            checks.settle(f"{one.name} ({one.role}), laid onto {reference.role},", pairs.get(one.role, ()))
        except BadInput as error:
            found[one.role] = error
    return found if len(found) < len(pairs) else {}


def _lost_host(mask: Raw, host: Raw | None, lost: Sequence[Raw]) -> BadInput | None:
    """Why a mask cannot be placed: it was drawn on a modality that dropped out, and has the grid of no other."""
    gone = next((one for one in lost if one.role == mask.drawn_on), raw.host(mask, lost) if host is None else None)
    if gone is None:
        return None
    problem = f"{mask.name} was drawn on {gone.name} ({gone.role}), which cannot be prepared with the others"
    return BadInput(Reason.MASK_MISMATCH, problem, "mend that series, or draw the mask on another one")


def _followed(baseline: Baseline, main: Head, alone: np.ndarray) -> tuple[Rigid | None, list[Check]]:
    """The transform from points of the space to points of a scan that is laid onto its baseline, and its checks.

    `alone` is the transform that the atlas gives. None if one check is in doubt.
    """
    found = rigid(baseline.head, main, start=alone)
    judged = [
        check("baseline_overlap", brains_overlap(baseline.head, main, found.matrix)),
        check("baseline_metric", found.metric),
        check("baseline_beside_atlas_mm", moved_mm(baseline.head, np.linalg.inv(alone) @ found.matrix)),
        check("baseline_mirrored", mirror_similarity(baseline.head, main, found.matrix, np.eye(4))),
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


def _checks(brains: Mapping[str, Brain], main: Head, to_reference: np.ndarray) -> list[Check]:
    """The checks of the reference against the atlas, and the worst of the checks of each modality's own image."""
    template = atlas.head()
    volume = main.brain.sum() * main.grid.voxel_ml
    edges = {role: checks.brain_at_edge(brain.mask) for role, brain in brains.items()}
    part, edge = min(brains, key=lambda role: brains[role].main_part), max(edges, key=lambda role: edges[role])
    return [
        check("brain_volume_ml", volume),
        check("main_part", brains[part].main_part, part),
        check("brain_at_edge", edges[edge], edge),
        check("size_of_atlas", float(np.cbrt(volume / (template.brain.sum() * template.grid.voxel_ml)))),
        check("atlas_overlap", brains_overlap(main, template, np.linalg.inv(to_reference))),
    ]


def _pair_checks(role: str, main: Head, other: Head, found: Rigid, to_reference: np.ndarray) -> list[Check]:
    """Of a modality beside the reference."""
    return [
        check("masks_agree", brains_overlap(main, other, found.matrix), role),
        check("metric", found.metric, role),
        check("moved_mm", moved_mm(main, found.matrix), role),
        check("mirrored", mirror_similarity(main, other, found.matrix, to_reference), role),
    ]


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


def check_installed() -> None:
    """Raise MissingPackage or NotFound if something is missing that every scan would need to be prepared."""
    shipped.check_modules()
    atlas.file()
    for name in network.NAMES:
        network.weights_file(name)


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    packages = ("SimpleITK", "openvino", *shipped.VERSIONS)
    return {"segpipe": segpipe.__version__, "atlas": atlas.NAME, **{name: version(name) for name in packages}}
