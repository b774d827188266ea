"""Cards made of what other tools write beside their networks: MONAI's bundles and nnU-Net's plans.

What such a file does not say stays open in the card, or is marked to be checked: a silent guess about a patient's left
and right would be worse than a question. Both are read as data; expressions in a MONAI bundle (`$…`) are not evaluated.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segpipe.core.input_scale import Scaling
from segpipe.core.regions import CONVENTIONS
from segpipe.errors import ModelError
from segpipe.models.card import BACKGROUND, MODALITIES, modality, scaling_table
from segpipe.storage import url_to_fs

_NOT_STATED = "not stated: ask who trained it"
_NNUNET_PAPER = "Isensee et al. 2021, nnU-Net, doi 10.1038/s41592-020-01008-z"
_LARGEST_BYTES = 1 << 24

_LABEL_KINDS = {
    "necrotic": r"necro|ncr|\bnetc?\b|non[ _-]*enh",
    "enhancing": r"enhanc|\bet\b|active",
    "oedema": r"o?edema|snfh|\bed\b|invaded",
    "cavity": r"cavity|\brc\b",
    "cyst": r"cyst|\bcc\b",
}
_REGION_KINDS = {
    "whole_tumour": r"whole|\bwt\b|complete",
    "tumour_core": r"core|\btc\b",
    "enhancing_tumour": _LABEL_KINDS["enhancing"],
    "resection_cavity": _LABEL_KINDS["cavity"],
    "cyst": _LABEL_KINDS["cyst"],
}
_HARMLESS = {
    *("LoadImage", "EnsureChannelFirst", "EnsureType", "CastToType", "ToTensor", "AddChannel", "AsChannelFirst"),
    *("ToDevice", "Identity", "SqueezeDim", "DeleteItems", "SelectItems", "ConcatItems"),
}
_EXPRESSIONS = "$"
"""Where the options of a transform name those that are expressions."""


@dataclass
class Draft:
    """A card as it is being made: its content, keys that are open being None, and remarks for whoever completes it."""

    content: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def put(self, section: str, **values: Any) -> None:
        """Set keys of a section."""
        self.content.setdefault(section, {}).update(values)

    def put_scalings(self, rules: Sequence[Scaling]) -> None:
        """Set the normalisation: one rule for all channels, or one for each."""
        tables = [scaling_table(rule) for rule in rules]
        self.content["normalisation"] = tables[0] if all(table == tables[0] for table in tables) else tables

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


def draft_of(url: str, configuration: str | None = None) -> Draft:
    """The card of a MONAI bundle (`url` is its metadata.json) or of an nnU-Net plan (its plans.json).

    Beside the one stands inference.json, beside the other dataset.json. Raises ModelError if a file is none of
    these or holds too little to begin with.
    """
    content = _read(url)
    if "network_data_format" in content:
        no_plan(url, configuration)
        return _monai(content, _read(_sibling(url, "inference.json"), missing={}), url)
    if "configurations" in content:
        return _nnunet(content, _read(_sibling(url, "dataset.json")), configuration, url)
    raise ModelError(
        f"File {url} is neither MONAI's metadata.json nor nnU-Net's plans.json",
        "write a card, see docs/how-to/adopt.md",
    )


def no_plan(url: str, configuration: str | None) -> None:
    """ModelError if a configuration is named of what has none."""
    if configuration is not None:
        raise ModelError(
            f"Card {url} has no configuration {configuration!r}, because only plans.json of nnU-Net has some",
            "leave --configuration out, or give plans.json as --card",
        )


# ---- MONAI


def _monai(metadata: Mapping[str, Any], config: Mapping[str, Any], url: str) -> Draft:
    draft = Draft()
    formats = metadata["network_data_format"]
    try:
        image = next(iter(formats["inputs"].values()))
        pred = next(iter(formats["outputs"].values()))
        channels, classes = _ordered(image["channel_def"]), _ordered(pred["channel_def"])
    except (KeyError, StopIteration, TypeError, AttributeError, ValueError) as error:
        raise ModelError(
            f"File {url} does not say what goes in and out ({type(error).__name__}: {error})",
            "it lacks network_data_format.inputs or outputs with channel_def: write a card by hand",
        ) from None
    draft.remarks.append("made of a MONAI bundle's metadata.json" + (" and inference.json" if config else ""))
    references = metadata.get("references") or metadata.get("authors") or _NOT_STATED
    draft.put(
        "network",
        name=str(metadata.get("name", "MONAI bundle")),
        licence=str(metadata.get("license") or metadata.get("licence") or metadata.get("copyright") or _NOT_STATED),
        citation="; ".join(references) if isinstance(references, list) else str(references),
        source=str(metadata.get("data_source", "")),
    )
    shape = image.get("spatial_shape", [])
    dimensions = len(shape) if isinstance(shape, list) and shape else 3
    draft.put("input", modalities=_modalities(channels, draft), dimensions=dimensions)
    inferer = _resolved(config, config.get("inferer", {}))
    inferer = inferer if isinstance(inferer, Mapping) else {}
    _monai_input(draft, config, len(channels))
    if dimensions == 2:
        _monai_slices(draft, inferer)
    _monai_window(draft, config, inferer, shape)
    _monai_output(draft, config, classes)
    return draft


def _monai_input(draft: Draft, config: Mapping[str, Any], channels: int) -> None:
    orientation, spacing, crop = None, None, "whole"
    scalings: list[Scaling] = []
    resample_first, spaced = True, False
    for name, options in _transforms(config, "preprocessing"):
        if name == "Orientation":
            axes = options.get("axcodes")
            orientation = "".join(map(str, axes)) if isinstance(axes, list) else axes
            orientation = "RAS" if options.get("as_closest_canonical") else orientation
        elif name == "Spacing":
            spacing, spaced = options.get("pixdim"), True
            resample_first = not scalings
        elif name == "CropForeground":
            crop = "non-zero"
            if scalings or options.get("margin") or options.get("select_fn"):
                draft.remarks.append(f"{name} is not the box of what is not 0 in the files: CHECK input.crop")
        elif found := _monai_scalings(name, options, channels, draft):
            if scalings:
                draft.remarks.append(f"{name} follows another scaling; only the last one is kept: CHECK")
            scalings = found
        elif name not in _HARMLESS:
            draft.remarks.append(f"preprocessing holds {name}, which segpipe does not know: CHECK what it does")
        if name not in _HARMLESS and (unknown := options.get(_EXPRESSIONS)):
            draft.remarks.append(f"expressions are not evaluated, such as {', '.join(unknown)} of {name}: CHECK")
    if orientation is None:
        orientation = "LPS"
        draft.remarks.append(
            "no axes of an Orientationd: the network saw files as they are; BraTS's own are LPS: CHECK"
        )
    if isinstance(spacing, int | float):
        spacing = [spacing] * 3
    draft.put("input", orientation=str(orientation), spacing_mm=_numbers(spacing) or [], crop=crop)
    if spaced:
        draft.put("input", resample_first=resample_first)
    if not scalings:
        draft.remarks.append("no scaling of intensities was found: CHECK that there is none")
    draft.put_scalings(scalings or [Scaling("none")])


def _monai_slices(draft: Draft, inferer: Mapping[str, Any]) -> None:
    """Put the axis that is cut into slices first, as cards have it: that of a SliceInferer, else the third."""
    axes, axis = draft.content["input"]["orientation"], inferer.get("spatial_dim")
    if axis not in (0, 1, 2):
        axis = 0 if str(inferer.get("_target_")).endswith("SliceInferer") else 2
        draft.remarks.append("which axis is cut into slices is not stated: CHECK the first letter of input.orientation")
    draft.put("input", orientation=axes[axis : axis + 1] + axes[:axis] + axes[axis + 1 :])


def _monai_scalings(name: str, options: Mapping[str, Any], channels: int, draft: Draft) -> list[Scaling]:
    """The rule of a transform, one for all channels or one for each; none if it does not scale intensities."""
    if name not in ("NormalizeIntensity", "ScaleIntensity", "ScaleIntensityRange", "ScaleIntensityRangePercentiles"):
        return []
    if name != "ScaleIntensityRange" and channels > 1 and not options.get("channel_wise", False):
        draft.remarks.append(f"{name} treats all channels as one, which segpipe cannot: CHECK")
    if name == "NormalizeIntensity":
        return _monai_normalised(options)
    if name == "ScaleIntensity":
        if options.get("minv", 0.0) is options.get("maxv", 1.0) is None:  # times 1 + factor
            return [Scaling("range", low=0.0, high=1.0, to_high=1.0 + _number(options.get("factor"), 0.0))]
        ends = _number(options.get("minv"), 0.0), _number(options.get("maxv"), 1.0)
        return [Scaling("percentiles", "all", "scaled", 0.0, 100.0, *ends)]
    to_low, to_high = _number(options.get("b_min"), 0.0), _number(options.get("b_max"), 1.0)
    clip = bool(options.get("clip", False))
    if name == "ScaleIntensityRange":
        low, high = _number(options.get("a_min"), 0.0), _number(options.get("a_max"), 1.0)
        return [Scaling("range", "all", "scaled", low, high, to_low, to_high, clip)]
    low, high = _number(options.get("lower"), 0.0), _number(options.get("upper"), 100.0)
    if options.get("relative"):
        to_low, to_high = (to_low + (to_high - to_low) * percent / 100 for percent in (low, high))
    return [Scaling("percentiles", "all", "scaled", low, high, to_low, to_high, clip)]


def _monai_normalised(options: Mapping[str, Any]) -> list[Scaling]:
    """Stated means and deviations, perhaps one for each channel; those of the scan where none are stated."""
    voxels = ("non-zero", "zero") if options.get("nonzero") else ("all", "scaled")
    means, deviations = options.get("subtrahend"), options.get("divisor")
    if means is None and deviations is None:
        return [Scaling("zscore", *voxels)]
    count = max(len(stated) if isinstance(stated, list) else 1 for stated in (means, deviations))
    each = [
        stated if isinstance(stated, list) else [default if stated is None else stated] * count
        for stated, default in ((means, 0.0), (deviations, 1.0))
    ]
    return [
        Scaling("fixed", *voxels, mean=_number(mean, 0.0), std=_number(deviation, 1.0))
        for mean, deviation in zip(*each, strict=False)
    ]


def _monai_window(draft: Draft, config: Mapping[str, Any], inferer: Mapping[str, Any], shape: Sequence[Any]) -> None:
    edges = _resolved(config, inferer.get("roi_size"))
    patch = _numbers([edges] * draft.content["input"]["dimensions"] if isinstance(edges, int) else edges)
    if patch is None or any(edge < 1 for edge in patch):
        fixed: list[float] = [edge for edge in shape if isinstance(edge, int)]
        patch = fixed if shape and len(fixed) == len(shape) else None
    if patch is None:
        draft.remarks.append(f"the patch is not stated, only that its edges are {list(shape)}: CHOOSE window.patch")
    weights = "gaussian" if _resolved(config, inferer.get("mode")) == "gaussian" else "constant"
    overlap = _resolved(config, inferer.get("overlap"))
    if shares := _numbers(overlap):
        overlap = max(shares)
        draft.remarks.append(f"windows overlap by {shares} along their axes, and by {overlap} here: CHECK")
    overlap = _number(overlap, 0.25)
    draft.put("window", patch=patch, overlap=overlap, tiling="stepped", weights=weights)


def _monai_output(draft: Draft, config: Mapping[str, Any], classes: Sequence[str]) -> None:
    activation, threshold = None, None
    for name, options in _transforms(config, "postprocessing"):
        if name == "Activations":
            activation = next((kind for kind in ("softmax", "sigmoid") if options.get(kind)), activation)
        if name == "AsDiscrete" and options.get("argmax"):
            activation = activation or "softmax"  # of which the likeliest is the same
        if name == "AsDiscrete" and options.get("threshold") is not None:
            threshold = _number(options.get("threshold"), 0.5)
    convention, channels = _channels(classes, draft)
    if activation is None:
        draft.remarks.append("no activation was found: CHOOSE output.activation")
    draft.put("output", activation=activation, convention=convention, channels=channels)
    if threshold is not None:
        draft.put("output", threshold=threshold)


def _transforms(config: Mapping[str, Any], section: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Name, without the d of dictionaries, and options of each transform, None where they would be evaluated."""
    composed = _resolved(config, config.get(section, {}))
    listed = composed.get("transforms", []) if isinstance(composed, Mapping) else composed
    listed = _resolved(config, listed)
    for transform in listed if isinstance(listed, list) else []:
        transform = _resolved(config, transform)
        if isinstance(transform, Mapping) and not transform.get("_disabled_"):
            name = str(transform.get("_target_", "")).rpartition(".")[2]
            options = {key: _resolved(config, value) for key, value in transform.items()}
            unknown = [key for key, value in options.items() if value is None and transform[key] is not None]
            yield re.sub(r"(?<=[a-z])(d|D|Dict)$", "", name), options | ({_EXPRESSIONS: unknown} if unknown else {})


