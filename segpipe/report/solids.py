"""Brain and tumour of a scan as surfaces that a page can hold and turn.

A mesh travels as base64: 16-bit coordinates within a common box, one byte of shade per vertex of the brain (how
bright the image is just below its surface, so that folds are seen), and 16- or 32-bit corners of triangles.
"""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from segpipe.core.surface import Mesh, surface, thinned, thinned_affine

BRAIN_MM, TUMOUR_MM = 2.5, 1.5
_MOST_VERTICES = 30_000
_BELOW_MM = 4.0
_SIDE = 65_535

Solid = dict[str, Any]


def solids(
    image: np.ndarray,
    brain: np.ndarray,
    regions: Mapping[str, Mapping[str, np.ndarray]],
    affine: np.ndarray,
    window: tuple[float, float],
) -> Solid:
    """What the page's viewer needs of one scan, ready for JSON.

    `image` (S, H, W) gives the brain's surface its shade, black and white at the two values of `window`; `brain` is
    bool; `regions` maps a kind (`truth`, `predicted`) and a region's name to its bool volume; `affine` is (4, 4), index
    to RAS+ mm. The result has `origin` and `step` (mm = origin + step * coordinate), `brain`, and `kinds`.
    """
    shell = mesh_of(brain, affine, BRAIN_MM)
    inner = {
        kind: {name: mesh_of(volume, affine, TUMOUR_MM) for name, volume in named.items()}
        for kind, named in regions.items()
    }
    every = [shell.vertices, *(mesh.vertices for named in inner.values() for mesh in named.values())]
    points = np.concatenate([one for one in every if len(one)] or [np.zeros((1, 3))])
    origin = points.min(axis=0)
    step = max(float((points.max(axis=0) - origin).max()), 1e-6) / _SIDE
    return {
        "origin": [round(float(value), 4) for value in origin],
        "step": step,
        "middle": [round(float(value), 2) for value in (points.min(axis=0) + points.max(axis=0)) / 2],
        "radius": round(float(np.linalg.norm(points - points.mean(axis=0), axis=1).max()), 2),
        "brain": pack(shell, origin, step) | {"shade": _base64(shades(shell, image, affine, window))},
        "kinds": {
            kind: {name: pack(mesh, origin, step) for name, mesh in named.items()} for kind, named in inner.items()
        },
    }


def mesh_of(volume: np.ndarray, affine: np.ndarray, step_mm: float) -> Mesh:
    """The surface of a bool volume in mm, from blocks of about `step_mm`; from larger ones where it is too large."""
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    while True:
        slices, rows, columns = (max(1, round(step_mm / float(one))) for one in spacing)
        steps = (slices, rows, columns)
        mesh = surface(smoothed(thinned(volume.astype(np.float32), steps)))
        if len(mesh.vertices) <= _MOST_VERTICES:
            return mesh.moved(thinned_affine(affine, steps))
        step_mm = max(step_mm * 1.25, float(spacing.min()) * (max(steps) + 1))


def smoothed(field: np.ndarray) -> np.ndarray:
    """Means over neighbours with the weights 1, 2, 1 along each axis: steps of voxels turn into slopes."""
    for axis in range(field.ndim):
        padded = np.pad(field, [(1, 1) if one == axis else (0, 0) for one in range(field.ndim)])
        middle, before, after = (np.take(padded, range(at, at + field.shape[axis]), axis=axis) for at in (1, 0, 2))
        field = (before + 2 * middle + after) / 4
    return field


def shades(mesh: Mesh, image: np.ndarray, affine: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """How bright the image is just below each vertex, (V,) uint8, from the first to the second value of `window`."""
    if not len(mesh.vertices):
        return np.zeros(0, np.uint8)
    below = mesh.vertices - _BELOW_MM * normals(mesh)
    inverse = np.linalg.inv(affine)
    index = np.rint(below @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    index = index.clip(0, np.array(image.shape) - 1)
    low, high = window
    share = (image[tuple(index.T)] - low) / (high - low if high > low else 1.0)
    return np.round(np.nan_to_num(share).clip(0, 1) * 255).astype(np.uint8)


def normals(mesh: Mesh) -> np.ndarray:
    """Outward unit vectors at the vertices, (V, 3): means over the faces around, weighted by their area."""
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    across = np.cross(b - a, c - a)
    total = np.zeros_like(mesh.vertices)
    for corner in range(3):
        np.add.at(total, mesh.faces[:, corner], across)
    return total / np.linalg.norm(total, axis=1, keepdims=True).clip(1e-12)


def pack(mesh: Mesh, origin: np.ndarray, step: float) -> Solid:
    """A mesh for JSON: `count`, `points` (uint16 x, y, z), `wide` and `faces` (uint16, or uint32 where wide)."""
    places = np.rint((mesh.vertices - origin) / step).clip(0, _SIDE).astype("<u2")
    wide = len(mesh.vertices) > _SIDE
    return {
        "count": len(mesh.vertices),
        "triangles": len(mesh.faces),
        "points": _base64(places),
        "wide": wide,
        "faces": _base64(mesh.faces.astype("<u4" if wide else "<u2")),
    }


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
