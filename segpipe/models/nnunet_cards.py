"""Cards of nnU-Net models, made of the `plans.json` and `dataset.json` that lie in the folder of a trained one."""

from collections.abc import Mapping
from typing import Any

from segpipe.core.input_scale import Scaling
from segpipe.core.regions import CONVENTIONS
from segpipe.errors import ModelError
from segpipe.models.card import BACKGROUND
from segpipe.models.card_draft import Draft, channels, licence_of, modalities, ordered, region_kind

_PAPER = "Isensee et al. 2021, nnU-Net, doi 10.1038/s41592-020-01008-z"
_AXES = {
    "SimpleITKIO": "SPL",
    "NibabelIO": "SPL",
    "NibabelIOWithReorient": "SAR",
    "SimpleITKIOWithReorient": "SAR",
}
"""Where the axes z, y, x of a reader's arrays run to. Without reorientation they are the file's; BraTS's are LPS."""

_RESAMPLER = "resample_data_or_seg_to_shape"


def nnunet_draft(plans: Mapping[str, Any], dataset: Mapping[str, Any], wanted: str | None, url: str) -> Draft:
    """The card of a configuration of a plan; ModelError if there is none of that name, or not enough to begin with."""
    name, plan = _configuration(plans, wanted, url)
    try:
        names = ordered(dataset.get("channel_names") or dataset["modality"])
        labels = dataset["labels"]
        patch, spacing = plan["patch_size"], plan["spacing"]
        schemes, masks = plan["normalization_schemes"], plan["use_mask_for_norm"]
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"Plan {url} or its dataset.json lacks something ({type(error).__name__}: {error})",
            "give the plans.json and dataset.json of the trained model",
        ) from None
    if not len(names) == len(schemes) == len(masks):
        raise ModelError(
            f"Plan {url} normalises {len(schemes)} channels, and dataset.json beside it names {len(names)}",
            "give the plans.json and dataset.json of the trained model",
        )
    draft = Draft()
    draft.remarks.append(f"made of nnU-Net's plans.json, configuration {name}, and dataset.json")
    if wanted is None and (others := _others(plans, name, len(patch))):
        draft.check(f"the plan has {', '.join(others)} too, and without --configuration {name} is taken")
    if [*plans.get("original_median_shape_after_transp", []), 0][0] == 1:
        draft.doubt(
            "the network has learnt from images of one slice, each scaled alone, and here all slices are together"
        )
    draft.put(
        "network",
        name=f"{dataset.get('name') or plans.get('dataset_name', 'nnU-Net')} ({name})",
        licence=licence_of(dataset),
        citation="; ".join(filter(None, [str(dataset.get("reference", "")), _PAPER])),
        source=str(plans.get("dataset_name", "")),
    )
    _own_code(draft, plans, plan)
    draft.put(
        "input",
        modalities=modalities(names, draft),
        dimensions=len(patch),
        orientation=_orientation(draft, plans),
        spacing_mm=list(spacing)[-len(patch) :],
        crop="non-zero",
        resampling="nnunet",
        resample_first=False,
    )
    _resampling(draft, plan)
    each = enumerate(zip(schemes, masks, strict=True))
    rules = [_scaling(scheme, bool(mask), plans, place, draft) for place, (scheme, mask) in each]
    draft.put_scalings([rule for rule in rules if rule] if all(rules) else [])
    draft.put("window", patch=list(patch), overlap=0.5, tiling="even", weights="nnunet", mirror=[])
    mirror = list(range(len(patch)))
    draft.check(
        f"nnU-Net looks at mirror images as well, and here none are, because that takes {2 ** len(mirror)} times the"
        f" time: with window.mirror = {mirror} they are"
    )
    _output(draft, dataset, labels, url)
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


def _others(plans: Mapping[str, Any], name: str, dimensions: int) -> list[str]:
    """Configurations that the same network could be of."""
    known: Mapping[str, Mapping[str, Any]] = plans["configurations"]
    alone = {other: one for other, one in known.items() if other != name and not one.get("previous_stage")}
    return [other for other, one in alone.items() if len(one.get("patch_size", [])) == dimensions]


