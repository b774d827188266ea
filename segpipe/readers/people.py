"""Who is a person, and what is a visit, told by looking at all names of an archive at once.

A name is a chain: what folders and file say that may name a person, outermost first, without words for roles, files and
visits. What differs from chain to chain names people; what repeats below all of them is a visit or a series. Where two
readings remain, the one is taken that cannot put one patient into two splits, and it is told.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from segpipe.readers.names import (
    MASK,
    MODALITIES,
    VISIT_LETTER,
    has_digit,
    is_counted,
    is_examination,
    is_generic,
    is_group,
    is_numbers,
    is_person,
    is_site,
    kind_of,
    numbered_like,
)

Chain = tuple[str, ...]

_UNIT = re.compile(
    r"(?P<base>.*\d.*?)(?P<separator>[_\-. ]+)(?P<unit>[A-Za-z]{0,3}\d{1,4}[a-z]?|[A-Za-z]+|\d\d?(?:st|nd|rd|th))"
)
_NUMBERS = re.compile(r"(?P<base>(?:.*?[^\d])??\d{5,})(?P<separator>[_\-])(?P<unit>\d{1,6}(?:[_\-]\d{1,6})+)")
_EXAM_NUMBER = re.compile(r"[A-Za-z]{0,4}\d{5,}")
_EXAM = re.compile(r"(?P<base>(?:.*\D)?\d{5,})(?P<separator>[_\-. ])(?P<unit>[A-Za-z]{0,4}\d{5,})")
_DATED_EXAM = re.compile(
    r"(?P<base>.*\d)[_\-. ](?:(?:MRI?|MRT|IRM|RM)[_\-. ])?(?P<unit>[A-Z]{2,4}\d{2,})", re.IGNORECASE
)
_DAY = re.compile(r"(?P<base>.*\d.*)(?P<separator>[_\-. ])(?P<unit>\d{6}|\d\d([\-.])\d\d\4\d\d)")  # where all are dates
_YEAR, _MONTH, _DAYS = r"(?:[0-4]\d|[89]\d)", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_SHORT_DATE = re.compile(
    rf"{_YEAR}(?P<s>[\-.]?){_MONTH}(?P=s){_DAYS}|{_DAYS}(?P<t>[\-.]?){_MONTH}(?P=t){_YEAR}|(?:19[89]\d|20[0-4]\d){_MONTH}"
)
_SIX = re.compile(r"\d{6}|\d\d([\-.])\d\d\1\d\d")  # digits that may be a date without a century
_COUNTED = re.compile(r"(\d{1,2})[_\-. ]\d{1,6}")  # a visit's number and its day
_COUNTED_END = re.compile(r"(?P<base>.*\d)[_\-. ](?P<unit>\d{1,2}[_\-. ]\d{1,6})")
_GLUED = re.compile(r"(?P<base>.*\d)(?P<unit>[tvmw]\d{1,3})", re.IGNORECASE)
_LETTER = re.compile(r"(?P<base>.*\d{2,})(?P<separator>)(?P<unit>[A-Fa-f])")
_END = re.compile(  # how all names end that `_ENDS` and `_COUNTED_END` fit: most names of an archive need one look
    r".*(?:[_\-. ](?:[A-Za-z]{0,3}\d{1,4}[a-z]?|[A-Za-z]{2,4}\d{5,}|[A-Za-z]+|\d\d?(?:st|nd|rd|th)|\d{6}"
    r"|\d{1,6}[_\-. ]\d{1,6})|\d[A-Fa-f]|\d[tvmwTVMW]\d{1,3}|\d{5}[_\-. ][A-Za-z]{0,4}\d{5,})",
    re.DOTALL,
)
_LONG = re.compile(r"(?<!\d)(?!(?:19[89]|20[0-4])\d$)\d{4,}$")
_PREFIX = re.compile(r"(?P<word>[^\W\d_]+)[_\-. ](?P<name>.+)")
_PATIENT = re.compile(r"(?:pat|patient|subj|sub|subject|pt|case)_?\d+$", re.IGNORECASE)
_LONG_WORD = re.compile(r"[^\W\d_]{5,}$")
_YEAR_ALONE = re.compile(r"19[89]\d|20[0-4]\d")
_LETTERED = re.compile(
    r"(?P<base>\D*[^\W\d_]{2})(?P<separator>[_\-. ])(?P<unit>[vmwdy]\d{1,4})", re.IGNORECASE
)  # `Meier_V1`
_YEARS = re.compile(r"(?P<base>\D+?)(?P<separator>[_\-. ])(?P<unit>19[89]\d|20[0-4]\d)")  # where names have no number
_ENDS = (_NUMBERS, _UNIT, _DAY, _EXAM, _LETTER, _YEARS, _LETTERED)  # the first that fits a name says what is a visit
_BEFORE = re.compile(r"(?P<unit>[A-Za-z]|[A-Za-z]{0,2}\d{1,2}|(?:aug|run|rep|copy)\d{1,2})[_\-. ](?P<name>.+)", re.I)
_MADE_AGAIN = re.compile(r"(?:aug|run|rep|copy)\d+", re.I)  # before a name, it makes nobody else of it
_YEAR_BEFORE = re.compile(r"(?P<unit>19[89]\d|20[0-4]\d)[_\-. ](?P<name>.*[^\W\d_].*\d.*)")
_INITIALS = re.compile(r"[A-Z]{2,3}")
_EDITION = re.compile(r".*[^\W\d_]{3,}(?:(?:19[89]|20[0-4])\d|[_\-. ]?v\d+(?:[._]\d+)*)", re.IGNORECASE)  # `WMH2017`
_DATED_NAME = re.compile(r"[^\W\d_]{3,}(?:19[89]|20[0-4])\d")
_SHORT = re.compile(r"[A-Za-z]|\d{1,2}")
_HOSPITAL = re.compile(r"\d{5,}")  # the numbers that hospitals give: groups and visits have shorter ones
_LONGEST_SITE = 4  # digits of a patient's number at a site; longer ones are a hospital's
MANY = 20  # visits of one patient
FEW = 8  # visits that nobody wonders at, however few patients there are
_LEAST_NAME = 4  # letters of a name without digits that is nobody else's


class Use(NamedTuple):
    """How a chain occurs: the roles of its files, whether some say none, and visits that words state, two at most.

    `bare` are the roles of files beside which no visit is stated. `timed` says that files are named by a scheme in
    which a time point ends the name, as in BraTS since 2023.
    """

    roles: frozenset[str] = frozenset()
    unknown: bool = False
    visits: frozenset[tuple[str, ...]] = frozenset()
    bare: frozenset[str] = frozenset()
    timed: bool = False

    def __or__(self, other: "Use") -> "Use":
        visits = self.visits if len(self.visits) > 1 else self.visits | other.visits
        unknown, timed = self.unknown or other.unknown, self.timed or other.timed
        return Use(self.roles | other.roles, unknown, visits, self.bare | other.bare, timed)

    def visited(self) -> "Use":
        """The same for files of which a visit is known by now."""
        return self._replace(bare=frozenset()) if self.bare else self


class Person(NamedTuple):
    """What a chain was read as: who, which visit if it says one, and what only tells images of one scan apart."""

    name: str
    visit: str = ""
    label: str = ""


def people(uses: Mapping[Chain, Use]) -> tuple[dict[Chain, Person], list[str]]:
    """The person of every chain, and a sentence for each reading that could be another.

    >>> names = [f"UPENN-{n:05d}_{visit}" for n in (1, 2) for visit in (11, 21)]
    >>> found, told = people({(name,): Use(frozenset({"T1"})) for name in names})
    >>> found[("UPENN-00001_21",)], len(told)
    (Person(name='UPENN-00001', visit='21', label=''), 0)
    """
    if _are_names_alone(uses):
        return {chain: Person("".join(chain)) for chain in uses}, []
    told: list[str] = []
    read = {chain: _Reading(chain) for chain in uses}
    prefixes, unclear = _visit_prefixes(uses)
    if unclear:
        some = examples(unclear)
        told.append(f"names ({some}) were read as patients; if they begin with a visit, name them in a manifest")
    for first in (_visit_folders(uses), _years_before(uses), prefixes):
        read |= {chain: _Reading(base, (visit,)) for chain, (base, visit) in first.items()}
        if first:
            told.append(as_visits({visit for _, visit in first.values()}, "folders and words before patients' names"))
    beside = {chain: place for chain, place in _folders_beside(uses).items() if read[chain].chain == chain}
    read |= {chain: _Reading((*chain[:-2], chain[-1]), label=place) for chain, place in beside.items()}
    if beside:
        some = examples(sorted({*beside.values()}))
        told.append(
            f"folders ({some}) were read as holding more images of the patients beside; if not, write a manifest"
        )
    parted: Counter[Chain] = Counter()  # names that ends were taken from, and how many: it is not done twice
    while True:
        now = _merged(read, uses)
        parts = _inner_units([chain for chain in now if chain not in parted], now, told)
        parted.update(base for base, _ in parts.values())
        whole = {chain: parts.get(chain, (chain, ""))[0] for chain in now}
        levels = _outer_units(whole, now, parted, told)
        if not parts and not levels:
            break
        read = {chain: _shorter(one, parts, levels) for chain, one in read.items()}
    alias = _prefixed(_merged(read, uses))
    if alias:
        shown = ", ".join(sorted(chain[-1] for chain in alias)[:4])
        told.append(f"names with a word before another's ({shown}) were read as that one's; if not, write a manifest")
    result = {}
    for chain, one in read.items():
        whose, label = alias.get(one.chain, (one.chain, ""))
        visit = "_".join(filter(None, one.visits))
        result[chain] = Person(name_of(whose), visit, "-".join(filter(None, (label, one.label))))
    return result, list(dict.fromkeys(told))


def _are_names_alone(chains: Collection[Chain]) -> bool:
    """Whether no chain says more than one name, and none of these begins or ends with what may be a visit.

    A number of five digits is none, so names that differ in it alone are looked at once.
    """
    if any([len(chain) > 1 for chain in chains]):
        return False
    names = {numbered_like(name) for name in itertools.chain.from_iterable(chains)}
    return not any(ends.fullmatch(name) for name in names for ends in (_END, _BEFORE, _YEAR_BEFORE, _PREFIX))


class _Reading(NamedTuple):
    """What is left of a chain when visits and labels have been taken from its end."""

    chain: Chain
    visits: tuple[str, ...] = ()
    label: str = ""


def _shorter(
    one: _Reading, parts: Mapping[Chain, tuple[Chain, str]], levels: Mapping[Chain, tuple[Chain, str, str]]
) -> _Reading:
    base, unit = parts.get(one.chain, (one.chain, ""))
    person, below, label = levels.get(base, (base, "", ""))
    return _Reading(person, (below, unit, *one.visits), label or one.label)


def _merged(read: Mapping[Chain, _Reading], uses: Mapping[Chain, Use]) -> dict[Chain, Use]:
    """How the chains occur that are left."""
    return together(
        (one.chain, uses[chain].visited() if any(one.visits) else uses[chain]) for chain, one in read.items()
    )


def together(found: Iterable[tuple[Chain, Use]]) -> dict[Chain, Use]:
    """How each chain occurs in all."""
    uses: dict[Chain, Use] = {}
    for chain, use in found:
        known = uses.get(chain)
        uses[chain] = use if known is None or known is use else known | use
    return uses


def _prefixed(uses: Mapping[Chain, Use]) -> dict[Chain, tuple[Chain, str]]:
    """Names that are a word before somebody else's whole name, as `Zmap_NICU_010`: that person, and the word.

    Where both have images, as `Mother_FAM001` and `FAM001`, they are two people, unless the word is one of processing.
    """
    if not any(chain and _PREFIX.fullmatch(chain[-1]) for chain in uses):
        return {}
    people = {chain[-1]: chain for chain in uses if chain and has_digit(chain[-1]) and not is_generic(chain[-1])}
    result = {}
    for name, chain in people.items():
        match = _PREFIX.fullmatch(name)
        if match and match["name"] in people:
            both = all(_has_modality(uses[one]) for one in (chain, people[match["name"]]))
            if not both or kind_of(match["word"]) != "id":
                result[chain] = (people[match["name"]], match["word"])
    for chain, (whose, word) in result.items():
        while whose in result:
            whose = result[whose][0]
        result[chain] = (whose, word)
    return result


def name_of(chain: Chain) -> str:
    """What a person is called: the last word that is theirs alone, else it and those before it.

    >>> name_of(("HGG", "BraTS2021_00002")), name_of(("Center_01", "Patient_07")), name_of(("Utrecht", "0"))
    ('BraTS2021_00002', 'Center_01_Patient_07', 'Utrecht_0')
    """
    if len(chain) < 2:
        return "".join(chain)
    last = chain[-1]
    if is_numbers(last) and is_site(chain[-2]):
        return "_".join(chain)
    return "_".join(chain) if is_generic(last) or (not has_digit(last) and len(last) < _LEAST_NAME) else last


# Visits before patients


def _visit_folders(chains: Iterable[Chain]) -> dict[Chain, tuple[Chain, str]]:
    """For chains below a few short folders that hold the same patients, as `1/P01` and `2/P01`: who, and the visit."""
    below: dict[Chain, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    chains = list(chains)
    for chain in chains:
        for place in range(len(chain) - 1):
            below[chain[:place]][chain[place]].add(chain[place + 1])
    levels = {above for above, found in below.items() if _are_visit_folders(found)}
    if not levels:
        return {}
    return {
        chain: ((*chain[:place], *chain[place + 1 :]), chain[place])
        for chain in chains
        for place in [n for n in range(len(chain) - 1) if chain[:n] in levels][:1]
    }


def _are_visit_folders(found: Mapping[str, Collection[str]]) -> bool:
    """Whether folders are short and hold the same patients; of letters for visits, whatever these are called."""
    if all(map(VISIT_LETTER.fullmatch, found)):
        counts = Counter(name for names in found.values() for name in names)
        return len(found) > 1 and max(counts.values()) > 1
    return all(map(_SHORT.fullmatch, found)) and _hold_the_same(found)


def _visit_prefixes(chains: Collection[Chain]) -> tuple[dict[Chain, tuple[Chain, str]], list[str]]:
    """For names such as `A_GBM001` and `B_GBM001`, of which nobody else has what stands behind: who, and the visit.

    Then names such as `A_P01` and `B_P01`, which may be of one patient or of two places.
    """
    groups: dict[tuple[Chain, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    found: dict[Chain, tuple[tuple[Chain, str], re.Match[str]]] = {}
    for chain in chains:
        if chain and (match := _BEFORE.fullmatch(chain[-1])):
            kind = "visit" if VISIT_LETTER.fullmatch(match["unit"]) else _kind(match["unit"])
            group = chain[:-1], ("any " if is_generic(match["name"]) else "") + kind
            groups[group][match["unit"]].add(match["name"])
            found[chain] = group, match
    alone: dict[Chain, set[str]] = defaultdict(set)
    for chain in chains if found else ():
        if chain and chain not in found:
            alone[chain[:-1]].add(chain[-1])
    for (above, _), units in groups.items():  # `GBM001` beside `T0_GBM001`
        units[""] |= alone[above] & set().union(*units.values())
    visits = {group for group, units in groups.items() if _hold_the_same({k: v for k, v in units.items() if v})}
    read = {
        chain: ((*chain[:-1], match["name"]), match["unit"])
        for chain, (group, match) in found.items()
        if group in visits
        and (
            not is_generic(match["name"])
            or VISIT_LETTER.fullmatch(match["unit"])
            or _MADE_AGAIN.fullmatch(match["unit"])
        )
    }
    return read, sorted(chain[-1] for chain, (group, _) in found.items() if group in visits and chain not in read)


def _folders_beside(uses: Mapping[Chain, Use]) -> dict[Chain, str]:
    """For chains such as `PETdata/P01`, if all names in the folder have images of other kinds beside it: the folder."""
    inside: dict[Chain, list[Chain]] = defaultdict(list)
    for chain in uses:
        if len(chain) > 1 and is_generic(chain[-1]) and not (has_digit(chain[-2]) or is_group(chain[-2])):
            inside[chain[:-1]].append(chain)
    return {
        chain: place[-1]
        for place, chains in inside.items()
        if all(_is_beside(uses, chain, (*place[:-1], chain[-1])) for chain in chains)
        for chain in chains
    }


def _is_beside(uses: Mapping[Chain, Use], one: Chain, other: Chain) -> bool:
    """Whether another chain has images, and none of a modality of this one's."""
    return other in uses and _has_modality(uses[other]) and not uses[one].roles & uses[other].roles & {*MODALITIES}


