"""Zip and tar archives, read where they lie: `a.zip!/folder/file` is a file in one, and nothing is unpacked to a disk.

Whatever is read is bounded: by the size that a member declares (zip) or by that of the archive (compressed tar).
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import io
import lzma
import re
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn, cast

import fsspec
from isal import igzip, isal_zlib

from segpipe.errors import BadInput, Reason, SegpipeError

if TYPE_CHECKING:
    from segpipe.readers.archive import Entry

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2")
MARK = "!/"
_MEMBER = re.compile(r"\.(?:zip|tar|tgz|tar\.gz|tar\.bz2)!/", re.IGNORECASE)
_MOST_MEMBERS = 1 << 20
_LEAST_BOUND, _MOST_RATIO = 1 << 30, 100  # of what a compressed tar may unpack to: bytes, and times its size
_MOST_DIRECTORY = 1 << 28  # bytes of what a zip says of its members
_MOST_HEADER = (1 << 14) + 8 * tarfile.BLOCKSIZE  # bytes of all that a tar says of one member: parsing may be quadratic
_PLAIN_HEADER = 4 * tarfile.BLOCKSIZE  # what programs say of a member, its time and a long name included
_MOST_MORE = 1 << 26  # bytes of headers beyond that, of all members together
_NUMBER = re.compile(rb"\d{64}")  # no number of a header is that long, and a pattern tries each part of it
_MOST_BUFFERED = 1 << 24  # of a member of a compressed tar, in which nobody goes back
_END, _END_64, _END_BYTES = b"PK\x05\x06", b"PK\x06\x06", 1 << 17
_ENCRYPTED = 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without a bound
_STEP = 1 << 20
_AGAIN = "copy it again from its source"
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    igzip.BadGzipFile,
    isal_zlib.error,
    lzma.LZMAError,
    EOFError,
    struct.error,
    ValueError,
    OverflowError,
)


class Member(NamedTuple):
    """A file in an archive: its name there, its size, and what tells its version."""

    name: str
    bytes: int
    version: str


def is_packed(path: str) -> bool:
    """Whether a name is one of an archive that is looked into."""
    lower = path.lower()
    return lower.endswith(SUFFIXES) and not lower.endswith(".nii.zip")


def split(path: str) -> tuple[str, str] | None:
    """Archive and member of a path; None for a plain file.

    >>> split("a/b.zip!/c/d"), split("a/b.zip")
    (('a/b.zip', 'c/d'), None)
    """
    found = _MEMBER.search(path) if MARK in path else None
    return (path[: found.end() - len(MARK)], path[found.end() :]) if found else None


class Packed:
    """An open archive. `members` may be a long way to go; `open` gives a member's bytes."""

    def __init__(self, file: BinaryIO, name: str, size: int, modified: str):
        self.name, self._modified = name, modified
        self._lock = threading.RLock()
        self._bound: _Bounded | None = None
        self._zip: zipfile.ZipFile | None = None
        self._places: dict[str, Any] | None = None
        self.doubled: list[str] = []
        self.special: list[str] = []
        with _told(name):
            if name.lower().endswith(".zip"):
                _check_count(file, size, name)
                self._zip = zipfile.ZipFile(file)
            else:
                self._tar = self._opened_tar(file, size)

    def _opened_tar(self, file: BinaryIO, size: int) -> tarfile.TarFile:
        lower = self.name.lower()
        content: Any = file
        if lower.endswith((".gz", ".tgz")):
            content = igzip.IGzipFile(fileobj=file)
        elif lower.endswith(".bz2"):
            content = bz2.BZ2File(file)
        self.is_compressed = content is not file
        most = max(_LEAST_BOUND, _MOST_RATIO * size) if self.is_compressed else size
        bound: Any = _Bounded(content, most, self.name)
        self._bound = bound
        with self._bound:  # the first header is read here
            return tarfile.open(fileobj=bound, mode="r:")

    def members(self) -> list[Member]:
        """All files in it that are regular, the last of each name, in the order in which they are stored.

        Raises BadInput if it is damaged or encrypted, or holds too much.
        """
        with self._lock:
            if self._places is None:
                places: dict[str, Any] = {}
                for info in self._infos():
                    name = self._name(info)
                    if name in places:
                        self.doubled.append(name)
                    places.pop(name, None)
                    places[name] = info
                self._places = places
            return [Member(name, *self._stamp(info)) for name, info in self._places.items()]

    def first(self, count: int) -> list[str]:
        """The names of a few files in it, without going on to its end."""
        with self._lock:
            if self._places is not None:
                return list(self._places)[:count]
            found = {}
            for info in self._infos():
                found[self._name(info)] = info
                if len(found) == count:
                    break
            self._some = found
            return list(found)

    def _infos(self) -> Iterator[Any]:
        with _told(self.name):
            if self._zip is not None:
                infos = sorted(self._zip.infolist(), key=lambda info: info.header_offset)
                secret = sum(bool(info.flag_bits & _ENCRYPTED) for info in infos)
                if secret:
                    problem = f"{self.name} holds {secret} encrypted files"
                    raise BadInput(Reason.UNSUPPORTED, problem, "pack it again without a password")
                yield from (info for info in infos if not info.is_dir())
                return
            assert self._bound is not None
            for number, info in enumerate(self._headers(self._bound)):
                if number == _MOST_MEMBERS:
                    _too_many(self.name)
                if info.isreg() and not info.issparse():
                    yield info
                elif not info.isdir():
                    self.special.append(info.name)
            self._check_end(self._bound)

    def _headers(self, bound: _Bounded) -> Iterator[tarfile.TarInfo]:
        found = iter(self._tar)
        while True:
            with bound:
                info = next(found, None)
            if info is None:
                return
            info.pax_headers = {}  # they have been applied, and are most of what a hostile archive would keep in memory
            yield info

    def _check_end(self, file: _Bounded) -> None:
        """Raise BadInput if no end follows on the last member: the parser takes what is broken for the end."""
        file.seek(self._tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise BadInput(Reason.TRUNCATED, f"{self.name} ends before its last file does", _AGAIN)
        while file.read(_STEP):  # to the checksum of a compressed one
            pass

    def _name(self, info: Any) -> str:
        name = info.filename if self._zip is not None else info.name.removeprefix("./")
        return name.replace("\\", "/") if "/" not in name else name  # as some programs of Windows write it

    def _stamp(self, info: Any) -> tuple[int, str]:
        if self._zip is not None:
            return info.file_size, f"crc {info.CRC:08x}"
        return info.size, f"{self._modified} {info.mtime}"

    def open(self, name: str) -> BinaryIO:
        """A member, open for reading; of a compressed tar its first 16 MB. Raises BadInput."""
        with self._lock, _told(f"{self.name}{MARK}{name}"):
            file = self._open(name)
            if self._zip is None and self.is_compressed:
                return io.BytesIO(file.read(_MOST_BUFFERED))
            return file

    def read(self, name: str) -> bytes:
        """All bytes of a member, which are no more than it declares. Raises BadInput."""
        with self._lock, _told(f"{self.name}{MARK}{name}"):
            return self._open(name).read(-1)

    def _open(self, name: str) -> BinaryIO:
        info = (self._places or getattr(self, "_some", {})).get(name)
        if info is None:
            self.members()
            info = (self._places or {}).get(name)
        if info is None:
            raise BadInput(Reason.UNREADABLE, f"{self.name}{MARK}{name} is no longer there", "run ingest again")
        if self._zip is None:
            return cast(BinaryIO, self._tar.extractfile(info))
        if info.header_offset < 0:  # its bytes lie before the first that are left
            raise BadInput(Reason.CORRUPT, f"{self.name}{MARK}{name} lies in a part that is lost", _AGAIN)
        if info.compress_type not in _METHODS:
            raise NotImplementedError(info.compress_type)
        return cast(BinaryIO, _Stepped(self._zip.open(info)))

    def order(self, names: Iterable[str]) -> list[str]:
        """Names in the order in which they are stored: a compressed tar is gone over once."""
        if self._places is None:
            self.members()
        wanted = set(names)
        return [name for name in self._places or {} if name in wanted]


class _Stepped(io.BufferedIOBase):
    """A member of a zip, unpacked in steps: one that holds more than it declares is never unpacked beyond that."""

    def __init__(self, file: Any):
        self._file = file

    def read(self, count: int | None = -1) -> bytes:
        if count is not None and 0 <= count <= _STEP:
            return bytes(self._file.read(count))
        parts: list[bytes] = []
        left = count if count is not None and count >= 0 else None
        while part := self._file.read(_STEP if left is None else min(_STEP, left)):
            parts.append(part)
            left = None if left is None else left - len(part)
        return b"".join(parts)

    def seek(self, place: int, whence: int = 0) -> int:
        return int(self._file.seek(place, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


class _Bounded:
    """A file that tells where more is asked of it than `most` bytes, or, inside of `with`, than one header takes."""

    def __init__(self, file: Any, most: int, name: str):
        self._file, self._most, self._name = file, most, name
        self._left: int | None = None  # bytes of a header
        self._more = 0  # bytes of long headers so far

    def __enter__(self) -> None:
        self._left = _MOST_HEADER

    def __exit__(self, *_: object) -> None:
        taken, self._left = _MOST_HEADER - (self._left or 0), None
        self._more += max(0, taken - _PLAIN_HEADER)
        if self._more > _MOST_MORE:
            problem = f"{self._name} has more than {_MOST_MORE} bytes of long headers"
            raise BadInput(Reason.TOO_LARGE, problem, "pack it again")

    def read(self, count: int = -1) -> bytes:
        if self._left is not None:
            self._left -= count
            if count < 0 or self._left < 0:
                problem = f"{self._name} has a header of more than {_MOST_HEADER} bytes"
                raise BadInput(Reason.TOO_LARGE, problem, "pack it again")
        most = max(0, self._most - self._file.tell()) + 1
        content: bytes = self._file.read(most if count < 0 else min(count, most))
        if len(content) == most:
            _too_large(self._name)
        if self._left is not None and len(content) > tarfile.BLOCKSIZE and _NUMBER.search(content):
            raise tarfile.HeaderError("a number without end")
        return content

    def seek(self, place: int, whence: int = 0) -> int:
        if whence == 0 and place > self._most + tarfile.RECORDSIZE:
            _too_large(self._name)
        return int(self._file.seek(place, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def seekable(self) -> bool:
        return True


class _told:  # noqa: N801
    """Turns what is wrong with an archive into BadInput that names it."""

    def __init__(self, name: str):
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SegpipeError):
            return
        if isinstance(error, NotImplementedError | RuntimeError):
            problem = f"{self._name} is packed in a way that is not read"
            raise BadInput(Reason.UNSUPPORTED, problem, "pack it again with deflate, or unpack it") from None
        # a damaged place in the file is an invalid argument to `seek`; other errors with a number are the file system's
        if isinstance(error, _BROKEN) or (isinstance(error, OSError) and error.errno in (None, errno.EINVAL)):
            message = f"{self._name} is a damaged archive ({type(error).__name__})"
            raise BadInput(Reason.CORRUPT, message, _AGAIN) from None


def _check_count(file: BinaryIO, size: int, name: str) -> None:
    """Raise BadInput for a zip of more members than any study has, before a parser makes an object of each."""
    file.seek(max(0, size - _END_BYTES))
    end = file.read(_END_BYTES)
    file.seek(0)
    count = 0
    if (place := end.rfind(_END)) >= 0 and place + 12 <= len(end):
        count = struct.unpack_from("<H", end, place + 10)[0]
    if (place := end.rfind(_END_64)) >= 0 and place + 40 <= len(end):
        count = max(count, struct.unpack_from("<Q", end, place + 32)[0])
    directory = struct.unpack_from("<I", end, end.rfind(_END) + 12)[0] if end.rfind(_END) >= 0 else 0
    if count > _MOST_MEMBERS or (directory != 0xFFFFFFFF and directory > _MOST_DIRECTORY):
        _too_many(name)


def _too_many(name: str) -> NoReturn:
    raise BadInput(Reason.TOO_LARGE, f"{name} holds more than {_MOST_MEMBERS} files", "pack its studies one by one")


def _too_large(name: str) -> NoReturn:
    problem = f"{name} unpacks to more than {_MOST_RATIO} times its size"
    raise BadInput(Reason.TOO_LARGE, problem, "unpack it beside the others")


def opened(fs: fsspec.AbstractFileSystem, root: str, path: str) -> Packed:
    """The archive at a path below `root`; one that is open already is not opened again unless it has changed."""
    full = f"{root.rstrip('/')}/{path}"
    info = fs.info(full)
    version = next((str(info[key]) for key in ("mtime", "modification_time", "ETag", "modified") if info.get(key)), "")
    return _opened(_Key(fs, full), path, int(info.get("size") or 0), version)


class _Key:
    """A file system and a path in it, which are the same again by their names."""

    def __init__(self, fs: fsspec.AbstractFileSystem, full: str):
        self.fs, self.full = fs, full
        self._name = (str(fs.protocol), getattr(fs, "_fs_token", ""), full)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._name == other._name

    def __hash__(self) -> int:
        return hash(self._name)


@lru_cache(maxsize=4)
def _opened(key: _Key, path: str, size: int, modified: str) -> Packed:
    return Packed(key.fs.open(key.full, "rb"), path, size, modified)


def contents(fs: fsspec.AbstractFileSystem, root: str, paths: Sequence[str]) -> dict[str, bytes]:
    """The bytes of those of the paths that are members of archives. Raises BadInput."""
    by_archive: dict[str, list[str]] = {}
    for path in paths:
        if (parts := split(path)) is not None:
            by_archive.setdefault(parts[0], []).append(parts[1])
    found: dict[str, bytes] = {}
    for name, members in by_archive.items():
        archive = opened(fs, root, name)
        found |= {f"{name}{MARK}{member}": archive.read(member) for member in archive.order(members)}
    return found


def in_order(fs: fsspec.AbstractFileSystem, root: str, entries: Iterable[Entry]) -> list[Entry]:
    """Members of archives, archive by archive, in the order in which they are stored.

    Those of one that has become unreadable come as they are: whoever opens them is told.
    """
    by_archive: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        if (parts := split(entry.path)) is not None:
            by_archive.setdefault(parts[0], {})[parts[1]] = entry
    found: list[Entry] = []
    for name, of in by_archive.items():
        order: Iterable[str] = of
        with contextlib.suppress(BadInput, OSError):
            order = opened(fs, root, name).order(of)
        found += [of[member] for member in order]
    return found
