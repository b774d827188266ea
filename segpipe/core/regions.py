"""Label maps and the regions that are trained, predicted and measured.

The regions of glioma are those of the BraTS benchmark (Menze et al. 2015, 10.1109/TMI.2014.2377694); after treatment
and in children those of its later years (de Verdier et al. 2024, arXiv 2405.18368; Kazerooni et al. 2024, arXiv
2404.15009).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class LabelConvention:
    """What the numbers of a label map mean, and which of them form each region.

    `regions` go from the outermost to the innermost; each must own exactly one label that no later region
    has, so that regions can be painted back into a label map. They may lie inside of each other or side by side. Raises
    ValueError where they do not.
    """

    name: str
    labels: dict[int, str]
    regions: dict[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        unknown = {label for region in self.regions.values() for label in region} - set(self.labels)
        if unknown or any(not 0 < label < 256 for label in self.labels):
            raise ValueError(
                f"convention {self.name}: labels must be named and lie in 1 to 255, not {unknown or self.labels}"
            )
        if len(set(self.paint)) != len(self.regions):
            raise ValueError(f"convention {self.name}: regions {self.regions} cannot be told apart")

    @property
    def title(self) -> str:
        """Its name without the labels and regions that describe one of a user's own."""
        return self.name.partition("|")[0]

    @property
    def region_names(self) -> tuple[str, ...]:
        """The regions, outermost first: the order of the last axis of a region map."""
        return tuple(self.regions)

    @cached_property
    def paint(self) -> tuple[int, ...]:
        """The label that each region owns, outermost first."""
        sets = [set(labels) for labels in self.regions.values()]
        paint = []
        for place, labels in enumerate(sets):
            own = labels.difference(*sets[place + 1 :])
            if len(own) != 1:
                message = f"regions {self.regions} cannot be told apart: each needs one label that no later one has"
                raise ValueError(f"convention {self.name}: {message}")
            paint.append(own.pop())
        return tuple(paint)

    @property
    def is_nested(self) -> bool:
        """Whether each region lies inside of the one before."""
        sets = [set(labels) for labels in self.regions.values()]
        return all(inner <= outer for outer, inner in pairwise(sets))

    @property
    def text(self) -> str:
        """All of the convention in one line, which `CONVENTIONS` understands as a name.

        >>> LabelConvention("mine", {1: "cyst", 2: "rim"}, {"all": (1, 2), "rim": (2,)}).text
        'mine|1=cyst,2=rim|all=1+2,rim=2'
        """
        labels = ",".join(f"{label}={name}" for label, name in sorted(self.labels.items()))
        regions = ",".join(f"{name}={'+'.join(map(str, members))}" for name, members in self.regions.items())
        return f"{self.name}|{labels}|{regions}"


@lru_cache(maxsize=64)
def convention_from_text(text: str) -> LabelConvention:
    """The convention that a line written by `LabelConvention.text` describes; its name is that line.

    Raises ValueError if the line describes none.
    """
    try:
        _, labels, regions = text.split("|")
        named = {int(label): name for label, _, name in (part.partition("=") for part in labels.split(","))}
        members = {
            name: tuple(int(label) for label in inside.split("+"))
            for name, _, inside in (part.partition("=") for part in regions.split(","))
        }
    except ValueError as error:
        raise ValueError(f"{text!r} describes no label convention") from error
    return LabelConvention(text, named, members)


class _Conventions(Mapping[str, LabelConvention]):
    """Conventions by name; a line that describes one of the user's own is its name."""

    def __init__(self, *known: LabelConvention):
        self._known = {convention.name: convention for convention in known}

    def __getitem__(self, name: str) -> LabelConvention:
        if name in self._known:
            return self._known[name]
        try:
            return convention_from_text(name)
        except (ValueError, AttributeError, TypeError):
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


