"""DICOM series to volumes (DICOM PS3.3, C.7.6.2 and C.7.6.16; Siemens mosaics by their CSA header).

Nothing that identifies a patient leaves this module: `Header.subject` and `Header.session` are keyed hashes, series
descriptions only decide a role, and messages name files and faults, never contents.
"""

import contextlib
import hashlib
import hmac
import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO, NoReturn

import numpy as np

from segpipe.core.volume import Volume
from segpipe.errors import BadInput, Reason, SegpipeError
from segpipe.readers import codestream, inflate
from segpipe.readers.names import IMAGE, MASK, words

MAGIC_END = 132
_LAST_HEADER_TAG = 0x00280030  # pixel spacing; everything that tells files apart stands before it
_HEADER_TAGS = (
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesDescription",
    "ProtocolName",
    "PatientID",
    "ContrastBolusAgent",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "ImageOrientationPatient",
    "Rows",
    "Columns",
    "NumberOfFrames",
)
_FLAIR = re.compile(r"flair|dark.?fluid", re.IGNORECASE)  # often said beside T2
_STEP_TOLERANCE = 0.05  # of a slice step
_ANGLE_TOLERANCE = 1e-3
_JPEG_FAMILY = "1.2.840.10008.1.2.4."
_JPEG_2000 = (_JPEG_FAMILY + "9", _JPEG_FAMILY + "20")  # with high-throughput JPEG 2000
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Header:
    """What tells a DICOM file's place in an archive: keyed hashes, the role that its series states, its grid."""

    subject: str
    session: str
    series: str
    instance: str
    role: str


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


def may_be_dicom(name: str) -> bool:
    """Whether a file of this name is worth a look: `.dcm`, `.ima`, no suffix, or one that is part of a UID.

    >>> may_be_dicom("IM0001"), may_be_dicom("MR.1.2.84"), may_be_dicom("notes.txt")
    (True, True, False)
    """
    lower = name.lower().removesuffix(".gz")
    suffix = lower.rpartition(".")[2] if "." in lower else ""
    return suffix in ("", "dcm", "dicom", "ima") or suffix.isdigit()


def header(file: BinaryIO, key: bytes, name: str, fallback: str) -> Header | None:
    """The header of an open file; None where it is no DICOM image. Raises BadInput for a broken one.

    `key` is the secret of the hashes; `fallback` stands for identifiers that the file lacks.
    """
    if not _is_dicom(file):
        return None
    with _careful(name):
        _refuse_deflated(file, name)
        dataset = _read(file, stop=_LAST_HEADER_TAG)
        if dataset.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
            return None
        if "Rows" not in dataset:
            return None
        study = str(dataset.get("StudyInstanceUID") or fallback)
        patient = str(dataset.get("PatientID") or "").strip()
        series = str(dataset.get("SeriesInstanceUID") or fallback)
        grid = [dataset.get("Rows"), dataset.get("Columns"), _rounded(dataset.get("ImageOrientationPatient"))]
        return Header(
            subject=_hash(key, "patient", patient) if patient else _hash(key, "study", study),
            session=_hash(key, "session", study),
            series=_hash(key, "series", f"{series} {grid}"),
            instance=_hash(key, "instance", str(dataset.get("SOPInstanceUID") or name)),
            role=_role(dataset),
        )
    raise AssertionError  # _careful raises BadInput instead


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
            _bad(Reason.EMPTY_FILE, f"{path} is empty", "copy it again from its source")
        with _careful(path):
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
        _bad(Reason.TOO_LARGE, f"{name} inflates to more than {limit} bytes", "raise --max-voxels")
    _bad(Reason.TRUNCATED, f"{name} does not inflate to its end", "copy it again from its source")


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
            _bad(Reason.GRID_MISMATCH, f"{name} and its series mix sizes or directions", "split the series")
    heights = np.array([float(plane.position @ normal) for plane in planes])
    levels = _levels(heights, first.thickness)
    times = len(planes) // len(levels)
    groups = [[planes[place] for place in level] for level in levels]
    if any(len(group) != times for group in groups):
        message = f"{name} and its series have {len(planes)} images at {len(levels)} positions"
        _bad(Reason.TRUNCATED, message, "copy the missing files")
    for group in groups:
        group.sort(key=lambda plane: plane.time)
    bottoms = np.array([group[0].position for group in groups])
    step = _step(bottoms, normal * first.thickness, name)
    voxels, slope, inter = _voxels(groups)
    affine = np.eye(4)
    affine[:3] = np.column_stack([first.along_columns, first.along_rows, step, bottoms[0]])
    affine[:2] *= -1  # LPS to RAS
    return Volume(voxels if times > 1 else voxels[..., 0], affine, slope, inter, container="dicom")


