"""One suite for every trainer: the same losses, the same files, and training goes on where it was left."""

import functools
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe import trainers
from segpipe.errors import WarehouseBusy
from segpipe.models.bundle import Bundle, load_keras
from segpipe.registry import TRAINERS
from segpipe.settings import TrainSettings
from segpipe.storage.lock import lock
from segpipe.storage.model_directory import read_history
from segpipe.trainers.checkpoints import positions
from segpipe.trainers.records import take_failure
from segpipe.warehouse.runs import RunRecord, record_run
from tests.processes import workers_of_spark
from tests.trainers.conftest import TINY
from tests.trainers.listeners import Listeners

pytestmark = pytest.mark.slow
EVERY = pytest.mark.parametrize("trainer", sorted(TRAINERS, key=lambda name: TRAINERS[name].on_spark))
HERE = pytest.mark.parametrize("trainer", ["local", pytest.param("orca", marks=pytest.mark.long)])
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
            epochs=plan.epochs,
            initial_epoch=plan.initial_epoch,
            steps_per_epoch=plan.steps,
            callbacks=[Journal(worker), Killer()],
            verbose=0,
        )


def newest(model: str) -> tuple[int, int]:
    return positions(model)[-1]


@dataclass(frozen=True)
class Trained:
    """A training that ran once for all tests that look at it, and what listened meanwhile."""

    bundle: Bundle
    record: RunRecord
    listeners: Listeners