def _years_before(chains: Iterable[Chain]) -> dict[Chain, tuple[Chain, str]]:
    """For names such as `2021_Pat3` and `2022_Pat3`, if any stands behind two years: who, and the visit."""
    found = {chain: match for chain in chains if chain and (match := _YEAR_BEFORE.fullmatch(chain[-1]))}
    people = Counter((*chain[:-1], match["name"]) for chain, match in found.items())
    if not found or max(people.values()) < 2:
        return {}
    return {chain: ((*chain[:-1], match["name"]), match["unit"]) for chain, match in found.items()}


def _hold_the_same(units: Mapping[str, Collection[str]]) -> bool:
    """Whether a few units have the same names of patients, or nearly.

    If these have no digit, there are more of them than units. Behind letters for visits one that two share is enough.
    """
    counts = Counter(name for found in units.values() for name in found)
    names, every = list(counts), len(counts)
    shared = sum(count > 1 for count in counts.values())
    lettered = all(map(VISIT_LETTER.fullmatch, units))
    most, least = (MANY, 1) if lettered else (FEW, 2)
    if not 2 <= len(units) <= most or shared < least or 2 * shared < every:
        return False
    if any(VISIT_LETTER.fullmatch(name) or is_group(name) or not re.search(r"[^\W\d_]", name) for name in names):
        return False
    more = every > len(units) or lettered
    return all(map(has_digit, names)) or (more and all(len(name) >= _LEAST_NAME for name in names))


