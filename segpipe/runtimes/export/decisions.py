"""Where each region's probabilities are cut, and what is too small to be one: chosen on labelled scans."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from segpipe.core import brightness, cleaning, cutting, evidence
from segpipe.core.brightness import Found, Least, Passing, channels_of
from segpipe.core.cleaning import Choice, PredictedScan
from segpipe.core.cutting import Levels, Tally
from segpipe.core.evidence import Evidence
from segpipe.core.patients import LEAST_PATIENTS, patient_numbers
from segpipe.core.prediction import Sample
from segpipe.core.regions import CONVENTIONS, LabelConvention, to_labels, to_regions
from segpipe.core.runs import Runs, region_runs
from segpipe.models.bundle import Bundle, load_keras
from segpipe.runtimes.export.convert import convert
from segpipe.runtimes.mixed import MixedPredictor
from segpipe.runtimes.network import convention
from segpipe.runtimes.openvino import on_ir
from segpipe.runtimes.slicewise import SlicewisePredictor
from segpipe.runtimes.tiled import TiledPredictor

_BATCH = 8
_FIELDS = ("thresholds", "cleaning", "presence", "evidence", "brightness")


@dataclass(frozen=True)
class Decisions:
    """What becomes of probabilities: per region a threshold, least volumes of components and of the whole, ml, what its
    parts must hold inside, and how bright it must be.

    Regions that keep the threshold of the training, or in which nothing is too small, are not among them. `told` has
    the figures behind it.
    """

    thresholds: dict[str, float] = field(default_factory=dict)
    cleaning: dict[str, float] = field(default_factory=dict)
    presence: dict[str, float] = field(default_factory=dict)
    evidence: dict[str, float] = field(default_factory=dict)
    brightness: dict[str, float] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, dict[str, float]]:
        """As a bundle states them."""
        return {name: getattr(self, name) for name in _FIELDS}


def choose_decisions(
    bundle: Bundle,
    contents: tuple[bytes, ...],
    precision: str,
    validation: Sequence[Sample],
    learnt: Sequence[Sample] = (),
    cut: bool = True,
    clean: bool = True,
) -> Decisions:
    """Where each region is cut, if `cut`, and what is left out, if `clean`, by the labelled scans.

    Each scan goes through the network once; see `cutting`, `brightness`, `evidence` and `cleaning` of `segpipe.core`
    for the rules. Scans whose labels do not tell of all regions of the model are left out. Where there are too few
    patients to choose by, none goes, and `told` says so under `undecided`; so too where no labelled patient is of the
    validation.
    """
    mine = convention(bundle)
    seen = [(sample, known) for sample in (*validation, *learnt) if (known := _tells(sample, mine)) is not None]
    if not (cut or clean):
        return Decisions()
    if (number := len(set(patient_numbers([sample.subject for sample, _ in seen]).tolist()))) < LEAST_PATIENTS:
        return Decisions(told={"undecided": f"{number} labelled patients to choose by, fewer than {LEAST_PATIENTS}"})
    network = prober(contents, bundle, len(os.sched_getaffinity(0)), precision, _BATCH)
    grid = cutting.grid_with(bundle.threshold)
    unseen = {sample.scan_id for sample in validation}
    channels = channels_of(bundle.modalities, bundle.regions)
    found = []
    for sample, known in seen:
        passing = Passing(sample.scan, channels)
        box, probability = network.probability(sample.scan, passing.of(sample.slices))
        if (truth := sample.slices.truth) is not None:
            levels = Levels.of(sample.scan.shape, box, probability, grid)
            voxel_ml = math.prod(sample.scan.spacing_mm) / 1000
            one = Labelled.of(levels, truth, known, mine, voxel_ml, sample.scan_id in unseen, sample.subject)
            bright = {region: passing.brightness(region, levels.places) for region in channels}
            found.append(replace(one, bright=bright))
    return decisions(found, mine, bundle.threshold, cut, clean)


@dataclass(frozen=True, eq=False)
class Labelled:
    """What a model says of a scan beside its labels: levels, what is to be chosen by, true regions, ml of a voxel.

    `bright` says how bright the voxels of `levels` are, (n,), for regions of which the model sees images that tell it.
    """

    levels: Levels
    tally: Tally
    truth: Mapping[str, Runs]
    voxel_ml: float
    bright: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        levels: Levels,
        truth: np.ndarray,
        known: LabelConvention,
        mine: LabelConvention,
        voxel_ml: float,
        unseen: bool,
        patient: str = "",
    ) -> Labelled:
        """`truth` (slices, rows, columns) is in the convention `known`, which states the regions of `mine`."""
        places = [known.region_names.index(region) for region in mine.regions]
        tally = levels.tally(to_regions(truth, known)[..., places].astype(bool), unseen, patient)
        return cls(levels, tally, region_runs(truth, known.regions), voxel_ml)

    def lit(self, region: str, mine: LabelConvention, trained: float) -> Found:
        """What is found of a region that is to be bright, with the threshold of the training."""
        labels = to_labels(self.levels.levels > self.levels.grid.index(trained), mine)
        found = np.isin(labels, mine.regions[region])
        own = labels[found] == mine.paint[mine.region_names.index(region)]
        true = self._true(region).reshape(-1)[self.levels.places[found]]
        missed = self.truth[region].voxels - int(true.sum())
        bright = np.where(own, self.bright[region][found], np.float32(np.inf))
        return Found(bright, true, missed, self.tally.unseen, self.tally.patient)

    def without_dull(self, mine: LabelConvention, least: Mapping[str, float]) -> Labelled:
        """The same with nothing of a region that is as dull as its `least` or duller and in no region inside it."""
        levels = self.levels
        for region, bound in least.items():
            levels = levels.without(mine.region_names.index(region), ~(self.bright[region] > bound))
        true = np.stack([self._true(region) for region in mine.regions], axis=-1)
        return replace(self, levels=levels, tally=levels.tally(true, self.tally.unseen, self.tally.patient))

    def _true(self, region: str) -> np.ndarray:
        return self.truth[region].dense([slice(0, length) for length in self.levels.shape])


def decisions(
    scans: Sequence[Labelled], mine: LabelConvention, trained: float, cut: bool = True, clean: bool = True
) -> Decisions:
    """What is chosen on these scans for a model that was trained with one threshold.

    What is too dull goes first, because the thresholds are then those of what is left.
    """
    lit: dict[str, Least] = {}
    if clean and scans:
        lit = {one: brightness.choose([scan.lit(one, mine, trained) for scan in scans]) for one in scans[0].bright}
    bounds = {region: one.least for region, one in lit.items() if one.least is not None}
    if bounds:
        scans = [scan.without_dull(mine, bounds) for scan in scans]
    cuts = cutting.choose([scan.tally for scan in scans], mine, trained) if cut and scans else {}
    at = [cuts[region].threshold if cuts else trained for region in mine.regions]
    held, choices = _left_out(scans, at, mine) if clean else ({}, {})
    figures: dict[str, Any] = {
        name: {region: asdict(one) for region, one in many.items()}
        for name, many in (("brightness", lit), ("thresholds", cuts), ("cleaning", choices), ("evidence", held))
        if many
    }
    if cuts and not any(scan.tally.unseen for scan in scans):
        figures["undecided"] = "no labelled patient of the validation, so that each region is cut as it was trained"
    return Decisions(
        {region: one.threshold for region, one in cuts.items() if one.threshold != trained},
        {region: one.least_ml for region, one in choices.items() if one.least_ml},
        {region: one.presence_ml for region, one in choices.items() if one.presence_ml},
        {region: one.share for region, one in held.items() if one.share},
        bounds,
        figures,
    )


def _left_out(
    scans: Sequence[Labelled], at: Sequence[float], mine: LabelConvention
) -> tuple[dict[str, Evidence], dict[str, Choice]]:
    """What a part of a region must hold, and how large it must be, for regions that are cut `at` these thresholds."""
    found = [
        PredictedScan.of(scan.levels.labels(at, mine), scan.truth, scan.voxel_ml, scan.tally.patient)
        for scan in scans
        if scan.voxel_ml
    ]
    if not found:
        return {}, {}
    held = evidence.choose(found, mine)
    shares = {region: one.share for region, one in held.items()}
    supported = [replace(scan, labels=evidence.keep_supported(scan.labels, mine, shares)) for scan in found]
    return held, cleaning.choose(supported, mine)


def _tells(sample: Sample, mine: LabelConvention) -> LabelConvention | None:
    """What the labels of a scan mean, if they tell of all regions of a model."""
    known = CONVENTIONS.get(sample.label_convention or "")
    return known if known is not None and set(mine.regions) <= set(known.regions) else None


def prober(
    contents: tuple[bytes, ...], bundle: Bundle, threads: int, precision: str, batch_size: int
) -> TiledPredictor | SlicewisePredictor | MixedPredictor:
    """A predictor that gives probabilities, for a bundle whose IR is `contents`; a 2D one is converted again for it."""
    if bundle.network["dimensions"] != 3:
        contents = convert(load_keras(bundle), bundle, with_probability=True)
    found = on_ir(contents, bundle, threads, precision, batch_size)
    assert isinstance(found, TiledPredictor | SlicewisePredictor | MixedPredictor)  # adopted networks are not exported
    return found
