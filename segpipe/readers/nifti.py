"""NIfTI-1, NIfTI-2, Analyze 7.5 and FreeSurfer MGH files to volumes and back, without losing a byte.

What a volume keeps of its file: `header` is the fixed-size header (348, 540 or 284 bytes) and `extensions` are
the bytes between header and voxels followed by those behind the voxels. Of a pair, `header` is the whole
`.hdr` file and `extensions` are the bytes of the `.img` file that are not voxels. `to_bytes` puts them together again.

Values of several parts (RGB, RGBA, complex) become a last axis of the voxels, of length 3, 4 or 2.
Formats: NIfTI-1 (nifti.nimh.nih.gov/nifti-1), NIfTI-2, Analyze as SPM and nibabel read it, MGH (FreeSurfer).
"""

import bz2
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any, NoReturn

import numpy as np
from isal import igzip, isal_zlib

from segpipe.core.volume import Volume
from segpipe.errors import BadInput, Reason
from segpipe.readers import inflate
from segpipe.storage import url_to_fs

MAX_VOXELS = 1 << 30
SUFFIXES = (".nii", ".hdr", ".img", ".mgh", ".mgz", ".nii.gz", ".hdr.gz", ".img.gz", ".mgh.gz", ".nii.bz2", ".mgh.bz2")

MOST_TEXT_BYTES = 1 << 28
"""Of extensions and whatever else stands around the voxels; larger ones are refused."""

_MGH_SIZE = 284
_QUATERNION_ROUNDING = 1e-3  # by which the square of its length may exceed 1
_MGH_FIELDS = 90  # bytes that mean something; then nothing up to the voxels
_MGH_SCAN = 20  # behind the voxels: TR, flip angle, TE, TI and field of view; then tags with paths and command lines
_NO_TEXT = frozenset(("magic", "regular", "hkey_un0", "orient", "vox_units"))  # of bytes, but not free text

# NIfTI datatype code -> (dtype of one part, parts of a value)
_DATATYPES = {
    2: ("u1", 1),
    4: ("i2", 1),
    8: ("i4", 1),
    16: ("f4", 1),
    32: ("f4", 2),
    64: ("f8", 1),
    128: ("u1", 3),
    256: ("i1", 1),
    512: ("u2", 1),
    768: ("u4", 1),
    1024: ("i8", 1),
    1280: ("u8", 1),
    1792: ("f8", 2),
    2304: ("u1", 4),
}
_MGH_DATATYPES = {0: "u1", 1: "i4", 3: "f4", 4: "i2", 10: "u2"}
_CODES = {kind: code for code, (kind, parts) in _DATATYPES.items() if parts == 1}
_MAGICS = {
    b"n+1\0": ("nifti1", 344),
    b"ni1\0": ("nifti1-pair", 344),
    b"n+2\0": ("nifti2", 4),
    b"ni2\0": ("nifti2-pair", 4),
}


@dataclass(frozen=True)
class _Promise:
    """What a header says about the voxels that follow."""

    container: str
    header_bytes: int
    dtype: np.dtype
    dims: tuple[int, ...]
    parts: int
    offset: int
    affine: np.ndarray
    slope: float
    inter: float

    @property
    def count(self) -> int:
        return math.prod(self.dims) * self.parts

    @property
    def end(self) -> int:
        """Index behind the last voxel's last byte, in the file that holds the voxels."""
        return self.offset + self.count * self.dtype.itemsize

    @property
    def paired(self) -> bool:
        return self.container.endswith("-pair") or self.container == "analyze"


