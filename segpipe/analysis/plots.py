"""Pictures for notebooks, with matplotlib: slices with outlines, three planes and a surface, learning curves.

Truth is blue and solid, prediction orange and dashed, as in the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segpipe.core.faces import may_show_face
from segpipe.core.intensity import brain_mask
from segpipe.core.regions import LabelConvention, to_regions
from segpipe.core.surface import surface, thinned, thinned_affine
from segpipe.errors import NotFound, UsageError
from segpipe.prepare.native import resampled_to_source
from segpipe.report.overlays import telling_slices, window

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from segpipe.analysis.scan import Scan

TRUTH, PREDICTED = "#3f9fe0", "#f08c00"
_SURFACE_MM = 3.0
_MARGIN = 3


def slices_of(scan: Scan, modality: str | None = None, model: str | None = None, count: int = 5) -> Figure:
    """A row of the slices that show most of a scan's whole tumour, with the outlines of truth and prediction."""
    truth, predicted = outer_regions(scan, model)
    image = scan.image(modality or default_modality(scan))
    union, wrong = truth | predicted, truth ^ predicted
    box = scan.row["brain_box"]
    indices = telling_slices(union.sum(axis=(1, 2)), wrong.sum(axis=(1, 2)), (box[0], box[1]), count)
    rows, columns = (
        window((box[2 * axis], box[2 * axis + 1]), *_extent(union, axis), scan.shape[axis], _MARGIN) for axis in (1, 2)
    )
    figure, axes = _figure(len(indices))
    low, high = contrast(scan, image)
    for axis, index in zip(axes, indices, strict=True):
        _slice(axis, image[index, rows, columns], low, high, scan.spacing_mm[1] / scan.spacing_mm[2])
        _outline(axis, truth[index, rows, columns], TRUTH, "-")
        _outline(axis, predicted[index, rows, columns], PREDICTED, "--")
        axis.set_title(f"slice {index}", fontsize=9)
    figure.suptitle(_caption(scan, modality), fontsize=10)
    return figure


def picture_of(scan: Scan, modality: str | None = None, model: str | None = None) -> Figure:
    """Three planes through the middle of the tumour, and its surface in that of the brain: a still of the viewer.

    A head that is not stripped has no surface here, because that would be a likeness; the caption says so.
    """
    truth, predicted = outer_regions(scan, model)
    image = scan.image(modality or default_modality(scan))
    union = truth | predicted
    centre = np.argwhere(union).mean(axis=0).round().astype(int) if union.any() else np.array(scan.shape) // 2
    figure, axes = _figure(4, solid=3)
    low, high = contrast(scan, image)
    for axis, place in zip(axes[:3], range(3), strict=True):
        across = [other for other in range(3) if other != place]
        planes = [np.take(array, centre[place], axis=place) for array in (image, truth, predicted)]
        lower = "upper"
        if scan.orientation[across[0]] == "S":  # the head stands upright
            planes, lower = planes, "lower"
        _slice(axis, planes[0], low, high, scan.spacing_mm[across[0]] / scan.spacing_mm[across[1]], lower)
        _outline(axis, planes[1], TRUTH, "-")
        _outline(axis, planes[2], PREDICTED, "--")
        axis.set_title(f"{('slice', 'row', 'column')[place]} {centre[place]}", fontsize=9)
    faceless = not may_show_face([image], scan.spacing_mm)
    brain = brain_mask([image]) if faceless else np.zeros(scan.shape, bool)
    for array, colour, alpha in ((brain, "#8899aa", 0.08), (truth, TRUTH, 0.35), (predicted, PREDICTED, 0.45)):
        _surface(axes[3], array, scan, colour, alpha)
    axes[3].set_axis_off()
    axes[3].set_aspect("equal")
    axes[3].set_box_aspect(None, zoom=1.5)
    axes[3].view_init(elev=18, azim=-55)
    remark = "" if faceless else "; no surface of the head, which is not stripped"
    figure.suptitle(_caption(scan, modality) + remark, fontsize=10)
    return figure


def native_of(scan: Scan, path: str, modality: str | None = None, model: str | None = None) -> Figure:
    """A prepared scan and a source file of it, side by side: the slice of each through the middle of the prediction.

    Where no model has segmented the scan, the outline is that of its brain. Raises NotFound for a scan that was not
    prepared, and UsageError for a file that is not that modality's.
    """
    import nibabel as nib

    name = modality or default_modality(scan)
    if not scan.is_prepared:
        raise NotFound(f"Scan {scan.scan_id} was not prepared", "its own view shows the grid of its files")
    values = scan.image(name)
    known = bool(model or scan.models())
    outlined = _outer(scan.prediction(model), scan.prediction_convention(model)) if known else np.not_equal(values, 0)
    native, affine = resampled_to_source(outlined.astype(np.uint8), scan.row, name)
    image = nib.load(path)
    if image.shape[:3] != native.shape or not np.allclose(image.affine, affine, atol=1e-2):
        raise UsageError(
            f"{path} has the grid {image.shape[:3]}, {name} of {scan.scan_id} had {native.shape}",
            f"give the file that its {name} was ingested from",
        )
    sides: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [
        (values, outlined, scan.affine),
        (np.asarray(image.dataobj, np.float32), native > 0, affine),
    ]
    figure, axes = _figure(2, height=4.0)
    for axis, title, (values, region, affine) in zip(axes, ("prepared", "as scanned"), sides, strict=True):
        values = values.reshape(region.shape)
        across = int(np.abs(affine[2, :3]).argmax())
        area = region.sum(axis=tuple(other for other in range(3) if other != across))
        place = round(float(np.average(np.arange(len(area)), weights=area))) if area.any() else len(area) // 2
        planes = [_upright(array.take(place, across), affine, across) for array in (values, region)]
        low, high = np.percentile(planes[0], (1, 99.5))
        rows_mm, columns_mm = _in_plane_mm(affine, across)
        _slice(axis, planes[0], float(low), float(max(high, low + 1)), rows_mm / columns_mm)
        _outline(axis, planes[1], PREDICTED, "-")
        axis.set_title(f"{title}: {' x '.join(map(str, region.shape))}", fontsize=9)
    figure.suptitle(f"{scan.scan_id}, {name}", fontsize=10)
    return figure


