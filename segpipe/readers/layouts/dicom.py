"""DICOM files in any folders: series by their headers, scans by their visit, people by a keyed hash.

A visit's series are recognised and one of each modality is selected (`segpipe.readers.series`); every other series is
told with its reason. Files are known to be DICOM by their content, whatever their names.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from typing import BinaryIO, NamedTuple

from segpipe.errors import BadInput, Reason, UsageError
from segpipe.readers import dicom_index, dicom_tags, inflate, packed, patients
from segpipe.readers.archive import (
    Archive,
    Claim,
    Entry,
    Rejected,
    ScanSource,
    SourceFile,
    is_image,
    kind_of,
    members,
    packed_file,
    reject,
    unreadable,
)
from segpipe.readers.dicom_files import careful
from segpipe.readers.dicom_index import Reducer, Series
from segpipe.readers.entries import Entries
from segpipe.readers.names import MASK, role_order
from segpipe.readers.naming import KEY_REMEDY
from segpipe.readers.series import OVERRIDE, SELECTED, Judged, Options, judge

_READERS = 16
_SAMPLE = 8  # files of an archive that are looked at to tell what it holds
_BLOCK = 1 << 14
_HEADER_LIMIT = 1 << 20  # of a gzipped file's header
_NO_DICOM = tuple(
    re.findall(
        r"\S+",
        ".json .tsv .csv .txt .md .bval .bvec .xml .html .pdf .png .jpg .jpeg .parquet .py .mat .npy .xlsx .docx",
    )
)


class Read(NamedTuple):
    """What came of some files: their series, what had to be rejected, and the paths that are DICOM."""

    series: list[Series]
    rejected: list[Rejected]
    taken: set[str]
    inside: Mapping[str, int] = {}


def claim(
    archive: Archive,
    entries: Mapping[str, Entry],
    named: bool,
    options: Options | None = None,
    reader: "Reader | None" = None,
) -> Claim:
    """Scans of all series, whose headers `reader` reads.

    Raises UsageError if the layout was `named` and there is no key to hash subjects with.
    """
    key = archive.subject_key
    if named and not key:
        raise UsageError("DICOM needs a key, because patients appear in tables as keyed hashes only", KEY_REMEDY)
    options = options or Options()
    found = (reader or read)(archive, candidates(Entries.of(entries).others()), key or b"none", options.overrides)
    if not key:
        rejected = [_without_key(one.entries()) for one in found.series]
        return Claim(rejected=found.rejected + rejected, taken=found.taken, inside=Counter(found.inside))
    return claimed(found, options)


def claimed(found: Read, options: Options) -> Claim:
    """A claim of what was read: the visits' scans, and every series with what became of it."""
    told = told_apart(found.series, _known(found.series, options))
    series = judge(found.series, options)
    scans, inside = list(_scans(series)), Counter(found.inside)
    return Claim(scans, found.rejected, found.taken, told=told, series=series, inside=inside)


def _known(series: Sequence[Series], options: Options) -> dict[str, str]:
    """The subject of each series whose scan is in the tables, as ingest or segment wrote it.

    A UID that two PatientIDs have tells neither. A day or an accession number tells a visit only where the ID tells a
    patient.
    """
    visits = options.visits()
    if not options.earlier and not visits:
        return {}
    owners: dict[str, set[str]] = {}
    for facts in (one.facts for one in series):
        for uid in (facts.series, facts.study):
            owners.setdefault(uid, set()).add(facts.subject)
    found = {}
    for facts in (one.facts for one in series):
        visit = (facts.study,) if facts.nameless else (facts.study, facts.accession, facts.day)
        segmented = next((visits[one] for one in visit if one is not None and one in visits), None)
        ingested = options.earlier.get(facts.series, ("", "", ""))[0]
        if ingested and (len(owners[facts.series]) == 1 or ingested == facts.subject):
            found[facts.series] = ingested
        elif segmented is not None and len(owners[facts.study]) == 1:
            found[facts.series] = segmented
    return found


