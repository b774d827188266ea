"""What MONAI's inference.json or .yaml says, read as data: references are followed, expressions are not evaluated."""

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain
from typing import Any

_DEEPEST = 8  # references to references, and transforms inside of transforms
_MOST_LOOKS = 10_000
_UNREAD = {"keys", "dtype", "device", "mode", "padding_mode", "align_corners", "meta_keys", "meta_key_postfix"}
"""Options that change no value or no more than a rounding, so that it does not matter what they are."""


@dataclass(frozen=True)
class Step:
    """A transform of a bundle, those that are known without the d of dictionaries; expressions in options are None."""

    name: str
    options: Mapping[str, Any]
    expressions: tuple[str, ...]

    def flag(self, name: str, default: bool = False) -> bool:
        """An option that is yes or no, also as a text or as the first of a list, as bundles have it."""
        value = first(self.options.get(name, default))
        return value.strip().lower() == "true" if isinstance(value, str) else bool(value)

    def number(self, name: str, default: float) -> float:
        """An option that is a number, also as a text; `default` where there is none. ValueError for another text."""
        value = first(self.options.get(name))
        return default if value is None else float(value)


@dataclass
class Pipeline:
    """What inference.json says, by section; nothing of it is evaluated.

    `known` are the transforms whose names lose the d of those for dictionaries. Files that refer to themselves, or to
    so much that they would never end, are not followed: what stands there is then unknown.
    """

    config: Mapping[str, Any]
    known: AbstractSet[str]
    _looks: int = 0

    def resolved(self, value: Any, depth: int = 0) -> Any:
        """What a reference such as `@preprocessing`, `%a` or `@a#b` stands for; None for what must be evaluated.

        `$@a + @b`, as bundles put lists together, is known without: the lists behind each other.
        """
        for _ in range(_DEEPEST - depth):
            if not isinstance(value, str) or not value.startswith(("@", "$", "%")):
                return value
            terms = [term.strip() for term in value.removeprefix("$").split("+")]
            if not all(re.fullmatch(r"[@%][\w#:]+", term) for term in terms):
                return None
            if len(terms) > 1:
                parts = [self.resolved(term, depth + 1) for term in terms]
                return list(chain(*parts)) if all(isinstance(part, list) for part in parts) else None
            value = self._found(terms[0][1:])
        return None

    def section(self, name: str) -> Any:
        """A section, what stands for it resolved."""
        return self.resolved(self.config.get(name))

    def steps(self, section: str) -> list[Step] | None:
        """The transforms of a section in their order; None if there is none, or an expression instead."""
        composed = self.section(section)
        listed = self.resolved(composed.get("transforms")) if isinstance(composed, Mapping) else composed
        return list(self._steps(listed)) if isinstance(listed, list) else None

    def _steps(self, transforms: Sequence[Any], depth: int = 0) -> Iterator[Step]:
        for transform in map(self.resolved, transforms):
            if not isinstance(transform, Mapping) or depth > _DEEPEST:
                yield Step("an expression", {}, ())
                continue
            options = {key: self.resolved(value) for key, value in transform.items()}
            name = str(transform.get("_target_", "")).rpartition(".")[2]
            bare = re.sub(r"(d|D|Dict)$", "", name)
            name = bare if bare in self.known else name
            unknown = (key for key, value in options.items() if value is None and transform[key] is not None)
            step = Step(name, options, tuple(key for key in unknown if key not in _UNREAD))
            if step.flag("_disabled_"):
                continue
            if bare == "Compose" and isinstance(options.get("transforms"), list):
                yield from self._steps(options["transforms"], depth + 1)
            else:
                yield step

    def _found(self, path: str) -> Any:
        self._looks += 1
        if self._looks > _MOST_LOOKS:
            return None
        found: Any = self.config
        for place in re.split(r"#|::", path):
            if isinstance(found, Mapping):
                found = found.get(place)
            elif isinstance(found, list) and place.isdigit() and int(place) < len(found):
                found = found[int(place)]
            else:
                return None
        return found


def first(value: Any) -> Any:
    """Options may be a list, one value for each key."""
    return value[0] if isinstance(value, list) and value else value
