"""DICOM files in any folders: series by their UID, scans by their study, people by a keyed hash.

Series of one study whose words tell a modality form a scan together. A series whose words tell none, or the same as
another of its study, is a scan of its own: nothing is lost, and nothing is mixed up.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

from segpipe.errors import BadInput, Reason, UsageError
from segpipe.readers import dicom, inflate
from segpipe.readers.archive import Archive, Claim, Entry, Rejected, ScanSource, SourceFile, is_image, reject
from segpipe.readers.names import IMAGE, role_order

KEY_VARIABLE = "SEGPIPE_SUBJECT_KEY"

_READERS = 16
_BLOCK = 1 << 14
_HEADER_LIMIT = 1 << 20  # of a gzipped file's header
_REMEDY = f"set {KEY_VARIABLE} to a secret and keep it: a patient keeps the same name as long as it stays"
_REMEDY = (
    f"set {KEY_VARIABLE} to a secret of your own and keep it: the same patient gets the same name as long as it stays"
)


def claim(archive: Archive, entries: Mapping[str, Entry], named: bool) -> Claim:
    """Scans of all series. Raises UsageError where the layout was `named` and there is no key to hash subjects with."""
    result = Claim()
    candidates = [e for e in entries.values() if dicom.may_be_dicom(e.name) and not is_image(e.path) and e.bytes]
    key = archive.subject_key
    if named and not key:
        raise UsageError("DICOM needs a key, for patients appear in tables as keyed hashes only", _REMEDY)
    with ThreadPoolExecutor(_READERS) as pool:
        headers = list(pool.map(lambda entry: _header(archive, entry, key or b"none"), candidates))
    series: dict[tuple[str, str, str], dict[str, tuple[dicom.Header, Entry]]] = {}
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
            result.rejected.append(reject([entry], Reason.DUPLICATE, message, "remove one of them"))
    if key:
        result.scans = list(_scans(series))
    else:
        result.rejected += [_without_key([entry for _, entry in files.values()]) for files in series.values()]
    return result


def _without_key(entries: list[Entry]) -> Rejected:
    message = f"{min(entries).path} and its series are DICOM, and there is no key to hash the patient with"
    return reject(entries, Reason.UNSUPPORTED, message, _REMEDY)


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
        return reject([entry], error.reason, error.problem, error.remedy)
    except (PermissionError, FileNotFoundError):
        return reject([entry], Reason.UNREADABLE, f"{entry.path} cannot be read", "check that it exists and its rights")


def _scans(series: Mapping[tuple[str, str, str], dict[str, tuple[dicom.Header, Entry]]]) -> Iterator[ScanSource]:
    studies: dict[tuple[str, str], dict[str, list[tuple[str, SourceFile]]]] = {}
    for (subject, session, uid), files in series.items():
        role = min((header.role for header, _ in files.values()), key=role_order)
        file = _source_file(role, sorted(entry for _, entry in files.values()))
        studies.setdefault((subject, session), {}).setdefault(role, []).append((uid, file))
    for (subject, session), roles in studies.items():
        together = [found[0][1] for role, found in roles.items() if role != IMAGE and len(found) == 1]
        alone = [item for role, found in roles.items() if role == IMAGE or len(found) > 1 for item in found]
        if together:
            together.sort(key=lambda file: role_order(file.role))
            yield ScanSource(subject, session, tuple(together), "dicom")
        for uid, file in alone:
            yield ScanSource(subject, f"{session}-{uid[:8]}", (file,), "dicom")


def _source_file(role: str, entries: Sequence[Entry]) -> SourceFile:
    return SourceFile(
        role=role,
        path=entries[0].path,
        bytes=sum(entry.bytes for entry in entries),
        modified=";".join(sorted({entry.modified for entry in entries})),
        companion="\n".join(entry.path for entry in entries[1:]) or None,
    )
