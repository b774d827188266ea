"""Folders in no known layout, and those of BraTS: names tell modality, mask, subject and session.

1. A file's name is taken apart (`names`): words for what the image is, visits, and what may name a person. What repeats
   the names of its folders is left out; folders such as `NIFTI`, `1_T1` or `masks` name nobody.
2. All names together tell who is a person and what a visit (`people`).
3. Files of one person's visit form a scan; masks that lie elsewhere are brought to the scan that they name.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from segpipe.errors import Reason
from segpipe.readers.archive import (
    Archive,
    Claim,
    Companions,
    Files,
    Found,
    Rejected,
    ScanSource,
    Together,
    gather,
    pairs,
    reject,
    standing,
    stem,
)
from segpipe.readers.chains import FEW, MANY, Chain, Use, as_patients, as_visits, examples, owns, together
from segpipe.readers.entries import Ends, Entries, Entry, Row, Rows, entry_of
from segpipe.readers.labels import convention_by_name
from segpipe.readers.moments import File, moments
from segpipe.readers.names import (
    ANY_IMAGE,
    BRAIN,
    IMAGE,
    MASK,
    MODALITIES,
    TIMEPOINT,
    VISIT_LETTER,
    VISITED,
    Cut,
    Folder,
    Said,
    cut,
    describe,
    folder,
    has_digit,
    is_best,
    is_by_program,
    is_generic,
    is_map_of,
    is_numbers,
    is_organ,
    is_site,
    is_weak_visit,
    kind_of,
    may_be_a_visit,
    numbered_like,
    regions_of,
    role_order,
)
from segpipe.readers.people import Person, people
from segpipe.readers.visit_forms import are_days, shape

_WORD = re.compile(r"[^\W_]+")
_SEPARATORS = "_-. "
_COMMON = frozenset((*ANY_IMAGE, "anatomy", "anat", "data", "nifti", "brain", ""))
_LONG_NUMBER = 5  # digits that no series' number has
_LONG_COUNT = 3  # digits that no lesion of a patient needs for its number
_LAST = 9  # of a mask that comes after all others
_COPY = re.compile(r"(?P<name>.*\S) *\(\d{1,2}\)")
_PRE = re.compile(r"(?<![^\W_])pre(?![^\W_])", re.IGNORECASE)
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
_MAPS = "cpmwrsuiy"  # letters with which SPM begins the names of what it makes
_MADE = re.compile(r"(?P<made>[mwrsu]{1,4})(?P<name>[A-Z0-9].*)")
_LESION_OF = re.compile(r"(?P<word>[^\W\d_]+)[_\-. ](?P<name>.*\d.*)")
_NUMBER = re.compile(r"\d+")
_NUMBER_LAST = re.compile(
    r"(?P<what>.*[^\W\d_][^_\-. ]*)[_\-. ](?P<number>[A-Za-z]{0,6}\d+(?:_\d{5,})?)(?:[_\-. ](?P<rest>\D+))?"
)
_CODE_BESIDE = re.compile(
    r"[A-Za-z]{0,4}\d{1,4}|\d{6}|\d\d?(?:st|nd|rd|th)|[A-Za-z]{1,4}|early|late|first|second|third", re.IGNORECASE
)
_SERIES = re.compile(r"(?:s|se|ser|series|e|echo|r|run|acq|im|img|ch)\d+|[cip]\d", re.IGNORECASE)
_FILLED = re.compile(r"(?<!\d)0\d\d+(?!\d)")  # a number that counts people, in three digits or more
_VISIT_OF = re.compile(r"(?P<visit>[^\W\d_]{2,})[_\-. ](?P<name>\d+)")
_CODE = re.compile(r"[A-Za-z]{1,2}\d{2,4}|\d{2,4}[A-Za-z]")  # what a visit may be called, and a patient
_FIELD = re.compile(r"(?:^|/)(\d(?:\.\d)?T)(?=/)")
_FOLD = re.compile(r"(?:^|/)((?:fold|cv)[_\- ]?\d+)(?=/)", re.IGNORECASE)
_BATCH = re.compile(r"(?:^|/)((?:batch|disc|disk|cd|dvd|chunk|tranche|teil|part)[_\- ]?\d+)(?=/)", re.IGNORECASE)
_SPLIT = re.compile(
    r"(?:images?|labels?|masks?|imgs?)?[_\-]?(?P<split>(?:(?:in|ex)ternal[_\-]?)?(?:train|tr|test|ts|val|valid|validation|eval"
    r"|evaluation|dev|development|holdout|unseen)(?:ing|data|set)?(?:[_\-]?(?:in|out|internal|external))?)"
    r"[_\-]?(?:images?|labels?|masks?|data|set)?",
    re.IGNORECASE,
)
_UNPROCESSED = ("orig", "original", "raw")
_DAY_FOLDERS = re.compile(  # a PACS's folders of a year, a month and a day, below a patient or above one
    r"(?P<above>(?:^|.*/))(?P<year>19[89]\d|20[0-4]\d)/(?P<month>0[1-9]|1[0-2])/(?P<day>0[1-9]|[12]\d|3[01])(?P<below>(?=/|$).*)"
)
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>000\d)")  # nnU-Net's
_OLD = re.compile(r"(?P<case>.+)_(?:flair|t1|t1ce|t2|seg)", re.IGNORECASE)
_NEW = re.compile(r"(?P<case>.+)-\d{3}-(?:t2f|t1n|t1c|t2w|seg)", re.IGNORECASE)


class Place(NamedTuple):
    """A folder and those above it, as far as they say something of the files inside."""

    names: tuple[str, ...]  # what a file's name may repeat, outermost first
    chain: Chain
    visits: tuple[str, ...]
    said: Said | None
    mask: bool
    weak: str  # a folder's name that may be that of a group or say that files are masks
    timepoint: str
    agent: bool = False  # whether a folder says after contrast, and nothing else
    channels: bool = False  # whether file names end in the number of a channel


class Word(NamedTuple):
    """What the name of a file says behind those of its folders; the role is None if nothing says it."""

    said: Said
    own: bool = False  # whether the file's own name says the role
    weak: str = ""
    tail: str = ""  # the words that describe the file
    below: str | None = None  # the modality that the file's name tells in a folder of masks


class Words:
    """What the names of some files say: one object for all folders whose files are named alike.

    So what follows from names is found once for all of them. `numbered` says that the folders' names are alike too, but
    for a number of five digits.
    """

    def __init__(self, each: Iterable[Word], numbered: bool = False) -> None:
        self.numbered = numbered
        self.each = tuple(each)
        self.roles = tuple([word.said.role for word in self.each])
        self.masks = self.roles.count(MASK)

    @cached_property
    def use(self) -> Use:
        """How a chain occurs that these files have, if they state no visit."""
        known = frozenset(role for role in self.roles if role is not None)
        return Use(known, None in self.roles, bare=known)

    @cached_property
    def timed(self) -> bool:
        """Whether a word for a modality is one of BraTS since 2023 alone."""
        return any(word.tail in ("t1n", "t2f") for word in self.each)

    @cached_property
    def apart(self) -> tuple[tuple[int, str], ...]:
        """The place and role of each file, modalities first, where every one has a role of its own; else nothing."""
        roles = [role for role in self.roles if role is not None]
        alone = len(roles) > 1 and not {*roles} & {*MODALITIES, MASK}
        if alone or len({*roles}) < len(self.roles):
            return ()
        return tuple(sorted(enumerate(roles), key=lambda one: role_order(one[1])))


class Read(NamedTuple):
    """What was read in the paths of some files of one folder, which name one person and visit.

    Where a step looks at files one by one, `each` takes them apart: then `entry` and `said` are those of the only file.
    """

    folder: str
    rows: Rows | tuple[Row, ...]
    chain: Chain
    visits: tuple[str, ...]
    words: Words

    def each(self) -> "list[Read]":
        """The same, one for each file."""
        if len(self.rows) == 1:
            return [self]
        files = zip(self.rows, self.words.each, strict=True)
        return [self._replace(rows=(row,), words=Words((word,))) for row, word in files]

    def saying(self, **what: Any) -> "Read":
        """The same file with another `Word`."""
        return self._replace(words=Words((self.word._replace(**what),)))

    @property
    def entry(self) -> Entry:
        return entry_of(f"{self.folder}/" if self.folder else "", self.rows[0])

    @property
    def word(self) -> Word:
        return self.words.each[0]

    @property
    def said(self) -> Said:
        return self.words.each[0].said


def _each(reads: Iterable[Read]) -> list[Read]:
    return [one for read in reads for one in read.each()]


def _say(reads: Iterable[Read], test: Callable[[Word], object]) -> bool:
    """Whether the test is true of the name of a file."""
    different = {id(read.words): read.words for read in reads}
    return any(test(word) for words in different.values() for word in words.each)


def claim(archive: Archive, entries: Mapping[str, Entry], named: bool) -> Claim:
    """A scan of every group of image files."""
    images, companions, rejected = pairs(entries)
    origin = archive.root.rstrip("/").rpartition("/")[2]
    reads, timed = _read_all(images)
    reads, anatomy = _split(_of_originals(_of_counted_folders(_without_study_masks(reads))))
    reads, coded = _of_coded_people(_of_people_behind_visits(_below_patients(reads)))
    reads, behind = _of_numbers_behind(reads)
    reads = _of_named_lesions(reads)
    reads, numbered = _of_numbered_scans(reads)
    persons, told = people(_uses(reads))
    told += timed + coded + behind + numbered
    persons, apart = _apart_by_site(reads, persons)
    told += apart
    found = _shown([_found(read, persons[read.chain], origin) for read in reads])
    found, spelled = _of_one_spelling(found)
    told += spelled
    found, behind = _visited_by_word(_visited_by_folder(found))
    told += behind
    kept, lost = _with_images(found)
    kept, parts = _without_parts(kept)
    lost += parts
    scans, refused = gather(_one_per_role(kept), "plain", companions, lambda scan: _meaning(scan, origin))
    pairs_of = [entry.path for pair in companions.values() for entry in pair]
    taken = {*images, *pairs_of} if pairs_of else images
    ignored = {path: BRAIN for read in _each(anatomy) for path in (read.entry.path, *_others(read.entry, companions))}
    return Claim(scans, rejected + lost + refused, taken, ignored, told)


def _meaning(scan: ScanSource, archive: str) -> tuple[str, str | None]:
    """What the names of a scan's files say of layout and labels; no rule asks which number of five digits one has."""
    layout = "brats" if _is_brats(scan.files[0].path) else scan.layout
    return layout, convention_by_name(scan, archive) if scan.files[-1].role == MASK else scan.label_convention


