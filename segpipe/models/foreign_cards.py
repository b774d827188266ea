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
    "necrotic": r"necro|ncr|\bnet\b|non[ _-]*enh",
    "enhancing": r"enhanc|\bet\b|active",
    "oedema": r"o?edema|snfh|\bed\b|invaded",
}
_REGION_KINDS = {
    "whole_tumour": r"whole|\bwt\b|complete",
    "tumour_core": r"core|\btc\b",
    "enhancing_tumour": r"enhanc|\bet\b|active",
}
_HARMLESS = {
    *("LoadImage", "EnsureChannelFirst", "EnsureType", "CastToType", "ToTensor", "AddChannel", "AsChannelFirst"),
    *("ToDevice", "Identity", "SqueezeDim", "DeleteItems", "SelectItems", "ConcatItems"),
}


@dataclass
class Draft:
    """A card as it is being made: its content, keys that are open being None, and remarks for whoever completes it."""

    content: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def put(self, section: str, **values: Any) -> None:
        """Set keys of a section."""
        self.content.setdefault(section, {}).update(values)

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
        return _monai(content, _read(_sibling(url, "inference.json"), missing={}), url)
    if "configurations" in content:
        return _nnunet(content, _read(_sibling(url, "dataset.json")), configuration, url)
    raise ModelError(
        f"File {url} is neither MONAI's metadata.json nor nnU-Net's plans.json",
        "write a card, see docs/how-to/adopt.md",
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
    draft.put("input", modalities=_modalities(channels, draft), dimensions=len(shape) or 3)
    _monai_input(draft, config, len(channels))
    _monai_window(draft, config, shape)
    _monai_output(draft, config, classes)
    return draft


def _monai_input(draft: Draft, config: Mapping[str, Any], channels: int) -> None:
    orientation, spacing, crop = None, None, "whole"
    scaling: Scaling | None = None
    resample_first, spaced = True, False
    for name, options in _transforms(config, "preprocessing"):
        if name == "Orientation":
            orientation = options.get("axcodes")
        elif name == "Spacing":
            spacing, spaced = options.get("pixdim"), True
            resample_first = scaling is None
        elif name == "CropForeground":
            crop = "non-zero"
        elif (found := _monai_scaling(name, options, channels, draft)) is not None:
            if scaling is not None:
                draft.remarks.append(f"{name} follows another scaling; only the last one is kept: CHECK")
            scaling = found
        elif name not in _HARMLESS:
            draft.remarks.append(f"preprocessing holds {name}, which segpipe does not know: CHECK what it does")
    if orientation is None:
        orientation = "LPS"
        draft.remarks.append("no Orientationd: the network saw files as they are; BraTS's own are LPS: CHECK")
    if isinstance(spacing, int | float):
        spacing = [spacing] * 3
    draft.put("input", orientation=str(orientation), spacing_mm=_numbers(spacing) or [], crop=crop)
    if spaced:
        draft.put("input", resample_first=resample_first)
    if scaling is None:
        draft.remarks.append("no scaling of intensities was found: CHECK that there is none")
        scaling = Scaling("none")
    draft.content["normalisation"] = scaling_table(scaling)


def _monai_scaling(name: str, options: Mapping[str, Any], channels: int, draft: Draft) -> Scaling | None:
    if name not in ("NormalizeIntensity", "ScaleIntensity", "ScaleIntensityRange", "ScaleIntensityRangePercentiles"):
        return None
    if name != "ScaleIntensityRange" and channels > 1 and not options.get("channel_wise", False):
        draft.remarks.append(f"{name} treats all channels as one, which segpipe cannot: CHECK")
    ends = _number(options.get("b_min"), 0.0), _number(options.get("b_max"), 1.0), bool(options.get("clip", False))
    if name == "ScaleIntensityRange":
        low, high = _number(options.get("a_min"), 0.0), _number(options.get("a_max"), 1.0)
        return Scaling("range", "all", "scaled", low, high, *ends)
    if name == "ScaleIntensityRangePercentiles":
        low, high = _number(options.get("lower"), 0.0), _number(options.get("upper"), 100.0)
        return Scaling("percentiles", "all", "scaled", low, high, *ends)
    if name == "ScaleIntensity":
        low, high = _number(options.get("minv"), 0.0), _number(options.get("maxv"), 1.0)
        return Scaling("percentiles", low=0.0, high=100.0, to_low=low, to_high=high)
    if options.get("subtrahend") is not None or options.get("divisor") is not None:
        if isinstance(options.get("subtrahend"), list) or isinstance(options.get("divisor"), list):
            draft.remarks.append(
                "NormalizeIntensity subtracts other numbers from each channel: CHECK the normalisation"
            )
        return Scaling("fixed", mean=_number(options.get("subtrahend"), 0.0), std=_number(options.get("divisor"), 1.0))
    return Scaling("zscore", "non-zero", "zero") if options.get("nonzero") else Scaling("zscore", "all")


def _monai_window(draft: Draft, config: Mapping[str, Any], shape: Sequence[Any]) -> None:
    inferer = _resolved(config, config.get("inferer", {}))
    inferer = inferer if isinstance(inferer, Mapping) else {}
    patch = _numbers(_resolved(config, inferer.get("roi_size")))
    if patch is None or any(edge < 1 for edge in patch):
        fixed: list[float] = [edge for edge in shape if isinstance(edge, int)]
        patch = fixed if shape and len(fixed) == len(shape) else None
    if patch is None:
        draft.remarks.append(f"the patch is not stated, only that its edges are {list(shape)}: CHOOSE window.patch")
    weights = "gaussian" if inferer.get("mode") == "gaussian" else "constant"
    overlap = _number(_resolved(config, inferer.get("overlap")), 0.25)
    draft.put("window", patch=patch, overlap=overlap, tiling="stepped", weights=weights)


def _monai_output(draft: Draft, config: Mapping[str, Any], classes: Sequence[str]) -> None:
    activation, threshold = None, None
    for name, options in _transforms(config, "postprocessing"):
        if name == "Activations":
            activation = next((kind for kind in ("softmax", "sigmoid") if options.get(kind)), activation)
        if name == "AsDiscrete" and options.get("threshold") is not None:
            threshold = _number(options.get("threshold"), 0.5)
    convention, channels = _channels(classes, draft)
    if activation is None:
        draft.remarks.append("no activation was found: CHOOSE output.activation")
    draft.put("output", activation=activation, convention=convention, channels=channels)
    if threshold is not None:
        draft.put("output", threshold=threshold)


def _transforms(config: Mapping[str, Any], section: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Name, without the d of dictionaries, and options of each transform."""
    composed = _resolved(config, config.get(section, {}))
    listed = composed.get("transforms", []) if isinstance(composed, Mapping) else composed
    listed = _resolved(config, listed)
    for transform in listed if isinstance(listed, list) else []:
        transform = _resolved(config, transform)
        if isinstance(transform, Mapping) and not transform.get("_disabled_"):
            name = str(transform.get("_target_", "")).rpartition(".")[2]
            yield (
                re.sub(r"(?<=[a-z])(d|D|Dict)$", "", name),
                {key: _resolved(config, value) for key, value in transform.items()},
            )


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
    tables = [scaling_table(rule) for rule in rules]
    draft.content["normalisation"] = tables[0] if all(table == tables[0] for table in tables) else tables
    draft.put("window", patch=list(patch), overlap=0.5, tiling="even", weights="nnunet", mirror=[])
    draft.remarks.append(
        "nnU-Net looks at mirror images as well unless told not to: window.mirror = [0, 1, 2] is eight times the time"
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
    regions = {name: value for name, value in labels.items() if isinstance(value, list)}
    if not regions:
        if sorted(labels.values()) != list(range(len(labels))):
            raise ModelError(f"Labels {dict(labels)} beside plan {url} are not numbered from 0", "correct dataset.json")
        names = sorted(labels, key=lambda name: labels[name])
        convention, channels = _channels([BACKGROUND, *names[1:]], draft)
        draft.put("output", activation="softmax", convention=convention, channels=channels)
        return
    named = [name for name, value in labels.items() if name != "ignore" and value not in (0, [0])]
    _, channels = _channels(named, draft)
    sets = {
        tuple(sorted(value if isinstance(value, list) else [value])) for name, value in labels.items() if name in named
    }
    fitting = [one.name for one in CONVENTIONS.values() if {tuple(sorted(m)) for m in one.regions.values()} == sets]
    convention = fitting[0] if fitting else None
    if convention is None:
        draft.remarks.append(f"the regions {dict(labels)} are of no convention that segpipe knows: CHOOSE one")
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
    if set(regions) == set(_REGION_KINDS) and "tumour_core" in regions:
        places = iter(regions)
        return "brats", [BACKGROUND if name not in inner else str(next(places)) for name in names]
    kinds = [_kind(name, _LABEL_KINDS) for name in inner]
    if set(kinds) == set(_LABEL_KINDS) and len(kinds) == 3:
        convention = "decathlon" if kinds[0] == "oedema" else "brats2023"
        own = {_kind(name, _LABEL_KINDS): name for name in CONVENTIONS[convention].labels.values()}
        places = iter(kinds)
        return convention, [BACKGROUND if name not in inner else own[next(places)] for name in names]
    draft.remarks.append(f"the channels {', '.join(names)} are of no convention that segpipe knows: CHOOSE one")
    return None, list(names)


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