# Folders below folders


def _outer_units(
    chains: Mapping[Chain, Chain], uses: Mapping[Chain, Use], parted: Counter[Chain], told: list[str]
) -> dict[Chain, tuple[Chain, str, str]]:
    """For chains whose last word is no person's: the chain of the person, and the word as a visit or as a label."""
    of = together((base, uses[chain] if base == chain else uses[chain].visited()) for chain, base in chains.items())
    below: dict[Chain, list[str]] = defaultdict(list)
    parents: dict[str, set[Chain]] = defaultdict(set)
    for chain in of:
        if len(chain) > 1:
            below[chain[:-1]].append(chain[-1])
            parents[chain[-1]].add(chain[:-1])
    under: dict[str, set[Chain]] = defaultdict(set)
    for base in below:
        for place in range(1, len(base)):
            under[base[place]].add(base[:place])
    result: dict[Chain, tuple[Chain, str, str]] = {}
    read: set[str] = set()
    guessed: list[str] = []
    around = _folder_around(below, of)
    dated = {chain[:-1] for chain, use in of.items() if chain and any(use.visits) and not has_digit(chain[-1])}
    for base, words in below.items():
        shared = any(len(parents[word]) > 1 for word in words)
        inside = [(*base, word) for word in words]
        siblings = [of[chain] for chain in inside]
        several = any(parted[chain] > 1 for chain in inside)
        owner = _owner(base, under)
        mine = of.get(base) or uses.get(base)  # images beside, also where a visit ends the name: `P01_a/b1000`
        stated = base in of and of[base].visits
        for word in words:
            chain = (*base, word)
            use = of[chain]
            extra = mine is not None and not is_person(word) and _are_extras(use, mine)
            # what repeats below several and shows less is no patient: FreeSurfer's `bert/mri/orig/001`
            numbers = (extra and shared) or (owns(owner) and (extra or _tells_series_apart(siblings)))
            visited = len(use.visits) > 1 or (use.roles and not use.bare and not word.isdecimal())
            if not numbers and base[-1].isdecimal() and visited and (word.isdecimal() or _INITIALS.fullmatch(word)):
                continue  # `101/101-001/Week12`, `101/101_AB/m12`: the visits stand below already
            if word.isdecimal() and parted[chain] and several:
                continue  # `uvm1/uvm1_03_01`: visits stood behind it
            if not numbers and base == around and not has_digit(word):
                guessed.append(f"{base[-1]}/{word}")
                continue
            # `Anna/V02` is a visit beside `Anna/baseline` or `Bert/V02`
            few = len(words) <= FEW and not is_group(owner)
            visit = numbers or (few and (stated or shared) and VISIT_LETTER.fullmatch(word))
            # and so is `Meier/5885` beside `Kunz/2001-03-10`
            visit = visit or (word.isdecimal() and base[:-1] in dated and not has_digit(base[-1]) and few)
            visit = visit or (few and not owns(owner) and _are_same_visits(word, words, parents, of))
            if not visit and _names_a_person(owner, word, words, shared, len(parents[word]), len(below)):
                if few and word.isdecimal() and not (_HOSPITAL.fullmatch(word) or owns(owner)) and len(words) > 1:
                    guessed.append(f"{base[-1]}/{word}")
                continue
            beside = (of[base].roles if use.visits else of[base].bare) if base in of else frozenset()
            masks = use.roles == {MASK} and (base in of or base in chains)  # `P01_BraTS_seg` beside images of `P01`
            variant = not has_digit(word) and (masks or (base in of and use.roles <= beside))
            series = not use.roles or numbers or variant or (base in of and _describes(word, use, of[base], siblings))
            if not series:
                read.add(word)
            result[chain] = (base, "", word) if series else (base, word, "")
    if read:
        told.append(as_visits(read, "folders and names below those of patients"))
    if guessed:
        some = examples(sorted(guessed))
        told.append(f"names below others ({some}) were read as patients; if they are visits of one, write a manifest")
    return result


