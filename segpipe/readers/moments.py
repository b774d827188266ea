"""Words that are an image's elsewhere and visits here: T1 where T0 stands too, `pre` and `post` at a FLAIR.

They are taken out of paths before these are read, because only all paths together tell them.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from segpipe.readers.archive import stem
from segpipe.readers.entries import Rows
from segpipe.readers.names import MASK, take_visits

_START, _END = r"(?<![^\W_])", r"(?![^\W_])"
_WORD = re.compile(r"[^\W_]+")
_POINT = re.compile(r"t\d", re.IGNORECASE)
_CONTRAST = re.compile(r"(?:pre|post|before|after)\d?", re.IGNORECASE)
_HINT = re.compile(rf"{_START}(?:t[03-9]|{_CONTRAST.pattern}){_END}", re.IGNORECASE)
_AGENT = re.compile(r"[_\-. ](?:[ck]ontrast|gad|gd|km|inj)", re.IGNORECASE)
_WEIGHTS = ("1", "2")  # no image is weighted by T0 or T3
_SEPARATORS = "_-. "

File = tuple[str, str]
"""A folder's path and the name of a file there."""


class Moment(NamedTuple):
    """A file without the words that say its visit, and these."""

    file: File
    visits: tuple[str, ...]


class _Place(NamedTuple):
    """A word of a path: in which name, counted from the file's, where it begins and ends, and which it is of them."""

    depth: int
    start: int
    end: int
    word: str
    slots: frozenset[tuple[int, int]]  # from the first, and from the last word of the name


def moments(folders: Mapping[str, Rows], role: Callable[[File], str | None]) -> dict[File, Moment]:
    """Of files whose paths hold such words: the path without them, and the visit. `role` tells what a file is."""
    different = {id(rows.ends): "\n".join(rows.ends.each) for rows in folders.values()}
    if not any(map(_HINT.search, ("\n".join(folders), *different.values()))):
        return {}
    files = [(folder, row[0]) for folder, rows in folders.items() for row in rows]
    return _points(files) or _contrasts(files, role)


def _points(files: Iterable[File]) -> dict[File, Moment]:
    """T1 and T2 where T0 or T3 stand in other paths: then they count time."""
    places = {file: found for file in files if (found := list(_places(file, _POINT)))}
    every = [one for found in places.values() for one in found]
    counted = {(one.depth, slot) for one in every if one.word[1] not in _WEIGHTS for slot in one.slots}
    result = {}
    for file, found in places.items():
        inside = {depth: [one for one in found if one.depth == depth] for depth in {one.depth for one in found}}
        fitting = [max(some, key=lambda one: _fitting(one, counted)) for some in inside.values()]
        if kept := [one for one in fitting if _fitting(one, counted)]:
            result[file] = _without(file, kept)
    words = {moment.visits for moment in result.values()}
    clear = all(len(visits) == 1 for visits in words) and any(visits[0][1] in _WEIGHTS for visits in words)
    return result if clear else {}


def _fitting(one: _Place, counted: set[tuple[int, tuple[int, int]]]) -> int:
    return sum((one.depth, slot) in counted for slot in one.slots)


def _contrasts(files: Collection[File], role: Callable[[File], str | None]) -> dict[File, Moment]:
    """`pre` and `post` where masks or images are called by both that these say no agent of, as often as T1 is.

    Most files beside must be called by one of them: an examination with an agent has images of one kind too.
    """
    found = {file: _without(file, places) for file in files if (places := list(_places(file, _CONTRAST)))}
    found = {file: moment for file, moment in found.items() if len(moment.visits) == 1}
    held: dict[File, set[str]] = defaultdict(set)
    for moment in found.values():
        held[moment.file].add(moment.visits[0].lower())
    roles = [role(file) for file, words in held.items() if len(words) > 1]
    others = sum(one in ("FLAIR", "T1ce", "T2", MASK) for one in roles)
    inside = {folder for folder, _ in found}
    beside = sum(file[0] in inside for file in files) - len(found)
    visits = others > beside and others >= roles.count("T1")
    return found if visits else {}


def _places(file: File, pattern: re.Pattern[str]) -> Iterator[_Place]:
    folder, name = file
    for depth, part in enumerate((stem(name), *reversed(folder.split("/")))):
        words = list(_WORD.finditer(part))
        stated = "_".join(take_visits(part)[0]) if pattern is _CONTRAST and pattern.search(part) else ""
        for number, word in enumerate(words):
            of_agent = pattern is _CONTRAST and _AGENT.match(part, word.end())  # `pre-contrast`
            if pattern.fullmatch(word[0]) and word[0] not in stated and not of_agent:  # `pre-op` is one word
                slots = frozenset({(0, number), (1, len(words) - number)})
                start, end = word.span()
                bracketed = part[start - 1 : start] + part[end : end + 1] in ("()", "[]")
                yield _Place(depth, start - bracketed, end + bracketed, word[0], slots)


def _without(file: File, places: Iterable[_Place]) -> Moment:
    folder, name = file
    parts = [stem(name), *reversed(folder.split("/"))]
    places = list(places)
    for one in reversed(places):
        before, after = parts[one.depth][: one.start].rstrip(_SEPARATORS), parts[one.depth][one.end :]
        parts[one.depth] = before + after if before else after.lstrip(_SEPARATORS)
    suffix = name[len(stem(name)) :]
    visits = {one.word.upper(): one.word for one in reversed(places)}
    return Moment(("/".join(filter(None, reversed(parts[1:]))), parts[0] + suffix), tuple(visits.values()))
