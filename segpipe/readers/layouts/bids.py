"""Brain Imaging Data Structure (bids-specification.readthedocs.io), as people have it: `sub-…[_ses-…]_…_<suffix>`.

A file belongs to BIDS where a folder or the beginning of its name is `sub-…`. The subject and session are those of the
folders, or of the name where there are none; labels may have dashes and underscores, and other words for visits stand
for sessions. Images are raw, in `anat` or no folder of a data type; those of derivatives are taken where a subject has
no others. Masks have a suffix or an entity of masks and no word of the brain or of tissues; one in the space of its
image comes first.
"""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from segpipe.readers.archive import (
    Archive,
    Claim,
    Companions,
    Entry,
    Found,
    ScanSource,
    gather,
    is_image,
    pairs,
    stem,
)
from segpipe.readers.chains import examples
from segpipe.readers.entries import Entries
from segpipe.readers.labels import convention_by_name
from segpipe.readers.names import (
    BRAIN,
    MASK,
    MODALITIES,
    VISIT_LETTER,
    Said,
    describe,
    is_copy,
    is_map_of,
    is_mask_word,
    is_site,
    kind_of,
    may_be_a_visit,
    modality,
    take_visits,
)
from segpipe.readers.recognise import recognise

_SES = r"ses(?:s|sion)?"
_SUBJECT, _SESSION = re.compile(r"sub-.+", re.IGNORECASE), re.compile(rf"{_SES}-.+", re.IGNORECASE)
_FOLDER = re.compile(rf"(?P<subject>sub-.+?)(?:_(?P<session>{_SES}-.+?))?(?:\.long\..+)?", re.IGNORECASE)
_COUNTED = r"[^_]*[^\W\d_]_\d+(?=_)"  # `HUG_21`, `month_3`; of `01_21` nobody knows what the number is
_FLAT = re.compile(
    rf"(?P<subject>sub-(?:{_COUNTED}|.+?))(?:_(?P<session>{_SES}-(?:{_COUNTED}|.+?)))?"
    rf"(?P<rest>(?:_(?!{_SES}-)(?:[a-zA-Z0-9]+-[^_]*|[^_\-]+))*_[^_]+)",
    re.IGNORECASE,
)
_EXAM = re.compile(r"(?<![^\W_])(mri?|mrt|irm)[_\-. ](?=\d{1,2}(?![^\W_]))", re.IGNORECASE)  # `MRI_4` is `MRI4`
_SESSION_START = re.compile(rf"({_SES}-(?:{_COUNTED}|[^_]+(?:_(?![^_]*-)[^_]+(?=_[^_]*[-_]))*))_?", re.IGNORECASE)
_ENTITY = re.compile(r"(?P<key>[a-zA-Z]+)-(?P<value>.+)")
_DATATYPES = (
    "func",
    "dwi",
    "fmap",
    "perf",
    "eeg",
    "meg",
    "ieeg",
    "pet",
    "beh",
    "motion",
    "nirs",
    "micr",
    "mrs",
    "figures",
    "log",
)
_DERIVED = re.compile(r"derivatives?|derived|fmriprep|freesurfer|preproc\w*|processed", re.IGNORECASE)
_ROOTS = re.compile(r"rawdata|sourcedata|bids|raw|derivatives", re.IGNORECASE)
_MASK_KEYS = ("lesion", "lesions", "seg", "mask", "label", "roi")
_DRAWN_KEYS = ("lesion", "lesions", "seg", "roi")  # these say so before an image's suffix too: `lesions-manual_T2w`
_NO_LESION = re.compile(
    r"brain|aseg|aparc|carve|tissue|skull|head|face|cord|disc|gmseg|^(?:gm|wm|csf|(?:hd-?)?bet|pv[e0-9]*|ribbon|[lr]h)$",
    re.IGNORECASE,
)
_LESION = re.compile(
    r"lesion|tumou?r|glioma|manual|expert|consensus|wmh|truth|stroke|infarct|metast|gtv", re.IGNORECASE
)
_WITHOUT = re.findall(r"\w+", "none no n na pre without non native 0 off false ohne sans senza sin sem zonder")
_NATIVE = "native"
_SPACES = re.compile(r"orig|individual|native|t1w?|t2w?|flair|subject|scanner|anat", re.IGNORECASE)
_UNIFORM = {"unit1": "T1"}
_OWN_NAME = ("mp2rage", "flash", "t2starw", "t2star", "inplanet1", "inplanet2")  # suffixes that say no weight of ours
_SUFFIX = re.compile(r"(?:T[12]|PD|PDT2|T2star)w|(?:T[12]|T2star)(?:map|rho)|UNIT1|MP2RAGE|inplaneT[12]", re.IGNORECASE)
_DESCRIPTION = re.compile(r"(?:.*/)?(?:dataset_description\.json|participants\.tsv)")
_TEMPLATE = re.compile(r"tpl-[^_/]+(?:_.+)?", re.IGNORECASE)


