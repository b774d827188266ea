"""The card of a network that was trained elsewhere: what goes in, what comes out, and whose it is.

A card is a TOML file of five sections. `FIELDS` says what each may hold, so that reading, checking, writing and the
reference page are one table.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from segpipe.core.input_scale import METHODS, Scaling
from segpipe.core.orientation import CANONICAL
from segpipe.core.prediction import AS_INGESTED
from segpipe.core.regions import CONVENTIONS, LabelConvention
from segpipe.core.resize import RESAMPLINGS
from segpipe.core.tiles import TILINGS, WEIGHTS
from segpipe.errors import ModelError
from segpipe.toml import tomllib

BACKGROUND = "background"
PREPARED = "brain-1mm"
"""The space of a network that wants scans as `--prepare` makes them: brain alone, upright in MNI152, 1 mm."""

ACTIVATIONS = ("softmax", "sigmoid", "none")
CROPS = ("whole", "non-zero", "brain")
_LARGEST_EDGE = 1024
_MOST_VOXELS = 1 << 26  # of a patch: 400 cubed
_MOST_OVERLAP = 0.9  # a voxel is then in a thousand windows of a 3D network; more never ends
_SPACINGS_MM = (0.1, 20.0)
_CONTRAST = r"(ce|c|gd|gado?|gadolinium|km|post|post_?(gd|gado?|gadolinium)|(post_?)?contrast(_?enhanced)?)"
MODALITIES = {
    "FLAIR": r"(t2w?)?_?flair|t2f",
    "T1ce": rf"t1w?_?(with_)?{_CONTRAST}(_?w)?|(?!c_?t1){_CONTRAST}_?t1w?",
    "T1": r"t1w?|t1n|t1w?_?native",
    "T2": r"t2w?",
}
"""What the tables call a modality, and how else it is written, lower case."""


@dataclass(frozen=True)
class Field:
    """A key of a card: what its value must be, whether it must be there, and what it means."""

    section: str
    name: str
    kind: str
    meaning: str
    default: Any = None
    choices: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """`section.name`, as messages say it."""
        return f"{self.section}.{self.name}"


_NEEDED = object()
FIELDS = (
    Field("network", "name", "text", "what the network is called", _NEEDED),
    Field("network", "licence", "text", "the licence of its weights, such as Apache-2.0 or CC-BY-NC-4.0", _NEEDED),
    Field("network", "citation", "text", "what to cite", _NEEDED),
    Field("network", "source", "text", "where it came from", ""),
    Field("input", "modalities", "texts", "the channels in their order, such as FLAIR, T1, T1ce, T2", _NEEDED),
    Field("input", "dimensions", "number", "3 for volumes, 2 for slices", _NEEDED, ("2", "3")),
    Field(
        "input",
        "orientation",
        "text",
        "where the network's axes run to, such as RAS; of a 2D network first the axis that is cut into slices",
        _NEEDED,
    ),
    Field(
        "input",
        "spacing_mm",
        "numbers",
        "voxel size along these axes, mm; scans of another one are resampled and their mask back; none: any",
        (),
    ),
    Field(
        "input",
        "space",
        "text",
        "brain-1mm: scans as `--prepare` makes them, other scans are refused; any other text is a note",
        "",
    ),
    Field(
        "input",
        "crop",
        "text",
        "what the tiles cover: everything, the box of all voxels that are not 0, or that of the brain",
        "whole",
        CROPS,
    ),
    Field(
        "input",
        "resampling",
        "text",
        "how, where voxels have another size: linear, or as monai or nnunet do it",
        "linear",
        RESAMPLINGS,
    ),
    Field("input", "resample_first", "flag", "resample before normalising, as MONAI does; nnU-Net does it after", True),
    Field("window", "patch", "numbers", "voxels along each axis that the network looks at", _NEEDED),
    Field("window", "overlap", "number", "share by which neighbouring windows overlap, 0 to 0.9", 0.5),
    Field("window", "tiling", "text", "windows spread evenly (nnU-Net) or by whole steps (MONAI)", "even", TILINGS),
    Field("window", "weights", "text", "what a voxel of a window counts", "gaussian", WEIGHTS),
    Field("window", "mirror", "numbers", "axes, from 0, whose mirror images are looked at too; all combinations", ()),
    Field("output", "name", "text", "the output to read, where the network has several", ""),
    Field("output", "activation", "text", "what turns the output into probabilities", _NEEDED, ACTIVATIONS),
    Field("output", "convention", "text", "what the labels of the masks are", _NEEDED, tuple(CONVENTIONS)),
    Field("output", "channels", "texts", "the label or region of each channel, by the convention's names", _NEEDED),
    Field("output", "threshold", "number", "probability above which a region is; none: the likeliest label"),
)
_SCALING_KEYS = {field.name: field.type for field in fields(Scaling)}
SECTIONS = ("network", "input", "normalisation", "window", "output")


@dataclass(frozen=True)
class Card:
    """A card that has been read; its fields are the keys of `FIELDS`, and one `Scaling` per modality.

    Axes are those of the network, without batch and channel; `patch` and `spacing_mm` of a 2D network have an entry for
    the slice axis too, so that everything behind treats slices as volumes of one slice.
    """

    name: str
    licence: str
    citation: str
    source: str
    modalities: tuple[str, ...]
    dimensions: int
    orientation: str
    spacing_mm: tuple[float, ...]
    space: str
    crop: str
    resampling: str
    resample_first: bool
    scalings: tuple[Scaling, ...]
    patch: tuple[int, ...]
    overlap: float
    tiling: str
    weights: str
    mirror: tuple[int, ...]
    output: str
    activation: str
    convention: str
    channels: tuple[str, ...]
    threshold: float | None

    @property
    def labels(self) -> LabelConvention:
        """What the masks mean."""
        return CONVENTIONS[self.convention]

    @property
    def scan_space(self) -> str:
        """The space that its scans must have, as a bundle says it."""
        return PREPARED if self.space == PREPARED else AS_INGESTED

    @property
    def by_region(self) -> bool:
        """Whether channels are regions, which overlap, and not labels, which exclude each other."""
        return set(self.channels) - {BACKGROUND} == set(self.labels.regions) and self.activation != "softmax"

    @property
    def decision(self) -> float | None:
        """The threshold; None if the likeliest label wins, which needs labels that exclude each other."""
        exclusive = not self.by_region and self.activation != "sigmoid" and BACKGROUND in self.channels
        return self.threshold if self.threshold is not None or exclusive else 0.5

    @property
    def scan_orientation(self) -> str:
        """The orientation of slices that the tables must have: for 2D those along the card's slice axis."""
        if self.dimensions == 3:
            return CANONICAL["axial"]
        return next(codes for codes in CANONICAL.values() if _axis(codes[0]) == _axis(self.orientation[0]))


