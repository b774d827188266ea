"""DICOM series to volumes (DICOM PS3.3, C.7.6.2 and C.7.6.16; Siemens mosaics by their CSA header).

Messages name files and faults, never contents.
"""

import io
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np

from segpipe.core.volume import Volume
from segpipe.errors import Reason
from segpipe.readers import codestream, inflate
from segpipe.readers.dicom_files import MOST_FRAMES, bad, careful, pydicom, refuse_deflated, refuse_endless
from segpipe.readers.dicom_index import COMPONENTS, ENHANCED
from segpipe.readers.dicom_tags import SEGMENTATION, Elements, with_pixels

_STEP_TOLERANCE = 0.05  # of a slice step
_SAME_PLACE_MM = 1e-2
_ANGLE_TOLERANCE = 1e-3
_COMPONENTS = tuple(name.upper() for name in COMPONENTS)
_SLICE_POINTERS = (0x00200032, 0x00209057, 0x00201041, 0x00209128, 0x00200100)  # positions, places in a stack, times
_JPEG_FAMILY = "1.2.840.10008.1.2.4."
_JPEG_2000 = (_JPEG_FAMILY + "9", _JPEG_FAMILY + "20")  # with high-throughput JPEG 2000


@dataclass(frozen=True, eq=False)
class _Plane:
    """One 2D image: pixels (rows, columns), LPS position of the first pixel and directions of columns and rows, mm."""

    pixels: np.ndarray
    position: np.ndarray
    along_columns: np.ndarray
    along_rows: np.ndarray
    thickness: float
    slope: float
    inter: float
    time: tuple[float, ...]
    kind: tuple[float, ...] = ()  # of a frame: what tells its volume from the others of the file


def series(contents: Sequence[bytes], paths: Sequence[str], max_voxels: int) -> Volume:
    """The volume of all files of a series, in any order: axes column, row, slice and, for several times, time.

    Rescale slope and intercept are kept where all slices share them; else the values are scaled to float32.
    Raises BadInput.
    """
    planes: list[_Plane] = []
    room = max_voxels
    for content, path in zip(contents, paths, strict=True):
        if inflate.is_gzip(content):
            content = _inflated(content, max_voxels, path)
        if not content:
            bad(Reason.EMPTY_FILE, f"{path} is empty", "copy it again from its source")
        with careful(path):
            new = list(_planes(content, path, room))
            room -= sum(plane.pixels.size for plane in new)
            planes += new
    return _stack(planes, paths[0])


def _inflated(content: bytes, max_voxels: int, name: str) -> bytes:
    """The content of a gzipped file, no more than `max_voxels` of 2 bytes and a large header take."""
    limit = 2 * max_voxels + (1 << 24)
    inflated, complete = inflate.up_to(content, limit, name)
    if complete:
        return inflated
    if len(inflated) == limit:
        bad(Reason.TOO_LARGE, f"{name} inflates to more than {limit} bytes", "raise --max-voxels")
    bad(Reason.TRUNCATED, f"{name} does not inflate to its end", "copy it again from its source")


def _stack(planes: list[_Plane], name: str) -> Volume:
    """Planes in order of position, then time."""
    first = planes[0]
    normal = np.cross(first.along_columns, first.along_rows)
    normal /= np.linalg.norm(normal)
    for plane in planes:
        same = plane.pixels.shape == first.pixels.shape and plane.pixels.dtype == first.pixels.dtype
        turned = max(
            abs(plane.along_columns - first.along_columns).max(), abs(plane.along_rows - first.along_rows).max()
        )
        if not same or turned > _ANGLE_TOLERANCE:
            bad(Reason.GRID_MISMATCH, f"{name} and its series mix sizes or directions", "split the series")
    heights = np.array([float(plane.position @ normal) for plane in planes])
    levels = _levels(heights)
    groups = [[planes[place] for place in level] for level in levels]
    groups = _without_doubles(groups, name)
    times = len(groups[0])
    if any(len(group) != times for group in groups):
        message = f"{name} and its series have {len(planes)} images at {len(levels)} positions"
        bad(Reason.TRUNCATED, message, "copy the missing files")
    for group in groups:
        group.sort(key=lambda plane: plane.time)
    _check_volumes(groups, name)
    bottoms = np.array([group[0].position for group in groups])
    step = _step(bottoms, normal * first.thickness, name)
    voxels, slope, inter = _voxels(groups)
    affine = np.eye(4)
    affine[:3] = np.column_stack([first.along_columns, first.along_rows, step, bottoms[0]])
    affine[:2] *= -1  # LPS to RAS
    return Volume(voxels if times > 1 else voxels[..., 0], affine, slope, inter, container="dicom")