@dataclass(frozen=True)
class _Name:
    """A file's name as BIDS means it."""

    entry: Entry
    root: str
    subject: str
    session: str
    inside: str  # the first folder below the subject's
    datatype: str
    derived: bool
    pipeline: str
    entities: Mapping[str, str]
    words: tuple[str, ...]
    suffix: str
    said: Said | None = None  # what a name tells that is none of BIDS, as `sub-01/t1_reg`

    @property
    def space(self) -> str:
        space = self.entities.get("space", _NATIVE)
        return _NATIVE if _SPACES.fullmatch(space) else space


def claim(archive: Archive, entries: Mapping[str, Entry], named: bool) -> Claim:
    """Scans of every BIDS data set; its functional, diffusion and derived images are counted."""
    marked = list(Entries.of(entries).naming(("sub-", "tpl-")))
    templates = {entry.path: "BIDS template" for entry in marked if "tpl-" in entry.path and _is_template(entry)}
    images, companions, _ = pairs({entry.path: entry for entry in marked if "sub-" in entry.path.lower()})
    names = [name for entry in images.values() if (name := _parse(entry)) is not None]
    beside: dict[str, set[str]] = defaultdict(set)
    for name in names:
        beside[name.subject].add(stem(name.entry.name))
    used = any(_image_role(name) or _mask_role(name) for name in names)
    if not used or not (named or any(map(_follows_bids, names)) or any(map(_DESCRIPTION.fullmatch, entries))):
        return Claim(taken={*templates}, ignored=templates)
    maps = [name for name in names if is_map_of(stem(name.entry.name), beside[name.subject])]
    made = {name.entry.path for name in maps}
    datasets = _datasets(archive, entries)
    names = _visited_by_folder(_shown(names))
    found, ignored, told = _understood([name for name in names if name.entry.path not in made], datasets)
    ignored |= {name.entry.path: BRAIN for name in maps}
    scans, rejected = gather(found, "bids", companions)
    scans = [scan if scan.files[-1].role != MASK else _with_convention(scan) for scan in scans]
    taken = {path for name in names for path in (name.entry.path, *_others(name.entry, companions))}
    return Claim(scans, rejected, taken | templates.keys(), templates | ignored, told)


def _follows_bids(name: _Name) -> bool:
    """Whether a folder, an entity or the suffix is of BIDS: elsewhere `sub-01` is a name as others are."""
    return bool(name.datatype or name.inside.lower() == "anat" or name.entities or _SUFFIX.fullmatch(name.suffix))


def _is_template(entry: Entry) -> bool:
    """Whether an image is of a template, `tpl-…`: nobody's."""
    names = (entry.folder.split("/")[0], stem(entry.name))
    return is_image(entry.path) and any(map(_TEMPLATE.fullmatch, names)) and "sub-" not in entry.path.lower()


def _with_convention(scan: ScanSource) -> ScanSource:
    return replace(scan, label_convention=convention_by_name(scan))


def _others(entry: Entry, companions: Companions) -> Iterator[str]:
    return (other.path for other in companions.get(entry.path, ()))