def claim_brats(archive: Archive, entries: Mapping[str, Entry], named: bool) -> Claim:
    """Those scans alone whose files are named as in BraTS: `<id>_flair`, … or `<id>-<timepoint>-t2f`, …"""
    matches = {
        path: entry
        for path, entry in entries.items()
        if _OLD.fullmatch(stem(entry.name)) or _NEW.fullmatch(stem(entry.name))
    }
    found = claim(archive, matches, named)
    return replace(found, scans=[replace(scan, layout="brats") for scan in found.scans])


def _is_brats(path: str) -> bool:
    """Whether a file is named as in BraTS, in a folder of its case's name or a case called BraTS."""
    above, _, name = path.rpartition("/")
    name = stem(name)
    older = _OLD.fullmatch(name)
    match = older or _NEW.fullmatch(name)
    if not match:
        return False
    case = match["case"]
    full = case if older else name.rpartition("-")[0]
    return above.rpartition("/")[2] in (case, full) or case.lower().startswith("brats")


_NOWHERE = Place((), (), (), None, False, "", "")

# Reading one path


def _read_all(images: Entries) -> tuple[list[Read], list[str]]:
    by_folder = {folder[:-1]: rows for folder, rows in images.folders.items()}
    seen, told = _seen_in_time(by_folder)
    reads = [*seen.values()]
    by_folder = _without_files(by_folder, seen)
    known: dict[_Pattern, Words] = {}
    timed: set[str] = set()
    masked: dict[str, Place] = {}
    for path, rows in by_folder.items():
        pattern = _pattern(path, rows, by_folder)
        if pattern is not None and (words := known.get(pattern)) is not None:
            reads.append(Read(path, rows, _chain(path, pattern), (), words))
            continue
        place = _place(path)
        if place.timepoint:
            timed.add(path)
        if place.said is not None and _is_case(path, rows):
            above, _, name = path.rpartition("/")
            place = _inside(_place(above), Folder(name, raw=name))
        if place.mask:
            masked[path] = place
            continue
        here = _read_folder(path, place, by_folder)
        if pattern is not None and _is_read_alike(path, place, pattern, here):
            known[pattern] = Words((read.word for read in here), bool(pattern.like))
            here = [Read(path, rows, place.chain, (), known[pattern])]
        reads += here
    studies = _studies({path: by_folder[path] for path in masked}, alone=not reads)
    for path, place in masked.items():
        images_too = _mask_folder(path) in studies
        reads += _read_folder(path, place._replace(mask=False, said=None) if images_too else place, by_folder)
    reads = _apart_by_batch(_by_contrast(_of_processing(reads, by_folder)))
    return _with_timepoints(_apart_by_field(_apart_by_split(reads, by_folder)), timed), told


def _seen_in_time(by_folder: Mapping[str, Rows]) -> tuple[dict[File, Read], list[str]]:
    """Files whose paths hold words of images that are visits here, and what is told of them."""
    found = moments(by_folder, lambda file: _read(file[0], (file[1], 0, ""), _place(file[0])).said.role)
    if not found:
        return {}, []
    reads: dict[File, Read] = {}
    for path in {file[0] for file in found}:
        for row in by_folder[path]:
            if (moment := found.get((path, row[0]))) is not None:
                short, name = moment.file
                read = _read(short, (name, *row[1:]), _place(short))
                visits = _visits(read.visits, moment.visits)
                reads[path, row[0]] = read._replace(folder=path, rows=(row,), visits=visits)
    if not all(read.chain for read in reads.values()):
        return {}, []
    doubtful = {visit for moment in found.values() for visit in moment.visits if not has_digit(visit)}
    return reads, [as_visits(doubtful, "words beside kinds of images")] if doubtful else []


def _without_files(by_folder: dict[str, Rows], files: Collection[File]) -> dict[str, Rows]:
    """The same without some files."""
    if not files:
        return by_folder
    rest = {path: [row for row in rows if (path, row[0]) not in files] for path, rows in by_folder.items()}
    return {path: Rows.of(f"{path}/" if path else "", rows) for path, rows in rest.items() if rows}


def _read_folder(path: str, place: Place, by_folder: Mapping[str, Rows]) -> list[Read]:
    reads = _with_numbers([_read(path, row, place) for row in by_folder[path]], place)
    return _without_agent(_without_maps(reads, by_folder))


def _with_numbers(reads: list[Read], place: Place) -> list[Read]:
    """The files of a folder; where others are called like one with the number of its folder, it does not repeat that.

    So it is with `P01/1_T1` beside `P01/2_T1`.
    """
    names = {read.chain[-1] for read in reads if read.chain and read.chain[:-1] == place.chain}
    shapes = {shape(name) for name in names if has_digit(name)}
    if not shapes:
        return reads
    texts = [_described(stem(read.rows[0][0]))[0].text for read in reads]
    return [
        read._replace(chain=(*place.chain, text)) if read.chain == place.chain and shape(text) in shapes else read
        for read, text in zip(reads, texts, strict=True)
    ]


class _Pattern(NamedTuple):
    """What is the same for folders whose files all repeat the folder's name and go on alike: `<case>_t1`, `<case>_seg`.

    The words behind the name are read once for all of them. `like` is the name with zeros for a number of five digits,
    empty for other names, of which each is read as a folder's.
    """

    above: str
    like: str
    repeats: bool  # whether the name begins with another above it
    channels: bool
    ends: Ends


def _pattern(path: str, rows: Rows, folders: Collection[str]) -> _Pattern | None:
    """What a folder is like; None if it says more than a name."""
    above, _, name = path.rpartition("/")
    if not rows.ends.are_parted or above in folders:
        return None
    like, repeats = numbered_like(name), name.lower().startswith(_names_above(above))
    if like != name and not repeats:
        return _Pattern(above, like, False, False, rows.ends)
    place = _place(path)
    if place.visits or place.said or place.weak or place.timepoint:
        return None
    return _Pattern(above, "", repeats, place.channels, rows.ends)


def _chain(path: str, pattern: _Pattern) -> Chain:
    """The chain of a folder that reads as others of its pattern do."""
    return (*_place(pattern.above).chain, path.rpartition("/")[2]) if pattern.like else _place(path).chain


def _is_read_alike(path: str, place: Place, pattern: _Pattern, reads: Iterable[Read]) -> bool:
    """Whether the files of a folder say nothing of a person or a visit beside it: others of its pattern do neither."""
    says_more = place.visits or place.said or place.weak or place.timepoint
    alike = not pattern.like or place == _named_below(_place(pattern.above), path.rpartition("/")[2])
    return not says_more and alike and all(read.chain == place.chain and not read.visits for read in reads)


@lru_cache(maxsize=1 << 10)
def _names_above(path: str) -> tuple[str, ...]:
    return tuple(known.lower() for known in _place(path).names)


def _without_maps(reads: list[Read], by_folder: Mapping[str, Rows]) -> list[Read]:
    """The files of a folder, those marked as maps of anatomy that were made of another there or in the folder above."""
    if not any(read.rows[0][0][0] in _MAPS for read in reads):
        return reads
    folder = reads[0].folder
    stems = {stem(row[0]) for path in (folder, folder.rpartition("/")[0]) for row in by_folder.get(path, ())}
    named = {stem(read.entry.name): read for read in reads}
    return [
        read.saying(said=Said(BRAIN, read.said.label), own=True)
        if is_map_of(name := stem(read.entry.name), stems)
        else _like_original(name, read, named)
        for read in reads
    ]


def _without_agent(reads: list[Read]) -> list[Read]:
    """The files of a folder, those without contrast agent where `T1-C` lies beside `T1+C`, or `PRE` beside `POST`."""
    given = {read.rows[0][0] for read in reads if read.said.role == "T1ce"}
    if not given:
        return reads
    return [
        read.saying(said=replace(read.said, role="T1"), own=True)
        if not given.isdisjoint(_with_agent(read.rows[0][0], read.said.role))
        else read
        for read in reads
    ]


