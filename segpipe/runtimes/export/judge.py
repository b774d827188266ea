"""Which precision a model is run in: measured beside Keras, on scans that the model has not learnt from."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np

from segpipe.core import metrics
from segpipe.core.prediction import Predictor, Sample
from segpipe.core.regions import CONVENTIONS, to_regions
from segpipe.errors import ModelError
from segpipe.models.bundle import Bundle

LEAST_AGREEMENT = 0.999
"""Share of a scan's voxels whose label must be that of Keras, for every scan."""

MOST_DICE_DROP = 0.002
"""What a region's Dice, the mean over patients, may lose by INT8."""

LEAST_GAIN = 1.05
"""How many times as fast a less exact precision must be: less is noise."""

_ROUNDS = 3
_TIMED_SCANS = 4
_BATCH = 8


@dataclass(eq=False)
class Trial:
    """What a predictor makes of some scans: label maps by scan_id, and slices per second where it was timed."""

    labels: dict[str, np.ndarray] = field(default_factory=dict)
    slices_per_second: float = 0.0


def choose(bundle: Bundle, contents: tuple[bytes, ...], samples: Sequence[Sample]) -> tuple[dict[str, Any], Trial]:
    """What a bundle is to record as `inference`: bfloat16 where it is faster and agrees with Keras, else float32.

    `contents` is the IR. What it makes of the samples in that precision is given too. Raises ModelError if float32
    itself does not agree, because then the conversion is wrong.
    """
    if not samples:
        return {"precision": "float32", "reason": "no validation scans to measure bfloat16 on"}, Trial({})
    from segpipe.runtimes.openvino import has_bfloat16, on_ir

    threads = len(os.sched_getaffinity(0))
    exact = on_ir(contents, bundle, threads, "float32", _BATCH)
    keras = _run(_keras(bundle, threads), samples)
    if has_bfloat16():
        trials = race({"float32": exact, "bfloat16": on_ir(contents, bundle, threads, "bfloat16", _BATCH)}, samples)
    else:
        trials = {"float32": _run(exact, samples)}
    agreement = {name: _agreement(trial, keras) for name, trial in trials.items()}
    speed = {name: trial.slices_per_second for name, trial in trials.items() if trial.slices_per_second}
    precision, reason = decide(bundle.url, agreement, speed)
    told = {
        "precision": precision,
        "reason": reason,
        "scans": len(samples),
        "least_agreement_with_keras": {name: round(share, 6) for name, share in agreement.items()},
        "slices_per_second": {name: round(number, 1) for name, number in speed.items()},
        "threads": threads,
    }
    return told, trials[precision]


def decide(url: str, agreement: Mapping[str, float], speed: Mapping[str, float]) -> tuple[str, str]:
    """The precision to run model `url` in, and why.

    `agreement` has for `float32`, and for `bfloat16` where the processor computes in it, the least share of a scan's
    voxels that are labelled as by Keras; `speed` has the slices per second of both. Raises ModelError if float32
    does not agree.

    >>> decide("m", {"float32": 1.0, "bfloat16": 0.9985}, {"float32": 10.0, "bfloat16": 19.0})
    ('float32', 'bfloat16 agrees with Keras on 99.8500% of the voxels of a scan, less than 99.9%')
    >>> decide("m", {"float32": 1.0}, {})[0]
    'float32'
    """
    told = {
        name: f"{share:.4%} of the voxels of a scan, less than {LEAST_AGREEMENT:.1%}"
        for name, share in agreement.items()
    }
    if agreement["float32"] < LEAST_AGREEMENT:
        raise ModelError(
            f"OpenVINO's masks of model {url} agree with Keras on {told['float32']}",
            "segment with --runtime keras, and report this as a bug of segpipe",
        )
    if "bfloat16" not in agreement:
        return "float32", (
            "the processor that exported does not compute in bfloat16; export on one that does, or give segment"
            " --precision bfloat16"
        )
    if agreement["bfloat16"] < LEAST_AGREEMENT:
        return "float32", f"bfloat16 agrees with Keras on {told['bfloat16']}"
    gain = speed["bfloat16"] / speed["float32"]
    if gain < LEAST_GAIN:
        return "float32", f"bfloat16 is {gain:.2f} times as fast, which is not worth it"
    return "bfloat16", f"{gain:.2f} times as fast as float32"


