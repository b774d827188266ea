"""Slices as small pictures with the outlines of masks drawn over them."""

import base64
import io
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Panel:
    """One slice of a strip: a grey picture and, per region, the outlines of truth and prediction as SVG paths.

    Paths are in pixels of the picture, (0, 0) its top left corner; a path is empty where there is nothing to outline.
    `truth` is None if the scan has no mask. `width_mm` and `height_mm` give the picture its true proportions.
    """

    slice_index: int
    most_wrong: bool
    picture: str
    width: int
    height: int
    width_mm: float
    height_mm: float
    truth: dict[str, str] | None
    predicted: dict[str, str]


def grey(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scaled values to 8-bit grey, `low` black and `high` white; values that are not finite are black.

    >>> grey(np.array([0.0, 5.0, 20.0, np.nan]), 0.0, 10.0).tolist()
    [0, 128, 255, 0]
    """
    span = high - low if high > low else 1.0
    share = np.nan_to_num((image.astype(np.float64) - low) / span, nan=0.0, posinf=1.0, neginf=0.0)
    return np.round(share.clip(0, 1) * 255).astype(np.uint8)


def png(picture: np.ndarray) -> str:
    """An (H, W) uint8 picture as a `data:` address that a page can hold."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def jpeg(picture: np.ndarray, quality: int = 82) -> str:
    """An (H, W) uint8 picture as a `data:` address, small and with losses that nobody sees behind outlines."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def outline(mask: np.ndarray, least_points: int = 0) -> str:
    """The border of an (H, W) bool mask as an SVG path in pixels, empty for an empty mask.

    The path runs half-way between the centres of pixels inside and outside, so that filling it by the even-odd
    rule covers exactly the centres of the mask's pixels. Rings of fewer than `least_points` are left out.
    """
    if not mask.any():
        return ""
    from contourpy import LineType, contour_generator

    padded = np.pad(mask, 1).astype(np.float64)
    rings = contour_generator(z=padded, line_type=LineType.Separate).lines(0.5)
    return "".join(_ring(np.asarray(ring) - 0.5) for ring in rings if len(ring) >= least_points)


def _ring(points: np.ndarray) -> str:
    corners = _without_straight_points(points[:-1])
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in corners) + "Z"


def _without_straight_points(points: np.ndarray) -> np.ndarray:
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return points[turns != 0]


def telling_slices(union: np.ndarray, wrong: np.ndarray, brain: tuple[int, int], count: int) -> list[int]:
    """At most `count` slices that show a scan best, ascending.

    `union` and `wrong` are (S,) pixel counts per slice: true or predicted, and those in which the two differ. Chosen
    are the slices at even shares of the union's volume, and in place of the nearest of them the one with the most
    wrong pixels. With nothing true or predicted it is the middle of the `brain` (first and behind-last slice).

    >>> telling_slices(np.array([0, 4, 4, 4, 4, 0]), np.array([0, 0, 0, 0, 3, 0]), (0, 6), 2)
    [1, 4]
    """
    if not union.any():
        return [(brain[0] + brain[1] - 1) // 2]
    shares = (np.arange(count) + 0.5) / count * union.sum()
    chosen = {int(np.searchsorted(np.cumsum(union), share)) for share in shares}
    if wrong.any():
        worst = int(wrong.argmax())
        nearest = min(chosen, key=lambda index: abs(index - worst))
        chosen = (chosen - {nearest}) | {worst}
    return sorted(chosen)


def window(box: tuple[int, int], low: int, high: int, size: int, margin: int) -> slice:
    """The part of an axis of `size` voxels with `box` and the voxels from `low` to before `high`, and a margin."""
    return slice(max(0, min(box[0], low) - margin), min(size, max(box[1], high) + margin))
