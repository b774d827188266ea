"""The volumes of one scan, on one grid and in canonical orientation, checked: `load`."""

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NoReturn

import fsspec
import numpy as np

from segpipe.core.faces import may_show_face
from segpipe.core.intensity import Statistics, brain_mask, statistics
from segpipe.core.orientation import (
    CANONICAL,
    axis_codes,
    reorient,
    reorient_affine,
    same_grid,
    spacing_mm,
)
from segpipe.core.regions import CONVENTIONS, label_counts
from segpipe.core.volume import Volume
from segpipe.errors import BadInput, Reason
from segpipe.readers import dicom, inflate, itk, nifti, packed
from segpipe.readers.archive import Entry, Rejected, ScanSource, SourceFile, is_image, reject
from segpipe.readers.names import MASK, MODALITIES, role_order
from segpipe.readers.sources import open_root

_WIDEST_VALUE = 16  # bytes
_SAME_VOXEL = 0.01  # of a voxel
_FLATTEST = 1e-3  # least volume of the parallelepiped of the three unit directions
_INFERRED = ("binary", "brats")  # conventions that labels alone can tell
_LOST = (errno.EIO, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)
_DAMAGED = (
    Reason.EMPTY_FILE,
    Reason.TRUNCATED,
    Reason.CORRUPT,
    Reason.NOT_AN_IMAGE,
    Reason.UNSUPPORTED,
    Reason.TOO_LARGE,
    Reason.BAD_GEOMETRY,
    Reason.NOT_FETCHED,
)  # faults that lie in one file
_LARGEST_LABEL = 10  # of a label map; an image that was scaled to so few values shows nothing


@dataclass(frozen=True, eq=False)
class LoadedScan:
    """One scan; all arrays are (S, H, W), index order slice, row, column along `orientation`.

    `images` holds stored values per modality (value = stored * slope + inter, see `slopes`), in the dtype of the file,
    or floating where it was resampled. `affine` (4, 4) float64 maps (slice, row, column, 1) to RAS+ mm. `statistics`
    are those of the scaled values over the `brain` voxels. `file_rows` are the FILE structs of the table `scans`.
    `resampled_to` is None if no file had to be resampled. `dropped` are files that do not fit the others.
    """

    source: ScanSource
    images: dict[str, np.ndarray]
    mask: np.ndarray | None
    affine: np.ndarray
    orientation: str
    file_rows: list[dict[str, Any]]
    slopes: dict[str, tuple[float, float]]
    brain: np.ndarray
    statistics: dict[str, Statistics]
    label_counts: dict[int, int] | None = None
    label_convention: str | None = None
    resampled_to: str | None = None
    dropped: tuple[Rejected, ...] = ()
    space: str | None = None
    preparation: dict[str, Any] | None = None
    flags: list[str] | None = None
    follows: dict[str, str] | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        slices, rows, columns = self.brain.shape
        return slices, rows, columns

    @property
    def spacing_mm(self) -> np.ndarray:
        """Along slice, row, column: (3,) float64."""
        return spacing_mm(self.affine)

    @cached_property
    def brain_pixels(self) -> np.ndarray:
        """Brain voxels of each slice, (S,) int64."""
        return np.count_nonzero(self.brain, axis=(1, 2))

    @cached_property
    def may_show_face(self) -> bool:
        """See segpipe.core.faces."""
        return may_show_face(list(self.images.values()), self.spacing_mm.tolist())

    @property
    def brain_voxels(self) -> int:
        return int(self.brain_pixels.sum())

    @cached_property
    def brain_box(self) -> tuple[int, ...]:
        """First and behind-last index of the brain along slice, row, column: 6 numbers."""
        plane = self.brain.any(axis=0)
        box: list[int] = []
        for filled in (self.brain_pixels > 0, plane.any(axis=1), plane.any(axis=0)):
            places = np.flatnonzero(filled)
            box += [int(places[0]), int(places[-1]) + 1]
        return tuple(box)

    @cached_property
    def foreground_pixels(self) -> np.ndarray:
        """Voxels of each slice whose label is not 0, (S,) int64; 0 without a mask."""
        if self.mask is None:
            return np.zeros(self.shape[0], np.int64)
        return np.count_nonzero(self.mask, axis=(1, 2))


