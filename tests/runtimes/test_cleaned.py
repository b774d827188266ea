"""What is too small to be a lesion: chosen on labelled scans, stated in the bundle, left out by every runtime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segpipe.core.cutting import Levels, grid_with
from segpipe.core.evidence import keep_supported
from segpipe.core.prediction import ScanInput
from segpipe.core.regions import CONVENTIONS, to_regions
from segpipe.models.bundle import Bundle
from segpipe.runtimes.export.decisions import Labelled, decisions
from tests.runtimes.onnx_networks import network
from tests.runtimes.test_adopt import SOFT, adopted, card, segmented

Scan = tuple[list[np.ndarray], ScanInput]
SHAPE = (8, 24, 24)
BRATS = CONVENTIONS["brats"]
DECISIONS = ("cleaning", "thresholds", "presence", "evidence", "brightness")
NOTHING: dict[str, dict[str, float]] = {name: {} for name in DECISIONS}


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


def labelled(truth: np.ndarray, found: np.ndarray, voxel_ml: float = 0.001) -> Labelled:
    """A scan in which a network is sure of `found`."""
    sure = to_regions(found, BRATS).astype(np.float32)
    levels = Levels.of(SHAPE, tuple(slice(0, length) for length in SHAPE), sure, grid_with(0.5))
    return Labelled.of(levels, truth, BRATS, BRATS, voxel_ml, unseen=False)


def test_the_least_volume_is_chosen_on_labelled_scans() -> None:
    truth, found = maps()
    chosen = decisions([labelled(truth, found)] * 3, BRATS, 0.5)
    assert (chosen.thresholds, chosen.cleaning, chosen.presence) == ({}, {"whole_tumour": 0.05}, {})
    told = chosen.told["cleaning"]["whole_tumour"]
    assert (told["patients"], told["dice_before"], told["dice_after"]) == (3, pytest.approx(800 / 854), 1.0)
    assert told["lesion_dice_before"] == pytest.approx(1 / 3)
    assert not decisions([labelled(truth, found)] * 2, BRATS, 0.5).cleaning
    assert not decisions([labelled(truth, found, voxel_ml=0.0)] * 3, BRATS, 0.5).cleaning
    assert not decisions([labelled(truth, found)] * 3, BRATS, 0.5, clean=False).told.get("cleaning")
    assert not decisions([], BRATS, 0.5).cleaning


def test_what_a_part_must_hold_is_chosen_on_labelled_scans() -> None:
    """Specks of oedema without a core go by it, so that none is left to choose a least volume by."""
    truth, found = maps()
    chosen = decisions([labelled(truth, found)] * 8, BRATS, 0.5)
    assert (chosen.cleaning, chosen.evidence) == ({}, {"whole_tumour": 0.1, "tumour_core": 0.1})
    told = chosen.told["evidence"]["whole_tumour"]
    assert (told["patients"], told["dice_before"], told["dice_after"]) == (8, pytest.approx(800 / 854), 1.0)
    assert not decisions([labelled(truth, found)] * 8, BRATS, 0.5, clean=False).evidence


def test_how_bright_the_enhancing_tumour_must_be_is_chosen_before_the_thresholds() -> None:
    """Half of what is found is as dull as the brain; its threshold stays where a higher one would have helped."""
    truth, _ = maps()
    truth[3:5, 6:9, 6:12] = 1
    sure = to_regions(np.where(truth == 1, 4, truth), BRATS).astype(np.float32)
    sure[..., 2][truth == 1] = 0.55
    levels = Levels.of(SHAPE, tuple(slice(0, length) for length in SHAPE), sure, grid_with(0.5))
    one = Labelled.of(levels, truth, BRATS, BRATS, 0.001, unseen=True)
    assert decisions([one] * 3, BRATS, 0.5).fields == NOTHING | {"thresholds": {"enhancing_tumour": 0.6}}
    bright = {"enhancing_tumour": np.where(truth.reshape(-1)[levels.places] == 4, 2, 0).astype(np.float32)}
    chosen = decisions([replace(one, bright=bright)] * 3, BRATS, 0.5)
    assert chosen.fields == NOTHING | {"brightness": {"enhancing_tumour": 0.25}}
    told = chosen.told["brightness"]["enhancing_tumour"]
    assert (told["least"], told["patients"], told["dice_after"]) == (0.25, 3, 1.0)
    assert told["dice_before"] == pytest.approx(2 * 36 / (72 + 36))
    assert decisions([replace(one, bright=bright)] * 3, BRATS, 0.5, clean=False).brightness == {}


def test_what_a_least_brightness_has_left_does_not_lower_a_threshold_on_patients_learnt_from() -> None:
    """Once the dull voxels are gone, all of what the network half believes in is right."""
    truth, _ = maps()
    truth[3:5, 6:9, 6:12] = 1
    likely = to_regions(truth, BRATS).astype(np.float32)
    for rows, probability in ((slice(6, 7), 0.55), (slice(7, 9), 0.35), (slice(11, 12), 0.35)):
        likely[3:5, rows, 6:12, 2] = probability
    levels = Levels.of(SHAPE, tuple(slice(0, length) for length in SHAPE), likely, grid_with(0.5))
    bright = {"enhancing_tumour": np.where(truth.reshape(-1)[levels.places] == 4, 2, 0).astype(np.float32)}
    unseen = replace(Labelled.of(levels, truth, BRATS, BRATS, 0.001, unseen=True), bright=bright)
    learnt = replace(unseen, tally=replace(unseen.tally, unseen=False))
    few, enough = (decisions([learnt] * 9 + [unseen] * number, BRATS, 0.5) for number in (2, 3))
    assert few.brightness == enough.brightness == {"enhancing_tumour": 0.25}
    assert (few.thresholds, enough.thresholds) == ({}, {"enhancing_tumour": 0.3})
    without = decisions([unseen] * 12, BRATS, 0.5, clean=False)
    assert without.thresholds == {"enhancing_tumour": 0.6}, "beside dull voxels the higher one gains"


def test_how_bright_the_whole_tumour_must_be_asks_nothing_of_its_core() -> None:
    """Oedema is found where the brain is not bright; the core is darker still, and true."""
    truth, _ = maps()
    found = truth.copy()
    found[2:6, 14:18, 4:14] = 2
    one = labelled(truth, found)
    at = truth.reshape(-1)[one.levels.places]
    bright = np.select([at == 4, at == 2], [-1, 2], 0).astype(np.float32)
    scans = [replace(one, bright={"whole_tumour": bright}, tally=replace(one.tally, unseen=True))] * 3
    chosen = decisions(scans, BRATS, 0.5)
    assert chosen.fields == NOTHING | {"brightness": {"whole_tumour": 0.25}}
    told = chosen.told["brightness"]["whole_tumour"]
    assert (told["dice_before"], told["dice_after"]) == (pytest.approx(2 * 400 / (400 + 560)), 1.0)


def test_visits_of_one_patient_decide_nothing() -> None:
    truth, found = maps()
    visits = [replace(one, tally=replace(one.tally, patient="a", unseen=True)) for one in [labelled(truth, found)] * 3]
    assert decisions(visits, BRATS, 0.5).fields == NOTHING
    told = decisions([labelled(truth, found)] * 3, BRATS, 0.5).told
    assert told["undecided"] == "no labelled patient of the validation, so that each region is cut as it was trained"
    unseen = [replace(one, tally=replace(one.tally, unseen=True)) for one in [labelled(truth, found)] * 3]
    assert "undecided" not in decisions(unseen, BRATS, 0.5).told


def test_a_bundle_that_cleans_is_another_model(bundle: Bundle) -> None:
    cleaned = bundle.with_files(cleaning={"whole_tumour": 0.05})
    assert Bundle.load(bundle.url).cleaning == {"whole_tumour": 0.05}
    assert cleaned.model_id != bundle.model_id
    assert cleaned.trained_as == bundle.model_id
    assert cleaned.with_files(cleaning={}).model_id == bundle.model_id
    decided = [bundle.with_files(**{name: {"whole_tumour": 0.6}}) for name in DECISIONS if name != "cleaning"]
    assert len({bundle.model_id, cleaned.model_id, *(one.model_id for one in decided)}) == 6
    assert {one.trained_as for one in decided} == {bundle.model_id}


def test_a_bundle_of_an_earlier_version_knows_of_no_decisions(bundle: Bundle) -> None:
    index = Path(bundle.url) / "bundle.json"
    content = json.loads(index.read_text())
    for name in DECISIONS[1:]:
        assert content.pop(name) == {}
    index.write_text(json.dumps(content))
    assert Bundle.load(bundle.url) == bundle


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
    bundle.with_files(cleaning={}, presence={"enhancing_tumour": least})
    np.testing.assert_array_equal(segmented(bundle, channels, spaced).labels, cleaned.labels)
    unknown = segmented(bundle, channels, described)
    np.testing.assert_array_equal(unknown.labels, raw.labels)


def test_masks_lack_what_nothing_inside_speaks_for(bundle: Bundle, scan: Scan) -> None:
    channels, described = scan
    raw = segmented(bundle, channels, described)
    shares = {"whole_tumour": 1.0, "tumour_core": 1.0}
    bundle.with_files(evidence=shares)
    found = segmented(bundle, channels, described)
    np.testing.assert_array_equal(found.labels, keep_supported(raw.labels, BRATS, shares))
    assert (found.labels != raw.labels).any()


@pytest.mark.parametrize(
    ("region", "own", "place", "around"), [("enhancing_tumour", 4, 2, 1), ("whole_tumour", 2, 0, 0)]
)
def test_masks_lack_what_is_not_bright(
    bundle: Bundle, scan: Scan, region: str, own: int, place: int, around: int
) -> None:
    """`place` is that of T1ce or FLAIR among FLAIR, T1, T1ce and T2."""
    channels, described = scan
    raw = segmented(bundle, channels, described)
    mean, inverse = (values[place] for values in described.stored_statistics())
    bright = (channels[place] - mean) * inverse
    least = float(np.median(bright[raw.labels == own]))
    bundle.with_files(brightness={region: least})
    found = segmented(bundle, channels, described)
    np.testing.assert_array_equal(found.labels, np.where((raw.labels == own) & (bright <= least), around, raw.labels))
    assert (found.labels == own).any()
    assert (found.labels != raw.labels).any()