def _resolved(config: Mapping[str, Any], value: Any) -> Any:
    """What a reference such as `@preprocessing` or `@a#b` stands for; None for what would have to be evaluated."""
    for _ in range(8):
        if not isinstance(value, str) or not value.startswith(("@", "$")):
            return value
        if value.startswith("$"):
            return None
        found: Any = config
        for step in re.split(r"#|::", value[1:]):
            if isinstance(found, Mapping):
                found = found.get(step)
            elif isinstance(found, list) and step.isdigit() and int(step) < len(found):
                found = found[int(step)]
            else:
                return None
        value = found
    return None


# ---- nnU-Net


def _nnunet(plans: Mapping[str, Any], dataset: Mapping[str, Any], wanted: str | None, url: str) -> Draft:
    name, plan = _configuration(plans, wanted, url)
    try:
        names = _ordered(dataset.get("channel_names") or dataset["modality"])
        labels = dataset["labels"]
        patch, spacing = plan["patch_size"], plan["spacing"]
        schemes, masks = plan["normalization_schemes"], plan["use_mask_for_norm"]
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"Plan {url} or its dataset.json lacks {error}", "give the plans.json and dataset.json of the trained model"
        ) from None
    draft = Draft()
    title = f"{dataset.get('name') or plans.get('dataset_name', 'nnU-Net')} ({name})"
    draft.remarks.append(f"made of nnU-Net's plans.json, configuration {name}, and dataset.json")
    draft.put(
        "network",
        name=title,
        licence=str(dataset.get("licence") or dataset.get("license") or _NOT_STATED),
        citation="; ".join(filter(None, [str(dataset.get("reference", "")), _NNUNET_PAPER])),
        source=str(plans.get("dataset_name", "")),
    )
    reader = str(plans.get("image_reader_writer", "SimpleITKIO"))
    own = "SAR" if "Reorient" in reader else "SPL"
    if own == "SPL":
        draft.remarks.append(f"{reader} keeps the files' own axes; BraTS's files are LPS, so z, y, x is SPL: CHECK")
    forward = plans.get("transpose_forward", [0, 1, 2])
    modalities = _modalities(names, draft)
    draft.put(
        "input",
        modalities=modalities,
        dimensions=len(patch),
        orientation="".join(own[axis] for axis in forward),
        spacing_mm=list(spacing)[-len(patch) :],
        crop="non-zero",
        resample_first=False,
    )
    rules = [
        _nnunet_scaling(scheme, bool(mask), plans, place, draft)
        for place, (scheme, mask) in enumerate(zip(schemes, masks, strict=True))
    ]
    draft.put_scalings(rules)
    draft.put("window", patch=list(patch), overlap=0.5, tiling="even", weights="nnunet", mirror=[])
    mirror = list(range(len(patch)))
    draft.remarks.append(
        f"nnU-Net looks at mirror images as well unless told not to: window.mirror = {mirror} is"
        f" {2 ** len(mirror)} times the time"
    )
    _nnunet_output(draft, labels, url)
    return draft


