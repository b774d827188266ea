"""Folders below folders: whether a name below another is a person's, a visit or a series of the one above."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from segpipe.readers.chains import FEW, Chain, Use, as_visits, examples, has_modality, owns, tell_series_apart, together
from segpipe.readers.names import (
    MASK,
    MODALITIES,
    VISIT_LETTER,
    has_digit,
    is_control,
    is_counted,
    is_examination,
    is_generic,
    is_group,
    is_person,
)
from segpipe.readers.visit_forms import SHORT_DATE, SIX, YEAR, are_days, digits, end_digits

_COUNTED = re.compile(r"(\d{1,2})[_\-. ]\d{1,6}")  # a visit's number and its day
_LONG_WORD = re.compile(r"[^\W\d_]{5,}$")
_INITIALS = re.compile(r"[A-Z]{2,3}")
_DATED_NAME = re.compile(r"[^\W\d_]{3,}(?:19[89]|20[0-4])\d")
_HOSPITAL = re.compile(r"\d{5,}")  # the numbers that hospitals give: groups and visits have shorter ones


class Level(NamedTuple):
    """Whose the last word of a chain is that is no person's, and the word as a visit or as what tells images apart."""

    person: Chain
    visit: str = ""
    label: str = ""


def levels(
    whole: Mapping[Chain, Chain], uses: Mapping[Chain, Use], parted: Counter[Chain], told: list[str]
) -> dict[Chain, Level]:
    """For chains whose last word is no person's: what it is.

    `whole` has for each chain of `uses` what is left of it without a visit at its end, and `parted` counts these ends.
    """
    tree = _Tree.of(whole, uses, parted)
    result: dict[Chain, Level] = {}
    read: set[str] = set()
    guessed: list[str] = []
    for base in tree.below:
        family = _Family(tree, base)
        for word in family.words:
            chain, reading = (*base, word), family.reading(word)
            if reading == _VISIT:
                read.add(word)
                result[chain] = Level(base, visit=word)
            elif reading == _SERIES:
                result[chain] = Level(base, label=word)
            elif reading == _GUESSED:
                guessed.append(f"{base[-1]}/{word}")
    if read:
        told.append(as_visits(read, "folders and names below those of patients"))
    if guessed:
        some = examples(sorted(guessed))
        told.append(f"names below others ({some}) were read as patients; if they are visits of one, write a manifest")
    return result


_PERSON, _GUESSED, _VISIT, _SERIES = "person", "person, perhaps a visit", "visit", "series"


@dataclass(frozen=True)
class _Tree:
    """What stands below what, without visits at the ends of names."""

    uses: Mapping[Chain, Use]
    named: Mapping[Chain, Use]  # with visits at the ends
    parted: Counter[Chain]
    below: Mapping[Chain, list[str]]
    parents: Mapping[str, Collection[Chain]]  # what a word stands below as the last
    under: Mapping[str, Collection[Chain]]  # and what as another
    around: Chain | None

    @classmethod
    def of(cls, whole: Mapping[Chain, Chain], named: Mapping[Chain, Use], parted: Counter[Chain]) -> "_Tree":
        uses = together(
            (base, named[chain] if base == chain else named[chain].visited()) for chain, base in whole.items()
        )
        below: dict[Chain, list[str]] = defaultdict(list)
        parents: dict[str, set[Chain]] = defaultdict(set)
        for chain in uses:
            if len(chain) > 1:
                below[chain[:-1]].append(chain[-1])
                parents[chain[-1]].add(chain[:-1])
        under: dict[str, set[Chain]] = defaultdict(set)
        for base in below:
            for place in range(1, len(base)):
                under[base[place]].add(base[:place])
        return cls(uses, named, parted, below, parents, under, _folder_around(below, uses))

    @cached_property
    def dated(self) -> Collection[Chain]:
        """What names without a number stand below that have visits by words."""
        return {
            chain[:-1] for chain, use in self.uses.items() if chain and any(use.visits) and not has_digit(chain[-1])
        }

    @cached_property
    def has_one_number_each(self) -> bool:
        """Whether below each of several names a number of five digits or more stands alone: it is an examination's."""
        owned = [words for base, words in self.below.items() if owns(base[-1])]
        alone = all(len(words) == 1 and _HOSPITAL.fullmatch(words[0]) for words in owned)
        return alone and len(owned) > 1