def _describes(word: str, use: Use, owner: Use, siblings: Collection[Use]) -> bool:
    """Whether a word that stands at one kind of image alone, which its owner has not without it, describes that.

    So it is in `P1/Accelerated_T1` beside `P1/FLAIR`.
    """
    alone = len(use.roles) == 1 and not any(use.visits) and sum(one.roles == use.roles for one in siblings) == 1
    others = _has_modality(owner) and _has_modality(use) and not use.roles & owner.roles
    return alone and others and _LONG_WORD.search(word) is not None


def _are_same_visits(
    word: str, siblings: Collection[str], parents: Mapping[str, Collection[Chain]], uses: Mapping[Chain, Use]
) -> bool:
    """Whether each of several people has several folders with the same images: `Dupont/IRM_J0`, `Leroy/IRM_J0`.

    Their names say that these are examinations, because `Ulm/GBM01` and `Bonn/GBM01` may be patients of two places.
    Folders of numbers, or of a patient's number, may be other people's too.
    """
    if len(siblings) < 2 or not all(map(is_examination, siblings)):
        return False
    if any(len(parents[one]) < 2 or _end_digits(one) > 2 or is_generic(one) or is_person(one) for one in siblings):
        return False
    chains = [(*parent, word) for parent in parents[word]]
    roles = Counter(role for chain in chains for role in uses[chain].roles if role in MODALITIES)
    return has_digit(word) and max(roles.values(), default=0) > 1


