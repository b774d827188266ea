"""Chains of names, how they occur in an archive, and what is told of a reading that could be another one.

A name is a chain: what folders and file say that may name a person, outermost first, without words for roles, files and
visits.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from segpipe.readers.names import MODALITIES, has_digit, is_group

Chain = tuple[str, ...]
Parts = dict[Chain, tuple[Chain, str]]
"""For chains that say a visit: the chain without it, and the visit."""

_EDITION = re.compile(r".*[^\W\d_]{3,}(?:(?:19[89]|20[0-4])\d|[_\-. ]?v\d+(?:[._]\d+)*)", re.IGNORECASE)  # `WMH2017`
MANY = 20  # visits of one patient
FEW = 8  # visits that nobody wonders at, however few patients there are
LEAST_NAME = 4  # letters of a name without digits that is nobody else's


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


def together(found: Iterable[tuple[Chain, Use]]) -> dict[Chain, Use]:
    """How each chain occurs in all."""
    uses: dict[Chain, Use] = {}
    for chain, use in found:
        known = uses.get(chain)
        uses[chain] = use if known is None or known is use else known | use
    return uses


def owns(parent: str) -> bool:
    """Whether a name is one of a person rather than of a place, a group or an edition of a data set."""
    return has_digit(parent) and not is_group(parent) and not _EDITION.fullmatch(parent)


def has_modality(use: Use) -> bool:
    """Whether there are images of the four modalities."""
    return not use.roles.isdisjoint(MODALITIES)


def tell_series_apart(uses: Collection[Use]) -> bool:
    """Whether each of the words stands at one image and no two at the same kind: numbers of series, as `003_t1`.

    Images of several visits that words state may be of one kind.
    """
    images = [(visit, role) for use in uses for role in use.roles for visit in use.visits or {()}]
    alone = all(len(use.roles) <= 1 for use in uses) and len(set(images)) == len(images)
    return len({use.roles for use in uses}) > 1 and alone


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
