"""What a training worker does, the same for every trainer: model, slices, and what follows each step and epoch.

This module needs TensorFlow; trainers import it where they train.
"""

import math
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from segpipe.errors import SegpipeError
from segpipe.models.losses import dice_cross_entropy
from segpipe.storage.model_directory import write_history
from segpipe.trainers import checkpoints
from segpipe.trainers.contract import TrainPlan, WorkerGroup
from segpipe.trainers.events import write_events
from segpipe.trainers.feed import Feed
from segpipe.trainers.identity import identity
from segpipe.trainers.memory import keep_freed_memory
from segpipe.trainers.network import build_network, loss_weights, with_targets
from segpipe.trainers.patches import PatchFeed
from segpipe.trainers.pooled import PooledFeed
from segpipe.trainers.records import telling
from segpipe.trainers.validation import TileValidator, Validator, mean_dice

tf.get_logger().setLevel("ERROR")  # Orca goes through what TensorFlow calls deprecated, in every worker
keep_freed_memory()  # before TensorFlow starts its threads
# Where Grappler takes memory for short, it has sums of three and more tensors added up in the order in which they are
# ready, which chance decides. Nothing else that it does makes a step shorter, and without it a step is traced faster.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

_WARM_UP_SHARE = 0.05
_FINAL_SHARE = 0.01
_CLIP_NORM = 12.0
_LOOKS = 8  # so often in an epoch the workers ask each other whether it is time for a checkpoint
_MOST_LOOK_STEPS = 16


class Worker:
    """One process of a training. It is pickled to the worker; what is costly is made there, on first use."""

    def __init__(self, plan: TrainPlan, group_maker: Callable[[], WorkerGroup]):
        self.plan = plan
        self._group_maker = group_maker

    def __getstate__(self) -> dict[str, Any]:
        return {"plan": self.plan, "_group_maker": self._group_maker}

    @cached_property
    def group(self) -> WorkerGroup:
        """The workers that train together."""
        return self._group_maker()

    @cached_property
    def feed(self) -> Feed:
        """This worker's share of the slices, or of the patches."""
        settings = self.plan.settings
        kind = Feed if settings.dimensions == 2 else PatchFeed if settings.pool == 1 else PooledFeed
        return kind(self.plan, self.group.rank, self.group.size)

    def dataset(self) -> tf.data.Dataset:
        """What `fit` takes: this worker's batches of images and what each output of the network should say."""
        return with_targets(self.feed.dataset(), self.plan.settings)

    def build_model(self) -> tf.keras.Model:
        """The U-Net, compiled, and where the checkpoint left it."""
        plan = self.plan
        settings = plan.settings
        self._check_progress()
        model = build_network(plan)
        optimizer = self.group.optimizer(learning_rate=learning_rates(plan), global_clipnorm=_CLIP_NORM)
        weights = loss_weights(settings)
        model.compile(optimizer, loss=[dice_cross_entropy(self.group.total) for _ in weights], loss_weights=weights)
        optimizer.build(model.trainable_variables)  # made in the first step, its graph would be traced once more
        start = checkpoints.Position(plan.initial_epoch, plan.initial_step)
        if start > (0, 0):
            checkpoints.restore(checkpoints.read(settings.model, start), model)
        return model

    def _check_progress(self) -> None:
        """Raise RuntimeError where the training is further than the plan says.

        Spark starts a barrier stage again by itself when it has lost a worker, with the same plan. Whoever made that
        asks where the training stands, and goes on from there.
        """
        plan = self.plan
        start = checkpoints.Position(plan.initial_epoch, plan.initial_step)
        if (found := checkpoints.positions(plan.settings.model)) and found[-1] > start:
            raise RuntimeError(f"a worker was lost after {found[-1].name}; the log of its executor tells why")

    def fit(self, model: tf.keras.Model) -> None:
        """Train in this process."""
        plan = self.plan
        model.fit(
            self.dataset(),
            epochs=plan.epochs,
            initial_epoch=plan.initial_epoch,
            steps_per_epoch=plan.steps,
            callbacks=[Journal(self)],
            verbose=0,
        )


def learning_rates(plan: TrainPlan) -> tf.keras.optimizers.schedules.LearningRateSchedule:
    """A cosine (Loshchilov and Hutter 2017, arXiv 1608.03983) from the highest rate to nearly 0, after a rise."""
    highest = plan.settings.learning_rate
    steps = plan.steps * plan.epochs
    rise = min(max(1, round(_WARM_UP_SHARE * steps)), steps - 1)
    return tf.keras.optimizers.schedules.CosineDecay(
        highest * 0.1, max(1, steps - rise), alpha=_FINAL_SHARE, warmup_target=highest, warmup_steps=rise
    )