def _levels(heights: np.ndarray) -> list[list[int]]:
    """Indices of the planes at each position, from the lowest to the highest.

    Positions tell what is the same place; SliceThickness does not, because it may be that of a whole slab.
    """
    order = np.argsort(heights, kind="stable")
    steps = np.diff(heights[order])
    far = steps[steps > _SAME_PLACE_MM]
    near = max(_SAME_PLACE_MM, _STEP_TOLERANCE * float(np.median(far))) if len(far) else _SAME_PLACE_MM
    levels: list[list[int]] = []
    for place in order:
        if levels and heights[place] - heights[levels[-1][0]] <= near:
            levels[-1].append(int(place))
        else:
            levels.append([int(place)])
    return levels


def _without_doubles(groups: list[list[_Plane]], name: str) -> list[list[_Plane]]:
    """The planes of each position without copies; raises BadInput where some positions have other planes twice."""
    usual = min(len(group) for group in groups)
    doubled = sum(len(group) > usual for group in groups)
    if 2 * doubled > len(groups):
        return groups  # times, of which some are missing
    result = []
    for group in groups:
        kept: list[_Plane] = []
        for plane in group if len(group) > usual else ():
            if not any(np.array_equal(plane.pixels, other.pixels) for other in kept):
                kept.append(plane)
        result.append(kept if len(kept) == usual else group)
    different = sum(len(group) > usual for group in result)
    if different:
        message = f"{name} and its series have two different images of the same slice at {different} positions"
        bad(Reason.DUPLICATE, message, "remove those that were sent twice, or the earlier ones")
    return result


def _check_volumes(groups: list[list[_Plane]], name: str) -> None:
    """Raise BadInput if the frames of an enhanced image do not form the same volumes at each position."""
    kinds = {tuple(plane.kind for plane in group) for group in groups}
    if len(kinds) > 1:
        message = f"{name} has frames of several kinds (echoes, b-values or parts) that differ from slice to slice"
        bad(Reason.GRID_MISMATCH, message, "convert it to NIfTI")


def _step(bottoms: np.ndarray, alone: np.ndarray, name: str) -> np.ndarray:
    """The vector from slice to slice; `alone` where there is one slice. Raises BadInput if steps differ."""
    if len(bottoms) == 1:
        return alone
    mean = (bottoms[-1] - bottoms[0]) / (len(bottoms) - 1)
    wanted = bottoms[0] + np.arange(len(bottoms))[:, None] * mean
    worst = np.linalg.norm(bottoms - wanted, axis=1).max()
    if worst > _STEP_TOLERANCE * np.linalg.norm(mean):
        message = f"{name} and its series have slices that are not evenly spaced (off by {worst:.3g} mm)"
        bad(Reason.BAD_GEOMETRY, message, "copy the missing files, or convert the series to NIfTI")
    return mean


def _voxels(groups: list[list[_Plane]]) -> tuple[np.ndarray, float, float]:
    """(columns, rows, slices, times) with its slope and intercept."""
    first = groups[0][0]
    scalings = {(plane.slope, plane.inter) for group in groups for plane in group}
    stacked = np.stack([np.stack([plane.pixels for plane in group]) for group in groups])
    if len(scalings) == 1:
        return stacked.transpose(3, 2, 0, 1), first.slope, first.inter
    slopes = np.array([[plane.slope for plane in group] for group in groups])[..., None, None]
    inters = np.array([[plane.inter for plane in group] for group in groups])[..., None, None]
    return (stacked * slopes + inters).astype(np.float32).transpose(3, 2, 0, 1), 1.0, 0.0


# One file


def _planes(content: bytes, name: str, room: int) -> Iterator[_Plane]:
    """The 2D images of a file. `room` is the number of voxels that may still come."""
    refuse_endless(content, name)
    plain = _plain(content, name, room)
    if plain is not None:
        yield plain
    else:
        yield from _parsed(content, name, room)


