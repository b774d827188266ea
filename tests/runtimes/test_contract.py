"""One suite for every runtime: its masks are those of Keras, whatever the network, the scan and the batches."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.core.intensity import normalise
from segpipe.core.neighbours import around
from segpipe.core.prediction import ScanInput, Segmented
from segpipe.core.regions import CONVENTIONS, to_labels, to_regions
from segpipe.errors import BadInput, ModelError, UsageError
from segpipe.models.bundle import Bundle, load_keras
from segpipe.runtimes.contract import RUNTIMES, PredictorSpec
from segpipe.runtimes.export import export
from segpipe.runtimes.export.convert import convert
from segpipe.runtimes.export.decisions import prober
from segpipe.runtimes.openvino import on_ir
from segpipe.runtimes.windows import Windows
from tests.runtimes.models import scan_input, tiny_bundle

Make = Callable[..., Bundle]
Scan = tuple[list[np.ndarray], ScanInput]

NETWORKS = {
    "trained": {"trained_steps": 60, "normalisation": "instance"},
    "batch-normalised": {"normalisation": "batch"},
    "instance-normalised": {"normalisation": "instance"},
    "group-normalised": {"normalisation": "group", "filters": 8},
    "resized": {"upsampling": "resized"},
    "mirrored": {"trained_steps": 60, "normalisation": "instance", "mirror": True},
    "of-three": {"trained_steps": 60, "normalisation": "instance", "quality": "best"},
    "with-neighbours": {"normalisation": "instance", "neighbours": 2},
    "small-crop": {"crop": (8, 8)},
    "crop-beyond-the-slice": {"crop": (64, 64)},
}


def batches(channels: list[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    for start in range(0, len(channels[0]), size):
        stop = min(start + size, len(channels[0]))
        yield np.arange(start, stop), [channel[start:stop] for channel in channels]


def predict(bundle: Bundle, scan: Scan, runtime: str, batch_size: int = 4, grouped: int = 3) -> Segmented:
    spec = PredictorSpec(bundle.url, runtime, batch_size, precision="float32")
    return spec.open(threads=1).segment(scan[1], batches(scan[0], grouped))


def by_hand(bundle: Bundle, channels: list[np.ndarray], scan: ScanInput) -> tuple[np.ndarray, np.ndarray]:
    """Labels (S, H, W) and probabilities (S, H, W, R) from `Model.predict` on the normalised window of each slice."""
    box, model = scan.brain_box, load_keras(bundle)
    windows = Windows.around(box[2:], scan.shape[1:], bundle.crop, bundle.multiple)
    probability = np.zeros((*scan.shape, len(bundle.regions)), np.float32)
    for index in range(box[0], box[1]):
        planes = [channel[index] for channel in channels]
        seen = windows.of(planes)
        images = []
        for shown in around(index, bundle.neighbours, scan.shape[0]):
            image = np.zeros((*seen.size, len(channels))) + np.array(scan.inter)
            stored = np.stack([channel[shown] for channel in channels], axis=-1)
            image[seen.there] = (stored * np.array(scan.slope) + np.array(scan.inter))[seen.here]
            images.append(normalise(image, np.array(scan.mean), np.array(scan.std)))
        answer = model.predict(np.concatenate(images, axis=-1)[None], verbose=0)[0]
        probability[index][seen.here] = answer[seen.there]
    return to_labels(probability > 0.5, CONVENTIONS[bundle.label_convention]), probability


@pytest.fixture(scope="module")
def expected(exported: Make, scan: Scan) -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    """What Keras says of the scan by one of NETWORKS, which all runtimes are compared with."""
    return functools.cache(lambda network: by_hand(exported(**NETWORKS[network]), *scan))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("network", NETWORKS)
def test_masks_are_those_of_keras(
    exported: Make, scan: Scan, expected: Callable[[str], tuple[np.ndarray, np.ndarray]], runtime: str, network: str
) -> None:
    bundle = exported(**NETWORKS[network])
    labels, probability = expected(network)
    found = predict(bundle, scan, runtime)
    assert 0 < (labels > 0).mean() < 1, "a mask of one label shows nothing"
    assert (found.labels == labels).mean() >= 0.999
    inside = to_regions(labels, CONVENTIONS["brats"]).astype(bool)
    for place, region in enumerate(bundle.regions):
        assert found.max_probability[region] == pytest.approx(probability[..., place].max(), abs=1e-3)
        if inside[..., place].any():
            mean = probability[..., place][inside[..., place]].mean()
            assert found.mean_probability[region] == pytest.approx(mean, abs=1e-2)


@pytest.mark.parametrize("network", [{}, {"dimensions": 3, "crop": (8, 32, 32)}], ids=["2D", "3D"])
def test_each_region_has_a_threshold_of_its_own(tmp_path: Path, scan: Scan, network: dict[str, Any]) -> None:
    """In Keras and in OpenVINO; what is in an inner region is in the outer ones, however these are cut."""
    trained = tiny_bundle(str(tmp_path / "m"), normalisation="instance", **network)
    ir = convert(load_keras(trained), trained)
    box, probability = prober(ir, trained, 1, "float32", 4).probability(scan[1], batches(scan[0], 3))
    whole, _, enhancing = np.median(probability.reshape(-1, 3), axis=0).tolist()
    bundle = trained.with_files(thresholds={"whole_tumour": whole, "enhancing_tumour": enhancing})
    assert bundle.cut == (whole, 0.5, enhancing)
    ours = predict(bundle, scan, "keras")
    ir = convert(load_keras(bundle), bundle)
    told = on_ir(ir, bundle, 1, "float32", 4).segment(scan[1], batches(scan[0], 3))
    assert (told.labels == ours.labels).mean() >= 0.999
    cut = to_labels(probability > np.array(bundle.cut, np.float32), CONVENTIONS["brats"])
    assert (ours.labels[box] == cut).mean() >= 0.999
    one = to_labels(probability > 0.5, CONVENTIONS["brats"])
    assert (one != cut).mean() > 0.01, "thresholds that change nothing show nothing"
    alone = (probability[..., 2] > enhancing) & (probability[..., 0] <= whole)
    assert alone.any()
    assert to_regions(ours.labels, CONVENTIONS["brats"])[box][alone].mean() >= 0.999


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("neighbours", [0, 2])
def test_batches_change_nothing(exported: Make, scan: Scan, runtime: str, neighbours: int) -> None:
    bundle = exported(neighbours=neighbours)
    alone = predict(bundle, scan, runtime, batch_size=1, grouped=1)
    for batch_size, grouped in ((3, 10), (16, 4)):
        together = predict(bundle, scan, runtime, batch_size, grouped)
        assert (together.labels == alone.labels).mean() >= 0.9999
        assert together.max_probability == pytest.approx(alone.max_probability, abs=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_answer_that_is_no_number_is_no_mask(exported: Make, scan: Scan, runtime: str) -> None:
    """Intensities that no float32 holds once they are normalised: what comes of them is below every threshold."""
    beyond = replace(scan[1], std=(1e-38,) * len(scan[0]))
    with pytest.raises(BadInput, match="The network's answer for this scan is not a number"):
        predict(exported(), (scan[0], beyond), runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("dtype", "slope", "inter"), [("uint8", 3.0, -40.0), ("float32", 0.5, 7.0), (">u2", 1.0, 0.0)])
def test_stored_values_of_any_dtype(
    exported: Make, scan: Scan, runtime: str, dtype: str, slope: float, inter: float
) -> None:
    channels = [(channel.astype(float) * 250 / channel.max()).astype(dtype) for channel in scan[0]]
    described = scan_input(channels, slope, inter)
    bundle = exported()
    labels, _ = by_hand_stored_zeros(bundle, channels, described)
    assert (predict(bundle, (channels, described), runtime).labels == labels).mean() >= 0.999


def by_hand_stored_zeros(
    bundle: Bundle, channels: list[np.ndarray], described: ScanInput
) -> tuple[np.ndarray, np.ndarray]:
    return by_hand(bundle, [channel.astype(np.float64) for channel in channels], described)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_voxels_that_are_not_finite_count_as_the_mean(exported: Make, scan: Scan, runtime: str) -> None:
    channels = [channel.astype(np.float32) for channel in scan[0]]
    channels[1][4, 20:24, 25] = np.nan
    channels[2][5, 20, 20:30] = np.inf
    described = scan_input(channels)
    bundle = exported()
    labels, _ = by_hand(bundle, channels, described)
    assert (predict(bundle, (channels, described), runtime).labels == labels).mean() >= 0.999


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_slices_without_brain_are_background(exported: Make, scan: Scan, runtime: str) -> None:
    channels, described = scan
    padded = [np.pad(channel, ((3, 2), (0, 0), (0, 0))) for channel in channels]
    found = predict(exported(), (padded, scan_input(padded)), runtime)
    assert not found.labels[:3].any()
    assert not found.labels[-2:].any()
    assert (found.labels[3:-2] == predict(exported(), (channels, described), runtime).labels).mean() >= 0.9999


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_slices_without_brain_need_not_come(exported: Make, scan: Scan, runtime: str) -> None:
    """Tables and archives leave them out. A neighbour that is one of them is blank, as it is in training."""
    channels = [np.pad(channel, ((3, 2), (0, 0), (0, 0))) for channel in scan[0]]
    for channel in channels:
        channel[7] = 0
    described = scan_input(channels)
    some = np.setdiff1d(np.arange(len(channels[0])), [0, 1, 2, 7, 13, 14])
    bundle = exported(normalisation="instance", neighbours=2)
    predictor = PredictorSpec(bundle.url, runtime, 4, precision="float32").open(threads=1)
    found = predictor.segment(described, [(some, [channel[some] for channel in channels])])
    wanted = predict(bundle, (channels, described), runtime).labels
    assert not found.labels[7].any()
    assert (found.labels[some] == wanted[some]).all()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_empty_answer_has_no_mean_probability(exported: Make, scan: Scan, runtime: str) -> None:
    found = predict(exported(bias=-50.0), scan, runtime)
    assert not found.labels.any()
    assert set(found.mean_probability.values()) == {None}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_one_region(exported: Make, scan: Scan, runtime: str) -> None:
    bundle = exported(convention="binary", modalities=("T2",))
    channels = scan[0][3:]
    described = scan_input(channels)
    labels, _ = by_hand(bundle, channels, described)
    found = predict(bundle, (channels, described), runtime)
    assert set(np.unique(found.labels)) == {0, 1}
    assert (found.labels == labels).mean() >= 0.999


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_packed_predictor_needs_no_file(tmp_path: Path, exported: Make, scan: Scan, runtime: str) -> None:
    import shutil

    bundle = exported()
    copy = tmp_path / "copy"
    shutil.copytree(bundle.url, copy)
    packed = PredictorSpec(str(copy), runtime, 4, "float32").pack()
    shutil.rmtree(copy)
    travelled = pickle.loads(pickle.dumps(packed))
    found = travelled.open(1).segment(scan[1], batches(scan[0], 5))
    assert (found.labels == predict(bundle, scan, runtime).labels).all()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_damaged_file_is_refused(tmp_path: Path, runtime: str) -> None:
    bundle = export(tiny_bundle(str(tmp_path / "m")).url)
    name = {"openvino": "openvino/model.bin", "keras": "weights.npz"}[runtime]
    file = tmp_path / "m" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match=f"damaged: {name}"):
        PredictorSpec(bundle.url, runtime).pack()


def test_bfloat16_is_close(exported: Make, scan: Scan) -> None:
    """A trained network is sure of nearly every voxel, so that bfloat16 moves few of them."""
    bundle = exported(**NETWORKS["trained"])
    fast = PredictorSpec(bundle.url, "openvino", 4, "bfloat16").open(1).segment(scan[1], batches(scan[0], 5))
    assert (fast.labels == predict(bundle, scan, "openvino").labels).mean() >= 0.99


def test_bfloat16_networks_are_exported(exported: Make, scan: Scan) -> None:
    bundle = exported(**NETWORKS["trained"], precision="bfloat16")
    labels, _ = by_hand(bundle, *scan)
    assert (predict(bundle, scan, "openvino").labels == labels).mean() >= 0.99


def test_mirrored_bfloat16_networks_are_exported_as_such(exported: Make, scan: Scan) -> None:
    """Undecided about every voxel, a network that looks once would find something else in what is turned."""
    bundle = exported(precision="bfloat16", mirror=True)
    channels = [np.ascontiguousarray(channel[:, ::-1]) for channel in scan[0]]
    turned = predict(bundle, (channels, scan_input(channels)), "openvino").labels
    assert (turned[:, ::-1] == predict(bundle, scan, "openvino").labels).mean() >= 0.99


def test_export_states_its_files(exported: Make) -> None:
    bundle = Bundle.load(exported().url)
    assert set(bundle.files) >= {"weights.npz", "openvino/model.xml", "openvino/model.bin"}
    assert bundle.verify() == bundle
    assert bundle.model_id == bundle.fingerprint


def test_export_twice_is_export_once(tmp_path: Path, scan: Scan) -> None:
    bundle = tiny_bundle(str(tmp_path / "m"))
    first, second = export(bundle.url), export(bundle.url)
    assert first.model_id == second.model_id == bundle.model_id
    second.verify()
    assert sorted(path.name for path in (tmp_path / "m" / "openvino").iterdir()) == ["model.bin", "model.xml"]


def test_a_model_that_was_not_exported(tmp_path: Path) -> None:
    bundle = tiny_bundle(str(tmp_path / "m"))
    with pytest.raises(ModelError, match=r"lacks openvino/model.xml: run `export` on it"):
        PredictorSpec(bundle.url).pack()


@pytest.mark.parametrize("wrong", [{"runtime": "onnx"}, {"batch_size": 0}, {"precision": "half"}])
def test_wrong_specifications(wrong: dict) -> None:
    with pytest.raises(UsageError, match=str(next(iter(wrong.values())))):
        PredictorSpec("m", **wrong)