def told_apart(series: Sequence[Series], earlier: Mapping[str, str]) -> list[str]:
    """Give series of people who share a PatientID subjects of their own; what is to be told of these.

    `earlier` gives the subject of each series that is in a scan already.
    """
    by_id: dict[str, list[Series]] = {}
    for one in series:
        by_id.setdefault(one.facts.subject, []).append(one)
    shared = patients.Shared()
    spelled = {(one.facts.spelled, subject) for subject, of in by_id.items() for one in of}
    for subject, of in by_id.items():
        studies: dict[str, patients.Study] = {}
        for one in of:
            study = studies.setdefault(one.facts.study, patients.Study(one.facts.study))
            study.add(one.facts.series, one.facts.person)
        nameless = any(one.facts.nameless for one in of)
        if len(studies) == 1 and not nameless:
            continue
        found, told = patients.subjects(subject, list(studies.values()), nameless, earlier)
        shared += told
        for one in of:
            if found[one.facts.study] != subject or nameless:
                one.facts = replace(one.facts, subject=found[one.facts.study], nameless=False)
    named = {(one.facts.who, one.facts.subject) for one in series}
    alike = patients.Shared(namesakes=_sharing(named), spelled=_sharing(spelled))
    return (shared + alike).sentences


def _sharing(marks: Iterable[tuple[str, str]]) -> int:
    """How many subjects share a mark with another; an empty one is none."""
    subjects: dict[str, set[str]] = {}
    for mark, subject in marks:
        if mark:
            subjects.setdefault(mark, set()).add(subject)
    return len(set().union(*(of for of in subjects.values() if len(of) > 1)))


def candidates(entries: Iterable[Entry]) -> list[Entry]:
    """Files that are worth a look: all but empty ones and those whose names say that they are something else."""
    return [
        entry
        for entry in entries
        if entry.bytes and not is_image(entry.path) and not entry.name.lower().endswith(_NO_DICOM)
    ]


Reader = Callable[[Archive, Sequence[Entry], bytes, Mapping[str, str]], Read]
"""Files, the key of their hashes and the site's own roles to series."""


def read(archive: Archive, entries: Collection[Entry], key: bytes, overrides: Mapping[str, str] | None = None) -> Read:
    """The series of some files; what is no DICOM image is left alone."""
    reducer = Reducer(key, overrides)
    rejected: list[Rejected] = []
    taken: set[str] = set()

    def take(entry: Entry, found: Looked) -> bool:
        if found is None:
            return False
        taken.add(entry.path)
        refused = found if isinstance(found, Rejected) else add(reducer, *found)
        if refused is not None:
            rejected.append(refused)
        return True

    plain = [entry for entry in entries if not packed.is_packed(entry.path)]
    with ThreadPoolExecutor(_READERS) as pool:
        for entry, found in zip(plain, pool.map(lambda entry: look(archive, entry), plain), strict=True):
            take(entry, found)
    inside: Counter[str] = Counter()
    for container in (entry for entry in entries if packed.is_packed(entry.path)):
        files, refused = members(archive, container)
        others = [file for file in files if not take(file, look(archive, file) if candidates([file]) else None)]
        if len(others) < len(files) or refused:
            taken.add(container.path)
            rejected += refused
            rejected += [_image_inside(file) for file in others if is_image(file.path)]
            inside += Counter(kind_of(file.path) for file in others if not is_image(file.path))
    return Read(reducer.series(), rejected, taken, inside)


def _image_inside(entry: Entry) -> Rejected:
    message = f"{entry.path} is an image in an archive"
    return reject([entry], Reason.UNSUPPORTED, message, "unpack the archive", is_dicom=True)


def is_dicom(archive: Archive, entry: Entry) -> bool:
    """Whether a file, or one of the first in an archive, is DICOM; of damaged ones that it may be."""
    if not packed.is_packed(entry.path):
        return look(archive, entry) is not None
    try:
        names = packed.opened(archive.fs, archive.root, entry.path).first(_SAMPLE)
    except (BadInput, OSError):
        return False
    inside = [Entry(f"{entry.path}{packed.MARK}{name}", 1, "") for name in names]
    return any(look(archive, one) is not None for one in candidates(inside))


Looked = tuple[dicom_index.Header, BinaryIO | None] | Rejected | None
"""A header, with the start of the file where its facts stand in sequences; a rejection; None for what is no DICOM."""


def look(archive: Archive, entry: Entry) -> Looked:
    """The header of a file; a rejection if it is a broken DICOM file, None if it is no DICOM file or shows no image."""
    try:
        if packed.split(entry.path) is None:
            return _header(archive, entry)
        with careful(entry.path):  # unpacking may fail at any byte
            return _header(archive, entry)
    except BadInput as error:
        return reject([entry], error.reason, error.problem, error.remedy, is_dicom=True)
    except OSError as error:
        return unreadable(archive, entry, error)
    except Exception as error:
        return _crashed(entry, error)


