"""Cards: what is wrong is told all at once, and what other tools say becomes one."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml

from segpipe.core.input_scale import Scaling
from segpipe.errors import ModelError
from segpipe.models.card import FIELDS, Card, modality, parse_card, to_toml
from segpipe.models.cards import load_card

DOCS = Path(__file__).resolve().parents[2] / "docs"
MONAI = {
    "version": "1.0",
    "name": "Generated bundle",
    "copyright": "nobody",
    "references": ["Someone 2020", "Someone else 2021"],
    "network_data_format": {
        "inputs": {
            "image": {
                "num_channels": 4,
                "spatial_shape": ["16*n", "16*n", "16*n"],
                "channel_def": {"2": "T2w", "0": "T1-Gd", "1": "T1w", "3": "T2 FLAIR"},
            }
        },
        "outputs": {"pred": {"channel_def": {"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"}}},
    },
}
INFERENCE: dict[str, Any] = {
    "keys": "image",
    "before": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "@keys"},
            {"_target_": "monai.transforms.Orientationd", "keys": "@keys", "axcodes": "RAS"},
            {"_target_": "NormalizeIntensityd", "keys": "@keys", "nonzero": True, "channel_wise": True},
            {"_target_": "Spacingd", "keys": "@keys", "pixdim": [1.0, 1.0, 2.0]},
        ],
    },
    "preprocessing": "@before",
    "edges": [96, 96, 64],
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "@edges", "overlap": 0.6, "mode": "gaussian"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
            {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.4},
            {"_target_": "Lambdad", "func": "$__import__('os').system('false')"},
        ],
    },
}
PLANS: dict[str, Any] = {
    "dataset_name": "Dataset900_Generated",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "configurations": {
        "2d": {
            "patch_size": [192, 160],
            "spacing": [1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"] * 4,
            "use_mask_for_norm": [True] * 4,
        },
        "3d_fullres": {"inherits_from": "base", "patch_size": [128, 128, 112]},
        "base": {
            "spacing": [1.0, 1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"] * 4,
            "use_mask_for_norm": [True, True, True, False],
        },
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    },
}
DATASET: dict[str, Any] = {
    "channel_names": {"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"},
    "labels": {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3},
    "licence": "CC-BY-SA 4.0",
}


SKULL = (
    "# the scaling counts what is not 0, as where the skull was taken off: with input.space = brain-1mm other scans"
    " than those of `--prepare` are refused: CHECK"
)


MIRRORED = (
    "# nnU-Net looks at mirror images as well, and here none are, because that takes 8 times the time: with"
    " window.mirror = [0, 1, 2] they are: CHECK"
)


def written(folder: Path, **files: Any) -> str:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return str(folder / f"{next(iter(files))}.json")


def test_a_monai_bundle(tmp_path: Path) -> None:
    card, _, toml = load_card(written(tmp_path, metadata=MONAI, inference=INFERENCE))
    assert card == Card(
        name="Generated bundle",
        licence="not stated: ask who trained it; nobody",
        citation="Someone 2020; Someone else 2021",
        source="",
        modalities=("T1ce", "T1", "T2", "FLAIR"),
        dimensions=3,
        orientation="RAS",
        spacing_mm=(1.0, 1.0, 2.0),
        space="",
        crop="whole",
        resampling="monai",
        resample_first=False,
        scalings=(Scaling("zscore", "non-zero", "zero"),) * 4,
        patch=(96, 96, 64),
        overlap=0.6,
        tiling="stepped",
        weights="gaussian",
        mirror=(),
        output="",
        activation="sigmoid",
        convention="brats",
        channels=("tumour_core", "whole_tumour", "enhancing_tumour"),
        threshold=0.4,
    )
    assert parse_card(tomllib.loads(toml), "again") == card
    assert [line for line in toml.splitlines() if "CHECK" in line or "DECIDE" in line] == [
        SKULL,
        "# postprocessing holds Lambdad, which is not done to the masks here: CHECK",
    ]


def test_what_a_monai_bundle_leaves_open_is_asked(tmp_path: Path) -> None:
    """Without inference.json nothing is known of what is done to a scan: no axes, no voxels, no scaling are made up."""
    url = written(tmp_path, metadata=MONAI)
    draft = tmp_path / "draft.toml"
    keys = "input.orientation, input.spacing_mm, normalisation.method, window.patch, window.overlap, window.weights"
    with pytest.raises(
        ModelError, match=rf"does not say {keys}, output.activation \(there is no inference.*complete .*draft\.toml"
    ):
        load_card(url, draft=str(draft))
    text = draft.read_text()
    for key, value in (
        ("orientation", '"LPS"'),
        ("spacing_mm", "[1, 1, 1]"),
        ("method", '"zscore"'),
        ("patch", "[16, 16, 16]"),
        ("overlap", "0.5"),
        ("weights", '"gaussian"'),
        ("activation", '"sigmoid"'),
    ):
        with pytest.raises(ModelError):
            load_card(str(draft))
        text = re.sub(rf"# {key} = .*", f"{key} = {value}", text)
        draft.write_text(text)
    assert load_card(str(draft))[0].patch == (16, 16, 16)


@pytest.mark.parametrize("name", ["inference.yaml", "inference.yml"])
def test_a_pipeline_in_yaml_is_read_like_one_in_json(tmp_path: Path, name: str) -> None:
    wanted = load_card(written(tmp_path, metadata=MONAI, inference=INFERENCE))[0]
    (tmp_path / name).write_text(yaml.safe_dump(INFERENCE))
    (tmp_path / "inference.json").unlink()
    card, _, toml = load_card(str(tmp_path / "metadata.json"))
    assert card == wanted
    assert f"metadata.json and {name}" in toml
    (tmp_path / name).write_text("!!python/object/apply:os.system ['false']")
    with pytest.raises(ModelError, match=rf"{name} is not YAML .*could not determine a constructor"):
        load_card(str(tmp_path / "metadata.json"))


def test_lists_that_are_put_together_are_known_without_evaluating(tmp_path: Path) -> None:
    wanted = load_card(written(tmp_path, metadata=MONAI, inference=INFERENCE))[0]
    steps = INFERENCE["before"]["transforms"]
    parts = {"first": steps[:2], "second": "@third", "third": steps[2:]}
    for transforms in ("$@first + @second", "$@first +@third", "$@all ", "%all"):
        whole = {"_target_": "Compose", "transforms": transforms}
        inference = INFERENCE | parts | {"all": steps, "preprocessing": whole}
        assert load_card(written(tmp_path, metadata=MONAI, inference=inference))[0] == wanted


@pytest.mark.parametrize(
    "hidden",
    [
        {"preprocessing": {"_target_": "Compose", "transforms": "$[t for t in @steps]"}},
        {"preprocessing": "$@before if True else None"},
        {"preprocessing": None, "test_preprocessing": "@before"},
    ],
    ids=["an expression", "a choice", "another name"],
)
def test_transforms_that_nobody_can_see_are_no_empty_list(tmp_path: Path, hidden: dict[str, Any]) -> None:
    url = written(tmp_path, metadata=MONAI, inference=INFERENCE | hidden)
    with pytest.raises(
        ModelError, match=r"orientation, input\.spacing_mm, normalisation\.method \(`preprocessing` of inf"
    ):
        load_card(url)


@pytest.mark.parametrize(
    ("transform", "wanted"),
    [
        ({"_target_": "NormalizeIntensityd", "channel_wise": True}, Scaling("zscore")),
        ({"_target_": "NormalizeIntensityd", "subtrahend": 5, "divisor": 2}, Scaling("fixed", mean=5, std=2)),
        (
            {"_target_": "ScaleIntensityRanged", "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1, "clip": True},
            Scaling("range", low=-57, high=164, clip=True),
        ),
        (
            {
                **{"_target_": "ScaleIntensityRangePercentilesd", "lower": 1, "upper": 99},
                **{"b_min": -1, "b_max": 1, "channel_wise": True},
            },
            Scaling("percentiles", low=1, high=99, to_low=-1),
        ),
        (
            {
                **{"_target_": "ScaleIntensityRangePercentilesd", "lower": 5, "upper": 90},
                **{"b_min": -1, "b_max": 1, "channel_wise": True, "relative": True},
            },
            Scaling("percentiles", low=5, high=90, to_low=-0.9, to_high=0.8),
        ),
        ({"_target_": "ScaleIntensityd", "channel_wise": True}, Scaling("percentiles", low=0, high=100)),
        (
            {"_target_": "ScaleIntensityd", "minv": None, "maxv": None, "factor": 0.5, "channel_wise": True},
            Scaling("range", low=0, high=1, to_high=1.5),
        ),
        (
            {"_target_": "NormalizeIntensityd", "subtrahend": 1, "divisor": 2, "nonzero": True, "channel_wise": True},
            Scaling("fixed", "non-zero", "zero", mean=1, std=2),
        ),
        (
            {"_target_": "NormalizeIntensityd", "nonzero": "False", "channel_wise": "True"},
            Scaling("zscore"),
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_scalings_of_monai(tmp_path: Path, transform: dict, wanted: Scaling) -> None:
    inference = copy.deepcopy(INFERENCE)
    inference["before"]["transforms"][2] = transform
    assert load_card(written(tmp_path, metadata=MONAI, inference=inference))[0].scalings == (wanted,) * 4


def changed(**options: Any) -> dict[str, Any]:
    """`INFERENCE` whose transform of intensities and whose inferer have other options, or are other ones."""
    inference = copy.deepcopy(INFERENCE)
    for key, value in options.items():
        section, _, name = key.partition("__")
        place = inference["before"]["transforms"][{"orientation": 1, "scaling": 2, "spacing": 3}[section]]
        place[name] = value
    return inference


def test_a_mean_and_a_deviation_of_each_channel(tmp_path: Path) -> None:
    inference = changed(scaling__subtrahend=[1, 2, 3, 4], scaling__divisor=[5, 6, 7, 8])
    card = load_card(written(tmp_path, metadata=MONAI, inference=inference))[0]
    each = zip((1, 2, 3, 4), (5, 6, 7, 8), strict=True)
    assert card.scalings == tuple(Scaling("fixed", "non-zero", "zero", mean=mean, std=std) for mean, std in each)


@pytest.mark.parametrize(
    ("inferer", "orientation", "asked"),
    [
        ({"_target_": "SliceInferer", "spatial_dim": 2, "roi_size": [96, 64]}, "SRA", False),
        ({"_target_": "SliceInferer", "roi_size": [96, 64]}, "RAS", True),
        ({"_target_": "SlidingWindowInferer", "roi_size": [96, 64]}, "SRA", True),
    ],
    ids=["stated", "by default", "unknown"],
)
def test_the_axis_that_is_cut_into_slices_comes_first(
    tmp_path: Path, inferer: dict[str, Any], orientation: str, asked: bool
) -> None:
    metadata = copy.deepcopy(MONAI)
    metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = ["16*n", "16*n"]
    inference = changed(spacing__pixdim=[1.0, 1.0], scaling___target_="Identityd") | {"inferer": inferer}
    card, _, toml = load_card(written(tmp_path, metadata=metadata, inference=inference))
    assert (card.dimensions, card.orientation, card.patch) == (2, orientation, (1, 96, 64))
    assert ("and is the first letter of input.orientation: CHECK" in toml) == asked


@pytest.mark.parametrize("inferer", ["SimpleInferer", "SlidingWindowInferer"])
def test_images_that_were_scaled_one_by_one_are_no_slices_of_a_volume(tmp_path: Path, inferer: str) -> None:
    metadata = copy.deepcopy(MONAI)
    metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = [96, 64]
    inference = changed(spacing__pixdim=[1.0, 1.0]) | {"inferer": {"_target_": inferer, "roi_size": [96, 64]}}
    with pytest.raises(ModelError, match="without a SliceInferer each image of two dimensions was scaled alone"):
        load_card(written(tmp_path, metadata=metadata, inference=inference))
    sliced = inference | {"inferer": {"_target_": "SliceInferer", "roi_size": [96, 64], "spatial_dim": 2}}
    assert load_card(written(tmp_path, metadata=metadata, inference=sliced))[0].patch == (1, 96, 64)


@pytest.mark.parametrize("shape", [[1, 512, 512], [155, 240, 240]])
def test_a_plan_of_images_of_one_slice_each(tmp_path: Path, shape: list[int]) -> None:
    url = written(tmp_path, plans=PLANS | {"original_median_shape_after_transp": shape}, dataset=DATASET)
    if shape[0] == 1:
        with pytest.raises(ModelError, match="has learnt from images of one slice, each scaled alone"):
            load_card(url, "2d")
    else:
        assert load_card(url, "2d")[0].dimensions == 2


def test_a_configuration_that_nobody_named_is_told_if_the_network_could_be_of_another(tmp_path: Path) -> None:
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["3d_lowres"] = plans["configurations"]["base"] | {"patch_size": [128, 128, 112]}
    url = written(tmp_path, plans=plans, dataset=DATASET)
    told = "the plan has 3d_lowres too, and without --configuration 3d_fullres is taken: CHECK"
    assert told in load_card(url)[2]
    assert told not in load_card(url, "3d_fullres")[2]
    assert told not in load_card(written(tmp_path, plans=PLANS, dataset=DATASET))[2]


def test_transforms_inside_of_others_are_found(tmp_path: Path) -> None:
    wanted = load_card(written(tmp_path, metadata=MONAI, inference=INFERENCE))[0]
    inference = copy.deepcopy(INFERENCE)
    first, *rest = inference["before"]["transforms"]
    inference["before"]["transforms"] = [first, {"_target_": "monai.transforms.Compose", "transforms": rest}]
    assert load_card(written(tmp_path, metadata=MONAI, inference=inference))[0] == wanted


@pytest.mark.parametrize(
    ("keys", "right"),
    [(["t1c", "t1n", "t2w", "t2f"], True), (["t2f", "t1n", "t1c", "t2w"], False), (["a", "b"], True), ("image", True)],
    ids=str,
)
def test_channels_that_are_put_together_in_another_order(tmp_path: Path, keys: Any, right: bool) -> None:
    inference = copy.deepcopy(INFERENCE)
    inference["before"]["transforms"].insert(1, {"_target_": "ConcatItemsd", "keys": keys, "name": "image"})
    url = written(tmp_path, metadata=MONAI, inference=inference)
    if right:
        assert load_card(url)[0].modalities == ("T1ce", "T1", "T2", "FLAIR")
    else:
        said = r"channel_def names T1ce, T1, T2, FLAIR, and ConcatItems puts t2f, t1n, t1c, t2w together"
        with pytest.raises(ModelError, match=rf"does not say input\.modalities \({said}"):
            load_card(url)


def hundredfold(levels: int) -> dict[str, Any]:
    """Lists that are put together of the next, a hundred times each."""
    sections: dict[str, Any] = {f"l{level}": "$" + " + ".join([f"@l{level + 1}"] * 100) for level in range(levels)}
    return sections | {f"l{levels}": []}


@pytest.mark.parametrize(
    "sections",
    [
        {"l0": "$@l0 + @l0"},
        {"l0": "@l1", "l1": "%l0"},
        {"l0": [{"_target_": "Compose", "transforms": "@l0"}]},
        hundredfold(7),
    ],
    ids=["of itself", "round and round", "inside of itself", "without an end"],
)
def test_references_that_never_end(tmp_path: Path, sections: dict[str, Any]) -> None:
    inference = INFERENCE | {"preprocessing": {"_target_": "Compose", "transforms": "@l0"}} | sections
    with pytest.raises(ModelError, match=r"is no list of transforms|holds an expression"):
        load_card(written(tmp_path, metadata=MONAI, inference=inference))


def test_axes_that_are_an_expression_are_not_those_of_the_files(tmp_path: Path) -> None:
    url = written(tmp_path, metadata=MONAI, inference=changed(orientation__axcodes="$'R' + 'AS'"))
    with pytest.raises(ModelError, match=r"does not say input\.orientation \(axcodes of Orientation is an expression"):
        load_card(url)


def test_the_likeliest_of_a_sigmoid_is_no_threshold(tmp_path: Path) -> None:
    metadata, inference = copy.deepcopy(MONAI), copy.deepcopy(INFERENCE)
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = ["background", "lesion"]
    inference["postprocessing"]["transforms"][1] = {
        "_target_": "AsDiscreted",
        "argmax": [True, False],
        "threshold": 0.4,
    }
    card, _, toml = load_card(written(tmp_path, metadata=metadata, inference=inference))
    assert (card.activation, card.decision) == ("softmax", None)
    assert "the likeliest label is taken of a sigmoid, and of a softmax here, where it is the same: CHECK" in toml


def test_a_threshold_of_labels_that_exclude_each_other_is_told(tmp_path: Path) -> None:
    metadata, inference = copy.deepcopy(MONAI), copy.deepcopy(INFERENCE)
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = ["background", "NCR", "ED", "ET"]
    inference["postprocessing"]["transforms"][0] = {"_target_": "Activationsd", "softmax": True}
    card, _, toml = load_card(written(tmp_path, metadata=metadata, inference=inference))
    assert (card.activation, card.threshold) == ("softmax", 0.4)
    assert "what MONAI compares with 0.4 is each label, and here what the labels of a region have together" in toml


def decided(tmp_path: Path, **threshold: Any) -> Card:
    inference = copy.deepcopy(INFERENCE)
    inference["postprocessing"]["transforms"][1] = {"_target_": "AsDiscreted"} | threshold
    return load_card(written(tmp_path, metadata=MONAI, inference=inference))[0]


def test_numbers_as_text_are_numbers(tmp_path: Path) -> None:
    ranged = {"_target_": "ScaleIntensityRanged", "a_min": "-57", "a_max": "164", "b_min": "0", "b_max": "1"}
    inference = copy.deepcopy(INFERENCE)
    inference["before"]["transforms"][2] = ranged
    url = written(tmp_path, metadata=MONAI, inference=inference)
    assert load_card(url)[0].scalings[0] == Scaling("range", low=-57, high=164)
    ranged["a_min"] = "low"
    with pytest.raises(ModelError, match=r"is not built as MONAI's are .*could not convert string to float: 'low'"):
        load_card(written(tmp_path, metadata=MONAI, inference=inference))
    assert decided(tmp_path, threshold="0.3").threshold == 0.3
    with pytest.raises(ModelError, match="threshold of AsDiscrete is an expression"):
        decided(tmp_path, threshold="$0.3")
    assert decided(tmp_path, threshold=0.3, to_onehot="$len(@x)").threshold == 0.3


@pytest.mark.parametrize("reverse", [True, False])
def test_a_reader_that_turns_the_axes_around(tmp_path: Path, reverse: bool) -> None:
    inference = copy.deepcopy(INFERENCE)
    inference["before"]["transforms"][0] |= {"reader": "ITKReader", "reverse_indexing": reverse}
    url = written(tmp_path, metadata=MONAI, inference=inference)
    if reverse:
        with pytest.raises(ModelError, match="LoadImage reads with reverse_indexing"):
            load_card(url)
    else:
        assert load_card(url)[0].orientation == "RAS"


@pytest.mark.parametrize("resample_first", [True, False])
def test_what_monai_counts_as_not_0_behind_its_resampling_is_told(tmp_path: Path, resample_first: bool) -> None:
    inference = copy.deepcopy(INFERENCE)
    steps = inference["before"]["transforms"]
    steps[2:] = steps[:1:-1] if resample_first else steps[2:]
    card, _, toml = load_card(written(tmp_path, metadata=MONAI, inference=inference))
    assert card.resample_first == resample_first
    assert ("lets a rim of tiny numbers count as well: CHECK" in toml) == resample_first


def test_a_grid_that_monai_does_not_usually_make_is_told(tmp_path: Path) -> None:
    url = written(tmp_path, metadata=MONAI, inference=changed(spacing__scale_extent=True))
    assert load_card(url)[0].resampling == "linear"
    card, _, toml = load_card(written(tmp_path, metadata=MONAI, inference=changed(spacing__diagonal=True)))
    assert card.resampling == "monai"
    assert "Spacing has diagonal, which changes where voxels lie, and is not done here: CHECK" in toml
    cropped = copy.deepcopy(INFERENCE)
    cropped["before"]["transforms"].append({"_target_": "CropForegroundd", "keys": "image"})
    toml = load_card(written(tmp_path, metadata=MONAI, inference=cropped))[2]
    assert "CropForeground follows Spacing, and here the box is cut out first: windows lie up to a voxel apart" in toml


def test_what_a_card_of_json_says_wrong_is_corrected_in_its_draft(tmp_path: Path) -> None:
    url = written(tmp_path, metadata=MONAI, inference=changed(spacing__pixdim=[1, 1, -1]))
    with pytest.raises(
        ModelError, match=r"spacing_mm is \[1, 1, -1\] but must .*: run again with --draft FILE.toml, correct"
    ):
        load_card(url)


def test_names_of_others_do_not_become_lines_of_a_card(tmp_path: Path) -> None:
    metadata = copy.deepcopy(MONAI)
    said = "a\n[output]\nactivation = 'none'\x1b[2J\x7f"
    metadata |= {"image_classes": said, "name": said}
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = [said, "b"]
    draft = tmp_path / "draft.toml"
    with pytest.raises(ModelError):
        load_card(written(tmp_path, metadata=metadata, inference=INFERENCE), draft=str(draft))
    content = tomllib.loads(draft.read_text())
    assert (content["network"]["name"], content["output"]["activation"]) == (said, "sigmoid")


def test_other_ways_to_say_what_a_monai_bundle_says(tmp_path: Path) -> None:
    inference = changed(orientation__axcodes=None, orientation__as_closest_canonical=True)
    inference["inferer"] = {"_target_": "SlidingWindowInferer", "roi_size": 96, "overlap": [0.5, 0.25, 0.5]}
    inference["postprocessing"] = [{"_target_": "AsDiscreted", "argmax": True}]
    metadata = copy.deepcopy(MONAI)
    classes = {"0": "background", "1": "NETC", "2": "SNFH", "3": "ET", "4": "RC"}
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = classes
    card, _, toml = load_card(written(tmp_path, metadata=metadata, inference=inference))
    assert (card.orientation, card.patch, card.overlap) == ("RAS", (96, 96, 96), 0.5)
    assert (card.activation, card.convention, card.decision) == ("softmax", "brats2024", None)
    assert "windows overlap by [0.5, 0.25, 0.5] along their axes, and by 0.5 here: CHECK" in toml
    inference = changed(orientation__axcodes=["L", "P", "S"])
    assert load_card(written(tmp_path, metadata=MONAI, inference=inference))[0].orientation == "LPS"


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (
            {"_target_": "NormalizeIntensityd", "channel_wise": True, "divisor": "$2 + 2"},
            "divisor of NormalizeIntensity is an expression",
        ),
        (
            {"_target_": "NormalizeIntensityd", "channel_wise": True, "divisor": 2},
            "states no subtrahend, which MONAI then takes from the scan",
        ),
        ({"_target_": "Resized", "spatial_size": [96, 96, 96]}, "preprocessing holds Resized,"),
        ({"_target_": "scripts.mine.Windowed"}, "preprocessing holds Windowed,"),
        ({"_target_": "ScaleIntensityd", "channel_wise": True}, "NormalizeIntensity follows ScaleIntensity"),
        ("$my_transform(@keys)", "preprocessing holds an expression"),
    ],
    ids=["an expression", "half a scaling", "another grid", "own code", "two scalings", "evaluated"],
)
def test_what_no_card_can_say_is_refused_until_somebody_has_decided(
    tmp_path: Path, transform: dict[str, Any], said: str
) -> None:
    inference = copy.deepcopy(INFERENCE)
    inference["before"]["transforms"].insert(1, transform)
    url, draft = written(tmp_path, metadata=MONAI, inference=inference), tmp_path / "draft.toml"
    with pytest.raises(ModelError, match=said):
        load_card(url, draft=str(draft))
    assert [line for line in draft.read_text().splitlines() if said in line and line.endswith(": DECIDE")]


@pytest.mark.parametrize("margin", [{"margin": 4}, {"k_divisible": 16}, {"channel_indices": [0]}], ids=str)
def test_another_box_is_to_be_checked(tmp_path: Path, margin: dict[str, Any]) -> None:
    inference = copy.deepcopy(INFERENCE)
    inference["before"]["transforms"].insert(1, {"_target_": "CropForegroundd"} | margin)
    card, _, toml = load_card(written(tmp_path, metadata=MONAI, inference=inference))
    assert card.crop == "non-zero"
    assert "CropForeground is not the box of what is not 0 in the files, as input.crop has it: CHECK" in toml


def test_one_scaling_of_all_channels_together_is_refused(tmp_path: Path) -> None:
    inference = changed(scaling__channel_wise=False)
    with pytest.raises(
        ModelError, match=r"does not say normalisation\.method \(NormalizeIntensity without channel_wise"
    ):
        load_card(written(tmp_path, metadata=MONAI, inference=inference))


def test_a_scaling_that_undoes_the_one_before_stands_alone(tmp_path: Path) -> None:
    inference = changed(scaling__nonzero=False)
    inference["before"]["transforms"].insert(1, {"_target_": "ScaleIntensityd", "channel_wise": True})
    assert load_card(written(tmp_path, metadata=MONAI, inference=inference))[0].scalings == (Scaling("zscore"),) * 4
    inference["before"]["transforms"][1] |= {"minv": 1, "maxv": 0}
    with pytest.raises(ModelError, match="NormalizeIntensity follows ScaleIntensity"):
        load_card(written(tmp_path, metadata=MONAI, inference=inference))


@pytest.mark.parametrize(("mode", "told"), [("nearest", True), (3, True), (["bilinear", "nearest"], False), (1, False)])
def test_images_that_are_not_resampled_linearly_are_told(tmp_path: Path, mode: Any, told: bool) -> None:
    toml = load_card(written(tmp_path, metadata=MONAI, inference=changed(spacing__mode=mode)))[2]
    assert (f"images are resampled by {mode!r}, and here linearly: CHECK" in toml) == told


def test_voxels_along_the_axes_of_files_are_refused(tmp_path: Path) -> None:
    inference = copy.deepcopy(INFERENCE)
    inference["before"]["transforms"].reverse()
    with pytest.raises(ModelError, match="Spacing stands before Orientation"):
        load_card(written(tmp_path, metadata=MONAI, inference=inference))
    inference["before"]["transforms"][0]["pixdim"] = [1, 1, 1]
    assert load_card(written(tmp_path, metadata=MONAI, inference=inference))[0].resample_first


def test_what_is_done_to_masks_alone_is_not_done_to_images(tmp_path: Path) -> None:
    wanted = load_card(written(tmp_path, metadata=MONAI, inference=INFERENCE))[0]
    inference = copy.deepcopy(INFERENCE)
    mapped = {"_target_": "MapLabelValued", "keys": "label"}
    inference["before"]["transforms"] += [mapped, {"_target_": "Spacingd", "keys": ["label"], "pixdim": [9, 9, 9]}]
    assert load_card(written(tmp_path, metadata=MONAI, inference=inference))[0] == wanted


def test_files_without_a_spacing_are_told(tmp_path: Path) -> None:
    inference = copy.deepcopy(INFERENCE)
    del inference["before"]["transforms"][3]
    metadata = MONAI | {"image_classes": "four channels at 1x1x1 mm"}
    card, _, toml = load_card(written(tmp_path, metadata=metadata, inference=inference))
    assert card.spacing_mm == ()
    assert (
        "voxels of any size go in as they are, where the bundle says of its images 'four channels at 1x1x1 mm'" in toml
    )


@pytest.mark.parametrize(
    ("inferer", "said"),
    [
        (
            {"mode": "$BlendMode.GAUSSIAN"},
            r"does not say window\.weights \(mode '\$BlendMode.GAUSSIAN' and overlap 0.6",
        ),
        ({"overlap": "$0.5"}, r"does not say window\.overlap"),
        ({"padding_mode": "replicate"}, "the inferer has padding_mode 'replicate', and segpipe 'constant': CHECK"),
        ({"roi_size": "$@edges"}, None),
        ({"roi_size": None}, r"does not say window\.patch \(the patch is not known: there is no roi_size"),
        ({"roi_size": "$(9, 9)"}, r"does not say window\.patch \(the patch is not known: roi_size is \$\(9, 9\)"),
        (
            {"roi_size": [96, 96, -1]},
            r"does not say window\.patch \(the patch is not known: roi_size is \[96, 96, -1\]",
        ),
    ],
    ids=["weights", "overlap", "padding", "a reference", "no patch", "an expression", "a whole axis"],
)
@pytest.mark.parametrize("shape", [["16*n"] * 3, [48, 48, 48]], ids=["free", "stated"])
def test_options_of_the_inferer(tmp_path: Path, inferer: dict[str, Any], said: str | None, shape: list[Any]) -> None:
    """What an option says that cannot be read is not made up of what stands elsewhere."""
    if inferer == {"roi_size": None} and shape == [48, 48, 48]:
        said = "no roi_size: the network sees a scan at once, and by patches of spatial_shape [48, 48, 48] here: CHECK"
    metadata = copy.deepcopy(MONAI)
    metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = shape
    url = written(tmp_path, metadata=metadata, inference=INFERENCE | {"inferer": INFERENCE["inferer"] | inferer})
    if said is not None and said.startswith("does not"):
        with pytest.raises(ModelError, match=said):
            load_card(url)
    else:
        card, _, toml = load_card(url)
        patch = (48, 48, 48) if inferer == {"roi_size": None} else (96, 96, 64)
        assert (card.patch, card.overlap, card.weights) == (patch, 0.6, "gaussian")
        assert said is None or said in toml


def test_steps_behind_the_network_that_are_not_done_are_told(tmp_path: Path) -> None:
    inference = copy.deepcopy(INFERENCE)
    inference["postprocessing"]["transforms"][1] = {
        "_target_": "AsDiscreted",
        "threshold_values": True,
        "logit_thresh": 0.3,
    }
    inference["postprocessing"]["transforms"].append({"_target_": "KeepLargestConnectedComponentd"})
    card, _, toml = load_card(written(tmp_path, metadata=MONAI, inference=inference))
    assert card.threshold == 0.3
    assert "postprocessing holds KeepLargestConnectedComponentd, which is not done to the masks here: CHECK" in toml


@pytest.mark.parametrize(
    ("port", "changes", "said"),
    [
        ("inputs", {"num_channels": 6}, r"num_channels is 6, and channel_def names 4 \(T1-Gd, T1w, T2w, T2 FLAIR\)"),
        ("outputs", {"num_channels": 4}, "num_channels is 4, and channel_def names 3"),
        ("inputs", {"channel_def": {"0": "image"}, "num_channels": 1}, r"say input\.modalities \(the channel 'image'"),
        ("inputs", {"channel_def": ["MRI", "T1"], "num_channels": 2}, r"say input\.modalities \(the channel 'MRI'"),
    ],
    ids=["more channels", "more answers", "an image", "a kind of scanner"],
)
def test_channels_that_no_name_tells(tmp_path: Path, port: str, changes: dict[str, Any], said: str) -> None:
    metadata = copy.deepcopy(MONAI)
    next(iter(metadata["network_data_format"][port].values())).update(changes)
    with pytest.raises(ModelError, match=said):
        load_card(written(tmp_path, metadata=metadata, inference=INFERENCE))


def test_channels_whose_numbers_have_a_gap(tmp_path: Path) -> None:
    metadata = copy.deepcopy(MONAI)
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": "WT", "1": "TC", "3": "ET"}
    with pytest.raises(ModelError, match="channels are numbered 0, 1, 3, not from 0 on"):
        load_card(written(tmp_path, metadata=metadata, inference=INFERENCE))
    names = {"1": "FLAIR", "2": "T1w", "3": "T1gd", "4": "T2w"}
    with pytest.raises(ModelError, match="channels are numbered 1, 2, 3, 4, not from 0 on"):
        load_card(written(tmp_path, plans=PLANS, dataset=DATASET | {"channel_names": names}))


def test_a_draft_that_somebody_has_completed_is_not_written_over(tmp_path: Path) -> None:
    url, draft = written(tmp_path, metadata=MONAI, inference=INFERENCE), tmp_path / "draft.toml"
    for _ in range(2):
        load_card(url, draft=str(draft))
    mine = draft.read_text().replace("overlap = 0.6", "overlap = 0.7")
    draft.write_text(mine)
    with pytest.raises(ModelError, match=r"draft\.toml is there and says something else: give it as --card"):
        load_card(url, draft=str(draft))
    assert draft.read_text() == mine
    assert load_card(str(draft), draft=str(draft))[0].overlap == 0.7


def test_a_network_of_two_inputs(tmp_path: Path) -> None:
    metadata = copy.deepcopy(MONAI)
    metadata["network_data_format"]["inputs"]["clicks"] = {}
    with pytest.raises(ModelError, match="the network has the inputs image, clicks, and a card has one"):
        load_card(written(tmp_path, metadata=metadata, inference=INFERENCE))


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["WT", "ET", "TC"], ["whole_tumour", "enhancing_tumour", "tumour_core"]),
        (["whole tumor", "necrotic core", "enhancing tumor"], None),
        (["whole tumor", "tumor core", "non-enhancing"], None),
        (["whole tumor", "tumor core", "non-contrast-enhancing tumor"], None),
        (["whole brain", "tumor core", "enhancing tumor"], None),
        (["edema", "necrosis", "inactive tumor"], None),
        (["edema", "unenhanced tumor", "enhancement"], ["oedema", "non-enhancing tumour", "enhancing tumour"]),
        (
            ["enhancing tumor", "necrotic tumor core", "surrounding non-enhancing FLAIR hyperintensity"],
            ["enhancing tumour", "necrotic core", "oedema"],
        ),
    ],
    ids=[
        "in another order",
        "a necrotic core",
        "what does not enhance",
        "without contrast",
        "a whole brain",
        "nothing that enhances",
        "other words",
        "words of BraTS 2023",
    ],
)
def test_what_channels_are_called(tmp_path: Path, names: list[str], wanted: list[str] | None) -> None:
    metadata = copy.deepcopy(MONAI)
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = names
    url = written(tmp_path, metadata=metadata, inference=INFERENCE)
    if wanted is None:
        with pytest.raises(
            ModelError, match=r"output\.convention \(.* are the labels or regions of none of brats, brats2023"
        ):
            load_card(url)
    else:
        assert list(load_card(url)[0].channels) == wanted


def test_an_nnunet_plan_of_labels(tmp_path: Path) -> None:
    card, _, toml = load_card(written(tmp_path, plans=PLANS, dataset=DATASET))
    assert (card.patch, card.orientation, card.spacing_mm) == ((128, 128, 112), "SPL", (1.0, 1.0, 1.0))
    assert (card.crop, card.tiling, card.weights, card.resample_first) == ("non-zero", "even", "nnunet", False)
    assert card.resampling == "nnunet"
    assert card.scalings == (*[Scaling("zscore", "any-non-zero", "zero")] * 3, Scaling("zscore"))
    assert (card.convention, card.activation, card.decision) == ("decathlon", "softmax", None)
    assert card.channels == ("background", "oedema", "non-enhancing tumour", "enhancing tumour")
    assert card.licence == "CC-BY-SA 4.0"
    assert parse_card(tomllib.loads(toml), "again") == card


OWN = "resample_data_or_seg_to_shape"


@pytest.mark.parametrize(
    ("said", "wanted", "told"),
    [
        ({"resampling_fn_data": OWN, "resampling_fn_data_kwargs": {"order": 3, "order_z": 0}}, "nnunet", ""),
        (
            {"resampling_fn_data": OWN, "resampling_fn_data_kwargs": {"order": 1, "force_separate_z": True}},
            *("nnunet", f"{OWN} with order 1, force_separate_z True, and here images are resampled as nnU-Net usually"),
        ),
        ({"resampling_fn_probabilities": "mine"}, "nnunet", "resampling_fn_probabilities is mine, and here"),
        ({"resampling_fn_data": "resample_torch_fornnunet"}, "linear", "resampled linearly along all axes here"),
    ],
    ids=["as usual", "other options", "own code", "torch"],
)
def test_how_an_nnunet_plan_resamples(tmp_path: Path, said: dict[str, Any], wanted: str, told: str) -> None:
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["base"] |= said
    card, _, toml = load_card(written(tmp_path, plans=plans, dataset=DATASET))
    assert card.resampling == wanted
    lines = [line for line in toml.splitlines() if "resampl" in line and line.endswith("CHECK")]
    assert told in "".join(lines)
    assert bool(lines) == bool(told)


def test_an_nnunet_plan_that_resamples_nothing_takes_any_voxels(tmp_path: Path) -> None:
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["base"]["resampling_fn_data"] = "no_resampling_data_or_seg_to_shape"
    assert load_card(written(tmp_path, plans=plans, dataset=DATASET))[0].spacing_mm == ()


TUMOUR = ["whole_tumour", "tumour_core", "enhancing_tumour"]
CONVENTIONS_OF_NNUNET: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "regions of 2021": (
        {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3},
        *("decathlon", TUMOUR),
    ),
    "regions of 2023, inner ones first": (
        {"background": [0], "ET": [3], "TC": [1, 3], "WT": [1, 2, 3], "ignore": 4},
        *("brats2023", TUMOUR[::-1]),
    ),
    "regions of 2024": (
        {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": 3, "RC": 4},
        *("brats2024", [*TUMOUR, "resection_cavity"]),
    ),
    "regions of children": (
        {"background": 0, "whole": [1, 2, 3, 4], "core": [1, 2, 3], "cystic component": [3], "enhancing": [1]},
        *("brats-ped", ["whole_tumour", "tumour_core", "cyst", "enhancing_tumour"]),
    ),
    "labels of 2023": (
        {"background": 0, "NCR": 1, "ED": 2, "ET": 3},
        *("brats2023", ["background", "necrotic core", "oedema", "enhancing tumour"]),
    ),
    "labels of 2024": (
        {"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4},
        *("brats2024", ["background", "non-enhancing tumour core", "oedema", "enhancing tumour", "resection cavity"]),
    ),
    "labels of children": (
        {"background": 0, "ET": 1, "NET": 2, "CC": 3, "ED": 4},
        *("brats-ped", ["background", "enhancing tumour", "non-enhancing tumour core", "cyst", "oedema"]),
    ),
    "labels, and what is not learnt from": (
        {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3, "ignore": 4},
        *("decathlon", ["background", "oedema", "non-enhancing tumour", "enhancing tumour"]),
    ),
    "one label": ({"background": 0, "lesion": 1}, "binary", ["background", "lesion"]),
    "one label in a list": ({"background": 0, "lesion": [1]}, "binary", ["background", "lesion"]),
    "labels in lists and as text": (
        {"background": "0", "NCR": [1], "ED": "2", "ET": [3]},
        *("brats2023", ["background", "necrotic core", "oedema", "enhancing tumour"]),
    ),
}


@pytest.mark.parametrize(
    ("labels", "convention", "channels"), CONVENTIONS_OF_NNUNET.values(), ids=CONVENTIONS_OF_NNUNET.keys()
)
def test_conventions_of_nnunet(tmp_path: Path, labels: dict[str, Any], convention: str, channels: list[str]) -> None:
    card = load_card(written(tmp_path, plans=PLANS, dataset=DATASET | {"labels": labels}))[0]
    assert (card.convention, list(card.channels)) == (convention, channels)
    by_region = any(isinstance(value, list) and len(value) > 1 for value in labels.values())
    assert (card.activation, card.threshold) == (("sigmoid", 0.5) if by_region else ("softmax", None))


@pytest.mark.parametrize("labels", [{"background": 0, "a": 1, "b": [2]}, {"background": 0, "NCR": 1, "ED": 2, "x": 3}])
def test_labels_of_no_convention_are_asked_for(tmp_path: Path, labels: dict[str, Any]) -> None:
    said = r"does not say output\.convention \(background, .* are the labels .*\): run again with --draft"
    with pytest.raises(ModelError, match=said):
        load_card(written(tmp_path, plans=PLANS, dataset=DATASET | {"labels": labels}))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            {"kidney": [1, 2, 3], "masses": [2, 3], "cyst": 3},
            "hold the labels of decathlon, but 'kidney' would be whole_t",
        ),
        ({"ET": [1, 2, 3], "TC": [2, 3], "WT": 3}, "but 'ET' would be whole_tumour, 'WT' would be enhancing_tumour"),
        ({"cord": [1, 2], "lesion": 2}, r"the regions cord \[1, 2\], lesion \[2\] are those of none of brats"),
    ],
    ids=["of an organ", "the wrong way round", "of a cord"],
)
def test_regions_are_not_known_by_their_labels_alone(tmp_path: Path, labels: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_card(written(tmp_path, plans=PLANS, dataset=DATASET | {"labels": {"background": 0} | labels}))


@pytest.mark.parametrize(("order", "told"), [([2, 1, 3], False), ([1, 2, 3], True), (None, False)])
def test_masks_of_nnunet_with_other_numbers_are_told(tmp_path: Path, order: list[int] | None, told: bool) -> None:
    labels = {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": 3}
    dataset = DATASET | {"labels": labels, "regions_class_order": order}
    card, _, toml = load_card(written(tmp_path, plans=PLANS, dataset=dataset))
    assert card.channels == ("whole_tumour", "tumour_core", "enhancing_tumour")
    assert ("regions_class_order is [1, 2, 3], so that nnU-Net's own masks have other numbers" in toml) == told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"image_reader_writer": "NaturalImage2DIO"},
            r"does not say input\.orientation \(NaturalImage2DIO read the images",
        ),
        (
            {"label_manager": "MultiTaskLabelManager"},
            "label_manager is MultiTaskLabelManager, whose code segpipe does not",
        ),
        ({"preprocessor_name": "MyPreprocessor"}, "preprocessor_name is MyPreprocessor"),
        ({"normalization_schemes": ["MyNorm"] * 4}, r"normalisation\.method \(channel 0 is normalised by MyNorm"),
        ({"normalization_schemes": ["CTNormalization"] * 4}, "for which plans.json lacks mean, std and percentiles"),
        (
            {"normalization_schemes": ["NoNormalization"] * 3},
            "normalises 3 channels, and dataset.json beside it names 4",
        ),
    ],
    ids=["pictures", "labels", "preprocessing", "a scaling", "no statistics", "too few"],
)
def test_plans_that_need_other_code(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    plans = copy.deepcopy(PLANS)
    for key, value in changes.items():
        (plans if key in ("image_reader_writer", "label_manager") else plans["configurations"]["base"])[key] = value
    with pytest.raises(ModelError, match=said):
        load_card(written(tmp_path, plans=plans, dataset=DATASET))


def test_ct_of_nnunet_is_clipped_and_scaled_by_the_statistics_of_the_plan(tmp_path: Path) -> None:
    known = {"mean": 100.0, "std": 50.0, "percentile_00_5": -60.0, "percentile_99_5": 300.0}
    plans = copy.deepcopy(PLANS) | {"foreground_intensity_properties_per_channel": {"3": known}}
    plans["configurations"]["base"]["normalization_schemes"][3] = "CTNormalization"
    rule = load_card(written(tmp_path, plans=plans, dataset=DATASET))[0].scalings[3]
    assert rule == Scaling("fixed", low=-60.0, high=300.0, mean=100.0, std=50.0)


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIOWithReorient"])
def test_readers_that_reorient(tmp_path: Path, reader: str) -> None:
    plans = PLANS | {"image_reader_writer": reader, "transpose_forward": [1, 0, 2]}
    card, _, toml = load_card(written(tmp_path, plans=plans, dataset=DATASET))
    assert card.orientation == "ASR"
    assert [line for line in toml.splitlines() if "CHECK" in line] == [SKULL, MIRRORED]


def test_values_of_the_wrong_kind_are_told_and_end_no_job_otherwise(tmp_path: Path) -> None:
    """Each value of each file once replaced by each of some others: a card, or a sentence."""
    for names, files in (
        (("metadata", "inference"), (MONAI, INFERENCE)),
        (("plans", "dataset"), (PLANS, DATASET)),
    ):
        for which, path in [(n, path) for n, file in enumerate(files) for path in places(file)]:
            for value in (None, [], {}, "x", -1, [None], {"0": None}, True):
                broken = list(copy.deepcopy(files))
                target = broken[which]
                for step in path[:-1]:
                    target = target[step]
                target[path[-1]] = value
                url = written(tmp_path, **dict(zip(names, broken, strict=True)))
                with contextlib.suppress(ModelError):
                    load_card(url)


def places(content: Any) -> Iterator[tuple[Any, ...]]:
    """The path to each value of nested JSON."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in places(value))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *(
            (name, "T1ce")
            for name in ("T1-Gd", "T1 post-contrast", "T1-weighted contrast enhanced", "Post_contrast_T1w")
        ),
        *((name, "FLAIR") for name in ("T2-FLAIR", "T2w FLAIR", "T2-weighted FLAIR", "MR FLAIR", "t2f")),
        *((name, "T1") for name in ("T1-weighted", "MRI_T1w", "t1n")),
        *((name, None) for name in ("T1_coronal", "T1_corrected", "T1 postop", "cT1", "T1_cropped", "PD")),
        ("T2 weighted", "T2"),
    ],
)
def test_what_modalities_are_called(name: str, wanted: str | None) -> None:
    assert modality(name) == wanted


