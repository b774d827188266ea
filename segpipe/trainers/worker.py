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
from segpipe.models.unet import build_unet
from segpipe.trainers import checkpoints
from segpipe.trainers.contract import Group, TrainPlan
from segpipe.trainers.feed import Feed
from segpipe.trainers.identity import identity
from segpipe.trainers.records import write_failure, write_history
from segpipe.trainers.validation import Validator, mean_dice

tf.get_logger().setLevel("ERROR")  # Orca goes through what TensorFlow calls deprecated, in every worker

_WARM_UP_SHARE = 0.05
_FINAL_SHARE = 0.01
_CLIP_NORM = 12.0


class Worker:
    """One process of a training. It is pickled to the worker; what is costly is made there, on first use."""

    def __init__(self, plan: TrainPlan, group_maker: Callable[[], Group]):
        self.plan = plan
        self._group_maker = group_maker

    def __getstate__(self) -> dict[str, Any]:
        return {"plan": self.plan, "_group_maker": self._group_maker}

    @cached_property
    def group(self) -> Group:
        """The workers that train together."""
        return self._group_maker()

    @cached_property
    def feed(self) -> Feed:
        """This worker's share of the slices."""
        return Feed(self.plan, self.group.rank, self.group.size)

    def build_model(self) -> tf.keras.Model:
        """The U-Net, compiled, and where the checkpoint left it."""
        plan = self.plan
        settings = plan.settings
        model = build_unet(settings, len(plan.modalities), len(plan.regions), settings.seed)
        optimizer = self.group.optimizer(learning_rate=learning_rates(plan), global_clipnorm=_CLIP_NORM)
        model.compile(optimizer, loss=dice_cross_entropy(self.group.total))
        if plan.initial_epoch:
            checkpoints.restore(checkpoints.read(settings.model, plan.initial_epoch), model)
        return model

    def fit(self, model: tf.keras.Model) -> None:
        """Train in this process."""
        plan = self.plan
        model.fit(
            self.feed.dataset(),
            epochs=plan.settings.epochs,
            initial_epoch=plan.initial_epoch,
            steps_per_epoch=plan.steps,
            callbacks=[Journal(self)],
            verbose=0,
        )


def learning_rates(plan: TrainPlan) -> tf.keras.optimizers.schedules.LearningRateSchedule:
    """A cosine (Loshchilov and Hutter 2017, arXiv 1608.03983) from the highest rate to nearly 0, after a rise."""
    highest = plan.settings.learning_rate
    steps = plan.steps * plan.settings.epochs
    rise = min(max(1, round(_WARM_UP_SHARE * steps)), steps - 1)
    return tf.keras.optimizers.schedules.CosineDecay(
        highest * 0.1, max(1, steps - rise), alpha=_FINAL_SHARE, warmup_target=highest, warmup_steps=rise
    )


class Journal(tf.keras.callbacks.Callback):
    """Watches the loss, validates, and keeps checkpoint and history in the model directory; only rank 0 writes.

    All workers come to the same numbers, so all stop after the same epoch.
    """

    def __init__(self, worker: Worker):
        super().__init__()
        self._worker = worker
        self._history = list(worker.plan.history)
        self._epoch = 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Make what validates; the model is known from here on."""
        self._validator = Validator(self._worker.plan, self._worker.group, self.model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self._epoch = epoch
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop everything when the loss is no number any more."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            scans = self._worker.feed.scans_of(self._epoch, batch)
            problem = (
                f"The loss became {loss} in epoch {self._epoch + 1}, step {batch + 1}, on slices of {', '.join(scans)}"
            )
            remedy = "look at these scans, or train with a smaller --learning-rate"
            write_failure(self._worker.plan.settings.model, problem, remedy)
            raise SegpipeError(problem, remedy)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Validate, decide whether to go on, and write down where the training stands."""
        plan, group = self._worker.plan, self._worker.group
        seconds = time.perf_counter() - self._started
        loss = float(group.sum(np.array((logs or {})["loss"], np.float64))) / group.size
        due = (epoch + 1) % plan.settings.validate_every == 0 or epoch + 1 == plan.settings.epochs
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "loss": loss,
            "learning_rate": float(self.model.optimizer.learning_rate.numpy()),
            "images_per_second": plan.steps * plan.settings.batch_size / seconds,
            "seconds": seconds,
        }
        scores = self._validator.dice() if due else {}
        row |= {f"dice_{region}": value for region, value in mean_dice(scores, plan.regions).items()}
        row["validation_seconds"] = time.perf_counter() - self._started - seconds
        self._history.append(row)
        best = best_epoch(self._history, plan.regions)
        stop = 0 < plan.settings.patience <= epoch + 1 - best
        self.model.stop_training = stop
        if group.rank == 0:
            finished = stop or epoch + 1 == plan.settings.epochs
            self._write(epoch + 1, best, finished, scores)

    def _write(self, epoch: int, best: int, finished: bool, scores: dict[str, dict[str, float]]) -> None:
        plan = self._worker.plan
        meta = {
            "identity": identity(plan),
            "history": self._history,
            "best_epoch": best,
            "finished": finished,
            "scores": scores,
        }
        checkpoints.write(plan.settings.model, epoch, self.model, meta)
        write_history(plan.settings.model, self._history)


def best_epoch(history: list[dict[str, Any]], regions: tuple[str, ...]) -> int:
    """The first epoch with the highest mean Dice over the regions; the last where none was validated."""
    scores = {}
    for row in history:
        defined = [row[f"dice_{region}"] for region in regions if not math.isnan(row[f"dice_{region}"])]
        if defined:
            scores[row["epoch"]] = sum(defined) / len(defined)
    return max(scores, key=scores.__getitem__) if scores else history[-1]["epoch"]
