"""Pictures that let a person check preparations: the brain's outline and the reference's edges over each modality.

The worst check comes first. All modalities of a scan show the same places, so that an edge of the reference that runs
beside that of another modality is seen at a glance.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from segpipe.core.codec import decode
from segpipe.core.orientation import reorient
from segpipe.core.volume import scale
from segpipe.report import overlays, results
from segpipe.report.results import Row, Source

_VIEW = "SPL"
"""Slices from below, rows to the back, columns to the patient's left, as radiologists look at them."""
_AXIAL, _SAGITTAL = 0.55, 0.42
"""Places along the brain's box: the ventricles, and beside the middle."""
_NOTHING = 1e-3
"""What is no brain means 0 once scaled, except for rounding."""
_MARGIN = 4
_EDGE_SIGMA = 1.0
_PAIR_CHECKS = {"metric": -1.0, "masks_agree": 1.0}
"""Figures that depend on the two modalities and little on the patient, and the sign that makes more the better."""
_LEAST_COHORT, _FAR, _LEAST_DEVIATION, _MAD = 8, 5.0, 0.02, 1.4826
_LEAST_RING = 24
"""Points that a ring of an edge must have: what is shorter is noise."""


def badness(check: Mapping[str, Any]) -> float:
    """How bad a check is: below 0 good, 0 where doubt begins, 1 where it would have failed.

    >>> round(badness({"value": 0.895, "doubt": 0.94, "failure": 0.85}), 2)
    0.5
    >>> badness({"value": 6.0, "doubt": 12.0, "failure": None, "verdict": "good"})
    -0.5
    """
    value, doubt, failure = check["value"], check["doubt"], check["failure"]
    if doubt is None:
        return -math.inf
    if failure is None:  # nothing but the verdict tells on which side of the bound doubt lies
        distance = abs(value - doubt) / abs(doubt) if doubt else 0.0
        return -distance if check["verdict"] == "good" else distance
    return (value - doubt) / (failure - doubt)


def worst_first(scans: Sequence[Row]) -> list[Row]:
    """Scans that were prepared, the one with the worst check first; of those left alone only what is in doubt."""
    mine, unlike = _to_look_at(scans), unlike_cohort(scans)

    def badness_of(scan: Row) -> float:
        return max(_worst(scan), 0.0 if scan.get("flags") or scan["scan_id"] in unlike else -math.inf)

    return sorted(mine, key=lambda scan: (-badness_of(scan), scan["scan_id"]))


def unlike_cohort(scans: Sequence[Row]) -> dict[str, list[str]]:
    """By scan_id, the figures of pairs that are far worse than those of the cohort's other scans, good bounds or not.

    Pairs of the same two modalities are compared. Far is five deviations, told from the median deviation from the
    median, but at least 2 % of it; fewer than eight scans tell nothing.
    """
    groups: defaultdict[tuple[str, str, str], list[tuple[str, float]]] = defaultdict(list)
    for scan in _prepared(scans):
        for one in scan["preparation"]["checks"]:
            if one["name"] in _PAIR_CHECKS and one["role"]:
                key = (one["name"], scan["preparation"]["reference"], one["role"])
                groups[key].append((scan["scan_id"], one["value"]))
    found: defaultdict[str, list[str]] = defaultdict(list)
    for (name, _, role), members in groups.items():
        values = np.array([value for _, value in members]) * _PAIR_CHECKS[name]
        middle = float(np.median(values))
        deviation = max(_MAD * float(np.median(np.abs(values - middle))), _LEAST_DEVIATION * abs(middle))
        for (scan_id, _), value in zip(members, values, strict=True):
            if len(members) >= _LEAST_COHORT and middle - value > _FAR * deviation:
                found[scan_id].append(f"{name}:{role}")
    return dict(found)


def _prepared(scans: Sequence[Row]) -> list[Row]:
    return [scan for scan in scans if scan["preparation"] and scan["preparation"]["how"] == "prepared"]


def _to_look_at(scans: Sequence[Row]) -> list[Row]:
    return [scan for scan in scans if scan["preparation"] and (_prepared([scan]) or scan.get("flags"))]


def _worst(scan: Row) -> float:
    return max((badness(check) for check in scan["preparation"]["checks"]), default=-math.inf)


