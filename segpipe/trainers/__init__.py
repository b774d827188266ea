"""Local, Orca and Horovod training behind one contract."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from segpipe.errors import ModelError, SegpipeError, UsageError
from segpipe.settings import TRAINERS, NetworkSettings, TrainSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.models.bundle import Bundle
    from segpipe.trainers.contract import TrainPlan
    from segpipe.warehouse.runs import RunRecord

__all__ = ["TRAINERS", "train"]

_POLL_SECONDS = 1.0


def train(
    settings: TrainSettings,
    spark: "SparkSession | None",
    run: "RunRecord",
    progress: Callable[[int, str], AbstractContextManager[Any]] | None = None,
) -> "Bundle":
    """Train on a cohort's slices and give the bundle that came of it.

    Goes on from the newest checkpoint in the model directory, and starts a failed group of workers again from there up
    to `retries` times. `spark` may be None for trainer local. Everything that can be refused is refused before workers
    start.
    """
    from segpipe.trainers.cluster import check_cluster
    from segpipe.trainers.plan import make_plan

    if settings.trainer != "local":
        if spark is None:
            raise UsageError(f"Trainer {settings.trainer} needs a Spark session", "hand one in, or use --trainer local")
        check_cluster(spark.sparkContext.getConf(), settings.workers)
    with run.stage("plan"):
        plan = resumed(make_plan(settings))
    with run.stage("train"):
        _train_to_end(plan, spark, run, progress)
    with run.stage("save"):
        bundle = _save(plan)
    run.model_id = bundle.model_id
    run.count("slices_seen", _slices_seen(bundle))
    return bundle


def resumed(plan: "TrainPlan") -> "TrainPlan":
    """The plan, going on from the newest checkpoint of its model directory.

    Raises ModelError where that directory holds another training or a model without checkpoints.
    """
    from segpipe.trainers import checkpoints
    from segpipe.trainers.identity import check_identity

    model = plan.settings.model
    epochs = checkpoints.epochs(model)
    if not epochs:
        _refuse_foreign_model(model)
        return plan
    meta = checkpoints.read_meta(model, epochs[-1])
    check_identity(plan, meta["identity"])
    history = tuple(meta["history"])
    return replace(plan, initial_epoch=epochs[-1], history=history, finished=meta["finished"])


def _refuse_foreign_model(url: str) -> None:
    from segpipe.warehouse.filesystem import filesystem, join

    fs, folder = filesystem(url)
    if fs.exists(join(folder, "bundle.json")):
        raise ModelError(f"Model directory {url} holds a finished model without checkpoints", "give another --model")


def _train_to_end(plan: "TrainPlan", spark: Any, run: "RunRecord", progress: Any) -> None:
    from segpipe.trainers.records import take_failure

    trainer = import_module(f"segpipe.trainers.{plan.settings.trainer}")
    take_failure(plan.settings.model)
    with _followed(plan, progress):
        for attempt in range(plan.settings.retries + 1):
            if plan.finished:
                return
            try:
                trainer.train(plan, spark)
            except Exception as error:
                if reason := take_failure(plan.settings.model):
                    raise reason from error
                if isinstance(error, SegpipeError) or attempt == plan.settings.retries:
                    raise
                run.count("retries")
            plan = resumed(plan)


@contextmanager
def _followed(plan: "TrainPlan", progress: Any) -> Iterator[None]:
    """Show each epoch when it stands in history.csv: workers on other machines have no other way to tell."""
    from segpipe.trainers.records import read_history

    if progress is None or plan.finished:
        yield
        return
    stop = threading.Event()
    shown = plan.initial_epoch
    with progress(plan.settings.epochs, f"train ({plan.settings.trainer})") as bar:
        bar.advance(shown)

        def show() -> None:
            nonlocal shown
            rows = read_history(plan.settings.model)
            if len(rows) > shown:
                bar.advance(len(rows) - shown, epoch_line(rows[-1]))
                shown = len(rows)

        def follow() -> None:
            while not stop.wait(_POLL_SECONDS):
                show()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            show()


def epoch_line(row: dict[str, float]) -> str:
    """An epoch in a line: loss, validation Dice per region, speed."""
    scores = [
        f"{name.removeprefix('dice_')} {value:.3f}"
        for name, value in row.items()
        if name.startswith("dice_") and value == value
    ]
    dice = f"  Dice {', '.join(scores)}" if scores else ""
    return f"loss {row['loss']:.3f}{dice}  {row['images_per_second']:.0f} images/s"


def _save(plan: "TrainPlan") -> "Bundle":
    """The bundle of the best epoch; the one that stands already, where it is that."""
    from segpipe.models.bundle import Bundle, save_bundle, weights_sha256
    from segpipe.models.unet import build_unet
    from segpipe.trainers import checkpoints
    from segpipe.trainers.records import HISTORY, history_bytes
    from segpipe.warehouse.runs import versions

    settings = plan.settings
    meta = checkpoints.read_meta(settings.model, checkpoints.epochs(settings.model)[-1])
    best = checkpoints.read(settings.model, meta["best_epoch"])
    row = meta["history"][meta["best_epoch"] - 1]
    metrics = {
        "best_epoch": meta["best_epoch"],
        "loss": row["loss"],
        "validation_dice": {region: _null(row[f"dice_{region}"]) for region in plan.regions},
        "validation_dice_by_scan": {
            scan: {region: _null(value) for region, value in scores.items()}
            for scan, scores in best.meta["scores"].items()
        },
    }
    convention = plan.convention
    bundle = Bundle(
        url=settings.model,
        modalities=plan.modalities,
        orientation=plan.orientation,
        crop=plan.crop,
        multiple=1 << settings.depth,
        label_convention=convention.name,
        labels={str(label): name for label, name in convention.labels.items()},
        regions=dict(convention.regions),
        network={field.name: getattr(settings, field.name) for field in fields(NetworkSettings)},
        training={name: value for name, value in asdict(settings).items() if name not in ("warehouse", "model")},
        cohort=settings.cohort,
        split_rule=plan.split_rule,
        subjects={
            split: len({plan.scans[s].subject for s in plan.of_split(split)}) for split in ("train", "validation")
        },
        metrics=metrics,
        weights_sha256=weights_sha256(best.weights),
        versions=versions(),
    )
    try:
        standing = Bundle.load(settings.model).verify()
        if standing.model_id == bundle.fingerprint:
            return standing
    except ModelError:
        pass  # none yet, or one that a kill left half-written
    model = build_unet(settings, len(plan.modalities), len(plan.regions), settings.seed)
    model.set_weights(best.weights)
    return save_bundle(bundle, model, {HISTORY: history_bytes(meta["history"])})


def _null(value: float) -> float | None:
    return None if value != value else value


def _slices_seen(bundle: "Bundle") -> int:
    from segpipe.trainers.records import read_history

    return round(sum(row["images_per_second"] * row["seconds"] for row in read_history(bundle.url)))