def _crashed(entry: Entry, error: Exception) -> Rejected:
    """The rejection of a file that nobody was prepared for: no header stops an archive, or is quoted."""
    message = f"{entry.path} made its reader fail ({type(error).__name__})"
    return reject([entry], Reason.CRASHED, message, "report this as a bug of segpipe, with the file", is_dicom=True)


def add(reducer: Reducer, header: dicom_index.Header, content: BinaryIO | None) -> Rejected | None:
    """Put a header among those of its series; a rejection of a broken file, and of one that is there already."""
    entry = header.entry
    try:
        first = reducer.add(header, content)
    except BadInput as error:
        return reject([entry], error.reason, error.problem, error.remedy, is_dicom=True)
    except Exception as error:
        return _crashed(entry, error)
    return None if first is None else copy_of(first, entry)


def copy_of(first: Entry, entry: Entry) -> Rejected:
    """The rejection of a file whose image another has."""
    message = f"{entry.path} is the same DICOM image as {first.path}"
    return reject([entry], Reason.DUPLICATE, message, "remove one of them", True, (first.path,))


def one_series(archive: Archive, below: Collection[Entry], folder: str) -> "tuple[Entry, ...] | Rejected":
    """The files of the only series among those `below` a folder, in order of their paths; a rejection otherwise.

    For archives whose manifest names the subject: the patient of the header is not looked at.
    """
    found = read(archive, candidates(below), b"none")
    if found.rejected:
        first, more = found.rejected[0], len(found.rejected) - 1
        told = f"{first.message}; {more} more in {folder} cannot be used"
        return replace(first, message=told, others=(*first.others, folder)) if more else first
    names = {one.facts.series.partition("-")[0] for one in found.series}
    if len(names) != 1:
        message = f"{folder} holds {len(names)} DICOM series"
        remedy = "name a folder that holds one series and no other"
        return reject(below, Reason.UNSUPPORTED, message, remedy, is_dicom=True, others=(folder,))
    return tuple(sorted(entry for one in found.series for entry in one.entries()))


def _without_key(entries: list[Entry]) -> Rejected:
    message = f"{min(entries).path} and its series are DICOM, and there is no key to hash the patient with"
    return reject(entries, Reason.UNSUPPORTED, message, KEY_REMEDY, is_dicom=True)


def _header(archive: Archive, entry: Entry) -> tuple[dicom_index.Header, BinaryIO | None] | None:
    """The header of a file, with the start of its content where its facts stand in sequences."""
    with archive.open(entry.path, _BLOCK) as file:
        start: bytes | None = file.read(dicom_tags.FIRST)
        if start is not None and inflate.is_gzip(start):
            packed_start = start + file.read(_HEADER_LIMIT - dicom_tags.FIRST)
            file, start = BytesIO(inflate.up_to(packed_start, _HEADER_LIMIT, entry.path)[0]), None
        header = dicom_index.header(file, entry, start)
        if header is None:
            return None
        if not header.has_sequences:
            return header, None
        file.seek(0)
        return header, BytesIO(file.read(dicom_tags.MOST_HEADER))


def _scans(series: Iterable[Judged]) -> Iterator[ScanSource]:
    visits: dict[tuple[str, str], list[Judged]] = {}
    for one in series:
        if one.decision in (SELECTED, OVERRIDE) and one.role is not None:
            visits.setdefault((one.facts.subject, one.session), []).append(one)
    for (subject, session), of in visits.items():
        if any(one.role != MASK for one in of):
            of.sort(key=lambda one: role_order(one.role or ""))
            yield ScanSource(subject, session, tuple(_file(one, of) for one in of), "dicom")


def _file(one: Judged, visit: Sequence[Judged]) -> SourceFile:
    packed_series = packed_file(one.role or "", one.series.entries())
    return packed_series._replace(volume=one.volume, drawn_on=_drawn_on(one, visit))


def _drawn_on(mask: Judged, visit: Sequence[Judged]) -> str | None:
    """The modality whose series a SEG object refers to; None if it is no SEG, or refers to several."""
    found = [one.role for one in visit if one.facts.series.partition("-")[0] in mask.facts.refers_to]
    return found[0] if len(found) == 1 else None
