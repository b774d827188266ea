"""Medical Segmentation Decathlon (Antonelli et al. 2022, arXiv 2106.05735) and nnU-Net raw data sets.

A folder with `dataset.json`, which names channels and labels, `imagesTr`, `imagesTs` and `labelsTr`. The Decathlon
keeps all channels of a case in one 4D file, nnU-Net in one file each, `<case>_0000`, `<case>_0001`, …
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from segpipe.core.regions import LabelConvention
from segpipe.errors import Reason
from segpipe.readers.archive import Archive, Claim, Entry, Found, gather, is_safe_name, pairs, reject, stem, unreadable
from segpipe.readers.chains import Use
from segpipe.readers.entries import Entries
from segpipe.readers.labels import word_of as _word
from segpipe.readers.names import IMAGE, MASK, Cut, cut, has_digit, modality
from segpipe.readers.people import people

_PARTS = ("imagesTr", "imagesTs", "imagesVal", "labelsTr", "labelsTs", "labelsVal")
_NNUNET = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_LARGEST_JSON = 1 << 26
_KINDS = {
    "oedema": re.compile(r"o?edema|snfh|^ed$", re.IGNORECASE),
    "core": re.compile(r"necro|ncr|net|non.?enhanc", re.IGNORECASE),
    "enhancing": re.compile(r"enhanc|^et$", re.IGNORECASE),
}
_AROUND = {
    "oedema": re.compile(r"whole|complete|^wt$", re.IGNORECASE),
    "core": re.compile(r"core|^tc$", re.IGNORECASE),
}
_MOST_LABELS = 8  # more are a parcellation of the brain
_CONVENTIONS: dict[tuple[tuple[int, str], ...], str] = {
    ((1, "oedema"), (2, "core"), (3, "enhancing")): "decathlon",
    ((1, "core"), (2, "oedema"), (3, "enhancing")): "brats2023",
    ((1, "core"), (2, "oedema"), (4, "enhancing")): "brats",
}


@dataclass(frozen=True)
class _Dataset:
    """What `dataset.json` says: names of the channels in order, and the convention of the labels."""

    channels: tuple[str, ...]
    convention: str


def claim(archive: Archive, entries: Mapping[str, Entry], named: bool) -> Claim:
    """Scans of every folder with a `dataset.json` that names channels."""
    result = Claim()
    taken: set[str] = set()
    descriptions = [entry for entry in Entries.of(entries).others() if entry.path.endswith("dataset.json")]
    inside = _by_folder(entries) if descriptions else {}
    for description in descriptions:
        below = {e.path: e for part in _PARTS for e in inside.get(f"{description.folder}/{part}".lstrip("/"), ())}
        if description.name != "dataset.json" or not below:
            continue
        taken |= {description.path, *below}
        try:
            dataset = _read(archive, description)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            message = f"{description.path} does not describe its images ({type(error).__name__})"
            remedy = "repair its keys `modality` and `labels`"
            result.rejected.append(reject([description, *below.values()], Reason.CORRUPT, message, remedy))
            continue
        except OSError as error:
            result.rejected.append(unreadable(archive, description, error, below.values(), is_dicom=False))
            continue
        images, companions, lonely = pairs(below)
        found = [item for entry in images.values() for item in _understand(description, entry, dataset)]
        visits, told = _visits({item.subject for item in found})
        found = [item._replace(subject=visits[item.subject][0], session=visits[item.subject][1]) for item in found]
        result.told += told
        scans, rejected = gather(found, "decathlon", companions)
        result.scans += scans
        result.rejected += lonely + rejected
    result.taken = taken
    return result


def _by_folder(entries: Mapping[str, Entry]) -> dict[str, list[Entry]]:
    """The files of each folder that may belong to a data set, so that many data sets are not each sought in all."""
    inside: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries.values():
        folder = entry.folder
        if folder.endswith(_PARTS):
            inside[folder].append(entry)
    return inside


def _visits(cases: Collection[str]) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Subject and session of each case, and readings of their names that could be others.

    >>> _visits(["P07_baseline", "P07_month06", "P08_baseline"])[0]["P07_month06"], _visits(["BRATS_001"])[0]
    (('P07', 'month06'), {'BRATS_001': ('BRATS_001', '1')})
    """
    parts = {case: cut(case) for case in cases}
    named = {case: one if has_digit(one.text) else Cut(case, (), "", "") for case, one in parts.items()}
    persons, told = people(
        {(one.text,): Use(frozenset({IMAGE}), visits=frozenset({one.visits})) for one in named.values()}
    )
    found = {}
    for case, one in named.items():
        person = persons[(one.text,)]
        found[case] = person.name, "_".join(filter(None, (person.visit, person.label, *one.visits))) or "1"
    counts = Counter(found.values())  # `P1_T1` and `P1_T2`: what describes a file elsewhere tells visits here
    found = {case: (one[0], f"{one[1]}_{named[case].tail}") if counts[one] > 1 else one for case, one in found.items()}
    counts = Counter(found.values())
    return {case: (case, "1") if counts[one] > 1 else one for case, one in found.items()}, told


