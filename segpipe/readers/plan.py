"""What ingest would make of an archive, as lines to read."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from segpipe.readers.archive import ScanSource
from segpipe.readers.names import MASK, role_order
from segpipe.readers.naming import Naming
from segpipe.readers.sources import Listing

_SHOWN = 20


def lines(listing: Listing, naming: Naming) -> list[str]:
    """Subjects, sessions and roles of a listing, how many of each, and what cannot be used."""
    by_subject: dict[str, list[ScanSource]] = defaultdict(list)
    for scan in listing.scans:
        by_subject[scan.subject].append(scan)
    layouts = _counts(scan.layout for scan in listing.scans)
    told = [f"subjects {len(by_subject)}, scans {len(listing.scans)}" + (f" ({layouts})" if layouts else "")]
    sessions = Counter(len(scans) for scans in by_subject.values())
    if sessions:
        several = (f"{number} (subjects {count})" for number, count in sorted(sessions.items()))
        told.append(f"  sessions of a subject: {', '.join(several)}")
    roles = Counter(file.role for scan in listing.scans for file in scan.files)
    if roles:
        told.append("  " + ", ".join(f"{role} {roles[role]}" for role in sorted(roles, key=role_order)))
    masked = [scan.label_convention or "told by all masks" for scan in listing.scans if scan.files[-1].role == MASK]
    if masked:
        told.append(f"  meaning of the masks' labels: {_counts(masked)}")
    for subject in list(by_subject)[:_SHOWN]:
        visits = (f"{s.session} ({' '.join(file.role for file in s.files)})" for s in by_subject[subject])
        told.append(f"  {subject}: {', '.join(visits)}")
    if len(by_subject) > _SHOWN:
        told.append(f"  … and {len(by_subject) - _SHOWN} more subjects")
    if listing.rejected:
        told.append(f"quarantine {len(listing.rejected)}: {_counts(one.reason for one in listing.rejected)}")
    for one in listing.rejected[:_SHOWN]:
        message = naming.message(f"{one.message}: {one.remedy}", one.named, one.is_dicom)
        told.append(f"  {one.reason}: {message}")
    if listing.kinds:
        told.append(ignored_line(listing))
    return [*told, *listing.told]


def ignored_line(listing: Listing) -> str:
    """The files that are in no scan and no rejection, by kind: `ignored 12: 9 .txt, 3 .json`."""
    kinds = sorted(listing.kinds.items(), key=lambda item: (-item[1], item[0]))
    return f"ignored {listing.ignored}: " + ", ".join(f"{number} {kind}" for kind, number in kinds)


def _counts(words: Iterable[str]) -> str:
    return ", ".join(f"{word} {number}" for word, number in sorted(Counter(words).items()))