def _with_agent(name: str, role: str | None) -> list[str]:
    """What a file without contrast agent would be called with it, if its name may say that."""
    if role == "T1ce":
        return [name.replace("-", "+")] if "-" in name else []
    if role in MODALITIES or not _PRE.search(name):
        return []
    return [_PRE.sub(post, name) for post in ("post", "Post", "POST")]


def _like_original(name: str, read: Read, named: Mapping[str, Read]) -> Read:
    """What SPM has made of an image beside it, as `mS07_T1` of `S07_T1`, is of the same patient and comes after it."""
    match = _MADE.fullmatch(name)
    if not match or (original := named.get(match["name"])) is None:
        return read
    label = f"{original.said.label}-{match['made']}"
    return original._replace(rows=read.rows).saying(said=replace(original.said, label=label))


def _without_study_masks(reads: list[Read]) -> list[Read]:
    """Files in a folder such as `Mask_study` that are called for several modalities are images, if none are theirs.

    Were they masks, their few whole numbers would tell it.
    """
    if not _say(reads, lambda word: word.below):
        return reads
    reads = _each(reads)
    below = {read.chain for read in reads if read.word.below}
    imaged = {read.chain for read in reads if read.said.role != MASK and read.chain in below}
    kinds: dict[Chain, set[str]] = defaultdict(set)
    for read in reads:
        if read.word.below and read.chain not in imaged:
            kinds[read.chain].add(read.word.below)
    images = {chain for chain, found in kinds.items() if len(found) > 1}
    return [
        read.saying(said=Said(read.word.below, read.said.label), own=True)
        if read.word.below and read.chain in images
        else read
        for read in reads
    ]


def _of_counted_folders(reads: list[Read]) -> list[Read]:
    """Folders such as `train_000` and `train_001` are patients where nothing below or above names any.

    So it is if files of one name lie in several.
    """
    chains = {read.chain for read in reads if not (read.chain and f"/{read.folder}".endswith(f"/{read.chain[-1]}"))}
    nobody = {chain for chain in chains if not any(map(owns, chain))}
    if not nobody:
        return reads
    reads = _each(reads)
    held: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    of: dict[str, tuple[tuple[str, str], str]] = {}
    for read in reads:
        if read.chain in nobody and (found := _counted(read.folder)) is not None:
            above, word, name = found
            held[above, word][name].add(read.entry.path[len(above) + len(name) :])
            of[read.entry.path] = (above, word), name
    wraps = {_place(above.rstrip("/")).chain for above, _ in held}
    several = {
        group
        for group, folders in held.items()
        if len(set().union(*folders.values())) < sum(map(len, folders.values()))
        and (len(wraps) == 1 or not _place(group[0].rstrip("/")).chain)  # below several names they are theirs
    }
    named = {path: name for path, (group, name) in of.items() if group in several}
    return [
        read._replace(chain=_with_name(read, named[read.entry.path])) if read.entry.path in named else read
        for read in reads
    ]


def _with_name(read: Read, name: str) -> Chain:
    """The chain of a file with the name of a folder above it, in its place."""
    above = len(_place(f"/{read.folder}/".partition(f"/{name}/")[0].strip("/")).chain)
    return (*read.chain[:above], name, *read.chain[above:])


@lru_cache(maxsize=1 << 12)
def _counted(path: str) -> tuple[str, str, str] | None:
    """The outermost folder of a path that is technical words with numbers, and its form; None if names tell more.

    `MR_1` below a name may be an examination of this patient.
    """
    if any(map(owns, _place(path).chain)):
        return None
    above = ""
    for name in path.split("/"):
        if has_digit(name) and folder(name) == Folder("", raw=name):
            visited = any(word.lower() in VISITED for word in _WORD.findall(name)) and not _FILLED.search(name)
            if visited and _place(above.rstrip("/")).chain:
                return None
            return above, _NUMBER.sub("9", name).lower(), name
        above += f"{name}/"
    return None


def _studies(masked: Mapping[str, Rows], alone: bool) -> set[str]:
    """Folders named for masks that are a study's or a patient's, as `MSSEG-Training`, and say nothing of their files.

    They hold, also in folders, masks and images of several modalities, or called `scan`; or no others lie elsewhere
    (`alone`) that could be the images of masks in them.
    """
    roles: defaultdict[str, set[str | None]] = defaultdict(set)
    outermost: set[str] = set()
    for path, rows in masked.items():
        named = _mask_folder(path)
        for row in rows:
            word = _read(path, row, _NOWHERE).word
            roles[named].add(IMAGE if word.tail.lower() in ANY_IMAGE else word.said.role)
        while _place(above := named.rpartition("/")[0]).mask:
            named = _mask_folder(above)
            roles[named].add(MASK)
        outermost.add(named)
    images = {named: found & {*MODALITIES, IMAGE} for named, found in roles.items()}
    if alone:
        return {named for named in outermost if images[named]}
    return {named for named, found in images.items() if MASK in roles[named] and (IMAGE in found or len(found) > 1)}


def _mask_folder(path: str) -> str:
    """The folder, this one or one above it, whose name says that masks lie below."""
    while path and not folder(path.rpartition("/")[2]).mask:
        path = path.rpartition("/")[0]
    return path


def _apart_by_split(reads: list[Read], folders: Collection[str]) -> list[Read]:
    """Number 1 of `train` and number 1 of `test` are two people, if both have the same file."""
    if len({_split_of(folder.rpartition("/")[0] if folder[-1:].isdecimal() else folder) for folder in folders}) < 2:
        return reads  # a name that ends in a digit is none, so one look is enough at what is above thousands
    return _apart_by(_split_of, _each(reads))


def _apart_by_batch(reads: list[Read]) -> list[Read]:
    """Number 1 of `batch1` and number 1 of `batch2` are two people, if both have the same file."""
    if not any(map(_batch_of, {read.folder for read in reads})):
        return reads
    return _apart_by(_batch_of, _each(reads))


def _batch_of(folder: str) -> str:
    match = _BATCH.search(f"{folder}/")
    return match[1] if match else ""


def _apart_by(part_of: Callable[[str], str], reads: list[Read]) -> list[Read]:
    """Names that anybody may have are those of several people, if the same file is in several parts of a data set."""
    parts: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for read in reads:
        if read.chain and is_generic(read.chain[-1]) and (part := part_of(read.folder)):
            fold = _FOLD.search(read.folder)  # of a cross-validation: who is tested in one is trained on in another
            parts[read.chain, read.visits, read.entry.name, fold and fold[1]].add(part)
    clashing = {key[0] for key, found in parts.items() if len(found) > 1}
    return [
        read._replace(chain=(*read.chain[:-1], part, read.chain[-1]))
        if read.chain in clashing and (part := part_of(read.folder))
        else read
        for read in reads
    ]


def _of_processing(reads: list[Read], folders: Collection[str]) -> list[Read]:
    """A folder `pre` beside `orig` or `raw` holds what was preprocessed, and is no visit.

    A mask in `orig` is then of a face or a brain, if another one lies above both.
    """
    parted = [(above, name.lower()) for above, _, name in (path.rpartition("/") for path in folders)]
    beside = {above for above, name in parted if name in _UNPROCESSED}
    beside &= {above for above, name in parted if name == "pre"}
    if not beside:
        return reads
    masked = {read.folder for read in reads if MASK in read.words.roles}
    result: list[Read] = []
    for read in reads:
        above = read.folder.rpartition("/")[0]
        result += [_processed(one, above in masked) for one in read.each()] if above in beside else [read]
    return result


def _processed(read: Read, is_masked: bool) -> Read:
    """A file in `pre` or `orig`, of which the folder above holds a mask."""
    if is_masked and read.said.role == MASK and read.folder.rpartition("/")[2].lower() in _UNPROCESSED:
        return read.saying(said=Said(BRAIN, read.said.label), own=True)
    return _without_visits([read], ("pre",))[0]


def _by_contrast(reads: list[Read]) -> list[Read]:
    """Words that could be visits and tell contrast: folders `Pre` and `Post`, `T1_basale` beside `T1_MDC`.

    So it is where every file in folders `Pre` and `Post` is called so too (`Post/P1_T1_POST`), and where `basale`
    stands at T1 alone, of people who have one after contrast at the same visit without it.
    """
    folders = [read for read in reads if {visit.lower() for visit in read.visits} & {"pre", "post"}]
    if folders and all(_repeats_contrast(one) for read in folders for one in read.each()):
        reads = _without_visits(reads, ("pre", "post"))
    before = [read for read in reads if {visit.lower() for visit in read.visits} & {"basal", "basale"}]
    if before and all({*read.words.roles} == {"T1"} for read in before):
        after = {(read.chain, read.visits) for read in reads if "T1ce" in read.words.roles}
        if all((read.chain, read.visits) in after for read in _without_visits(before, ("basal", "basale"))):
            reads = _without_visits(reads, ("basal", "basale"))
    return reads


