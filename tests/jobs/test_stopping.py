"""A job that is stopped, without Spark: whatever happens meanwhile, one line, the right exit code and its row."""

import subprocess
import sys

import pytest

from segpipe.interrupts import TERMINATED, interrupt_behind
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import RUNS

JOB = """
import os, signal, sys
from py4j.protocol import Py4JError, Py4JNetworkError
from segpipe.cli import execute
from segpipe.settings import VerifySettings

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts its background jobs with SIGINT ignored

def hit(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    signal.sigtimedwait([], 60)

def run(settings, context):
    with context.recorded("verify", settings.warehouse, settings):
{body}

sys.exit(execute("verify", VerifySettings, run, ["--warehouse", sys.argv[1]]))
"""

FAILING_CLEANUP = """
        try:
            hit(signal.{name})
        finally:
            raise Py4JError("Gateway must be connected to send cancel cmd.")
"""
SIGNALLED_TWICE = """
        try:
            hit()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            sum(range(1000))
            print("tidied up")
"""
IN_A_FINALIZER = """
        class Finalized:
            def __del__(self):
                hit()

        Finalized()
        signal.sigtimedwait([], 60)
"""
ENDING_JVM = """
        import socket, threading
        gateway = socket.create_server(("127.0.0.1", 0))
        os.environ["PYSPARK_GATEWAY_PORT"] = str(gateway.getsockname()[1])

        def end():
            gateway.accept()
            gateway.close()

        threading.Thread(target=end).start()
        raise Py4JNetworkError("Answer from Java side is empty")
"""
INTERRUPTED = "segpipe verify: interrupted: run the same command again to go on\n"


@pytest.fixture
def warehouse(tmp_path):
    (tmp_path / "w").mkdir()
    return Store(str(tmp_path / "w"))


def outcome_of(body: str, warehouse: Store) -> tuple[subprocess.CompletedProcess[str], str]:
    """What a job said, and the outcome in its row of `runs`."""
    command = [sys.executable, "-c", JOB.replace("{body}", body), warehouse.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    (row,) = warehouse.rows(RUNS, ["outcome"]).to_pylist()
    return done, row["outcome"]


@pytest.mark.process
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_an_error_of_tidying_up_does_not_hide_who_stopped_the_job(name, code, warehouse):
    done, outcome = outcome_of(FAILING_CLEANUP.replace("{name}", name), warehouse)
    assert (done.returncode, done.stderr, outcome) == (code, INTERRUPTED, "interrupted")


@pytest.mark.process
def test_a_second_signal_does_not_break_off_the_tidying_up(warehouse):
    done, outcome = outcome_of(SIGNALLED_TWICE, warehouse)
    assert (done.returncode, done.stderr, outcome) == (143, INTERRUPTED, "interrupted")
    assert done.stdout == "tidied up\n"


@pytest.mark.process
def test_a_signal_in_a_finalizer_is_not_lost(warehouse):
    done, outcome = outcome_of(IN_A_FINALIZER, warehouse)
    assert (done.returncode, done.stderr, outcome) == (143, INTERRUPTED, "interrupted")


@pytest.mark.process
def test_a_jvm_that_is_about_to_end_is_told_as_one_that_has_ended(warehouse):
    """Its gateway still listens when a call fails."""
    done, outcome = outcome_of(ENDING_JVM, warehouse)
    assert (done.returncode, outcome) == (1, "failed")
    assert done.stderr.startswith("segpipe verify: Spark's Java process was killed or ended")


@pytest.mark.process
def test_a_job_that_has_not_begun_is_stopped_when_it_hears_it():
    """The launcher gets the signal while spark-submit's Python starts, before that has said who it is."""
    begins = "import os, signal\nos.kill(os.getppid(), signal.SIGTERM)\nos.environ['PYSPARK_GATEWAY_PORT'] = '1'\n"
    # in steps: a signal that comes right before a wait is heard after it
    waits = "def run(settings, context):\n    for _ in range(600):\n        signal.sigtimedwait([], 0.1)\n"
    runs = 'sys.exit(execute("verify", VerifySettings, run, ["--warehouse", "."]))'
    job = begins + JOB.partition("def hit")[0] + waits + runs
    launcher = "import sys; from segpipe.launch.supervise import run; sys.exit(run('verify', sys.argv[1:], False))"
    command = [sys.executable, "-c", launcher, sys.executable, "-c", job]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (143, INTERRUPTED)


def test_the_first_interrupt_is_the_one_that_counts():
    def stopped() -> None:
        try:
            try:
                raise KeyboardInterrupt(TERMINATED)
            finally:
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ValueError("closed") from None

    with pytest.raises(ValueError, match="closed") as failed:
        stopped()
    found = interrupt_behind(failed.value)
    assert found is not None
    assert str(found) == TERMINATED
    assert interrupt_behind(ValueError("alone")) is None
