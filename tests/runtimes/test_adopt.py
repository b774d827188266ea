"""Networks that were trained elsewhere: what their cards say is done, and what does not fit is told, all at once."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from scipy.ndimage import gaussian_filter

from segpipe.core.orientation import reorient
from segpipe.core.prediction import ScanInput, Segmented
from segpipe.errors import BadInput, ModelError, Reason
from segpipe.models.bundle import Bundle, save_files
from segpipe.models.card import parse_card, to_toml
from segpipe.runtimes.adopt import adopt
from segpipe.runtimes.contract import PredictorSpec
from segpipe.runtimes.export import export
from tests.runtimes.models import scan_input
from tests.runtimes.onnx_networks import network

Scan = tuple[list[np.ndarray], ScanInput]
LABELS = ["background", "necrotic core", "oedema", "enhancing tumour"]
REGIONS = ["tumour_core", "whole_tumour", "enhancing_tumour"]  # MONAI's order, which is not ours
SOFT = np.array([[0.3, 0, 0, 0], [0.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
SIGMOID = np.array([[0, 1.0, 0, 0], [1, 0, 0, 0], [0, 0, 1, -0.3]])


def card(**changes: Any) -> dict[str, Any]:
    """A card for `SOFT`; changes are `section__key=value`, None removes the key."""
    content: dict[str, Any] = {
        "network": {"name": "small", "licence": "Apache-2.0", "citation": "nobody 2020"},
        "input": {"modalities": ["T1ce", "T1", "T2", "FLAIR"], "dimensions": 3, "orientation": "RAS"},
        "normalisation": {"method": "zscore", "over": "non-zero", "outside": "zero"},
        "window": {"patch": [16, 16, 8]},
        "output": {"activation": "softmax", "convention": "brats", "channels": LABELS},
    }
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if value is None:
            del content[section][key]
        else:
            content[section][key] = value
    return content


def adopted(path: Path, content: dict[str, Any], folder: str = "m") -> Bundle:
    where = str(path.parent / folder)
    return adopt(str(path), parse_card(content, "card"), content, where, to_toml(content))


def segmented(bundle: Bundle, channels: list[np.ndarray], scan: ScanInput, grouped: int = 3) -> Segmented:
    order = [("FLAIR", "T1", "T1ce", "T2").index(name) for name in bundle.modalities]
    picked = [channels[place] for place in order]
    described = ScanInput(
        scan.shape,
        tuple(scan.mean[place] for place in order),
        tuple(scan.std[place] for place in order),
        tuple(scan.slope[place] for place in order),
        tuple(scan.inter[place] for place in order),
        scan.brain_box,
        scan.spacing_mm,
    )
    slices = len(channels[0])
    parts = [list(range(start, min(start + grouped, slices))) for start in range(0, slices, grouped)]
    packed = pickle.loads(pickle.dumps(PredictorSpec(bundle.url, batch_size=3).pack()))
    return packed.open(2).segment(
        described, [(part, [channel[part] for channel in picked]) for part in reversed(parts)]
    )


def scaled(channels: list[np.ndarray]) -> np.ndarray:
    """The channels in the card's order, each with mean 0 and deviation 1 where it is not 0: (4, S, H, W)."""
    found = []
    for place in (2, 1, 3, 0):
        values = channels[place].astype(np.float64)
        inside = values != 0
        found.append(np.where(inside, (values - values[inside].mean()) / values[inside].std(), 0))
    return np.stack(found)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("mirror", [[], [0, 1]], ids=["one look", "four looks"])
def test_softmax_over_labels(tmp_path: Path, scan: Scan, dimensions: int, mirror: list[int]) -> None:
    path = network(tmp_path / "n.onnx", SOFT, dimensions=dimensions)
    flat = {"input__dimensions": 2, "input__orientation": "SPL", "window__patch": [16, 12]} if dimensions == 2 else {}
    found = segmented(adopted(path, card(window__mirror=mirror, **flat)), *scan)
    logits = np.einsum("kc,cshw->kshw", SOFT, scaled(scan[0]))
    wanted = np.array([0, 1, 2, 4])[logits.argmax(0)]
    assert len(np.unique(wanted)) == 4
    assert (found.labels == wanted).mean() > 0.9999
    powers = np.exp(logits)
    enhancing = (powers[3] / powers.sum(0))[wanted == 4].mean()
    assert found.mean_probability["enhancing_tumour"] == pytest.approx(enhancing, abs=1e-4)


