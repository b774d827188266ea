"""More looks where in doubt, one elsewhere: between one look and four, and exactly either at the ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segpipe.core.prediction import ScanInput
from segpipe.errors import ModelError, UsageError
from segpipe.models.bundle import Bundle
from segpipe.runtimes.contract import PredictorSpec
from segpipe.runtimes.export import export
from segpipe.runtimes.looks import MIRRORS, SHARE, DoubtfulPredictor, chosen, once
from segpipe.runtimes.openvino import LOOK_FILES
from tests.runtimes.models import tiny_bundle
from tests.runtimes.test_contract import batches

Scan = tuple[list[np.ndarray], ScanInput]
ALL_MIRRORS = ((2,), (3,), (2, 3))
"""Rows, columns, both: axes of (N, C, h, w)."""


@pytest.fixture(scope="module", params=[0, 2], ids=["slices alone", "with neighbours"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target = str(tmp_path_factory.mktemp("looks") / "m")
    return export(tiny_bundle(target, mirror=True, neighbours=request.param).url)


@pytest.fixture(scope="module")
def look(bundle: Bundle) -> DoubtfulPredictor:
    found = PredictorSpec(bundle.url, "openvino", 4, "float32", looks="doubt").open(1)
    assert isinstance(found, DoubtfulPredictor)
    return found


class Counting:
    """A network that counts the slices which it is shown."""

    def __init__(self, network):
        self._network, self.wait, self.slices = network, network.wait, 0

    def start(self, image, constants, done) -> None:
        self.slices += len(image)
        self._network.start(image, constants, done)


def found(predictor, scan: Scan, share: float, grouped: int = 5, mirrors=ALL_MIRRORS):
    network = Counting(predictor.network)
    chosen = replace(predictor, network=network, share=share, mirrors=mirrors)
    return chosen.segment(scan[1], batches(scan[0], grouped)), network.slices


def test_all_in_doubt_is_four_looks(bundle: Bundle, look: DoubtfulPredictor, scan: Scan) -> None:
    four = PredictorSpec(bundle.url, "openvino", 4, "float32").open(1).segment(scan[1], batches(scan[0], 5))
    mine, slices = found(look, scan, share=1.0)
    assert slices == 4 * (scan[1].brain_box[1] - scan[1].brain_box[0])
    assert 0 < (four.labels > 0).mean() < 1
    assert (mine.labels == four.labels).mean() >= 0.999
    assert mine.mean_probability == pytest.approx(four.mean_probability, abs=1e-3)
    assert mine.max_probability == pytest.approx(four.max_probability, abs=1e-3)


def test_none_in_doubt_is_one_look(tmp_path: Path, bundle: Bundle, look: DoubtfulPredictor, scan: Scan) -> None:
    single = export(tiny_bundle(str(tmp_path / "m"), mirror=False, neighbours=bundle.neighbours).url)
    one = PredictorSpec(single.url, "openvino", 4, "float32").open(1).segment(scan[1], batches(scan[0], 5))
    mine, slices = found(look, scan, share=0.0)
    assert slices == scan[1].brain_box[1] - scan[1].brain_box[0]
    assert (mine.labels == one.labels).all()
    assert not set(LOOK_FILES) & set(single.files)
    with pytest.raises(ModelError, match="looks at every slice once anyway: leave out --looks"):
        PredictorSpec(single.url, looks="doubt").pack()


def test_slices_are_one_or_the_other_and_the_cost_is_kept(bundle: Bundle, look: DoubtfulPredictor, scan: Scan) -> None:
    one, four = (found(look, scan, share)[0].labels for share in (0.0, 1.0))
    mine, slices = found(look, scan, share=0.34)
    brain = scan[1].brain_box[1] - scan[1].brain_box[0]
    assert slices == brain + 3 * int(brain * 0.34)
    changed = [index for index in range(len(one)) if (mine.labels[index] != one[index]).any()]
    assert 0 < len(changed) <= int(brain * 0.34)
    assert all((mine.labels[index] == four[index]).all() for index in changed)


def test_as_it_comes_it_takes_half_as_many_looks_again(look: DoubtfulPredictor, scan: Scan) -> None:
    assert (look.share, look.mirrors) == (SHARE, MIRRORS)
    one, slices = found(look, scan, SHARE, mirrors=MIRRORS)
    brain = scan[1].brain_box[1] - scan[1].brain_box[0]
    assert slices == brain + int(brain * SHARE)
    once, _ = found(look, scan, 0.0)
    both, _ = found(look, scan, 1.0, mirrors=MIRRORS)
    changed = [index for index in range(len(both.labels)) if (one.labels[index] != once.labels[index]).any()]
    assert 0 < len(changed) <= int(brain * SHARE)
    assert all((one.labels[index] == both.labels[index]).all() for index in changed)
    assert (both.labels != once.labels).any(axis=(1, 2)).sum() > len(changed)


def test_batches_change_nothing(look: DoubtfulPredictor, scan: Scan) -> None:
    first, _ = found(look, scan, 0.5)
    other = found(replace(look, batch_size=3), scan, 0.5, grouped=2)[0]
    assert (other.labels == first.labels).mean() >= 0.9999


def test_the_most_doubtful_are_chosen() -> None:
    doubt = np.array([3, 0, 7, 7, 1, 0, 0, 0, 0, 0])
    assert chosen(doubt, 0.3).tolist() == [0, 2, 3]
    assert chosen(doubt, 1.0).tolist() == [0, 2, 3, 4]
    assert chosen(doubt, 0.0).tolist() == chosen(np.zeros(0, int), 0.5).tolist() == []


def test_what_cannot_look_where_in_doubt(bundle: Bundle) -> None:
    assert once(bundle.network)["mirror"] is False
    with pytest.raises(UsageError, match="give --runtime openvino"):
        PredictorSpec(bundle.url, "keras", looks="doubt").pack()
    with pytest.raises(UsageError, match="'twice' is unknown"):
        PredictorSpec(bundle.url, looks="twice")
