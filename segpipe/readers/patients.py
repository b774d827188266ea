"""Whose a DICOM series is, where PatientID does not say it: placeholders, and one ID of several people.

What is compared are keyed hashes of birth date, sex, name and issuer of the ID. Where these leave doubt, one subject is
kept, because two of one patient could fall into two splits, and it is told.
"""

import hashlib
import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import astuple, dataclass, field

from segpipe.readers.dicom_tags import Elements

BIRTH, SEX, NAME, ISSUER = range(4)
_MOST_PEOPLE = 64  # of one PatientID; one that stands for more is a placeholder
_SEVERAL = 3  # birth dates of one name, or names of one birth date, which then tell nobody from anybody
_MANY_STUDIES = 24  # more than one patient is likely to have: every second month for four years
_NO_BIRTH = ("99991231", "99999999")
_DAY_UNKNOWN = ("0101", "0000")  # how a date is written that was cut to its year, or of which no more is known
_WHAT = "(?:patient|subject|person|user|data|study|name|id)"
_HIDDEN = (
    r"anon|anonym(?:[oea]|e[mnrs]|ous|us|i[sz](?:e|ed|ee|er|iert|erad|eret|ado|ada|ation|ierung))?"
    r"|anoniem|anonim(?:[oa]|i[sz](?:ado|ada|zato|zata|e)|owy)|geanonimi?seerd|geanonymi?seerd|zanonimizowany"
    r"|deid|deidentifi(?:ed|e|er|cation|ziert)|desidentificad[oa]|pseudo|pseudonym(?:ous|e|i[sz](?:e|ed|iert))?"
)
_PLACEHOLDER = re.compile(
    rf"{_WHAT}*(?:{_HIDDEN}){_WHAT}*"
    r"|dummy|unknown|unidentified|unspecified|undefined|unbekannt|inconnu|desconocido"
    r"|desconhecido|sconosciuto|onbekend|none|null|nil|na|nan|no(?:id|pid|name|patientid|patientname|data|value)"
    r"|patient|patients|paciente|paziente|subject|person|(?:pat|patient|subject)?(?:id|name)|(?:test)?(?:patient)?test"
    r"|testpatient|removed|redacted|hidden|private|confidential|blank|empty|default|notavailable|deleted|geloe?scht|masked"
    r"|(?:john|jane)doe|doe(?:john|jane)?|x+|0+|9{6,}"
)


def as_spelled(patient: str) -> str:
    """An ID as it is the same however it was typed.

    >>> as_spelled("GBM_012"), as_spelled("gbm-12 "), as_spelled("1-11") == as_spelled("11-1")
    ('gbm-12', 'gbm-12', False)
    """
    return "-".join(re.sub(r"(?<!\d)0+(?=\d)", "", word) for word in re.findall(r"[^\W_]+", patient.casefold()))


def is_placeholder(text: str) -> bool:
    """Whether an ID or a name is a word that stands for nobody.

    >>> [is_placeholder(text) for text in ("ANONYMOUS", "Anonymized^^", "000000", "-", "ANON-0017", "ANONKXQZ", "")]
    [True, True, True, True, False, False, False]
    """
    plain = _plain(text)
    return bool(text) and (not plain or _PLACEHOLDER.fullmatch(plain) is not None)


def marks(elements: Elements) -> tuple[str, str, str, str]:
    """Birth date, sex, name and issuer of the ID as a header says them; empty where they say nothing of a person.

    The words of a name stand in order. A birth date of which only the year is known may be that of many.
    """
    birth = "".join(digit for digit in elements.text("PatientBirthDate") if digit in "0123456789")
    sex = elements.text("PatientSex").upper()
    name = elements.words_of_people("PatientName")
    return (
        birth if len(birth) == 8 and birth not in _NO_BIRTH and not birth.endswith(_DAY_UNKNOWN) else "",
        sex if sex in ("M", "F") else "",
        "" if is_placeholder(name) else " ".join(sorted(_plain(part) for part in re.split(r"[\W_]+", name) if part)),
        _plain(elements.text("IssuerOfPatientID")),
    )


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text).casefold()
    return "".join(letter for letter in letters if letter.isalnum())


@dataclass
class Study:
    """A study of one PatientID: the hashes that its headers have of each mark, and the ids of its series.

    The hash of a name is that of each of its words, with a space between.
    """

    name: str
    said: tuple[set[str], ...] = field(default_factory=lambda: (set(), set(), set(), set()))
    series: set[str] = field(default_factory=set)

    def add(self, series: str, person: Sequence[str]) -> None:
        """Take in one of its series, and what that says of its patient."""
        self.series.add(series)
        for said, mark in zip(self.said, person, strict=False):
            said |= {mark} - {""}

    @property
    def tells(self) -> bool:
        """Whether it says whose it is."""
        return bool(self.said[BIRTH] or self.said[NAME])