def _folder_around(below: Mapping[Chain, Collection[str]], uses: Collection[Chain]) -> Chain | None:
    """The folder around everything, of several names, if its own is no patient's: `zenodo_7890123` or `Data_v2`."""
    around = min(below, key=len, default=())
    if len(below.get(around, ())) < 2 or any(chain[: len(around)] != around or chain == around for chain in uses):
        return None
    *above, name = around
    return around if owns(name) and not (any(map(owns, above)) or is_person(name) or is_generic(name)) else None


class _Family:
    """The words that stand below a name, and whose that name is."""

    def __init__(self, tree: _Tree, base: Chain) -> None:
        self._tree, self._base, self.words = tree, base, tree.below[base]
        self._name, self._owner = base[-1], _owner(base, tree.under)
        self._chains = [(*base, word) for word in self.words]
        self._own = tree.uses.get(base)
        self._siblings = [tree.uses[chain] for chain in self._chains]
        self._is_few = len(self.words) <= FEW and not is_group(self._owner)
        self._is_shared = any(len(tree.parents[word]) > 1 for word in self.words)

    def reading(self, word: str) -> str:
        """What a word is: a person, one who may be a visit, a visit, or a series."""
        if self._is_followed_by_visits(word):
            return _PERSON
        if self._tells_images(word):
            return _SERIES
        if self._holds_visits(word):
            return _PERSON
        if self._base == self._tree.around and not has_digit(word):
            return _GUESSED
        if not self._is_visit(word) and self._is_person(word):
            return _GUESSED if self._may_be_visits(word) else _PERSON
        return _SERIES if self._is_series(word) else _VISIT

    def _use(self, word: str) -> Use:
        chain = (*self._base, word)
        return self._tree.uses[chain]

    def _is_followed_by_visits(self, word: str) -> bool:
        """Whether visits stood behind a number, and several behind one of those beside: `uvm1/uvm1_03_01`."""
        parted, chain = self._tree.parted, (*self._base, word)
        return word.isdecimal() and parted[chain] > 0 and any(parted[one] > 1 for one in self._chains)

    def _tells_images(self, word: str) -> bool:
        """Whether a word only tells images of one scan apart, as `003_t1` and `004_flair`.

        What repeats below several and shows less is no patient either: FreeSurfer's `bert/mri/orig/001`.
        """
        own = self._own or self._tree.named.get(self._base)  # also where a visit ends the name: `P01_a/b1000`
        extra = own is not None and not is_person(word) and _are_extras(self._use(word), own)
        return (extra and self._is_shared) or (owns(self._owner) and (extra or tell_series_apart(self._siblings)))

    def _holds_visits(self, word: str) -> bool:
        """Whether the visits of who is called by a number or initials stand below: `101/101-001/Week12`."""
        use = self._use(word)
        visited = len(use.visits) > 1 or (use.roles and not use.bare and not word.isdecimal())
        return bool(self._name.isdecimal() and visited and (word.isdecimal() or _INITIALS.fullmatch(word)))

    def _is_visit(self, word: str) -> bool:
        """Whether a word can be a visit alone."""
        if not self._is_few:
            return False
        if VISIT_LETTER.fullmatch(word) and (self._is_shared or (self._own and self._own.visits)):
            return True  # `Anna/V02` beside `Anna/baseline` or `Bert/V02`
        if word.isdecimal() and self._base[:-1] in self._tree.dated and not has_digit(self._name):
            return True  # `Meier/5885` beside `Kunz/2001-03-10`
        if SIX.fullmatch(word) and are_days(self.words) and not has_digit(self._name) and len(self._tree.below) > 1:
            return True  # `Anna/190304` and `Bert/200112`
        return not owns(self._owner) and self._is_examination(word)

    def _is_examination(self, word: str) -> bool:
        """Whether each of several people has several folders with the same images: `Dupont/IRM_J0`, `Leroy/IRM_J0`.

        Their names say that these are examinations, because `Ulm/GBM01` and `Bonn/GBM01` may be patients of two places.
        Folders of numbers, or of a patient's number, may be other people's too.
        """
        parents = self._tree.parents
        if len(self.words) < 2 or not has_digit(word) or not all(map(is_examination, self.words)):
            return False
        if any(len(parents[one]) < 2 or end_digits(one) > 2 or is_generic(one) or is_person(one) for one in self.words):
            return False
        chains = [(*parent, word) for parent in parents[word]]
        roles = Counter(role for chain in chains for role in self._tree.uses[chain].roles if role in MODALITIES)
        return max(roles.values(), default=0) > 1

    def _is_person(self, word: str) -> bool:
        """Whether a word names somebody, rather than a visit or a series of the one above."""
        if is_person(word) and not (is_control(word) and is_person(self._owner)):
            return True
        if not has_digit(word):
            return len(self._tree.parents[word]) < 2 and not owns(self._owner)
        if self._is_few and (is_counted(word) or all(map(YEAR.fullmatch, self.words))):
            return False
        return self._is_patient_of(word) if owns(self._owner) else not self._may_have_visits()

    def _is_patient_of(self, word: str) -> bool:
        """Whether a word with a number below a numbered name is somebody else's."""
        parents = len(self._tree.below)
        if VISIT_LETTER.fullmatch(word) or self._tree.has_one_number_each:
            return False
        if parents > 1 and self._is_few and _HOSPITAL.search(self._owner) and _HOSPITAL.search(word):
            return False  # number of a patient, number of an examination
        if len(self.words) > max(FEW, parents):
            return True
        if (SHORT_DATE.fullmatch(word) and are_days(self.words)) or _are_counted(self.words, parents):
            return False
        if self._is_shared:
            return end_digits(word) > max(digits(self._owner), 2) and not YEAR.fullmatch(word)
        counted = all(re.fullmatch(r"0?\d", one) for one in self.words)
        return not (is_person(self._owner) or (is_generic(self._owner) and counted))

    def _may_have_visits(self) -> bool:
        """Whether words repeat below names with a year: `Meier2019/1`, `Kunz2019/1` may be visits, which cannot leak.

        `WMH2017/1`, …, `WMH2017/20` are not.
        """
        several = self._is_shared and len(self._tree.below) > 1 and len(self.words) <= FEW
        return several and _DATED_NAME.fullmatch(self._owner) is not None

    def _may_be_visits(self, word: str) -> bool:
        """Whether a number below a name that is nobody's for sure may be a visit all the same: `Utrecht/0`."""
        number = word.isdecimal() and not _HOSPITAL.fullmatch(word)
        return self._is_few and number and len(self.words) > 1 and not owns(self._owner)

    def _is_series(self, word: str) -> bool:
        """Whether a word tells images apart that are there without it: masks, copies, another kind of image."""
        use, own = self._use(word), self._own
        if not use.roles:
            return True
        if use.roles == {MASK} and not has_digit(word) and (own or self._base in self._tree.named):
            return True  # `P01_BraTS_seg` beside images of `P01`
        if own is None:
            return False
        beside = own.roles if use.visits else own.bare
        return (not has_digit(word) and use.roles <= beside) or _describes(word, use, own, self._siblings)


