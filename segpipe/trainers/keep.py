"""What is kept of a training that has ended: the model directory that the other jobs take."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from statistics import fmean
from typing import TYPE_CHECKING, Any

from segpipe.errors import ModelError
from segpipe.settings import NetworkSettings, TrainSettings

if TYPE_CHECKING:
    from segpipe.models.bundle import Bundle
    from segpipe.trainers.checkpoints import Checkpoint
    from segpipe.trainers.contract import TrainPlan

_NOT_OF_THE_MODEL = ("warehouse", "model", "lock_wait_seconds", "ports")


def keep(plans: Sequence["TrainPlan"], slices: "Bundle | None" = None) -> "Bundle":
    """The bundle of the epochs that are kept; the one that stands already, where it is that.

    `slices` is that of the 2D network that answers together with it.
    """
    from segpipe.models.bundle import Bundle, save_bundle, weights_sha256
    from segpipe.storage.model_directory import HISTORY, history_bytes
    from segpipe.trainers.network import trained_network
    from segpipe.warehouse.runs import versions

    plan, settings = plans[0], plans[0].settings
    newest = [_newest(each) for each in plans]
    kept = [_kept(each, last) for each, last in zip(plans, newest, strict=True)]
    convention = plan.convention
    model = trained_network(plan, [each.weights for each in kept])
    bundle = Bundle(
        url=settings.model,
        modalities=plan.modalities,
        orientation=plan.orientation,
        crop=plan.crop,
        multiple=settings.pool << settings.depth,
        label_convention=convention.name,
        labels={str(label): name for label, name in convention.labels.items()},
        regions=dict(convention.regions),
        network=_network(settings) | ({"beside": slices.trained_as} if slices else {}),
        training={name: value for name, value in asdict(settings).items() if name not in _NOT_OF_THE_MODEL},
        cohort=settings.cohort,
        split_rule=plan.split_rule,
        space=plan.space,
        subjects={
            split: len({plan.scans[s].subject for s in plan.of_split(split)}) for split in ("train", "validation")
        },
        metrics=_metrics(kept, plan.regions),
        threshold=settings.threshold,
        weights_sha256=weights_sha256(model.get_weights()),
        versions=versions(),
    )
    try:
        standing = Bundle.load(settings.model).verify()
        if standing.trained_as == bundle.fingerprint:
            return standing
    except ModelError:
        pass  # none yet, or one that a kill left half-written
    files = {HISTORY: history_bytes(newest[0].meta["history"])}
    return save_bundle(bundle, model, files | (slices.beside() if slices else {}))


def _network(settings: TrainSettings) -> dict[str, Any]:
    """What the bundle says of its network: of what earlier versions do not know, only what it has."""
    later = {"slices": False, "quality": settings.members > 1, "neighbours": bool(settings.neighbours)}
    return {
        field.name: getattr(settings, field.name) for field in fields(NetworkSettings) if later.get(field.name, True)
    }


def _metrics(kept: Sequence["Checkpoint"], regions: Sequence[str]) -> dict[str, Any]:
    """Loss and validation Dice of the epochs that are kept, the mean over a model's networks."""
    rows = [each.meta["history"][each.position.epoch - 1] for each in kept]
    scans = [each.meta["scores"] for each in kept]
    return {
        "epoch": kept[0].position.epoch,
        "loss": fmean(row["loss"] for row in rows),
        "validation_dice": {region: _mean(row[f"dice_{region}"] for row in rows) for region in regions},
        "validation_dice_by_scan": {
            scan: {region: _mean(scores[scan][region] for scores in scans) for region in scans[0][scan]}
            for scan in scans[0]
        },
    }


def _newest(plan: "TrainPlan") -> "Checkpoint":
    """The checkpoint that a training has ended with."""
    from segpipe.trainers import checkpoints

    model = plan.settings.model
    return checkpoints.read(model, checkpoints.positions(model)[-1])


def _kept(plan: "TrainPlan", newest: "Checkpoint") -> "Checkpoint":
    """The checkpoint of the epoch that becomes the model."""
    from segpipe.trainers import checkpoints

    position = checkpoints.Position(_kept_epoch(newest.meta, plan.epochs))
    return newest if position == newest.position else checkpoints.read(plan.settings.model, position)


def _kept_epoch(meta: "Mapping[str, Any]", epochs: int) -> int:
    """The epoch whose weights become the model, once a training of that many has ended.

    It is the last, when the learning rate has come down, as in nnU-Net (Isensee et al. 2021, doi
    10.1038/s41592-020-01008-z): on a few patients who validate, it is chance that makes one epoch the best. Where
    patience ended the training before, it is the one with the best validation Dice.

    >>> meta = {"history": [{}, {}], "best_epoch": 1}
    >>> _kept_epoch(meta, epochs=2), _kept_epoch(meta, epochs=3)
    (2, 1)
    """
    done = len(meta["history"])
    return done if done == epochs else int(meta["best_epoch"])


def _mean(values: Iterable[float]) -> float | None:
    mean = fmean(values)
    return None if math.isnan(mean) else mean
