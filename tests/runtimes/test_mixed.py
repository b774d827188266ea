"""A 3D network and a 2D one answer together: by the mean of what they say, and only as they were saved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from segpipe.core.prediction import ScanInput, SliceBatch
from segpipe.core.regions import to_labels
from segpipe.errors import BadInput, ModelError
from segpipe.models.bundle import SLICES, Bundle, load_keras, save_bundle
from segpipe.runtimes.contract import CleanedPredictor, PredictorSpec
from segpipe.runtimes.export import export
from segpipe.runtimes.mixed import MixedPredictor
from segpipe.runtimes.network import convention
from segpipe.runtimes.slicewise import SlicewisePredictor
from segpipe.runtimes.tiled import TiledPredictor
from tests.runtimes.models import tiny_bundle
from tests.runtimes.test_contract import batches

Scan = tuple[list[np.ndarray], ScanInput]
LEARNT = {"trained_steps": 60, "normalisation": "instance"}


def mixed(url: str, neighbours: int = 0) -> Bundle:
    """A model of two networks that have learnt from images of different kinds, and so say different things."""
    slices = tiny_bundle(f"{url}/{SLICES}", **LEARNT, neighbours=neighbours)
    volumes = tiny_bundle(url, dimensions=3, crop=(8, 32, 32), bias=-0.5, normalisation="instance")
    network = {**volumes.network, "beside": slices.trained_as}
    return save_bundle(replace(volumes, network=network), load_keras(volumes), slices.beside())


@pytest.fixture(scope="module", params=[0, 1], ids=["slices alone", "with neighbours"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(mixed(str(tmp_path_factory.mktemp("mixed") / "m"), request.param).url)


def opened(bundle: Bundle, runtime: str = "openvino") -> MixedPredictor:
    found = PredictorSpec(bundle.url, runtime, 4, "float32").open(1)
    found = found.predictor if isinstance(found, CleanedPredictor) else found
    assert isinstance(found, MixedPredictor)
    return found


def test_the_mean_of_both_decides(bundle: Bundle, scan: Scan) -> None:
    channels, about = scan
    both = opened(bundle)
    box, said = both.probability(about, iter(list(batches(channels, 3))))
    volumes = both.volumes.probability(about, batches(channels, 3))
    seen, slices = both.slices.probability(about, batches(channels, 3))
    whole = np.zeros((*about.shape, 3), np.float32)
    whole[seen] = slices
    assert box == volumes[0] == tuple(slice(*about.brain_box[2 * axis : 2 * axis + 2]) for axis in range(3))
    assert np.abs(volumes[1] - whole[box]).max() > 0.2, "networks that say the same show nothing"
    np.testing.assert_allclose(said, (volumes[1] + whole[box]) / 2, atol=1e-6)
    found = both.segment(about, batches(channels, 3))
    expected = np.zeros(about.shape, np.uint8)
    expected[box] = to_labels(said > 0.5, convention(bundle))
    assert (found.labels == expected).all()
    assert 0 < (expected > 0).mean() < 1


@dataclass(frozen=True)
class Narrow:
    """A 3D network whose answer is taken away in all slices but some."""

    volumes: TiledPredictor
    finds: slice

    def probability(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> tuple[tuple[slice, ...], np.ndarray]:
        box, said = self.volumes.probability(scan, batches)
        kept = np.zeros_like(said)
        kept[self.finds] = said[self.finds]
        return box, kept


@dataclass
class Watched:
    """A 2D network, and how many slices it has been asked about."""

    slices: SlicewisePredictor
    asked: int = 0

    def probability(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> tuple[tuple[slice, ...], np.ndarray]:
        box, said = self.slices.probability(scan, batches)
        self.asked += len(said)
        return box, said


@pytest.mark.parametrize("finds", [slice(2, 5), slice(0, 0)])
def test_slices_beyond_what_the_3d_network_finds_are_not_looked_at(bundle: Bundle, scan: Scan, finds: slice) -> None:
    channels, about = scan
    both = opened(bundle)
    narrow, watched = Narrow(both.volumes, finds), Watched(both.slices)
    _, said = replace(both, volumes=narrow, slices=watched).probability(about, batches(channels, 3))
    assert watched.asked == finds.stop - finds.start < about.brain_box[1] - about.brain_box[0]
    _, whole = both.probability(about, batches(channels, 3))
    np.testing.assert_allclose(said[finds], whole[finds], atol=1e-6)
    rest = np.delete(said, np.arange(len(said))[finds], axis=0)
    assert rest.shape[0]
    assert not rest.any()


def test_keras_says_the_same(bundle: Bundle, scan: Scan) -> None:
    channels, about = scan
    ours, keras = (opened(bundle, runtime).segment(about, batches(channels, 3)) for runtime in ("openvino", "keras"))
    assert (ours.labels == keras.labels).mean() >= 0.999
    assert ours.max_probability == pytest.approx(keras.max_probability, abs=1e-3)


def test_only_the_network_that_it_was_saved_with(tmp_path: Path) -> None:
    model = mixed(str(tmp_path / "m"))
    with pytest.raises(ModelError, match=r"lacks openvino/model\.xml: run `export` on it"):
        PredictorSpec(model.url).pack()
    exported = export(model.url)
    assert {f"{SLICES}/openvino/model.xml", f"{SLICES}/bundle.json"} <= exported.files.keys()
    tiny_bundle(f"{model.url}/{SLICES}", **{**LEARNT, "trained_steps": 3})
    with pytest.raises(ModelError, match=f"needs {model.network['beside']} in its slices, not"):
        export(model.url)
    with pytest.raises(ModelError, match=r"slices/bundle\.json"):
        PredictorSpec(model.url).pack()


def test_what_is_no_number_is_refused(bundle: Bundle, scan: Scan) -> None:
    channels, about = scan

    class Nothing:
        def probability(self, scan: ScanInput, batches: object) -> tuple[tuple[slice, ...], np.ndarray]:
            box = slice(*scan.brain_box[:2]), slice(0, scan.shape[1]), slice(0, scan.shape[2])
            return box, np.full((box[0].stop - box[0].start, *scan.shape[1:], 3), np.nan, np.float32)

    with pytest.raises(BadInput, match="not a number"):
        replace(opened(bundle), slices=Nothing()).segment(about, batches(channels, 3))
