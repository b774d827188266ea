"""What lies in a folder of a local file system: `inside`.

As a program this module answers for the folders that `sweep` asks for: it imports next to nothing, to be there at once.
"""

from __future__ import annotations

import marshal
import os
import sys

Row = tuple[str, int, str]
"""A file in its folder: name, size, and what the file system says of its version."""

Inside = tuple[str, list[Row], list[tuple[Row, bool]], list[str], str]
"""A folder, its regular files, what is neither file nor folder and whether it is a link, folders, and what failed."""


def inside(base: str, folder: str) -> Inside:
    """What lies in a folder, whose path below `base` is empty or ends with a slash.

    With one that cannot be listed comes the name of the error; for the folder "" it is raised: OSError.
    """
    files: list[Row] = []
    others: list[tuple[Row, bool]] = []
    folders: list[str] = []
    failed = ""
    try:
        with os.scandir(base + folder) as found:
            for one in found:
                if one.is_dir(follow_symlinks=False):
                    folders.append(one.name)
                    continue
                status = one.stat(follow_symlinks=False)
                file = one.name, status.st_size, str(status.st_mtime)
                if one.is_file(follow_symlinks=False):
                    files.append(file)
                else:
                    others.append((file, one.is_symlink()))
    except OSError as error:
        if not folder:
            raise
        failed = type(error).__name__
    return folder, files, others, folders, failed


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
