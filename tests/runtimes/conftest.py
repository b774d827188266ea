"""A scan that a network can look at, and model directories made for real."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from segpipe.core.prediction import ScanInput
from segpipe.models.bundle import Bundle
from segpipe.readers.synthetic import glioma
from tests.runtimes.models import MODALITIES, scan_input, tiny_bundle


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """Give a model directory of a tiny U-Net that was exported; one with the same options is made once."""
    from segpipe.runtimes.export import export

    made: dict[str, Bundle] = {}

    def make(**options: object) -> Bundle:
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = export(tiny_bundle(str(tmp_path_factory.mktemp("model") / "m"), **options).url)
        return made[key]

    return make


@pytest.fixture(scope="session")
def scan() -> tuple[list[np.ndarray], ScanInput]:
    """Four int16 channels (10, 44, 52) of a generated head, and what `scans` would say of them."""
    images = glioma(np.random.default_rng(5), shape=(10, 44, 52)).images
    channels = [images[name.lower()] for name in MODALITIES]
    return channels, scan_input(channels)
