"""NRRD, MetaImage and MINC files to volumes, by SimpleITK.

Only files that hold their own voxels: one whose header names another file is refused, because it might name any.
Formats: NRRD (teem.sourceforge.net/nrrd), MetaImage (.mha), MINC (.mnc).
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

import numpy as np

from segpipe.core.volume import Volume
from segpipe.errors import BadInput, Reason

SUFFIXES = (".nrrd", ".mha", ".mnc")
DETACHED = (".nhdr", ".mhd")
"""Headers whose voxels lie in another file."""

_HEADER = 1 << 16
_ELSEWHERE = re.compile(
    rb"^[ \t]*data ?file[ \t]*:|^[ \t]*ElementDataFile[ \t]*=(?!\s*LOCAL\s*$)", re.IGNORECASE | re.MULTILINE
)
_PLACED = {
    # what a header says where it says where the voxels lie
    ".nrrd": re.compile(rb"^space directions\s*:", re.IGNORECASE | re.MULTILINE),
    ".mha": re.compile(
        rb"^\s*(?:ElementSpacing|TransformMatrix|Orientation|Rotation)\s*=", re.IGNORECASE | re.MULTILINE
    ),
    ".mnc": re.compile(rb""),
}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def parse(data: bytes, name: str, max_voxels: int) -> Volume:
    """The volume in the bytes of a file. Raises BadInput, whose message starts with `name`."""
    import SimpleITK

    if _ELSEWHERE.search(data[:_HEADER]):
        message = f"{name} says that its voxels lie in another file"
        raise BadInput(Reason.UNSUPPORTED, message, "convert it to NIfTI")
    suffix = os.path.splitext(name)[1].lower()
    if not _PLACED[suffix].search(data[:_HEADER]):
        message = f"{name} does not say where its voxels lie, nor how large they are"
        raise BadInput(Reason.BAD_GEOMETRY, message, "write it again with its space, or convert it to NIfTI")
    descriptor, path = tempfile.mkstemp(suffix=suffix)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(path)
        with _silent():
            reader.ReadImageInformation()
        if np.prod(reader.GetSize(), dtype=float) > max_voxels:
            size = "x".join(map(str, reader.GetSize()))
            raise BadInput(Reason.TOO_LARGE, f"{name} promises {size} voxels", "raise --max-voxels")
        if reader.GetDimension() not in (3, 4):
            problem = f"{name} has {reader.GetDimension()} axes"
            raise BadInput(Reason.UNSUPPORTED, problem, "keep images of 3 or 4 axes")
        with _silent():
            image = reader.Execute()
    except RuntimeError as error:
        message = f"{name} is not an image that SimpleITK reads"
        raise BadInput(Reason.CORRUPT, message, "convert it to NIfTI, or copy it again from its source") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
    parts = image.GetNumberOfComponentsPerPixel()
    array = SimpleITK.GetArrayFromImage(image)
    voxels = np.moveaxis(array, -1, 0) if parts > 1 else array
    voxels = voxels.transpose(*range(voxels.ndim)[::-1])
    return Volume(
        voxels=voxels,
        affine=_affine(image),
        slope=1.0,
        inter=0.0,
        header=b"",
        extensions=b"",
        container=suffix.lstrip("."),
    )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep libraries of ITK from writing about a broken file to the terminal, past every log."""
    with open(os.devnull, "wb") as nothing:
        kept = os.dup(2)
        try:
            os.dup2(nothing.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _affine(image: "object") -> np.ndarray:
    """Index to RAS+ mm, (4, 4), of an image whose space is LPS+."""
    rank = image.GetDimension()  # type: ignore[attr-defined]
    direction = np.reshape(image.GetDirection(), (rank, rank))[:3, :3]  # type: ignore[attr-defined]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing()[:3])  # type: ignore[attr-defined]
    affine[:3, 3] = image.GetOrigin()[:3]  # type: ignore[attr-defined]
    return _LPS_TO_RAS @ affine
