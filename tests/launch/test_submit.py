"""The launcher before it has started anything."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from segpipe.launch import interpreter, submit

ROOT = Path(__file__).resolve().parents[2]
LINE = "segpipe: terminated before a job had begun: run the same command again\n"


def test_a_launcher_that_is_terminated_early_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(submit, "read", lambda argv: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert submit.main(["ingest"]) == 143
    assert capsys.readouterr().err == LINE
    assert signal.getsignal(signal.SIGTERM) == before


_ENDED_WHILE_IT_IMPORTS = """
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "segpipe.launch.submit":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Finder())
runpy.run_module("segpipe.launch", run_name="__main__")
"""


@pytest.mark.process
def test_a_launcher_that_is_terminated_while_python_imports_it_says_so() -> None:
    command = interpreter.command("-c", _ENDED_WHILE_IT_IMPORTS)
    done = subprocess.run(command, env=interpreter.environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (143, LINE)


@pytest.mark.process
def test_a_launcher_that_is_terminated_before_it_has_python_says_so(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nkill -TERM "$LAUNCHER"\necho 3.11\n')
    python.chmod(0o755)
    command = ["bash", "-c", 'LAUNCHER=$$ SEGPIPE_PYTHON=$1 exec "$2" ingest', "bash", python, ROOT / "spark-submit.sh"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (143, LINE)


_ENDED_WHILE_IT_CHECKS = """
import os, signal, sys, time
from segpipe.launch import submit
def checked(job, arguments):  # in the child: SIGTERM goes to the launcher, which hands it on
    os.kill(os.getppid(), signal.SIGTERM)
    while True:
        time.sleep(0.01)  # in steps, because Python hears a signal that comes right before a wait only after it
changed = []
def told_at_once(number, handler, change=signal.signal):
    changed.append(number)
    while changed.count(signal.SIGINT) == 1 and number == signal.SIGINT and signal.SIGTERM not in signal.sigpending():
        pass  # it has come before the launcher waits for its child
    return change(number, handler)
submit.run_here = checked
submit.signal = type("signals", (), vars(signal) | {"signal": staticmethod(told_at_once)}) if WAITING else signal
sys.exit(submit.main(["verify", "--warehouse", "none"]))
"""


@pytest.mark.process
@pytest.mark.parametrize("waiting", [False, True], ids=["waiting for the child", "right after its start"])
def test_a_launcher_that_is_terminated_while_a_job_checks_its_options_leaves_no_child(waiting: bool) -> None:
    script = _ENDED_WHILE_IT_CHECKS.replace("WAITING", str(waiting))
    command = interpreter.command("-c", script)
    done = subprocess.run(command, env=interpreter.environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (143, LINE)
    assert not [one for one in psutil.process_iter(["cmdline"]) if script in (one.info["cmdline"] or ())]


@pytest.mark.process
def test_a_check_ends_where_whoever_starts_the_launcher_ignores_the_end_of_children() -> None:
    script = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
        "os.execv(sys.executable, [sys.executable, '-P', '-m', 'segpipe.launch', 'verify', '--warehouse', 'none'])"
    )
    command = interpreter.command("-c", script)
    done = subprocess.run(command, env=interpreter.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "none" in done.stderr