def parse(data: bytes, companion: bytes | None = None, max_voxels: int = MAX_VOXELS, name: str = "input") -> Volume:
    """The volume in the bytes of a `.nii` or `.mgh` file, or of a `.hdr` file with its `.img` as `companion`.

    Both may be gzipped. The voxels are a read-only view in the file's dtype, byte order and index order, at least
    3 axes. Nothing is inflated beyond what the header promises. Raises BadInput, whose message starts with `name`.
    """
    head = inflate.start(data, name)
    promise = _promise(head, companion is not None or ".hdr" in name.lower()[-7:], name)
    if math.prod(promise.dims) > max_voxels:
        count = "x".join(map(str, promise.dims))
        _bad(Reason.TOO_LARGE, f"{name} promises {count} voxels, more than {max_voxels}", "raise --max-voxels")
    if not promise.paired:
        content = inflate.whole(data, promise.end, name)
        header, front = content[: promise.header_bytes], content[promise.header_bytes : promise.offset]
    elif companion is None:
        _bad(
            Reason.TRUNCATED, f"{name} is half of a pair without the .img file of its voxels", "put the .img beside it"
        )
    else:
        header = inflate.whole(data, promise.header_bytes, name)
        content = inflate.whole(companion, promise.end, f"the .img of {name}")
        front = content[: promise.offset]
    text = len(header) + len(front) + len(content) - promise.end
    if text > MOST_TEXT_BYTES:
        message = f"{name} has {text} bytes that are no voxels, more than {MOST_TEXT_BYTES}"
        _bad(Reason.TOO_LARGE, message, "write it again without its extensions")
    voxels = np.frombuffer(content, promise.dtype, promise.count, promise.offset)
    return Volume(
        voxels=_to_index_order(voxels, promise),
        affine=promise.affine,
        slope=promise.slope,
        inter=promise.inter,
        header=bytes(header),
        extensions=bytes(front) + bytes(content[promise.end :]),
        container=promise.container,
    )


def read(source: str | os.PathLike | IO[bytes], max_voxels: int = MAX_VOXELS) -> Volume:
    """The volume of a file: a path, a URL (the other half of a pair is found beside it) or an open binary file.

    Raises BadInput for content that is no image, and what the file system raises where it cannot be read.
    """
    if not isinstance(source, str | os.PathLike):
        return parse(source.read(), None, max_voxels, getattr(source, "name", "input"))
    path = os.fspath(source)
    fs, inner = url_to_fs(path)
    header, image = inner, None
    if partner := next(filter(fs.exists, partners(inner)), None):
        header, image = (inner, partner) if ".hdr" in os.path.basename(inner).lower() else (partner, inner)
    return parse(fs.cat_file(header), fs.cat_file(image) if image else None, max_voxels, path)


def partners(path: str) -> Iterator[str]:
    """The names that the other half of a `.hdr` or `.img` file may have, likeliest first; none for other files.

    >>> list(partners("a/b.hdr.gz"))
    ['a/b.img.gz', 'a/b.img']
    """
    packed = path[-3:].lower() == ".gz"
    stem, suffix = os.path.splitext(path[:-3] if packed else path)
    other = {".hdr": ".img", ".img": ".hdr"}.get(suffix.lower())
    if other is None:
        return
    like = str.upper if suffix.isupper() else str.title if suffix[1].isupper() else str.lower
    cases = dict.fromkeys(style(other) for style in (like, str.lower, str.upper, str.title))  # `T2.Hdr` with `T2.Img`
    for plain in (stem + case for case in cases):
        gz = plain + (".GZ" if plain.isupper() or suffix.isupper() else ".gz")
        yield from (gz, plain) if packed else (plain, gz)


def to_bytes(volume: Volume) -> bytes:
    """The bytes, not compressed, of the file that `volume` was parsed from; of a pair, those of its `.hdr` file.

    `volume.voxels` may have any byte order; the header decides. Raises ValueError if shape or dtype are not
    what the header promises, or where there is no header (see `from_array`).
    """
    promise = _promise_of(volume)
    if promise.paired:
        return volume.header
    between = promise.offset - promise.header_bytes
    return b"".join(
        (volume.header, volume.extensions[:between], _file_order(volume, promise), volume.extensions[between:])
    )


def image_bytes(volume: Volume) -> bytes | None:
    """The bytes, not compressed, of the `.img` file of a pair; None for formats of one file."""
    promise = _promise_of(volume)
    if not promise.paired:
        return None
    front, back = volume.extensions[: promise.offset], volume.extensions[promise.offset :]
    return front + _file_order(volume, promise) + back


def write(volume: Volume, path: str | os.PathLike) -> None:
    """Write the file that `volume` was read from, gzipped where the name ends in `.gz` or `.mgz`.

    A pair gets its `.img` beside the `.hdr` of `path`. Raises ValueError if `path` does not fit the format.
    """
    target = os.fspath(path)
    contents = {target: to_bytes(volume)}
    image = image_bytes(volume)
    if image is not None:
        if not target.removesuffix(".gz").lower().endswith(".hdr"):
            raise ValueError(f"{volume.container} needs a name in .hdr, not {target}")
        contents[next(partners(target))] = image
    for name, content in contents.items():
        fs, place = url_to_fs(name)
        fs.makedirs(place.rpartition("/")[0] or "/", exist_ok=True)
        with fs.open(place, "wb") as file:
            file.write(_packed(content, name.lower()))