def convention_of_labels(labels: Mapping[str, object]) -> str:
    """The convention that named labels follow: number -> name as in the Decathlon, or name -> number as in nnU-Net.

    >>> convention_of_labels({"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"})
    'decathlon'

    nnU-Net's regions, name -> numbers, are read likewise. Labels of no known convention make one of their own, each a
    region by itself; `other`, whose masks are quarantined, where that cannot be.
    """
    named: dict[int, str] = {}
    regions: dict[str, tuple[int, ...]] = {}
    for key, value in labels.items():
        number, name = (key, value) if str(key).isdecimal() else (value, key)
        numbers = tuple(map(int, number)) if isinstance(number, list) else (int(str(number)),)
        if numbers != (0,):
            regions[_word(name)] = numbers
    for name, numbers in sorted(regions.items(), key=lambda region: -len(region[1])):
        named |= dict.fromkeys(numbers, name)  # the smallest region that a number is in says what it is
    if set(named) == {1}:
        return "binary"
    kinds = tuple((number, _kind(name, regions)) for number, name in sorted(named.items()))
    return _CONVENTIONS.get(kinds) or _own(named, regions)


def _kind(name: str, regions: Mapping[str, tuple[int, ...]]) -> str:
    """What a label is of a tumour; that of a region around others is what these leave over."""
    if len(regions[name]) > 1:
        return next((kind for kind, pattern in _AROUND.items() if pattern.search(name)), name)
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(name)), name)


def _own(named: Mapping[int, str], regions: Mapping[str, tuple[int, ...]]) -> str:
    """The line that describes a convention of the data set's own."""
    if not 0 < len(named) <= _MOST_LABELS:
        return "other"
    outermost_first = dict(sorted(regions.items(), key=lambda region: -len(region[1])))
    try:
        return LabelConvention("dataset", dict(named), outermost_first).text
    except ValueError:
        return "other"


def _read(archive: Archive, description: Entry) -> _Dataset:
    if description.bytes > _LARGEST_JSON:
        raise ValueError("too large")
    content = json.loads(archive.read(description.path))
    channels = content.get("channel_names") or content["modality"]
    ordered = sorted((int(number), str(name)) for number, name in channels.items())
    if not ordered or [number for number, _ in ordered] != list(range(len(ordered))):
        raise ValueError("channels are not numbered from 0")
    names = [modality(name) or name or IMAGE for _, name in ordered]
    if len(set(names)) < len(names) or MASK in names:
        raise ValueError("channels share a name")
    if not all(map(is_safe_name, names)):
        raise ValueError("a channel has no usable name")
    return _Dataset(tuple(names), convention_of_labels(content.get("labels") or {}))


def _understand(description: Entry, entry: Entry, dataset: _Dataset) -> Iterator[Found]:
    case, place = stem(entry.name), description.path
    if entry.folder.rpartition("/")[2].startswith("labels"):
        yield Found(place, case, "1", MASK, entry, 0, dataset.convention)
        return
    single = _NNUNET.fullmatch(case)
    if single and int(single["channel"]) < len(dataset.channels):
        yield Found(place, single["case"], "1", dataset.channels[int(single["channel"])], entry)
        return
    for channel, name in enumerate(dataset.channels):
        yield Found(place, case, "1", name, entry, channel)