def _without_visits(reads: Iterable[Read], words: Collection[str]) -> list[Read]:
    return [
        read._replace(visits=tuple(one for one in read.visits if one.lower() not in words)) if read.visits else read
        for read in reads
    ]


def _repeats_contrast(read: Read) -> bool:
    words = {word.lower() for word in _WORD.findall(read.word.tail)}
    return read.said.role in ("T1", "T1ce") and bool(words & {visit.lower() for visit in read.visits})


def _apart_by_field(reads: list[Read]) -> list[Read]:
    """Images of one patient in folders of several field strengths, `1.5T` and `3T`, are of several visits."""
    if not _FIELD.search("/".join([*[read.folder for read in reads], ""])):
        return reads
    found = {read.folder: match[1] for read in reads if (match := _FIELD.search(f"{read.folder}/"))}
    fields: dict[Chain, set[str]] = defaultdict(set)
    for read in reads:
        if read.folder in found and any(map(owns, read.chain)):
            fields[read.chain].add(found[read.folder])
    return [
        read._replace(visits=_visits(read.visits, (found[read.folder],)))
        if read.folder in found and len(fields.get(read.chain, ())) > 1
        else read
        for read in reads
    ]


def _apart_by_site(reads: Iterable[Read], persons: dict[Chain, Person]) -> tuple[dict[Chain, Person], list[str]]:
    """Patients of one name below several hospitals are several people, if the same image of a visit is below each."""
    sites = {chain: _site_of(chain, person.name) for chain, person in persons.items()}
    if len(set(sites.values()) - {""}) < 2:
        return persons, []
    seen: dict[tuple[str, str, tuple[str, ...], str], set[str]] = defaultdict(set)
    for read in _each(reads):
        if (site := sites[read.chain]) and read.said.role in MODALITIES:
            person = persons[read.chain]
            seen[person.name, person.visit, read.visits, read.said.role].add(site)
    twice = {key[0] for key, found in seen.items() if _are_apart(found)}
    if not twice:
        return persons, []
    shown = ", ".join(sorted(twice)[:4])
    told = f"names below several sites ({shown}) were read as one patient at each; if they are one, write a manifest"
    return {
        chain: person._replace(name=f"{sites[chain]}_{person.name}")
        if person.name in twice and sites[chain]
        else person
        for chain, person in persons.items()
    }, [told]


def _site_of(chain: Chain, name: str) -> str:
    """The place that a patient's name stands below; of a name of numbers alone whatever folder that is."""
    if is_numbers(name) and name in chain[1:]:
        return chain[chain.index(name, 1) - 1]
    return next(filter(is_site, reversed(chain[:-1])), "")


def _are_apart(sites: Collection[str]) -> bool:
    """Whether there are several, and none is another with words behind it, as `SiteA` and `SiteA_processed`."""
    return len([one for one in sites if all(_after(one, other) is one for other in sites if other != one)]) > 1


@lru_cache(maxsize=1 << 12)
def _split_of(path: str) -> str:
    """The part of a data set that a folder belongs to: `train`, `test`, …; empty where none is named."""
    for name in reversed(path.split("/")):
        if not name[-1:].isdecimal() and (match := _SPLIT.fullmatch(name)):  # none of its words ends in a digit
            return match["split"].lower()
    return ""


def _is_case(path: str, inside: Rows) -> bool:
    """Whether a folder whose name has a word for masks or modalities is a patient's: `GT_02/GT_02_FLAIR`, `ROI04/T1`.

    Its files repeat its name, or are called for several modalities, and no patient's folder is above.
    """
    above, _, name = path.rpartition("/")
    chain = _place(above).chain
    if not has_digit(name) or folder(name).said is None or (chain and owns(chain[-1])):
        return False
    stems = [stem(row[0]) for row in inside]
    rests = [rest for one in stems if one.startswith(name) and (rest := _after(one, name)) is not one]
    if rests:
        return all(rest and describe(rest).role is not None for rest in rests)
    alone = [_described(one) for one in stems]  # `ROI04/FLAIR` and `ROI04/T1`
    return len({said.role for parts, said in alone if not parts.text} & {*MODALITIES}) > 1


@lru_cache(maxsize=1 << 12)
def _place(path: str) -> Place:
    if not path:
        return _NOWHERE
    if dated := _DAY_FOLDERS.fullmatch(path):
        below = any(folder(name).text for name in dated["below"].split("/"))
        if below or any(map(owns, _place(dated["above"].rstrip("/")).chain)):
            path = "{above}{year}-{month}-{day}{below}".format_map(dated.groupdict())
    above, _, name = path.rpartition("/")
    base, like = _place(above), numbered_like(name)
    if like != name and not name.lower().startswith(_names_above(above)) and _adds_a_name(above, like):
        return _named_below(base, name)
    return _inside(base, folder(name))


def _named_below(above: Place, name: str) -> Place:
    """A folder that says nothing beside those above it but a name."""
    return above._replace(names=(*above.names, name), chain=(*above.chain, name))


@lru_cache(maxsize=1 << 10)
def _adds_a_name(above: str, name: str) -> bool:
    """Whether a folder says nothing beside those above it but a name that may be a person's."""
    base = _place(above)
    return _inside(base, folder(name)) == _named_below(base, name)


def _inside(above: Place, here: Folder) -> Place:
    chain = above.chain
    if here.study and any(map(owns, chain)):  # `VSD.Brain.XX.O.OT.70622` below a patient
        here = replace(here, text="", said=describe(here.text), mask=True)
    text = here.text or ("" if any(map(owns, chain)) else here.spare)
    if text and chain and here.visits and owns(chain[-1]) and (here.dated or not has_digit(text)):
        text = ""  # `01-02-2019-NA-BRAIN-12345` below a patient names the visit alone
    if text and chain and here.said is not None and not here.weak and not has_digit(text):
        text = ""  # `HD-GLIO-AUTO-segmentation` below a patient says what made the masks
    if here.behind and any(map(owns, chain)):
        text = ""  # `T1w_MPR_4e` below a patient describes a series
    for name in above.chain:
        text = _after(text, name) if text else text
    if text:
        chain = (*chain, text)
    timepoint = TIMEPOINT.fullmatch(here.raw)
    return Place(
        names=(*above.names, *dict.fromkeys(name for name in (here.raw, here.text, text) if name)),
        chain=chain,
        visits=_visits(above.visits, here.visits),
        said=here.said if here.said and not here.weak else above.said,
        mask=here.mask or (above.mask and not here.said),
        weak=here.text if here.weak else above.weak,
        agent=above.agent or here.agent,
        channels=above.channels or here.raw in ("imagesTr", "imagesTs", "labelsTr"),
        timepoint=here.raw if timepoint and not timepoint["rest"] else above.timepoint,
    )


def _read(path: str, row: Row, place: Place) -> Read:
    name = rest = stem(row[0])
    repeated = []
    whole = name  # with the last name that it repeats
    for known in place.names:
        shorter = _after(rest, known)
        if shorter is not rest:
            whole, rest = rest, shorter
            repeated.append(known)
    if not rest or (place.said and rest.isdecimal() and any(_begins_with(known, rest) for known in place.names)):
        word = Word(place.said or Said(None), weak=place.weak)
        return Read(path, (row,), place.chain, place.visits, Words((word,)))
    if place.channels and (channel := _CHANNEL.fullmatch(rest)):
        said = place.said if place.said and place.mask else Said(None, f"channel-{int(channel['channel'])}")
        word = Word(said, True, place.weak)
        return Read(path, (row,), (*place.chain, channel["case"]), place.visits, Words((word,)))
    parts, said = _described(rest)
    if place.channels and place.mask and has_digit(rest) and not (parts.text or parts.visits):
        word = Word(place.said or Said(MASK), True, place.weak)
        return Read(path, (row,), (*place.chain, rest), place.visits, Words((word,)))  # `labelsTr/MSSEG2_013`
    if repeated and any(map(owns, place.chain)) and not has_digit(parts.text) and _describes(repeated[-1], parts, said):
        parts = replace(parts, text="", tail=whole)  # `T1w/T1w_acpc`, `US/US-after`
        said = describe(whole)
    text, visits, chain = parts.text, place.visits, place.chain
    if parts.visits:
        visits = _visits(visits, parts.visits)
    if len(chain) > 1 and visits:
        chain = _case(repeated or [text], chain)
    if text and rest is name:
        text = _own(text, chain)
    if text:
        chain = (*chain, text)
    if not chain and parts.behind:
        chain = (parts.behind,)
    if not chain and visits and any(map(is_weak_visit, visits)):
        chain, visits = ("_".join(visits),), ()
    word = _after_agent(_judged(Word(said, said.role is not None, place.weak, parts.tail), place, rest), place)
    return Read(path, (row,), chain, visits, Words((word,)))


def _describes(above: str, parts: Cut, said: Said) -> bool:
    """Whether words behind a folder's name describe the image with it: a role or a contrast, and nobody's name."""
    if parts.text:
        return folder(above).said is not None
    return said.role == "T1ce" and not has_digit(above) and not folder(above).visits and not has_digit(parts.tail)


def _begins_with(name: str, number: str) -> bool:
    """Whether a name begins with a number, as that of a series' folder does: `5-t1_mprage`."""
    return name.startswith(number) and not name[len(number) : len(number) + 1].isdecimal()


