"""Local, Orca and Horovod training behind one contract."""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from segpipe import registry
from segpipe.errors import ModelError, SegpipeError, UsageError
from segpipe.registry import TRAINERS
from segpipe.settings import NetworkSettings, TrainSettings
from segpipe.traces import first_line

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.models.bundle import Bundle
    from segpipe.trainers.checkpoints import Checkpoint
    from segpipe.trainers.contract import TrainPlan
    from segpipe.warehouse.runs import RunRecord

__all__ = ["TRAINERS", "train"]

_POLL_SECONDS = 1.0
_MEMBERS = "members"  # the folder, in a model directory, of its further networks
_RECENT_EPOCHS = 5  # the time left is told from these
_REASON_LENGTH = 200
_NOT_OF_THE_MODEL = ("warehouse", "model", "lock_wait_seconds", "ports")
_GO_ON = "see why with --verbose; the same command goes on from the last checkpoint"


def train(
    settings: TrainSettings,
    spark: "SparkSession | Callable[[], SparkSession] | None",
    run: "RunRecord",
    progress: Callable[[int, str], AbstractContextManager[Any]] | None = None,
) -> "Bundle":
    """Train on a cohort's slices and give the bundle that came of it.

    Goes on from the newest checkpoint in the model directory, and starts a failed group of workers again from there up
    to `retries` times. `spark` may be None for trainer local. Everything that can be refused is refused before workers
    start, and what needs no session before there is one, where `spark` is a function that starts it. Raises
    WarehouseBusy where another job trains this model.
    """
    from segpipe.storage.lock import lock
    from segpipe.trainers.cluster import check_cluster
    from segpipe.trainers.plan import make_plan

    on_spark = TRAINERS[settings.trainer].on_spark
    if on_spark and spark is None:
        raise UsageError(f"Trainer {settings.trainer} needs a Spark session", "hand one in, or use --trainer local")
    with run.stage("plan"):
        planned = member_plans(make_plan(_as_it_stands(settings)))
        plans = [resumed(plan) for plan in planned]
    session: Any = None
    if on_spark and not all(plan.finished for plan in plans):
        session = spark() if callable(spark) else spark
        check_cluster(session.sparkContext.getConf(), settings.workers)
    with lock(settings.model, "train", settings.lock_wait_seconds, run.run_id) as fence:
        plans = [replace(resumed(plan), fence=fence) for plan in planned]  # by now, whoever held the lock got further
        with run.stage("train"):
            for number, plan in enumerate(plans, 1):
                of_them = f", network {number} of {len(plans)}" if len(plans) > 1 else ""
                _train_to_end(plan, session, run, progress, f"train ({settings.trainer}{of_them})")
        with run.stage("save"):
            bundle = _save(plans)
    run.model_id = bundle.model_id
    run.lines.append(bundle.seal_line)
    if left_out := plans[0].left_out:
        run.count("scans_left_out", len(left_out))
        run.lines.append(f"{len(left_out)} scans that lack a modality were left out, such as {left_out[0]}")
    run.count("slices_seen", sum(_slices_seen(plan.settings.model) for plan in plans))
    return bundle


def member_plans(plan: "TrainPlan") -> list["TrainPlan"]:
    """A plan for each network of a model, the given one first.

    The first is what a model of standard quality is, seed and place included. Each further one has the next seed and a
    directory of its own inside of the model's.
    """
    from segpipe.storage.filesystem import join

    settings = plan.settings
    further = [
        replace(settings, seed=settings.seed + more, model=join(settings.model, _MEMBERS, str(more + 1)))
        for more in range(1, settings.members)
    ]
    return [plan, *(replace(plan, settings=one) for one in further)]