def _configuration(plans: Mapping[str, Any], wanted: str | None, url: str) -> tuple[str, Mapping[str, Any]]:
    known = plans["configurations"]
    name = wanted or ("3d_fullres" if "3d_fullres" in known else next(iter(known), ""))
    if name not in known:
        raise ModelError(f"Plan {url} has no configuration {name!r}", f"choose one of {', '.join(known)}")
    merged: dict[str, Any] = {}
    step: str | None = name
    for _ in range(len(known)):
        if step is None or step not in known:
            break
        merged = {**known[step], **merged}
        step = known[step].get("inherits_from")
    if merged.get("previous_stage"):
        raise ModelError(
            f"Configuration {name} of plan {url} needs the answer of {merged['previous_stage']}",
            "adopt 3d_fullres or 2d, which stand alone",
        )
    return name, merged


def _nnunet_scaling(scheme: str, mask: bool, plans: Mapping[str, Any], place: int, draft: Draft) -> Scaling:
    if scheme == "ZScoreNormalization":
        return Scaling("zscore", "any-non-zero", "zero") if mask else Scaling("zscore", "all")
    if scheme == "CTNormalization":
        known = plans.get("foreground_intensity_properties_per_channel", {}).get(str(place), {})
        if {"mean", "std", "percentile_00_5", "percentile_99_5"} <= set(known):
            return Scaling(
                "fixed",
                low=float(known["percentile_00_5"]),
                high=float(known["percentile_99_5"]),
                mean=float(known["mean"]),
                std=max(float(known["std"]), 1e-8),
            )
    if scheme == "RescaleTo01Normalization":
        return Scaling("percentiles", low=0.0, high=100.0)
    if scheme == "RGBTo01Normalization":
        return Scaling("range", low=0.0, high=255.0)
    if scheme != "NoNormalization":
        draft.remarks.append(f"channel {place} is normalised by {scheme}, which segpipe does not know: CHECK")
    return Scaling("none")