CONVENTIONS: Mapping[str, LabelConvention] = _Conventions(
    LabelConvention(
        "brats",
        {1: "necrotic core", 2: "oedema", 4: "enhancing tumour"},
        {"whole_tumour": (1, 2, 4), "tumour_core": (1, 4), "enhancing_tumour": (4,)},
    ),
    LabelConvention(
        "brats2023",
        {1: "necrotic core", 2: "oedema", 3: "enhancing tumour"},
        {"whole_tumour": (1, 2, 3), "tumour_core": (1, 3), "enhancing_tumour": (3,)},
    ),
    LabelConvention(
        "brats2024",
        {1: "non-enhancing tumour core", 2: "oedema", 3: "enhancing tumour", 4: "resection cavity"},
        {
            "whole_tumour": (1, 2, 3),
            "tumour_core": (1, 3),
            "enhancing_tumour": (3,),
            "resection_cavity": (4,),
        },
    ),
    LabelConvention(
        "brats-ped",
        {1: "enhancing tumour", 2: "non-enhancing tumour core", 3: "cyst", 4: "oedema"},
        {"whole_tumour": (1, 2, 3, 4), "tumour_core": (1, 2, 3), "enhancing_tumour": (1,), "cyst": (3,)},
    ),
    LabelConvention(
        "decathlon",
        {1: "oedema", 2: "non-enhancing tumour", 3: "enhancing tumour"},
        {"whole_tumour": (1, 2, 3), "tumour_core": (2, 3), "enhancing_tumour": (3,)},
    ),
    LabelConvention("binary", {1: "lesion"}, {"lesion": (1,)}),
)


def label_counts(labels: np.ndarray) -> dict[int, int]:
    """Voxels of each label other than 0, ascending; labels of any real dtype.

    >>> label_counts(np.array([0.0, 4.0, 4.0, 1.0]))
    {1: 1, 4: 2}

    Raises ValueError if a label is not a whole number.
    """
    if labels.dtype == np.uint8:
        numbers = np.bincount(labels[labels != 0])  # almost all is background: counting it would take ten times as long
        return {int(label): int(numbers[label]) for label in np.flatnonzero(numbers)}
    found, numbers = np.unique(labels[labels != 0], return_counts=True)
    if not (np.isfinite(found) & (found == np.rint(found))).all():
        raise ValueError(f"labels are whole numbers, not {found[:5].tolist()}")
    return {int(label): int(number) for label, number in zip(found, numbers, strict=True)}


def unknown_labels(labels: np.ndarray, convention: LabelConvention) -> list[int]:
    """The labels of a map that its convention does not name, ascending; 0 is always background."""
    return [label for label in label_counts(labels) if label not in convention.labels]


def to_regions(labels: np.ndarray, convention: LabelConvention) -> np.ndarray:
    """Region maps, uint8 0 or 1 (..., R), of a label map (...) with whole numbers of any real dtype.

    >>> to_regions(np.array([0, 2, 1, 4]), CONVENTIONS["brats"]).tolist()
    [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]

    Raises ValueError naming the labels that the convention does not know.
    """
    unknown = unknown_labels(labels, convention)
    if unknown:
        raise ValueError(f"labels {unknown} are not in convention {convention.name} {convention.labels}")
    table = np.zeros((256, len(convention.regions)), np.uint8)
    for place, members in enumerate(convention.regions.values()):
        table[list(members), place] = 1
    return table[labels.astype(np.uint8, copy=False)]


def to_labels(regions: np.ndarray, convention: LabelConvention) -> np.ndarray:
    """The label map, uint8 (...), of region maps (..., R) of bools or 0 and 1.

    Later regions are painted over those before. The inverse of `to_regions`. A voxel that is
    in an inner region but not in the outer one, as a network may say, gets the inner region's label.
    Raises ValueError if R is another.
    """
    if regions.shape[-1] != len(convention.regions):
        raise ValueError(
            f"{regions.shape[-1]} regions where convention {convention.name} has {list(convention.regions)}"
        )
    labels = np.zeros(regions.shape[:-1], np.uint8)
    for place, label in enumerate(convention.paint):
        labels[regions[..., place] != 0] = label
    return labels


def recode(labels: np.ndarray, source: LabelConvention, target: LabelConvention) -> np.ndarray:
    """A label map, uint8 (...), in the numbers of another convention with the same regions.

    >>> recode(np.array([0, 2, 1, 4], np.uint8), CONVENTIONS["brats"], CONVENTIONS["decathlon"]).tolist()
    [0, 1, 2, 3]

    Raises ValueError if the conventions have other regions.
    """
    if source.region_names != target.region_names:
        raise ValueError(f"conventions {source.name} and {target.name} have other regions")
    table = np.zeros(256, np.uint8)
    table[list(source.paint)] = target.paint
    return table[labels]