def _as_it_stands(settings: "TrainSettings") -> "TrainSettings":
    """The settings, and where nobody says how the network looks, and of how many, as the model that stands already.

    Another version has another default: a command that is given again must not make another model of a finished one.
    """
    from segpipe.models.bundle import Bundle

    try:
        standing = Bundle.load(settings.model).network
    except SegpipeError:
        return settings  # none yet, or one that is refused or made again below
    mirror = standing.get("mirror") if settings.mirror is None else settings.mirror
    return replace(settings, mirror=mirror, quality=settings.quality or standing.get("quality"))


def resumed(plan: "TrainPlan") -> "TrainPlan":
    """The plan, going on from the newest checkpoint of its model directory.

    Raises ModelError if that directory holds another training or a model without checkpoints.
    """
    from segpipe.trainers import checkpoints
    from segpipe.trainers.identity import check_identity

    model = plan.settings.model
    positions = checkpoints.positions(model)
    if not positions:
        _refuse_foreign_model(model)
        return plan
    meta = checkpoints.read_meta(model, positions[-1])
    check_identity(plan, meta["identity"])
    return replace(
        plan,
        initial_epoch=positions[-1].epoch,
        initial_step=positions[-1].step,
        initial_loss=meta["epoch_loss"],
        initial_seconds=meta["epoch_seconds"],
        history=tuple(meta["history"]),
        finished=meta["finished"],
    )


def _refuse_foreign_model(url: str) -> None:
    from segpipe.storage.filesystem import filesystem, join

    fs, folder = filesystem(url)
    if fs.exists(join(folder, "bundle.json")):
        raise ModelError(f"Model directory {url} holds a finished model without checkpoints", "give another --model")


def _train_to_end(plan: "TrainPlan", spark: Any, run: "RunRecord", progress: Any, title: str) -> None:
    from segpipe.trainers.cluster import await_slots
    from segpipe.trainers.records import take_failure

    row = TRAINERS[plan.settings.trainer]
    trainer = registry.module(row.module)
    take_failure(plan.settings.model)
    with _followed(plan, progress, title) as tell:
        for attempt in range(plan.settings.retries + 1):
            if plan.finished:
                return
            if row.on_spark:
                await_slots(spark, plan.settings.workers)
            try:
                trainer.train(plan, spark)
            except Exception as error:
                plan.check_fence()  # else what another job has left word of would be taken for ours
                if reason := take_failure(plan.settings.model):
                    raise reason from error
                if isinstance(error, SegpipeError) or not row.on_spark:
                    raise
                _ = spark.version  # raises where Spark's JVM is gone, which no retry mends
                if attempt == plan.settings.retries:
                    raise SegpipeError(
                        f"The workers failed {attempt + 1} times, at last with: {reason_of(error)}", _GO_ON
                    ) from error
                run.count("retries")
                tell(_lost(error, resumed(plan)))
            plan = resumed(plan)


def _lost(error: Exception, plan: "TrainPlan") -> str:
    """What failed, in a line, and where the training goes on."""
    inside = f", step {plan.initial_step + 1}" if plan.initial_step else ""
    return f"workers lost ({reason_of(error)}), going on in epoch {plan.initial_epoch + 1}{inside}"


def reason_of(error: Exception) -> str:
    """The error in a worker in a line where there is one, else the first line of what Spark or Horovod says."""
    reason = first_line(error)
    return reason if len(reason) <= _REASON_LENGTH else f"{reason[: _REASON_LENGTH - 1]}…"


@contextmanager
def _followed(plan: "TrainPlan", progress: Any, title: str) -> Iterator[Callable[[str], None]]:
    """Show each epoch when it stands in history.csv: workers on other machines have no other way to tell."""
    from segpipe.storage.model_directory import read_history

    if progress is None or plan.finished:
        yield lambda line: None
        return
    stop = threading.Event()
    shown = plan.initial_epoch
    with progress(plan.epochs, title) as bar:
        bar.begin_at(shown)

        def show() -> None:
            nonlocal shown
            rows = read_history(plan.settings.model)
            for place in range(shown, len(rows)):
                bar.advance()
                bar.tell(epoch_line(rows[: place + 1], plan.epochs, plan.coarse_epochs))
            shown = max(shown, len(rows))

        def follow() -> None:
            while not stop.wait(_POLL_SECONDS):
                show()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield bar.tell
        finally:
            stop.set()
            thread.join()
            show()