def preparation(source: Source, scan: Row, unlike: Sequence[str] = ()) -> Row:
    """What the page shows of one scan; `unlike` are its figures that are far worse than the cohort's."""
    found = scan["preparation"]
    volumes = _volumes(source, scan)
    reference = volumes[found["reference"]]
    brain = np.abs(next(iter(volumes.values()))) > _NOTHING
    box = [_span(brain, axis) for axis in range(3)]
    planes = {"axial": (0, _at(box[0], _AXIAL)), "sagittal": (2, _at(box[2], _SAGITTAL))}
    spacing = _spacing(scan)
    views = []
    for name, (axis, place) in planes.items():
        part = tuple(slice(max(0, low - _MARGIN), high + _MARGIN) for low, high in box)
        outline = overlays.outline(_plane(brain, axis, place, part))
        edges = edge_path(_plane(reference, axis, place, part), _plane(brain, axis, place, part))
        rows_mm, columns_mm = (spacing[other] for other in range(3) if other != axis)
        pictures = {}
        for role, volume in volumes.items():
            picture = overlays.grey(_plane(volume, axis, place, part), *results.contrast_window(scan, role))
            pictures[role] = overlays.jpeg(picture)
        height, width = picture.shape
        views.append(
            {
                "name": name,
                "pictures": pictures,
                "outline": outline,
                "edges": edges,
                "width": width,
                "height": height,
                "width_mm": width * columns_mm,
                "height_mm": height * rows_mm,
            }
        )
    checks = sorted(found["checks"], key=lambda check: -badness(check))
    return {
        "name": results.scan_name(scan),
        "left_alone": not _prepared([scan]),
        "reference": found["reference"],
        "flags": scan["flags"] or [],
        "unlike": list(unlike),
        "follows": scan["follows"]["session"] if scan["follows"] else None,
        "checks": [check | {"badness": badness(check)} for check in checks],
        "views": views,
        "natives": {file["role"]: _native(file, found) for file in scan["files"] if file["role"] in volumes},
    }


def _spacing(scan: Row) -> np.ndarray:
    """The spacing of a scan along the axes that pictures have, mm."""
    order = [
        next(place for place, code in enumerate(scan["orientation"]) if code in pair) for pair in ("SI", "AP", "LR")
    ]
    return np.array(scan["spacing_mm"])[order]


def edge_path(image: np.ndarray, brain: np.ndarray) -> str:
    """The edges of an (H, W) image inside the `brain` as an SVG path: where it crosses the value that parts it best.

    That value (Otsu 1979, 10.1109/TSMC.1979.4310076) lies between fluid and tissue, whichever of them is bright.
    """
    from scipy.ndimage import binary_erosion, gaussian_filter

    inside = binary_erosion(brain, iterations=2)
    if not inside.any():
        return ""
    smooth = gaussian_filter(image.astype(np.float32), _EDGE_SIGMA)
    bright = smooth > otsu(smooth[inside])
    tissue = bright if bright[inside].mean() >= 0.5 else ~bright
    return overlays.outline(tissue & inside, _LEAST_RING)


def otsu(values: np.ndarray, bins: int = 128) -> float:
    """The threshold that parts values (n,) into two classes with the greatest variance between them.

    >>> 1.0 < otsu(np.array([0.0, 1.0, 0.5, 9.0, 10.0, 9.5])) < 9.0
    True
    """
    counts, edges = np.histogram(values, bins)
    middles = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.nanargmax(np.where(above > 0, between, np.nan)))])


def _native(file: Row, found: Row) -> str:
    """The grid that a modality came from, and how far it was moved."""
    affine = np.reshape(file["affine"], (4, 4))
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    size = " × ".join(map(str, file["shape"][:3]))
    moved = next((one["moved_mm"] for one in found["transforms"] if one["role"] == file["role"]), 0.0)
    return f"{size}, {' × '.join(f'{mm:.3g}' for mm in spacing)} mm, moved {moved:.1f} mm"


def _volumes(source: Source, scan: Row) -> dict[str, np.ndarray]:
    """All modalities in scaled values, float32, along the axes that pictures have."""
    table = source.slices.to_table(
        columns=["slice_index", "dtypes", "image"], filter=ds.field("scan_id") == scan["scan_id"]
    ).sort_by("slice_index")
    found: dict[str, list[np.ndarray]] = {role: [] for role in scan["modalities"]}
    for dtypes, cell in zip(table["dtypes"].to_pylist(), table["image"], strict=True):
        planes = decode(np.frombuffer(cell.as_buffer(), np.uint8)[None], scan["shape"][1], scan["shape"][2], dtypes)
        for role, plane in zip(found, planes, strict=True):
            found[role].append(plane[0])
    files = {file["role"]: file for file in scan["files"]}
    return {
        role: reorient(scale(np.stack(planes), files[role]["slope"], files[role]["inter"]), scan["orientation"], _VIEW)
        for role, planes in found.items()
    }


def _span(brain: np.ndarray, axis: int) -> tuple[int, int]:
    used = np.flatnonzero(brain.any(axis=tuple(other for other in range(3) if other != axis)))
    return (int(used[0]), int(used[-1]) + 1) if len(used) else (0, brain.shape[axis])


def _at(span: tuple[int, int], share: float) -> int:
    return int(span[0] + share * (span[1] - span[0]))


def _plane(volume: np.ndarray, axis: int, place: int, part: Sequence[slice]) -> np.ndarray:
    """A plane of the part of a volume around the brain; what is above stands above."""
    plane = volume.take(place, axis)[tuple(side for other, side in enumerate(part) if other != axis)]
    return plane if axis == 0 else plane[::-1]