def test_a_2d_configuration_of_nnunet(tmp_path: Path) -> None:
    plans = PLANS | {"transpose_forward": [2, 0, 1]}
    card = load_card(written(tmp_path, plans=plans, dataset=DATASET), "2d")[0]
    assert (card.dimensions, card.patch, card.orientation) == (2, (1, 192, 160), "LSP")
    assert card.scan_orientation == "LIP"  # sagittal slices


@pytest.mark.parametrize(
    ("configuration", "said"),
    [("3d_lowres", "no configuration '3d_lowres': choose one of 2d"), ("3d_cascade_fullres", "needs the answer of")],
)
def test_configurations_that_cannot_be_adopted(tmp_path: Path, configuration: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_card(written(tmp_path, plans=PLANS, dataset=DATASET), configuration)


@pytest.mark.parametrize("content", ["[", "[]", "{}", '{"configurations": {}}', '{"network_data_format": {}}'])
def test_json_that_is_no_card(tmp_path: Path, content: str) -> None:
    (tmp_path / "plans.json").write_text(content)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(ModelError):
        load_card(str(tmp_path / "plans.json"))


def how_to() -> dict[str, Any]:
    found = re.search(r"```toml\n(.*?)```", (DOCS / "how-to" / "adopt.md").read_text("utf-8"), re.DOTALL)
    assert found is not None
    return tomllib.loads(found[1])


def test_the_card_of_the_how_to_is_one() -> None:
    card = parse_card(how_to(), "the page")
    assert card.patch == (128, 128, 128)
    shown = {f"{section}.{name}" for section, table in how_to().items() for name in table}
    named = (DOCS / "how-to" / "adopt.md").read_text("utf-8")
    assert all(field.key in shown or f"`{field.name}`" in named or f"{field.name} =" in named for field in FIELDS[:3])


WRONG: dict[str, tuple[str, Any, str]] = {
    "unknown section": ("extra", {}, "section [extra] is unknown"),
    "unknown key": ("input.modality", "T1", "key input.modality is unknown, known are modalities"),
    "type": ("window.overlap", "half", "window.overlap is 'half' but must be a number"),
    "boolean": ("window.overlap", True, "window.overlap is True but must be a number"),
    "choice": ("output.activation", "relu", "must be one of softmax, sigmoid, none"),
    "orientation": ("input.orientation", "RAR", "must be three letters"),
    "patch": ("window.patch", [64, 64], "must be 3 whole numbers"),
    "too large a patch": ("window.patch", [1024, 1024, 1024], "must have at most 67,108,864 voxels"),
    "spacing": ("input.spacing_mm", [1, 0, 1], "must be 3 numbers from 0.1 to 20"),
    "another name": ("input.modalities", ["FLAIR", "T1", "t1c", "T2"], "names 't1c', which the tables call T1ce"),
    "no name": ("input.modalities", ["FLAIR", "T1", "T1ce", "PD\n"], "names 'PD\\n', which no scan can have"),
    "overlap": ("window.overlap", 0.999999, "window.overlap is 0.999999 but must be from 0 to 0.9"),
    "mirror": ("window.mirror", [3], "must be axes of 0, 1, 2"),
    "twice": ("input.modalities", ["T1", "T1"], "names one twice"),
    "channels": ("output.channels", ["background", "tumour"], "the labels enhancing tumour, necrotic core, oedema, or"),
    "no background": ("output.channels", ["necrotic core", "oedema", "enhancing tumour"], "has no `background`"),
    "regions exclude": (
        "output.channels",
        ["background", "whole_tumour", "tumour_core", "enhancing_tumour"],
        "makes classes exclude each other",
    ),
    "scaling": ("normalisation.method", "zcore", "`method` is 'zcore' but must be one of zscore"),
    "percentiles": ("normalisation", {"method": "percentiles", "low": 5}, "needs `low` and `high`"),
    "shares": ("normalisation", {"method": "percentiles", "low": 0.01, "high": 0.99}, "0.01 and 0.99 are shares"),
    "nothing is left": (
        "normalisation",
        {"method": "range", "low": 0, "high": 1, "to_low": 1},
        "`to_low` and `to_high` are both 1",
    ),
    "not read": (
        "normalisation",
        {"method": "zscore", "low": 1, "high": 99, "clip": True},
        "method `zscore` does nothing with `low`, `high`, `clip`",
    ),
    "no method": ("normalisation", {"over": "non-zero"}, "normalisation.method is missing, known are zscore"),
    "too many scalings": ("normalisation", [{"method": "none"}] * 3, "stands 3 times for 4 modalities"),
    "no licence": ("network.licence", "", "network.licence is empty"),
}


@pytest.mark.parametrize(("key", "value", "said"), WRONG.values(), ids=WRONG.keys())
def test_wrong_cards(key: str, value: Any, said: str) -> None:
    content = how_to()
    section, _, name = key.partition(".")
    if name:
        content[section][name] = value
    else:
        content[section] = value
    with pytest.raises(ModelError, match="Card x is wrong: ") as told:
        parse_card(content, "x")
    assert said in str(told.value)


def test_all_faults_of_a_card_at_once() -> None:
    with pytest.raises(ModelError) as told:
        parse_card({"network": {"name": 3}, "window": {"overlap": []}}, "x")
    for field in FIELDS:
        if field.key in ("network.name", "network.licence", "input.modalities", "window.patch", "output.channels"):
            assert field.key in str(told.value)
    assert "[normalisation] is missing" in str(told.value)


@pytest.mark.parametrize("name", ["card.toml", "metadata.json"])
def test_a_configuration_of_what_has_none(tmp_path: Path, name: str) -> None:
    written(tmp_path, metadata=MONAI, inference=INFERENCE)
    (tmp_path / "card.toml").write_text(to_toml(how_to()))
    assert load_card(str(tmp_path / name))[0].dimensions == 3
    with pytest.raises(ModelError, match=rf"{name} has no configuration '2d', because only plans\.json"):
        load_card(str(tmp_path / name), "2d")


def test_a_card_that_was_saved_on_windows(tmp_path: Path) -> None:
    text = to_toml(how_to())
    (tmp_path / "card.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_card(str(tmp_path / "card.toml"))[0] == parse_card(how_to(), "x")


def test_toml_of_odd_texts_is_read_back() -> None:
    content = how_to()
    content["network"]["citation"] = 'A "quoted" \\ name, é, #'
    assert parse_card(tomllib.loads(to_toml(content, ["remark"])), "x") == parse_card(content, "x")