def _parsed(content: bytes, name: str, room: int) -> Iterator[_Plane]:
    """The 2D images of any file that pydicom reads."""
    refuse_deflated(io.BytesIO(content), name)
    dataset = _read(io.BytesIO(content))
    if "PixelData" not in dataset:
        bad(Reason.NOT_AN_IMAGE, f"{name} is a DICOM file without pixels", "remove it from the archive")
    rows, columns, frames = int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    if min(rows, columns, frames) < 1:
        bad(Reason.CORRUPT, f"{name} has an image of {frames} x {rows} x {columns}", "remove it from the archive")
    if frames > MOST_FRAMES:
        bad(Reason.TOO_LARGE, f"{name} has {frames} frames, more than {MOST_FRAMES}", "split it into several files")
    if rows * columns * frames > room:
        bad(Reason.TOO_LARGE, f"{name} and its series promise too many voxels", "raise --max-voxels")
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        bad(Reason.UNSUPPORTED, f"{name} is a colour image", "remove it from the archive")
    if not _fits(dataset, rows, columns):
        message = f"{name} has compressed pixels that are not the image of {rows} x {columns} that it promises"
        bad(Reason.CORRUPT, message, "copy it again from its source")
    pixels = _stored_bits(dataset, _pixels(dataset, name).reshape(frames, rows, columns))
    if str(dataset.get("SOPClassUID")) in SEGMENTATION:
        yield from _segmentation(dataset, pixels, name)
    elif frames > 1 or "PerFrameFunctionalGroupsSequence" in dataset:
        yield from _enhanced(dataset, pixels, name)
    elif "MOSAIC" in (dataset.get("ImageType") or ()):
        yield from _mosaic(dataset, pixels[0], name)
    else:
        yield _plane(dataset, pixels[0], [dataset], name, _time(dataset))


def _plain(content: bytes, name: str, room: int) -> _Plane | None:
    """The image of a file as most are, without pydicom, which takes ten times as long; None for any other file."""
    walked = with_pixels(content)
    if walked is None:
        return None
    header = _Header(walked[0])
    frames, samples = header.get("NumberOfFrames"), header.get("SamplesPerPixel")
    rows, columns, kind = (header.get(one) for one in ("Rows", "Columns", "PixelRepresentation"))
    if frames not in (None, 1.0) or samples != 1.0 or header.get("BitsAllocated") != 16.0 or kind not in (0.0, 1.0):
        return None
    if header.get("HighBit") != (header.get("BitsStored") or 0) - 1:
        return None
    words = (*header.elements.words("ImageType"), *header.elements.words("PhotometricInterpretation"))
    if "MOSAIC" in words or not {"MONOCHROME1", "MONOCHROME2"} & set(words):
        return None
    if header.elements.text("SOPClassUID") in (*SEGMENTATION, *ENHANCED) or not rows or not columns:
        return None
    count = int(rows * columns)
    if count > room or walked[2] - walked[1] != 2 * count:
        return None
    pixels = np.frombuffer(content, "<i2" if kind else "<u2", count, walked[1]).reshape(int(rows), int(columns))
    return _plane(header, _stored_bits(header, pixels), [header], name, _time(header))


@dataclass(frozen=True)
class _Header:
    """Elements that were walked over, as `_plane` and its like ask a data set of pydicom for them."""

    elements: Elements

    def get(self, name: str) -> Any:
        """The number of an element, or its numbers where there are several; None if it is not there."""
        values = self.elements.numbers(name)
        return values[0] if len(values) == 1 else values or None


def _fits(dataset: Any, rows: int, columns: int) -> bool:
    """Whether compressed pixels, where they are, say of themselves that they are of this size."""
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    if not syntax.startswith(_JPEG_FAMILY):
        return True
    fits = codestream.jpeg2000_fits if syntax.startswith(_JPEG_2000) else codestream.jpeg_fits
    frames = pydicom().encaps.generate_frames(
        dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)
    )
    return all(fits(frame, rows, columns) for frame in frames)


def _pixels(dataset: Any, name: str) -> np.ndarray:
    try:
        return dataset.pixel_array
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a decoder in Rust panics with a BaseException of its own
        text = str(error).lower()
        if "less than expected" in text or "fewer" in text or "insufficient" in text:
            bad(Reason.TRUNCATED, f"{name} holds fewer pixels than it promises", "copy it again from its source")
        if isinstance(error, NotImplementedError) or "missing dependencies" in text:
            syntax = str(dataset.file_meta.get("TransferSyntaxUID"))[:64]
            bad(
                Reason.UNSUPPORTED,
                f"{name} has pixels in transfer syntax {syntax}",
                "convert it to an uncompressed one",
            )
        bad(Reason.CORRUPT, f"{name} has pixels that cannot be decoded", "copy it again from its source")


def _stored_bits(dataset: Any, pixels: np.ndarray) -> np.ndarray:
    """Pixels without the bits that are not theirs: some scanners keep overlays in them (PS3.5, 8.1.1)."""
    allocated, stored = int(dataset.get("BitsAllocated") or 16), int(dataset.get("BitsStored") or 16)
    above = allocated - 1 - int(dataset.get("HighBit") or stored - 1)
    below = allocated - stored - above
    if (
        pixels.dtype.kind not in "iu"
        or allocated != 8 * pixels.dtype.itemsize
        or min(above, below) < 0
        or above + below == 0
    ):
        return pixels
    return (pixels << above) >> (above + below)


