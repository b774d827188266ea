"""One suite for every trainer: the same losses, the same files, and training goes on where it was left."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe import trainers
from segpipe.models.bundle import Bundle, load_keras
from segpipe.settings import TrainSettings
from segpipe.trainers.records import read_history
from segpipe.warehouse.runs import RunRecord, record_run

EVERY = pytest.mark.parametrize("trainer", ["local", "orca", "horovod"])
COLUMNS = {"epoch", "loss", "learning_rate", "images_per_second", "seconds", "validation_seconds"}


def run(settings: TrainSettings, spark: Any) -> tuple[Bundle, RunRecord]:
    with record_run(None, "train", settings) as record:
        return trainers.train(settings, spark, record), record


def losses(bundle: Bundle) -> list[float]:
    return [row["loss"] for row in read_history(bundle.url)]


class Killed(BaseException):
    """Ends a training between two steps."""


def train_until(settings: TrainSettings, epoch: int, step: int) -> None:
    """Leave the model directory as a training does that ends before that step, both counted from 0."""
    import tensorflow as tf

    from segpipe.trainers import resumed
    from segpipe.trainers.contract import Alone
    from segpipe.trainers.plan import make_plan
    from segpipe.trainers.worker import Journal, Worker

    class Killer(tf.keras.callbacks.Callback):
        now = 0

        def on_epoch_begin(self, number: int, logs: Any = None) -> None:
            self.now = number

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if (self.now, batch) == (epoch, step):
                raise Killed

    worker = Worker(resumed(make_plan(settings)), Alone)
    model = worker.build_model()
    plan = worker.plan
    with pytest.raises(Killed):
        model.fit(
            worker.feed.dataset(),
            epochs=plan.settings.epochs,
            initial_epoch=plan.initial_epoch,
            steps_per_epoch=plan.steps,
            callbacks=[Journal(worker), Killer()],
            verbose=0,
        )


def newest(model: str) -> tuple[int, int]:
    from segpipe.trainers.checkpoints import positions

    return positions(model)[-1]


@pytest.fixture(scope="session")
def reference(tables: str, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two epochs by trainer local."""
    from tests.trainers.conftest import TINY

    model = str(tmp_path_factory.mktemp("reference") / "model")
    return run(TrainSettings(warehouse=tables, cohort="tiny", model=model, trainer="local", **TINY), None)[0]


@EVERY
def test_trains_the_same_network_whatever_the_trainer(settings, spark, reference: Bundle, trainer: str):
    bundle, record = run(settings(trainer=trainer), spark)

    np.testing.assert_allclose(losses(bundle), losses(reference), atol=1e-4)
    assert losses(bundle)[1] < losses(bundle)[0]
    history = read_history(bundle.url)
    assert set(history[0]) == COLUMNS | {f"dice_{region}" for region in bundle.regions}
    assert bundle == Bundle.load(bundle.url).verify()
    assert bundle.subjects == {"train": 5, "validation": 1}
    assert {"model.keras", "history.csv"} <= set(bundle.files)
    assert load_keras(bundle)(np.zeros((1, *bundle.crop, 4), np.float32)).shape == (1, *bundle.crop, 3)
    assert record.model_id == bundle.model_id
    json.dumps(bundle.metrics, allow_nan=False)


@EVERY
def test_goes_on_from_the_middle_of_an_epoch(settings, spark, reference: Bundle, trainer: str):
    """As if it had never been stopped: optimizer state, learning rate and order of slices included."""
    every_step = 1e-9
    train_until(settings(checkpoint_minutes=every_step), epoch=1, step=2)
    assert newest(settings().model) == (1, 2)
    bundle, _ = run(settings(trainer=trainer), spark)

    np.testing.assert_allclose(losses(bundle), losses(reference), atol=1e-4)
    assert [row["learning_rate"] for row in read_history(bundle.url)] == pytest.approx(
        [row["learning_rate"] for row in read_history(reference.url)], rel=1e-4
    )
    if trainer == "local":
        assert bundle.weights_sha256 == reference.weights_sha256


@pytest.mark.parametrize("stops", [[(0, 1), (0, 2), (1, 1)], [(1, 0)]], ids=["inside epochs", "between epochs"])
def test_however_often_it_is_stopped_not_a_bit_differs(settings, reference: Bundle, stops: list[tuple[int, int]]):
    for stop in stops:
        train_until(settings(checkpoint_minutes=1e-9), *stop)
        assert newest(settings().model) == stop
    bundle, _ = run(settings(), None)
    assert bundle.weights_sha256 == reference.weights_sha256
    np.testing.assert_allclose(losses(bundle), losses(reference), rtol=1e-5)
    assert newest(settings().model) == (2, 0)


def test_no_checkpoint_inside_an_epoch_before_it_is_time(settings):
    train_until(settings(checkpoint_minutes=60), epoch=1, step=2)
    assert newest(settings().model) == (1, 0)


def test_a_damaged_checkpoint_is_named(settings):
    from segpipe.errors import ModelError

    train_until(settings(), epoch=1, step=0)
    path = Path(settings().model, "checkpoints", "epoch-00001.npz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"epoch-00001.npz is damaged .*: remove it"):
        run(settings(), None)


def test_a_finished_training_is_not_done_twice(settings):
    first, _ = run(settings(), None)
    checkpoint = max(Path(first.url).glob("checkpoints/*")).stat()
    again, _ = run(settings(), None)
    assert again == first
    assert max(Path(first.url).glob("checkpoints/*")).stat() == checkpoint


def test_a_lost_bundle_is_made_again_from_the_checkpoints(settings):
    first, _ = run(settings(), None)
    (Path(first.url) / "bundle.json").unlink()
    (Path(first.url) / "model.keras").write_bytes(b"half")
    again, _ = run(settings(), None)
    assert again.model_id == first.model_id
    again.verify()


def test_stops_early_when_nothing_gets_better(settings):
    """With a learning rate of nearly nothing, Dice stays what it was."""
    bundle, _ = run(settings(learning_rate=1e-30, epochs=9, patience=2, steps_per_epoch=1), None)
    assert len(losses(bundle)) < 9


def test_a_loss_that_is_no_number_names_epoch_and_scans(settings):
    from segpipe.errors import SegpipeError

    with pytest.raises(
        SegpipeError, match=r"loss became nan in epoch 1, step \d, on slices of tiny:Synthetic.*--learn"
    ):
        run(settings(learning_rate=1e38, epochs=1, steps_per_epoch=5, normalisation="none"), None)
    assert not (Path(settings().model) / "bundle.json").exists()