@lru_cache(maxsize=1 << 12)
def _described(rest: str) -> tuple[Cut, Said]:
    """A name's parts, and what the words behind a person's say."""
    parts = cut(rest)
    return parts, describe(parts.tail) if parts.tail else Said(None)


def _judged(read: Word, place: Place, name: str) -> Word:
    """The role from the folders, where the file's own name says none, or lies among masks."""
    if place.said is None or read.said.role == BRAIN or (read.said.role == MASK and not read.said.weak):
        return read
    if place.mask:
        rank = place.said.rank
        if read.said.role == MASK:  # `segmentations/lesion` before `segmentations/brain`
            rank = min(rank - 2, read.said.rank)
        elif is_organ(name):  # `contours/GTV` before `contours/Brainstem`
            rank += _LAST
        own = read.said.role if read.said.role in MODALITIES else None
        return read._replace(said=replace(place.said, label=read.said.label, rank=rank), below=own)
    if read.said.role is None:
        return read._replace(said=replace(place.said, label=read.said.label))
    return read


def _after_agent(read: Word, place: Place) -> Word:
    """A T1 in a folder `contrast` is one after contrast."""
    if not place.agent or read.said.role != "T1":
        return read
    return read._replace(said=replace(read.said, role="T1ce"))


def _after(text: str, known: str) -> str:
    """A name without another one that it begins with."""
    if not text.startswith(known) and not text.lower().startswith(known.lower()):
        return text
    rest = text[len(known) :]
    return rest.lstrip(_SEPARATORS) if not rest or not rest[0].isalnum() else text


def _case(names: list[str], chain: Chain) -> Chain:
    """The chain up to the folder that a file's name repeats: below it and its visits nothing names a person."""
    repeated = [n for n, known in enumerate(chain) if any(_covers(name, known) is not None for name in names)]
    return chain[: repeated[-1] + 1] if repeated else chain


def _own(text: str, chain: Chain) -> str:
    """What a file's name says of a person beyond its folders."""
    for name in reversed(chain):
        if text.isdecimal() and (number := re.search(r"\d+$", name)) and int(number[0]) == int(text):
            return ""
        made = _MADE.fullmatch(text)  # `wr1001` below `1001` is what SPM made
        if _unpadded(name) in (_unpadded(text), made and _unpadded(made["name"])):
            return ""
        if (end := _covers(text, name)) is not None and not (
            name.isdecimal() and end < len(text) and text[0] != name[0]
        ):
            return text[end:].lstrip(_SEPARATORS)
        if _covers(name, text) is not None:
            return ""
    return text


def _covers(text: str, name: str) -> int | None:
    """Where a name ends inside of a text, word by word; None if it does not stand there."""
    place = text.lower().find(name.lower())
    end = place + len(name)
    if place < 0 or (place and text[place - 1].isalnum()) or (end < len(text) and text[end].isalnum()):
        return None
    return end