def _folder_around(below: Mapping[Chain, Collection[str]], uses: Collection[Chain]) -> Chain | None:
    """The folder around everything, of several names, if its own is no patient's: `zenodo_7890123` or `Data_v2`."""
    around = min(below, key=len, default=())
    if len(below.get(around, ())) < 2 or any(chain[: len(around)] != around or chain == around for chain in uses):
        return None
    *above, name = around
    return around if owns(name) and not (any(map(owns, above)) or is_person(name) or is_generic(name)) else None


def _names_a_person(parent: str, word: str, siblings: list[str], shared: bool, repeats: int, parents: int) -> bool:
    """Whether a word below another names somebody, rather than a visit or a series of the one above."""
    owned = owns(parent)
    if is_person(word):
        return True
    if not has_digit(word):
        return repeats < 2 and not owned
    if is_counted(word) and len(siblings) <= FEW and not is_group(parent):
        return False
    if len(siblings) <= FEW and all(map(_YEAR_ALONE.fullmatch, siblings)) and not is_group(parent):
        return False
    if not owned:  # `Meier2019/1`, `Kunz2019/1` may be visits, which cannot leak; `WMH2017/1`, …, `WMH2017/20` are not
        return not (shared and parents > 1 and len(siblings) <= FEW and _DATED_NAME.fullmatch(parent))
    if VISIT_LETTER.fullmatch(word):
        return False
    if parents > 1 and len(siblings) <= FEW and _HOSPITAL.search(parent) and _HOSPITAL.search(word):
        return False  # number of a patient, number of an examination
    if len(siblings) > max(FEW, parents):
        return True
    if (_SHORT_DATE.fullmatch(word) and _are_days(siblings)) or _are_counted(siblings, parents):
        return False
    if shared:
        return _end_digits(word) > max(_digits(parent), 2) and not _YEAR_ALONE.fullmatch(word)
    counted = all(re.fullmatch(r"0?\d", one) for one in siblings)
    return not (is_person(parent) or (is_generic(parent) and counted))