@dataclass(frozen=True)
class Shared:
    """What became of PatientIDs that say too little: counts to tell."""

    placeholders: int = 0
    people: int = 0
    alone: int = 0
    parted: int = 0
    doubtful: int = 0
    silent: int = 0
    crowded: int = 0
    alike: int = 0
    namesakes: int = 0
    spelled: int = 0

    def __add__(self, other: "Shared") -> "Shared":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Shared(*(one + more for one, more in pairs))

    @property
    def sentences(self) -> list[str]:
        """What a user should know, without a name."""
        told = []
        if self.placeholders:
            whose = f"{self.people} subjects by birth date, sex and name"
            rest = f", {self.alone} of them by themselves, because they have neither" if self.alone else ""
            told.append(f"PatientID is a placeholder in {self.placeholders} studies: these are {whose}{rest}")
        if self.silent:
            told.append(
                f"{self.silent} PatientIDs are placeholders of a few studies that do not tell of several people: each"
                " is one subject; if it is several, name these in a manifest"
            )
        if self.crowded:
            told.append(
                f"{self.crowded} subjects whose PatientID is a placeholder have more than {_MANY_STUDIES} studies each,"
                " by a birth date or name that several people may share: name the subjects in a manifest"
            )
        if self.parted:
            marks = "birth date, sex, name and issuer"
            told.append(f"{self.parted} PatientIDs stand for several people by {marks}: each person is a subject")
        if self.doubtful:
            doubt = "too little to be sure of several people: each ID is one subject"
            told.append(f"{self.doubtful} PatientIDs have several birth dates, sexes or issuers, {doubt}")
        if self.namesakes:
            told.append(
                f"{self.namesakes} PatientIDs share name, birth date and sex with another: each is a subject, and may"
                " come into another split; if they are one person's, name the subjects in a manifest"
            )
        if self.spelled:
            told.append(
                f"{self.spelled} PatientIDs differ from another in capitals, separators or leading zeros alone: each is"
                " a subject, and may come into another split; if they are one person's, name the subjects in a manifest"
            )
        if self.alike:
            told.append(
                f"{self.alike} times several subjects of the tables are one person by what their studies say now: each"
                " keeps its name and its split; to make them one, name them in a manifest and ingest another cohort"
            )
        return told


def subjects(
    subject: str, studies: Sequence[Study], is_placeholder: bool, earlier: Mapping[str, str]
) -> tuple[dict[str, str], Shared]:
    """The subject of each study of one PatientID, whose hash is `subject`, and what is to be told.

    `earlier` gives the subject of each series that is in a scan already: it stays, and what is new beside it takes it.
    """
    studies = sorted(studies, key=lambda one: one.name)
    own = {
        one.name: min(earlier[s] for s in one.series if s in earlier) for one in studies if one.series & earlier.keys()
    }
    nobody = is_placeholder or len(_distinct(studies)) > _MOST_PEOPLE
    groups, marks = _by_person(studies) if nobody else _parted(studies), _telling(studies)
    found: dict[str, str] = {}
    for group in groups:
        silent = not any(study.tells for study in group)
        plain = (len(groups) == 1 and (silent or not nobody)) or (silent and not nobody)
        name = subject if plain else _named(subject, group, marks)
        known = list({(_signature(study), own[study.name]): study for study in group if study.name in own}.values())
        for study in group:
            found[study.name] = own.get(study.name) or (own[_likest(study, known, own).name] if known else name)
    people = len(set(found.values()))
    alike = sum(len({own[study.name] for study in group if study.tells and study.name in own}) > 1 for group in groups)
    if nobody:
        alone = sum(len(group) == 1 and not group[0].tells for group in groups)
        silent_one = len(groups) == 1 and len(studies) > 1 and not all(study.tells for study in studies)
        crowded = sum(count > _MANY_STUDIES for count in Counter(found.values()).values())
        told = Shared(len(studies), people, alone, silent=int(silent_one), crowded=crowded, alike=alike)
        return found, told
    pairs = [_differ(one, other) for one, other in itertools.combinations(_distinct(studies), 2)]
    differs = any(pair[BIRTH] or pair[SEX] or pair[ISSUER] for pair in pairs)
    return found, Shared(parted=int(people > 1), doubtful=int(differs and people == 1), alike=alike)