def _parse(entry: Entry) -> _Name | None:
    """What the path says; None if it names no subject as BIDS does."""
    folders, name = entry.folder.split("/") if entry.folder else [], stem(entry.name)
    places = [n for n, folder in enumerate(folders) if _SUBJECT.fullmatch(folder)]
    flat = _FLAT.fullmatch(name)
    if not places and not flat:
        return None
    place = places[0] if places else len(folders)
    named = _FOLDER.fullmatch(folders[place]) if places else flat
    assert named is not None
    subject, visit = named["subject"], (named["session"] or "") if places else ""
    inside = folders[place + 1 :]
    session = next((folder for folder in inside if _SESSION.fullmatch(folder)), visit)
    if not session and places:  # `sub-01/preop/sub-01_preop-t1mri-1` breaks a rule of BIDS
        session = next((folder for folder in inside if _is_visit(folder)), "")
    rest = _without(_without(name, subject), session)
    if not session and (match := _SESSION_START.match(rest)):
        session = match[1]
        rest = rest[match.end() :]
    above = [folder for folder in folders[:place] if not _SESSION.fullmatch(folder)]
    if not session:  # `sub-01/V02/anat`, `sub-01/MRI_4` and `sub-01_20190312_T1w` break a rule of BIDS
        parts = _EXAM.sub(r"\1", rest).split("_")
        session = next(filter(_is_visit, (*(_EXAM.sub(r"\1", folder) for folder in inside), *parts[:-1])), "")
        rest = "_".join(part for part in parts if part != session)
    if not session:  # `ses-1/sub-01_T1w`: the data of one session lie together
        session = next((folder for folder in folders[:place] if _SESSION.fullmatch(folder)), "")
    derived = next((n for n, folder in enumerate(above) if _DERIVED.fullmatch(folder)), None)
    entities, words, suffix = _entities(rest)
    said = None if flat or entities or not words else describe(name)
    return _Name(
        entry=entry,
        root=_root(above[:derived]),
        subject=subject,
        session=session or "1",
        inside=next(iter(inside), ""),
        datatype=next((folder.lower() for folder in inside if folder.lower() in _DATATYPES), ""),
        derived=derived is not None,
        pipeline="/".join(above[derived + 1 :]) if derived is not None else "",
        entities=entities,
        words=words,
        suffix=suffix,
        said=said if said and (said.role in (MASK, BRAIN) or said.role in MODALITIES) else None,
    )


@lru_cache(maxsize=1 << 12)
def _is_visit(name: str) -> bool:
    """Whether a name is a visit alone by its words, or a letter for visits with a number, which T1 is not."""
    visits, rest = take_visits(name)
    return bool(visits and not rest) or (VISIT_LETTER.fullmatch(name) is not None and kind_of(name) != "modality")


def _visited_by_folder(names: list[_Name]) -> list[_Name]:
    """Raw images of one kind in several folders of a subject are of several visits, as `sub-01/test` and `retest`."""
    held: dict[tuple[str, str], dict[str, set[str | None]]] = defaultdict(lambda: defaultdict(set))
    for name in names:
        if name.session == "1" and not name.derived and (role := _image_role(name)) in MODALITIES:
            held[name.root, name.subject][name.inside].add(role)
    visited = {
        person
        for person, folders in held.items()
        if len(set().union(*folders.values())) < sum(map(len, folders.values()))
        and all(folder and may_be_a_visit(folder) for folder in folders)
    }
    return [
        replace(name, session=name.inside)
        if (name.root, name.subject) in visited and name.session == "1" and name.inside
        else name
        for name in names
    ]


def _shown(names: list[_Name]) -> list[_Name]:
    """Files such as `sub-01_lesion_FLAIR` are masks where the subject has that `FLAIR` too."""
    plain = {(name.root, name.subject, name.session, name.suffix.lower()) for name in names if not name.words}
    return [
        replace(name, suffix=MASK)
        if (name.root, name.subject, name.session, name.suffix.lower()) in plain
        and any(kind_of(word) in ("weak", "mask") for word in name.words)
        else name
        for name in names
    ]


def _root(folders: Iterable[str]) -> str:
    return "/".join(folder for folder in folders if not _ROOTS.fullmatch(folder))


def _datasets(archive: Archive, entries: Iterable[str]) -> set[str]:
    """The roots that have a description of their own, derivatives and those inside of others left out."""
    roots = set()
    for path in entries:
        *folders, name = path.split("/")
        if name == "dataset_description.json" and not any(map(_DERIVED.fullmatch, folders)):
            roots.add((_root(folders), path))
    if len({root for root, _ in roots}) < 2:
        return set()
    apart = {root for root, path in roots if not _is_derivative(archive, path)}
    return {
        one for one in apart if not any(f"{one}/".startswith(f"{other}/" if other else "") for other in apart - {one})
    }