def _are_days(words: Iterable[str]) -> bool:
    """Whether all numbers of six digits are dates without a century, and there are some."""
    numbers = [word for word in words if _SIX.fullmatch(word)]
    return bool(numbers) and all(map(_SHORT_DATE.fullmatch, numbers))


def _are_counted(words: Collection[str], parents: int) -> bool:
    """Whether all are a visit's own number and its day, as `00_0000` and `01_0106`: patients share that of a site."""
    found = sorted(int(match[1]) for word in words if (match := _COUNTED.fullmatch(word)))
    if not found or len(found) < len(words) or len(found) > len(set(found)):
        return False
    return parents > 1 or (found[0] < 2 and found[-1] - found[0] < len(found))


def _owner(base: Chain, under: Mapping[str, Collection[Chain]]) -> str:
    """The name that a word below it belongs to: the last, or that of a patient above a word without a number.

    `under` are the chains that a word occurs below: what repeats below several patients is no group of patients.
    """
    above = base[-2] if len(base) > 1 else ""
    if has_digit(base[-1]) or not owns(above):
        return base[-1]
    return above if is_generic(above) or len(under[base[-1]]) > 1 else base[-1]


def owns(parent: str) -> bool:
    """Whether a name is one of a person rather than of a place, a group or an edition of a data set."""
    return has_digit(parent) and not is_group(parent) and not _EDITION.fullmatch(parent)


def _tells_series_apart(uses: list[Use]) -> bool:
    """Whether each of the words stands at one image and no two at the same kind: numbers of series, as `003_t1`.

    Images of several visits that words state may be of one kind.
    """
    images = [(visit, role) for use in uses for role in use.roles for visit in use.visits or {()}]
    alone = all(len(use.roles) <= 1 for use in uses) and len(set(images)) == len(images)
    return len({use.roles for use in uses}) > 1 and alone


def _are_extras(use: Use, owner: Use) -> bool:
    """Whether images below a patient's folder are of other kinds alone, where those of the modalities lie in it."""
    return _has_modality(owner) and not _has_modality(use)


# Parts of one name


def _inner_units(
    chains: Collection[Chain], uses: Mapping[Chain, Use], told: list[str]
) -> dict[Chain, tuple[Chain, str]]:
    """For chains whose last name ends in a visit: the chain without it, and the visit."""
    chains = [chain for chain in chains if chain and _END.fullmatch(chain[-1])]
    counted = _counted_ends(chains)
    if counted:
        told.append(as_visits({unit for _, unit in counted.values()}, "ends of patients' names"))
    examined = _dated_exams(chains, uses)
    if examined:
        told.append(as_visits({unit for _, unit in examined.values()}, "ends of patients' names"))
    glued = _glued_ends(chains)
    if glued:
        told.append(as_visits({unit for _, unit in glued.values()}, "ends of patients' names"))
    fielded = _without_fields(chains, uses)
    groups: dict[tuple[object, ...], dict[Chain, dict[str, Chain]]] = defaultdict(lambda: defaultdict(dict))
    done = counted | examined | glued | fielded
    for chain in chains:
        if chain in done:
            continue
        match = next(filter(None, (end.fullmatch(chain[-1]) for end in _ENDS)), None)
        if match and not is_person(match["unit"]) and not (_is_site_number(match) and _is_visited(uses[chain])):
            shape = (
                chain[:-1] if is_generic(match["base"]) else (),
                _shape(match["base"]) if has_digit(match["base"]) else "",
                match["separator"],
                _kind(match["unit"]),
            )
            without = (*chain[:-1], match["base"])
            groups[shape][without][match["unit"]] = chain
    result = done
    for bases in groups.values():
        if not (_are_timed(bases, uses) or _are_visits(bases)):
            before = _before_a_constant(bases)
            result |= before
            if before:
                told.append(as_visits({unit for _, unit in before.values()}, "ends of patients' names"))
            later = {
                chain: (base, unit)
                for base, units in bases.items()
                if base in uses and _has_images(uses[base]) and not is_group(base[-1])
                for unit, chain in units.items()
            }
            result |= later
            if later:
                told.append(as_visits({unit for _, unit in later.values()}, "ends of patients' names"))
        else:
            result |= {chain: (base, unit) for base, units in bases.items() for unit, chain in units.items()}
            if _are_long_ids(bases):
                continue
            some = {unit for units in bases.values() for unit in units}
            told.append(as_visits(some, "ends of patients' names"))
    whole = {base for base, _ in result.values()}  # names that others go on from, as `A-101-001` beside `A-101-001_W8`
    return {chain: part for chain, part in result.items() if chain not in whole}


