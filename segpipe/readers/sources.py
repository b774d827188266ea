"""The scans of an archive, whatever its layout: `find`."""

import gc
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import fsspec

from segpipe import registry
from segpipe.errors import NotFound, Reason, UsageError
from segpipe.readers import naming, packed
from segpipe.readers.archive import (
    Archive,
    Claim,
    Files,
    Listing,
    Rejected,
    ScanSource,
    SourceFile,
    is_image,
    kind_of,
    reject,
    unique,
    unread,
    walk,
    without,
)
from segpipe.readers.entries import Entries, Entry, Rows
from segpipe.readers.layouts import dicom, manifest
from segpipe.readers.nifti import partners
from segpipe.readers.series import Judged, Options
from segpipe.storage import url_to_fs

__all__ = ["LAYOUTS", "Listing", "Rejected", "ScanSource", "SourceFile", "find", "open_root"]

Claimer = Callable[[Archive, Mapping[str, Entry], bool], Claim]

LAYOUTS: dict[str, Claimer] = {name: registry.loaded(row.claim) for name, row in registry.LAYOUTS.items()}
AUTO = tuple(name for name, row in registry.LAYOUTS.items() if row.auto)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Let Python's collector rest: names make no cycles, and it would go over millions of them again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_without_collector()
def find(
    source_url: str,
    layout: str = "auto",
    subject_key: bytes | None = None,
    hash_subjects: bool = False,
    options: Options | None = None,
    read_dicom: dicom.Reader = dicom.read,
) -> Listing:
    """The scans below a folder, of one image file, or of a manifest, and what had to be rejected.

    No image is opened but the headers of DICOM files. The same archive gives the same listing, whatever the order of
    its files. `subject_key` is the secret that DICOM subjects are hashed with: that of the environment
    where it is None; with `hash_subjects` all subjects are. `options` tell how DICOM series become
    scans; `read_dicom` reads the headers of their files. Raises NotFound if there is no source or nothing in it,
    UsageError for an unknown layout, a file that is not a manifest, or DICOM without a key.
    """
    fs, root, only, table = _opened(source_url, layout)
    hidden: Counter[str] = Counter()
    found, rejected = walk(fs, root, {only, *partners(only)} if only and not table else None, hidden)
    entries = Entries.of(found)
    key = naming.subject_key() if subject_key is None else naming.SubjectKey(subject_key)
    archive = Archive(fs, root, entries, key.secret if key else None)
    claim, unread_files = _claimed(archive, entries, layout, table, options, read_dicom)
    rejected += claim.rejected + unread_files
    kept, duplicates = unique(naming.Naming(key, hash_subjects).people(claim.scans))
    maybe_dicom = bool(entries.mixed) and any(scan.is_dicom for scan in kept)
    has_dicom = bool(claim.series) or maybe_dicom or any(one.is_dicom for one in rejected)
    rejected = [_without_name(one, has_dicom, key is not None) for one in rejected + duplicates]
    rejected.sort(key=lambda item: item.paths)
    if not kept and not rejected and not claim.series:
        what = f"holds {len(entries)} files and no image of layout {layout}" if entries else "is empty"
        raise NotFound(f"Source {source_url} {what}", "name a folder of NIfTI or DICOM files, or another --layout")
    whole = _whole_folders(kept, entries)
    used = _used(kept, rejected, claim.series, whole)
    left = entries.paths(whole)
    ignored = Counter([claim.ignored.get(path) or kind_of(path) for path in left if path not in used])
    told = [*claim.told, *_other_spellings(used, whole)]
    return Listing(
        kept,
        rejected,
        fs.unstrip_protocol(root),
        dict(sorted((ignored + claim.inside + hidden).items())),
        tuple(map(_nameless, told)) if hash_subjects else tuple(told),
        claim.series,
    )


def _opened(source_url: str, layout: str) -> tuple[fsspec.AbstractFileSystem, str, str | None, str | None]:
    """What `open_root` gives, and the source's name where it is a manifest. Raises what `find` does."""
    if layout not in ("auto", "manifest", *LAYOUTS):
        raise UsageError(f"Layout {layout!r} is unknown", f"choose one of auto, manifest, {', '.join(LAYOUTS)}")
    fs, path = url_to_fs(source_url)
    if not fs.exists(path):
        raise NotFound(f"Source {source_url} does not exist", "check the path and the rights to read it")
    root, only = open_root(source_url)[1:]
    table = only if only and only.lower().endswith(manifest.SUFFIXES) else None
    if layout == "manifest" and table is None:
        raise UsageError(f"Source {source_url} is not a manifest", "name a .csv, .tsv or .parquet file")
    return fs, root, only, table


