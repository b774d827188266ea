"""Folders in no known layout: names tell modality, mask, subject and session as far as they can.

Files of one folder whose names agree up to the modality form a scan: `study1_FLAIR`, `study1_T1W`; or `FLAIR`, `T1`.
The subject is what stands before the modality, or the folder. A file whose name tells no modality is a scan of its own,
its modality `image`. Folders such as `images` and `masks` say what files are and are left out of the subject.
"""

from collections.abc import Iterator, Mapping

from segpipe.errors import Reason
from segpipe.readers.archive import Archive, Claim, Entry, Found, gather, pairs, reject, stem
from segpipe.readers.names import IMAGE, MASK, is_mask_folder, is_role_folder, session, words


def claim(archive: Archive, entries: Mapping[str, Entry], named: bool) -> Claim:
    """A scan of every group of image files."""
    images, companions, rejected = pairs(entries)
    origin = archive.root.rstrip("/").rpartition("/")[2]
    found = [item for entry in images.values() for item in _understand(entry, origin)]
    kept, lost = _adopted(found)
    scans, refused = gather(kept, "plain", companions)
    taken = {*images, *(entry.path for pair in companions.values() for entry in pair)}
    return Claim(scans, rejected + lost + refused, taken)


def _understand(entry: Entry, origin: str) -> Iterator[Found]:
    parts = entry.folder.split("/") if entry.folder else []
    in_mask_folder = any(map(is_mask_folder, parts))
    parts = [part for part in parts if not is_role_folder(part)]
    name = words(stem(entry.name))
    if name is None:
        return
    role = MASK if in_mask_folder else (name.role or IMAGE)
    place = ("/".join(parts), name.before)
    visit, own = session(name.before)
    if visit is None and parts:
        visit, rest = session(parts[-1])
        parts = parts if rest == parts[-1] else [*parts[:-1], *([rest] if rest else [])]
    yield Found(place, _subject(parts, own, origin), visit or "1", role, entry)


def _subject(parts: list[str], own: str, origin: str) -> str:
    """Folder and own name together, where the one does not repeat the other."""
    folder = parts[-1] if parts else ""
    if not own:
        return folder or origin
    return own if not folder or own.startswith(folder) else f"{folder}_{own}"


def _adopted(found: list[Found]) -> tuple[list[Found], list]:
    """Masks that name no scan go to the only scan of their folder; where there are several, they are rejected."""
    with_image = {item.place for item in found if item.role != MASK}
    scans_of: dict[str, dict[object, Found]] = {}
    for item in found:
        if item.role != MASK:
            scans_of.setdefault(item.place[0], {})[item.place] = item  # type: ignore[index]
    kept, rejected = [], []
    for item in found:
        if item.role != MASK or item.place in with_image:
            kept.append(item)
            continue
        scans = list(scans_of.get(item.place[0], {}).values())  # type: ignore[index]
        if len(scans) == 1 and not item.place[1]:  # type: ignore[index]
            kept.append(item._replace(place=scans[0].place, subject=scans[0].subject, session=scans[0].session))
        elif scans:
            message = f"{item.entry.path} is a mask that names none of the {len(scans)} scans beside it"
            remedy = "name it like the images that it belongs to, or use a manifest"
            rejected.append(reject([item.entry], Reason.MASK_MISMATCH, message, remedy))
        else:
            kept.append(item)
    return kept, rejected