def test_sigmoid_over_regions_in_the_order_of_the_card(tmp_path: Path, scan: Scan) -> None:
    path = network(tmp_path / "n.onnx", SIGMOID)
    content = card(output__activation="sigmoid", output__channels=REGIONS, output__threshold=0.6)
    found = segmented(adopted(path, content), *scan)
    core, whole, enhancing = 1 / (1 + np.exp(-np.einsum("kc,cshw->kshw", SIGMOID, scaled(scan[0]))))
    wanted = np.where(enhancing > 0.6, 4, np.where(core > 0.6, 1, np.where(whole > 0.6, 2, 0)))
    assert len(np.unique(wanted)) == 4
    assert (found.labels == wanted).mean() > 0.9999
    assert found.max_probability["tumour_core"] == pytest.approx(core.max(), abs=1e-5)


def test_sigmoid_over_labels_takes_the_likeliest_label_of_a_region(tmp_path: Path, scan: Scan) -> None:
    path = network(tmp_path / "n.onnx", SIGMOID)
    content = card(output__activation="sigmoid", output__channels=LABELS[1:])
    found = segmented(adopted(path, content), *scan)
    necrotic, oedema, enhancing = 1 / (1 + np.exp(-np.einsum("kc,cshw->kshw", SIGMOID, scaled(scan[0]))))
    core = np.maximum(necrotic, enhancing) > 0.5
    wanted = np.where(enhancing > 0.5, 4, np.where(core, 1, np.where(oedema > 0.5, 2, 0)))
    assert len(np.unique(wanted)) == 4
    assert (found.labels == wanted).mean() > 0.999


def clipped(least: float, **changes: Any) -> dict[str, Any]:
    """A card by which FLAIR from 0 to 100 becomes 0 to 1, and a lesion is where that is above `least`."""
    content = card(**changes)
    content["normalisation"] = {"method": "range", "low": 0, "high": 100, "clip": True}
    content["output"] = {"activation": "sigmoid", "convention": "binary", "channels": ["lesion"]}
    content["output"]["threshold"] = float(1 / (1 + np.exp(-least)))
    return content


def test_stored_values_are_scaled_first(tmp_path: Path) -> None:
    """What is stored means half of it, less 40."""
    path = network(tmp_path / "n.onnx", np.array([[0, 0, 0, 1.0]]))
    channels = [np.arange(4 * 8 * 40, dtype=np.int16).reshape(4, 8, 40) % 400] * 4
    found = segmented(adopted(path, clipped(0.601)), channels, scan_input(channels, 0.5, -40.0))
    np.testing.assert_array_equal(found.labels, channels[0] * 0.5 - 40 > 60.1)


@pytest.mark.parametrize("resample_first", [True, False])
def test_resampled_before_it_is_scaled_or_after(tmp_path: Path, resample_first: bool) -> None:
    """Every other voxel is far above the range: the mean of two is so too, but that of what is clipped is 0.5."""
    path = network(tmp_path / "n.onnx", np.array([[0, 0, 0, 1.0]]))
    content = clipped(0.75, input__spacing_mm=[2.0, 1.0, 1.0], input__resample_first=resample_first)
    channels = [np.broadcast_to(np.array([0, 1000] * 8, np.int16), (4, 8, 16)).copy()] * 4
    spaced = replace(scan_input(channels), spacing_mm=(1.0, 1.0, 1.0))
    found = segmented(adopted(path, content), channels, spaced)
    assert (found.labels == int(resample_first)).all()