def _is_derivative(archive: Archive, path: str) -> bool:
    """Whether a data set says that it is made of another."""
    try:
        said = json.loads(archive.read(path))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("DatasetType") == "derivative"


def _without(text: str, known: str) -> str:
    if known and text.lower().startswith(known.lower()) and text[len(known) : len(known) + 1] in ("_", "-", ""):
        return text[len(known) :].lstrip("_-")
    return text


def _entities(rest: str) -> tuple[dict[str, str], tuple[str, ...], str]:
    """Entities, other words and the suffix; a last entity such as `lesion-manual` stands for a suffix too."""
    *parts, last = rest.split("_")
    entities: dict[str, str] = {}
    words: list[str] = []
    is_entity = (match := _ENTITY.fullmatch(last)) is not None and not _says_an_image(match["key"])
    for part in (*parts, last if is_entity else ""):
        if match := _ENTITY.fullmatch(part):
            entities[match["key"].lower()] = match["value"]
        elif part:
            words.append(part)
    return entities, tuple(words), "" if is_entity else last


def _says_an_image(key: str) -> bool:
    """Whether what stands before a dash is no entity but what the image is, as in `EdemaMask-CL` or `FLAIR-reg`."""
    return key.lower() not in _MASK_KEYS and (is_mask_word(key) or modality(key) in MODALITIES)


def _image_role(name: _Name) -> str | None:
    """The modality of an image, or its suffix where that is another one; None for what is no anatomical image."""
    if name.datatype or not name.suffix or _mask_role(name):
        return None
    if name.said:
        return name.said.role
    suffix = name.suffix.lower()
    role = _UNIFORM.get(suffix) or (None if suffix in _OWN_NAME else modality(name.suffix))
    if role == "T1" and _has_agent(name.entities):
        return "T1ce"
    if role in MODALITIES:
        return role
    part = "-".join(
        f"{key}-{name.entities[key]}" for key in ("inv", "echo", "flip", "mt", "part") if key in name.entities
    )
    return "-".join(word for word in (role if role and suffix != "t1map" else name.suffix, part) if word)


def _has_agent(entities: Mapping[str, str]) -> bool:
    """Whether `ce` says that an agent was given, or `acq` where there is none: `acq-postgad`."""
    if "ce" in entities:
        return entities["ce"].lower() not in _WITHOUT and recognise(entities["ce"]).contrast is not False
    return recognise(entities.get("acq", "")).contrast is True


def _mask_role(name: _Name) -> str | None:
    """`mask`, `BRAIN` for a mask of the brain or its parts, None for no mask."""
    if name.said and not name.datatype:
        return name.said.role if name.said.role in (MASK, BRAIN) else None
    keyed = not name.entities.keys().isdisjoint(_DRAWN_KEYS if name.suffix else _MASK_KEYS)
    if not is_mask_word(name.suffix) and not keyed:
        return None
    words = [name.entities[key] for key in ("label", "desc", "res", "atlas", "seg") if key in name.entities]
    lesion = any(map(_LESION.search, [*words, *name.words, name.pipeline, name.suffix, *name.entities]))
    if name.datatype and not lesion:
        return None
    if any(map(_NO_LESION.search, [*words, *name.words, name.suffix])) and not any(map(_LESION.search, words)):
        return BRAIN
    return MASK if lesion or name.suffix.lower() not in ("dseg", "probseg") else BRAIN


def _understood(names: list[_Name], datasets: Collection[str]) -> tuple[list[Found], dict[str, str], list[str]]:
    """The files of scans, what the others are, and what is told of subjects that several data sets have."""
    ignored: dict[str, str] = {}
    images: dict[tuple[str, str], list[_Name]] = defaultdict(list)
    masks: list[_Name] = []
    for name in names:
        role = _mask_role(name)
        if role == MASK:
            masks.append(name)
        elif role == BRAIN:
            ignored[name.entry.path] = BRAIN
        elif name.datatype or not _image_role(name):
            ignored[name.entry.path] = f"BIDS {name.datatype or 'other'}"
        else:
            images[name.root, name.subject].append(name)
    people, told = _people(images, datasets)
    found: list[Found] = []
    for person, mine in images.items():
        raw = [name for name in mine if not name.derived] or mine
        ignored |= {name.entry.path: "BIDS derivative" for name in mine if name not in raw}
        found += _scan_files(raw, people[person])
    found += _mask_files(masks, found, images, people, ignored)
    return found, ignored, told


