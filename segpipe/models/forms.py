"""What the fields of `bundle.json` must look like before anything is made of them: a model directory may be anybody's.

Only their forms are told here. Whether a network can be built of them is for `network_settings` to say, and whether
they are the ones that were trained for the hashes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from segpipe.settings import MOST_NEIGHBOURS


def malformed(content: Mapping[str, Any]) -> list[str]:
    """The fields of a bundle that have no form of theirs, sorted.

    >>> malformed({"multiple": 0, "crop": [64, 64], "files": {"../../dev/zero": "0"}})
    ['files', 'multiple']
    """
    return sorted(name for name, is_right in _FORMS.items() if name in content and not is_right(content[name]))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _is_network(value: Any) -> bool:
    """What segmenting reads of it, without building it."""
    return (
        isinstance(value, dict)
        and value.get("dimensions", 0) in (None, 2, 3)
        and value.get("neighbours") in (None, *range(MOST_NEIGHBOURS + 1))
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_count, value))


def _are_modalities(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _are_labels(value: Any) -> bool:
    return isinstance(value, dict) and all(label.isdecimal() and isinstance(value[label], str) for label in value)


def _are_regions(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_are_counts, value.values()))


def _are_files(value: Any) -> bool:
    """Names of files inside the directory, with their hashes."""
    return isinstance(value, dict) and all(_is_inside(name) and isinstance(value[name], str) for name in value)


def _is_inside(name: str) -> bool:
    return "\\" not in name and not {"", ".", ".."} & set(name.split("/"))


_TEXTS = ("orientation", "label_convention", "cohort", "split_rule", "weights_sha256", "model_id", "normalisation")
_MAPS = ("training", "subjects", "metrics", "versions", "inference", "adopted")

_FORMS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys((*_TEXTS, "space", "origin"), _is_text),
    **dict.fromkeys(_MAPS, _is_map),
    **dict.fromkeys(("cleaning", "thresholds", "presence", "evidence", "brightness"), _are_numbers),
    "network": _is_network,
    "modalities": _are_modalities,
    "crop": _are_counts,
    "multiple": _is_count,
    "threshold": _is_number,
    "labels": _are_labels,
    "regions": _are_regions,
    "files": _are_files,
}