def _owner(base: Chain, under: Mapping[str, Collection[Chain]]) -> str:
    """The name that a word below it belongs to: the last, or that of a patient above a word without a number.

    `under` are the chains that a word occurs below: what repeats below several patients is no group of patients.
    """
    above = base[-2] if len(base) > 1 else ""
    if has_digit(base[-1]) or not owns(above):
        return base[-1]
    return above if is_generic(above) or len(under[base[-1]]) > 1 else base[-1]


def _describes(word: str, use: Use, owner: Use, siblings: Collection[Use]) -> bool:
    """Whether a word that stands at one kind of image alone, which its owner has not without it, describes that.

    So it is in `P1/Accelerated_T1` beside `P1/FLAIR`.
    """
    alone = len(use.roles) == 1 and not any(use.visits) and sum(one.roles == use.roles for one in siblings) == 1
    others = has_modality(owner) and has_modality(use) and not use.roles & owner.roles
    return alone and others and _LONG_WORD.search(word) is not None


def _are_extras(use: Use, owner: Use) -> bool:
    """Whether images below a patient's folder are of other kinds alone, where those of the modalities lie in it."""
    return has_modality(owner) and not has_modality(use)


def _are_counted(words: Collection[str], parents: int) -> bool:
    """Whether all are a visit's own number and its day, as `00_0000` and `01_0106`: patients share that of a site."""
    found = sorted(int(match[1]) for word in words if (match := _COUNTED.fullmatch(word)))
    if not found or len(found) < len(words) or len(found) > len(set(found)):
        return False
    return parents > 1 or (found[0] < 2 and found[-1] - found[0] < len(found))