def _packed(content: bytes, name: str) -> bytes:
    """The bytes as the name of their file says."""
    if name.endswith((".gz", ".mgz")):
        return igzip.compress(content, 3, mtime=0)
    return bz2.compress(content) if name.endswith(".bz2") else content


def without_text(volume: Volume) -> tuple[Volume, tuple[str, ...]]:
    """The volume without the free text of its file, and the names of what was blanked because it was not empty.

    Text fields of the header and the contents of extensions become zeros; everything else, and the size of everything,
    stays as it is: descriptions, patients' and programs' names, user and host names in histories stand there.
    """
    if not volume.header:
        return volume, ()
    promise = _promise_of(volume)
    if promise.container == "mgh":
        header = volume.header[:_MGH_FIELDS].ljust(_MGH_SIZE, b"\0")
        extensions = volume.extensions[:_MGH_SCAN].ljust(len(volume.extensions), b"\0")
        named = {"header": (volume.header, header), "tags": (volume.extensions, extensions)}
        changed = tuple(name for name, (old, new) in named.items() if old != new)
        return replace(volume, header=header, extensions=extensions), changed
    size = 540 if promise.container.startswith("nifti2") else 348
    header, blanked = _without_fields(volume.header[:size], promise)
    behind = 0 if promise.paired else promise.offset - promise.header_bytes
    rest = _without_extensions(volume.header[size:])
    extensions = _without_extensions(volume.extensions[:behind]).ljust(len(volume.extensions), b"\0")
    if rest != volume.header[size:] or extensions != volume.extensions:
        blanked = (*blanked, "extensions")
    return replace(volume, header=header + rest, extensions=extensions), blanked


def _without_fields(header: bytes, promise: _Promise) -> tuple[bytes, tuple[str, ...]]:
    changed = bytearray(header)
    blanked = []
    kinds = _header_class(promise.container).template_dtype.fields  # type: ignore[attr-defined]
    for name, (kind, place, *_) in kinds.items():
        if kind.kind == "S" and name not in _NO_TEXT and any(changed[place : place + kind.itemsize]):
            changed[place : place + kind.itemsize] = bytes(kind.itemsize)
            blanked.append(name)
    return bytes(changed), tuple(blanked)


def _without_extensions(block: bytes) -> bytes:
    """The bytes between header and voxels with every extension as long as it was, of no kind, and empty.

    The block starts with four bytes, the first of which says whether extensions follow: each with its size and its kind
    as two 32-bit integers in front. Where it is no such list, all behind the four bytes is blanked.
    """
    changed = bytearray(block[:4]) + bytes(max(0, len(block) - 4))
    place = 4
    while block[:1] > b"\0" and place + 8 <= len(block):
        size = min(
            abs(struct.unpack_from(f"{order}i", block, place)[0]) for order in "<>"
        )  # the smaller is the right one
        if size < 8 or place + size > len(block):
            break
        changed[place : place + 4] = block[place : place + 4]
        place += size
    return bytes(changed)


def voxels_crc32(voxels: np.ndarray, dtype: str) -> int:
    """CRC-32 of voxels as bytes of `dtype`, the first index running fastest, as in their file.

    Of values of several parts, all first parts come first, which is not the order of the file and serves as well.
    """
    flat = np.asarray(voxels, np.dtype(dtype)).reshape(-1, order="F")
    return int(isal_zlib.crc32(flat.view(np.uint8)))


def from_array(voxels: np.ndarray, affine: np.ndarray, slope: float = 1.0, inter: float = 0.0) -> Volume:
    """A NIfTI-1 volume (NIfTI-2 where an axis needs it) with a new header; for arrays that come from no NIfTI file.

    Raises ValueError for a dtype that NIfTI does not know.
    """
    import nibabel

    code = _CODES.get(voxels.dtype.newbyteorder("=").str[1:])
    if code is None:
        raise ValueError(f"NIfTI has no datatype for {voxels.dtype}")
    large = max(voxels.shape) > 32767
    header = (nibabel.Nifti2Header if large else nibabel.Nifti1Header)(endianness="<")
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_sform(affine, 1)
    header.set_qform(affine, 1, strip_shears=True)
    header.set_xyzt_units("mm")
    header["vox_offset"] = 544 if large else 352
    header["scl_slope"], header["scl_inter"] = slope, inter
    return from_header(header.binaryblock, bytes(4), "nifti2" if large else "nifti1", voxels)


