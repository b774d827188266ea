"""A bundle's network as all runtimes need it: as one function, and as the predictor on what runs that function."""

from __future__ import annotations

from typing import Any

from segpipe.core.prediction import Predictor
from segpipe.core.regions import LabelConvention
from segpipe.models.bundle import Bundle
from segpipe.runtimes.graph import segmenter, tiler
from segpipe.runtimes.mixed import MixedPredictor
from segpipe.runtimes.slicewise import SlicewisePredictor
from segpipe.runtimes.tiled import OVERLAP, TiledPredictor


def network_function(model: Any, bundle: Bundle, with_probability: bool = False) -> Any:
    """From stored voxels to what a runtime needs: `graph.segmenter` of a 2D model, `graph.tiler` of a 3D one."""
    if bundle.network["dimensions"] == 3:
        return tiler(model, bundle.channels)
    return segmenter(model, convention(bundle), bundle.channels, bundle.multiple, bundle.cut, with_probability)


def on_network(network: Any, bundle: Bundle, batch_size: int) -> Predictor:
    """The predictor of a network that does what `network_function` does."""
    if bundle.network["dimensions"] == 3:
        overlap = bundle.training.get("tile_overlap", OVERLAP)
        return TiledPredictor(network, convention(bundle), bundle.crop, overlap, bundle.cut)
    crop, multiple = bundle.crop, bundle.multiple
    return SlicewisePredictor(network, tuple(bundle.regions), crop, multiple, batch_size, bundle.neighbours)


def together(volumes: Predictor, slices: Predictor) -> Predictor:
    """The predictor of a 3D network and of the 2D one that tells its probabilities, by the mean of both."""
    assert isinstance(volumes, TiledPredictor)
    assert isinstance(slices, SlicewisePredictor)
    return MixedPredictor(volumes, slices)


def convention(bundle: Bundle) -> LabelConvention:
    """The label convention that a bundle states."""
    labels = {int(label): name for label, name in bundle.labels.items()}
    return LabelConvention(bundle.label_convention, labels, bundle.regions)