def _likest(one: Study, known: Sequence[Study], own: Mapping[str, str]) -> Study:
    """That of some studies of known subjects which shares most marks with a new one."""
    if len({own[other.name] for other in known}) == 1:
        return known[0]
    return max(known, key=lambda other: sum(bool(a & b) for a, b in zip(one.said, other.said, strict=True)))


def _signature(one: Study) -> Hashable:
    return tuple(map(frozenset, one.said))


def _distinct(studies: Sequence[Study]) -> list[Study]:
    return list({_signature(one): one for one in studies}.values())


def _differ(one: Study, other: Study) -> list[bool]:
    """Which marks both have and do not share; of names any word, because a name is written shorter or longer."""
    differ = [bool(mine and theirs and not mine & theirs) for mine, theirs in zip(one.said, other.said, strict=True)]
    mine, theirs = ({word for name in study.said[NAME] for word in name.split()} for study in (one, other))
    differ[NAME] = differ[NAME] and not mine & theirs
    return differ


def _are_two(one: Study, other: Study) -> bool:
    """Whether two studies are of two people: a slip of the pen changes one mark, another PACS issuer and name.

    A sex that was mistyped in another PACS is no second person.
    """
    birth, sex, name, issuer = _differ(one, other)
    return (birth and (sex or name or issuer)) or (sex and name)


def _parted(studies: Sequence[Study]) -> list[list[Study]]:
    """The studies of one ID by person: together unless surely of two; those that tell nothing are the only one's."""
    telling = [one for one in _distinct(studies) if one.tells]
    together = _Groups(len(telling))
    for one, other in itertools.combinations(range(len(telling)), 2):
        if not _are_two(telling[one], telling[other]):
            together.join(one, other)
    place = {_signature(one): together.of(number) for number, one in enumerate(telling)}
    only = next(iter(place.values()), 0) if len(set(place.values())) < 2 else None
    found: defaultdict[int | None, list[Study]] = defaultdict(list)
    for study in studies:
        found[place.get(_signature(study), only)].append(study)
    return list(found.values())


def _by_person(studies: Sequence[Study]) -> list[list[Study]]:
    """Studies without an ID that tells: those of one birth date or one name are together, each other one is alone.

    A few of which none or one person is told are together, because the ID may be a patient's after all.
    """
    marks = _telling(studies)
    together = _Groups(len(studies))
    first: dict[Hashable, int] = {}
    for number, one in enumerate(studies):
        for mark in marks[one.name]:
            together.join(number, first.setdefault(mark, number))
    found: defaultdict[int, list[Study]] = defaultdict(list)
    for number, one in enumerate(studies):
        found[together.of(number)].append(one)
    told = sum(any(study.tells for study in group) for group in found.values())
    return [list(studies)] if told < 2 and len(studies) <= _MANY_STUDIES else list(found.values())


def _telling(studies: Sequence[Study]) -> dict[str, list[str]]:
    """The marks of each study by which it is somebody's: birth date and name.

    One that many others stand beside, or both sexes, such as a name that all have, tells only with the rest.
    """
    beside: defaultdict[str, set[str]] = defaultdict(set)
    sexes: defaultdict[str, set[str]] = defaultdict(set)
    for one in studies:
        for kind, other in ((BIRTH, NAME), (NAME, BIRTH)):
            for mark in one.said[kind]:
                beside[mark] |= one.said[other]
                sexes[mark] |= one.said[SEX]
    found = {}
    for one in studies:
        said = sorted(one.said[BIRTH] | one.said[NAME])
        whole = [" ".join((*said, *sorted(one.said[SEX])))] if said else []
        found[one.name] = [mark for mark in said if len(beside[mark]) < _SEVERAL and len(sexes[mark]) < 2] or whole
    return found


def _named(subject: str, group: Sequence[Study], marks: Mapping[str, Sequence[str]]) -> str:
    """The subject of a group: a hash of hashes, of birth date or name, else of the study."""
    telling = min((mark for one in group for mark in marks[one.name]), default=min(one.name for one in group))
    return hashlib.sha256(f"{subject} {telling}".encode()).hexdigest()[:16]


class _Groups:
    """Numbers put together step by step."""

    def __init__(self, count: int):
        self._above = list(range(count))

    def of(self, one: int) -> int:
        """The number that stands for its group."""
        while self._above[one] != one:
            self._above[one] = self._above[self._above[one]]
            one = self._above[one]
        return one

    def join(self, one: int, other: int) -> None:
        """Put two groups together."""
        self._above[max(self.of(one), self.of(other))] = min(self.of(one), self.of(other))
