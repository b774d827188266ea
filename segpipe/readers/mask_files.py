"""Label maps as files for other tools: NIfTI in the grid of the source."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from isal import igzip

from segpipe.core.orientation import reorient
from segpipe.core.regions import LabelConvention

_LABEL_INTENT = 1002  # NIFTI_INTENT_LABEL
_HEADER_BYTES = 540  # of NIfTI-2, the longer one
_SAME_MM = 1e-3


def grid_file(scan: Mapping[str, Any]) -> dict[str, Any]:
    """The FILE struct, of those in a row of `scans`, whose grid the scan's arrays have: turned at most."""
    images = [file for file in scan["files"] if file["role"] != "mask"]
    wanted = scan["resampled_to"]
    for file in images:
        if wanted in (None, file["role"], file["role"].partition(".")[0]):
            return dict(file)
    raise ValueError(f"{scan['scan_id']} was resampled to {wanted}, which is not one of its files")


def in_file_order(labels: np.ndarray, scan: Mapping[str, Any]) -> np.ndarray:
    """A label map (slices, rows, columns) of a scan in the index order (i, j, k) of its source file.

    Raises ValueError if it does not fit the file.
    """
    file = grid_file(scan)
    turned = reorient(labels, scan["orientation"], file["orientation"])
    if list(turned.shape) != list(file["shape"][:3]):
        raise ValueError(f"labels of {turned.shape} voxels for {file['path']} of {file['shape']}")
    return turned


def stamp(model_id: str, run_id: str) -> str:
    """What a mask file says of its origin; a file with the same stamp need not be written again."""
    return f"segpipe {model_id} {run_id}"


def nifti_mask(labels: np.ndarray, scan: Mapping[str, Any], convention: LabelConvention, stamp: str) -> bytes:
    """A gzipped NIfTI file of a label map (slices, rows, columns), uint8, on the grid of the scan's source file.

    `scan` is its row of `scans`. A source that is NIfTI lends its header, so that both transforms and their codes stay;
    the intent is a label map named for `convention`, the description is `stamp`.
    """
    import nibabel

    file = grid_file(scan)
    voxels = in_file_order(labels, scan)
    affine = np.reshape(file["affine"], (4, 4))
    header = _source_header(file)
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    kept = header is not None and np.allclose(header.get_best_affine(), affine, atol=_SAME_MM)
    image = kind(np.asfortranarray(voxels), None if kept else affine, header)
    if not kept:
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
    image.header.set_data_dtype(np.uint8)
    image.header.set_slope_inter(1, 0)
    image.header.set_xyzt_units("mm")
    intent = convention.title.encode("ascii", "replace").decode()
    image.header.set_intent(_LABEL_INTENT, (), intent, allow_unknown=True)
    image.header["descrip"] = stamp.encode()
    image.header["cal_min"] = image.header["cal_max"] = 0
    image.header.extensions.clear()
    for name in _SOURCE_TEXT:
        if name in image.header:
            image.header[name] = b""
    return igzip.compress(image.to_bytes(), 3, mtime=0)


_SOURCE_TEXT = ("db_name", "data_type", "aux_file")  # a mask is passed on, and what the source says of people is not


def has_stamp(start: bytes, stamp: str) -> bool:
    """Whether the first bytes of a file are those of a gzipped NIfTI file with this stamp."""
    try:
        return stamp.encode() + b"\0" in zlib.decompressobj(31).decompress(start, _HEADER_BYTES)
    except zlib.error:
        return False


def _source_header(file: Mapping[str, Any]) -> Any:
    """The NIfTI header of the source, little-endian; None if it has none."""
    import nibabel

    kinds = {"nifti1": nibabel.Nifti1Header, "nifti2": nibabel.Nifti2Header}
    kind = kinds.get(file["container"].removesuffix("-pair"))
    if kind is None or not file["header"]:
        return None
    return kind.from_fileobj(io.BytesIO(file["header"]), check=False).as_byteswapped("<")