def _nnunet_output(draft: Draft, labels: Mapping[str, Any], url: str) -> None:
    labels = {name: value for name, value in labels.items() if name != "ignore"}  # it has no channel
    if any(isinstance(value, list) for value in labels.values()):
        _nnunet_regions(draft, labels)
        return
    if sorted(labels.values(), key=str) != list(range(len(labels))):
        raise ModelError(f"Labels {dict(labels)} beside plan {url} are not numbered from 0", "correct dataset.json")
    names = sorted(labels, key=lambda name: labels[name])
    convention, channels = _channels([BACKGROUND, *names[1:]], draft)
    draft.put("output", activation="softmax", convention=convention, channels=channels)


def _nnunet_regions(draft: Draft, labels: Mapping[str, Any]) -> None:
    """A channel for each region but the background, in their order; they are known by the labels that they hold."""
    held = {name: tuple(sorted(value)) if isinstance(value, list) else (value,) for name, value in labels.items()}
    held = {name: members for name, members in held.items() if set(members) != {0}}
    names = {
        one.name: {tuple(sorted(members)): region for region, members in one.regions.items()}
        for one in CONVENTIONS.values()
    }
    convention = next((name for name, known in names.items() if set(known) == set(held.values())), None)
    if convention is None:
        draft.remarks.append(f"the regions {dict(labels)} are of no convention that segpipe knows: CHOOSE one")
    known = names.get(convention or "", {})
    channels = [known.get(members, name) for name, members in held.items()]
    draft.put("output", activation="sigmoid", convention=convention, channels=channels, threshold=0.5)