def _segmentation(dataset: Any, pixels: np.ndarray, name: str) -> Iterator[_Plane]:
    """The slices of a SEG object of one segment as labels 0 and 1, with the empty slices between them."""
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    shared = dataset.get("SharedFunctionalGroupsSequence") or [None]
    if not groups or len(groups) != len(pixels):
        bad(Reason.UNSUPPORTED, f"{name} has {len(pixels)} frames without a place for each", "convert it to NIfTI")
    least = 0.5 * float(dataset.get("MaximumFractionalValue") or 255) if "FRACTIONAL" in dataset.SegmentationType else 0
    planes = []
    for group, frame in zip(groups, pixels, strict=True):
        sources = [*_macros(group), *_macros(shared[0]), dataset]
        planes.append(_plane(dataset, (frame > least).astype(np.uint8), sources, name, (0.0,)))
    yield from _filled(planes)


def _filled(planes: list[_Plane]) -> list[_Plane]:
    """Planes with empty ones at the places between them that are a whole number of steps away."""
    normal = np.cross(planes[0].along_columns, planes[0].along_rows)
    normal /= np.linalg.norm(normal)
    planes = sorted(planes, key=lambda plane: float(plane.position @ normal))
    heights = [float(plane.position @ normal) for plane in planes]
    steps = [step for step in np.diff(heights) if step > _SAME_PLACE_MM]
    if not steps:
        return planes
    result = [planes[0]]
    for plane in planes[1:]:
        last = result[-1]
        missing = round(float((plane.position - last.position) @ normal) / min(steps)) - 1
        way = (plane.position - last.position) / (missing + 1)
        empty = np.zeros_like(plane.pixels)
        result += [replace(last, pixels=empty, position=last.position + way * n) for n in range(1, missing + 1)]
        result.append(plane)
    return result


def _plane(dataset: Any, pixels: np.ndarray, sources: list[Any], name: str, time: tuple[float, ...]) -> _Plane:
    """A plane whose attributes stand in the first of `sources` that has them."""
    position, orientation = _first(sources, "ImagePositionPatient"), _first(sources, "ImageOrientationPatient")
    spacing = _first(sources, "PixelSpacing")
    if position is None or orientation is None or spacing is None or len(orientation) != 6 or len(position) != 3:
        bad(Reason.BAD_GEOMETRY, f"{name} does not say where its image lies", "convert it to NIfTI")
    directions = np.array([float(value) for value in orientation]).reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    row_mm, column_mm = (float(value) for value in spacing)
    sizes = (row_mm, column_mm, *lengths)
    if not all(map(math.isfinite, sizes)) or min(sizes) <= 0 or abs(directions[0] @ directions[1]) > 1e-2:
        bad(Reason.BAD_GEOMETRY, f"{name} has no usable image plane", "convert it to NIfTI")
    slope, inter = _scaling(sources)
    return _Plane(
        pixels=pixels,
        position=np.array([float(value) for value in position]),
        along_columns=directions[0] / lengths[0] * column_mm,
        along_rows=directions[1] / lengths[1] * row_mm,
        thickness=_thickness(sources),
        slope=slope,
        inter=inter,
        time=time,
    )