def _people(
    images: Mapping[tuple[str, str], list[_Name]], datasets: Collection[str]
) -> tuple[dict[tuple[str, str], str], list[str]]:
    """What each subject of each data set is called: `sub-01`, with the data set where another has the same files.

    So it is where two of the roots are `datasets`, each with its own description, or sites by their names. Elsewhere a
    subject of several roots is one person, and that is told.
    """
    files: dict[tuple[str, str], set[tuple[str, str]]] = {
        person: {(name.session, name.entry.name) for name in mine} for person, mine in images.items()
    }
    by_subject: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for root, subject in sorted(images):
        by_subject[subject].append((root, subject))
    result = {}
    joined: list[str] = []
    parted: list[str] = []
    for subject, persons in by_subject.items():
        own = [one for one in persons if not is_copy(one[0])] or persons
        clash = any(files[one] & files[other] for one in own for other in own if one < other)
        clash = clash or sum(root in datasets for root, _ in persons) > 1
        clash = clash or (_is_short(subject) and _at_sites(root for root, _ in persons))
        if len(persons) > 1:
            (parted if clash else joined).append(subject)
        for root, _ in persons:
            result[root, subject] = f"{root.replace('/', '_')}_{subject}" if clash and root else subject
    readings = (
        (parted, "were read as one patient in each; if they are one"),
        (joined, "were read as one patient each; if they are several"),
    )
    told = [
        f"subjects of several data sets ({examples(some)}) {reading}, write a manifest"
        for some, reading in readings
        if some
    ]
    return result, told


def _at_sites(roots: Iterable[str]) -> bool:
    """Whether each of several data sets lies in a folder of another hospital or site."""
    places = [_site_of(root) for root in roots]
    return len(places) > 1 and all(places) and len({*places}) == len(places)


def _is_short(subject: str) -> bool:
    """Whether every site may have a subject of that name, as `sub-01`."""
    return re.fullmatch(r"sub-[a-z]{0,3}\d{1,3}", subject, re.IGNORECASE) is not None


def _site_of(root: str) -> str:
    """The folder of a data set that names a hospital or a site; empty where none does."""
    return next(filter(is_site, reversed(root.split("/"))), "")


def _scan_files(images: Iterable[_Name], subject: str) -> Iterator[Found]:
    for name in images:
        role = _image_role(name) or name.suffix
        rank = is_copy(name.root) * 4 + (name.space != _NATIVE) * 2 + ("acq" in name.entities)
        rank += 8 * name.said.label.count("-") if name.said else 0  # `T1_brain` before `T1_GM_to_template`
        yield Found(subject, subject, name.session, role, name.entry, rank=rank)


def _mask_files(
    masks: Iterable[_Name],
    found: Iterable[Found],
    images: Mapping[tuple[str, str], list[_Name]],
    people: Mapping[tuple[str, str], str],
    ignored: dict[str, str],
) -> Iterator[Found]:
    """Masks beside the images of their subject and session, those in their space first."""
    sessions: dict[str, set[str]] = defaultdict(set)
    for item in found:
        sessions[item.subject].add(item.session)
    spaces = {(people[person], name.session): name.space for person, mine in images.items() for name in mine}
    roots: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for person in images:
        roots[person[1]].append(person)
    best: dict[tuple[str, str], list[Found]] = defaultdict(list)
    for name in masks:
        persons = roots.get(name.subject, [])
        person = (name.root, name.subject) if (name.root, name.subject) in images or len(persons) != 1 else persons[0]
        subject = people.get(person, name.subject)
        session = name.session
        if session not in sessions[subject] and len(sessions[subject]) == 1 and session == "1":
            (session,) = sessions[subject]
        same_space = name.space == spaces.get((subject, session), _NATIVE)
        lesion = any(map(_LESION.search, [*name.entities.values(), *name.entities, *name.words, name.suffix]))
        rank = 4 * (not same_space) + 2 * (not lesion) + (name.suffix.lower() == "dseg")
        best[subject, session].append(Found(subject, subject, session, MASK, name.entry, rank=rank))
    for items in best.values():
        least = min(item.rank for item in items)
        for item in items:
            if item.rank >= 4 > least:
                ignored[item.entry.path] = "mask in another space"
            else:
                yield item