# ---- words


def _modalities(names: Sequence[str], draft: Draft) -> list[str]:
    found = []
    for name in names:
        known = modality(name)
        if known is None:
            draft.remarks.append(f"the channel {name!r} is not one of {', '.join(MODALITIES)}: CHECK its name")
        found.append(known or name)
    return found


def _channels(names: Sequence[str], draft: Draft) -> tuple[str | None, list[str]]:
    """Convention and names of output channels by what they are called; the names as they came where nobody knows."""
    inner = [name for name in names if not re.fullmatch(r"background|bg|0", name, re.IGNORECASE)]
    if len(inner) == 1:
        if not re.search("lesion", inner[0], re.IGNORECASE):
            draft.remarks.append(f"what the network calls {inner[0]!r} is `lesion` in the tables")
        return "binary", [BACKGROUND if name not in inner else "lesion" for name in names]
    regions = [_kind(name, _REGION_KINDS) for name in inner]
    for one in CONVENTIONS.values():
        if sorted(map(str, regions)) == sorted(one.regions):
            places = iter(regions)
            return one.name, [str(next(places)) if name in inner else BACKGROUND for name in names]
    kinds = [_kind(name, _LABEL_KINDS) for name in inner]
    if (convention := _of_labels(kinds)) is not None:
        own = {_kind(name, _LABEL_KINDS): name for name in CONVENTIONS[convention].labels.values()}
        return convention, [own[kinds[inner.index(name)]] if name in inner else BACKGROUND for name in names]
    draft.remarks.append(f"the channels {', '.join(names)} are of no convention that segpipe knows: CHOOSE one")
    return None, list(names)


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


def _ordered(numbered: Any) -> list[str]:
    """The values of `{"0": …, "1": …}`, or of a list, in order."""
    if isinstance(numbered, list):
        return [str(name) for name in numbered]
    return [str(numbered[key]) for key in sorted(numbered, key=int)]


def _numbers(value: Any) -> list[float] | None:
    if isinstance(value, list) and value and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return value
    return None


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def _sibling(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}" if "/" in url else name


def _read(url: str, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    fs, path = url_to_fs(url)
    try:
        with fs.open(path, "rb") as file:
            content = json.loads(file.read(_LARGEST_BYTES))
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise ModelError(f"File {url} is missing", "copy it beside the other one") from None
    except ValueError as error:
        raise ModelError(f"File {url} is not JSON ({error})", "correct that line, or copy it again") from None
    if not isinstance(content, dict):
        raise ModelError(f"File {url} holds no JSON object", "copy it again")
    return content