def _before_a_constant(bases: Mapping[Chain, Mapping[str, Chain]]) -> dict[Chain, tuple[Chain, str]]:
    """For names that all end alike, and state visits before that, as `X-0123-1-1` and `X-0123-2-1`: who, the visit."""
    if len({unit for units in bases.values() for unit in units}) > 1:
        return {}
    found: dict[tuple[object, ...], dict[Chain, dict[str, Chain]]] = defaultdict(lambda: defaultdict(dict))
    for base in bases:
        if match := _UNIT.fullmatch(base[-1]):
            shape = _shape(match["base"]), match["separator"], _kind(match["unit"])
            whole = (*base[:-1], match["base"])
            found[shape][whole][match["unit"]] = base
    return {
        chain: (whole, f"{unit}-{end}")
        for wholes in found.values()
        if len(wholes) > 1 and _are_visits(wholes)
        for whole, units in wholes.items()
        for unit, base in units.items()
        for end, chain in bases[base].items()
    }


def _is_site_number(match: re.Match[str]) -> bool:
    """Whether a name may be the number of a site and that of a patient there: `101-001`."""
    return is_numbers(match.string) and _LONGEST_SITE >= _digits(match["unit"]) >= _last_digits(match["base"])


def _is_visited(use: Use) -> bool:
    """Whether visits are known of all files, so that nothing else of their names is one."""
    return bool(use.roles) and not use.bare


def _glued_ends(chains: Iterable[Chain]) -> dict[Chain, tuple[Chain, str]]:
    """For names that end in a letter for visits and a number, as `c01s04t01` and `c01s04t02`: who, and the visit."""
    found: dict[str, dict[Chain, dict[str, Chain]]] = defaultdict(lambda: defaultdict(dict))
    for chain in chains:
        if match := _GLUED.fullmatch(chain[-1]):
            shape = _shape(match["base"]) + _kind(match["unit"])
            base = (*chain[:-1], match["base"])
            found[shape][base][match["unit"]] = chain
    return {
        chain: (base, unit)
        for bases in found.values()
        if 1 < max(map(len, bases.values())) <= FEW
        for base, units in bases.items()
        for unit, chain in units.items()
    }


def _without_fields(chains: Iterable[Chain], uses: Mapping[Chain, Use]) -> dict[Chain, tuple[Chain, str]]:
    """For names such as `1000012_20252_2_0` and `1000012_20253_2_0`: who, and the visit without what tells kinds.

    A number tells kinds of images if nobody has one kind under two of its values: here 20252 is T1, 20253 is FLAIR.
    """
    found = {chain: match for chain in chains if (match := _NUMBERS.fullmatch(chain[-1]))}
    numbers = {chain: re.split(r"[_\-]", match["unit"]) for chain, match in found.items()}
    result: dict[Chain, tuple[Chain, str]] = {}
    for place in range(max(map(len, numbers.values()), default=0)):
        kinds: dict[str, set[str]] = defaultdict(set)
        who: dict[str, set[str]] = defaultdict(set)
        inside = [chain for chain, values in numbers.items() if place < len(values)]
        for chain in inside:
            value = numbers[chain][place]
            kinds[value] |= uses[chain].roles - {MASK}
            who[value].add(found[chain]["base"])
        apart = sum(map(len, kinds.values())) == len(set().union(*kinds.values()))
        if len(kinds) > 1 and apart and all(kinds.values()) and min(map(len, who.values())) > 1:
            result |= {
                chain: ((*chain[:-1], found[chain]["base"]), "_".join(_others(numbers[chain], place)))
                for chain in inside
            }
    return result


def _others(values: Sequence[str], place: int) -> list[str]:
    return [*values[:place], *values[place + 1 :]]


def _dated_exams(chains: Iterable[Chain], uses: Mapping[Chain, Use]) -> dict[Chain, tuple[Chain, str]]:
    """For names such as `P001_MR_ACC123` with another date for each end, some of one patient: who, and the number."""
    found: dict[Chain, dict[Chain, tuple[str, tuple[str, ...]]]] = defaultdict(dict)
    for chain in chains:
        match = _DATED_EXAM.fullmatch(chain[-1])
        if match and len(uses[chain].visits) == 1 and not is_person(match["unit"]):
            base = (*chain[:-1], match["base"])
            found[base][chain] = match["unit"], next(iter(uses[chain].visits))
    most = max(map(len, found.values()), default=0)
    differ = all(len({visit for _, visit in ends.values()}) == len(ends) for ends in found.values())
    if not (1 < most <= len(found) and differ and all(owns(base[-1]) for base in found)):
        return {}  # of one place are more patients than a patient has visits
    return {chain: (base, unit) for base, ends in found.items() for chain, (unit, _) in ends.items()}


def _counted_ends(chains: Iterable[Chain]) -> dict[Chain, tuple[Chain, str]]:
    """For names that end in a visit's number and its day, as `X-017_00_0000` and `X-017_01_0412`: who, and the visit.

    So it is where everybody's numbers count from the first visit, the days grow with them, and somebody came twice.
    """
    found: dict[str, dict[Chain, dict[str, Chain]]] = defaultdict(lambda: defaultdict(dict))
    for chain in chains:
        if match := _COUNTED_END.fullmatch(chain[-1]):
            base = (*chain[:-1], match["base"])
            found[_shape(match["base"])][base][match["unit"]] = chain
    return {
        chain: (base, unit)
        for bases in found.values()
        if max(map(len, bases.values())) > 1
        and all(_count_visits(units, len(bases) > 1) and not is_group(base[-1]) for base, units in bases.items())
        for base, units in bases.items()
        for unit, chain in units.items()
    }


