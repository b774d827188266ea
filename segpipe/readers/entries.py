"""The files of an archive, folder by folder as rows: an object for a file is made where somebody asks for it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, ItemsView, Iterable, Iterator, Mapping, ValuesView
from functools import cached_property
from typing import NamedTuple

from segpipe.readers.folders import Row

__all__ = ["Entries", "Entry", "Row", "entry_of"]

_MOST_READ = (".nii.gz", ".nii")  # how the names of most files end that an archive is searched for


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

    def __init__(self, folders: Mapping[str, Collection[Row]]) -> None:
        self.folders: dict[str, list[Row]] = {folder: sorted(folders[folder]) for folder in sorted(folders)}

    @classmethod
    def of(cls, entries: Mapping[str, Entry]) -> Entries:
        """The same files; `entries` itself where that is possible."""
        return entries if isinstance(entries, cls) else cls.among(entries.values())

    @classmethod
    def among(cls, entries: Iterable[Entry]) -> Entries:
        """Some files."""
        folders: dict[str, list[Row]] = {}
        for path, size, modified in entries:
            above, slash, name = path.rpartition("/")
            folders.setdefault(above + slash, []).append((name, size, modified))
        return cls(folders)

    def __len__(self) -> int:
        return sum(map(len, self.folders.values()))

    def __iter__(self) -> Iterator[str]:
        for folder, rows in self.folders.items():
            for name, _, _ in rows:
                yield folder + name

    def __getitem__(self, path: str) -> Entry:
        above, slash, name = path.rpartition("/")
        rows = self.folders.get(above + slash, ())
        place = bisect_left(rows, (name,))
        if place == len(rows) or rows[place][0] != name:
            raise KeyError(path)
        return entry_of(above + slash, rows[place])

    def values(self) -> ValuesView[Entry]:
        return _Values(self)

    def items(self) -> ItemsView[str, Entry]:
        return _Items(self)

    @cached_property
    def mixed(self) -> dict[str, list[Row]]:
        """The folders that hold other files than `.nii.gz` and `.nii`."""
        return {
            folder: rows
            for folder, rows in self.folders.items()
            if not all([row[0].endswith(_MOST_READ) for row in rows])
        }

    def others(self) -> Iterator[Entry]:
        """The files whose names end in neither `.nii.gz` nor `.nii`."""
        for folder, rows in self.mixed.items():
            for row in rows:
                if not row[0].endswith(_MOST_READ):
                    yield entry_of(folder, row)

    def naming(self, words: Collection[str]) -> Iterator[Entry]:
        """The files in whose paths, in any case, one of some words stands that have no slash and are in lower case."""
        for folder, rows in self.folders.items():
            text = "/".join([folder, *[row[0] for row in rows]]).lower()
            if any([word in text for word in words]):
                for entry in (entry_of(folder, row) for row in rows):
                    if any(word in entry.path.lower() for word in words):
                        yield entry


def entry_of(folder: str, row: Row) -> Entry:
    """The file of a row in a folder whose path ends with a slash."""
    return Entry(folder + row[0], row[1], row[2])


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
