"""What lies in a folder of a local file system: `inside`.

As a program this module answers for the folders that `sweep` asks for: it imports next to nothing, to be there at once.
"""

from __future__ import annotations

import marshal
import os
import sys

File = tuple[str, int, float | str]
"""A file in its folder: name, size, and what the file system says of its version."""

Content = tuple[str, tuple[str, ...], tuple[int, ...], tuple[float | str, ...]]
"""The files of a folder in the order of their names: what these begin with, how each goes on, sizes, and versions."""

Inside = tuple[str, Content, list[tuple[File, bool]], list[str], str]
"""A folder, its regular files that may be read, other things in it and whether they are links, folders, what failed."""


_OPEN = 0o444  # everybody may read it


def inside(base: str, folder: str) -> Inside:
    """What lies in a folder, whose path below `base` is empty or ends with a slash.

    With one that cannot be listed comes the name of the error; for the folder "" it is raised: OSError.
    """
    files: list[File] = []
    others: list[tuple[File, bool]] = []
    folders: list[str] = []
    failed, me = "", os.geteuid()
    try:
        with os.scandir(base + folder) as found:
            for one in found:
                if one.is_dir(follow_symlinks=False):
                    folders.append(one.name)
                    continue
                status = one.stat(follow_symlinks=False)
                file = one.name, status.st_size, status.st_mtime
                is_open = status.st_mode & _OPEN == _OPEN or _may_read(one.path, status, me)
                if is_open and one.is_file(follow_symlinks=False):
                    files.append(file)
                else:
                    others.append((file, one.is_symlink()))
    except OSError as error:
        if not folder:
            raise
        failed = type(error).__name__
    return folder, content(folder, files), others, folders, failed


def _may_read(path: str, status: os.stat_result, me: int) -> bool:
    """Whether this process may read a file of its own, or one that its mode closes to others."""
    if status.st_uid == me and status.st_mode & 0o400:
        return True
    return os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)


def content(folder: str, files: list[File]) -> Content:
    """The files of a folder, whose path is empty or ends with a slash, as they are kept.

    Their names begin with that of the folder where all repeat it, so that thousands of folders go on alike.

    >>> content("a/P1/", [("P1_t2.nii", 3, 0.5), ("P1_t1.nii", 2, 0.5)])
    ('P1', ('_t1.nii', '_t2.nii'), (2, 3), (0.5, 0.5))
    """
    if not files:
        return "", (), (), ()
    files.sort()
    names, sizes, versions = zip(*files, strict=True)
    start = folder[:-1].rpartition("/")[2]
    if not all([name.startswith(start) for name in names]):
        return "", names, sizes, versions
    shared = len(start)
    return start, tuple([name[shared:] for name in names]), sizes, versions


def sent(content: list[str] | list[Inside]) -> bytes:
    """Lists, tuples, texts and numbers as bytes that tell their own length."""
    packed = marshal.dumps(content)
    return len(packed).to_bytes(8, "little") + packed


def _serve(base: str) -> None:
    while length := int.from_bytes(sys.stdin.buffer.read(8), "little"):
        folders = marshal.loads(sys.stdin.buffer.read(length))
        sys.stdout.buffer.write(sent([inside(base, folder) for folder in folders]))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
