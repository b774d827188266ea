"""A scan in 3D in a notebook: NiiVue where its widget can run, a still picture elsewhere."""

from __future__ import annotations

import gzip
import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.analysis.plots import contrast, default_modality, outer_regions, picture_of
from segpipe.core.orientation import reorient, reorient_affine

if TYPE_CHECKING:
    from segpipe.analysis.scan import Scan

_HEIGHT = 480
_MAPS = (("truth", "blue"), ("prediction", "warm"))


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

    Nothing is fetched from elsewhere. Raises ImportError where ipyniivue is not installed.
    """
    from ipyniivue import NiiVue, SliceType

    name = modality or default_modality(scan)
    image = scan.image(name)
    low, high = contrast(scan, image)
    volumes = [{"name": f"{name}.nii.gz", "data": _packed(scan, image), "cal_min": low, "cal_max": high}]
    for (label, colours), region in zip(_MAPS, outer_regions(scan, model), strict=True):
        if region.any():
            packed = _packed(scan, region.astype(np.uint8))
            bounds = {"cal_min": 0.0, "cal_max": 1.0, "colormap": colours, "opacity": 0.5}
            volumes.append({"name": f"{label}.nii.gz", "data": packed, **bounds})
    widget = NiiVue(height=_HEIGHT)
    widget.set_slice_type(SliceType.MULTIPLANAR)
    widget.load_volumes(volumes)
    return widget


def _packed(scan: Scan, array: np.ndarray) -> bytes:
    """The bytes of a .nii.gz file with an array of the scan, in the order (x, y, z) that viewers expect."""
    import nibabel as nib

    target = "RAS"
    affine = reorient_affine(scan.affine, scan.shape, scan.orientation, target)
    image = nib.Nifti1Image(np.ascontiguousarray(reorient(array, scan.orientation, target)), affine)
    return gzip.compress(image.to_bytes(), compresslevel=1)