def _own_code(draft: Draft, plans: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """Doubts where somebody's own class does what nnU-Net's would."""
    for key, usual in (("preprocessor_name", "DefaultPreprocessor"), ("label_manager", "LabelManager")):
        if (name := {**plans, **plan}.get(key, usual)) != usual:
            draft.doubt(f"{key} is {name}, whose code segpipe does not know, and not nnU-Net's {usual}")


def _orientation(draft: Draft, plans: Mapping[str, Any]) -> str | None:
    """Where the axes of the network's input run to: those of the reader, transposed."""
    reader = str(plans.get("image_reader_writer", "SimpleITKIO"))
    own = _AXES.get(reader)
    if own is None:
        draft.doubt(f"{reader} read the images, of which segpipe does not know where their axes run to")
        return None
    if own == "SPL":
        draft.check(f"{reader} keeps the files' own axes; BraTS's files are LPS, so z, y, x is SPL")
    return "".join(own[axis] for axis in plans.get("transpose_forward", [0, 1, 2]))


def _resampling(draft: Draft, plan: Mapping[str, Any]) -> None:
    """The plan's own way to resample, where it is not nnU-Net's usual one."""
    for what, order in (("data", 3), ("probabilities", 1)):
        key = f"resampling_fn_{what}"
        name, options = plan.get(key, _RESAMPLER), plan.get(f"{key}_kwargs", {})
        usual = {"order": order, "order_z": 0, "force_separate_z": None}
        others = {option: value for option, value in options.items() if value != usual.get(option, value)}
        if name.startswith("no_resampling"):
            draft.put("input", spacing_mm=[])
        elif name == _RESAMPLER and not others:
            continue
        elif name.startswith("resample_torch"):
            draft.put("input", resampling="linear")
            draft.check(f"{key} is {name}, and voxels of another size are resampled linearly along all axes here")
        else:
            told = f" with {', '.join(f'{option} {value}' for option, value in others.items())}" if others else ""
            draft.check(f"{key} is {name}{told}, and here images are resampled as nnU-Net usually does")


def _scaling(scheme: str, mask: bool, plans: Mapping[str, Any], place: int, draft: Draft) -> Scaling | None:
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
        draft.doubt(f"channel {place} is normalised by {scheme}, for which plans.json lacks mean, std and percentiles")
        return None
    if scheme == "RescaleTo01Normalization":
        return Scaling("percentiles", low=0.0, high=100.0)
    if scheme == "RGBTo01Normalization":
        return Scaling("range", low=0.0, high=255.0)
    if scheme != "NoNormalization":
        draft.doubt(f"channel {place} is normalised by {scheme}, which segpipe does not know")
        return None
    return Scaling("none")


def _output(draft: Draft, dataset: Mapping[str, Any], labels: Mapping[str, Any], url: str) -> None:
    held = {name: _members(value) for name, value in labels.items() if name != "ignore"}  # which has no channel
    if any(len(members) > 1 for members in held.values()):
        _regions(draft, {name: members for name, members in held.items() if set(members) != {0}})
        _told_order(draft, dataset.get("regions_class_order"))
        return
    numbers = {name: members[0] for name, members in held.items() if members}
    if sorted(numbers.values()) != list(range(len(labels) - ("ignore" in labels))):
        raise ModelError(f"Labels {dict(labels)} beside plan {url} are not numbered from 0", "correct dataset.json")
    names = sorted(numbers, key=lambda name: numbers[name])
    convention, found = channels([BACKGROUND, *names[1:]], draft)
    draft.put("output", activation="softmax", convention=convention, channels=found)


def _members(value: Any) -> tuple[int, ...]:
    """The labels of a region, or the one of a label: nnU-Net takes a list of one for a label too."""
    try:
        return tuple(sorted({int(one) for one in (value if isinstance(value, list) else [value])}))
    except (TypeError, ValueError):
        return ()


def _regions(draft: Draft, held: Mapping[str, tuple[int, ...]]) -> None:
    """A channel for each region but the background, in their order: known by the labels that they hold, and by name."""
    names = {
        one.name: {tuple(sorted(members)): region for region, members in one.regions.items()}
        for one in CONVENTIONS.values()
    }
    convention = next((name for name, known in names.items() if set(known) == set(held.values())), None)
    known = names.get(convention or "", {})
    found = [known.get(members, name) for name, members in held.items()]
    told = ", ".join(f"{name} {list(members)}" for name, members in held.items())
    if convention is None:
        draft.doubt(f"the regions {told} are those of none of {', '.join(CONVENTIONS)}")
    elif strange := [pair for pair in zip(held, found, strict=True) if region_kind(pair[0]) != pair[1]]:
        draft.doubt(f"the regions {told} hold the labels of {convention}, but {_would_be(strange)}")
        convention, found = None, list(held)
    draft.put("output", activation="sigmoid", convention=convention, channels=found, threshold=0.5)


def _would_be(pairs: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name!r} would be {region}" for name, region in pairs)


def _told_order(draft: Draft, order: Any) -> None:
    """A remark where nnU-Net's own masks have other numbers than these regions have by the convention."""
    output = draft.content["output"]
    if output["convention"] is None or not isinstance(order, list):
        return
    convention = CONVENTIONS[output["convention"]]
    paint = dict(zip(convention.regions, convention.paint, strict=True))
    usual = [paint[region] for region in output["channels"]]
    if order != usual:
        draft.check(
            f"regions_class_order is {order}, so that nnU-Net's own masks have other numbers, or other regions on top,"
            f" than {convention.name} has ({usual})"
        )
