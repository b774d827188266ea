"""Real scans: OpenVINO's masks beside those of Keras."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segpipe.models.bundle import Bundle
from segpipe.runtimes.contract import PredictorSpec
from tests.runtimes.models import scan_input


@pytest.mark.real
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_masks_of_real_scans_are_those_of_keras(
    exported: Callable[..., Bundle], real_data: Path, precision: str
) -> None:
    import nibabel as nib

    folder = sorted((real_data / "brats2021").iterdir())[0]
    files = [folder / f"{folder.name}_{name}.nii.gz" for name in ("flair", "t1", "t1ce", "t2")]
    volumes = [np.asarray(nib.load(file).dataobj)[:, :, 40:100:4] for file in files]
    channels = [np.ascontiguousarray(volume.transpose(2, 1, 0)) for volume in volumes]
    assert {channel.dtype.name for channel in channels} == {"int16"}
    bundle = exported(trained_steps=60, normalisation="instance", crop=(192, 160))
    labels = [
        PredictorSpec(bundle.url, runtime, 4, precision)
        .open(1)
        .segment(scan_input(channels), [(range(15), channels)])
        .labels
        for runtime in ("keras", "openvino")
    ]
    assert 0.01 < (labels[0] > 0).mean() < 0.5
    assert (labels[0] == labels[1]).mean() >= (0.999 if precision == "float32" else 0.99)