@pytest.mark.parametrize(("resampling", "between"), [("linear", 0), ("nnunet", 0), ("monai", 1)])
def test_probabilities_come_back_where_monai_resamples_and_answers_elsewhere(
    tmp_path: Path, resampling: str, between: int
) -> None:
    """Between -20 and 10 lies -5, which is no lesion; between 0 and 1 lies 0.5, which is one."""
    path = network(tmp_path / "n.onnx", np.array([[0, 0, 0, 1.0]]))
    content = clipped(-1.0, input__spacing_mm=[1.0, 1.0, 2.0], input__resampling=resampling)
    content["normalisation"] = {"method": "none"}
    slices = np.repeat([-20, 10, -20], 2) if resampling != "monai" else [-20, 0, 10, 0, -20]
    channels = [np.broadcast_to(np.array(slices, np.int16)[:, None, None], (len(slices), 8, 16)).copy()] * 4
    found = segmented(adopted(path, content), channels, replace(scan_input(channels), spacing_mm=(1.0, 1.0, 1.0)))
    assert found.labels[:, 4, 8].tolist() == (
        [0, between, 1, between, 0] if resampling == "monai" else [0, 0, 1, 1, 0, 0]
    )


@pytest.mark.parametrize("single", [False, True])
def test_slices_go_through_together_where_the_network_lets_them(tmp_path: Path, scan: Scan, single: bool) -> None:
    flat = {"input__dimensions": 2, "input__orientation": "SPL", "window__patch": [16, 12]}
    path = network(tmp_path / "n.onnx", SOFT, dimensions=2, patch=(16, 12), one_at_a_time=single)
    bundle = adopted(path, card(**flat))
    assert bundle.adopted["batch"] == int(single)
    wanted = np.array([0, 1, 2, 4])[np.einsum("kc,cshw->kshw", SOFT, scaled(scan[0])).argmax(0)]
    assert (segmented(bundle, *scan).labels == wanted).mean() > 0.9999


def test_probabilities_that_come_ready(tmp_path: Path, scan: Scan) -> None:
    raw = network(tmp_path / "raw.onnx", SOFT)
    ready = network(tmp_path / "ready.onnx", SOFT, activation="Softmax")
    first = segmented(adopted(raw, card(), "a"), *scan)
    second = segmented(adopted(ready, card(output__activation="none"), "b"), *scan)
    assert (first.labels == second.labels).mean() > 0.9999
    assert second.mean_probability == pytest.approx(first.mean_probability, abs=1e-4)


def of_monai(length: int, edge: int, overlap: float) -> list[int]:
    step = int(edge * (1 - overlap))
    return [min(start, length - edge) for start in range(0, length - edge + step, step)]


def of_nnunet(length: int, edge: int, overlap: float) -> list[int]:
    steps = int(np.ceil((length - edge) / (edge * (1 - overlap))))
    return [int(np.round(number * (length - edge) / steps)) for number in range(steps + 1)]


