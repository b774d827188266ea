"""The scans of an archive, whatever its layout: `find`."""

from collections.abc import Callable, Mapping

import fsspec

from segpipe.errors import NotFound, UsageError
from segpipe.readers.archive import (
    Archive,
    Claim,
    Entry,
    Listing,
    Rejected,
    ScanSource,
    SourceFile,
    is_image,
    unique,
    walk,
    without,
)
from segpipe.readers.layouts import brats, plain
from segpipe.readers.nifti import partners

__all__ = ["LAYOUTS", "Listing", "Rejected", "ScanSource", "SourceFile", "find", "open_root"]

Claimer = Callable[[Archive, Mapping[str, Entry], bool], Claim]

# In the order in which `auto` asks them; each sees what those before left over.
LAYOUTS: dict[str, Claimer] = {"brats": brats.claim, "plain": plain.claim}


def find(source_url: str, layout: str = "auto") -> Listing:
    """The scans below a folder, of one image file, or of a manifest, and what had to be rejected.

    No image is opened. The same archive gives the same listing, whatever the order of its files.
    Raises NotFound where there is no source or nothing in it, UsageError for a layout that is unknown.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise UsageError(f"Layout {layout!r} is unknown", f"choose one of auto, {', '.join(LAYOUTS)}")
    fs, path = fsspec.core.url_to_fs(source_url)
    if not fs.exists(path):
        raise NotFound(f"Source {source_url} does not exist", "check the path and the rights to read it")
    root, only = open_root(source_url)[1:]
    entries, rejected = walk(fs, root) if only is None else _single(fs, root, only)
    archive = Archive(fs, root, entries)
    scans: list[ScanSource] = []
    left: Mapping[str, Entry] = entries
    for name in LAYOUTS if layout == "auto" else (layout,):
        claim = LAYOUTS[name](archive, left, layout != "auto")
        scans += claim.scans
        rejected += claim.rejected
        left = without(left, claim.taken)
    kept, duplicates = unique(scans)
    rejected = sorted(rejected + duplicates, key=lambda item: item.paths)
    if not kept and not rejected:
        what = f"holds {len(entries)} files and no image of layout {layout}" if entries else "is empty"
        raise NotFound(f"Source {source_url} {what}", "name a folder of NIfTI or DICOM files, or another --layout")
    return Listing(kept, rejected, fs.unstrip_protocol(root), len(left))


def open_root(source_url: str) -> tuple[fsspec.AbstractFileSystem, str, str | None]:
    """File system of a source, the folder that paths are relative to, and its name there where it is one file."""
    fs, path = fsspec.core.url_to_fs(source_url)
    if fs.isfile(path):
        folder, _, name = path.rstrip("/").rpartition("/")
        return fs, folder or "/", name
    return fs, path, None


def _single(fs: fsspec.AbstractFileSystem, root: str, name: str) -> tuple[dict[str, Entry], list[Rejected]]:
    """A file, and the other half where it is one of a pair."""
    if not is_image(name):
        raise UsageError(f"Source {root}/{name} is no image", "name a folder, an image or a manifest")
    entries, rejected = walk(fs, root)
    wanted = {name, *partners(name)}
    return {p: e for p, e in entries.items() if p in wanted}, [r for r in rejected if set(r.paths) & wanted]