def epoch_line(rows: Sequence[Mapping[str, float]], epochs: int, coarse_epochs: int = 0) -> str:
    """The last epoch of a history in a line: loss, validation Dice per region, speed, and how long the rest takes."""
    row = rows[-1]
    scores = [
        f"{name.removeprefix('dice_')} {value:.3f}"
        for name, value in row.items()
        if name.startswith("dice_") and value == value
    ]
    dice = f"  Dice {', '.join(scores)}" if scores else ""
    done = len(rows)
    recent = range(max(0, done - _RECENT_EPOCHS), done)
    seconds = sum(rows[epoch]["seconds"] + rows[epoch]["validation_seconds"] for epoch in recent)
    seconds *= _pixels(range(done, epochs), coarse_epochs) / _pixels(recent, coarse_epochs)
    left = f"  {_duration(seconds)} left" if done < epochs else ""
    speed = f"{row['images_per_second']:.3g} images/s"
    return f"epoch {done} of {epochs}  loss {row['loss']:.3f}{dice}  {speed}{left}"


def _pixels(epochs: range, coarse_epochs: int) -> int:
    """How many pixels some epochs show, in units of what a coarse one does."""
    return sum(1 if epoch < coarse_epochs else 4 for epoch in epochs)


def _duration(seconds: float) -> str:
    """About how long, in the unit that a person would take.

    >>> _duration(42), _duration(600), _duration(20_000)
    ('42 s', '10 min', '5.6 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _save(plans: Sequence["TrainPlan"]) -> "Bundle":
    """The bundle of the epochs that are kept; the one that stands already, where it is that."""
    from segpipe.models.bundle import Bundle, save_bundle, weights_sha256
    from segpipe.storage.model_directory import HISTORY, history_bytes
    from segpipe.trainers.network import trained_network
    from segpipe.trainers.pooled import tile_shape
    from segpipe.warehouse.runs import versions

    plan, settings = plans[0], plans[0].settings
    kept = [_kept(each) for each in plans]
    convention = plan.convention
    model = trained_network(plan, [each.weights for each in kept])
    bundle = Bundle(
        url=settings.model,
        modalities=plan.modalities,
        orientation=plan.orientation,
        crop=tile_shape(plan),
        multiple=settings.pool << settings.depth,
        label_convention=convention.name,
        labels={str(label): name for label, name in convention.labels.items()},
        regions=dict(convention.regions),
        network=_network(settings),
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
    return save_bundle(bundle, model, {HISTORY: history_bytes(_newest(settings.model)["history"])})


def _network(settings: TrainSettings) -> dict[str, Any]:
    """What the bundle says of its network; a single one says nothing of members, as in earlier versions."""
    said = {field.name: getattr(settings, field.name) for field in fields(NetworkSettings)}
    return said if settings.members > 1 else {name: value for name, value in said.items() if name != "quality"}


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


def _kept(plan: "TrainPlan") -> "Checkpoint":
    """The checkpoint of the epoch that becomes the model."""
    from segpipe.trainers import checkpoints

    model = plan.settings.model
    return checkpoints.read(model, checkpoints.Position(_kept_epoch(_newest(model), plan.epochs)))


def _newest(model: str) -> "Mapping[str, Any]":
    """What the newest checkpoint of a training says of itself."""
    from segpipe.trainers import checkpoints

    return checkpoints.read_meta(model, checkpoints.positions(model)[-1])


def _kept_epoch(meta: "Mapping[str, Any]", epochs: int) -> int:
    """The epoch whose weights become the model, of a training of so many that has ended.

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


def _slices_seen(model: str) -> int:
    from segpipe.storage.model_directory import read_history

    return round(sum(row["images_per_second"] * row["seconds"] for row in read_history(model)))