def parse_card(content: Mapping[str, Any], where: str) -> Card:
    """The card that a TOML file or a bundle holds; ModelError naming every key that is wrong, all at once."""
    values, faults = _values(content)
    scalings, more = _scalings(content.get("normalisation"), values.get("input.modalities"))
    faults += more
    if not faults:
        faults = _contradictions(values, scalings)
    if faults:
        raise ModelError(f"Card {where} is wrong: {'; '.join(faults)}", "correct these keys of the card")
    flat = values["input.dimensions"] == 2
    told: dict[str, Any] = {
        field.name: tuple(values[field.key]) if field.kind == "texts" else values[field.key]
        for field in FIELDS
        if field.key != "output.name"
    }
    told |= {
        "output": values["output.name"],
        "scalings": scalings,
        "dimensions": int(values["input.dimensions"]),
        "patch": ((1,) if flat else ()) + tuple(int(edge) for edge in values["window.patch"]),
        "mirror": tuple(int(axis) + flat for axis in values["window.mirror"]),
        "spacing_mm": _spacing(values["input.spacing_mm"], flat),
    }
    return Card(**told)


def read_card(data: bytes, where: str) -> tuple[Card, dict[str, Any]]:
    """The card of a TOML file, and its content; ModelError if it cannot be read as one."""
    try:
        content = tomllib.loads(data.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(f"Card {where} is not TOML ({error})", "correct that line") from None
    return parse_card(content, where), content


def to_toml(content: Mapping[str, Any], remarks: Sequence[str] = ()) -> str:
    """A card as TOML, `remarks` as comments above; keys that are None are left out as comments, to be filled in."""
    meanings = {(field.section, field.name): field.meaning for field in FIELDS}
    lines = [f"# {printable(remark)}" for remark in remarks]
    for section in SECTIONS:
        for table in _tables(content.get(section, {})):
            double = isinstance(content.get(section), list)
            lines += ["", f"[[{section}]]" if double else f"[{section}]"]
            for name, value in table.items():
                meaning = meanings.get((section, name))
                if value is None:
                    lines.append(f"# {name} =   # {meaning or 'unknown'}: FILL IN")
                else:
                    lines.append(f"{name} = {_toml(value)}" + (f"  # {meaning}" if meaning else ""))
    return "\n".join(lines).lstrip("\n") + "\n"


def printable(text: str) -> str:
    """A text of somebody else as one line that a terminal only shows.

    >>> printable("name\\x1b[2J\\nlicence")
    'name [2J licence'
    """
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _tables(section: Any) -> Sequence[Mapping[str, Any]]:
    return section if isinstance(section, list) else [section]


def _toml(value: Any) -> str:
    told = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
    return told.replace("\x7f", r"\u007f")  # the one sign that JSON writes as it is and TOML does not


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "text": (lambda value: isinstance(value, str), "a text"),
    "texts": (
        lambda value: isinstance(value, list) and all(isinstance(v, str) and v for v in value),
        "a list of texts",
    ),
    "number": (lambda value: _is_number(value), "a number"),
    "numbers": (lambda value: isinstance(value, list) and all(map(_is_number, value)), "a list of numbers"),
    "flag": (lambda value: isinstance(value, bool), "true or false"),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _values(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values by `section.name`, defaults filled in, and what is wrong with single keys."""
    known = {field.key: field for field in FIELDS}
    faults = [f"section [{name}] is unknown" for name in content if name not in SECTIONS]
    given: dict[str, Any] = {}
    for section in SECTIONS:
        table = content.get(section, {})
        if section == "normalisation":
            continue
        if not isinstance(table, Mapping):
            faults.append(f"[{section}] is not a section")
            continue
        for name, value in table.items():
            if f"{section}.{name}" not in known:
                near = [field.name for field in FIELDS if field.section == section]
                faults.append(f"key {section}.{name} is unknown, known are {', '.join(near)}")
            given[f"{section}.{name}"] = value
    values: dict[str, Any] = {}
    for key, field in known.items():
        right, what = _KINDS[field.kind]
        value = given.get(key, field.default)
        if key not in given and field.default is _NEEDED:
            faults.append(f"{key} is missing ({field.meaning})")
        elif key in given and not right(value):
            faults.append(f"{key} is {value!r} but must be {what}")
        elif key in given and field.choices and str(value) not in field.choices:
            faults.append(f"{key} is {value!r} but must be one of {', '.join(field.choices)}")
        elif key in given and field.default is _NEEDED and not str(value).strip("[] "):
            faults.append(f"{key} is empty")
        else:
            values[key] = value
    return values, faults


def _scalings(section: Any, modalities: Any) -> tuple[tuple[Scaling, ...], list[str]]:
    """One rule per modality: the one that holds for all, or one each in the order of the modalities."""
    if section is None:
        return (), ["section [normalisation] is missing"]
    tables = [section] if isinstance(section, Mapping) else section
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        return (), ["[normalisation] is not a section"]
    faults, rules = [], []
    for table in tables:
        strange = [name for name in table if name not in _SCALING_KEYS]
        if strange:
            faults.append(f"normalisation holds the unknown {', '.join(strange)}, known are {', '.join(_SCALING_KEYS)}")
            continue
        wrong = [name for name, value in table.items() if not _scaling_value(name, value)]
        if wrong:
            faults.append(f"normalisation.{wrong[0]} is {table[wrong[0]]!r}, which has the wrong type")
            continue
        if "method" not in table:
            faults.append(f"normalisation.method is missing, known are {', '.join(METHODS)}")
            continue
        rules.append(Scaling(**table))
        faults += [f"normalisation: {fault}" for fault in rules[-1].faults()]
    count = len(modalities) if isinstance(modalities, list) else 1
    if not faults and isinstance(section, list) and len(rules) != count:
        faults.append(f"[[normalisation]] stands {len(rules)} times for {count} modalities")
    return tuple(rules) * (count if isinstance(section, Mapping) else 1), faults


def _scaling_value(name: str, value: Any) -> bool:
    if name in ("method", "over", "outside"):
        return isinstance(value, str)
    return isinstance(value, bool) if name == "clip" else _is_number(value)


def _contradictions(values: Mapping[str, Any], scalings: Sequence[Scaling]) -> list[str]:
    """What single keys that are right say against each other."""
    faults = []
    modalities, dimensions = values["input.modalities"], int(values["input.dimensions"])
    for name in modalities:
        if (usual := modality(name)) not in (name, None):
            faults.append(f"input.modalities names {name!r}, which the tables call {usual}")
        elif name != " ".join(name.split()) or not name.isprintable():
            faults.append(f"input.modalities names {name!r}, which no scan can have")
    if len(set(modalities)) != len(modalities):
        faults.append(f"input.modalities names one twice: {', '.join(modalities)}")
    orientation = values["input.orientation"]
    if sorted(_axis(code) for code in orientation) != [0, 1, 2]:
        faults.append(f"input.orientation is {orientation!r} but must be three letters of R or L, A or P, S or I")
    patch = values["window.patch"]
    if len(patch) != dimensions or any(edge != int(edge) or not 1 <= edge <= _LARGEST_EDGE for edge in patch):
        faults.append(f"window.patch is {patch} but must be {dimensions} whole numbers from 1 to {_LARGEST_EDGE}")
    elif math.prod(map(int, patch)) > _MOST_VOXELS:
        faults.append(f"window.patch is {patch} but must have at most {_MOST_VOXELS:,} voxels")
    spacing = values["input.spacing_mm"]
    least, most = _SPACINGS_MM
    if spacing and (len(spacing) not in {dimensions, 3} or not all(least <= size <= most for size in spacing)):
        faults.append(f"input.spacing_mm is {spacing} but must be {dimensions} numbers from {least} to {most:g}")
    if not 0 <= values["window.overlap"] <= _MOST_OVERLAP:
        faults.append(f"window.overlap is {values['window.overlap']} but must be from 0 to {_MOST_OVERLAP}")
    mirror = values["window.mirror"]
    if len(set(mirror)) != len(mirror) or any(axis not in range(dimensions) for axis in mirror):
        faults.append(f"window.mirror is {mirror} but must be axes of {', '.join(map(str, range(dimensions)))}")
    threshold = values["output.threshold"]
    if threshold is not None and not 0 < threshold < 1:
        faults.append(f"output.threshold is {threshold} but must be above 0 and below 1")
    return faults + _channel_faults(values)


def _channel_faults(values: Mapping[str, Any]) -> list[str]:
    convention = CONVENTIONS[values["output.convention"]]
    channels, activation = values["output.channels"], values["output.activation"]
    named = [name for name in channels if name != BACKGROUND]
    regions, labels = set(convention.regions), set(convention.labels.values())
    if len(set(channels)) != len(channels):
        return [f"output.channels names one twice: {', '.join(channels)}"]
    if set(named) not in (regions, labels):
        either = f"the labels {', '.join(sorted(labels))}, or the regions {', '.join(convention.regions)}"
        return [
            f"output.channels is {', '.join(channels)} but must be {either} of convention {convention.name}, each once,"
            f" and `{BACKGROUND}` if the network has it"
        ]
    if activation == "softmax" and set(named) != labels:
        return ["output.activation is softmax, which makes classes exclude each other, but output.channels are regions"]
    if activation == "softmax" and BACKGROUND not in channels:
        return [f"output.activation is softmax, but output.channels has no `{BACKGROUND}`"]
    return []


def _spacing(values: Sequence[float], flat: bool) -> tuple[float, ...]:
    """Three numbers or none; 0 for the slice axis of a 2D network, whose slices stay where they are."""
    if not values:
        return ()
    if flat:
        return (0.0, *(float(size) for size in values[-2:]))
    return tuple(float(size) for size in values)


def _axis(code: str) -> int:
    return {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}.get(code, -1)


def modality(name: str) -> str | None:
    """What the tables call a modality that goes by one of its usual names, else None.

    >>> modality("t1_post"), modality("T2-weighted FLAIR"), modality("T1_coronal")
    ('T1ce', 'FLAIR', None)
    """
    word = re.sub(r"[^0-9a-z]+", "_", name.casefold()).strip("_")
    word = re.sub(r"_?weighted", "w", word.removeprefix("mri_").removeprefix("mr_"))
    return next((kind for kind, pattern in MODALITIES.items() if re.fullmatch(pattern, word)), None)


def scaling_table(rule: Scaling) -> dict[str, Any]:
    """A rule as a section of a card, without what is not needed."""
    plain = Scaling(rule.method)
    return {name: value for name, value in asdict(rule).items() if name == "method" or value != getattr(plain, name)}