def _visits(above: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    if not own:
        return above
    known = {_plain(visit) for visit in above}
    return (*above, *(visit for visit in dict.fromkeys(own) if _plain(visit) not in known))


def _unpadded(text: str) -> str:
    """A name as it is the same in `P001` and `p-1`."""
    return _LEADING_ZEROS.sub("", _plain(text))


def _plain(text: str) -> str:
    return "".join(_WORD.findall(text)).lower()


def _with_timepoints(reads: list[Read], timed: Collection[str]) -> list[Read]:
    """T1 and T2 are time points where images of other kinds lie in folders so called, or `T1_T2` stands in names."""
    inside = _each(read for read in reads if read.folder in timed) if timed else []
    inside = [read for read in inside if read.word.own and read.said.role in MODALITIES]
    placed = bool(timed) and any(_odd(_place(read.folder).timepoint, read.said.role) for read in inside)
    names = _say(reads, lambda word: (match := _timepoint(word.tail)) and _contradicts(match))
    names = names or _differ_in_time({word.tail for read in reads for word in read.words.each})
    if not (placed or names):
        return reads
    return [_timed(read, placed, names) for read in _each(reads)]


def _odd(word: str, role: str | None) -> bool:
    """Whether an image of this role cannot be one of the modality that the word is."""
    return role in MODALITIES and role != word.upper() and (word.upper(), role) not in (("T2", "FLAIR"), ("T1", "T1ce"))


def _timepoint(tail: str) -> re.Match[str] | None:
    """T1, T2, … with more words behind."""
    match = TIMEPOINT.fullmatch(tail)
    return match if match and match["rest"] else None


def _differ_in_time(tails: Iterable[str]) -> bool:
    """Whether names of one channel differ in T1 and T2 alone: `T1_FLAIR_0000` and `T2_FLAIR_0000` show the same."""
    times: dict[str, set[str]] = defaultdict(set)
    for tail in tails:
        if (match := _timepoint(tail)) and _CHANNEL.fullmatch(match["rest"]) and _role_of_rest(match):
            times[match["rest"].lower()].add(match[1].upper())
    return any(len(found) > 1 for found in times.values())


def _role_of_rest(match: re.Match[str]) -> str | None:
    """The role of the words behind T1 or T2, where the first of them is one of an image or a mask by itself."""
    first = _WORD.search(match["rest"])
    if first is None or kind_of(first[0]) not in ("modality", "mask"):
        return None
    return describe(match["rest"]).role


def _contradicts(match: re.Match[str]) -> bool:
    """Whether the words behind T1 or T2 begin with another weight, or the same again: `T1_T2`, not `T1_FLAIR`."""
    return bool(re.match(r"t[12](?![0-9])", match["rest"], re.IGNORECASE))


def _timed(read: Read, folders: bool, names: bool) -> Read:
    visits = read.visits
    place = _place(read.folder)
    if folders and place.timepoint:
        visits = _visits(visits, (place.timepoint,))
        read = read._replace(chain=tuple(name for name in read.chain if name != place.timepoint))
    match = _timepoint(read.word.tail)
    if names and match and _role_of_rest(match):
        return read._replace(visits=_visits(visits, (match[1],))).saying(said=describe(match["rest"]), own=True)
    return read._replace(visits=visits)


# All together


def _split(reads: list[Read]) -> tuple[list[Read], list[Read]]:
    """Images and masks, and maps of anatomy."""
    if not _say(reads, lambda word: word.weak or word.said.role == BRAIN):
        return reads, []
    reads = _each(reads)
    weak = _masks_by_folder(reads)
    reads = [
        read.saying(said=replace(read.said, role=MASK, rank=6))
        if read.entry.path in weak and read.said.role is None
        else read
        for read in reads
    ]
    reads = [
        read._replace(chain=tuple(name for name in read.chain if name != read.word.weak))
        if read.entry.path in weak
        else read
        for read in reads
    ]
    return [r for r in reads if r.said.role != BRAIN], [r for r in reads if r.said.role == BRAIN]


def _of_named_lesions(reads: list[Read]) -> list[Read]:
    """`lesion_P01`, of which nothing says that it is an image, is the mask of `P01` beside it; so is `P01/lesion_1`."""
    chains = {read.chain for read in reads}
    whose = {chain: found[0] for chain in chains if (found := [one for one in _without_lesion(chain) if one in chains])}
    if not whose:
        return reads
    silent = {read.chain for read in reads} - {read.chain for read in reads if {*read.words.roles} != {None}}
    return [
        one.saying(said=Said(MASK, one.said.label, 6, weak=True))._replace(chain=whose[one.chain])
        if one.chain in whose and one.chain in silent
        else one
        for read in reads
        for one in (read.each() if read.chain in whose else (read,))
    ]


def _below_patients(reads: list[Read]) -> list[Read]:
    """A folder whose files are called for the one above is a visit of this patient: `GK.102/Course_47/GK.102_T1`.

    So it is if several patients are above; `BRATS2021/case_1/BRATS2021_T1` is called for the study.
    """
    inside: dict[Chain, set[str]] = defaultdict(set)
    for read in reads:
        if _is_called_for_above(read):
            inside[read.chain[:-1]].add(read.chain[-1])
    siblings = Counter(chain[:-1] for chain in inside)
    outer = {chain for chain in inside if siblings[chain[:-1]] > 1 and len(inside[chain]) <= FEW}
    if not outer:
        return reads
    return [
        one._replace(chain=one.chain[:-1], visits=_visits(one.visits, one.chain[-1:]))
        if one.chain[:-1] in outer and one.chain[-1] in inside[one.chain[:-1]]
        else one
        for read in reads
        for one in (read.each() if read.chain[:-1] in outer else (read,))
    ]


def _is_called_for_above(read: Read) -> bool:
    """Whether a file's name begins with that of the folder above its own, which may be a patient's."""
    if len(read.chain) < 2 or len(read.rows) > 1 or not (has_digit(read.chain[-1]) and owns(read.chain[-2])):
        return False
    name, above = read.rows[0][0], read.chain[-2]
    within = f"/{read.folder}/"
    return (
        f"/{above}/{read.chain[-1]}/" in within
        and (rest := _after(name, above)) is not name
        and _covers(rest, read.chain[-1]) is None
    )


def _of_people_behind_visits(reads: list[Read]) -> list[Read]:
    """`BL_001` and `FU_001` are visits of patient 001, where nobody else is named and another visit has this number."""
    found: dict[int, tuple[Chain, str]] = {}
    for read in reads:
        if len(read.visits) == 1 and not any(map(owns, read.chain)) and (match := _VISIT_OF.fullmatch(read.visits[0])):
            found[id(read)] = (*read.chain, match["name"]), match["visit"]
    if not found:
        return reads
    visits: dict[Chain, set[tuple[str, ...]]] = defaultdict(set)
    for read in reads:
        chain, *named = found.get(id(read), (read.chain,))
        visits[chain].add(tuple(named) or read.visits)
    whose = {chain for chain, _ in found.values()}
    if len(whose) < 2 or max(len(visits[chain]) for chain in whose) < 2:
        return reads
    return [
        read._replace(chain=found[id(read)][0], visits=found[id(read)][1:]) if id(read) in found else read
        for read in reads
    ]


def _of_coded_people(reads: list[Read]) -> tuple[list[Read], list[str]]:
    """`BL04` and `01M` are patients where nobody else is named and they cannot be visits of one.

    So it is where others are called like them (`KM05`, `02F`), where one patient would have several baselines, or more
    visits than anybody has, and where visits that repeat stand below them.
    """
    found: dict[int, tuple[Chain, str, Chain]] = {}
    for read in reads:
        if read.visits and _CODE.fullmatch(code := read.visits[0]):
            above = f"{read.folder}/{read.rows[0][0]}".partition(code)[0]
            below = tuple(name for name in read.chain if VISIT_LETTER.fullmatch(name) and name not in above)
            base = tuple(name for name in read.chain if name not in below)
            if not any(map(owns, base)):
                found[id(read)] = base, code, below
    if not found:
        return reads, []
    codes: dict[Chain, dict[str, set[Chain]]] = defaultdict(lambda: defaultdict(set))
    for read in reads:
        if id(read) in found:
            base, code, below = found[id(read)]
            codes[base][code].add(below + read.visits[1:])
    others = {read.chain for read in reads if id(read) not in found}
    people = {base for base in codes if _cannot_be_visits(base, codes, others)}
    coded = {read: (*base, code, *below) for read, (base, code, below) in found.items() if base in people}
    reads = [
        read._replace(chain=coded[id(read)], visits=read.visits[1:]) if id(read) in coded else read for read in reads
    ]
    return reads, as_patients({code for base, code, _ in found.values() if base in people})


def _cannot_be_visits(
    base: Chain, codes: Mapping[Chain, Mapping[str, Collection[Chain]]], others: Collection[Chain]
) -> bool:
    """Whether the codes that stand side by side below `base`, each with what stands below it, are no visits."""
    mine, depth = codes[base], len(base)
    beside = {_letters(chain[depth]) for chain in others if len(chain) > depth and chain[:depth] == base}
    if len(codes) == 1 and beside & {*map(_letters, mine)}:
        return True
    below = [visit for visits in mine.values() for visit in visits if visit]
    repeat = len({*below}) < len(below) and max(map(len, mine.values())) > 1
    alone = not any(code in other for code in mine for one, other in codes.items() if one != base)
    baselines = alone and len(mine) > 1 and all(code[:2].lower() == "bl" for code in mine)
    return repeat or baselines or len(mine) > MANY


def _letters(name: str) -> str:
    """The form of a name: `AA99` of `BL04` and `KM05`."""
    return re.sub(r"[^\W\d_]", "A", re.sub(r"\d", "9", name))


class _Numbered(NamedTuple):
    """A name that ends in a number behind a modality: who is above it, the word before, the image, the number."""

    above: Chain
    text: str
    role: str
    number: str

    @property
    def owner(self) -> Chain:
        return (*self.above, self.text) if self.text else self.above


def _of_numbers_behind(reads: list[Read]) -> tuple[list[Read], list[str]]:
    """`fsm_t1_110` and `fsm_t2_110` are of one patient, `fsm_110`, where no name above has a number.

    Numbers that stand behind several such names are visits. A series' number stands at one kind of image, is not filled
    with zeros, and its folder does not hold a mask of its own.
    """
    found: dict[int, _Numbered] = {}
    held: dict[str, dict[_Numbered, set[str | None]]] = defaultdict(lambda: defaultdict(set))
    for read in reads:
        if any(map(owns, read.chain)):
            continue
        above, _, name = read.folder.rpartition("/")
        for place, where in ((above, name), (read.folder, stem(read.rows[0][0]))):
            if one := _numbered(place, where):
                found[id(read)] = one
                if one.role != MASK:  # masks of parts may be numbered too
                    held[place][one] |= {*read.words.roles}
                break
    people = {one for numbers in held.values() if _are_patients(numbers, len(held) < 2) for one in numbers}
    numbers: dict[Chain, set[str]] = defaultdict(set)
    for one in people:
        numbers[one.owner].add(one.number)
    times = Counter(number for several in numbers.values() for number in several)
    visits = len(numbers) > 1 and max(times.values()) > 1 and max(map(len, numbers.values())) <= FEW
    known = {one._replace(role="") for one in people}
    named = {read: one for read, one in found.items() if one._replace(role="") in known}
    reads = [_with_number(read, named[id(read)], visits) if id(read) in named else read for read in reads]
    if visits:
        return reads, [as_visits(times, "numbers behind kinds of images")]
    return reads, as_patients({"_".join(filter(None, (one.text, one.number))) for one in people})


def _with_number(read: Read, one: _Numbered, visit: bool) -> Read:
    if visit:
        return read._replace(chain=one.owner, visits=_visits(read.visits, (one.number,)))
    return read._replace(chain=(*one.above, "_".join(filter(None, (one.text, one.number)))))


@lru_cache(maxsize=1 << 12)
def _numbered(place: str, name: str) -> _Numbered | None:
    match = _NUMBER_LAST.fullmatch(name)
    if match is None or (match["rest"] and describe(match["rest"]).role != MASK):
        return None
    code = match["number"]
    if not code.isdecimal() and (kind_of(code) != "id" or VISIT_LETTER.fullmatch(code) or _SERIES.fullmatch(code)):
        return None
    parts, said = _described(match["what"])
    if said.role in (None, BRAIN) or has_digit(parts.text):
        return None
    return _Numbered(_place(place).chain, parts.text, said.role or "", match["number"])


def _are_patients(numbers: Mapping[_Numbered, Collection[str | None]], alone: bool) -> bool:
    """Whether numbers in one folder, each with the roles of what it stands at, are no series'.

    Nor are those with letters, and those of five digits or more in the only folder (`alone`).
    """
    kinds = Counter((one.text, one.number) for one in numbers)
    images = Counter((one.text, one.role) for one in numbers)
    filled = any(one.number[0] == "0" for one in numbers) and all(len(one.number) > 2 for one in numbers)
    long = alone and all(len(one.number) >= _LONG_NUMBER for one in numbers)
    filled = filled or long or not any(one.number.isdecimal() for one in numbers)
    if max(images.values()) > 1 and (filled or max(kinds.values()) > 1):
        return True
    return len(numbers) > 1 and all(MASK in roles and len({*roles}) > 1 for roles in numbers.values())


def _of_numbered_scans(reads: list[Read]) -> tuple[list[Read], list[str]]:
    """`project/t1/scan1` and `project/flair/scan1`, where all is so: each number of a scan is a person's."""
    chains = {read.chain for read in reads}
    visits = {read.visits for read in reads}
    numbered = all(len(one) == 1 and is_weak_visit(one[0]) for one in visits)
    if len(chains) > 1 or len(visits) < 2 or not numbered or any(map(owns, *chains)):
        return reads, []
    if any(_place(read.folder).said is None for read in reads) or len({read.folder for read in reads}) < 2:
        return reads, []
    told = as_patients({visit for (visit,) in visits})
    return [read._replace(chain=read.visits, visits=()) for read in reads], told


def _without_lesion(chain: Chain) -> list[Chain]:
    """The chain without a word for what masks show before its last name, or before a lesion's number."""
    match = _LESION_OF.fullmatch(chain[-1]) if chain else None
    if not match or kind_of(match["word"]) != "weak":
        return []
    above = tuple(name for name in chain[:-1] if kind_of(name) != "weak")
    counted = match["name"].isdecimal() and len(match["name"]) < _LONG_COUNT
    return [(*chain[:-1], match["name"]), *([above] if counted and above else [])]


def _masks_by_folder(reads: list[Read]) -> set[str]:
    """Files in folders such as `lesion` that are no images by name, where images of the same names lie elsewhere."""
    elsewhere = {read.chain for read in reads if not read.word.weak}
    return {
        read.entry.path
        for read in reads
        if read.word.weak
        and read.said.role in (None, MASK)
        and tuple(name for name in read.chain if name != read.word.weak) in elsewhere
    }


def _of_originals(reads: list[Read]) -> list[Read]:
    """`P4 (1)` beside `P4` is what an explorer calls a copy of it, if it has images of the same kinds alone.

    `Patient (2)` beside `Patient` is somebody else, unless sizes are the same too, and so is `Patient (1)` without it.
    """
    copies = {read.chain for read in reads if any([name.endswith(")") for name in read.chain])}
    if not copies:
        return reads
    reads = _each(reads)
    held: dict[Chain, set[tuple[str | None, int]]] = defaultdict(set)
    for read in reads:
        held[read.chain].add((read.said.role, read.entry.bytes))
    whose = {}
    for chain in copies:
        matches = [_COPY.fullmatch(name) for name in chain]
        whole = tuple(match["name"] if match else name for match, name in zip(matches, chain, strict=True))
        there = held.get(whole, set())
        kinds = {role for role, _ in held[chain]} <= {role for role, _ in there}
        if held[chain] <= there or (kinds and has_digit(whole[-1])):
            whose[chain] = whole
    return [read._replace(chain=whose.get(read.chain, read.chain)) for read in reads]


def _uses(reads: Iterable[Read]) -> dict[Chain, Use]:
    return together((read.chain, _use(read)) for read in reads)


def _use(read: Read) -> Use:
    use = read.words.use
    if read.words.timed and read.chain and read.rows[0][0].startswith(f"{read.chain[-1]}-"):
        use = use._replace(timed=True)
    return use._replace(visits=frozenset({read.visits}), bare=frozenset()) if read.visits else use


class _Item(NamedTuple):
    """Files with the scan that they belong to; `entry`, `said` and `label` are those of the only one."""

    read: Read
    subject: str
    visits: tuple[str, ...]
    named: str = ""  # what tells the images of a person apart beside their own words

    @property
    def entry(self) -> Entry:
        return self.read.entry

    @property
    def said(self) -> Said:
        return self.read.said

    @property
    def label(self) -> str:
        return self.named or (self.said.label if self.said.label not in _COMMON else "")

    @property
    def stated(self) -> tuple[str, ...]:
        """The visits that words tell, not the archive as a whole."""
        return self.read.visits

    @property
    def session(self) -> str:
        return "_".join(self.visits) or "1"


def _items(found: Iterable[_Item]) -> list[_Item]:
    """One for each file."""
    return [item._replace(read=read) for item in found for read in item.read.each()]


def _found(read: Read, person: Person, origin: str) -> _Item:
    visits = _visits(read.visits, (person.visit,)) if person.visit else read.visits
    return _Item(read, person.name or origin, visits, person.label)


def _shown(found: list[_Item]) -> list[_Item]:
    """Images such as `Lesion_FLAIR` are masks where the same scan has a `FLAIR` too."""
    if not _say((item.read for item in found), lambda word: word.said.shown):
        return found
    found = _items(found)
    plain = {(item.subject, item.visits, item.said.role) for item in found if not item.said.shown}
    return [
        item._replace(read=item.read.saying(said=replace(item.said, role=MASK, rank=4)))
        if item.said.shown and (item.subject, item.visits, item.said.role) in plain
        else item
        for item in found
    ]


def _visited_by_folder(found: list[_Item]) -> list[_Item]:
    """Images of one kind in several folders of a patient are of several visits, as in `1. MRT` and `2. MRT`.

    Not where a folder's name tells a role, or how its files were kept or made: then they are copies.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[_Item]] = defaultdict(list)
    for item in found:
        groups[item.subject, item.visits].append(item)
    if len(groups) == len(found):
        return found
    visit: dict[tuple[str, tuple[str, ...], str], str] = {}
    for (subject, visits), items in groups.items():
        roles = [role for item in items for role in {*item.read.words.roles} & {*MODALITIES}]
        folders = {item.read.folder for item in items}
        if len(roles) == len({*roles}) or len(folders) < 2:
            continue
        depth = _shared_depth(folders)
        above = min(folders).split("/")[:depth]
        names = {folder: folder.split("/")[depth:][:1] for folder in folders}
        theirs = any(subject.lower().endswith(name.lower()) for name in above)
        if theirs and all(name and may_be_a_visit(name[0]) for name in names.values()):
            visit |= {(subject, visits, folder): name for folder, (name,) in names.items()}
    if not visit:
        return found
    places = [(item, visit.get((item.subject, item.visits, item.read.folder))) for item in found]
    return [item._replace(visits=_visits(item.visits, (name,))) if name else item for item, name in places]


def _visited_by_word(found: list[_Item]) -> tuple[list[_Item], list[str]]:
    """Images of one kind beside whose words stands one that several kinds of images share are of several visits.

    So are `T1_1`, `T2_1`, `T1_2` and `T2_2`, or `SCR_T1`, …; of letters for visits, as in `T1_V1`, one kind is enough.
    """
    one_each = len({(item.subject, item.visits) for item in found}) == len(found)
    if one_each and all(item.read.words.apart for item in found):
        return found, []
    groups: dict[tuple[str, tuple[str, ...]], list[_Item]] = defaultdict(list)
    for item in found:
        groups[item.subject, item.visits].append(item)
    ends: dict[tuple[str, tuple[str, ...]], Collection[str]] = {}
    for key, items in groups.items():
        roles = [role for item in items for role in item.read.words.roles if role in MODALITIES]
        if len({*roles}) < len(roles) and (codes := _visits_beside(items)):
            ends[key] = codes
    if not ends:
        return found, []
    result = []
    for item in found:
        mine = ends.get((item.subject, item.visits), ())
        for one in _items([item]) if mine else [item]:
            last = [word for word in _WORD.findall(stem(one.entry.name)) if word in mine][-1:] if mine else []
            result.append(one._replace(visits=_visits(one.visits, tuple(last))))
    return result, [as_visits({code for codes in ends.values() for code in codes}, "words beside kinds of images")]


def _visits_beside(items: Iterable[_Item]) -> Collection[str]:
    """The words beside those for what a patient's images are, if they tell visits apart; else nothing."""
    roles: dict[str, list[str]] = defaultdict(list)
    for item in _items(items):
        if item.said.role in MODALITIES:
            codes = [word for word in _WORD.findall(item.read.word.tail) if kind_of(word) in ("id", "number")]
            if len(codes) != 1 or _SERIES.fullmatch(codes[0]) or not _CODE_BESIDE.fullmatch(codes[0]):
                return ()
            roles[codes[0]].append(item.said.role)
    apart = all(len(kinds) == len({*kinds}) for kinds in roles.values())
    letters = all(VISIT_LETTER.fullmatch(code) for code in roles) or are_days(roles)
    several = 1 < len(roles) <= MANY and apart and (letters or min(map(len, roles.values())) > 1)
    return roles.keys() if several else ()


def _shared_depth(folders: Iterable[str]) -> int:
    """How many folders above they share."""
    shared = os.path.commonpath([*folders])
    return len(shared.split("/")) if shared else 0


def _of_one_spelling(found: list[_Item]) -> tuple[list[_Item], list[str]]:
    """`pat01` is `Pat01`, and `P1` is `P01`, unless both have the same image of the same visit; either is told."""
    spelled: dict[str, dict[str, list[_Item]]] = defaultdict(dict)
    subjects = {item.subject for item in found}
    if len({_LEADING_ZEROS.sub("", subject.lower()) for subject in subjects}) == len(subjects):
        return found, []
    for subject in subjects:
        spelled[_LEADING_ZEROS.sub("", subject.lower())][subject] = []
    for item in found:
        spelled[_LEADING_ZEROS.sub("", item.subject.lower())][item.subject].append(item)
    alias: dict[str, str] = {}
    apart: list[str] = []
    for names in spelled.values():
        if len(names) > 1:
            every = [image for items in names.values() for image in _images(items)]
            if len(every) > len({*every}):
                apart += names
            else:
                first = max(sorted(names), key=len)
                alias |= {name: first for name in names if name != first}
    readings = (
        (sorted(alias), "that differ from others in case or zeros were read as theirs; if not"),
        (sorted(apart), "that differ in case or zeros alone were read as several patients; if they are one"),
    )
    told = [f"names ({examples(some)}) {reading}, write a manifest" for some, reading in readings if some]
    if not alias:
        return found, told
    return [item._replace(subject=alias.get(item.subject, item.subject)) for item in found], told


def _images(items: Iterable[_Item]) -> set[tuple[tuple[str, ...], str | None]]:
    """The visit and role of each image."""
    return {(item.visits, role) for item in items for role in item.read.words.roles if role != MASK}


def _with_images(found: list[_Item]) -> tuple[list[_Item], list[Rejected]]:
    """Masks are brought to the scan that they name: of their person, of their name, or the only one beside them."""
    lone = [item for item in found if item.read.words.masks == len(item.read.rows)]
    imaged = {(item.subject, item.visits) for item in found if item.read.words.masks < len(item.read.rows)}
    if all((item.subject, item.visits) in imaged for item in lone):
        return found, []
    found = _items(found)
    sessions: dict[str, dict[tuple[str, ...], _Item]] = defaultdict(dict)
    folders: dict[str, dict[tuple[str, tuple[str, ...]], _Item]] = defaultdict(dict)
    for item in found:
        if item.said.role != MASK:
            sessions[item.subject].setdefault(item.visits, item)
            folders[item.read.folder].setdefault((item.subject, item.visits), item)
    ends: dict[str, set[str]] = defaultdict(set)
    for subject in sessions:
        for place, letter in enumerate(subject):
            if letter in _SEPARATORS:
                ends[subject[place + 1 :]].add(subject)
    kept: list[_Item] = []
    rejected: list[Rejected] = []
    for item in found:
        if item.said.role != MASK or item.visits in sessions.get(item.subject, {}):
            kept.append(item)
            continue
        scans = _candidates(item, sessions, ends, folders)
        if len(scans) == 1:
            kept.append(item._replace(subject=scans[0].subject, visits=scans[0].visits))
        elif scans:
            message = f"{item.entry.path} is a mask that names none of the {len(scans)} scans that it may belong to"
            remedy = "name it like the images that it belongs to, or use a manifest"
            rejected.append(reject([item.entry], Reason.MASK_MISMATCH, message, remedy))
        else:
            kept.append(item)
    return kept, rejected


def _candidates(
    item: _Item,
    sessions: Mapping[str, Mapping[tuple[str, ...], _Item]],
    ends: Mapping[str, set[str]],
    folders: Mapping[str, Mapping[tuple[str, tuple[str, ...]], _Item]],
) -> list[_Item]:
    subject = item.subject
    if subject not in sessions and len(ends.get(subject, ())) == 1:
        (subject,) = ends[subject]
    if subject not in sessions:  # `seg_ARE`, where `ARE` is a patient
        words = {word for word in _WORD.findall(stem(item.entry.name)) if not word.isdecimal() or len(word) > 4}
        named = {whole for word in words for whole in ({word} & sessions.keys() or ends.get(word, set()))}
        subject = named.pop() if len(named) == 1 else subject
    scans = list(sessions.get(subject, {}).values())
    if not scans and not item.visits and item.subject not in sessions and _repeats_nothing(item):
        scans = list(folders.get(item.read.folder, {}).values())
    for visits in (item.visits, item.stated):
        own = {_plain(visit) for visit in visits}
        fitting = [one for one in scans if own <= {_plain(visit) for visit in one.visits}]
        if fitting:
            return fitting
    return scans if len(scans) == 1 and not scans[0].visits else [one for one in scans if not one.visits]


def _repeats_nothing(item: _Item) -> bool:
    return not cut(stem(item.entry.name)).text


def _without_parts(found: list[_Item]) -> tuple[list[_Item], list[Rejected]]:
    """Without the masks of scans that have one for each part of a lesion, or each lesion, and none of all.

    Nobody knows their sum.
    """
    masks: dict[tuple[str, tuple[str, ...]], list[_Item]] = defaultdict(list)
    for item in found:
        if item.read.words.masks:
            masks[item.subject, item.visits].append(item)
    rejected: list[Rejected] = []
    gone: set[str] = set()
    for items in masks.values():
        if sum([item.read.words.masks for item in items]) < 2:
            continue
        every = [item for item in _items(items) if item.said.role == MASK]
        drawn = [item for item in every if not is_by_program(item.entry.path)]
        parts = [regions_of(stem(item.entry.name)) for item in drawn or every]
        if len(parts) < 2 or not all(parts) or len({*parts}) < 2:
            continue
        named = ", ".join(sorted({name for one in parts for name in one}))
        for item in every:
            message = f"{item.entry.path} is the mask of one part of a lesion beside others ({named})"
            remedy = "put them into one file with a number for each part, or name one of them in a manifest"
            rejected.append(reject([item.entry], Reason.UNKNOWN_LABELS, message, remedy))
            gone.add(item.entry.path)
    return [item for item in _items(found) if item.entry.path not in gone] if gone else found, rejected


def _one_per_role(found: Iterable[_Item]) -> list[Found | Together]:
    """The best file of each modality and the best mask first; images of other kinds are told apart by their words."""
    scans: dict[tuple[str, tuple[str, ...]], list[_Item]] = defaultdict(list)
    for item in found:
        scans[item.subject, item.visits].append(item)
    result: list[Found | Together] = []
    for files in scans.values():
        first = files[0]
        read, words = first.read, first.read.words
        if len(files) == 1 and isinstance(read.rows, Rows) and (roles_of := words.apart):
            whole = Files(f"{read.folder}/" if read.folder else "", read.rows, roles_of)
            like = words if words.numbered and first.subject == read.rows.start else None
            result.append(Together(0, first.subject, first.session, whole, like))
            continue
        items = _items(files)
        roles = [item.said.role for item in items]
        copies = _copies(items) if len(set(roles)) < len(roles) else [items]
        alone = len(items) > 1 and MASK not in roles and not set(roles) & {*MODALITIES}
        copies, spare = _with_spares(copies)
        for place, copy in enumerate(copies):
            result += _alone(copy) if alone else _together(copy, place, spare)
    return result


def _together(items: list[_Item], place: int, spare: Collection[str]) -> Iterator[Found]:
    """Files of one scan, of which those are told that are `spare`."""
    taken: Counter[str] = Counter()
    for item in sorted(items, key=_precedence):
        role = item.said.role or item.label or IMAGE
        if role not in MODALITIES and role != MASK:
            role = _free(role, item.label, taken)
        taken[role] += 1
        path = item.entry.path
        yield Found(place, item.subject, item.session, role, item.entry, rank=taken[role], spare=path in spare)


def _precedence(item: _Item) -> tuple[int, int, int, str]:
    """The best mask first, of parts late, a program's last; of images that whose words for its weight are fewest."""
    if item.said.role == MASK:
        whole = not regions_of(stem(item.entry.name))
        rank = 0 if is_best(stem(item.entry.name)) else item.said.rank
        return is_by_program(item.entry.path), not whole, rank, item.entry.path
    words = item.said.label.lower()
    weight = {"T1ce": "t1", "FLAIR": "fl"}.get(item.said.role or "", (item.said.role or "").lower())
    return weight not in words, len(words.split("-")), len(words), item.entry.path


def _alone(items: list[_Item]) -> Iterator[Found]:
    """Images of which no name says what they are, nor that they belong together: a scan of its own each."""
    taken: Counter[str] = Counter()
    for item in sorted(items, key=_precedence):
        word = _free(item.label or "image", "", taken)
        taken[word] += 1
        session = "_".join((*item.visits, word))
        yield Found(0, item.subject, session, item.said.role or IMAGE, item.entry)


def _copies(items: list[_Item]) -> list[list[_Item]]:
    """The files of a visit that lie twice in an archive, as in `raw/` and `processed/`, apart, never mixed."""
    depth = _shared_depth([item.read.folder for item in items])
    parts: dict[str, list[_Item]] = defaultdict(list)
    for item in items:
        below = item.entry.path.split("/")[depth:]
        parts[below[0] if len(below) > 1 else ""].append(item)
    mains = {name: {one.said.role for one in part} & {*MODALITIES} for name, part in parts.items()}
    usable = [name for name in parts if mains[name] or len(mains) == 1]
    first = min(usable, key=lambda name: (name.lower() != "pre", name)) if any(mains.values()) else ""
    if not any(mains[name] & mains[other] for name in mains for other in mains if name < other):
        return [items]
    kept: list[tuple[set[str | None], list[_Item]]] = []
    for name in sorted(mains, key=lambda name: (name != first, -len(mains[name]), name)):
        fitting = [one for one in kept if not one[0] & mains[name]]
        if fitting or (kept and not mains[name]):
            roles, files = fitting[0] if fitting else kept[0]
            roles |= mains[name]
            files += parts[name]
        else:
            kept.append((set(mains[name]), list(parts[name])))
    return [files for _, files in kept]


def _with_spares(copies: list[list[_Item]]) -> tuple[list[list[_Item]], set[str]]:
    """Copies of a scan, the one that stays with what the others alone have of modalities, and the paths of that.

    So it is where folders tell how files were made, as `raw` and `processed`. Elsewhere copies may be of two people.
    """
    if len(copies) < 2:
        return copies, set()
    depth = _shared_depth([item.read.folder for copy in copies for item in copy])
    names = {folder for copy in copies for item in copy for folder in item.read.folder.split("/")[depth:][:1]}
    if any(map(may_be_a_visit, names)):
        return copies, set()
    first, *others = sorted(copies, key=_standing)
    roles = {item.said.role for item in first}
    given: dict[str | None, _Item] = {}
    for item in sorted((item for copy in others for item in copy), key=_precedence):
        if item.said.role in MODALITIES and item.said.role not in roles:
            given.setdefault(item.said.role, item)
    spare = {item.entry.path for item in given.values()}
    left = [[item for item in copy if item.entry.path not in spare] for copy in others]
    return [[*first, *given.values()], *left], spare


def _standing(copy: list[_Item]) -> tuple[bool, bool, bool, str]:
    path = min(copy, key=lambda item: (role_order(item.said.role or IMAGE), item.entry.path)).entry.path
    return standing(path, any(item.said.role == MASK for item in copy))


def _free(role: str, label: str, taken: Mapping[str, int]) -> str:
    """A name for an image of another kind that no other of its scan has."""
    wanted = role if role not in taken else f"{role}-{label}" if label and label != role else f"{role}-2"
    number = 2
    while wanted in taken or wanted in MODALITIES or wanted == MASK:
        number += 1
        wanted = f"{role}-{number}"
    return wanted


def _others(entry: Entry, companions: Companions) -> Iterator[str]:
    return (other.path for other in companions.get(entry.path, ()))
