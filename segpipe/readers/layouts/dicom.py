"""DICOM files in any folders: series by their UID, scans by their study, people by a keyed hash.

Series of one study whose words tell a modality form a scan together. A series whose words tell none, or the same as
another of its study, is a scan of its own: nothing is lost, and nothing is mixed up.
"""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO

from segpipe.errors import BadInput, Reason, UsageError
from segpipe.readers import dicom, inflate
from segpipe.readers.archive import (
    Archive,
    Claim,
    Entry,
    Rejected,
    ScanSource,
    SourceFile,
    is_image,
    reject,
    source_file,
)
from segpipe.readers.names import IMAGE, role_order
from segpipe.readers.naming import KEY_REMEDY

# By subject, session and UID of the series: header and file of each instance.
_Series = dict[tuple[str, str, str], dict[str, tuple[dicom.Header, Entry]]]

_READERS = 16
_BLOCK = 1 << 14
_HEADER_LIMIT = 1 << 20  # of a gzipped file's header


def claim(archive: Archive, entries: Mapping[str, Entry], named: bool) -> Claim:
    """Scans of all series. Raises UsageError where the layout was `named` and there is no key to hash subjects with."""
    key = archive.subject_key
    if named and not key:
        raise UsageError("DICOM needs a key, for patients appear in tables as keyed hashes only", KEY_REMEDY)
    result, series = _sorted(archive, entries.values(), key or b"none")
    if key:
        result.scans = list(_scans(series))
    else:
        result.rejected += [_without_key([entry for _, entry in files.values()]) for files in series.values()]
    return result


def one_series(archive: Archive, below: Collection[Entry], folder: str) -> "tuple[Entry, ...] | Rejected":
    """The files of the only series among those `below` a folder, in order of their paths; a rejection otherwise.

    For archives whose manifest names the subject: the patient of the header is not looked at.
    """
    claimed, series = _sorted(archive, below, b"none")
    if claimed.rejected:
        first, more = claimed.rejected[0], len(claimed.rejected) - 1
        told = f"{first.message}; {more} more in {folder} cannot be used"
        return replace(first, message=told, others=(*first.others, folder)) if more else first
    if len(series) != 1:
        message = f"{folder} holds {len(series)} DICOM series"
        remedy = "name a folder that holds one series and no other"
        return reject(below, Reason.UNSUPPORTED, message, remedy, is_dicom=True, others=(folder,))
    (files,) = series.values()
    return tuple(sorted(entry for _, entry in files.values()))


def _sorted(archive: Archive, entries: Collection[Entry], key: bytes) -> tuple[Claim, _Series]:
    """All series, and a claim of their files with what had to be rejected."""
    result = Claim()
    candidates = [e for e in entries if dicom.may_be_dicom(e.name) and not is_image(e.path) and e.bytes]
    with ThreadPoolExecutor(_READERS) as pool:
        headers = list(pool.map(lambda entry: _header(archive, entry, key), candidates))
    series: _Series = {}
    for entry, header in zip(candidates, headers, strict=True):
        if header is None:
            continue
        result.taken.add(entry.path)
        if isinstance(header, Rejected):
            result.rejected.append(header)
            continue
        files = series.setdefault((header.subject, header.session, header.series), {})
        first = files.setdefault(header.instance, (header, entry))
        if first[1] is not entry:
            message = f"{entry.path} is the same DICOM image as {first[1].path}"
            others = (first[1].path,)
            twice = reject([entry], Reason.DUPLICATE, message, "remove one of them", is_dicom=True, others=others)
            result.rejected.append(twice)
    return result, series


def _without_key(entries: list[Entry]) -> Rejected:
    message = f"{min(entries).path} and its series are DICOM, and there is no key to hash the patient with"
    return reject(entries, Reason.UNSUPPORTED, message, KEY_REMEDY, is_dicom=True)


def _header(archive: Archive, entry: Entry, key: bytes) -> "dicom.Header | Rejected | None":
    fallback = f"folder {entry.folder}"
    try:
        with archive.open(entry.path, _BLOCK) as file:
            if not inflate.is_gzip(file.read(2)):
                file.seek(0)
                return dicom.header(file, key, entry.path, fallback)
            file.seek(0)
            start = inflate.up_to(file.read(_HEADER_LIMIT), _HEADER_LIMIT, entry.path)[0]
            return dicom.header(BytesIO(start), key, entry.path, fallback)
    except BadInput as error:
        return reject([entry], error.reason, error.problem, error.remedy, is_dicom=True)
    except (PermissionError, FileNotFoundError):
        message = f"{entry.path} cannot be read"
        return reject([entry], Reason.UNREADABLE, message, "check that it exists and its rights", is_dicom=True)


def _scans(series: _Series) -> Iterator[ScanSource]:
    studies: dict[tuple[str, str], dict[str, list[tuple[str, SourceFile]]]] = {}
    for (subject, session, uid), files in series.items():
        role = min((header.role for header, _ in files.values()), key=role_order)
        file = source_file(role, sorted(entry for _, entry in files.values()))
        studies.setdefault((subject, session), {}).setdefault(role, []).append((uid, file))
    for (subject, session), roles in studies.items():
        together = [found[0][1] for role, found in roles.items() if role != IMAGE and len(found) == 1]
        alone = [item for role, found in roles.items() if role == IMAGE or len(found) > 1 for item in found]
        if together:
            together.sort(key=lambda file: role_order(file.role))
            yield ScanSource(subject, session, tuple(together), "dicom")
        for uid, file in alone:
            yield ScanSource(subject, f"{session}-{uid[:8]}", (file,), "dicom")
