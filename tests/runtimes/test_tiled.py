"""3D networks: tiles blended as validation blends them, on every runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from segpipe.core.intensity import normalise
from segpipe.core.prediction import ScanInput
from segpipe.core.regions import CONVENTIONS, to_labels
from segpipe.core.tiles import predict
from segpipe.errors import BadInput
from segpipe.models.bundle import Bundle, load_keras
from segpipe.runtimes.contract import RUNTIMES, PredictorSpec
from segpipe.runtimes.export import export
from tests.runtimes.models import scan_input, tiny_bundle
from tests.runtimes.test_contract import batches

Scan = tuple[list[np.ndarray], ScanInput]


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[int, ...]], Bundle]:
    """An exported model whose tiles have this shape; the weights are the same for all."""
    first = export(tiny_bundle(str(tmp_path_factory.mktemp("3d") / "m"), crop=(8, 16, 16), dimensions=3).url)
    return lambda tile: replace(first, crop=tile)


def by_hand(bundle: Bundle, channels: list[np.ndarray], scan: ScanInput) -> np.ndarray:
    """Blended probabilities of the brain's box by the Keras model itself."""
    box = tuple(slice(scan.brain_box[2 * axis], scan.brain_box[2 * axis + 1]) for axis in range(3))
    stored = np.stack([channel[box] for channel in channels], axis=-1).astype(np.float32)
    model = load_keras(bundle)
    mean, std = np.array(scan.mean), np.array(scan.std)
    return predict(stored, lambda tiles: model(normalise(tiles, mean, std)).numpy(), bundle.crop, overlap=0.25)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("tile", [(8, 16, 16), (4, 32, 12), (16, 64, 64)], ids=str)
def test_tiles_are_blended_as_in_validation(
    bundle_of: Callable[[tuple[int, ...]], Bundle], scan: Scan, runtime: str, tile: tuple[int, ...]
) -> None:
    bundle = bundle_of(tile)
    packed = replace(PredictorSpec(bundle.url, runtime, precision="float32").pack(), bundle=bundle)
    predictor = import_module(f"segpipe.runtimes.{runtime}").predictor(packed, 2)
    found = predictor.segment(scan[1], batches(scan[0], 3))
    wanted = by_hand(bundle, *scan)
    box = tuple(slice(scan[1].brain_box[2 * axis], scan[1].brain_box[2 * axis + 1]) for axis in range(3))
    labels = to_labels(wanted > 0.5, CONVENTIONS["brats"])
    assert 0 < (labels > 0).mean() < 1
    assert (found.labels[box] == labels).mean() >= 0.999
    outside = np.ones(found.labels.shape, bool)
    outside[box] = False
    assert not found.labels[outside].any()
    for place, region in enumerate(bundle.regions):
        assert found.max_probability[region] == pytest.approx(wanted[..., place].max(), abs=1e-4)
    again = predictor.segment(scan[1], batches(scan[0], 10))
    assert (again.labels == found.labels).all()
    assert again.mean_probability == found.mean_probability


def test_voxels_that_are_not_finite_count_as_the_mean(
    bundle_of: Callable[[tuple[int, ...]], Bundle], scan: Scan
) -> None:
    bundle = bundle_of((8, 16, 16))
    channels = [channel.astype(np.float32) for channel in scan[0]]
    channels[1][4, 20:24, 25] = np.nan
    found = PredictorSpec(bundle.url).open(1).segment(described := scan_input(channels), batches(channels, 5))
    mean = [float(described.mean[place]) for place in range(4)]
    filled = [np.nan_to_num(channel, nan=mean[place]) for place, channel in enumerate(channels)]
    wanted = PredictorSpec(bundle.url).open(1).segment(described, batches(filled, 5))
    assert (found.labels == wanted.labels).mean() >= 0.999


def test_an_answer_that_is_no_number_is_no_mask(bundle_of: Callable[[tuple[int, ...]], Bundle], scan: Scan) -> None:
    beyond = replace(scan[1], std=(1e-38,) * len(scan[0]))
    with pytest.raises(BadInput, match="The network's answer for this scan is not a number"):
        PredictorSpec(bundle_of((8, 16, 16)).url).open(1).segment(beyond, batches(scan[0], 5))


def test_export_measures_3d_networks_too(tmp_path: Path) -> None:
    from tests.runtimes.test_export import sample

    model = tiny_bundle(str(tmp_path / "m"), crop=(8, 16, 16), dimensions=3, bias=-1.0)
    found = export(model.url, [sample(3)], [sample(4)]).inference
    assert found["least_agreement_with_keras"]["float32"] >= 0.999
    assert found["int8"] == {"published": False, "reason": "3D networks are not quantised in this version"}
