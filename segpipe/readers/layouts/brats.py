"""BraTS archives: `<id>_flair|t1|t1ce|t2|seg` of 2018 to 2021, `<id>-<timepoint>-t2f|t1n|t1c|t2w|seg` since 2023."""

import re
from collections.abc import Iterator, Mapping

from segpipe.readers.archive import Archive, Claim, Entry, Found, gather, pairs
from segpipe.readers.names import MASK

_OLD = re.compile(r"(?P<subject>.+)_(?P<role>flair|t1|t1ce|t2|seg)\.nii(?:\.gz)?")
_NEW = re.compile(r"(?P<subject>.+)-(?P<session>\d{3})-(?P<role>t2f|t1n|t1c|t2w|seg)\.nii(?:\.gz)?")
_STRAY_MASK = re.compile(r".*_Segm\.nii(?:\.gz)?")  # BraTS 2020, case 355: named unlike all others
_ROLES = {
    **{"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2", "seg": MASK},
    **{"t2f": "FLAIR", "t1n": "T1", "t1c": "T1ce", "t2w": "T2"},
}


def claim(archive: Archive, entries: Mapping[str, Entry], named: bool) -> Claim:
    """Scans of all BraTS cases; a case is called BraTS… or has its own folder, unless the layout was `named`."""
    images, companions, _ = pairs(entries)
    found = [item for entry in images.values() for item in _understand(entry, named)]
    scans, rejected = gather(found, "brats", companions)
    return Claim(scans, rejected, {item.entry.path for item in found})


def _understand(entry: Entry, named: bool) -> Iterator[Found]:
    folder = entry.folder.rpartition("/")[2]
    for pattern, convention in ((_NEW, "brats2023"), (_OLD, "brats")):
        if match := pattern.fullmatch(entry.name):
            case = match[0][: match.start("role") - 1]
            if named or case == folder or case.lower().startswith("brats"):
                session = match.groupdict().get("session") or "1"
                role = _ROLES[match["role"]]
                yield Found(entry.folder, match["subject"], session, role, entry, 0, convention)
            return
    if folder.lower().startswith("brats") and _STRAY_MASK.fullmatch(entry.name):
        yield Found(entry.folder, folder, "1", MASK, entry, 0, "brats")
