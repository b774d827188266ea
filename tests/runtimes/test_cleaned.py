"""What is too small to be a lesion: chosen on labelled scans, stated in the bundle, left out by every runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segpipe.core.prediction import Sample, ScanInput
from segpipe.models.bundle import Bundle
from segpipe.runtimes.judge import Trial, choose_cleaning
from tests.runtimes.onnx_networks import network
from tests.runtimes.test_adopt import SOFT, adopted, card, segmented

Scan = tuple[list[np.ndarray], ScanInput]
SHAPE = (8, 24, 24)


class Held:
    """Slices of which only the truth is asked for."""

    def __init__(self, truth: np.ndarray | None):
        self.truth = truth


def sample(number: int, truth: np.ndarray | None, convention: str | None = "brats") -> Sample:
    scan = ScanInput(SHAPE, (0.0,), (1.0,), (1.0,), (0.0,), (0, 8, 0, 24, 0, 24), (1.0, 1.0, 1.0))
    return Sample(f"c:{number}:1", scan, Held(truth), convention)  # type: ignore[arg-type]


def maps() -> tuple[np.ndarray, np.ndarray]:
    """A tumour of 400 voxels with a core, and what a network makes of it: the same and two specks of 27 voxels."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[2:6, 4:14, 4:14] = 2
    truth[3:5, 6:12, 6:12] = 4
    found = truth.copy()
    found[0:3, 18:21, 18:21] = found[4:7, 18:21, 2:5] = 2
    return truth, found


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return adopted(network(tmp_path / "n.onnx", SOFT), card())


def test_the_least_volume_is_chosen_on_labelled_scans(bundle: Bundle) -> None:
    truth, found = maps()
    samples = [*(sample(number, truth) for number in range(3)), sample(8, None), sample(9, truth, "unheard of")]
    trial = Trial({one.scan_id: found for one in samples})
    chosen = choose_cleaning(bundle, trial, samples)
    assert {region: choice.least_ml for region, choice in chosen.items()} == {
        "whole_tumour": 0.05,
        "tumour_core": 0,
        "enhancing_tumour": 0,
    }
    assert chosen["whole_tumour"].patients == 3
    assert (chosen["whole_tumour"].dice_before, chosen["whole_tumour"].dice_after) == (pytest.approx(800 / 854), 1.0)
    assert choose_cleaning(bundle, trial, samples[:2])["whole_tumour"].least_ml == 0
    assert choose_cleaning(bundle, Trial(), []) == {}


def test_a_bundle_that_cleans_is_another_model(bundle: Bundle) -> None:
    cleaned = bundle.with_files(cleaning={"whole_tumour": 0.05})
    assert Bundle.load(bundle.url).cleaning == {"whole_tumour": 0.05}
    assert cleaned.model_id != bundle.model_id
    assert cleaned.trained_as == bundle.model_id
    assert cleaned.with_files(cleaning={}).model_id == bundle.model_id


def test_masks_lack_what_is_too_small(bundle: Bundle, scan: Scan) -> None:
    channels, described = scan
    spaced = replace(described, spacing_mm=(1.0, 1.0, 1.0))
    raw = segmented(bundle, channels, spaced)
    least = 1 + (raw.labels > 0).sum() / 1000  # ml, more than there is
    bundle.with_files(cleaning={"enhancing_tumour": least})
    cleaned = segmented(bundle, channels, spaced)
    assert (raw.labels == 4).any()
    np.testing.assert_array_equal(cleaned.labels, np.where(raw.labels == 4, 1, raw.labels))
    assert cleaned.mean_probability["enhancing_tumour"] is None
    assert cleaned.mean_probability["whole_tumour"] == raw.mean_probability["whole_tumour"]
    unknown = segmented(bundle, channels, described)
    np.testing.assert_array_equal(unknown.labels, raw.labels)