class Journal(tf.keras.callbacks.Callback):
    """Watches the loss, validates, and keeps checkpoint and history in the model directory; only rank 0 writes.

    All workers come to the same numbers, so all stop after the same epoch, and all read the weights at the same step.
    """

    def __init__(self, worker: Worker):
        super().__init__()
        self._worker = worker
        self._history = list(worker.plan.history)
        self._epoch = worker.plan.initial_epoch
        self._look_steps = min(_MOST_LOOK_STEPS, max(1, worker.plan.steps // _LOOKS))

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Make what validates, because the model is known from here on, and skip the steps that are done."""
        plan = self._worker.plan
        kind = Validator if plan.settings.dimensions == 2 else TileValidator
        self._validator = kind(plan, self._worker.group, self.model)
        self._saved = time.monotonic()
        if plan.initial_step:
            self.model._training_state = _StartInside(plan)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        plan = self._worker.plan
        going_on = epoch == plan.initial_epoch
        self._epoch = epoch
        self._first_step = plan.initial_step if going_on else 0
        self._looked = self._first_step
        self._started = time.perf_counter() - (plan.initial_seconds if going_on else 0.0)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop everything when the loss is no number any more; write a checkpoint when it is time for one."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            scans = self._worker.feed.scans_of(self._epoch, batch)
            problem = (
                f"The loss became {loss} in epoch {self._epoch + 1}, step {batch + 1}, on slices of {', '.join(scans)}"
            )
            remedy = "look at these scans, or train with a smaller --learning-rate"
            with telling(self._worker.plan.settings.model):
                raise SegpipeError(problem, remedy)
        done = batch + 1
        if done // self._look_steps > self._looked // self._look_steps and done < self._worker.plan.steps:
            self._looked = done
            self._checkpoint_inside(done)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Validate, decide whether to go on, and write down where the training stands."""
        plan, group = self._worker.plan, self._worker.group
        seconds = time.perf_counter() - self._started
        loss = self._epoch_loss(plan.steps, float(group.sum(np.array((logs or {})["loss"], np.float64))) / group.size)
        due = (epoch + 1) % plan.settings.validate_every == 0 or epoch + 1 == plan.epochs
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "loss": loss,
            "learning_rate": float(self.model.optimizer.learning_rate.numpy()),
            "images_per_second": plan.steps * plan.batch_size / seconds,
            "seconds": seconds,
        }
        with telling(plan.settings.model):
            scores = self._validator.dice() if due else {}
        row |= {f"dice_{region}": value for region, value in mean_dice(scores, plan.regions).items()}
        row["validation_seconds"] = time.perf_counter() - self._started - seconds
        self._history.append(row)
        best = best_epoch(self._history, plan.regions)
        stop = 0 < plan.settings.patience <= epoch + 1 - max(best, plan.coarse_epochs)
        self.model.stop_training = stop
        finished = stop or epoch + 1 == plan.epochs
        self._write(checkpoints.Position(epoch + 1), best_epoch=best, finished=finished, scores=scores)
        if group.rank == 0:
            write_history(plan.settings.model, self._history)
            write_events(plan.settings.model, row)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Leave the other workers, in peace."""
        self._worker.group.close()

    def _checkpoint_inside(self, step: int) -> None:
        """Write a checkpoint in the midst of an epoch, when the clock of rank 0 says so."""
        group = self._worker.group
        due = group.rank == 0 and time.monotonic() - self._saved >= self._worker.plan.settings.checkpoint_minutes * 60
        if group.sum(np.array(due, np.float64)):
            loss = float(group.sum(np.array(self.model.get_metrics_result()["loss"], np.float64))) / group.size
            self._write(
                checkpoints.Position(self._epoch, step),
                best_epoch=best_epoch(self._history, self._worker.plan.regions) if self._history else 0,
                epoch_loss=self._epoch_loss(step, loss),
                epoch_seconds=time.perf_counter() - self._started,
            )

    def _epoch_loss(self, step: int, mean: float) -> float:
        """The mean loss of an epoch up to `step`, of which `mean` is that of the steps of this run."""
        if not self._first_step:
            return mean
        return (self._worker.plan.initial_loss * self._first_step + mean * (step - self._first_step)) / step

    def _write(self, position: checkpoints.Position, best_epoch: int, finished: bool = False, **more: Any) -> None:
        plan = self._worker.plan
        arrays = checkpoints.state(self.model)
        meta = {
            "identity": identity(plan),
            "history": self._history,
            "best_epoch": best_epoch,
            "finished": finished,
            "epoch_loss": 0.0,
            "epoch_seconds": 0.0,
            **more,
        }
        if self._worker.group.rank == 0:
            plan.check_fence()
            checkpoints.write(plan.settings.model, position, arrays, meta)
        self._saved = time.monotonic()


class _StartInside:
    """Tells Keras to begin inside an epoch, in the place of what its own BackupAndRestore puts there."""

    def __init__(self, plan: TrainPlan):
        self._start = plan.initial_epoch, plan.initial_step

    def maybe_load_initial_counters_from_ckpt(self, *_arguments: Any, **_options: Any) -> tuple[int, int]:
        """First epoch, and first step in it."""
        return self._start


def best_epoch(history: list[dict[str, Any]], regions: tuple[str, ...]) -> int:
    """The first epoch with the highest mean Dice over the regions; the last where none was validated."""
    scores = {}
    for row in history:
        defined = [row[f"dice_{region}"] for region in regions if not math.isnan(row[f"dice_{region}"])]
        if defined:
            scores[row["epoch"]] = sum(defined) / len(defined)
    return max(scores, key=scores.__getitem__) if scores else history[-1]["epoch"]
