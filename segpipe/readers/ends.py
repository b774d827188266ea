"""Visits at the ends of names: they are told by how the ends of all names of an archive repeat."""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from segpipe.readers.chains import FEW, MANY, Chain, Parts, Use, as_visits, has_modality, owns, tell_series_apart
from segpipe.readers.names import MASK, VISIT_LETTER, has_digit, is_generic, is_group, is_numbers, is_person
from segpipe.readers.visit_forms import END, ENDS, MAY_END, SIX, YEAR, are_days, digits, kind, last_digits, shape

Names = Mapping[Chain, Mapping[str, Chain]]
"""Chains without the ends of their last names, and for each end the whole chain."""

_COMPARED = [END[one.kind] for one in ENDS if one.kind not in ("counted", "dated", "accession", "written on")]
_EXAM_NUMBER = re.compile(r"[A-Za-z]{0,4}\d{5,}")
_LONG = re.compile(r"(?<!\d)(?!(?:19[89]|20[0-4])\d$)\d{4,}$")
_PATIENT = re.compile(r"(?:pat|patient|subj|sub|subject|pt|case)[_\-. ]?\d+$", re.IGNORECASE)
_LONGEST_SITE = 4  # digits of a patient's number at a site; longer ones are a hospital's


def ends(chains: Iterable[Chain], uses: Mapping[Chain, Use], told: list[str]) -> Parts:
    """For chains whose last name ends in a visit: the chain without it, and the visit."""
    chains = [chain for chain in chains if chain and MAY_END.fullmatch(chain[-1])]
    result: Parts = {}
    for parts in (_counted(chains), _of_other_days(chains, uses), _written_on(chains)):
        result |= parts
        told += _told(parts)
    result |= _without_fields(chains, uses)
    rest = (chain for chain in chains if chain not in result)
    for names in _grouped(rest, _COMPARED, lambda chain, match: _likeness(chain, match, uses[chain])):
        if _tell_images_apart(names, uses):
            result |= {chain: (base, "") for chain, (base, _) in _parts(names).items()}
            continue
        if _are_timed(names, uses) or _are_visits(names):
            parts, is_sure = _parts(names), _are_long_ids(names)
        else:
            parts, is_sure = _before_a_constant(names) | _behind_a_whole(names, uses), False
        result |= parts
        told += [] if is_sure else _told(parts)
    whole = {base for base, _ in result.values()}  # names that others go on from, as `A-101-001` beside `A-101-001_W8`
    return {chain: part for chain, part in result.items() if chain not in whole}


def _told(parts: Parts) -> list[str]:
    return [as_visits({visit for _, visit in parts.values()}, "ends of patients' names")] if parts else []


def _parts(names: Names) -> Parts:
    return {chain: (base, visit) for base, visits in names.items() for visit, chain in visits.items()}


def _grouped(
    chains: Iterable[Chain],
    forms: Sequence[re.Pattern[str]],
    likeness: Callable[[Chain, re.Match[str]], Hashable | None],
) -> list[Names]:
    """Chains whose last names fit a form, those of one likeness together, without those that have none."""
    found: dict[Hashable, dict[Chain, dict[str, Chain]]] = defaultdict(lambda: defaultdict(dict))
    for chain in chains:
        match = next(filter(None, (form.fullmatch(chain[-1]) for form in forms)), None)
        if match and (alike := likeness(chain, match)) is not None:
            base = (*chain[:-1], match["name"])
            found[alike][base][match["visit"]] = chain
    return list(found.values())


def _likeness(chain: Chain, match: re.Match[str], use: Use) -> Hashable | None:
    """What names share whose ends are compared; None if an end is nobody's visit."""
    name, visit = match["name"], match["visit"]
    site_number = is_numbers(match.string) and _LONGEST_SITE >= digits(visit) >= last_digits(name)  # `101-001`
    if is_person(visit) or (site_number and use.roles and not use.bare):  # all files say their visit
        return None
    return chain[:-1] if is_generic(name) else (), shape(name) if has_digit(name) else "", match["gap"], kind(visit)


