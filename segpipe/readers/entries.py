"""The files of an archive, folder by folder: an object for a file is made where somebody asks for it.

Thousands of folders hold files whose names differ in the folder's own name alone. What follows behind that name is one
object for all of them (`Ends`), so it is looked at once.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, ItemsView, Iterable, Iterator, Mapping, ValuesView
from functools import cached_property, lru_cache
from typing import NamedTuple

from segpipe.readers.folders import Content, File, content

__all__ = ["Ends", "Entries", "Entry", "Row", "Rows", "entry_of", "is_plain"]

_PLAIN = re.compile(r"(?:/(?!\.)[\w .+()-]+)+", re.ASCII)  # names that nothing is wrong with, each after a slash
_MOST_READ = (".nii.gz", ".nii")  # how the names of most files end that an archive is searched for
_SEPARATORS = ("_", "-", ".", " ")
_MOST_SHARED = 100  # files of a folder that others are like

Row = tuple[str, int, str]
"""A file in its folder: name, size, and what the file system says of its version."""


class Ends:
    """How the names of a folder's files go on behind the folder's own where `repeated`, else the whole names.

    One object stands for all folders that are alike, unless there are too many kinds of them.
    """

    def __init__(self, repeated: bool, each: tuple[str, ...]) -> None:
        self.repeated = repeated
        self.each = each

    @cached_property
    def are_most_read(self) -> bool:
        """Whether all are `.nii.gz` and `.nii` files."""
        return all(end.endswith(_MOST_READ) for end in self.each)

    @cached_property
    def are_plain(self) -> bool:
        """Whether nothing is wrong with any name, as far as it is not the folder's."""
        return all(_PLAIN.fullmatch(f"/_{end}" if self.repeated else f"/{end}") for end in self.each)

    @cached_property
    def are_parted(self) -> bool:
        """Whether all names repeat their folder's, and a separator stands behind it: `<case>_t1`, `<case>_seg`."""
        return self.repeated and all(end.startswith(_SEPARATORS) for end in self.each)

    def may_hold(self, word: str) -> bool:
        """Whether a word in lower case stands in an end, or may begin in the folder's name and go on in one."""
        lower = [end.lower() for end in self.each]
        return any(word in end or any(end.startswith(word[n:]) for n in range(1, len(word))) for end in lower)


_shared = lru_cache(maxsize=1 << 12)(Ends)


