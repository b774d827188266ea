"""What an archive holds, before any image is opened: its files, the scans they form, and what cannot be used."""

import base64
import hashlib
import json
import mimetypes
import os
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO, NamedTuple, overload

import fsspec

from segpipe.errors import BadInput, Reason
from segpipe.readers import itk, packed
from segpipe.readers.entries import Entries, Entry, Rows, entry_of, is_plain
from segpipe.readers.folders import File
from segpipe.readers.names import MASK, is_copy, role_order
from segpipe.readers.nifti import SUFFIXES as NIFTI
from segpipe.readers.nifti import partners
from segpipe.readers.sweep import swept

_FORMULA = ("=", "+", "-", "@")  # with which a cell begins that spreadsheets compute
_HOSTILE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\\]")
_AT_ONCE = 8  # folders of a remote file system that a driver asks for; its many tasks ask for one each
_LONGEST_NAME = 120
_LONGEST_FILE = 255
_READ = (*NIFTI, *itk.SUFFIXES)
_MOST_READ = (".nii.gz", ".nii")
_UNREAD = {
    # formats of images and packed folders that are told, not passed over
    **dict.fromkeys(
        (*itk.DETACHED, ".par", ".rec", ".head", ".brik", ".brik.gz", ".mif", ".mif.gz"), "convert it to NIfTI"
    ),
    **dict.fromkeys((".vti", ".vtk", ".ima.gz"), "convert it to NIfTI"),
    **{
        f"{image}{packing}": "unpack it"
        for image in (*NIFTI, *itk.SUFFIXES, *itk.DETACHED)
        for packing in (".gz", ".bz2", ".xz", ".zst", ".zip", ".lz4", ".7z", ".rar")
        if f"{image}{packing}" not in _READ
    },
    **dict.fromkeys((".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".7z", ".rar"), "unpack it beside the others"),
}
_UNREAD_SUFFIXES = tuple(_UNREAD)


class SourceFile(NamedTuple):
    """One volume of a scan: `role` is a modality or `mask`, `path` is relative to the root of the source.

    `channel` counts the 3D frames of the file. `companion` is the `.img` file of a `.hdr`, or, for a DICOM series, its
    other files separated by newlines, compressed where `is_packed`; `bytes` and `modified` speak of all of them.
    `volume` is the only one that is wanted of an enhanced DICOM file with several. `drawn_on` is the modality whose
    series a mask refers to, where it says so. A `spare` one is from another copy of the scan: it is wanted where
    it lies on the grid of the others.
    """

    role: str
    path: str
    bytes: int
    modified: str
    channel: int = 0
    companion: str | None = None
    is_packed: bool = False
    volume: int | None = None
    drawn_on: str | None = None
    spare: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        others = self.companion or ""
        if self.is_packed:
            others = zlib.decompress(base64.b85decode(others)).decode()
        return (self.path, *(others.split("\n") if others else ()))


class Files(Sequence[SourceFile]):
    """Files of one folder as those of a scan, equal to a tuple of them; each is made where somebody asks for it.

    `roles` tells by their place among the rows which file has which, in the order that a scan has them.
    """

    __slots__ = ("folder", "roles", "rows")

    def __init__(self, folder: str, rows: Rows, roles: Sequence[tuple[int, str]]) -> None:
        self.folder, self.rows, self.roles = folder, rows, roles

    def __len__(self) -> int:
        return len(self.roles)

    @overload
    def __getitem__(self, place: int) -> SourceFile: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[SourceFile, ...]: ...
    def __getitem__(self, place: int | slice) -> SourceFile | tuple[SourceFile, ...]:
        if isinstance(place, slice):
            return tuple(self)[place]
        row, role = self.roles[place]
        return SourceFile(role, *entry_of(self.folder, self.rows[row]))

    def __eq__(self, other: object) -> bool:
        return tuple(self) == (tuple(other) if isinstance(other, Files) else other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


@dataclass(frozen=True)
class ScanSource:
    """The files of one subject's session; one per modality in canonical order, the mask last.

    `label_convention` is None if the layout does not tell it: then the labels do. `earlier` are other visits of the
    patient that it may share a space with when it is prepared, the best first. `moment` is when the visit began, in
    seconds on a clock of the patient's own, where a header tells the day.
    """

    subject: str
    session: str
    files: Sequence[SourceFile]
    layout: str
    label_convention: str | None = None
    earlier: "tuple[Earlier, ...]" = ()
    moment: float | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """Subject and session."""
        return self.subject, self.session

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(file.role for file in self.files if file.role != MASK)

    @property
    def paths(self) -> tuple[str, ...]:
        paths = [file.path for file in self.files]
        if any([file.companion for file in self.files]):
            paths = [path for file in self.files for path in file.paths]
        return tuple(dict.fromkeys(paths))

    @property
    def is_dicom(self) -> bool:
        """Whether one of its volumes is a DICOM series: then its files may be named for patients."""
        if self.layout == "dicom":
            return True
        return any([not path.endswith(_MOST_READ) and not is_image(path) for _, path, *_ in self.files])

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum({file.path: file.bytes for file in self.files}.values())

    @property
    def fingerprint(self) -> str:
        """Changes with the paths, sizes, versions and meaning of the files, and with nothing else."""
        files = [(f.role, f.path, f.bytes, f.modified, f.channel, "\n".join(f.paths[1:]) or None) for f in self.files]
        wanted = [(f.path, "spare" if f.spare else f.volume) for f in self.files if f.spare or f.volume is not None]
        return _hash([self.subject, self.session, self.layout, self.label_convention, files, *wanted])

    @property
    def nameless_fingerprint(self) -> str:
        """The same without paths: nobody can try out names with it, though some changes it cannot see."""
        files = [(f.role, f.bytes, f.modified, f.channel) for f in self.files]
        return _hash([self.subject, self.session, self.layout, self.label_convention, files])


@dataclass(frozen=True)
class Earlier:
    """Another visit of a scan's patient: the part of the tables that holds it, or the files that it is made from."""

    scan_id: str
    session: str
    fingerprint: str
    part: str | None = None
    source: ScanSource | None = None


@dataclass(frozen=True)
class Rejected:
    """Files that became no scan, and why: one row of the quarantine table.

    `is_dicom` says that names may be those of patients: tables and messages tell them as keyed hashes. `others` are
    paths that only the message tells. `nameless_fingerprint` depends on sizes and versions alone, as that of a scan.
    """

    paths: tuple[str, ...]
    reason: Reason
    message: str
    remedy: str
    fingerprint: str
    is_dicom: bool = False
    others: tuple[str, ...] = ()
    nameless_fingerprint: str = ""

    @property
    def named(self) -> tuple[str, ...]:
        """All paths that the message may tell."""
        return self.paths + self.others


@dataclass(frozen=True)
class Listing:
    """All scans of a source, in the order of their identity; `root` is the URL that paths are relative to.

    `kinds` counts the files in no scan and no rejection by what they are: `{".txt": 9, "map of anatomy": 3}`. `told`
    are sentences on readings that could be others. `series` are all DICOM series, also those in no scan
    (`segpipe.readers.series.Judged`).
    """

    scans: list[ScanSource]
    rejected: list[Rejected]
    root: str = ""
    kinds: Mapping[str, int] = field(default_factory=dict)
    told: tuple[str, ...] = ()
    series: list[Any] = field(default_factory=list)

    @property
    def ignored(self) -> int:
        """Files in no scan and no rejection."""
        return sum(self.kinds.values())


@dataclass(frozen=True)
class Archive:
    """A file system, a folder in it, the usable files below, and the secret that DICOM subjects are hashed with."""

    fs: fsspec.AbstractFileSystem
    root: str
    entries: Mapping[str, Entry]
    subject_key: bytes | None = field(default=None, repr=False)

    def read(self, path: str) -> bytes:
        """All bytes of a small file."""
        return self.fs.cat_file(f"{self.root.rstrip('/')}/{path}")

    def open(self, path: str, block: int) -> BinaryIO:
        """A file, or a member of a zip or tar archive, open for reading in steps of `block` bytes."""
        if (parts := packed.split(path)) is not None:
            return packed.opened(self.fs, self.root, parts[0]).open(parts[1])
        if _is_local(self.fs):  # a third of the time that fsspec takes
            return open(f"{self.root.rstrip('/')}/{path}", "rb", buffering=block)
        return self.fs.open(f"{self.root.rstrip('/')}/{path}", "rb", block_size=block)

    def check(self) -> None:
        """Raise OSError if the archive is gone as a whole: no longer mounted, its name node down."""
        self.fs.invalidate_cache()
        self.fs.info(self.root or "/")


@dataclass
class Claim:
    """What one layout makes of an archive; `taken` are the paths that no other layout may look at.

    `ignored` are those of them that are neither an image nor a lesion mask, with what they are; `told` are sentences
    on readings that could be others.
    `series` are the DICOM series, all of them, with what became of each (`segpipe.readers.series.Judged`).
    """

    scans: list[ScanSource] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    taken: Collection[str] = ()
    ignored: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    series: list[Any] = field(default_factory=list)
    inside: Counter[str] = field(default_factory=Counter)
    """Files in zip and tar archives that are no images, by kind."""

    def add(self, other: "Claim") -> None:
        """Take in what another layout has made of the same archive, but not which files it took."""
        self.scans += other.scans
        self.rejected += other.rejected
        self.ignored |= other.ignored
        self.told += other.told
        self.series += other.series
        self.inside += other.inside


class Found(NamedTuple):
    """An image file that a layout understood. Only files of one `place` can form a scan together.

    Of two with one role, the one with the lesser `rank` stays. For `spare` see `SourceFile`.
    """

    place: object
    subject: str
    session: str
    role: str
    entry: Entry
    channel: int = 0
    convention: str | None = None
    rank: int = 0
    spare: bool = False


class Together(NamedTuple):
    """Image files of one folder and one `place`, each of a role of its own, as `Found`.

    Scans of one session that share what they are `like` mean the same.
    """

    place: object
    subject: str
    session: str
    files: Files
    like: object = None

    def each(self) -> Iterator[Found]:
        """The same, file by file."""
        for file in self.files:
            yield Found(self.place, self.subject, self.session, file.role, Entry(*file[1:4]), rank=1)


Companions = Mapping[str, tuple[Entry, ...]]
"""By the path of an image: its other files, the `.img` of a `.hdr` or the rest of a DICOM series."""


def reject(
    files: Iterable[Entry],
    reason: Reason,
    message: str,
    remedy: str,
    is_dicom: bool = False,
    others: Sequence[str] = (),
) -> Rejected:
    """A rejection of `files`, whose message may also name the paths `others`; names are made printable."""
    entries = sorted(files)
    fingerprint = _hash([tuple(entry) for entry in entries])
    paths = tuple(printable(entry.path) for entry in entries)
    more = tuple(map(printable, others))
    nameless = _hash(sorted((entry.bytes, entry.modified) for entry in entries))
    return Rejected(paths, reason, printable(message), printable(remedy), fingerprint, is_dicom, more, nameless)


def printable(text: str) -> str:
    r"""`text` with control characters, text direction marks and broken Unicode escaped, and the sign of a formula.

    >>> printable("a\nb"), printable("=cmd")
    ('a\\nb', '\\x3dcmd')
    """
    text = _HOSTILE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return f"\\x{ord(text[0]):02x}{text[1:]}" if text.startswith(_FORMULA) else text


def is_safe_name(name: str) -> bool:
    """Whether a file may be called so: the name leads nowhere else, hides nothing and is not endless."""
    return 0 < len(name) <= _LONGEST_FILE and name not in (".", "..") and not _HOSTILE.search(name)


def identity_of(name: str) -> str:
    """What a subject or session is called in the tables: in one form of Unicode (NFC, Standard Annex 15), whatever the
    file system's, and no formula to a spreadsheet.

    >>> identity_of("Mu\u0308ller") == identity_of("M\u00fcller"), identity_of("=cmd|x")
    (True, '_=cmd|x')
    """
    name = unicodedata.normalize("NFC", name)
    return f"_{name}" if name.startswith(_FORMULA) else name


def is_identity(name: str) -> bool:
    """Whether a subject or session may be called so."""
    return is_safe_name(name) and len(name) <= _LONGEST_NAME and "/" not in name and ":" not in name


def is_image(path: str) -> bool:
    """Whether the name is one of a NIfTI, Analyze, MGH, NRRD, MetaImage or MINC file."""
    return path.lower().endswith(_READ)


def unread(path: str) -> str | None:
    """What to do with a file whose name is one of a format that holds images and is not read; None for others."""
    lower = path.lower()
    if not lower.endswith(_UNREAD_SUFFIXES):
        return None
    return next(remedy for suffix, remedy in _UNREAD.items() if lower.endswith(suffix))


_KNOWN = {*mimetypes.MimeTypes().types_map[True], *(".bval", ".bvec", ".log", ".mat", ".md", ".toml", ".xlsx", ".yaml")}


def kind_of(path: str) -> str:
    """What a file is that no layout asked for, by its name; a suffix that is not known may be somebody's name.

    An image is left out by a manifest, or by a layout that was named.

    >>> [kind_of(path) for path in ("a/notes.TXT", "table.csv.gz", "readme", "roe.jane", "P1_T1.nii")]
    ['.txt', '.csv.gz', 'no suffix', 'another suffix', 'image left out']
    """
    if is_image(path):
        return "image left out"
    name = path.rpartition("/")[2].lower()
    plain = name.removesuffix(".gz")
    suffix = f".{plain.rpartition('.')[2]}" if "." in plain else ""
    if not suffix:
        return "no suffix" if plain == name else ".gz"
    return suffix + name[len(plain) :] if suffix in _KNOWN else "another suffix"


def stem(name: str) -> str:
    """A file name without its suffixes.

    >>> stem("scan_t1.nii.gz")
    'scan_t1'
    """
    if name.endswith(".nii.gz"):
        return name[:-7]
    lower = name.lower()
    suffix = max((s for s in _READ if lower.endswith(s)), key=len, default="")
    return name[: len(name) - len(suffix)]


def walk(
    fs: fsspec.AbstractFileSystem,
    root: str,
    names: Collection[str] | None = None,
    hidden: Counter[str] | None = None,
) -> tuple[Entries, list[Rejected]]:
    """The regular files below `root` by relative path, in order, and what is refused for its name or place.

    With `names`, only those files, as far as they exist, are looked at.

    Nothing is opened. Files and folders whose name starts with one dot are left out, and counted in `hidden`. Symbolic
    links are followed to files inside `root`; links to folders inside are left out, for their files are listed already.
    A folder that cannot be listed is refused as a whole; its path ends with a slash.
    """
    if names is None and _is_local(fs):
        return _walk_local(root.rstrip("/") or "/", hidden=hidden, alone=False)
    rejected: list[Rejected] = []
    if names is None:
        found = below(fs, root, root, rejected, hidden=hidden, at_once=_AT_ONCE)
    else:
        paths = [f"{root.rstrip('/')}/{name}" for name in sorted(names)]
        found = {path: fs.info(path) for path in paths if fs.exists(path)}
    entries, refused = listed(fs, root, found)
    return Entries.of(entries), rejected + refused


def walk_below(
    fs: fsspec.AbstractFileSystem, root: str, top: str, deep: bool
) -> tuple[dict[str, Entry], list[Rejected]]:
    """`walk` of one folder of an archive, whose path relative to `root` is `top`, with all below it where `deep`.

    Files are in the order of their paths.
    """
    root = root.rstrip("/") or "/"
    if _is_local(fs):
        found_here, rejected_here = _walk_local(root, f"{top}/" if top else "", deep)
        return dict(sorted(found_here.items())), rejected_here
    rejected: list[Rejected] = []
    found = below(fs, root, f"{root.rstrip('/')}/{top}" if top else root, rejected, deep)
    entries, refused = listed(fs, root, found)
    return entries, rejected + refused


def _walk_local(
    root: str, top: str = "", deep: bool = True, hidden: Counter[str] | None = None, alone: bool = True
) -> tuple[Entries, list[Rejected]]:
    """`walk` of a local folder: each is listed, and its files' versions asked for, in one sweep."""
    folders: dict[str, Rows] = {}
    rejected: list[Rejected] = []
    real_root = os.path.realpath(root)
    hidden = Counter() if hidden is None else hidden
    base = f"{root.rstrip('/')}/"
    left = [top]
    for prefix, content, others, inside, failed in swept(base, left, alone):
        if failed:
            rejected.append(_unlisted(prefix, failed))
        for name in inside:
            if is_hidden(path := f"{prefix}{name}/"):
                hidden["hidden folder"] += 1
            elif deep:
                left.append(path)
        rows = Rows(content)
        if others or not (rows.ends.are_plain and is_plain(prefix)):
            usable: list[File] = [row for row in rows if _is_usable(prefix, row, rejected, hidden)]
            for row, is_link in others:
                usable += _behind(base, prefix, row, is_link, real_root, rejected, hidden)
            rows = Rows.of(prefix, usable)
        if rows.sizes:
            folders[prefix] = rows
    return Entries(folders), rejected


def _behind(
    base: str,
    prefix: str,
    row: File,
    is_link: bool,
    real_root: str,
    rejected: list[Rejected],
    hidden: Counter[str],
) -> list[File]:
    """The file behind a symbolic link; none for links and devices that are not to be read."""
    if not _is_usable(prefix, row, rejected, hidden):
        return []
    target = _special(base + prefix + row[0], {"islink": is_link}, entry_of(prefix, row), real_root, rejected)
    return [] if target is None else [(row[0], target.bytes, target.modified)]


def _is_usable(prefix: str, row: File, rejected: list[Rejected], hidden: Counter[str]) -> bool:
    """Whether a file's name is one to be read; what is hidden is counted and what is unsafe rejected."""
    entry = entry_of(prefix, row)
    if row[0].startswith(".") and is_hidden(entry.path):
        hidden["hidden file"] += 1
        return False
    if _is_odd(entry.path) or len(row[0]) > _LONGEST_FILE:
        message = f"{entry.path} has control characters or path tricks in its name"
        rejected.append(reject([entry], Reason.UNSAFE_PATH, message, "rename it"))
        return False
    return True


def _is_odd(path: str) -> bool:
    return _HOSTILE.search(path) is not None or packed.split(path) is not None


def _unlisted(path: str, error: str) -> Rejected:
    """A folder, whose path ends with a slash, that cannot be listed."""
    message = f"{path} cannot be listed ({error})"
    return reject([Entry(path, 0, "")], Reason.UNREADABLE, message, "give the right to read it, or remove it")


def listed(
    fs: fsspec.AbstractFileSystem, root: str, found: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Entry], list[Rejected]]:
    """`walk` of what a file system has `found`: information by full path."""
    start = len(root.rstrip("/")) + 1
    entries: dict[str, Entry] = {}
    rejected: list[Rejected] = []
    real_root = os.path.realpath(root) if _is_local(fs) else root
    for name, info in found.items():
        path = name[start:]
        if is_hidden(path):
            continue
        entry = Entry(path, int(info.get("size") or 0), _version(info))
        if not all(map(is_safe_name, path.split("/"))) or packed.split(path):
            message = f"{path} has control characters or path tricks in its name"
            rejected.append(reject([entry], Reason.UNSAFE_PATH, message, "rename it"))
            continue
        if info.get("type", "file") != "file":
            target = _special(name, info, entry, real_root, rejected)
            if target is None:
                continue
            entry = target
        entries[path] = entry
    return entries, rejected


def below(
    fs: fsspec.AbstractFileSystem,
    root: str,
    top: str,
    rejected: list[Rejected],
    deep: bool = True,
    hidden: Counter[str] | None = None,
    at_once: int = 1,
) -> dict[str, Mapping[str, Any]]:
    """What is in the folder `top` but folders, by path and in order, with all below it where `deep`.

    One call a folder, so many `at_once`: who lists waits for answers, not for a processor. What is hidden is left out
    and counted in `hidden`.
    Folders that cannot be listed are rejected, but `root` itself.
    """
    start = len(root.rstrip("/")) + 1
    found: dict[str, Mapping[str, Any]] = {}
    hidden = Counter() if hidden is None else hidden
    left = [top.rstrip("/") or "/"]
    with ThreadPoolExecutor(at_once) as pool:
        while left:
            level, left = left, []
            for folder, infos in zip(level, pool.map(partial(_asked, fs), level), strict=True):
                if isinstance(infos, Exception):
                    if folder == (root.rstrip("/") or "/"):
                        raise infos
                    rejected.append(_unlisted(f"{folder[start:]}/", type(infos).__name__))
                    continue
                for info in infos:
                    path = str(info["name"]).rstrip("/")
                    if path == folder:  # an object store's mark of a folder
                        continue
                    is_folder = info["type"] == "directory"
                    if is_hidden(f"{path[start:]}/"):
                        hidden["hidden folder" if is_folder else "hidden file"] += 1
                    elif not is_folder:
                        found[path] = info
                    elif deep:
                        left.append(path)
    return dict(sorted(found.items()))


def _asked(fs: fsspec.AbstractFileSystem, folder: str) -> Sequence[Mapping[str, Any]] | Exception:
    """What a remote file system says of a folder's content, or why it says nothing."""
    try:
        return fs.ls(folder, detail=True)
    except (OSError, RuntimeError) as error:  # the latter is what clients of remote file systems raise
        return error


def is_hidden(path: str) -> bool:
    """Whether a file or one of its folders is hidden: by one dot; two and more are in no convention."""
    if path.startswith("__MACOSX/"):
        return True
    if not path.startswith(".") and "/." not in path:
        return False
    return any(part.startswith(".") and part != "." and not part.startswith("..") for part in path.split("/"))


def unreadable(
    archive: Archive, entry: Entry, error: OSError, others: Iterable[Entry] = (), is_dicom: bool = True
) -> Rejected:
    """The rejection of a file that its file system does not give, and of `others` that cannot be understood without it.

    Raises OSError if the whole archive is gone. Of the error its kind is told alone, because its text holds the path.
    """
    archive.check()
    kind = os.strerror(error.errno) if error.errno else type(error).__name__
    message, remedy = f"{entry.path} cannot be read ({kind})", "check that it exists and its rights"
    return reject([entry, *others], Reason.UNREADABLE, message, remedy, is_dicom)


def members(archive: Archive, entry: Entry) -> tuple[list[Entry], list[Rejected]]:
    """The files in a zip or tar archive that may be read, in the order in which they are stored, and what is refused.

    A damaged, encrypted or endless archive is refused as a whole.
    """
    try:
        opened = packed.opened(archive.fs, archive.root, entry.path)
        found = opened.members()
    except BadInput as error:
        return [], [reject([entry], error.reason, error.problem, error.remedy, is_dicom=True)]
    except OSError as error:
        return [], [unreadable(archive, entry, error)]
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    for name, size, version in found:
        one = Entry(f"{entry.path}{packed.MARK}{name}", size, _secret_version(archive, version))
        if is_hidden(name):
            continue
        if not all(map(is_safe_name, name.split("/"))):
            message = f"{one.path} has control characters or path tricks in its name"
            rejected.append(reject([one], Reason.UNSAFE_PATH, message, "rename it", is_dicom=True))
        elif packed.is_packed(name):
            message = f"{one.path} is an archive in an archive"
            rejected.append(reject([one], Reason.UNSUPPORTED, message, "unpack the outer one", is_dicom=True))
        else:
            entries.append(one)
    refused = (("stands twice", opened.doubled), ("is a link or sparse", opened.special))
    for what, name in ((what, name) for what, names in refused for name in names):
        one = Entry(f"{entry.path}{packed.MARK}{name}", 0, entry.modified)
        message = f"{one.path} {what} in its archive"
        rejected.append(reject([one], Reason.UNSUPPORTED, message, "pack every file once", is_dicom=True))
    return entries, rejected


def _secret_version(archive: Archive, version: str) -> str:
    """The version of a member, from which nobody can guess its content."""
    key = hashlib.sha256(archive.subject_key or b"none").digest()
    return hashlib.blake2b(version.encode(), digest_size=8, key=key).hexdigest()


def pairs(entries: Mapping[str, Entry]) -> tuple[Entries, dict[str, tuple[Entry, ...]], list[Rejected]]:
    """Image files by path, the `.img` of each `.hdr` as `Companions`, and `.img` files without `.hdr`."""
    entries = Entries.of(entries)
    companions: dict[str, tuple[Entry, ...]] = {}
    rejected = []
    no_images: set[str] = set()
    for entry in entries.others():
        path = entry.path
        partner = next((entries[p] for p in partners(path) if p in entries), None)
        if not is_image(path):
            no_images.add(path)
        elif stem(path).lower() + ".img" != path.lower().removesuffix(".gz"):
            if partner:
                companions[path] = (partner,)
        else:
            no_images.add(path)
            if partner is None:
                message = f"{path} holds voxels without the .hdr file that describes them"
                rejected.append(reject([entry], Reason.NOT_AN_IMAGE, message, "put the .hdr beside it"))
    return without(entries, no_images), companions, rejected


def gather(
    found: Collection[Found | Together],
    layout: str,
    companions: Companions,
    meaning: Callable[[ScanSource], tuple[str, str | None]] | None = None,
) -> tuple[list[ScanSource], list[Rejected]]:
    """Scans from the files of each place; a second file of one role, a lone mask, an unsafe identity are rejected.

    `meaning` tells layout and convention of labels of a scan, where they are others than `layout` and what was found.
    """
    places: dict[object, list[Found | Together]] = {}
    known = {name: identity_of(name) for name in {name for item in found for name in (item.subject, item.session)}}
    usable = {name for name in known.values() if is_identity(name)}
    for item in found:
        key = item.place, known[item.subject], known[item.session]
        if key in places:
            places[key].append(item)
        else:
            places[key] = [item]
    told = meaning or (lambda scan: (scan.layout, scan.label_convention))
    meanings: dict[object, tuple[str, str | None]] = {}
    scans: list[ScanSource] = []
    rejected: list[Rejected] = []
    for found_here in places.values():
        first = found_here[0]
        subject, session = known[first.subject], known[first.session]
        whole = first if isinstance(first, Together) and len(found_here) == 1 and not companions else None
        if whole and whole.files.roles[0][1] != MASK and subject in usable and session in usable:
            like = whole.like, session
            if whole.like is None or like not in meanings:
                meanings[like] = told(ScanSource(subject, session, whole.files, layout))
            scans.append(ScanSource(subject, session, whole.files, *meanings[like]))
            continue
        items = [one for item in found_here for one in (item.each() if isinstance(item, Together) else (item,))]
        kept = _one_per_role(items, rejected)
        files = [item.entry for item in kept]
        if not (subject in usable and session in usable):
            message = f"{files[0].path} gives the identity {subject!r}, {session!r}, which is not a usable name"
            rejected.append(reject(files, Reason.UNSAFE_PATH, message, "rename it, or name the subject in a manifest"))
        elif all(item.role == MASK for item in kept):
            message = f"{files[0].path} is a mask without an image"
            rejected.append(reject(files, Reason.MISSING_MODALITY, message, "put the images beside it"))
        else:
            kept.sort(key=_role_order)
            convention = next((item.convention for item in kept if item.convention), None)
            sources = tuple(_source_file(item, companions) for item in kept)
            scan = ScanSource(subject, session, sources, layout, convention)
            scans.append(ScanSource(subject, session, sources, *told(scan)))
    return scans, rejected


def _role_order(item: Found) -> tuple[int, str]:
    return role_order(item.role)


def _source_file(item: Found, companions: Companions) -> SourceFile:
    path, size, modified = item.entry
    if path in companions:
        return source_file(item.role, (item.entry, *companions[path]), item.channel)._replace(spare=item.spare)
    return SourceFile(item.role, path, size, modified, item.channel, spare=item.spare)


def source_file(role: str, entries: Sequence[Entry], channel: int = 0) -> SourceFile:
    """One volume in one or several files; its version changes with any of them."""
    return SourceFile(
        role=role,
        path=entries[0].path,
        bytes=sum(entry.bytes for entry in entries),
        modified=";".join(sorted({entry.modified for entry in entries})),
        channel=channel,
        companion="\n".join(entry.path for entry in entries[1:]) or None,
    )


def packed_file(role: str, entries: Sequence[Entry]) -> SourceFile:
    """One volume in many files, of which little memory is left: a driver holds those of a whole archive."""
    versions = sorted(entry.modified for entry in entries)
    others = "\n".join(entry.path for entry in entries[1:]).encode()
    return SourceFile(
        role=role,
        path=entries[0].path,
        bytes=sum(entry.bytes for entry in entries),
        modified=f"{versions[-1]};{_hash(versions)}" if len(versions) > 1 else versions[0],
        companion=base64.b85encode(zlib.compress(others, 6)).decode() if others else None,
        is_packed=bool(others),
    )


def unique(scans: Iterable[ScanSource]) -> tuple[list[ScanSource], list[Rejected]]:
    """Scans in the order of identity and path; of two with one identity the first stays and the other is rejected.

    One with a mask comes before one without, and what lies in a folder called a copy is never the first.
    """
    alike: dict[tuple[str, str], list[ScanSource]] = {}
    for scan in scans:
        alike.setdefault((scan.subject, scan.session), []).append(scan)
    kept: list[ScanSource] = []
    rejected = []
    for identity in sorted(alike):
        first, *others = alike[identity]
        if others:
            first, *others = sorted(alike[identity], key=_standing)
        kept.append(first)
        for scan in others:
            roles = ", ".join(dict.fromkeys(file.role for file in scan.files))
            message = f"{scan.paths[0]} ({roles}) is a second scan of subject {scan.subject}, session {scan.session}"
            remedy = f"remove it or {first.paths[0]}, or give them sessions in a manifest"
            told = reject_scan(scan, Reason.DUPLICATE, message, remedy)
            rejected.append(replace(told, is_dicom=scan.is_dicom or first.is_dicom, others=first.paths))
    return kept, rejected


def standing(path: str, has_mask: bool, is_whole: bool = True) -> tuple[bool, bool, bool, str]:
    """Sort key of copies of a scan, the one that stays first: an original, one with a mask, one of its own files."""
    return is_copy(path), not has_mask, not is_whole, path


def _standing(scan: ScanSource) -> tuple[bool, bool, bool, str]:
    own = next(file.path for file in scan.files if not file.spare)
    return standing(own, scan.files[-1].role == MASK, not any(file.spare for file in scan.files))


def reject_scan(scan: ScanSource, reason: Reason, message: str, remedy: str) -> Rejected:
    """A rejection of all files of a scan."""
    paths = tuple(map(printable, scan.paths))
    return Rejected(
        paths=paths,
        reason=reason,
        message=printable(message),
        remedy=printable(remedy),
        fingerprint=scan.fingerprint,
        is_dicom=scan.is_dicom,
        nameless_fingerprint=scan.nameless_fingerprint,
    )


def without(entries: Entries, taken: Collection[str]) -> Entries:
    """The entries that are not taken yet."""
    if not taken:
        return entries
    left: dict[str, Collection[File]] = {}
    for folder, rows in entries.folders.items():
        kept = [row for row in rows if folder + row[0] not in taken]
        if kept:
            left[folder] = rows if len(kept) == len(rows) else kept
    return Entries(left)


def _one_per_role(items: list[Found], rejected: list[Rejected]) -> list[Found]:
    kept: dict[str, Found] = {item.role: item for item in items}
    if len(kept) == len(items):
        return items
    kept = {}
    for item in sorted(items, key=lambda item: (item.rank, item.entry.path)):
        first = kept.setdefault(item.role, item)
        if first is not item:
            message = f"{item.entry.path} is a second {item.role} beside {first.entry.path}"
            rejected.append(reject([item.entry], Reason.DUPLICATE, message, "keep one of them, or use a manifest"))
    return list(kept.values())


def _special(name: str, info: Mapping[str, Any], entry: Entry, root: str, rejected: list[Rejected]) -> Entry | None:
    """The file behind a symbolic link, or one that is no image; None for what is not to be read."""
    if not info.get("islink"):
        closed = os.path.isfile(name)
        if is_image(entry.path):
            message = (
                f"{entry.path} cannot be read (PermissionError)" if closed else f"{entry.path} is not a regular file"
            )
            remedy = "give the right to read it" if closed else "remove it from the archive"
            rejected.append(reject([entry], Reason.UNREADABLE, message, remedy))
            return None
        return entry if closed else None
    target = os.path.realpath(name)
    if os.path.commonpath([target, root]) != root:
        message = f"{entry.path} is a link that leaves the archive"
        kind = "folder" if os.path.isdir(target) else "file"
        rejected.append(reject([entry], Reason.UNSAFE_PATH, message, f"put a copy of the {kind} in its place"))
    elif os.path.isfile(target):
        status = os.stat(target)
        return entry._replace(bytes=status.st_size, modified=str(status.st_mtime))
    elif not os.path.exists(target):
        message = f"{entry.path} is a link to nothing"
        rejected.append(reject([entry], Reason.UNREADABLE, message, "fetch the file that it points to"))
    return None


def _version(info: Mapping[str, Any]) -> str:
    keys = ("ETag", "etag", "checksum", "mtime", "modification_time", "modified", "LastModified", "last_modified")
    return next((str(info[key]) for key in keys if info.get(key)), "")


def _is_local(fs: fsspec.AbstractFileSystem) -> bool:
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