def from_header(header: bytes, extensions: bytes, container: str, voxels: np.ndarray) -> Volume:
    """The volume of stored header bytes and voxels; affine and scaling come from the header. Raises BadInput."""
    promise = _promise(header, container.endswith("-pair") or container == "analyze", "stored header")
    return Volume(voxels, promise.affine, promise.slope, promise.inter, header, extensions, promise.container)


def _bad(reason: Reason, problem: str, remedy: str) -> NoReturn:
    raise BadInput(reason, problem, remedy)


# Headers


def _promise_of(volume: Volume) -> _Promise:
    if not volume.header:
        raise ValueError(f"a {volume.container} volume has no header to write: use from_array")
    promise = _promise(volume.header, volume.container.endswith("-pair") or volume.container == "analyze", "volume")
    shape = _index_shape(promise)
    if volume.voxels.shape != shape or volume.voxels.dtype.newbyteorder("=") != promise.dtype.newbyteorder("="):
        raise ValueError(
            f"voxels {volume.voxels.shape} {volume.voxels.dtype} where the header has {shape} {promise.dtype}"
        )
    return promise


def _promise(head: bytes, paired: bool, name: str) -> _Promise:
    """What the header at the start of `head` promises. Raises BadInput if it is no NIfTI header or makes no sense."""
    for magic, (container, place) in _MAGICS.items():
        if head[place : place + 4] == magic:
            return _nifti(head, container, name)
    if head[:4] == b"\0\0\0\1" and len(head) >= _MGH_SIZE:
        return _mgh(head, name)
    if len(head) < 348:
        _bad(
            Reason.NOT_AN_IMAGE,
            f"{name} has {len(head)} bytes and no NIfTI or MGH header",
            "remove it from the archive",
        )
    if paired and 348 in struct.unpack("<i", head[:4]) + struct.unpack(">i", head[:4]):
        return _nifti(head, "analyze", name)
    _bad(Reason.NOT_AN_IMAGE, f"{name} has no NIfTI or MGH magic", "remove it from the archive")


def _nifti(head: bytes, container: str, name: str) -> _Promise:
    size = 540 if container.startswith("nifti2") else 348
    if len(head) < size:
        inflate.truncated(name, str(len(head)), size)
    header = _header_class(container)(head[:size], _endianness(head, size, name), check=False)
    rank = int(header["dim"][0])
    if not 1 <= rank <= 7:
        _bad(Reason.CORRUPT, f"{name} claims to have {rank} axes", "repair the header")
    dims = tuple(int(length) for length in header["dim"][1 : rank + 1])
    kind, parts = _DATATYPES.get(int(header["datatype"]), ("", 0))
    if not kind:
        code = int(header["datatype"])
        _bad(Reason.UNSUPPORTED, f"{name} has datatype {code}", "convert it to float64 or a real integer type")
    slope, inter = _scaling(header, container, name)
    return _Promise(
        container=container,
        header_bytes=size,
        dtype=np.dtype(header.endianness + kind),
        dims=_padded(dims, name),
        parts=parts,
        offset=_offset(float(header["vox_offset"]), container, size, name),
        affine=_affine(header, name),
        slope=slope,
        inter=inter,
    )


def _header_class(container: str) -> type:
    import nibabel
    from nibabel.spm2analyze import Spm2AnalyzeHeader

    return {
        "nifti1": nibabel.Nifti1Header,
        "nifti1-pair": nibabel.Nifti1Header,
        "nifti2": nibabel.Nifti2Header,
        "nifti2-pair": nibabel.Nifti2Header,
        "analyze": Spm2AnalyzeHeader,
    }[container]


def _endianness(head: bytes, size: int, name: str) -> str:
    """The byte order in which the header's own size, or else its number of axes, makes sense."""
    ranks = {540: ("q", 16), 348: ("h", 40)}
    kind, place = ranks[size]
    for order in "<>":
        if struct.unpack_from(f"{order}i", head)[0] == size:
            return order
    for order in "<>":
        if 1 <= struct.unpack_from(order + kind, head, place)[0] <= 7:
            return order
    _bad(Reason.CORRUPT, f"{name} has a header whose byte order cannot be told", "repair the header")


def _padded(dims: tuple[int, ...], name: str) -> tuple[int, ...]:
    if any(length < 1 for length in dims):
        _bad(Reason.CORRUPT, f"{name} has axes of length {'x'.join(map(str, dims))}", "repair the header")
    return dims + (1,) * (3 - len(dims))