def _levels(heights: np.ndarray, thickness: float) -> list[list[int]]:
    """Indices of the planes at each position, from the lowest to the highest."""
    order = np.argsort(heights, kind="stable")
    near = max(1e-3, abs(thickness) * 1e-2)
    levels: list[list[int]] = []
    for place in order:
        if levels and heights[place] - heights[levels[-1][0]] <= near:
            levels[-1].append(int(place))
        else:
            levels.append([int(place)])
    return levels


def _step(bottoms: np.ndarray, alone: np.ndarray, name: str) -> np.ndarray:
    """The vector from slice to slice; `alone` where there is one slice. Raises BadInput where steps differ."""
    if len(bottoms) == 1:
        return alone
    mean = (bottoms[-1] - bottoms[0]) / (len(bottoms) - 1)
    wanted = bottoms[0] + np.arange(len(bottoms))[:, None] * mean
    worst = np.linalg.norm(bottoms - wanted, axis=1).max()
    if worst > _STEP_TOLERANCE * np.linalg.norm(mean):
        message = f"{name} and its series have slices that are not evenly spaced (off by {worst:.3g} mm)"
        _bad(Reason.BAD_GEOMETRY, message, "copy the missing files, or convert the series to NIfTI")
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
    _refuse_deflated(io.BytesIO(content), name)
    dataset = _read(io.BytesIO(content))
    if "PixelData" not in dataset:
        _bad(Reason.NOT_AN_IMAGE, f"{name} is a DICOM file without pixels", "remove it from the archive")
    rows, columns, frames = int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    if min(rows, columns, frames) < 1:
        _bad(Reason.CORRUPT, f"{name} has an image of {frames} x {rows} x {columns}", "remove it from the archive")
    if rows * columns * frames > room:
        _bad(Reason.TOO_LARGE, f"{name} and its series promise too many voxels", "raise --max-voxels")
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        _bad(Reason.UNSUPPORTED, f"{name} is a colour image", "remove it from the archive")
    if not _fits(dataset, rows, columns):
        message = f"{name} has compressed pixels that are not the image of {rows} x {columns} that it promises"
        _bad(Reason.CORRUPT, message, "copy it again from its source")
    pixels = _pixels(dataset, name).reshape(frames, rows, columns)
    if frames > 1 or "PerFrameFunctionalGroupsSequence" in dataset:
        yield from _enhanced(dataset, pixels, name)
    elif "MOSAIC" in (dataset.get("ImageType") or ()):
        yield from _mosaic(dataset, pixels[0], name)
    else:
        yield _plane(dataset, pixels[0], [dataset], name, _time(dataset))