def _count_visits(units: Iterable[str], several: bool) -> bool:
    """Whether numbers begin with 0 or 1 and go on by one, and days grow; one patient alone begins with day 0."""
    visits = sorted(tuple(map(int, re.findall(r"\d+", unit))) for unit in units)
    numbers, days = [visit[0] for visit in visits], [visit[1] for visit in visits]
    first = numbers[0]
    return (
        first < 2
        and numbers == [*range(first, first + len(numbers))]
        and days == sorted(set(days))
        and (several or days[0] == 0)
    )


def _has_images(use: Use) -> bool:
    return use.unknown or _has_modality(use)


def _has_modality(use: Use) -> bool:
    return not use.roles.isdisjoint(MODALITIES)


def _are_visits(bases: Mapping[Chain, Mapping[str, Chain]]) -> bool:
    """Whether the ends of names repeat from one name to the next, and some name has several."""
    units = [unit for found in bases.values() for unit in found]
    if all(VISIT_LETTER.fullmatch(unit) for unit in units) or _are_long_ids(bases):
        return True
    several = [found for found in bases.values() if len(found) > 1]
    if _SIX.fullmatch(units[0]):
        few = all(len(found) <= FEW for found in bases.values())
        return _are_days(units) and few and not any(is_group(base[-1]) for base in bases)
    if not several or any(is_group(base[-1]) for base in bases):
        return False
    if all(_PATIENT.search(base[-1]) and len(found) <= FEW for base, found in bases.items()):
        return True  # behind `pat105` nobody else is named
    if len(bases) < 2:
        return False
    if all(map(_EXAM_NUMBER.fullmatch, units)):  # number of a patient, number of an examination
        return len(set(units)) == len(units) and all(len(found) <= FEW for found in bases.values())
    sites = any(_digits(unit) > _last_digits(base[-1]) for base, found in bases.items() for unit in found)
    sites = sites and not all(map(_YEAR_ALONE.fullmatch, units))
    named = all(_PATIENT.search(base[-1]) or not has_digit(base[-1]) for base in bases)
    if sites and not named:
        return False  # 01-001, 02-001 are patients of two sites
    counts = {unit: units.count(unit) for unit in units}
    shared = all(any(counts[unit] > 1 for unit in found) for found in several)
    return shared and len(counts) <= max(FEW, len(bases))


def _are_timed(bases: Mapping[Chain, Mapping[str, Chain]], uses: Mapping[Chain, Use]) -> bool:
    """Whether the ends of names are time points by the scheme that files are named by: three digits behind a number."""
    if not any(uses[chain].timed for units in bases.values() for chain in units.values()):
        return False
    ends = {unit for units in bases.values() for unit in units}
    names = {_shape(base[-1]): base[-1] for base in bases}  # one of those that differ in digits alone
    return all(re.fullmatch(r"\d{3}", unit) for unit in ends) and all(map(owns, names.values()))


def _are_long_ids(bases: Mapping[Chain, Mapping[str, Chain]]) -> bool:
    """Whether names are a long number and a short one, as in `UPENN-GBM-00001_11`: nobody else has the long one."""
    return all(
        _LONG.search(base[-1]) and len(found) <= MANY and all(re.fullmatch(r"\d{1,3}", unit) for unit in found)
        for base, found in bases.items()
    ) and not any(is_group(base[-1]) for base in bases)


def _shape(text: str) -> str:
    return re.sub(r"\d", "9", text) if not re.search(r"\d{4,}", text) else re.sub(r"\d+", "9", text)


def _kind(unit: str) -> str:
    if _SIX.fullmatch(unit):
        return "day"
    return re.sub(r"\d+", "9", unit) if has_digit(unit) else "letter"


def _digits(text: str) -> int:
    return sum(letter.isdecimal() for letter in text)


def _end_digits(text: str) -> int:
    return len(text) - len(text.rstrip("0123456789"))


def _last_digits(text: str) -> int:
    found = re.findall(r"\d+", text)
    return len(found[-1]) if found else 0


def examples(names: Sequence[str]) -> str:
    """The first names of several, for a sentence.

    >>> examples(["a", "b"]), examples(["a", "b", "c", "d", "e"])
    ('a, b', 'a, b, c, d, …')
    """
    return ", ".join(names[:4]) + ", …" * (len(names) > 4)


def as_visits(words: Iterable[str], where: str) -> str:
    """What is told where words were read as visits."""
    some = examples(sorted(set(words)))
    return f"{where} ({some}) were read as visits of one patient each; if they are patients, name them in a manifest"


def as_patients(names: Collection[str]) -> list[str]:
    """What is told where names were read as patients' that may be visits of one; nothing of none."""
    if not names:
        return []
    some = examples(sorted(names))
    return [f"names ({some}) were read as those of patients; if they are visits of one, write a manifest"]