def judge_int8(
    bundle: Bundle,
    contents: tuple[bytes, bytes],
    int8: tuple[bytes, bytes],
    precision: str,
    samples: Sequence[Sample],
) -> dict[str, Any]:
    """Whether an INT8 IR may be published beside the IR in the chosen precision, and the figures that decide it."""
    labelled = [sample for sample in samples if sample.label_convention in CONVENTIONS]
    if not labelled:
        return {"published": False, "reason": "no labelled validation scans to measure Dice on"}
    from segpipe.runtimes.openvino import on_ir

    threads = len(os.sched_getaffinity(0))
    default, quantised = (
        on_ir(ir, bundle, threads, name, _BATCH) for ir, name in ((contents, precision), (int8, "int8"))
    )
    trials = race({precision: default, "int8": quantised}, labelled)
    dice = {name: mean_dice(bundle, trial, labelled) for name, trial in trials.items()}
    if not dice["int8"]:
        return {"published": False, "reason": "no validation scan has a voxel of a region of the model"}
    drops = {region: dice[precision][region] - dice["int8"][region] for region in dice["int8"]}
    worst = max(drops, key=lambda region: drops[region])
    gain = trials["int8"].slices_per_second / trials[precision].slices_per_second
    reason = f"{gain:.2f} times as fast as {precision}, Dice of {worst} falls by {drops[worst]:.4f}"
    return {
        "published": good_enough(drops[worst], gain),
        "reason": f"{reason}; needed are {LEAST_GAIN} times and at most {MOST_DICE_DROP}",
        "scans": len(labelled),
        "mean_dice": {name: {region: round(value, 5) for region, value in of.items()} for name, of in dice.items()},
        "slices_per_second": {name: round(trial.slices_per_second, 1) for name, trial in trials.items()},
        "threads": threads,
    }


def good_enough(drop: float, gain: float) -> bool:
    """Whether INT8 may be published that loses `drop` of a region's Dice and is `gain` times as fast.

    >>> good_enough(0.002, 1.3), good_enough(0.0021, 1.3), good_enough(-0.01, 1.0)
    (True, False, False)
    """
    return drop <= MOST_DICE_DROP and gain >= LEAST_GAIN


def _keras(bundle: Bundle, threads: int) -> Predictor:
    from segpipe.runtimes import keras
    from segpipe.runtimes.contract import PredictorSpec

    packed = PredictorSpec(bundle.url, "keras", _BATCH).pack()
    return keras.predictor(replace(packed, bundle=bundle), threads)  # as it is to be, not as it stands


def _run(predictor: Predictor, samples: Sequence[Sample]) -> Trial:
    return Trial({sample.scan_id: predictor.segment(sample.scan, sample.slices).labels for sample in samples})


def race(predictors: dict[str, Predictor], samples: Sequence[Sample]) -> dict[str, Trial]:
    """The trials of all predictors: all scans once, which also warms up, then some of them in turn against the clock.

    The slices of a scan are held in memory while it is timed, so that reading them is not.
    """
    trials = {name: _run(predictor, samples) for name, predictor in predictors.items()}
    best = dict.fromkeys(predictors, 0.0)
    for sample in samples[:_TIMED_SCANS]:
        batches = list(sample.slices)
        slices = sum(len(indices) for indices, _ in batches)
        for _ in range(_ROUNDS):
            for name, predictor in predictors.items():
                start = time.perf_counter()
                predictor.segment(sample.scan, batches)
                best[name] = max(best[name], slices / (time.perf_counter() - start))
    for name, trial in trials.items():
        trial.slices_per_second = best[name]
    return trials


def _agreement(trial: Trial, keras: Trial) -> float:
    """The least share of equal voxels over the scans."""
    return min(float((labels == keras.labels[scan_id]).mean()) for scan_id, labels in trial.labels.items())


def mean_dice(bundle: Bundle, trial: Trial, samples: Sequence[Sample]) -> dict[str, float]:
    """Dice per region, the mean over the patients where truth or prediction has a voxel."""
    found: dict[str, list[float]] = {}
    for sample in samples:
        if sample.slices.truth is None:
            continue
        known = CONVENTIONS[str(sample.label_convention)]
        predicted = to_regions(trial.labels[sample.scan_id], CONVENTIONS[bundle.label_convention]).astype(bool)
        true = to_regions(sample.slices.truth, known).astype(bool)
        for place, region in enumerate(bundle.regions):
            if region in known.region_names:
                truth = true[..., known.region_names.index(region)]
                value = metrics.dice(*metrics.counts(predicted[..., place], truth))
                if not np.isnan(value):
                    found.setdefault(region, []).append(value)
    return {region: fmean(values) for region, values in found.items()}
