"""Local, Orca and Horovod training behind one contract."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segpipe import registry
from segpipe.errors import ModelError, SegpipeError, UsageError
from segpipe.registry import TRAINERS
from segpipe.settings import TrainSettings
from segpipe.traces import first_line
from segpipe.trainers.follow import followed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.models.bundle import Bundle
    from segpipe.trainers.contract import TrainPlan
    from segpipe.warehouse.runs import RunRecord

__all__ = ["TRAINERS", "train"]

_MEMBERS = "members"  # the folder, in a model directory, of its further networks
_REASON_LENGTH = 200
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
    from segpipe.trainers.keep import keep
    from segpipe.trainers.plan import make_plan, slices_plan

    on_spark = TRAINERS[settings.trainer].on_spark
    if on_spark and spark is None:
        raise UsageError(f"Trainer {settings.trainer} needs a Spark session", "pass one, or use --trainer local")
    with run.stage("plan"):
        standing = _standing(settings.model)
        settings = _as_it_stands(settings, standing)
        planned = member_plans(make_plan(_as_long_as_it_was(settings, standing)))
        volumes = len(planned)
        if planned[0].settings.slices:
            planned += member_plans(slices_plan(settings))
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
            bundle = keep(plans[:volumes], keep(plans[volumes:]) if plans[volumes:] else None)
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


def _as_it_stands(settings: "TrainSettings", standing: "Bundle | None") -> "TrainSettings":
    """The settings, and where nobody says how the network looks, and of how many, as the model that stands already.

    Another version has another default: a command that is given again must not make another model of a finished one.
    """
    if standing is None:
        return settings
    network = standing.network
    mirror = network.get("mirror") if settings.mirror is None else settings.mirror
    slices = standing.has_slices if settings.slices is None else settings.slices
    return replace(settings, mirror=mirror, quality=settings.quality or network.get("quality"), slices=slices)


def _as_long_as_it_was(settings: "TrainSettings", standing: "Bundle | None") -> "TrainSettings":
    """The settings, and where nobody says how long to train, as long as the 3D model that stands already was trained.

    Without a 2D network beside it the default is longer, but a finished one takes that up or leaves it as it is.
    """
    if settings.epochs is not None or standing is None or standing.network.get("pool", 1) == 1:
        return settings
    return replace(settings, epochs=standing.training.get("epochs"))


def _standing(url: str) -> "Bundle | None":
    """The model that stands in a directory, if there is one that is not refused."""
    from segpipe.models.bundle import Bundle

    try:
        return Bundle.load(url)
    except SegpipeError:
        return None


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
    with followed(plan, progress, title) as tell:
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
                        f"The workers failed {attempt + 1} times, the last time with: {reason_of(error)}", _GO_ON
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


def _slices_seen(model: str) -> int:
    from segpipe.storage.model_directory import read_history

    return round(sum(row["images_per_second"] * row["seconds"] for row in read_history(model)))
