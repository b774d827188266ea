"""Visits and places that stand before the names of patients: `1/P01` beside `2/P01`, `A_GBM001` beside `B_GBM001`."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from segpipe.readers.chains import FEW, LEAST_NAME, MANY, Chain, Parts, Use, has_modality
from segpipe.readers.names import MODALITIES, VISIT_LETTER, has_digit, is_generic, is_group
from segpipe.readers.visit_forms import BEGINNING, SIX, are_days, kind

_SHORT = re.compile(r"[A-Za-z]|\d{1,2}")
_HOSPITAL = re.compile(r"\d{5,}")
_SOMEBODY = re.compile(r"[^\W\d_]|^\d{5,}$")  # other numbers are those of many patients
_MADE_AGAIN = re.compile(r"(?:aug|run|rep|copy)\d+", re.IGNORECASE)  # before a name, it makes nobody else of it


def visit_folders(chains: Iterable[Chain]) -> Parts:
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
    """Whether folders are short and hold the same patients; below letters for visits and dates, whoever these are."""
    if all(map(VISIT_LETTER.fullmatch, found)) or (all(map(SIX.fullmatch, found)) and are_days(found)):
        counts = Counter(name for names in found.values() for name in names)
        return len(found) > 1 and max(counts.values()) > 1
    return all(map(_SHORT.fullmatch, found)) and _hold_the_same(found)


class _Beginning(NamedTuple):
    """A name that begins with what may be a visit: which names are like it, that beginning, and the rest."""

    group: tuple[Chain, str]
    visit: str
    name: str

    @property
    def is_clear(self) -> bool:
        """Whether nothing but a visit begins so, or the rest is one patient's name wherever it stands."""
        number = self.visit.isdecimal() and not self.name.isdecimal()
        is_visit = number or VISIT_LETTER.fullmatch(self.visit) or _MADE_AGAIN.fullmatch(self.visit)
        return bool(is_visit or not is_generic(self.name) or _HOSPITAL.fullmatch(self.name))


def visit_prefixes(chains: Collection[Chain]) -> tuple[Parts, list[str]]:
    """For names such as `A_GBM001` and `B_GBM001`, of which nobody else has what stands behind: who, and the visit.

    Then names such as `A_P01` and `B_P01`, which may be of one patient or of two places.
    """
    found = {chain: one for chain in chains if chain and (one := _beginning(chain))}
    held: dict[tuple[Chain, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for one in found.values():
        held[one.group][one.visit].add(one.name)
    alone: dict[Chain, set[str]] = defaultdict(set)
    for chain in chains if found else ():
        if chain and chain not in found and not chain[-1].isdecimal():
            alone[chain[:-1]].add(chain[-1])
    for (above, _), names in held.items():
        if whole := alone[above] & set().union(*names.values()):
            names[""] = whole  # `GBM001` beside `T0_GBM001`
    visits = {group for group, names in held.items() if _hold_the_same(names)}
    read = {
        chain: ((*chain[:-1], one.name), one.visit)
        for chain, one in found.items()
        if one.group in visits and one.is_clear
    }
    return read, sorted(chain[-1] for chain, one in found.items() if one.group in visits and not one.is_clear)


def _beginning(chain: Chain) -> _Beginning | None:
    match = BEGINNING["short"].fullmatch(chain[-1])
    if not match:
        return None
    likeness = "visit" if VISIT_LETTER.fullmatch(match["visit"]) else kind(match["visit"])
    group = chain[:-1], ("any " if is_generic(match["name"]) else "") + likeness
    return _Beginning(group, match["visit"], match["name"])


def folders_beside(uses: Mapping[Chain, Use]) -> dict[Chain, str]:
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
    return other in uses and has_modality(uses[other]) and not uses[one].roles & uses[other].roles & {*MODALITIES}


def dates_before(chains: Collection[Chain]) -> Parts:
    """For names such as `2021_Pat3` and `2022_Pat3`, if any stands behind two dates of the form: who, and the visit."""
    result: Parts = {}
    for form in ("day", "year"):
        found = {chain: match for chain in chains if chain and (match := BEGINNING[form].fullmatch(chain[-1]))}
        people = Counter((*chain[:-1], match["name"]) for chain, match in found.items())
        if (
            found
            and max(people.values()) > 1
            and (form == "year" or are_days(match["visit"] for match in found.values()))
        ):
            result |= {chain: ((*chain[:-1], match["name"]), match["visit"]) for chain, match in found.items()}
    return result


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
    if any(VISIT_LETTER.fullmatch(name) or is_group(name) for name in names):
        return False
    if not (lettered or all(map(_SOMEBODY.search, names))) or are_days(names):
        return False
    more = every > len(units) or lettered
    return all(map(has_digit, names)) or (more and all(len(name) >= LEAST_NAME for name in names))
