"""One face for the places where a warehouse can stand: file:// and hdfs://, and s3:// to read, through fsspec.

Two operations carry the exactly-once guarantee and are spelled out here, because fsspec promises less than they need:
putting a file in place of another in one step, and creating a file only where none is.
"""

import contextlib
import errno
import os
import posixpath
import uuid
from collections.abc import Iterator
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from segpipe.errors import StorageError
from segpipe.storage import url_to_fs


def filesystem(url: str, *, to_read: bool = False) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL or path, and the path inside it without a trailing slash; see `url_to_fs`."""
    fs, path = url_to_fs(url, to_read=to_read)
    return fs, path.rstrip("/") or "/"


def join(path: str, *names: str) -> str:
    """A path below `path`, with the forward slashes that all these file systems share."""
    return posixpath.join(path, *names)


def is_local(fs: AbstractFileSystem) -> bool:
    """Whether the files are the operating system's own, so that links and fsync exist."""
    return isinstance(fs, LocalFileSystem)


def names(fs: AbstractFileSystem, folder: str) -> list[str]:
    """The names in a folder, sorted; none where nothing is there. Raises StorageError where it is no folder."""
    try:
        if is_local(fs):
            return sorted(os.listdir(folder))
        fs.invalidate_cache(folder)
        found = fs.ls(folder, detail=True)
    except NotADirectoryError:
        raise _in_the_way(fs, folder) from None
    except FileNotFoundError:
        if _leads_nowhere(fs, folder):
            raise _in_the_way(fs, folder) from None
        return []
    if any(one["name"].rstrip("/") == folder and one["type"] == "file" for one in found):  # HDFS lists a file as itself
        raise _in_the_way(fs, folder)
    return sorted(posixpath.basename(one["name"].rstrip("/")) for one in found)


def make_folder(fs: AbstractFileSystem, path: str) -> None:
    """Make a folder and those above it that are missing. Raises StorageError where something else is in its place."""
    try:
        fs.makedirs(path, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise _in_the_way(fs, path) from None
    except FileNotFoundError:
        if _leads_nowhere(fs, path):
            raise _in_the_way(fs, path) from None
        raise


def _leads_nowhere(fs: AbstractFileSystem, path: str) -> bool:
    """Whether a link to nothing stands in the place of a folder or of one above it, as to a disk that is not there."""
    if not is_local(fs):
        return False
    path = os.path.abspath(path)
    while not os.path.lexists(path):
        path = posixpath.dirname(path)
    return not os.path.exists(path)


def _in_the_way(fs: AbstractFileSystem, path: str) -> StorageError:
    """What is told where a folder cannot be, because something else has its name or that of a folder above it."""
    while not fs.isdir(posixpath.dirname(path)):
        path = posixpath.dirname(path)
    if fs.exists(path):
        return StorageError(
            f"{path} is a file, but a folder is needed there", "move it away and run the same command again"
        )
    problem = f"{path} is a broken link, but a folder is needed there"
    return StorageError(problem, "mount what it leads to, or remove it, and run the same command again")


def rename_over(fs: AbstractFileSystem, source: str, target: str) -> None:
    """Put `source` in the place of `target`, which need not be there; a reader sees the one or the other.

    Raises FileNotFoundError if `source` is gone: that is how a writer learns that its run was given up. Raises
    StorageError where they lie on different disks, between which nothing can be renamed.
    """
    if is_local(fs):
        try:
            os.replace(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            problem = f"{posixpath.dirname(target)} lies on another disk than {posixpath.dirname(source)}"
            raise StorageError(
                problem, "move all folders of the warehouse to one disk, and link the warehouse as a whole"
            ) from None
    else:
        fs.mv(source, target)


def remove(fs: AbstractFileSystem, path: str) -> None:
    """Delete a file or a whole folder; one that is gone already is no error."""
    with contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def exclusive_create(fs: AbstractFileSystem, path: str, data: bytes) -> None:
    """Create a file with its whole content, or raise FileExistsError; no reader ever sees half of it."""
    if not is_local(fs):
        fs.pipe_file(path, data, mode="create")
        return
    draft = f"{path}.{uuid.uuid4().hex}.draft"
    replace(fs, draft, data)
    try:
        os.link(draft, path)
    finally:
        os.unlink(draft)


def replace(fs: AbstractFileSystem, path: str, data: bytes) -> None:
    """Write a small file so that a reader sees the old content or the new, never a part; durable on a local disk."""
    with written_aside(fs, path) as file:
        file.write(data)


@contextlib.contextmanager
def written_aside(fs: AbstractFileSystem, path: str) -> Iterator[Any]:
    """A binary file to write that takes the place of `path` when the block has ended well, in one step.

    Durable on a local disk; nothing stays of it where the block fails. Two writers at once do not meet: each has a
    draft of its own, under a name that no reader looks at.
    """
    draft = _draft_of(path)
    try:
        with fs.open(draft, "wb") as file:
            yield file
            flush_to_disk(fs, file)
        rename_over(fs, draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(fs, draft)
        raise


@contextlib.contextmanager
def folder_aside(fs: AbstractFileSystem, path: str) -> Iterator[str]:
    """A folder to fill that appears as `path`, which must not be there, with all of its files at once."""
    draft = _draft_of(path)
    fs.makedirs(draft)
    try:
        yield draft
        fs.mv(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(fs, draft)
        raise


def _draft_of(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return join(folder, f".{name}.{uuid.uuid4().hex}.draft")  # no reader, Spark included, looks at such a name


def flush_to_disk(fs: AbstractFileSystem, file: Any) -> None:
    """Make the content of an open file outlive a power cut; object stores and HDFS do so on close."""
    if is_local(fs):
        file.flush()
        os.fsync(file.fileno())


def flush_folder(fs: AbstractFileSystem, folder: str) -> None:
    """Make the renames in a folder outlive a power cut; see `flush_to_disk`."""
    if is_local(fs):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