def _claimed(
    archive: Archive,
    left: Entries,
    layout: str,
    table: str | None,
    options: Options | None,
    read_dicom: dicom.Reader,
) -> tuple[Claim, list[Rejected]]:
    """What all layouts that are asked make of an archive, as one claim, and images left over that are not read."""
    whole = Claim()
    taken: Collection[str] = ()
    for name in _order(layout, table):
        left = without(left, taken)
        if table:
            claim = manifest.claim(archive, left, table)
        elif name == "dicom":
            claim = dicom.claim(archive, left, layout != "auto", options, read_dicom)
        else:
            claim = LAYOUTS[name](archive, left, layout != "auto")
        whole.add(claim)
        taken = claim.taken
    return whole, [
        reject([entry], Reason.UNSUPPORTED, f"{entry.path} is in a format that is not read", remedy)
        for entry in (() if table else left.others())
        if entry.path not in taken and (remedy := unread(entry.path)) is not None
    ]


def _whole_folders(scans: Iterable[ScanSource], entries: Entries) -> dict[str, Rows]:
    """The folders of which every file is part of one scan."""
    several = [scan.files for scan in scans if isinstance(scan.files, Files)]
    return {files.folder: files.rows for files in several if len(files) == len(entries.folders[files.folder])}


def _used(
    scans: Iterable[ScanSource], rejected: Iterable[Rejected], series: Iterable[Judged], whole: Collection[str]
) -> set[str]:
    """The files of an archive of which a scan, a rejection or a series tells; of packed ones also what holds them.

    Those in folders of which the `whole` is a scan are left out.
    """
    scans = [scan for scan in scans if not (isinstance(scan.files, Files) and scan.files.folder in whole)]
    used = _paths(scans) | {path for one in rejected for path in one.paths}
    used |= {entry.path for one in series for entry in one.series.entries()}
    used |= {parts[0] for path in used if packed.MARK in path and (parts := packed.split(path)) is not None}
    return used


def _other_spellings(paths: Collection[str], whole: Mapping[str, Rows]) -> Iterator[str]:
    """What is told of paths that stand in the archive in another normal form than they are compared in."""
    names = [*paths, *whole, *(end for ends in {rows.ends for rows in whole.values()} for end in ends.each)]
    if "".join(names).isascii():
        return
    if odd := sum(not unicodedata.is_normalized("NFC", path) for path in [*paths, *Entries(whole)]):
        yield f"{odd} paths are not in Unicode's NFC: names are compared in it, so two spellings are one"


def _paths(scans: Iterable[ScanSource]) -> set[str]:
    """The paths of all files."""
    files = [file for scan in scans for file in scan.files]
    return {file.path for file in files}.union(*[file.paths for file in files if file.companion])


def _nameless(sentence: str) -> str:
    """What is told of a reading without the words of names in brackets that are its examples."""
    before, bracket, rest = sentence.partition(" (")
    return before + rest.rpartition(")")[2] if bracket else sentence


def _without_name(one: Rejected, has_dicom: bool, has_key: bool) -> Rejected:
    """A rejection that is told without names where a patient's may be among them.

    Beside DICOM files that is whatever is no image by its name. What is in a folder that cannot be listed is not known:
    it is told by name where there is no key, as in archives without DICOM.
    """
    is_folder = any(path.endswith("/") for path in one.paths)
    may_name = (has_dicom or (has_key and is_folder)) and not all(map(is_image, one.paths))
    return replace(one, is_dicom=one.is_dicom or may_name)


def _order(layout: str, table: str | None) -> tuple[str, ...]:
    """The layouts to ask, one after the other."""
    if table:
        return ("manifest",)
    return AUTO if layout == "auto" else (layout,)


def open_root(source_url: str) -> tuple[fsspec.AbstractFileSystem, str, str | None]:
    """File system of a source, the folder that paths are relative to, and its name there where it is one file."""
    fs, path = url_to_fs(source_url)
    if fs.isfile(path):
        folder, _, name = path.rstrip("/").rpartition("/")
        return fs, folder or "/", name
    return fs, path, None