def _mosaic(dataset: Any, pixels: np.ndarray, name: str) -> Iterator[_Plane]:
    """The slices of a Siemens mosaic: square tiles in reading order; number and direction stand in the CSA header."""
    csareader = _csareader()
    csa = csareader.get_csa_header(dataset)
    count = csareader.get_n_mosaic(csa) if csa else None
    normal = csareader.get_slice_normal(csa) if csa else None
    if not count or normal is None:
        bad(Reason.UNSUPPORTED, f"{name} is a mosaic without a CSA header that describes it", "convert it to NIfTI")
    tiles = math.ceil(math.sqrt(count))
    rows, columns = pixels.shape[0] // tiles, pixels.shape[1] // tiles
    if rows * tiles != pixels.shape[0] or columns * tiles != pixels.shape[1]:
        bad(Reason.CORRUPT, f"{name} is a mosaic that {tiles} x {tiles} tiles do not fill", "convert it to NIfTI")
    whole = _plane(dataset, pixels, [dataset], name, _time(dataset))
    margin = np.array([pixels.shape[1] - columns, pixels.shape[0] - rows]) / 2
    corner = whole.position + whole.along_columns * margin[0] + whole.along_rows * margin[1]
    step = np.asarray(normal, np.float64) * whole.thickness
    for number in range(int(count)):
        row, column = divmod(number, tiles)
        tile = pixels[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        yield _Plane(
            tile,
            corner + number * step,
            whole.along_columns,
            whole.along_rows,
            whole.thickness,
            whole.slope,
            whole.inter,
            whole.time,
        )


def _enhanced(dataset: Any, pixels: np.ndarray, name: str) -> Iterator[_Plane]:
    """The frames of an enhanced multi-frame image."""
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    shared = dataset.get("SharedFunctionalGroupsSequence") or [None]
    if not groups or len(groups) != len(pixels):
        bad(Reason.UNSUPPORTED, f"{name} has {len(pixels)} frames without a place for each", "convert it to NIfTI")
    others = _dimensions(dataset)
    for number, (group, frame) in enumerate(zip(groups, pixels, strict=True)):
        sources = [*_macros(group), *_macros(shared[0]), dataset]
        kind = _frame_kind(sources, others)
        plane = _plane(dataset, frame, sources, name, (*kind, _temporal(sources), float(number)))
        yield replace(plane, kind=kind)


def _dimensions(dataset: Any) -> list[int]:
    """Places in DimensionIndexValues that tell volumes apart, not slices or times."""
    found = []
    for place, item in enumerate(dataset.get("DimensionIndexSequence") or ()):
        pointer = int(item.get("DimensionIndexPointer") or 0)
        if pointer and pointer not in _SLICE_POINTERS:
            found.append(place)
    return found


def _frame_kind(sources: list[Any], others: list[int]) -> tuple[float, ...]:
    """What tells the volume of a frame: stack, echo, b-value, magnitude or phase, inversion, and its own indices."""
    component = str(_first(sources, "ComplexImageComponent") or "").upper()
    inversion = _first(sources, "InversionTimes")
    numbers = [
        _as_number(_first(sources, "StackID")),
        _as_number(_first(sources, "EffectiveEchoTime")),
        _as_number(_first(sources, "DiffusionBValue")),
        float(_COMPONENTS.index(component)) if component in _COMPONENTS else 0.0,
        _as_number(inversion[0] if isinstance(inversion, list | tuple) and inversion else inversion),
    ]
    indices = _first(sources, "DimensionIndexValues")
    values = list(indices) if isinstance(indices, Iterable) else [indices]
    return (*numbers, *(_as_number(values[place]) for place in others if place < len(values)))


def _as_number(value: Any) -> float:
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        return float(sum(ord(letter) << 8 * place for place, letter in enumerate(str(value)[:4])))


def _macros(group: Any) -> list[Any]:
    """The one-item sequences of a functional group that hold what 2D images have at their top."""
    names = (
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
        "FrameContentSequence",
        "MREchoSequence",
        "MRDiffusionSequence",
        "MRImageFrameTypeSequence",
        "MRModifierSequence",
    )
    items = [group.get(name) for name in names] if group is not None else []
    return [item[0] for item in items if item]


def _temporal(sources: list[Any]) -> float:
    return float(_first(sources, "TemporalPositionIndex") or 0)


def _time(dataset: Any) -> tuple[float, ...]:
    values = (
        dataset.get(name) for name in ("AcquisitionNumber", "EchoTime", "TemporalPositionIdentifier", "InstanceNumber")
    )
    return tuple(float(value or 0) for value in values)


def _scaling(sources: list[Any]) -> tuple[float, float]:
    slope, inter = _first(sources, "RescaleSlope"), _first(sources, "RescaleIntercept")
    numbers = float(1 if slope is None else slope), float(0 if inter is None else inter)
    return numbers if all(map(math.isfinite, numbers)) and numbers[0] != 0 else (1.0, 0.0)


def _thickness(sources: list[Any]) -> float:
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        value = _first(sources, name)
        if value is not None and math.isfinite(float(value)) and float(value) != 0:
            return abs(float(value))
    return 1.0


def _first(sources: list[Any], name: str) -> Any:
    return next((value for source in sources if (value := source.get(name)) not in (None, "")), None)


# Reading


def _read(file: BinaryIO) -> Any:
    dataset = pydicom().dcmread(file, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:  # without a preamble; pydicom has told the syntax by looking
        implicit, little = dataset.original_encoding
        uid = pydicom().uid
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    return dataset


@lru_cache(maxsize=1)
def _csareader() -> Any:
    """nibabel's reader of Siemens headers, without the warning that it prints on import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom import csareader
    return csareader
