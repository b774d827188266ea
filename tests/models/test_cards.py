"""Cards: what is wrong is told all at once, and what other tools say becomes one."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import tomllib

from segpipe.core.input_scale import Scaling
from segpipe.errors import ModelError
from segpipe.models.card import FIELDS, Card, parse_card, to_toml
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


def written(folder: Path, **files: Any) -> str:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return str(folder / f"{next(iter(files))}.json")


def test_a_monai_bundle(tmp_path: Path) -> None:
    card, _, toml = load_card(written(tmp_path, metadata=MONAI, inference=INFERENCE))
    assert card == Card(
        name="Generated bundle",
        licence="nobody",
        citation="Someone 2020; Someone else 2021",
        source="",
        modalities=("T1ce", "T1", "T2", "FLAIR"),
        dimensions=3,
        orientation="RAS",
        spacing_mm=(1.0, 1.0, 2.0),
        space="",
        crop="whole",
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
    assert "CHECK" not in toml


def test_what_a_monai_bundle_leaves_open_is_asked(tmp_path: Path) -> None:
    url = written(tmp_path, metadata=MONAI)
    draft = tmp_path / "draft.toml"
    with pytest.raises(ModelError, match=r"does not say window\.patch, output\.activation: complete .*draft\.toml"):
        load_card(url, draft=str(draft))
    text = draft.read_text()
    assert "saw files as they are; BraTS's own are LPS: CHECK" in text
    text = re.sub(r"# patch = .*", "patch = [16, 16, 16]", text)
    draft.write_text(re.sub(r"# activation = .*", 'activation = "sigmoid"', text))
    assert load_card(str(draft))[0].patch == (16, 16, 16)


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
            {"_target_": "NormalizeIntensityd", "divisor": 2, "nonzero": True, "channel_wise": True},
            Scaling("fixed", "non-zero", "zero", std=2),
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
    inference = changed(spacing__pixdim=[1.0, 1.0]) | {"inferer": inferer}
    card, _, toml = load_card(written(tmp_path, metadata=metadata, inference=inference))
    assert (card.dimensions, card.orientation, card.patch) == (2, orientation, (1, 96, 64))
    assert ("CHECK the first letter of input.orientation" in toml) == asked


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
        ({"_target_": "CropForegroundd", "margin": 4}, "CropForeground is not the box of what is not 0 in the files"),
        (
            {"_target_": "NormalizeIntensityd", "channel_wise": True, "divisor": "$2 + 2"},
            "such as divisor of Normalize",
        ),
        ({"_target_": "Resized", "spatial_size": [96, 96, 96]}, "preprocessing holds Resize"),
    ],
    ids=["a margin", "an expression", "another grid"],
)
def test_what_a_card_cannot_say_is_to_be_checked(tmp_path: Path, transform: dict[str, Any], said: str) -> None:
    inference = copy.deepcopy(INFERENCE)
    inference["before"]["transforms"].insert(1, transform)
    toml = load_card(written(tmp_path, metadata=MONAI, inference=inference))[2]
    assert [line for line in toml.splitlines() if said in line and "CHECK" in line]


def test_an_nnunet_plan_of_labels(tmp_path: Path) -> None:
    card, _, toml = load_card(written(tmp_path, plans=PLANS, dataset=DATASET))
    assert (card.patch, card.orientation, card.spacing_mm) == ((128, 128, 112), "SPL", (1.0, 1.0, 1.0))
    assert (card.crop, card.tiling, card.weights, card.resample_first) == ("non-zero", "even", "nnunet", False)
    assert card.scalings == (*[Scaling("zscore", "any-non-zero", "zero")] * 3, Scaling("zscore"))
    assert (card.convention, card.activation, card.decision) == ("decathlon", "softmax", None)
    assert card.channels == ("background", "oedema", "non-enhancing tumour", "enhancing tumour")
    assert card.licence == "CC-BY-SA 4.0"
    assert parse_card(tomllib.loads(toml), "again") == card


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
}


@pytest.mark.parametrize(
    ("labels", "convention", "channels"), CONVENTIONS_OF_NNUNET.values(), ids=CONVENTIONS_OF_NNUNET.keys()
)
def test_conventions_of_nnunet(tmp_path: Path, labels: dict[str, Any], convention: str, channels: list[str]) -> None:
    card = load_card(written(tmp_path, plans=PLANS, dataset=DATASET | {"labels": labels}))[0]
    assert (card.convention, list(card.channels)) == (convention, channels)
    by_region = any(isinstance(value, list) and value != [0] for value in labels.values())
    assert (card.activation, card.threshold) == (("sigmoid", 0.5) if by_region else ("softmax", None))


@pytest.mark.parametrize("labels", [{"background": 0, "a": 1, "b": [2]}, {"background": 0, "NCR": 1, "ED": 2, "x": 3}])
def test_labels_of_no_convention_are_asked_for(tmp_path: Path, labels: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"does not say output\.convention: run again with --draft"):
        load_card(written(tmp_path, plans=PLANS, dataset=DATASET | {"labels": labels}))


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