def _upright(plane: np.ndarray, affine: np.ndarray, across: int) -> np.ndarray:
    """A plane with rows to the patient's back and columns to the left."""
    first, second = (axis for axis in range(3) if axis != across)
    if np.abs(affine[0, first]) > np.abs(affine[0, second]):
        plane, first, second = plane.T, second, first
    plane = plane if affine[1, first] < 0 else plane[::-1]
    return plane if affine[0, second] < 0 else plane[:, ::-1]


def _in_plane_mm(affine: np.ndarray, across: int) -> tuple[float, float]:
    """The spacing of rows and of columns of such a plane."""
    first, second = (axis for axis in range(3) if axis != across)
    if np.abs(affine[0, first]) > np.abs(affine[0, second]):
        first, second = second, first
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return float(spacing[first]), float(spacing[second])


def curves(history: pd.DataFrame) -> Figure:
    """Loss and validation Dice over the epochs of `training.history_of`, without epochs that were not validated."""
    losses = [name for name in history if "loss" in name]
    dices = [name for name in history if "dice" in name]
    figure, axes = _figure(2, height=3.2)
    for axis, names, label in zip(axes, (losses, dices), ("loss", "validation Dice"), strict=True):
        for name in names:
            known = history[name].dropna()
            axis.plot(known.index, known, marker="o", markersize=3, label=name.replace("_", " "))
        axis.set(xlabel="epoch", ylabel=label)
        axis.grid(alpha=0.3)
        if names:
            axis.legend(fontsize=8, frameon=False)
    return figure


def outer_regions(scan: Scan, model: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The whole tumour (or lesion) as it is and as it was predicted, bool (S, H, W) each; nothing where unknown."""
    predicted = np.zeros(scan.shape, bool)
    if scan.models():
        predicted = _outer(scan.prediction(model), scan.prediction_convention(model))
    mask = scan.mask()
    truth = np.zeros(scan.shape, bool) if mask is None else _outer(mask, scan.convention)
    return truth, predicted


def default_modality(scan: Scan) -> str:
    """The modality that shows lesions best: FLAIR, else the first."""
    return next((name for name in scan.modalities if "flair" in name.lower()), scan.modalities[0])


def contrast(scan: Scan, image: np.ndarray) -> tuple[float, float]:
    """Values to show as black and white: percentiles of what is not background."""
    inside = image[image != 0]
    if not inside.size:
        return 0.0, 1.0
    low, high = np.nanpercentile(inside, (1, 99.7))
    return float(low), float(high) if high > low else float(low) + 1.0


def _outer(labels: np.ndarray, convention: LabelConvention | None) -> np.ndarray:
    return to_regions(labels, convention)[..., 0].astype(bool) if convention else labels > 0


def _extent(union: np.ndarray, axis: int) -> tuple[int, int]:
    used = np.flatnonzero(union.any(axis=tuple(other for other in range(3) if other != axis)))
    return (int(used[0]), int(used[-1]) + 1) if len(used) else (union.shape[axis], 0)


def _figure(count: int, height: float = 2.7, solid: int | None = None) -> tuple[Figure, Sequence[Axes]]:
    """A figure with `count` axes in a row, that of number `solid` in 3D; kept out of pyplot, so it is shown once."""
    from segpipe.analysis.picture import Picture

    figure = Picture(figsize=(max(3.0, 11.0 / max(count, 4) * count), height), layout="constrained")
    axes = [
        figure.add_subplot(1, count, place + 1, projection="3d" if place == solid else None) for place in range(count)
    ]
    return figure, axes


def _slice(axis: Axes, plane: np.ndarray, low: float, high: float, aspect: float, origin: str = "upper") -> None:
    axis.imshow(plane, cmap="gray", vmin=low, vmax=high, aspect=aspect, origin=origin, interpolation="bilinear")
    axis.set_axis_off()


def _outline(axis: Axes, plane: np.ndarray, colour: str, style: str) -> None:
    if plane.any():
        axis.contour(plane.astype(float), levels=[0.5], colors=[colour], linestyles=[style], linewidths=1.3)


def _surface(axis: Axes, inside: np.ndarray, scan: Scan, colour: str, alpha: float) -> None:
    steps = tuple(max(1, round(_SURFACE_MM / step)) for step in scan.spacing_mm)
    assert len(steps) == 3
    mesh = surface(thinned(inside.astype(np.float32), steps)).moved(thinned_affine(scan.affine, steps))
    if len(mesh.faces):
        x, y, z = mesh.vertices.T
        axis.plot_trisurf(x, y, z, triangles=mesh.faces, color=colour, alpha=alpha, linewidth=0, antialiased=False)


def _caption(scan: Scan, modality: str | None) -> str:
    return f"{scan.scan_id} ({scan.split}), {modality or default_modality(scan)}: truth blue, prediction orange, dashed"
