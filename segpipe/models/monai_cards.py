"""Cards of MONAI bundles: `metadata.json` names the channels, `inference.json` or `.yaml` what is done to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segpipe.core.input_scale import Scaling
from segpipe.errors import ModelError
from segpipe.models.card import modality
from segpipe.models.card_draft import NOT_STATED, Draft, channels, licence_of, listed, modalities, ordered
from segpipe.models.monai_config import Pipeline, Step, first

_HARMLESS = {
    *("LoadImage", "EnsureChannelFirst", "EnsureType", "CastToType", "ToTensor", "AddChannel", "AsChannelFirst"),
    *("ToDevice", "Identity", "SqueezeDim", "DeleteItems", "SelectItems", "ConcatItems"),
}
_MASKS = {"label", "labels", "seg", "mask", "pred", "gt"}
_AFTERWARDS = {
    *("Activations", "AsDiscrete", "Invert", "SaveImage", "EnsureType", "ToTensor", "ToDevice", "CastToType"),
    *("SqueezeDim", "DeleteItems", "SelectItems", "Identity"),
}
"""Steps behind the network that a card says, or that change nothing."""

_DECIDING = ("softmax", "sigmoid", "other", "argmax", "threshold", "logit_thresh")
"""Options of steps behind the network that make another mask."""

_KNOWN = {
    *_HARMLESS,
    *_AFTERWARDS,
    *("Orientation", "Spacing", "CropForeground"),
    *("NormalizeIntensity", "ScaleIntensity", "ScaleIntensityRange", "ScaleIntensityRangePercentiles"),
}
_BOX = ("margin", "select_fn", "k_divisible", "channel_indices")
"""Options of CropForeground that make its box another one."""

_SPACED = ("diagonal", "recompute_affine", "min_pixdim", "max_pixdim")
"""Options of Spacing that give another grid."""

_PLAIN_INFERER = {"padding_mode": "constant", "cval": 0, "sigma_scale": 0.125}


def monai_draft(metadata: Mapping[str, Any], file: str, config: Mapping[str, Any] | None, url: str) -> Draft:
    """The card of a bundle, `config` being what its `file` beside metadata.json holds; None if it has none.

    Raises ModelError if metadata.json does not say what goes in and out.
    """
    draft = Draft()
    formats = metadata["network_data_format"]
    try:
        image = next(iter(formats["inputs"].values()))
        pred = next(iter(formats["outputs"].values()))
        named, classes = ordered(image["channel_def"]), ordered(pred["channel_def"])
    except (KeyError, StopIteration, TypeError, AttributeError, ValueError) as error:
        raise ModelError(
            f"File {url} does not say what goes in and out ({type(error).__name__}: {error})",
            "it lacks network_data_format.inputs or outputs with channel_def: write a card by hand",
        ) from None
    draft.remarks.append("made of a MONAI bundle's metadata.json" + (f" and {file}" if file else ""))
    references = metadata.get("references") or metadata.get("authors") or NOT_STATED
    draft.put(
        "network",
        name=str(metadata.get("name", "MONAI bundle")),
        licence=licence_of(metadata),
        citation="; ".join(references) if isinstance(references, list) else str(references),
        source=str(metadata.get("data_source", "")),
    )
    _counted(draft, formats["inputs"], image, named)
    _counted(draft, {}, pred, classes)
    shape = image.get("spatial_shape", [])
    dimensions = len(shape) if isinstance(shape, list) and shape else 3
    draft.put("input", modalities=modalities(named, draft), dimensions=dimensions)
    pipeline = Pipeline(config or {}, _KNOWN)
    _input(draft, pipeline, file, len(named), str(metadata.get("image_classes", "")))
    inferer = pipeline.section("inferer")
    inferer = inferer if isinstance(inferer, Mapping) else {}
    if dimensions == 2:
        _slices(draft, inferer)
    _window(draft, pipeline, inferer, shape)
    _output(draft, pipeline, classes)
    return draft


def _counted(draft: Draft, inputs: Mapping[str, Any], port: Mapping[str, Any], names: Sequence[str]) -> None:
    """Doubts where a network has more inputs, or more channels, than have a name."""
    if len(inputs) > 1:
        draft.doubt(f"the network has the inputs {listed(list(inputs))}, and a card has one")
    if (count := port.get("num_channels", len(names))) != len(names):
        draft.doubt(f"num_channels is {count}, and channel_def names {len(names)} ({listed(names)})")


# ---- before the network


@dataclass
class _Before:
    """What the steps in front of a network leave behind."""

    orientation: Any = ""
    spacing: Any = None
    spaced: bool = False
    resampling: str = "monai"
    resample_first: bool = True
    crop: str = "whole"
    scalings: list[Scaling] = field(default_factory=list)
    by: list[str] = field(default_factory=list)


def _input(draft: Draft, pipeline: Pipeline, file: str, count: int, said: str) -> None:
    steps = pipeline.steps("preprocessing")
    if steps is None:
        where = f"`preprocessing` of {file} is no list of transforms" if file else "there is no inference.json or .yaml"
        draft.doubt(f"{where}, so that nobody says what is done to a scan before the network sees it")
        draft.put("input", orientation=None, spacing_mm=None)
        draft.put_scalings([])
        return
    before = _Before()
    for step in steps:
        keys = step.options.get("keys")
        if not {str(key) for key in (keys if isinstance(keys, list) else [keys])} <= _MASKS:
            _step(before, step, count, draft)
    if before.orientation == "":
        before.orientation = "LPS"
        draft.check("no axes of an Orientationd: the network saw files as they are; BraTS's own are LPS")
    if isinstance(before.spacing, int | float):
        before.spacing = [before.spacing] * 3
    if not before.spaced:
        draft.check(f"no Spacingd: voxels of any size go in as they are, where the bundle says of its images {said!r}")
    draft.put("input", orientation=before.orientation)
    draft.put("input", spacing_mm=_numbers(before.spacing) if before.spaced else [], crop=before.crop)
    if before.spaced:
        draft.put("input", resampling=before.resampling, resample_first=before.resample_first)
    if before.spaced and before.resample_first and any("non-zero" in rule.over for rule in before.scalings):
        draft.check(
            "what is not 0 counts behind Spacing, where MONAI's rounding lets a rim of tiny numbers count as well"
        )
    if not before.by:
        draft.check("no scaling of intensities was found, so that there should be none")
    draft.put_scalings(before.scalings if before.by else [Scaling("none")])


def _step(before: _Before, step: Step, count: int, draft: Draft) -> None:
    if step.name == "ConcatItems":
        _in_order(step, draft)
    if step.name == "LoadImage" and step.flag("reverse_indexing"):
        draft.doubt("LoadImage reads with reverse_indexing, which turns the axes around: say where they run to then")
    if step.name in _HARMLESS:
        return
    if step.expressions:
        draft.doubt(f"{', '.join(step.expressions)} of {step.name} is an expression, which is not evaluated")
    if step.name == "Orientation":
        axes = step.options.get("axcodes")
        before.orientation = "".join(map(str, axes)) if isinstance(axes, list) else axes
        before.orientation = "RAS" if step.flag("as_closest_canonical") else before.orientation
        if len(set(_numbers(before.spacing) or [])) > 1:
            draft.doubt("Spacing stands before Orientation, so that it is along the axes of files, whatever these are")
    elif step.name == "Spacing":
        before.spacing, before.spaced = step.options.get("pixdim"), True
        before.resample_first = not before.by
        before.resampling = "linear" if step.flag("scale_extent") else "monai"
        if unusual := [name for name in _SPACED if step.options.get(name)]:
            draft.check(f"{step.name} has {', '.join(unusual)}, which changes where voxels lie, and is not done here")
        if (mode := first(step.options.get("mode", "bilinear"))) not in ("bilinear", "trilinear", 1):
            draft.check(f"images are resampled by {mode!r}, and here linearly")
    elif step.name == "CropForeground":
        before.crop = "non-zero"
        if before.spaced:
            draft.check(
                f"{step.name} follows Spacing, and here the box is cut out first: windows lie up to a voxel apart"
            )
        if before.by or any(map(step.options.get, _BOX)):
            draft.check(f"{step.name} is not the box of what is not 0 in the files, as input.crop has it")
    elif (found := _scalings(step, count, draft)) is not None:
        if before.by and not _as_alone(before.scalings, found):
            draft.doubt(f"{step.name} follows {before.by[-1]}, and a card has one scaling: say what both do together")
            found = []
        before.scalings = found
        before.by.append(step.name)
    else:
        draft.doubt(f"preprocessing holds {step.name}, which segpipe does not know")


def _in_order(step: Step, draft: Draft) -> None:
    """A doubt where the files are put together in another order than metadata.json names the channels in."""
    keys = step.options.get("keys")
    keys = keys if isinstance(keys, list) else []
    joined = [modality(str(key)) for key in keys]
    named = draft.content["input"]["modalities"]
    if None not in joined and len(joined) > 1 and named is not None and joined != named:
        draft.doubt(f"channel_def names {listed(named)}, and ConcatItems puts {listed(list(map(str, keys)))} together")
        draft.put("input", modalities=None)


def _scalings(step: Step, count: int, draft: Draft) -> list[Scaling] | None:
    """The rule of a transform, one for all channels or one for each; empty if no card has it; None if it scales not."""
    known = {
        "NormalizeIntensity": _normalised,
        "ScaleIntensity": _scaled,
        "ScaleIntensityRange": _ranged,
        "ScaleIntensityRangePercentiles": _percentiles,
    }
    if step.name not in known:
        return None
    rules = known[step.name](step, draft)
    if count > 1 and not step.flag("channel_wise") and {rule.method for rule in rules} & {"zscore", "percentiles"}:
        draft.doubt(f"{step.name} without channel_wise treats all channels as one, which segpipe cannot")
        return []
    return rules


def _as_alone(first: Sequence[Scaling], then: Sequence[Scaling]) -> bool:
    """Whether the second scaling gives the same without the first: it undoes a shift and a factor of all voxels."""
    moved = all(rule.outside == "scaled" and not rule.clip and rule.to_high > rule.to_low for rule in first)
    return (
        bool(first) and moved and all(rule.over == "all" and rule.method in ("zscore", "percentiles") for rule in then)
    )


def _normalised(step: Step, draft: Draft) -> list[Scaling]:
    """Stated means and deviations, perhaps one for each channel; those of the scan where none are stated."""
    voxels = ("non-zero", "zero") if step.flag("nonzero") else ("all", "scaled")
    means, deviations = step.options.get("subtrahend"), step.options.get("divisor")
    if means is None and deviations is None:
        return [Scaling("zscore", *voxels)]
    if means is None or deviations is None:
        other = "subtrahend" if means is None else "divisor"
        draft.doubt(f"{step.name} states no {other}, which MONAI then takes from the scan, and segpipe cannot")
        return []
    count = max(len(stated) if isinstance(stated, list) else 1 for stated in (means, deviations))
    each = [stated if isinstance(stated, list) else [stated] * count for stated in (means, deviations)]
    return [Scaling("fixed", *voxels, mean=float(mean), std=float(std)) for mean, std in zip(*each, strict=True)]


def _scaled(step: Step, draft: Draft) -> list[Scaling]:
    if step.options.get("minv", 0.0) is step.options.get("maxv", 1.0) is None:  # times 1 + factor
        return [Scaling("range", low=0.0, high=1.0, to_high=1.0 + step.number("factor", 0.0))]
    return [Scaling("percentiles", "all", "scaled", 0.0, 100.0, step.number("minv", 0.0), step.number("maxv", 1.0))]


def _ranged(step: Step, draft: Draft) -> list[Scaling]:
    low, high = step.number("a_min", 0.0), step.number("a_max", 1.0)
    return [Scaling("range", "all", "scaled", low, high, *_ends(step))]


def _percentiles(step: Step, draft: Draft) -> list[Scaling]:
    low, high = step.number("lower", 0.0), step.number("upper", 100.0)
    to_low, to_high, clip = _ends(step)
    if step.flag("relative"):
        to_low, to_high = (to_low + (to_high - to_low) * percent / 100 for percent in (low, high))
    return [Scaling("percentiles", "all", "scaled", low, high, to_low, to_high, clip)]


def _ends(step: Step) -> tuple[float, float, bool]:
    """What the ends of a range become, and whether nothing lies beyond; without stated ends MONAI cuts nothing off."""
    stated = None not in (step.options.get("b_min"), step.options.get("b_max"))
    return step.number("b_min", 0.0), step.number("b_max", 1.0), step.flag("clip") and stated


# ---- around it


def _slices(draft: Draft, inferer: Mapping[str, Any]) -> None:
    """Put the axis that is cut into slices first, as cards have it: that of a SliceInferer, else the third."""
    axes, axis = draft.content["input"]["orientation"], inferer.get("spatial_dim")
    cut = str(inferer.get("_target_")).endswith("SliceInferer")
    rules = draft.content["normalisation"]
    methods = {rule["method"] for rule in (rules if isinstance(rules, list) else [rules])}
    if not cut and methods & {"zscore", "percentiles"}:
        draft.doubt(
            "without a SliceInferer each image of two dimensions was scaled alone, and here all slices together"
        )
    if axes is None:
        return
    if axis not in (0, 1, 2):
        axis = 0 if cut else 2
        draft.check("which axis is cut into slices is not stated, and is the first letter of input.orientation")
    draft.put("input", orientation=axes[axis : axis + 1] + axes[:axis] + axes[axis + 1 :])


def _window(draft: Draft, pipeline: Pipeline, inferer: Mapping[str, Any], shape: Any) -> None:
    options = {name: pipeline.resolved(value) for name, value in inferer.items()}
    edges = options.get("roi_size")
    patch = _numbers([edges] * draft.content["input"]["dimensions"] if isinstance(edges, int) else edges)
    if inferer.get("roi_size") is not None:
        patch = patch if patch and all(edge >= 1 for edge in patch) else None
    else:
        fixed: list[float] = [edge for edge in shape if isinstance(edge, int)]
        patch = fixed if shape and len(fixed) == len(shape) else None
        if patch is not None:
            draft.check(f"no roi_size: the network sees a scan at once, and by patches of spatial_shape {patch} here")
    if patch is None:
        said = f"roi_size is {inferer['roi_size']}" if inferer.get("roi_size") is not None else "there is no roi_size"
        draft.doubt(f"the patch is not known: {said}, and spatial_shape is {list(shape)}")
    for name, usual in _PLAIN_INFERER.items():
        if options.get(name, usual) != usual:
            draft.check(f"the inferer has {name} {options[name]!r}, and segpipe {usual!r}")
    weights = {"gaussian": "gaussian", "constant": "constant"}.get(str(options.get("mode", "constant")).lower())
    overlap = options.get("overlap", 0.25)
    if shares := _numbers(overlap):
        overlap = max(shares)
        draft.check(f"windows overlap by {shares} along their axes, and by {overlap} here")
    overlap = overlap if isinstance(overlap, int | float) else None
    if not inferer:
        weights = overlap = None
        draft.doubt("no inferer is stated, so that nobody says how windows overlap and what counts in them")
    elif None in (weights, overlap):
        draft.doubt(f"mode {inferer.get('mode')!r} and overlap {inferer.get('overlap')!r} of the inferer are not known")
    draft.put("window", patch=patch, overlap=overlap, tiling="stepped", weights=weights)


def _output(draft: Draft, pipeline: Pipeline, classes: Sequence[str]) -> None:
    activation, threshold = None, None
    for step in pipeline.steps("postprocessing") or []:
        if hidden := [name for name in step.expressions if name in _DECIDING]:
            draft.doubt(f"{', '.join(hidden)} of {step.name} is an expression, which is not evaluated")
        if step.name == "Activations":
            activation = next((kind for kind in ("softmax", "sigmoid") if step.flag(kind)), activation)
        elif step.name == "AsDiscrete" and step.flag("argmax"):
            if activation == "sigmoid":
                draft.check("the likeliest label is taken of a sigmoid, and of a softmax here, where it is the same")
            activation, threshold = "softmax", None  # whose likeliest is that of the bare output
        elif step.name == "AsDiscrete":
            named = "logit_thresh" if step.flag("threshold_values") else "threshold"  # as MONAI 0.6 had it
            threshold = step.number(named, 0.5) if first(step.options.get(named)) is not None else threshold
        elif step.name not in _AFTERWARDS:
            draft.check(f"postprocessing holds {step.name}, which is not done to the masks here")
    convention, found = channels(classes, draft)
    if activation is None:
        draft.doubt("no softmax or sigmoid was found behind the network")
    draft.put("output", activation=activation, convention=convention, channels=found)
    if threshold is not None and activation == "softmax" and len(found) > 2:
        draft.check(
            f"what MONAI compares with {threshold} is each label, and here what the labels of a region have together"
        )
    if threshold is not None:
        draft.put("output", threshold=threshold)


def _numbers(value: Any) -> list[float] | None:
    if isinstance(value, list) and value and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return value
    return None
