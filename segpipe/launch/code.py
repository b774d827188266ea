"""The project's own code as one zip, for machines that have none of it: Python runs it as it is."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import BinaryIO

from fsspec.implementations.local import LocalFileSystem

from segpipe.launch.project import JOBS, PACKAGE, ROOT
from segpipe.storage import filesystem as files


def cached_code(folder: Path) -> Path:
    """A zip of the code in `folder`, made once for the same code: its name has the hash of what is in it."""
    digest = hashlib.sha256()
    for name, path in code_files().items():
        digest.update(name.encode() + b"\0" + path.read_bytes())
    target = folder / f"segpipe-{digest.hexdigest()[:16]}.zip"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with files.written_aside(LocalFileSystem(), str(target)) as file:
            write_code(file)
    return target


def zip_code(target: Path) -> Path:
    """Write the packages segpipe and jobs into the zip file `target`."""
    with target.open("wb") as file:
        write_code(file)
    return target


def write_code(target: BinaryIO) -> None:
    """Write the zip into an open file."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in code_files().items():
            archive.write(path, name)


def code_files() -> dict[str, Path]:
    """The files of the packages segpipe and jobs: their paths in the zip, to where they are."""
    of_package = {f"segpipe/{path.relative_to(PACKAGE)}": path for path in PACKAGE.rglob("*") if not _below_root(path)}
    of_jobs = {f"jobs/{path.relative_to(JOBS)}": path for path in JOBS.rglob("*")}
    found = sorted((of_package | of_jobs).items())
    return {name: path for name, path in found if path.is_file() and "__pycache__" not in path.parts}


def _below_root(path: Path) -> bool:
    """Whether a file of the package is one that the wheel keeps there beside it, see segpipe.launch.project."""
    return ROOT.is_relative_to(PACKAGE) and path.is_relative_to(ROOT)