class Rows(Collection[Row]):
    """The files of a folder in the order of their names; a row is made where somebody asks for it.

    `start` is what all names begin with, the folder's own or nothing; `versions` are told as texts.

    >>> rows = Rows.of("a/P1/", [("P1_t2.nii", 3, "v2"), ("P1_t1.nii", 2, 0.5)])
    >>> list(rows), rows.start, rows.ends.each
    ([('P1_t1.nii', 2, '0.5'), ('P1_t2.nii', 3, 'v2')], 'P1', ('_t1.nii', '_t2.nii'))
    """

    __slots__ = ("ends", "sizes", "start", "versions")

    def __init__(self, found: Content) -> None:
        self.start, each, self.sizes, self.versions = found
        self.ends = (_shared if len(each) <= _MOST_SHARED else Ends)(self.start != "", each)

    @classmethod
    def of(cls, folder: str, files: Iterable[File]) -> Rows:
        """The files of a folder, whose path is empty or ends with a slash; `files` itself where that is possible."""
        return files if isinstance(files, cls) else cls(content(folder, list(files)))

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, place: int) -> Row:
        return self.start + self.ends.each[place], self.sizes[place], str(self.versions[place])

    def __iter__(self) -> Iterator[Row]:
        start = self.start
        for end, size, version in zip(self.ends.each, self.sizes, self.versions, strict=True):
            yield start + end, size, str(version)

    def __contains__(self, row: object) -> bool:
        return any(row == one for one in self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class Entry(NamedTuple):
    """A file of the archive: path relative to its root, size, and what the file system says of its version."""

    path: str
    bytes: int
    modified: str

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


class Entries(Mapping[str, Entry]):
    """Files by path, folder by folder in the order of their names, whatever order they come in.

    `folders` has the rows of each folder that holds files, by its path with a slash: "" or "a/b/".

    >>> entries = Entries({"b/": [("y", 2, "0.5"), ("x", 1, "v1")], "": [("z", 3, "v2")]})
    >>> list(entries), entries["b/y"], "b/z" in entries
    (['z', 'b/x', 'b/y'], Entry(path='b/y', bytes=2, modified='0.5'), False)
    """

    def __init__(self, folders: Mapping[str, Collection[File]]) -> None:
        self.folders = {folder: Rows.of(folder, folders[folder]) for folder in sorted(folders)}

    @classmethod
    def of(cls, entries: Mapping[str, Entry]) -> Entries:
        """The same files; `entries` itself where that is possible."""
        return entries if isinstance(entries, cls) else cls.among(entries.values())

    @classmethod
    def among(cls, entries: Iterable[Entry]) -> Entries:
        """Some files."""
        folders: dict[str, list[File]] = {}
        for path, size, modified in entries:
            above, slash, name = path.rpartition("/")
            folders.setdefault(above + slash, []).append((name, size, modified))
        return cls(folders)

    def __len__(self) -> int:
        return sum(map(len, self.folders.values()))

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths())

    def paths(self, but: Collection[str] = ()) -> list[str]:
        """The paths of all files, of those in some folders none."""
        starts = [(folder + rows.start, rows.ends.each) for folder, rows in self.folders.items() if folder not in but]
        return [start + end for start, ends in starts for end in ends]

    def __getitem__(self, path: str) -> Entry:
        above, slash, name = path.rpartition("/")
        rows = self.folders[above + slash]
        each, end = rows.ends.each, name.removeprefix(rows.start)
        place = bisect_left(each, end)
        if place == len(each) or rows.start + each[place] != name:
            raise KeyError(path)
        return entry_of(above + slash, rows[place])

    def values(self) -> ValuesView[Entry]:
        return _Values(self)

    def items(self) -> ItemsView[str, Entry]:
        return _Items(self)

    @cached_property
    def mixed(self) -> dict[str, Rows]:
        """The folders that hold other files than `.nii.gz` and `.nii`."""
        return {folder: rows for folder, rows in self.folders.items() if not rows.ends.are_most_read}

    def others(self) -> Iterator[Entry]:
        """The files whose names end in neither `.nii.gz` nor `.nii`."""
        for folder, rows in self.mixed.items():
            for row in rows:
                if not row[0].endswith(_MOST_READ):
                    yield entry_of(folder, row)

    def naming(self, words: Collection[str]) -> Iterator[Entry]:
        """The files in whose paths, in any case, one of some words stands that have no slash and are in lower case."""
        above = "\n".join(self.folders).lower()
        in_folders = [word for word in words if word in above]
        may_hold: dict[Ends, bool] = {}
        for folder, rows in self.folders.items():
            ends = rows.ends
            if ends not in may_hold:
                may_hold[ends] = any(map(ends.may_hold, words))
            if may_hold[ends] or any(word in folder.lower() for word in in_folders):
                for entry in (entry_of(folder, row) for row in rows):
                    if any(word in entry.path.lower() for word in words):
                        yield entry


def is_plain(folder: str) -> bool:
    """Whether nothing is wrong with the names in a folder's path, which is empty or ends with a slash."""
    return _PLAIN.fullmatch(f"/{folder}_") is not None


def entry_of(folder: str, row: File) -> Entry:
    """The file of a row in a folder whose path ends with a slash."""
    return Entry(folder + row[0], row[1], str(row[2]))


class _Values(ValuesView[Entry]):
    _mapping: Entries

    def __iter__(self) -> Iterator[Entry]:
        for folder, rows in self._mapping.folders.items():
            for row in rows:
                yield entry_of(folder, row)


class _Items(ItemsView[str, Entry]):
    _mapping: Entries

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        return ((entry.path, entry) for entry in self._mapping.values())