def _offset(offset: float, container: str, size: int, name: str) -> int:
    """Where the voxels start. A single file that says 0 means right behind header and extension flag."""
    single = container in ("nifti1", "nifti2")
    if single and offset == 0:
        return size + 4
    if not (math.isfinite(offset) and (size if single else 0) <= offset <= 1 << 40 and offset == int(offset)):
        _bad(Reason.CORRUPT, f"{name} has its voxels at byte {offset}", "repair the header")
    return int(offset)


def _scaling(header: "object", container: str, name: str) -> tuple[float, float]:
    """Slope and intercept; 1 and 0 where the header has none (slope 0 or not finite)."""
    if container == "analyze":
        slope, inter = header.get_slope_inter()  # type: ignore[attr-defined]
        return (1.0, 0.0) if slope is None else (float(slope), float(inter or 0.0))
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])  # type: ignore[index]
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    if not math.isfinite(inter):
        _bad(Reason.CORRUPT, f"{name} scales by {slope} with intercept {inter}", "repair scl_inter in the header")
    return slope, inter


def _affine(header: "object", name: str) -> np.ndarray:
    """sform, else qform, else voxel sizes around the centre, as nibabel does once `check_fix` has seen the header."""
    try:
        with np.errstate(all="ignore"):
            return np.asarray(_mended(header).get_best_affine(), np.float64)
    except Exception as error:  # whatever nibabel's arithmetic stumbles over in a hostile header
        _bad(Reason.BAD_GEOMETRY, f"{name} has a broken qform ({error})", "repair qform or sform in the header")


def _mended(header: Any) -> Any:
    """A copy whose qfac is 1 or -1, whose voxel sizes are above 0, whose quaternion is not longer than 1 by rounding.

    So the programs of the field read (nifti1_io.c; nibabel's `check_fix`): a qfac of 0 counts as 1, a negative size is
    a size, and one of 0 counts as 1.
    """
    header = header.copy()
    sizes = header["pixdim"]
    if sizes[0] not in (-1, 1):
        sizes[0] = 1
    sizes[1:4] = np.where(sizes[1:4] == 0, 1, np.abs(sizes[1:4]))
    if "quatern_b" in header.keys():  # noqa: SIM118
        quaternion = np.array([header[f"quatern_{part}"] for part in "bcd"], np.float64)
        length = float(quaternion @ quaternion)
        if 1 < length < 1 + _QUATERNION_ROUNDING:
            for part, value in zip("bcd", quaternion / np.sqrt(length) * (1 - 1e-7), strict=True):
                header[f"quatern_{part}"] = value
    return header


def _mgh(head: bytes, name: str) -> _Promise:
    """The promise of a FreeSurfer MGH header, always big-endian."""
    *dims, kind, _dof = struct.unpack_from(">6i", head, 4)
    good, *numbers = struct.unpack_from(">h15f", head, 28)
    if kind not in _MGH_DATATYPES:
        _bad(Reason.UNSUPPORTED, f"{name} has MGH datatype {kind}", "convert it to NIfTI")
    shape = _padded(tuple(dims), name)
    delta, directions, centre = np.array(numbers[:3]), np.array(numbers[3:12]).reshape(3, 3).T, np.array(numbers[12:])
    if good != 1:
        delta, centre = np.ones(3), np.zeros(3)
        directions = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    affine = np.eye(4)
    with np.errstate(all="ignore"):
        affine[:3, :3] = directions * delta
        affine[:3, 3] = centre - affine[:3, :3] @ (np.array(shape[:3]) / 2)
    return _Promise(
        container="mgh",
        header_bytes=_MGH_SIZE,
        dtype=np.dtype(">" + _MGH_DATATYPES[kind]),
        dims=shape[:3] if shape[3] == 1 else shape,
        parts=1,
        offset=_MGH_SIZE,
        affine=affine,
        slope=1.0,
        inter=0.0,
    )


# Index order: the first index runs fastest in a file, and the parts of a value faster still


def _index_shape(promise: _Promise) -> tuple[int, ...]:
    return (*promise.dims, promise.parts) if promise.parts > 1 else promise.dims


def _to_index_order(flat: np.ndarray, promise: _Promise) -> np.ndarray:
    if promise.parts == 1:
        return flat.reshape(promise.dims, order="F")
    return np.moveaxis(flat.reshape((promise.parts, *promise.dims), order="F"), 0, -1)


def _file_order(volume: Volume, promise: _Promise) -> bytes:
    voxels = volume.voxels if promise.parts == 1 else np.moveaxis(volume.voxels, -1, 0)
    return np.asarray(voxels, promise.dtype).tobytes(order="F")
