"""What a keyed hash stands for, for who has the archive and the key: `locate`."""

from collections.abc import Iterator

from segpipe.readers.archive import Archive, members, walk
from segpipe.readers.naming import SubjectKey
from segpipe.readers.packed import is_packed
from segpipe.readers.sources import find, open_root

_PATH_DIGITS = 32


def locate(source_url: str, token: str, key: SubjectKey, layout: str = "auto") -> list[str]:
    """The files, relative to the source, that a keyed path, subject, scan_id, series_id or text_hash stands for.

    Of a text_hash, the first file of each series that says this text. None where it is unknown. For a path names are
    enough; for all others the headers of DICOM files are read.
    """
    wanted = token.removeprefix("keyed/").partition(".")[0]
    if len(wanted) == _PATH_DIGITS:
        fs, root, _ = open_root(source_url)
        entries, rejected = walk(fs, root)
        archive = Archive(fs, root, entries, key.secret)
        inside = [one for entry in entries.values() if is_packed(entry.path) for one in members(archive, entry)[0]]
        paths = {*entries, *(one.path for one in inside), *(path for one in rejected for path in one.paths)}
        return sorted(path for path in {one for path in paths for one in _with_folders(path)} if _is(key, path, wanted))
    *_, subject, session = token.split(":") if ":" in token else (token, None)
    found: set[str] = set()
    for hashed in (False, True):
        listing = find(source_url, layout, key.secret, hashed)
        for scan in listing.scans:
            if scan.subject == subject and session in (None, scan.session):
                found |= set(scan.paths)
        for one in (judged.series for judged in listing.series):
            if one.facts.series == token:
                found |= {entry.path for entry in one.entries()}
            elif one.facts.text == token:
                found.add(one.first)
    return sorted(found)


def _is(key: SubjectKey, path: str, wanted: str) -> bool:
    return key.path(path).removeprefix("keyed/").partition(".")[0] == wanted


def _with_folders(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]