def _fits(dataset: Any, rows: int, columns: int) -> bool:
    """Whether compressed pixels, where they are, say of themselves that they are of this size."""
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    if not syntax.startswith(_JPEG_FAMILY):
        return True
    fits = codestream.jpeg2000_fits if syntax.startswith(_JPEG_2000) else codestream.jpeg_fits
    frames = _pydicom().encaps.generate_frames(
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
            _bad(Reason.TRUNCATED, f"{name} holds fewer pixels than it promises", "copy it again from its source")
        if isinstance(error, NotImplementedError) or "missing dependencies" in text:
            syntax = str(dataset.file_meta.get("TransferSyntaxUID"))[:64]
            _bad(
                Reason.UNSUPPORTED,
                f"{name} has pixels in transfer syntax {syntax}",
                "convert it to an uncompressed one",
            )
        _bad(Reason.CORRUPT, f"{name} has pixels that cannot be decoded", "copy it again from its source")


def _plane(dataset: Any, pixels: np.ndarray, sources: list[Any], name: str, time: tuple[float, ...]) -> _Plane:
    """A plane whose attributes stand in the first of `sources` that has them."""
    position, orientation = _first(sources, "ImagePositionPatient"), _first(sources, "ImageOrientationPatient")
    spacing = _first(sources, "PixelSpacing")
    if position is None or orientation is None or spacing is None or len(orientation) != 6 or len(position) != 3:
        _bad(Reason.BAD_GEOMETRY, f"{name} does not say where its image lies", "convert it to NIfTI")
    directions = np.array([float(value) for value in orientation]).reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    row_mm, column_mm = (float(value) for value in spacing)
    sizes = (row_mm, column_mm, *lengths)
    if not all(map(math.isfinite, sizes)) or min(sizes) <= 0 or abs(directions[0] @ directions[1]) > 1e-2:
        _bad(Reason.BAD_GEOMETRY, f"{name} has no usable image plane", "convert it to NIfTI")
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
        _bad(Reason.UNSUPPORTED, f"{name} is a mosaic without a CSA header that describes it", "convert it to NIfTI")
    tiles = math.ceil(math.sqrt(count))
    rows, columns = pixels.shape[0] // tiles, pixels.shape[1] // tiles
    if rows * tiles != pixels.shape[0] or columns * tiles != pixels.shape[1]:
        _bad(Reason.CORRUPT, f"{name} is a mosaic that {tiles} x {tiles} tiles do not fill", "convert it to NIfTI")
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
        _bad(Reason.UNSUPPORTED, f"{name} has {len(pixels)} frames without a place for each", "convert it to NIfTI")
    for number, (group, frame) in enumerate(zip(groups, pixels, strict=True)):
        sources = [*_macros(group), *_macros(shared[0]), dataset]
        yield _plane(dataset, frame, sources, name, (*_index(sources), float(number)))


def _macros(group: Any) -> list[Any]:
    """The one-item sequences of a functional group that hold what 2D images have at their top."""
    names = (
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
    )
    items = [group.get(name) for name in (*names, "FrameContentSequence")] if group is not None else []
    return [item[0] for item in items if item]


def _index(sources: list[Any]) -> tuple[float, ...]:
    position = _first(sources, "TemporalPositionIndex")
    return (float(position or 0),)


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


def _is_dicom(file: BinaryIO) -> bool:
    """Whether the file has the magic, or starts with group 8 as files without a preamble do. Goes back to the start."""
    start = file.read(MAGIC_END)
    file.seek(0)
    return start[-4:] == b"DICM" or start[:2] == b"\x08\x00"


def _refuse_deflated(file: BinaryIO, name: str) -> None:
    """Deflated data sets would inflate without a bound. Goes back to the start."""
    if _DEFLATED in file.read(1 << 12):
        _bad(Reason.UNSUPPORTED, f"{name} is a deflated DICOM file", "convert it to another transfer syntax")
    file.seek(0)


def _read(file: BinaryIO, stop: int | None = None) -> Any:
    pydicom = _pydicom()
    if stop is None:
        dataset = pydicom.dcmread(file, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # without a preamble; pydicom has told the syntax by looking
            implicit, little = dataset.original_encoding
            uid = pydicom.uid
            explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
        return dataset
    return pydicom.filereader.read_partial(
        file, stop_when=lambda tag, vr, length: tag > stop, force=True, specific_tags=_header_tags()
    )


@lru_cache(maxsize=1)
def _csareader() -> Any:
    """nibabel's reader of Siemens headers, without the warning that it prints on import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom import csareader
    return csareader


@lru_cache(maxsize=1)
def _header_tags() -> list[Any]:
    return [_pydicom().tag.Tag(name) for name in _HEADER_TAGS]


@contextlib.contextmanager
def _careful(name: str) -> Iterator[None]:
    """Turn whatever a parser stumbles over in a file into BadInput."""
    try:
        yield
    except SegpipeError:
        raise
    except OSError as error:
        if error.errno is not None:  # the file system's, not the parser's
            raise
        _bad(Reason.TRUNCATED, f"{name} ends in the middle of an element", "copy it again from its source")
    except EOFError:
        _bad(Reason.TRUNCATED, f"{name} ends in the middle of an element", "copy it again from its source")
    except Exception as error:
        _bad(Reason.CORRUPT, f"{name} is a broken DICOM file ({type(error).__name__})", "copy it again from its source")


@lru_cache(maxsize=1)
def _pydicom() -> Any:
    """pydicom, its warnings and log lines kept quiet in this process, for they may quote patients."""
    import pydicom.config

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.logger.disabled = True
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    return pydicom


def _role(dataset: Any) -> str:
    """FLAIR, T1, T1ce, T2, … from the words of the series and its contrast agent; else `image`."""
    if "LOCALIZER" in (dataset.get("ImageType") or ()):
        return IMAGE
    for text in (dataset.get("SeriesDescription"), dataset.get("ProtocolName")):
        named = words(str(text or ""))
        if _FLAIR.search(str(text or "")):
            return "FLAIR"
        if named and named.role and named.role != MASK:
            return "T1ce" if named.role == "T1" and dataset.get("ContrastBolusAgent") else named.role
    return IMAGE


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 2) + 0.0 for value in values or ()]


def _hash(key: bytes, kind: str, text: str) -> str:
    return hmac.new(key, f"{kind}\0{text}".encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:16]


def _bad(reason: Reason, problem: str, remedy: str) -> NoReturn:
    raise BadInput(reason, problem, remedy)