@dataclass(frozen=True, eq=False)
class Frame:
    """One 3D frame of a file, in canonical orientation; `drawn_on` is the modality that a mask refers to."""

    role: str
    path: str
    array: np.ndarray
    affine: np.ndarray
    slope: float
    inter: float
    row: dict[str, Any]
    drawn_on: str | None = None


@dataclass(frozen=True, eq=False)
class Arranged:
    """The frames of a scan brought to one grid, its brain where that is known, and how it was done.

    `dropped` are the files of the frames that could not be, where others could, and why.
    """

    images: list[Frame]
    masks: list[Frame]
    brain: np.ndarray | None = None
    space: str | None = None
    preparation: dict[str, Any] | None = None
    flags: list[str] | None = None
    follows: dict[str, str] | None = None
    dropped: tuple[tuple[str, BadInput], ...] = ()


Arrange = Callable[[list[Frame], list[Frame]], Arranged]
"""Images and masks, in canonical orientation, to one grid."""


def load(
    source_url: str,
    scan_source: ScanSource,
    axis: str = "axial",
    resample_to: str | None = None,
    max_voxels: int = nifti.MAX_VOXELS,
    keep_header_text: bool = False,
    arrange: Arrange | None = None,
    needed: Collection[str] = (),
) -> LoadedScan:
    """Read and check all files of a scan.

    `arrange` may bring the frames to one grid in a way of its own, before their grids are compared.

    `axis` is a key of `segpipe.core.orientation.CANONICAL`. `resample_to` names the modality whose grid the files on
    other grids are resampled to (linear for images, nearest neighbour for the mask); without it they are refused. A
    file of several frames gives one modality per frame, named `bold.000`, `bold.001`, … Free text of headers and
    extensions is blanked unless `keep_header_text`, because it may name people.

    A damaged file drops out alone where another modality stays, as does one that `arrange` cannot use, unless its role
    is one of `needed`: what stands in the tables is not taken from them by a bad copy. Raises BadInput with a Reason
    for whatever is wrong with the scan; faults of the file system itself as they are.
    """
    frames, damaged = _readable(source_url, scan_source, CANONICAL[axis], max_voxels, keep_header_text, needed)
    frames, elsewhere = _with_fitting_spares(frames, scan_source, needed)
    arranged, unclear = _arranged(frames, arrange, needed)
    laid = _laid(arranged, resample_to, scan_source)
    brain = _brain(laid.images) if arranged.brain is None else arranged.brain
    masks, unusable = _with_labels(laid.masks, scan_source)
    dropped = (*damaged, *elsewhere, *arranged.dropped, *unclear, *laid.dropped, *unusable)
    return _loaded(scan_source, CANONICAL[axis], arranged, replace(laid, masks=masks, dropped=dropped), brain)


def mask_labels(source_url: str, scan_source: ScanSource, max_voxels: int = nifti.MAX_VOXELS) -> frozenset[int] | None:
    """The labels in a scan's mask; None if it has no mask, or one that cannot be used, as `load` will tell."""
    fs, root, _ = open_root_cached(source_url)
    masks = [file for file in scan_source.files if file.role == MASK]
    if not masks:
        return None
    try:
        return frozenset(label_counts(_read(fs, root, masks[0], max_voxels)[0].voxels))
    except Exception:  # whatever it is: no mask stops an archive
        return None