@pytest.mark.parametrize(
    ("tiling", "weights", "starts"),
    [("stepped", "constant", of_monai), ("stepped", "gaussian", of_monai), ("even", "nnunet", of_nnunet)],
)
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.6])
@pytest.mark.parametrize("patch", [(17, 11, 7), (4, 6, 4)], ids=["odd", "even"])
def test_windows_lie_where_their_tools_put_them(
    tmp_path: Path, scan: Scan, tiling: str, weights: str, starts: Any, overlap: float, patch: tuple[int, ...]
) -> None:
    """A network that says of each voxel where it lies in the window; windows blended by hand."""
    shape = (52, 44, 10)
    added = np.random.default_rng(3).normal(size=(4, *patch))
    counted = np.ones(patch)
    if weights == "nnunet":
        counted = np.zeros(patch)
        counted[tuple(edge // 2 for edge in patch)] = 1
        counted = gaussian_filter(counted, [edge / 8 for edge in patch], mode="constant")
    elif weights == "gaussian":
        for axis, edge in enumerate(patch):
            line = np.exp(-0.5 * ((np.arange(edge) - (edge - 1) / 2) / (edge / 8)) ** 2)
            counted = counted * line.reshape([-1 if axis == place else 1 for place in range(3)])
        counted = np.maximum(counted, 1e-3)
    logits, total = np.zeros((4, *shape)), np.zeros(shape)
    for first in product(*(starts(length, edge, overlap) for length, edge in zip(shape, patch, strict=True))):
        window = tuple(slice(start, start + edge) for start, edge in zip(first, patch, strict=True))
        logits[(slice(None), *window)] += added * counted
        total[window] += counted
    wanted = np.array([0, 1, 2, 4])[(logits / total).argmax(0)]
    path = network(tmp_path / "n.onnx", np.zeros((4, 4)), patch=patch, added=added)
    window = {"patch": list(patch), "overlap": overlap, "tiling": tiling, "weights": weights}
    found = segmented(adopted(path, card() | {"window": window}), *scan)
    assert (reorient(found.labels, "SPL", "RAS") == wanted).mean() > 0.999


def test_instance_normalisation_over_one_window(tmp_path: Path, scan: Scan) -> None:
    shape = [52, 44, 10]
    path = network(tmp_path / "n.onnx", SOFT, normalised=True, pooled=1)
    found = segmented(adopted(path, card(window__patch=shape)), *scan)
    logits = np.einsum("kc,cshw->kshw", SOFT, scaled(scan[0]))
    logits -= logits.mean((1, 2, 3), keepdims=True)
    logits /= logits.std((1, 2, 3), keepdims=True) + 1e-9
    inside = np.any([channel != 0 for channel in scan[0]], axis=0)  # elsewhere all are equal
    wanted = np.array([0, 1, 2, 4])[logits.argmax(0)]
    assert (found.labels == wanted)[inside].mean() > 0.999


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "PIL"])
def test_the_network_sees_the_patient_the_way_its_card_says(tmp_path: Path, scan: Scan, orientation: str) -> None:
    """A network that calls everything oedema in the first quarter of its first axis."""
    length = {"R": 52, "L": 52, "A": 44, "P": 44, "S": 10, "I": 10}
    patch = tuple(length[code] for code in orientation)
    added = np.zeros((4, *patch))
    added[2, : patch[0] // 4] = 1
    path = network(tmp_path / "n.onnx", np.zeros((4, 4)), patch=patch, added=added)
    found = segmented(adopted(path, card(input__orientation=orientation, window__patch=list(patch))), *scan)
    turned = reorient(found.labels, "SPL", orientation)
    assert (turned[: patch[0] // 4] == 2).all()
    assert not turned[patch[0] // 4 :].any()


def test_another_voxel_size_is_resampled_and_the_mask_brought_back(tmp_path: Path, scan: Scan) -> None:
    """The patch is fixed to the coarse grid, and half of the grid is oedema: that half must be the scan's."""
    patch = (26, 11, 10)
    added = np.zeros((4, *patch))
    added[2, 13:] = 1
    path = network(tmp_path / "n.onnx", np.zeros((4, 4)), patch=patch, added=added)
    channels, described = scan
    spaced = ScanInput(**{**vars(described), "spacing_mm": (3.0, 1.0, 1.0)})
    content = card(window__patch=list(patch), input__spacing_mm=[2.0, 4.0, 3.0])
    found = segmented(adopted(path, content), channels, spaced)
    right = reorient(found.labels, "SPL", "RAS")
    assert (right[27:] == 2).all()
    assert not right[:25].any()


def test_the_crop_leaves_the_rest_alone(tmp_path: Path, scan: Scan) -> None:
    path = network(tmp_path / "n.onnx", np.zeros((4, 4)), added=np.array([0, 0, 2, 0]).reshape(4, 1, 1, 1))
    channels = [np.pad(channel, ((2, 1), (3, 4), (5, 0))) for channel in scan[0]]
    used = np.argwhere(np.any([channel != 0 for channel in channels], axis=0))
    box = tuple(slice(first, last + 1) for first, last in zip(used.min(0), used.max(0), strict=True))
    for crop in ("non-zero", "brain"):
        found = segmented(adopted(path, card(input__crop=crop), crop), channels, scan_input(channels))
        assert (found.labels[box] == 2).all()
        assert (found.labels == 2).sum() == found.labels[box].size
    smaller = replace(scan_input(channels), brain_box=(2, 4, 10, 20, 12, 30))
    found = segmented(Bundle.load(str(tmp_path / "brain")), channels, smaller)
    assert (found.labels[2:4, 10:20, 12:30] == 2).all()
    assert (found.labels == 2).sum() == 2 * 10 * 18


def test_a_scan_of_nothing_is_background(tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", SOFT)
    channels = [np.zeros((4, 16, 16), np.int16)] * 4
    empty = ScanInput((4, 16, 16), (np.nan,) * 4, (np.nan,) * 4, (1.0,) * 4, (0.0,) * 4, (0, 0, 0, 0, 0, 0))
    for crop in ("whole", "non-zero", "brain"):
        found = segmented(adopted(path, card(input__crop=crop), crop), channels, empty)
        assert not found.labels.any()


def test_an_answer_that_is_no_number_is_no_mask(tmp_path: Path, scan: Scan) -> None:
    """All goes well with noise and with most scans; one bright voxel makes the network overflow."""
    bundle = adopted(network(tmp_path / "n.onnx", 10 * SOFT, activation="Exp"), card())
    assert segmented(bundle, *scan).labels.any()
    bright = [channel.copy() for channel in scan[0]]
    for channel in bright:
        channel[tuple(side // 2 for side in channel.shape)] = 30_000
    with pytest.raises(BadInput, match="The network's answer for this scan is not a number") as told:
        segmented(bundle, bright, scan[1])
    assert told.value.reason == Reason.DOES_NOT_FIT_MODEL


FAULTS = {
    "channels": (network, {}, {"input__modalities": ["T1", "T2"]}, "its input has 4 channels, the card names 2"),
    "rank": (network, {"dimensions": 2}, {}, "has 4 axes"),
    "fixed patch": (
        network,
        {"patch": (8, 8, 8)},
        {},
        "fixed to patches of 8 x 8 x 8, `window.patch` says 16 x 16 x 8",
    ),
    "divisibility": (network, {"pooled": 3}, {"window__patch": [16, 12, 8]}, "multiples of 8, such as 16 x 16 x 8"),
    "classes": (
        network,
        {},
        {"output__activation": "sigmoid", "output__channels": REGIONS},
        "its output has 4 channels, the card names 3",
    ),
    "activation twice": (network, {"activation": "Softmax"}, {}, "it ends in Softmax"),
    "activation twice, behind a cast": (network, {"activation": "Softmax", "cast": True}, {}, "probabilities already"),
    "activation twice, regions": (
        network,
        {"weights": SIGMOID, "activation": "Sigmoid", "cast": True},
        {"output__activation": "sigmoid", "output__channels": REGIONS},
        "probabilities already: `output.activation` is none, not sigmoid",
    ),
    "channels last": (network, {"channels_last": True}, {}, "has its channels last [?,?,?,?,4]"),
    "no activation": (network, {}, {"output__activation": "none"}, "is not a probability"),
    "zeros": (network, {"activation": "Reciprocal"}, {}, "its output for a patch of zeros is not finite"),
    "input of whole numbers": (network, {"whole_numbers": True}, {}, "its input is of u8"),
    "output of whole numbers": (network, {"activation": "Size"}, {}, "its output is of i64, labels perhaps"),
    "rank of output": (network, {"activation": "Flatten"}, {}, "its output has 2 axes"),
    "chance": (network, {"activation": "RandomNormalLike"}, {}, "answers otherwise when it sees the same patch again"),
    "output": (network, {}, {"output__name": "seg"}, "let `output.name` of the card say which one, not 'seg'"),
}


@pytest.mark.parametrize(("make", "made", "changes", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_card_that_does_not_fit_the_network(tmp_path: Path, make: Any, made: Any, changes: Any, said: str) -> None:
    path = make(tmp_path / "n.onnx", **{"weights": SOFT, **made})
    with pytest.raises(ModelError, match=r"n\.onnx and its card differ") as told:
        adopted(path, card(**changes))
    assert said in str(told.value)
    assert not (tmp_path / "m").exists()


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", SOFT[:3], patch=(8, 8, 8))
    with pytest.raises(ModelError) as told:
        adopted(path, card(input__modalities=["T1", "T2"]))
    for said in ("4 channels", "fixed to patches of 8 x 8 x 8", "its output has 3 channels"):
        assert said in str(told.value)


def test_custom_operators_are_refused_by_name(tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", SOFT, operator=("com.example", "RunMe"))
    with pytest.raises(ModelError, match=r"not part of ONNX: com\.example\.RunMe"):
        adopted(path, card())


def test_an_ir_is_adopted_and_its_custom_operators_are_refused(tmp_path: Path, scan: Scan) -> None:
    bundle = adopted(network(tmp_path / "n.onnx", SOFT), card())
    ir = tmp_path / "m" / "openvino" / "model.xml"
    again = adopted(ir, card(), "again")
    assert (segmented(again, *scan).labels == segmented(bundle, *scan).labels).all()
    spoilt = tmp_path / "spoilt.xml"
    spoilt.write_text(ir.read_text().replace('version="opset1"', 'version="extension"', 1))
    (tmp_path / "spoilt.bin").write_bytes(ir.with_suffix(".bin").read_bytes())
    with pytest.raises(ModelError, match=r"not part of OpenVINO: extension\."):
        adopted(spoilt, card())


def test_weights_in_a_file_beside_it(tmp_path: Path, scan: Scan) -> None:
    whole = adopted(network(tmp_path / "whole.onnx", SOFT), card(), "whole")
    split = adopted(network(tmp_path / "split.onnx", SOFT, external="weights.bin"), card(), "split")
    assert (segmented(whole, *scan).labels == segmented(split, *scan).labels).all()


def test_weights_that_were_left_behind_are_named(tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", SOFT, external="weights.bin")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights\.bin is missing: copy it from where .*n\.onnx came from"):
        adopted(path, card())


@pytest.mark.parametrize(("opset", "version", "said"), [(99, 9, "opset 99"), (18, 99, "format version 99")])
def test_an_onnx_that_is_too_new_to_be_known_is_refused(tmp_path: Path, opset: int, version: int, said: str) -> None:
    path = network(tmp_path / "n.onnx", SOFT)
    model = onnx.load(path)
    model.opset_import[0].version, model.ir_version = opset, version
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=f"is of ONNX {said}, and .* is the newest that is known: export it again"):
        adopted(path, card())


def test_why_a_network_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Weights of 16 bits behind an input of 32."""
    path = network(tmp_path / "n.onnx", SOFT)
    model = onnx.load(path)
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0]).astype(np.float16)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"cannot be read by OpenVINO \(Element types .* do not match"):
        adopted(path, card())


@pytest.mark.parametrize("name", ["../weights.bin", "/etc/hostname", "sub/../../weights.bin", "link.bin", "C:\\w"])
def test_weights_outside_of_its_folder_are_not_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(SOFT.astype(np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    path = network(folder / "n.onnx", SOFT, external=name)
    with pytest.raises(ModelError, match="names weights outside of its folder"):
        adopted(path, card())


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x09" * 50])
def test_files_that_are_no_network(tmp_path: Path, content: bytes) -> None:
    for name in ("n.onnx", "n.xml"):
        (tmp_path / name).write_bytes(content)
        (tmp_path / "n.bin").write_bytes(b"")
        with pytest.raises(ModelError, match=name):
            adopted(tmp_path / name, card())


def test_the_bundle_says_what_it_is(tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", SOFT)
    bundle = adopted(path, card())
    loaded = Bundle.load(bundle.url).verify()
    assert loaded == bundle
    assert (loaded.origin, loaded.modalities) == ("adopted", ("T1ce", "T1", "T2", "FLAIR"))
    assert loaded.adopted["card"]["network"]["licence"] == "Apache-2.0"
    assert adopted(path, card()).model_id == bundle.model_id
    assert loaded.space == "as ingested"
    assert adopted(path, card(input__space="SRI24"), "noted").space == "as ingested"
    assert adopted(path, card(input__space="brain-1mm"), "prepared").space == "brain-1mm"
    other = copy.deepcopy(card())
    other["normalisation"]["over"] = "all"
    assert adopted(path, other).model_id != bundle.model_id


def test_what_needs_keras_refuses_it(tmp_path: Path) -> None:
    bundle = adopted(network(tmp_path / "n.onnx", SOFT), card())
    with pytest.raises(ModelError, match="adopted network 'small', which has no Keras weights to convert"):
        export(bundle.url)
    with pytest.raises(ModelError, match="no Keras weights to run in Keras"):
        PredictorSpec(bundle.url, "keras").pack()


def test_a_trained_model_is_not_overwritten(tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", SOFT)
    before = save_files(replace(adopted(path, card()), origin="trained", adopted={}), {"weights.npz": b"weights"})
    with pytest.raises(ModelError, match="was trained here and would be lost"):
        adopted(path, card())
    assert Bundle.load(before.url).verify() == before
