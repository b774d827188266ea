"""A card as it is being made of what another tool wrote: what is known, what is to be checked, what must be decided."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segpipe.core.input_scale import Scaling
from segpipe.core.regions import CONVENTIONS
from segpipe.models.card import BACKGROUND, MODALITIES, modality, scaling_table

NOT_STATED = "not stated: ask who trained it"


def licence_of(content: Mapping[str, Any]) -> str:
    """The licence that a file names; a copyright, which says whose the weights are and not what one may do, is none.

    >>> licence_of({"licence": "CC0"}), licence_of({"copyright": "(c) Somebody"})
    ('CC0', 'not stated: ask who trained it; (c) Somebody')
    """
    named = content.get("license") or content.get("licence")
    return str(named) if named else "; ".join(filter(None, [NOT_STATED, str(content.get("copyright") or "")]))


_LABEL_KINDS = {
    "oedema": r"o?edema|snfh|\bed\b|invaded|flair",
    "necrotic": r"necro|ncr|\bnetc?\b|\b(non|not|un|without)[ _-]*(contrast[ _-]*)?enh",
    "enhancing": r"enhanc|\bet\b|\bactive",
    "cavity": r"cavity|\brc\b",
    "cyst": r"cyst|\bcc\b",
}
"""What a label is called; the first that fits, because BraTS also calls oedema `non-enhancing FLAIR hyperintensity`."""

_REGION_KINDS = {
    "whole_tumour": r"whole(?! *(brain|head|organ|gland|prostate|kidney|heart))|\bwt\b|complete",
    "tumour_core": r"core|\btc\b",
    "enhancing_tumour": _LABEL_KINDS["enhancing"],
    "resection_cavity": _LABEL_KINDS["cavity"],
    "cyst": _LABEL_KINDS["cyst"],
}
_BARE = (
    "the scaling counts what is not 0, as where the skull was taken off: with input.space = brain-1mm other scans than"
    " those of `--prepare` are refused"
)
_NAMELESS = r"(input_?|channel_?)?(image|img|mri?|mri?_image|magnitude|volume|scan|data|input|channel)?_?\d*"
"""Names of channels that say nothing of what was scanned."""


@dataclass
class Draft:
    """A card as it is being made: its content, keys that are open being None.

    `remarks` are for whoever looks it over. `doubts` are what nobody but they can decide: the card is not used until
    they have.
    """

    content: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def put(self, section: str, **values: Any) -> None:
        """Set keys of a section."""
        self.content.setdefault(section, {}).update(values)

    def put_scalings(self, rules: Sequence[Scaling]) -> None:
        """Set the normalisation: one rule for all channels, or one for each; without one it stays open."""
        tables = [scaling_table(rule) for rule in rules] or [{"method": None}]
        self.content["normalisation"] = tables[0] if all(table == tables[0] for table in tables) else tables
        if any("non-zero" in rule.over for rule in rules):
            self.check(_BARE)

    def check(self, remark: str) -> None:
        """Note what the card takes for granted."""
        self.remarks.append(f"{remark}: CHECK")

    def doubt(self, reason: str) -> None:
        """Note why the card cannot be used as it stands."""
        self.doubts.append(reason)

    def notes(self) -> list[str]:
        """Remarks and doubts, as they stand above the card."""
        return [*self.remarks, *(f"{doubt}: DECIDE" for doubt in self.doubts)]

    def open_keys(self) -> list[str]:
        """The keys that nobody could tell."""
        return [
            f"{section}.{name}"
            for section, table in self.content.items()
            if isinstance(table, Mapping)
            for name, value in table.items()
            if value is None
        ]

    def stated(self) -> dict[str, Any]:
        """The content without open keys: what a card is read from."""
        return {
            section: {name: value for name, value in table.items() if value is not None}
            if isinstance(table, Mapping)
            else table
            for section, table in self.content.items()
        }


# ---- words


def modalities(names: Sequence[str], draft: Draft) -> list[str] | None:
    """What the tables call these channels, as they came where nobody knows; None if a name says nothing of the scan."""
    found = []
    for name in names:
        known = modality(name)
        if known is None and re.fullmatch(_NAMELESS, re.sub(r"\W+", "_", name.strip()), re.IGNORECASE):
            draft.doubt(f"the channel {name!r} does not say which modality it is")
            return None
        if known is None:
            draft.check(f"the channel {name!r} is not one of {', '.join(MODALITIES)}, and scans must call it so")
        found.append(known or name)
    return found


def channels(names: Sequence[str], draft: Draft) -> tuple[str | None, list[str]]:
    """Convention and names of output channels by what they are called; the names as they came where nobody knows."""
    inner = [name for name in names if not re.fullmatch(r"background|bg|0", name, re.IGNORECASE)]
    if len(inner) == 1:
        if not re.search("lesion", inner[0], re.IGNORECASE):
            draft.check(f"what the network calls {inner[0]!r} is `lesion` in the tables")
        return "binary", [BACKGROUND if name not in inner else "lesion" for name in names]
    regions = [region_kind(name) for name in inner]
    for one in CONVENTIONS.values():
        if sorted(map(str, regions)) == sorted(one.regions):
            places = iter(regions)
            return one.name, [str(next(places)) if name in inner else BACKGROUND for name in names]
    kinds = [_kind(name, _LABEL_KINDS) for name in inner]
    if (convention := _of_labels(kinds)) is not None:
        own = {_kind(name, _LABEL_KINDS): name for name in CONVENTIONS[convention].labels.values()}
        return convention, [own[kinds[inner.index(name)]] if name in inner else BACKGROUND for name in names]
    draft.doubt(f"{listed(names)} are the labels or regions of none of {', '.join(CONVENTIONS)}")
    return None, list(names)


def region_kind(name: str) -> str | None:
    """The region that goes by a name; a core that is necrotic, or does not enhance, is a label and none.

    >>> region_kind("Tumor core"), region_kind("necrotic tumor core"), region_kind("non-enhancing")
    ('tumour_core', None, None)
    """
    kind = _kind(name, _REGION_KINDS)
    is_part = kind in ("tumour_core", "enhancing_tumour") and _kind(name, _LABEL_KINDS) == "necrotic"
    return None if is_part else kind


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names as a message tells them.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    told = ", ".join(names[:most])
    return told if len(names) <= most else f"{told} and {len(names) - most} more"


def ordered(numbered: Any) -> list[str]:
    """The values of `{"0": …, "1": …}`, or of a list, in order; ValueError where a number is left out."""
    if isinstance(numbered, list):
        return [str(name) for name in numbered]
    keys = sorted(numbered, key=int)
    if list(map(int, keys)) != list(range(len(keys))):
        raise ValueError(f"channels are numbered {listed(list(map(str, keys)))}, not from 0 on")
    return [str(numbered[key]) for key in keys]


def _of_labels(kinds: Sequence[str | None]) -> str | None:
    """The convention with labels of these kinds and numbers without a gap, if there is one in this order."""
    known = {
        one.name: [_kind(label, _LABEL_KINDS) for _, label in sorted(one.labels.items())]
        for one in CONVENTIONS.values()
        if max(one.labels) == len(one.labels)
    }
    fitting = [name for name, own in known.items() if None not in own and set(own) == set(kinds)]
    if not fitting or len(set(kinds)) != len(kinds):
        return None
    return next((name for name in fitting if known[name] == list(kinds)), fitting[0])


def _kind(name: str, kinds: Mapping[str, str]) -> str | None:
    text = name.replace("_", " ")
    return next((kind for kind, pattern in kinds.items() if re.search(pattern, text, re.IGNORECASE)), None)