def restore(rows: Sequence[dict[str, Any]], planes: Sequence[np.ndarray], orientation: str) -> Volume:
    """The volume of one source file from its FILE structs and its channels' (S, H, W) arrays along `orientation`.

    `rows` are all rows of one path. Files without a NIfTI or MGH header (DICOM) become NIfTI. Raises ValueError if
    the arrays do not fit the file, as after resampling.
    """
    order = sorted(range(len(rows)), key=lambda place: rows[place]["channel"])
    first = rows[order[0]]
    frames = [reorient(planes[place], orientation, first["orientation"]) for place in order]
    shape = tuple(first["shape"])
    if any(frame.shape != shape[:3] for frame in frames) or len(frames) != int(np.prod(shape[3:], dtype=int)):
        raise ValueError(f"{first['path']}: {len(frames)} frames of {frames[0].shape} do not make up {shape}")
    voxels = np.stack(frames, axis=-1).reshape(shape, order="F")
    if not first["header"]:
        return nifti.from_array(voxels, np.reshape(first["affine"], (4, 4)), first["slope"], first["inter"])
    return nifti.from_header(first["header"], first["extensions"] or b"", first["container"], voxels)


@lru_cache(maxsize=8)
def open_root_cached(source_url: str) -> tuple[fsspec.AbstractFileSystem, str, str | None]:
    """`open_root`, asking the file system once per process and source."""
    return open_root(source_url)


@dataclass(frozen=True, eq=False)
class _Laid:
    """The frames of a scan on one grid, `affine`, and the files that are left out; whether any had to be resampled."""

    images: list[Frame]
    masks: list[Frame]
    affine: np.ndarray
    resampled_to: str | None
    dropped: Sequence[tuple[str, BadInput]]


def _arranged(
    frames: list[Frame], arrange: Arrange | None, needed: Collection[str]
) -> tuple[Arranged, list[tuple[str, BadInput]]]:
    """The frames as `arrange` brings them to one grid, or as they are; and the images whose role is not clear."""
    images, unclear = _with_role(sorted(_images(frames), key=lambda frame: role_order(frame.role)))
    masks = _masks(frames)
    arranged = arrange(images, masks) if arrange is not None else Arranged(images, masks)
    _check_needed(images + masks, arranged, needed)
    return arranged, unclear


def _laid(arranged: Arranged, resample_to: str | None, source: ScanSource) -> _Laid:
    """The arranged frames on the grid of one of them."""
    given = arranged.images + arranged.masks
    reference = _reference(arranged.images, resample_to, source)
    on_grid, off_grid = _on_one_grid(given, reference, resample_to)
    resampled = any(new is not old for new in on_grid for old in given if new.row is old.row)
    resampled_to = resample_to if resampled else None
    return _Laid(_images(on_grid), _masks(on_grid), reference.affine, resampled_to, off_grid)


def _loaded(source: ScanSource, orientation: str, arranged: Arranged, laid: _Laid, brain: np.ndarray) -> LoadedScan:
    """The scan of frames that are checked."""
    images = laid.images
    mask, labels, convention = _labels(laid.masks, source)
    return LoadedScan(
        source=source,
        images={frame.role: frame.array for frame in images},
        mask=mask,
        affine=laid.affine,
        orientation=orientation,
        file_rows=[frame.row for frame in images + laid.masks],
        slopes={frame.role: (frame.slope, frame.inter) for frame in images},
        brain=brain,
        statistics={f.role: statistics(f.array[brain]).scaled(f.slope, f.inter) for f in images},
        label_counts=labels,
        label_convention=convention,
        resampled_to=laid.resampled_to,
        dropped=tuple(_dropped(source, path, error) for path, error in laid.dropped),
        space=arranged.space,
        preparation=arranged.preparation,
        flags=arranged.flags,
        follows=arranged.follows,
    )


def _images(frames: Iterable[Frame]) -> list[Frame]:
    return [frame for frame in frames if frame.role != MASK]


def _masks(frames: Iterable[Frame]) -> list[Frame]:
    return [frame for frame in frames if frame.role == MASK]


def _check_needed(frames: Sequence[Frame], arranged: Arranged, needed: Collection[str]) -> None:
    """Raise what is wrong with a file that could not be arranged if its role is needed."""
    for path, error in arranged.dropped:
        if any(frame.path == path and frame.role.partition(".")[0] in needed for frame in frames):
            raise error


# Files to frames


def _by_path(files: Sequence[SourceFile]) -> list[list[SourceFile]]:
    groups: dict[str, list[SourceFile]] = {}
    for file in files:
        groups.setdefault(file.path, []).append(file)
    return list(groups.values())


