"""Who is a person, and what is a visit, told by looking at all names of an archive at once.

What differs from chain to chain names people; what repeats below all of them is a visit or a series. Where two readings
remain, the one is taken that cannot put one patient into two splits, and it is told.

`before`, `ends` and `levels` tell visits before patients' names, behind them and below them.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from segpipe.readers.before import dates_before, folders_beside, visit_folders, visit_prefixes
from segpipe.readers.chains import (
    FEW,
    LEAST_NAME,
    Chain,
    Parts,
    Use,
    as_patients,
    as_visits,
    examples,
    has_modality,
    together,
)
from segpipe.readers.ends import ends
from segpipe.readers.levels import Level, levels
from segpipe.readers.names import has_digit, is_generic, is_group, is_numbers, is_site, kind_of, numbered_like
from segpipe.readers.visit_forms import BEGINNING, CROSSED, may_hold_a_visit


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
    read = _without_ends(_without_beginnings(uses, told), uses, told)
    alias = _prefixed(_merged(read, uses))
    if alias:
        shown = ", ".join(sorted(chain[-1] for chain in alias)[:4])
        told.append(f"names with a word before another's ({shown}) were read as that one's; if not, write a manifest")
    result = {}
    for chain, one in read.items():
        whose, label = alias.get(one.chain, (one.chain, ""))
        visit = "_".join(filter(None, one.visits))
        result[chain] = Person(name_of(whose), visit, "-".join(filter(None, (label, one.label))))
    told += as_patients(_crossed({one.chain for one in read.values()}))
    return result, list(dict.fromkeys(told))


def _crossed(people: Iterable[Chain]) -> set[str]:
    """Names such as `Anna_1`, `Anna_2`, `Bert_1` and `Bert_2`, which may be two visits of two people."""
    names, crossed = ["_".join(chain) for chain in people], set()
    for form in CROSSED:
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for name in names:
            if (match := form.fullmatch(name)) and not is_group(match["name"]):
                found[match["name"]][match["visit"]] = name
        several = [visits for visits in found.values() if 1 < len(visits) <= FEW]
        pairs = Counter(pair for visits in several for pair in itertools.combinations(sorted(visits), 2))
        twice = {visit for pair, count in pairs.items() if count > 1 for visit in pair}
        crossed |= {name for visits in several for visit, name in visits.items() if visit in twice}
    return crossed


def _are_names_alone(chains: Collection[Chain]) -> bool:
    """Whether no chain says more than one name, and none of these begins or ends with what may be a visit.

    A number of five digits is none, so names that differ in it alone are looked at once.
    """
    if any([len(chain) > 1 for chain in chains]):
        return False
    names = {numbered_like(name) for name in itertools.chain.from_iterable(chains)}
    return not any(map(may_hold_a_visit, names))


class _Reading(NamedTuple):
    """What is left of a chain when visits and labels have been taken from its end."""

    chain: Chain
    visits: tuple[str, ...] = ()
    label: str = ""


def _without_beginnings(uses: Mapping[Chain, Use], told: list[str]) -> dict[Chain, _Reading]:
    """What is left of chains without visits before patients' names, and folders beside those of the patients."""
    read = {chain: _Reading(chain) for chain in uses}
    prefixes, unclear = visit_prefixes(uses)
    if unclear:
        some = examples(unclear)
        told.append(f"names ({some}) were read as patients; if they begin with a visit, name them in a manifest")
    for first in (visit_folders(uses), dates_before(uses), prefixes):
        read |= {chain: _Reading(base, (visit,)) for chain, (base, visit) in first.items()}
        if first:
            told.append(as_visits({visit for _, visit in first.values()}, "folders and words before patients' names"))
    beside = {chain: place for chain, place in folders_beside(uses).items() if read[chain].chain == chain}
    if beside:
        some = examples(sorted({*beside.values()}))
        told.append(
            f"folders ({some}) were read as holding more images of the patients beside; if not, write a manifest"
        )
    return read | {chain: _Reading((*chain[:-2], chain[-1]), label=place) for chain, place in beside.items()}


def _without_ends(read: dict[Chain, _Reading], uses: Mapping[Chain, Use], told: list[str]) -> dict[Chain, _Reading]:
    """What is left of chains when visits and series are taken from their ends, from the innermost to the person."""
    parted: Counter[Chain] = Counter()  # names that ends were taken from, and how many: it is not done twice
    while True:
        now = _merged(read, uses)
        parts = ends([chain for chain in now if chain not in parted], now, told)
        parted.update(base for base, _ in parts.values())
        whole = {chain: parts.get(chain, (chain, ""))[0] for chain in now}
        below = levels(whole, now, parted, told)
        if not parts and not below:
            return read
        read = {chain: _shorter(one, parts, below) for chain, one in read.items()}


def _shorter(one: _Reading, parts: Parts, below: Mapping[Chain, Level]) -> _Reading:
    base, visit = parts.get(one.chain, (one.chain, ""))
    person, above, label = below.get(base, Level(base))
    return _Reading(person, (above, visit, *one.visits), label or one.label)


def _merged(read: Mapping[Chain, _Reading], uses: Mapping[Chain, Use]) -> dict[Chain, Use]:
    """How the chains occur that are left."""
    return together(
        (one.chain, uses[chain].visited() if any(one.visits) else uses[chain]) for chain, one in read.items()
    )


def _prefixed(uses: Mapping[Chain, Use]) -> dict[Chain, tuple[Chain, str]]:
    """Names that are a word before somebody else's whole name, as `Zmap_NICU_010`: that person, and the word.

    Where both have images, as `Mother_FAM001` and `FAM001`, they are two people, unless the word is one of processing.
    """
    if not any(chain and BEGINNING["word"].fullmatch(chain[-1]) for chain in uses):
        return {}
    people = {chain[-1]: chain for chain in uses if chain and has_digit(chain[-1]) and not is_generic(chain[-1])}
    result = {}
    for name, chain in people.items():
        match = BEGINNING["word"].fullmatch(name)
        if match and match["name"] in people:
            both = all(has_modality(uses[one]) for one in (chain, people[match["name"]]))
            if not both or kind_of(match["visit"]) != "id":
                result[chain] = (people[match["name"]], match["visit"])
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
    return "_".join(chain) if is_generic(last) or (not has_digit(last) and len(last) < LEAST_NAME) else last
