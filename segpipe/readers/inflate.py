"""Bytes of files that may be gzipped, never more of them than is asked for."""

import bz2
from typing import NoReturn

from isal import isal_zlib

from segpipe.errors import BadInput, Reason

BEHIND = 1 << 20  # bytes tolerated behind the last one that a header promises

_MAGIC = b"\x1f\x8b"
_POINTERS = (
    (b"version https://git-lfs", "git LFS", "fetch it with `git lfs pull`"),
    (b"annex/objects/", "git-annex", "fetch it with `git annex get` or `datalad get`"),
)
_DEFLATE_LIMIT = 1032  # no deflate stream inflates to more than this multiple of its size
_HEAD = 1024  # enough for the fixed part of every header
_REMEDY = "copy it again from its source"


def start(data: bytes, name: str) -> bytes:
    """The first bytes, inflated, enough for a header. Raises BadInput, its message starting with `name`, for none."""
    head = up_to(data[: 1 << 16], _HEAD, name)[0] if data[:2] == _MAGIC else data[:_HEAD]
    if not head and len(data) > 64:
        raise BadInput(Reason.CORRUPT, f"{name} inflates to nothing", _REMEDY)
    if not head:
        raise BadInput(Reason.EMPTY_FILE, f"{name} is empty", _REMEDY)
    return head


def whole(data: bytes, wanted: int, name: str) -> bytes:
    """All bytes, inflated: at least `wanted`, at most `BEHIND` more. Raises BadInput.

    A gzip file that ends early or fails its checksum is refused, even when all wanted bytes are there.
    """
    limit = wanted + BEHIND
    if data[:2] == _MAGIC:
        if wanted > _DEFLATE_LIMIT * len(data):
            truncated(name, f"at most {_DEFLATE_LIMIT * len(data)}", wanted)
        content, complete = up_to(data, limit + 1, name)
        if not complete and len(content) <= limit:
            truncated(name, f"{len(content)} (and a broken end)", wanted)
    else:
        content = data
    if len(content) < wanted:
        truncated(name, str(len(content)), wanted)
    if len(content) > limit:
        problem = f"{name} goes on far behind the {wanted} bytes that its header promises"
        raise BadInput(Reason.TOO_LARGE, problem, "repair its header")
    return content


def unpacked_bz2(data: bytes, limit: int, name: str) -> bytes:
    """The content of a bzip2 file, if it is no longer than `limit` bytes. Raises BadInput if it is, or is broken."""
    stream = bz2.BZ2Decompressor()
    try:
        content = stream.decompress(data, limit + 1)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(Reason.CORRUPT, f"{name} is not a bzip2 file ({type(error).__name__})", _REMEDY) from error
    if len(content) > limit:
        raise BadInput(Reason.TOO_LARGE, f"{name} unpacks to more than {limit} bytes", "raise --max-voxels")
    if not stream.eof:
        raise BadInput(Reason.TRUNCATED, f"{name} ends before its bzip2 stream does", _REMEDY)
    return content


def check_pointer(data: bytes, name: str) -> None:
    """Raise BadInput if a file's content is only a pointer to a server that has it."""
    start = data[:512].replace(b"\\", b"/")  # Windows writes folders so
    for mark, kind, remedy in _POINTERS:
        if mark in start:
            raise BadInput(Reason.NOT_FETCHED, f"{name} is a pointer of {kind}, its content was not fetched", remedy)


def up_to(data: bytes, limit: int, name: str) -> tuple[bytes, bool]:
    """At most `limit` inflated bytes of a gzip file of one or more members, and whether that was all of it.

    Bytes behind the last member are left out. Raises BadInput if the stream is broken.
    """
    chunks: list[bytes] = []
    room = limit
    while data[:2] == _MAGIC:
        if room == 0:
            return b"".join(chunks), False
        stream = isal_zlib.decompressobj(31)
        try:
            chunks.append(stream.decompress(data, room))
        except isal_zlib.error as error:
            raise BadInput(Reason.CORRUPT, f"{name} does not inflate ({error})", _REMEDY) from error
        room -= len(chunks[-1])
        if not stream.eof:
            return b"".join(chunks), False
        data = stream.unused_data
    return chunks[0] if len(chunks) == 1 else b"".join(chunks), True


def is_gzip(data: bytes) -> bool:
    """Whether `data` starts as gzip files do."""
    return data[:2] == _MAGIC


def truncated(name: str, found: str, wanted: int) -> NoReturn:
    """Raise BadInput for a file that is shorter than its header promises."""
    raise BadInput(Reason.TRUNCATED, f"{name} holds {found} of the {wanted} bytes that its header promises", _REMEDY)