def _readable(
    source_url: str, source: ScanSource, orientation: str, max_voxels: int, text: bool, needed: Collection[str]
) -> tuple[list[Frame], list[tuple[str, BadInput]]]:
    """The frames of all files that can be read, and what is wrong with the others; BadInput if that costs the scan."""
    fs, root, _ = open_root_cached(source_url)
    frames: list[Frame] = []
    damaged: list[tuple[str, BadInput]] = []
    for files in _by_path(source.files):
        try:
            frames += _frames(fs, root, files, orientation, max_voxels, text)
        except BadInput as error:
            if files[0].role in needed or not _may_drop(files[0].path, error):
                raise
            damaged.append((files[0].path, error))
    if damaged and not _is_usable(frames, source):
        raise damaged[0][1]
    return frames, damaged


def _frames(
    fs: fsspec.AbstractFileSystem, root: str, files: list[SourceFile], orientation: str, max_voxels: int, text: bool
) -> list[Frame]:
    """The frames of one file that the scan wants, canonical."""
    volume, digest = _read(fs, root, files[0], max_voxels)
    if files[0].volume is not None:
        volume = _one_volume(volume, files[0])
    volume, blanked = (volume, ()) if text else nifti.without_text(volume)
    path = files[0].path
    codes = _orientation(volume, path)
    stack = volume.voxels.reshape(*volume.voxels.shape[:3], -1, order="F")
    affine = reorient_affine(volume.affine, stack.shape[:3], codes, orientation)
    frames: list[Frame] = []
    for role, channel, file in _channels(files, stack.shape[3]):
        row = _file_row(file, role, channel, volume, codes, digest, blanked, first=not frames)
        array = reorient(stack[..., channel], codes, orientation)
        frames.append(Frame(role, path, array, affine, volume.slope, volume.inter, row, file.drawn_on))
    return frames


def _one_volume(volume: Volume, file: SourceFile) -> Volume:
    """The wanted volume of a file with several."""
    stack = volume.voxels.reshape(*volume.voxels.shape[:3], -1, order="F")
    if file.volume is None or file.volume >= stack.shape[3]:
        _bad(Reason.GRID_MISMATCH, f"{file.path} has other volumes than when it was listed", "run ingest again")
    return replace(volume, voxels=stack[..., file.volume])


def _read(fs: fsspec.AbstractFileSystem, root: str, file: SourceFile, max_voxels: int) -> tuple[Volume, str]:
    """The volume of a file, a pair or a series, and the sha256 over the bytes of its files one after the other.

    That of a DICOM series is over its voxels: its files name the patient, and who has all else of them could try names.
    """
    if file.bytes > max_voxels * _WIDEST_VALUE + (1 << 24):
        _bad(Reason.TOO_LARGE, f"{file.path} has {file.bytes} bytes", "raise --max-voxels")
    unpacked = packed.contents(fs, root, file.paths)
    contents = [
        unpacked[path] if path in unpacked else _content(fs, f"{root.rstrip('/')}/{path}", path) for path in file.paths
    ]
    if sum(map(len, contents)) != file.bytes:
        _bad(Reason.UNREADABLE, f"{file.path} changed its size since it was listed", "run ingest again")
    inflate.check_pointer(contents[0], file.path)
    lower = file.path.lower()
    if lower.endswith(itk.SUFFIXES):
        return itk.parse(contents[0], file.path, max_voxels), _digest(contents)
    digest = _digest(contents) if is_image(file.path) else ""
    if lower.endswith(".bz2"):
        contents[0] = inflate.unpacked_bz2(contents[0], max_voxels * _WIDEST_VALUE, file.path)
    if not is_image(file.path):
        volume = dicom.series(contents, file.paths, max_voxels)
        return volume, _voxels_digest(volume, file.role)
    companion = contents[1] if len(contents) > 1 else None
    return nifti.parse(contents[0], companion, max_voxels, file.path), digest