def _tell_images_apart(names: Names, uses: Mapping[Chain, Use]) -> bool:
    """Whether ends are numbers of series, as in `P01_003_T1` and `P01_004_FLAIR`: nobody has a kind of image twice."""
    several = [found for found in names.values() if len(found) > 1]
    if not several or not all(visit.isdecimal() for found in names.values() for visit in found):
        return False
    return all(tell_series_apart([uses[chain] for chain in found.values()]) for found in several)


def _are_visits(names: Names) -> bool:
    """Whether the ends of names repeat from one name to the next, and some name has several."""
    visits = [visit for found in names.values() for visit in found]
    if all(VISIT_LETTER.fullmatch(visit) for visit in visits) or _are_long_ids(names):
        return True
    several = [found for found in names.values() if len(found) > 1]
    few = all(len(found) <= FEW for found in names.values())
    grouped = any(is_group(base[-1]) for base in names)
    if SIX.fullmatch(visits[0]):
        some = len(names) > 1 or all(has_digit(base[-1]) for base in names)
        return are_days(visits) and few and some and not grouped
    if not several or grouped:
        return False
    if few and all(_PATIENT.search(base[-1]) for base in names):
        return True  # behind `pat105` nobody else is named
    if len(names) < 2:
        return False
    if all(map(_EXAM_NUMBER.fullmatch, visits)):  # number of a patient, number of an examination
        return len(set(visits)) == len(visits) and few
    return not _are_sites(names) and _repeat(several, visits, len(names))


def _are_sites(names: Names) -> bool:
    """Whether names are of sites, and ends of patients there: `01-001` and `02-001`."""
    longer = any(digits(visit) > last_digits(base[-1]) for base, found in names.items() for visit in found)
    years = all(YEAR.fullmatch(visit) for found in names.values() for visit in found)
    named = all(_PATIENT.search(base[-1]) or not has_digit(base[-1]) for base in names)
    return longer and not years and not named


def _repeat(several: Iterable[Iterable[str]], visits: Sequence[str], people: int) -> bool:
    """Whether each name with several ends shares one with another, and there are not more ends than patients."""
    counts = {visit: visits.count(visit) for visit in visits}
    shared = all(any(counts[visit] > 1 for visit in found) for found in several)
    return shared and len(counts) <= max(FEW, people)


def _are_timed(names: Names, uses: Mapping[Chain, Use]) -> bool:
    """Whether the ends of names are time points by the scheme that files are named by: three digits behind a number."""
    if not any(uses[chain].timed for visits in names.values() for chain in visits.values()):
        return False
    visits = {visit for found in names.values() for visit in found}
    different = {shape(base[-1]): base[-1] for base in names}  # one of those that differ in digits alone
    return all(re.fullmatch(r"\d{3}", visit) for visit in visits) and all(map(owns, different.values()))


def _are_long_ids(names: Names) -> bool:
    """Whether names are a long number and a short one, as in `UPENN-GBM-00001_11`: nobody else has the long one."""
    return all(
        _LONG.search(base[-1]) and len(found) <= MANY and all(re.fullmatch(r"\d{1,3}", visit) for visit in found)
        for base, found in names.items()
    ) and not any(is_group(base[-1]) for base in names)


def _before_a_constant(names: Names) -> Parts:
    """For names that all end alike, and state visits before that, as `X-0123-1-1` and `X-0123-2-1`: who, the visit."""
    if len({visit for visits in names.values() for visit in visits}) > 1:
        return {}
    shorter = _grouped(
        names, (END["short"],), lambda _, match: (shape(match["name"]), match["gap"], kind(match["visit"]))
    )
    return {
        chain: (whole, f"{visit}-{end}")
        for wholes in shorter
        if len(wholes) > 1 and _are_visits(wholes)
        for base, (whole, visit) in _parts(wholes).items()
        for end, chain in names[base].items()
    }


