"""A scan in 3D in a notebook: NiiVue where its widget can run, a still picture elsewhere."""

from __future__ import annotations

import gzip
import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.analysis.plots import PREDICTED, TRUTH, contrast, default_modality, outer_regions, picture_of
from segpipe.core.faces import may_show_face
from segpipe.core.orientation import reorient, reorient_affine

if TYPE_CHECKING:
    from segpipe.analysis.scan import Scan

_HEIGHT = 480
_LAYERS = (("truth", TRUTH), ("prediction", PREDICTED))
_OPACITY = 0.6


def widget_can_run() -> bool:
    """Whether this is a notebook with ipyniivue: a Jupyter kernel that can talk to a page."""
    if importlib.util.find_spec("ipyniivue") is None or importlib.util.find_spec("IPython") is None:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


def view(scan: Scan, modality: str | None = None, model: str | None = None) -> Any:
    """The widget of `niivue`, or the matplotlib figure of `picture_of` where no widget can run."""
    return niivue(scan, modality, model) if widget_can_run() else picture_of(scan, modality, model)


def niivue(scan: Scan, modality: str | None = None, model: str | None = None) -> Any:
    """A NiiVue widget with the image, the truth in blue and the prediction in orange; the data travels to the page.

    Nothing is fetched from elsewhere. A head that is not stripped is shown in planes alone, because a rendering would
    be a likeness of the patient. Raises ImportError if ipyniivue is not installed.
    """
    from ipyniivue import NiiVue, ShowRender, SliceType

    name = modality or default_modality(scan)
    image = scan.image(name)
    low, high = contrast(scan, image)
    volumes = [{"name": f"{name}.nii.gz", "data": _packed(scan, image), "cal_min": low, "cal_max": high}]
    truth, predicted = outer_regions(scan, model)
    shown = [
        (label, colour, region)
        for (label, colour), region in zip(_LAYERS, (truth, predicted), strict=True)
        if region.any()
    ]
    volumes += [
        {"name": f"{label}.nii.gz", "data": _packed(scan, region.astype(np.uint8)), "opacity": _OPACITY}
        for label, _, region in shown
    ]
    render = ShowRender.NEVER if may_show_face([image], scan.spacing_mm) else ShowRender.ALWAYS
    widget = NiiVue(height=_HEIGHT, multiplanar_show_render=render, is_radiological_convention=True)
    widget.set_slice_type(SliceType.MULTIPLANAR)
    widget.load_volumes(volumes)
    for volume, (label, colour, _) in zip(widget.volumes[1:], shown, strict=True):
        red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
        lut = {"R": [0, red], "G": [0, green], "B": [0, blue], "A": [0, 255], "labels": ["", label]}
        volume.set_colormap_label(lut)
    if (truth | predicted).any():
        widget.scene.crosshair_pos = _middle(scan, truth | predicted)
    return widget


def _middle(scan: Scan, region: np.ndarray) -> list[float]:
    """Where the middle of a region lies in the volume: shares of its extent along x, y, z, from 0 to 1."""
    turned = reorient(region, scan.orientation, "RAS")
    return [float(value) for value in (np.argwhere(turned).mean(axis=0) + 0.5) / turned.shape]


def _packed(scan: Scan, array: np.ndarray) -> bytes:
    """The bytes of a .nii.gz file with an array of the scan, in the order (x, y, z) that viewers expect."""
    import nibabel as nib

    target = "RAS"
    affine = reorient_affine(scan.affine, scan.shape, scan.orientation, target)
    image = nib.Nifti1Image(np.ascontiguousarray(reorient(array, scan.orientation, target)), affine)
    return gzip.compress(image.to_bytes(), compresslevel=1)
