"""Workers and drivers are killed for real; the same command again ends as if nothing had happened."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from segpipe.models.bundle import Bundle
from segpipe.storage.lock import lock
from segpipe.storage.model_directory import read_history
from segpipe.trainers import checkpoints

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"filters": 4, "depth": 2, "batch_size": 12, "steps_per_epoch": 40, "epochs": 2}
WORKERS = {"orca": 3, "horovod": 2}
EVERY_STEP = 1e-9


class Job:
    """`spark-submit.sh train` in a session of its own, and its processes, which all carry a mark."""

    def __init__(self, tables: str, model: str, trainer: str, log: Path):
        flags = {**SETTINGS, "warehouse": tables, "cohort": "tiny", "model": model, "trainer": trainer}
        flags |= {"workers": WORKERS[trainer], "checkpoint_minutes": EVERY_STEP}
        words = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        self.mark = uuid.uuid4().hex
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [ROOT / "spark-submit.sh", "--master", f"local[{WORKERS[trainer]}]", "train", *words],
                env=environment | {"SEGPIPE_TEST_MARK": self.mark},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """All that are alive, orphans as well."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SEGPIPE_TEST_MARK") == self.mark:
                    found.append(process)
            except psutil.Error:  # gone, or not ours to look at
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        """Those that have TensorFlow loaded, without the Python of the driver."""
        return [
            process
            for process in self.processes()
            if _maps(process, "libtensorflow_framework") and "/jobs/train.py" not in " ".join(process.cmdline())
        ]

    def driver(self) -> psutil.Process:
        """The JVM of spark-submit."""
        return next(process for process in self.processes() if _maps(process, "libjvm.so"))

    def fail_unless_alive(self) -> None:
        assert self.process.poll() is None, self.log.read_text()


def _maps(process: psutil.Process, library: str) -> bool:
    try:
        return library in Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return False


@pytest.fixture
def start(tables: str, tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs = []

    def run(trainer: str, model: str = "model") -> Job:
        jobs.append(Job(tables, str(tmp_path / model), trainer, tmp_path / f"{model}.log"))
        return jobs[-1]

    yield run
    for job in jobs:
        for process in job.processes():
            process.kill()
        job.process.wait(30)


@pytest.fixture
def undisturbed(start: Callable[..., Job], trainer: str, tmp_path: Path) -> Bundle:
    """The training that nobody kills, with as many workers: how their sums round depends on how many there are."""
    job = start(trainer, "undisturbed")
    assert job.process.wait(240) == 0, job.log.read_text()
    return Bundle.load(str(tmp_path / "undisturbed")).verify()


def wait_for(condition: Callable[[], bool], job: Job, what: str) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        job.fail_unless_alive()
        assert time.monotonic() < deadline, f"waited for {what} in vain: {job.log.read_text()}"
        time.sleep(0.02)


def trained(model: str, epoch: int, step: int) -> bool:
    return bool(found := checkpoints.positions(model)) and found[-1] >= (epoch, step)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)  # it starts nine processes that import TensorFlow
@pytest.mark.parametrize("trainer", ["orca", "horovod"])
def test_a_killed_worker_and_a_killed_driver_change_nothing(start, undisturbed: Bundle, tmp_path: Path, trainer: str):
    """First a worker, which is retried; then the driver, after which the same command goes on, to the same bits."""
    model = str(tmp_path / "model")
    job = start(trainer)
    wait_for(lambda: trained(model, 0, 3), job, "the first checkpoint")
    job.workers()[-1].kill()
    wait_for(lambda: "workers lost" in job.log.read_text(), job, "a retry")
    wait_for(lambda: trained(model, 1, 3), job, "the next epoch")
    killed = job.processes()
    job.driver().send_signal(signal.SIGKILL)
    job.process.wait(30)
    _, alive = psutil.wait_procs(killed, timeout=30)
    assert not alive, "orphans train on"
    said = job.log.read_text()
    assert "Spark's Java process was killed" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert said.count("workers lost") == 1
    assert not Path(model, "bundle.json").exists()
    left = checkpoints.positions(model)[-1]

    again = start(trainer)
    assert again.process.wait(240) == 0, again.log.read_text()
    assert left >= (1, 3)
    bundle = Bundle.load(model).verify()
    assert losses(bundle) == losses(undisturbed)
    for mine, theirs in zip(weights(bundle), weights(undisturbed), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_with_horovod_is_stopped_and_leaves_no_lock(start, tmp_path: Path, number: int, code: int):
    """Neither is taken for lost workers, after which training would start again."""
    model = str(tmp_path / "model")
    job = start("horovod")
    wait_for(lambda: trained(model, 0, 1), job, "the first checkpoint")
    if number == signal.SIGINT:
        os.killpg(job.process.pid, number)  # what a terminal does on Ctrl-C
    else:
        job.process.send_signal(number)
    assert job.process.wait(60) == code
    said = job.log.read_text()
    assert said.splitlines()[-1] == "segpipe train: interrupted: run the same command again to go on"
    assert "workers lost" not in said
    assert "Traceback" not in said
    with lock(model, "train", 0, "another"):
        pass
    _, alive = psutil.wait_procs(job.processes(), timeout=30)
    assert not alive, "orphans train on"


def losses(bundle: Bundle) -> list[float]:
    return [row["loss"] for row in read_history(bundle.url)]


def weights(bundle: Bundle) -> list[np.ndarray]:
    return checkpoints.read(bundle.url, checkpoints.Position(SETTINGS["epochs"])).weights