def _behind_a_whole(names: Names, uses: Mapping[Chain, Use]) -> Parts:
    """For names such as `GLI12_F1` beside images of `GLI12`: who, and the visit."""
    return _parts({base: visits for base, visits in names.items() if base in uses and _has_images(uses[base], base)})


def _has_images(use: Use, chain: Chain) -> bool:
    return (use.unknown or has_modality(use)) and not is_group(chain[-1])


def _written_on(chains: Iterable[Chain]) -> Parts:
    """For names that end in a letter for visits and a number, as `c01s04t01` and `c01s04t02`: who, and the visit."""
    found = _grouped(chains, (END["written on"],), lambda _, match: shape(match["name"]) + kind(match["visit"]))
    return {
        chain: part
        for names in found
        if 1 < max(map(len, names.values())) <= FEW
        for chain, part in _parts(names).items()
    }


def _counted(chains: Iterable[Chain]) -> Parts:
    """For names that end in a visit's number and its day, as `X-017_00_0000` and `X-017_01_0412`: who, and the visit.

    So it is where everybody's numbers count from the first visit, the days grow with them, and somebody came twice.
    """
    found = _grouped(chains, (END["counted"],), lambda _, match: shape(match["name"]))
    return {
        chain: part
        for names in found
        if max(map(len, names.values())) > 1
        and all(_count_visits(visits, len(names) > 1) and not is_group(base[-1]) for base, visits in names.items())
        for chain, part in _parts(names).items()
    }


def _count_visits(visits: Iterable[str], several: bool) -> bool:
    """Whether numbers begin with 0 or 1 and go on by one, and days grow; one patient alone begins with day 0."""
    pairs = sorted(tuple(map(int, re.findall(r"\d+", visit))) for visit in visits)
    numbers, days = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    first = numbers[0]
    return (
        first < 2
        and numbers == [*range(first, first + len(numbers))]
        and days == sorted(set(days))
        and (several or days[0] == 0)
    )


def _of_other_days(chains: Iterable[Chain], uses: Mapping[Chain, Use]) -> Parts:
    """For names such as `P001_MR_ACC123` with another date for each end, some of one patient: who, and the number."""
    dated = [chain for chain in chains if len(uses[chain].visits) == 1]
    result: Parts = {}
    for form in ("dated", "accession"):
        for names in _grouped(dated, (END[form],), lambda _, match: None if is_person(match["visit"]) else "all"):
            most = max(map(len, names.values()))
            differ = all(len({uses[one].visits for one in found.values()}) == len(found) for found in names.values())
            named = form == "accession" or all(owns(base[-1]) for base in names)
            if 1 < most <= len(names) and differ and named:  # of one place are more patients than a patient has visits
                result |= _parts(names)
    return result


def _without_fields(chains: Iterable[Chain], uses: Mapping[Chain, Use]) -> Parts:
    """For names such as `1000012_20252_2_0` and `1000012_20253_2_0`: who, and the visit without what tells kinds.

    A number tells kinds of images if nobody has one kind under two of its values: here 20252 is T1, 20253 is FLAIR.
    """
    found = {chain: match for chain in chains if (match := END["fields"].fullmatch(chain[-1]))}
    numbers = {chain: re.split(r"[_\-]", match["visit"]) for chain, match in found.items()}
    result: Parts = {}
    for place in range(max(map(len, numbers.values()), default=0)):
        kinds: dict[str, set[str]] = defaultdict(set)
        who: dict[str, set[str]] = defaultdict(set)
        inside = {chain: values for chain, values in numbers.items() if place < len(values)}
        for chain, values in inside.items():
            kinds[values[place]] |= uses[chain].roles - {MASK}
            who[values[place]].add(found[chain]["name"])
        apart = sum(map(len, kinds.values())) == len(set().union(*kinds.values()))
        if len(kinds) > 1 and apart and all(kinds.values()) and min(map(len, who.values())) > 1:
            result |= {
                chain: ((*chain[:-1], found[chain]["name"]), "_".join(values[:place] + values[place + 1 :]))
                for chain, values in inside.items()
            }
    return result