@pytest.fixture(scope="session")
def trained(tables: str, spark, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Two epochs by a trainer, done once each. Tests leave the model directory as it is, or take a copy."""

    @functools.cache
    def by(trainer: str) -> Trained:
        model = str(tmp_path_factory.mktemp(trainer) / "model")
        asked = TrainSettings(**{"warehouse": tables, "cohort": "tiny", "model": model, "trainer": trainer, **TINY})
        with Listeners() as listeners:
            return Trained(*run(asked, spark), listeners)

    return by


@pytest.fixture(scope="session")
def reference(trained: Callable[[str], Trained]) -> Bundle:
    """Two epochs by trainer local."""
    return trained("local").bundle


@pytest.fixture
def copy_of_reference(reference: Bundle, settings) -> Bundle:
    """The reference as the model of `settings`, to be changed."""
    shutil.copytree(reference.url, settings().model)
    return Bundle.load(settings().model)


@pytest.fixture(scope="session")
def stopped(tables: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """A model directory as a training leaves it that ends inside its second epoch, and how often a step was traced."""
    from segpipe.models.losses import dice_cross_entropy
    from segpipe.trainers import worker

    traced = []

    def counting(total: Any) -> Any:
        loss = dice_cross_entropy(total)
        return lambda truth, logits: traced.append(logits) or loss(truth, logits)

    model = str(tmp_path_factory.mktemp("stopped") / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "dice_cross_entropy", counting)
        asked = {"trainer": "local", "checkpoint_minutes": 60, **TINY}
        train_until(TrainSettings(warehouse=tables, cohort="tiny", model=model, **asked), epoch=1, step=2)
    return model, len(traced)


@EVERY
def test_trains_the_same_network_whatever_the_trainer(
    reference: Bundle, trained: Callable[[str], Trained], trainer: str
):
    bundle, record = trained(trainer).bundle, trained(trainer).record

    np.testing.assert_allclose(losses(bundle), losses(reference), atol=1e-4)
    assert losses(bundle)[1] < losses(bundle)[0]
    history = read_history(bundle.url)
    assert set(history[0]) == COLUMNS | {f"dice_{region}" for region in bundle.regions}
    assert bundle == Bundle.load(bundle.url).verify()
    assert bundle.subjects == {"train": 5, "validation": 1}
    assert {"weights.npz", "history.csv"} <= set(bundle.files)
    assert load_keras(bundle)(np.zeros((1, *bundle.crop, 4), np.float32)).shape == (1, *bundle.crop, 3)
    assert record.model_id == bundle.model_id
    json.dumps(bundle.metrics, allow_nan=False)


@pytest.mark.long
def test_horovod_trains_the_same_bits_twice(settings, spark, trained: Callable[[str], Trained]):
    """The others do so below, although they are stopped or killed on the way."""
    again, _ = run(settings(trainer="horovod"), spark)
    assert again.weights_sha256 == trained("horovod").bundle.weights_sha256


@pytest.mark.parametrize("trainer", ["orca", "horovod"])
def test_a_training_on_one_machine_listens_on_loopback_alone(trained: Callable[[str], Trained], trainer: str):
    listeners = trained(trainer).listeners
    assert listeners.looks > 10
    assert listeners.seen, "Spark itself listens: whoever sees nothing has not looked"
    assert not listeners.beyond_loopback


def test_however_often_it_is_stopped_not_a_bit_differs(settings, reference: Bundle):
    """Twice inside one epoch, between epochs, and inside the last."""
    for stop in ((0, 1), (0, 2), (1, 0), (1, 1)):
        train_until(settings(checkpoint_minutes=1e-9), *stop)
        assert newest(settings().model) == stop
    bundle, _ = run(settings(), None)
    assert bundle.weights_sha256 == reference.weights_sha256
    np.testing.assert_allclose(losses(bundle), losses(reference), rtol=1e-5)
    assert newest(settings().model) == (2, 0)


def test_a_worker_that_is_killed_is_replaced_and_not_a_bit_differs(settings, spark, trained: Callable[[str], Trained]):
    """Drivers are killed, and Horovod's workers, in test_survival.py."""
    asked = settings(trainer="orca", retries=1, checkpoint_minutes=1e-9)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(run, asked, spark)
        while not positions(asked.model) and not job.done():
            time.sleep(0.01)
        for worker in workers_of_spark():
            worker.kill()
        bundle, record = job.result()
    assert record.counts["retries"] == 1
    assert bundle.weights_sha256 == trained("orca").bundle.weights_sha256


@pytest.mark.long
def test_compact_between_stop_and_resume_changes_not_a_bit(settings, reference: Bundle, tables: str, tmp_path: Path):
    from tests.trainers.conftest import merge

    own = shutil.copytree(tables, tmp_path / "tables").as_posix()
    train_until(settings(warehouse=own, checkpoint_minutes=1e-9), epoch=0, step=1)
    merge(own)
    bundle, _ = run(settings(warehouse=own), None)
    assert bundle.weights_sha256 == reference.weights_sha256


def test_a_step_is_traced_once(stopped: tuple[str, int]):
    """Twice costs each worker of the default network five seconds of processor time more."""
    assert stopped[1] == 1


def test_no_checkpoint_inside_an_epoch_before_it_is_time(stopped: tuple[str, int]):
    assert newest(stopped[0]) == (1, 0)


def test_a_stage_that_spark_starts_again_does_not_fall_behind_its_checkpoints(settings, stopped: tuple[str, int]):
    """Its plan is that of the first time; whoever made it plans again."""
    from segpipe.trainers import resumed
    from segpipe.trainers.contract import Alone
    from segpipe.trainers.plan import make_plan
    from segpipe.trainers.worker import Worker

    plan = make_plan(settings())
    shutil.copytree(stopped[0], settings().model)
    with pytest.raises(RuntimeError, match=r"a worker was lost after epoch-00001.npz"):
        Worker(plan, Alone).build_model()
    Worker(resumed(plan), Alone).build_model()


def test_a_damaged_checkpoint_is_named(settings, stopped: tuple[str, int]):
    from segpipe.errors import ModelError

    shutil.copytree(stopped[0], settings().model)
    path = Path(settings().model, "checkpoints", "epoch-00001.npz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"epoch-00001.npz is damaged .*: remove it"):
        run(settings(), None)


def test_a_finished_training_is_not_done_twice(settings, copy_of_reference: Bundle):
    first = copy_of_reference
    before = written(first)
    again, _ = run(settings(), None)
    assert again == first
    assert written(first) == before


def written(bundle: Bundle) -> list[tuple[str, int, int, int]]:
    """The checkpoints of a model as they were written: another file, or one that was written again, differs."""
    found = sorted((path.name, path.stat()) for path in Path(bundle.url).glob("checkpoints/*"))
    return [(name, about.st_ino, about.st_mtime_ns, about.st_size) for name, about in found]


def test_a_lost_bundle_is_made_again_from_the_checkpoints(settings, copy_of_reference: Bundle):
    first = copy_of_reference
    (Path(first.url) / "bundle.json").unlink()
    (Path(first.url) / "weights.npz").write_bytes(b"half")
    again, _ = run(settings(), None)
    assert again.model_id == first.model_id
    again.verify()


def test_a_finished_training_decides_otherwise_without_another_step(settings, copy_of_reference: Bundle):
    before = written(copy_of_reference)
    assert copy_of_reference.network["mirror"], "as is the default"
    first, _ = run(settings(mirror=False), None)
    kept, _ = run(settings(), None)
    assert (kept, kept.network["mirror"]) == (first, False), "the same command keeps how a finished model looks"
    again, _ = run(settings(mirror=True, threshold=0.3), None)
    assert written(again) == before
    assert losses(again) == losses(first)
    assert again.weights_sha256 == first.weights_sha256
    assert again.model_id != first.model_id
    assert (again.threshold, again.network["mirror"]) == (0.3, True)
    image = np.random.default_rng(0).normal(size=(1, *first.crop, len(first.modalities))).astype(np.float32)
    turned = load_keras(again)(image[:, ::-1]).numpy()[:, ::-1]
    np.testing.assert_allclose(turned, load_keras(again)(image).numpy(), atol=1e-6)


@pytest.mark.long
def test_best_quality_is_the_mean_of_networks_from_three_seeds(settings, reference: Bundle, copy_of_reference: Bundle):
    """A standard model is the first of them. It goes on where a killed one left the second, and the third is there."""
    others = [run(settings(seed=seed, model=f"{copy_of_reference.url}-{seed}"), None)[0] for seed in (1, 2)]
    further = [str(Path(copy_of_reference.url, "members", number)) for number in ("2", "3")]
    train_until(settings(seed=1, model=further[0]), epoch=1, step=1)
    shutil.copytree(Path(others[1].url, "checkpoints"), Path(further[1], "checkpoints"))
    standing = written(copy_of_reference)
    best, _ = run(settings(quality="best"), None)
    assert written(best) == standing, "nothing is learnt twice"

    image = np.random.default_rng(0).normal(size=(2, *best.crop, len(best.modalities))).astype(np.float32)
    answers = [load_keras(one)(image).numpy() for one in (reference, *others)]
    assert np.abs(answers[0] - answers[1]).max() > 0.01
    np.testing.assert_allclose(load_keras(best)(image).numpy(), np.mean(answers, axis=0), atol=1e-6)
    said = [one.metrics["validation_dice"]["whole_tumour"] for one in (reference, *others)]
    assert best.metrics["validation_dice"]["whole_tumour"] == pytest.approx(np.mean(said))

    assert run(settings(), None)[0] == best, "the same command keeps them"
    assert run(settings(quality="standard"), None)[0].model_id == reference.model_id


@pytest.mark.parametrize(
    ("coarse_share", "epochs"),
    [pytest.param(0.0, 3, id="full size"), pytest.param(0.5, 6, id="4 coarse epochs", marks=pytest.mark.long)],
)
def test_stops_early_when_nothing_gets_better(settings, coarse_share: float, epochs: int):
    """With a learning rate of nearly nothing, Dice stays what it was; coarse epochs do not try anybody's patience."""
    still = {"learning_rate": 1e-30, "epochs": 9, "patience": 2, "steps_per_epoch": 1}
    bundle, _ = run(settings(**still, coarse_share=coarse_share), None)
    assert len(losses(bundle)) == epochs
    assert bundle.metrics["epoch"] < epochs, "the best one is kept"


def test_the_last_epoch_is_kept_though_an_earlier_one_was_as_good(settings):
    """A few patients who validate tell by chance which epoch was best; the rate has come down in the last."""
    bundle, _ = run(settings(learning_rate=1e-30, epochs=2, steps_per_epoch=1), None)
    assert bundle.metrics["epoch"] == 2


@HERE
def test_a_loss_that_is_no_number_names_epoch_and_scans(settings, spark, trainer: str):
    """At once: what comes of the data is not retried."""
    from segpipe.errors import SegpipeError

    wrong = {"learning_rate": 1e38, "epochs": 1, "steps_per_epoch": 5, "normalisation": "none", "retries": 3}
    with (
        record_run(None, "train", settings()) as record,
        pytest.raises(SegpipeError, match=r"loss became nan in epoch 1, step \d, on slices of tiny:Synthetic.*--learn"),
    ):
        trainers.train(settings(trainer=trainer, **wrong), spark, record)
    assert not record.counts["retries"]
    assert not (Path(settings().model) / "bundle.json").exists()


def test_slices_that_are_damaged_are_named_and_not_tried_again(settings, spark, tables: str, tmp_path: Path):
    import pyarrow as pa

    from segpipe.errors import SegpipeError
    from tests.trainers.conftest import with_column

    def cut(group: pa.Table) -> pa.Array:
        return pa.array([cell[:-1] for cell in group["image"].to_pylist()], pa.binary())

    url = with_column(tables, tmp_path / "damaged", "image", cut)
    asked = settings(warehouse=url, trainer="orca", retries=3)
    with (
        record_run(None, "train", asked) as record,
        pytest.raises(SegpipeError, match=r"Slices of tiny:Synthetic.* are damaged .*: ingest the scan again"),
    ):
        trainers.train(asked, spark, record)
    assert not record.counts["retries"]


@HERE
def test_a_3d_network_is_stopped_goes_on_and_segments_as_it_was_validated(settings, spark, tables: str, trainer: str):
    """Under another trainer, too; by one look, as validation does."""
    solid = {"dimensions": 3, "patch_size": 8, "batch_size": 2, "checkpoint_minutes": 1e-9, "mirror": False}
    whole, _ = run(settings(**solid), None)
    assert whole.crop == (8, 8, 8)
    assert {f"dice_{region}" for region in whole.regions} <= set(read_history(whole.url)[0])
    other = f"{whole.url}-other"
    train_until(settings(**solid, model=other), epoch=1, step=1)
    bundle, _ = run(settings(**solid, model=other, trainer=trainer), spark)
    np.testing.assert_allclose(losses(bundle), losses(whole), atol=1e-4)
    if trainer == "local":
        assert bundle.weights_sha256 == whole.weights_sha256
    for scan, scores in whole.metrics["validation_dice_by_scan"].items():
        found = dice_of_segmenting(whole, tables)[scan]
        assert found == pytest.approx({name: nan_of(value) for name, value in scores.items()}, abs=2e-3, nan_ok=True)


def nan_of(value: float | None) -> float:
    return float("nan") if value is None else value


def dice_of_segmenting(bundle: Bundle, tables: str) -> dict[str, dict[str, float]]:
    """Dice of each region of the validation scans by scan_id, by the runtime of the job `segment`."""
    from segpipe.core.metrics import counts, dice
    from segpipe.core.regions import CONVENTIONS, to_regions
    from segpipe.runtimes.contract import PredictorSpec
    from segpipe.warehouse.scan_slices import samples
    from segpipe.warehouse.store import Store

    predictor = PredictorSpec(bundle.url, "keras").pack().open(threads=1)
    found = {}
    for sample in samples(Store(tables), "tiny", "validation", bundle, 9):
        labels = predictor.segment(sample.scan, sample.slices).labels
        pairs = [
            to_regions(mask, CONVENTIONS[bundle.label_convention]).astype(bool)
            for mask in (labels, sample.slices.truth)
        ]
        found[sample.scan_id] = {
            region: dice(*counts(*(pair[..., place] for pair in pairs))) for place, region in enumerate(bundle.regions)
        }
    return found


DEEP = {"depth": 2, "deep_supervision": True, "padding": "partial", "epochs": 2, "coarse_share": 0.5}


@pytest.fixture(scope="module")
def deep(tables: str, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A training by trainer local with what only training needs."""
    model = str(tmp_path_factory.mktemp("deep") / "model")
    settings = {"warehouse": tables, "cohort": "tiny", "model": model, "trainer": "local", **TINY, **DEEP}
    return run(TrainSettings(**settings), None)[0]


@pytest.mark.long
def test_deep_supervision_partial_padding_and_coarse_epochs_are_no_part_of_the_model(deep: Bundle):
    assert len(losses(deep)) == DEEP["epochs"]
    assert load_keras(deep)(np.zeros((1, *deep.crop, 4), np.float32)).shape == (1, *deep.crop, 3)


@pytest.mark.long
@pytest.mark.parametrize("trainer", ["orca", "horovod"])
def test_deep_supervision_partial_padding_and_coarse_epochs_are_the_same_everywhere(
    settings, spark, deep: Bundle, trainer: str
):
    shared, _ = run(settings(**DEEP, trainer=trainer), spark)
    assert losses(shared) == pytest.approx(losses(deep), abs=1e-4)


def test_a_model_that_another_job_trains_is_refused(settings):
    asked = settings()
    with lock(asked.model, "train", 0, "another"), pytest.raises(WarehouseBusy, match=r"run another .*--lock-wait-s"):
        run(asked, None)
    assert not positions(asked.model)


@HERE
def test_a_job_that_was_taken_for_dead_writes_no_further_checkpoint(
    settings, spark, monkeypatch: pytest.MonkeyPatch, trainer: str
):
    asked = settings(trainer=trainer, epochs=500)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(run, asked, spark)
        while not positions(asked.model) and not job.done():
            time.sleep(0.02)
        monkeypatch.setattr("segpipe.storage.lock.LEASE_SECONDS", -1.0)
        with lock(asked.model, "train", 0, "another"):
            with pytest.raises(WarehouseBusy, match="was taken for dead"):
                job.result()
            standing = newest(asked.model)
            assert standing[0] < 500
            assert take_failure(asked.model) is None


def test_a_job_that_waits_for_another_finds_the_model_trained(settings):
    asked = settings(lock_wait_seconds=120)
    with ThreadPoolExecutor(2) as pool:
        first, second = [job.result()[0] for job in [pool.submit(run, asked, None) for _ in range(2)]]
    assert first == second
    assert len(losses(first)) == asked.epochs
