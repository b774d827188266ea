"""Which precision export chooses, and when it publishes an INT8 model: measured, recorded, and obeyed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from segpipe.cli import Context
from segpipe.core.prediction import Sample, SliceBatch
from segpipe.errors import ModelError
from segpipe.models.bundle import Bundle, load_keras, save_bundle
from segpipe.readers.synthetic import glioma
from segpipe.runtimes import openvino
from segpipe.runtimes.contract import RUNTIMES, PredictorSpec
from segpipe.runtimes.export import export, judge
from segpipe.runtimes.export.convert import convert
from segpipe.runtimes.export.quantise import quantise
from segpipe.runtimes.openvino import FILES, INT8_FILES
from segpipe.settings import ExportSettings
from tests.runtimes.models import MODALITIES, scan_input, tiny_bundle

pytestmark = pytest.mark.slow


@dataclass
class InMemory:
    """The slices of a scan, three at a time."""

    channels: list[np.ndarray]
    truth: np.ndarray | None

    def __iter__(self) -> Iterator[SliceBatch]:
        for start in range(0, len(self.channels[0]), 3):
            stop = min(start + 3, len(self.channels[0]))
            yield range(start, stop), [channel[start:stop] for channel in self.channels]


def sample(seed: int, labelled: bool = True) -> Sample:
    made = glioma(np.random.default_rng(seed), shape=(8, 32, 32))
    channels = [made.images[name.lower()] for name in MODALITIES]
    slices = InMemory(channels, made.mask if labelled else None)
    return Sample(f"s{seed}", scan_input(channels), slices, "brats" if labelled else None)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [sample(seed) for seed in range(10, 13)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_bundle(str(tmp_path_factory.mktemp("trained") / "m"), trained_steps=60, normalisation="instance").url


@pytest.fixture
def bundle(trained: str, tmp_path: Path) -> Bundle:
    return Bundle.load(shutil.copytree(trained, tmp_path / "m").as_posix())


def test_without_scans_it_is_float32(bundle: Bundle) -> None:
    exported = export(bundle.url)
    assert exported.inference["precision"] == "float32"
    assert "no validation scans" in exported.inference["reason"]
    assert PredictorSpec(bundle.url).pack().spec.precision == "float32"


def test_what_was_measured_is_recorded(bundle: Bundle, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    """The masks that are compared are those of the network as it was trained."""
    monkeypatch.setattr(openvino, "has_bfloat16", lambda: True)  # where it has not, OpenVINO computes in float32
    exported = export(bundle.url, samples, cut=False, clean=False)
    found = exported.inference
    assert found["scans"] == 3
    assert found["least_agreement_with_keras"]["float32"] >= 0.999
    keras = PredictorSpec(bundle.url, "keras").open(1)
    fast = PredictorSpec(bundle.url, precision="bfloat16").open(1)
    shares = [
        (fast.segment(one.scan, one.slices).labels == keras.segment(one.scan, one.slices).labels).mean()
        for one in samples
    ]
    assert found["least_agreement_with_keras"]["bfloat16"] == pytest.approx(min(shares), abs=1e-6)
    assert (found["precision"] == "bfloat16") == (min(shares) >= 0.999 and "times as fast as" in found["reason"])
    assert PredictorSpec(bundle.url).pack().spec.precision == found["precision"]
    assert Bundle.load(bundle.url) == exported


def test_each_region_is_cut_where_labelled_scans_say(bundle: Bundle, samples: list[Sample]) -> None:
    """A network that believes in too much, by what it said before; without a spacing nothing is too small."""
    before_it = PredictorSpec(bundle.url, "keras").open(1)
    true = [before_it.segment(one.scan, one.slices).labels for one in samples]
    samples = [replace(one, slices=replace(one.slices, truth=truth)) for one, truth in zip(samples, true, strict=True)]
    network = load_keras(bundle)
    bias = network.get_layer("logits").bias
    bias.assign(bias + 1.2)  # what was 0.5 is 0.77 now
    eager = save_bundle(bundle, network)
    before = export(bundle.url, samples, cut=False, clean=False)
    assert (before.thresholds, before.model_id) == ({}, eager.model_id)
    after = export(bundle.url, samples[:1], learnt=samples[1:])
    assert set(after.thresholds.values()) <= {0.6, 0.7, 0.8}
    assert after.thresholds
    told = after.inference["thresholds"]
    assert after.inference["brightness"]["enhancing_tumour"]["patients"] == 3
    for region, threshold in after.thresholds.items():
        assert (told[region]["threshold"], told[region]["patients"], told[region]["unseen"]) == (threshold, 3, 1)
    keras, openvino = (PredictorSpec(bundle.url, runtime, precision="float32").open(1) for runtime in RUNTIMES)
    trial = judge.Trial({one.scan_id: keras.segment(one.scan, one.slices).labels for one in samples})
    for one in samples:
        assert (openvino.segment(one.scan, one.slices).labels == trial.labels[one.scan_id]).mean() >= 0.999
    dice = judge.mean_dice(after, trial, samples)
    for region, value in dice.items():
        assert value == pytest.approx(told[region]["dice_after"], abs=0.002)
        assert value >= told[region]["dice_before"]
    assert after.trained_as == eager.model_id
    again = export(bundle.url, samples[:1], learnt=samples[1:])
    assert again.model_id == after.model_id, "what was chosen is chosen again"


@pytest.mark.long
def test_too_few_patients_decide_nothing(bundle: Bundle, samples: list[Sample]) -> None:
    few = export(bundle.url, samples[:2])
    assert (few.thresholds, few.model_id) == ({}, bundle.model_id)
    assert few.inference["undecided"] == "2 labelled patients to choose by, fewer than 3"
    visits = [replace(one, subject="a") for one in samples]
    assert export(bundle.url, visits).inference["undecided"] == "1 labelled patients to choose by, fewer than 3"
    learnt = export(bundle.url, learnt=samples)
    assert (learnt.thresholds, learnt.inference["thresholds"]["whole_tumour"]["unseen"]) == ({}, 0)
    assert learnt.inference["undecided"].startswith("no labelled patient of the validation")


def test_decisions_that_are_taken_back_are_told(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """An export without scans to choose by makes the model decide as it was trained: nobody may learn it later."""
    from jobs.export import run

    bundle.with_files(thresholds={"tumour_core": 0.7}, cleaning={"whole_tumour": 0.5}, presence={"whole_tumour": 1.0})
    run(ExportSettings(model=bundle.url), Context("export"))
    exported = Bundle.load(bundle.url)
    assert (exported.thresholds, exported.cleaning, exported.presence) == ({}, {}, {})
    said = capsys.readouterr().out
    gone = "threshold 0.7 of tumour_core, least component 0.5 ml of whole_tumour, least volume 1 ml of whole_tumour"
    assert f"taken back, because this export did not choose it: {gone}" in said
    why = (
        "undecided: 0 labelled patients to choose by, fewer than 3; give --warehouse the tables that it was trained on"
    )
    assert why in said
    run(ExportSettings(model=bundle.url), Context("export"))
    said = capsys.readouterr().out
    assert why in said
    assert "taken back" not in said


def test_bfloat16_is_not_tried_where_the_processor_lacks_it(
    bundle: Bundle, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "has_bfloat16", lambda: False)
    found = export(bundle.url, samples[:1]).inference
    assert found["precision"] == "float32"
    assert "does not compute in bfloat16" in found["reason"]
    assert list(found["least_agreement_with_keras"]) == ["float32"]


def test_openvino_is_asked_what_the_processor_can_do() -> None:
    with open("/proc/cpuinfo") as cpuinfo:
        flags = cpuinfo.read()
    if "avx512_bf16" in flags:
        assert openvino.has_bfloat16()
    elif "avx512" not in flags and "avx_ne_convert" not in flags and "avx10" not in flags:
        assert not openvino.has_bfloat16()


@pytest.mark.parametrize(
    ("share", "gain", "precision", "reason"),
    [
        (1.0, 1.8, "bfloat16", "1.80 times as fast as float32"),
        (0.9990, 1.8, "bfloat16", "1.80 times"),
        (0.9989, 1.8, "float32", "agrees with Keras on 99.8900%"),
        (1.0, 1.01, "float32", "1.01 times as fast"),
    ],
)
def test_bfloat16_must_agree_and_be_faster(share: float, gain: float, precision: str, reason: str) -> None:
    found = judge.decide("m", {"float32": 1.0, "bfloat16": share}, {"float32": 10.0, "bfloat16": 10 * gain})
    assert found[0] == precision
    assert reason in found[1]


def test_a_conversion_that_differs_is_refused(
    bundle: Bundle, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "_agreement", lambda trial, keras: 0.99)
    with pytest.raises(ModelError, match=r"agree with Keras on 99\.0000%.*--runtime keras"):
        export(bundle.url, samples[:1])
    assert not set(FILES) & set(Bundle.load(bundle.url).files)


def test_int8_convolutions(bundle: Bundle, samples: list[Sample]) -> None:
    from segpipe.models.bundle import load_keras

    xml, _ = quantise(convert(load_keras(bundle), bundle), bundle, samples)
    assert xml.count(b'type="FakeQuantize"') >= 8
    with pytest.raises(ModelError, match="No scan of the training split"):
        quantise(convert(load_keras(bundle), bundle), bundle, [])


@pytest.mark.parametrize("published", [True, pytest.param(False, marks=pytest.mark.long)])
def test_int8_is_published_as_it_was_judged(
    bundle: Bundle, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, published: bool
) -> None:
    judged: list[tuple[float, float]] = []
    monkeypatch.setattr(judge, "good_enough", lambda *figures: judged.append(figures) or published)
    exported = export(bundle.url, samples, samples)
    found = exported.inference["int8"]
    (dice,) = ({name: of for name, of in found["mean_dice"].items() if name != "int8"},)
    drops = [value - found["mean_dice"]["int8"][region] for region, value in next(iter(dice.values())).items()]
    assert judged[0][0] == pytest.approx(max(drops), abs=1e-4)
    assert found["published"] is published
    assert (set(INT8_FILES) <= set(exported.files)) is published
    assert (exported.inference["precision"] == "int8") is published
    exported.verify()
    if published:
        packed = PredictorSpec(bundle.url).pack()
        assert packed.spec.precision == "int8"
        assert packed.open(1).segment(samples[0].scan, samples[0].slices).labels.any()
        assert set(INT8_FILES).isdisjoint(export(bundle.url).files), "a plain export takes INT8 back"
    else:
        with pytest.raises(ModelError, match="export --int8"):
            PredictorSpec(bundle.url, precision="int8").pack()


def test_int8_needs_a_truth_to_be_judged_by(bundle: Bundle) -> None:
    unlabelled = [sample(20, labelled=False)]
    found = export(bundle.url, unlabelled, unlabelled).inference
    assert found["int8"] == {"published": False, "reason": "no labelled validation scans to measure Dice on"}