def _digest(contents: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


def _voxels_digest(volume: Volume, role: str) -> str:
    """The sha256 of a volume's voxels and geometry, another one for each role."""
    voxels = volume.voxels
    said = (role, voxels.dtype.str, voxels.shape, volume.affine.tolist(), volume.slope, volume.inter)
    digest = hashlib.sha256(repr(said).encode())
    digest.update(np.ascontiguousarray(voxels.T).data)  # as a series is stacked: slices, rows, columns
    return digest.hexdigest()


class _Closed(BadInput):
    """A file that its reader has no right to read, which no listing of a remote file system tells."""

    def __init__(self, path: str):
        super().__init__(Reason.UNREADABLE, f"{path} cannot be read (PermissionError)", "give the right to read it")


def _content(fs: fsspec.AbstractFileSystem, full: str, path: str) -> bytes:
    try:
        return fs.cat_file(full)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        _bad(
            Reason.UNREADABLE, f"{path} cannot be read ({type(error).__name__})", "check that it exists and its rights"
        )
    except OSError as error:
        if _is_closed(error):
            raise _Closed(path) from None
        if error.errno not in _LOST:  # the file system's fault, not the file's: the task is to be tried again
            raise
        _bad(Reason.UNREADABLE, f"{path} cannot be read ({os.strerror(error.errno)})", "copy it again from its source")


def _is_closed(error: OSError) -> bool:
    return isinstance(error, PermissionError) or error.errno == errno.EACCES


def _orientation(volume: Volume, path: str) -> str:
    """Axis codes of a usable affine; raises BadInput for any other."""
    remedy = "repair sform or qform in its header"
    try:
        codes = axis_codes(volume.affine)
    except (ValueError, np.linalg.LinAlgError) as error:
        _bad(Reason.BAD_GEOMETRY, f"{path} has no usable affine ({error})", remedy)
    linear = volume.affine[:3, :3]
    unit = linear / np.sqrt((linear**2).sum(axis=0))
    if not np.isfinite(volume.affine).all() or not abs(np.linalg.det(unit)) > _FLATTEST:
        _bad(Reason.BAD_GEOMETRY, f"{path} has an affine without volume: {volume.affine[:3].tolist()}", remedy)
    return codes


def _channels(files: list[SourceFile], count: int) -> list[tuple[str, int, SourceFile]]:
    """Role and channel of each frame: all frames of a file listed once, else one for each time it is listed."""
    first = files[0]
    if len(files) == 1 and first.channel == 0:
        if count == 1:
            return [(first.role, 0, first)]
        if first.role == MASK:
            _bad(Reason.MASK_MISMATCH, f"{first.path} is a mask of {count} frames", "keep one frame")
        return [(f"{first.role}.{channel:03d}", channel, first) for channel in range(count)]
    if {file.channel for file in files} != set(range(count)):
        wanted = ", ".join(f"{file.role} {file.channel}" for file in files)
        _bad(
            Reason.GRID_MISMATCH,
            f"{first.path} has {count} frames where {wanted} are wanted",
            "name each of its frames once",
        )
    return [(file.role, file.channel, file) for file in files]


def _file_row(
    file: SourceFile,
    role: str,
    channel: int,
    volume: Volume,
    codes: str,
    digest: str,
    blanked: Sequence[str],
    first: bool,
) -> dict[str, Any]:
    """The FILE struct of a frame; header and extensions stand in the first frame's row only."""
    return {
        "role": role,
        "path": f"dicom/{digest[:16]}"
        if volume.container == "dicom"
        else file.path,  # folders may be named for patients
        "bytes": file.bytes,
        "modified": file.modified,
        "sha256": digest,
        "dtype": volume.voxels.dtype.str,
        "shape": list(volume.voxels.shape),
        "channel": channel,
        "orientation": codes,
        "affine": volume.affine.ravel().tolist(),
        "slope": volume.slope,
        "inter": volume.inter,
        "container": volume.container,
        "header": volume.header if first else None,
        "extensions": volume.extensions if first else None,
        "blanked": list(blanked),
        "voxels_crc32": nifti.voxels_crc32(volume.voxels, volume.voxels.dtype.str) if first else None,
    }


# Grids


def _with_fitting_spares(
    frames: list[Frame], source: ScanSource, needed: Collection[str]
) -> tuple[list[Frame], list[tuple[str, BadInput]]]:
    """The frames without those of another copy of the scan that lie on no grid of its own modalities."""
    spare = {file.path for file in source.files if file.spare}
    own = [frame for frame in frames if frame.path not in spare and _is_main(frame)]
    dropped: list[tuple[str, BadInput]] = []
    for frame in frames if own else ():
        if frame.path in spare and not any(_same_grid(frame, other) for other in own):
            problem = (
                f"{frame.path} is of another copy of {own[0].path}, and has grid {_grid(frame)}, not {_grid(own[0])}"
            )
            error = BadInput(Reason.GRID_MISMATCH, problem, "put both on one grid, or name the files in a manifest")
            if frame.role in needed:
                raise error
            dropped.append((frame.path, error))
    gone = {path for path, _ in dropped}
    return [frame for frame in frames if frame.path not in gone], dropped


def _reference(images: list[Frame], resample_to: str | None, source: ScanSource) -> Frame:
    """The frame whose grid all others must have or get."""
    if resample_to is None:
        return _on_commonest_grid([frame for frame in images if _is_main(frame)] or images)
    for frame in images:
        if resample_to in (frame.role, frame.role.partition(".")[0]):
            return frame
    have = ", ".join(frame.role for frame in images)
    _bad(
        Reason.MISSING_MODALITY,
        f"{source.paths[0]} and its scan have {have} but no {resample_to} to resample to",
        "choose another --resample-to",
    )


def _on_commonest_grid(frames: list[Frame]) -> Frame:
    """The first of the frames whose grid fits most of them.

    Grids are compared, not frames: the hundreds of frames of one series share one, and their pairs take minutes.
    """
    numbers = Counter(map(_placed, frames))
    examples = {_placed(frame): frame for frame in frames}
    fitting = {
        grid: sum(numbers[other] for other, there in examples.items() if _same_grid(here, there))
        for grid, here in examples.items()
    }
    return max(frames, key=lambda frame: fitting[_placed(frame)])


def _placed(frame: Frame) -> tuple[tuple[int, ...], bytes]:
    return frame.array.shape, frame.affine.tobytes()


def _on_one_grid(
    frames: list[Frame], reference: Frame, resample_to: str | None
) -> tuple[list[Frame], list[tuple[str, BadInput]]]:
    """The frames on the reference's grid, and what does not fit it, if enough do.

    One of several modalities on another grid drops out alone, as does a mask or an image of another kind. Where no two
    modalities share a grid, the scan is refused: it wants to be registered, not to be thinned.
    """
    kept, dropped = [], []
    for frame in frames:
        try:
            kept.append(_on_grid(frame, reference, resample_to))
        except BadInput as error:
            dropped.append((frame.path, error))
    main = [frame for frame in frames if _is_main(frame)]
    if len(main) > 1 and sum(map(_is_main, kept)) < 2:
        raise next(error for path, error in dropped if any(frame.path == path for frame in main))
    gone = {path for path, _ in dropped}
    once = {path: error for path, error in reversed(dropped)}
    return [frame for frame in kept if frame.path not in gone], list(once.items())


def _is_foreign(path: str) -> bool:
    """Whether a file is in a format that is read as far as a library goes: what it holds is not repaired by a copy."""
    return path.lower().endswith((*itk.SUFFIXES, ".bz2"))


def _may_drop(path: str, error: BadInput) -> bool:
    """Whether the rest of a scan goes on without an image that cannot be used.

    The scan is looked at again when one of its files changes, or can be read again; any other fault of the file system
    need not be the file's own.
    """
    if isinstance(error, _Closed):
        return True
    if is_image(path):
        return _is_foreign(path) or error.reason in _DAMAGED
    return error.reason is not Reason.UNREADABLE


def _is_usable(frames: Sequence[Frame], source: ScanSource) -> bool:
    """Whether images are left, and one of the four modalities where the scan had any."""
    left = {frame.role.partition(".")[0] for frame in frames} - {MASK}
    return bool(left & {*MODALITIES}) if {*source.modalities} & {*MODALITIES} else bool(left)


def _is_main(frame: Frame) -> bool:
    return frame.role in MODALITIES


def _is_named(frame: Frame) -> bool:
    """Whether the file's name says its modality: a frame of a 4D file of FLAIR has the role `FLAIR.000`."""
    return frame.role.partition(".")[0] in MODALITIES


def _with_role(images: list[Frame]) -> tuple[list[Frame], list[tuple[str, BadInput]]]:
    """The images, without those that look like masks though their names do not say so."""
    kept, unclear = [], []
    for frame in images:
        if _is_named(frame) or not _has_few_values(frame.array):
            kept.append(frame)
            continue
        problem = f"{frame.path} holds a few whole numbers alone, as a mask does, and its name does not say what it is"
        remedy = "name it for a mask (`_mask`) or a modality, or say in a manifest what it is"
        unclear.append((frame.path, BadInput(Reason.UNCLEAR_ROLE, problem, remedy)))
    if not kept and unclear:
        raise unclear[0][1]
    return kept, unclear


def _has_few_values(array: np.ndarray) -> bool:
    """Whether an image is two whole numbers, or 0 and the first labels of a label map."""
    if array.dtype.kind not in "iub":
        return False
    low, high = int(array.min()), int(array.max())
    if low == high:
        return False
    return (low == 0 and high <= _LARGEST_LABEL) or bool(((array == low) | (array == high)).all())


def _with_labels(masks: list[Frame], source: ScanSource) -> tuple[list[Frame], list[tuple[str, BadInput]]]:
    """The mask, if its labels can be used."""
    try:
        _labels(masks, source)
    except BadInput as error:
        return [], [(masks[0].path, error)]
    return masks, []


def _dropped(source: ScanSource, path: str, error: BadInput) -> Rejected:
    """A file that fits no others, told with the versions that the listing has seen."""
    entries = _entries(next(file for file in source.files if file.path == path))
    return reject(entries, error.reason, error.problem, error.remedy, source.is_dicom, source.paths)


def fingerprints(source: ScanSource) -> list[Rejected]:
    """Each file of a scan as it would stand in `quarantine` by itself, for its fingerprint."""
    files = {file.path: file for file in source.files}.values()
    return [reject(_entries(file), Reason.CORRUPT, "", "", source.is_dicom) for file in files]


def told(source: ScanSource, is_told: Callable[[Rejected], bool]) -> list[SourceFile]:
    """The files of a scan that stand in `quarantine` by themselves."""
    files = {file.path: file for file in source.files}.values()
    return [file for file, one in zip(files, fingerprints(source), strict=True) if is_told(one)]


def is_readable(source_url: str, file: SourceFile) -> bool:
    """Whether the content of a file, with all files of its volume, is given to this user."""
    fs, root, _ = open_root_cached(source_url)
    try:
        for path in file.paths:
            fs.cat_file(f"{root.rstrip('/')}/{(packed.split(path) or (path,))[0]}", 0, 1)
    except OSError:
        return False
    return True


def _entries(file: SourceFile) -> list[Entry]:
    return [Entry(one, file.bytes, file.modified) for one in file.paths]


def _same_grid(one: Frame, other: Frame) -> bool:
    return one.array.shape == other.array.shape and same_grid(one.affine, other.affine)


def _on_grid(frame: Frame, reference: Frame, resample_to: str | None) -> Frame:
    """The frame itself where it has the reference's grid, else resampled; BadInput if that is not wanted."""
    if _same_grid(frame, reference):
        return frame
    if frame.row["container"] == "dicom" and frame.role == MASK and (array := _extended(frame, reference)) is not None:
        return replace(frame, array=array, affine=reference.affine)
    if resample_to is not None:
        array = _resampled(frame, reference)
        return replace(frame, array=array, affine=reference.affine)
    reason = Reason.MASK_MISMATCH if frame.role == MASK else Reason.GRID_MISMATCH
    _bad(
        reason,
        f"{frame.path} has grid {_grid(frame)} and {reference.path} has {_grid(reference)}",
        f"register them, or ingest with --resample-to {reference.role}",
    )


def _extended(frame: Frame, reference: Frame) -> np.ndarray | None:
    """A mask that covers a part of the reference's voxels, with the others 0; None if its voxels are others.

    SEG objects leave out slices without a label.
    """
    start = np.linalg.solve(reference.affine, frame.affine @ np.array([0.0, 0, 0, 1]))[:3]
    corner = np.round(start).astype(int)
    end = corner + np.array(frame.array.shape)
    moved = reference.affine.copy()
    moved[:3, 3] = frame.affine[:3, 3]
    inside = (corner >= 0).all() and (end <= np.array(reference.array.shape)).all()
    if not inside or np.abs(start - corner).max() > _SAME_VOXEL or not same_grid(frame.affine, moved):
        return None
    whole = np.zeros(reference.array.shape, frame.array.dtype)
    whole[tuple(slice(a, b) for a, b in zip(corner, end, strict=True))] = frame.array
    return whole


def _resampled(frame: Frame, reference: Frame) -> np.ndarray:
    """The frame on the reference's grid: stored labels by nearest neighbour, stored intensities linearly as floats.

    Voxels outside the frame's own grid become 0 (as a scaled value). Interpolation commutes with slope and intercept,
    so both stay those of the file.
    """
    from scipy.ndimage import affine_transform

    change = np.linalg.inv(frame.affine) @ reference.affine
    native = frame.array.astype(frame.array.dtype.newbyteorder("="), copy=False)
    if frame.role == MASK:
        return affine_transform(native, change, output_shape=reference.array.shape, order=0)
    kind = np.float32 if native.dtype.itemsize <= 2 or native.dtype == np.float32 else np.float64
    outside = -frame.inter / frame.slope
    with np.errstate(all="ignore"):
        return affine_transform(
            native.astype(kind, copy=False), change, output_shape=reference.array.shape, order=1, cval=outside
        )


def _grid(frame: Frame) -> str:
    size = "x".join(map(str, frame.array.shape))
    spacing = "x".join(f"{mm:.4g}" for mm in spacing_mm(frame.affine))
    return f"{size} of {spacing} mm from {frame.affine[:3, 3].round(3).tolist()}"


# Content


def _brain(images: list[Frame]) -> np.ndarray:
    for frame in images:
        if frame.array.dtype.kind == "f" and not np.isfinite(frame.array).any():
            _bad(Reason.NOT_FINITE, f"{frame.path} has no finite voxel", "repair or remove it")
    brain = brain_mask([frame.array for frame in images])
    if not brain.any():
        _bad(Reason.NO_BRAIN, f"{images[0].path} shows nothing but background", "repair or remove it")
    return brain


def _labels(masks: list[Frame], source: ScanSource) -> tuple[np.ndarray | None, dict[int, int] | None, str | None]:
    """Mask, voxels per label and name of the convention; three times None without a mask."""
    if not masks:
        return None, None, None
    mask = masks[0]
    if (mask.slope, mask.inter) != (1.0, 0.0):
        _bad(Reason.UNKNOWN_LABELS, f"{mask.path} is a mask with scaled labels", "save it without scl_slope")
    try:
        counts = label_counts(mask.array)
    except (ValueError, OverflowError) as error:
        _bad(Reason.UNKNOWN_LABELS, f"{mask.path}: {error}", "save it as whole numbers")
    names = (source.label_convention,) if source.label_convention else _INFERRED
    known = {name: sorted(CONVENTIONS[name].labels) if name in CONVENTIONS else [] for name in names}
    for name, labels in known.items():
        if name in CONVENTIONS and set(counts) <= set(labels):
            return mask.array, counts, name
    _bad(
        Reason.UNKNOWN_LABELS,
        f"{mask.path} has labels {list(counts)[:20]}, not of convention {known}",
        "say what they mean with --label-convention, or in a manifest's column label_convention",
    )


def _bad(reason: Reason, problem: str, remedy: str) -> NoReturn:
    raise BadInput(reason, problem, remedy)
