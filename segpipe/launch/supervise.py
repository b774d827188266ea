"""spark-submit in client mode, watched until its job has ended: streams, signals, and a word for a job that was killed.

spark-submit merges the job's stderr into its stdout, and Spark's workers talk into its stderr. So the job opens the
real streams again itself (segpipe/cli/process.py), under the numbers that SEGPIPE_STREAMS tells, and the talk goes into
a file.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from segpipe.launch.refusals import explanation

_SIGNAL_SECONDS = 1.0  # so late a signal may be heard
_LAST_WORD_SECONDS = 30  # so long a job has to say that its JVM was killed


def run(job: str, command: Sequence[str], verbose: bool) -> int:
    """Run `command` as spark-submit and give its exit code, 128 and the number of the signal that ended it."""
    with tempfile.TemporaryDirectory(prefix="segpipe-submit.") as scratch, stream(1) as out, stream(2) as err:
        pid_file, talk = Path(scratch, "pid"), Path(scratch, "spark.log")
        known = {"SEGPIPE_STREAMS": f"{out} {err}", "SEGPIPE_PID_FILE": str(pid_file)}
        with talk.open("wb") as log:
            submitted = _Submitted(pid_file)
            submitted.start(command, os.environ | known, err if verbose else log.fileno(), (out, err))
        code = submitted.wait()
        if code != 0:
            _speak_for(job, pid_file, None if verbose else talk)
        return code


@contextmanager
def stream(number: int) -> Iterator[int]:
    """A descriptor that a child may open again, whose writes end in the stream `number`.

    It is the stream itself where that can be: another opening of a file would lose its place, and another user's
    terminal is refused. There it is a pipe, emptied by a thread.
    """
    if _can_open_again(number):
        given = os.dup(number)
        try:
            yield given
        finally:
            os.close(given)
        return
    source, given = os.pipe()
    copier = threading.Thread(target=_copy, args=(source, number), daemon=True)
    copier.start()
    try:
        yield given
    finally:
        os.close(given)
        copier.join()


def _can_open_again(number: int) -> bool:
    if stat.S_ISREG(os.fstat(number).st_mode):
        return False
    try:
        os.close(os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_APPEND | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _copy(source: int, target: int) -> None:
    with suppress(OSError):  # nobody reads any more: the job is told by its own next write
        while block := os.read(source, 1 << 16):
            while block:
                block = block[os.write(target, block) :]
    os.close(source)


class _Submitted:
    """spark-submit's process. Ctrl-C and SIGTERM are for the job, which records the run as interrupted and ends Spark.

    The JVM follows it; so neither the JVM nor this process hears Ctrl-C.
    """

    def __init__(self, pid_file: Path):
        self._pid_file = pid_file
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._stop)

    def start(self, command: Sequence[str], environment: dict[str, str], talk: int, streams: tuple[int, int]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=talk, stderr=talk, env=environment, pass_fds=streams
        )
        if self._stopped:  # before there was anything to stop
            self._process.terminate()

    def wait(self) -> int:
        """The exit code. In steps: Python hears a signal that comes right before a wait only when the wait is over."""
        assert self._process is not None
        while True:
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(_SIGNAL_SECONDS)
                return code if code >= 0 else 128 - code

    def _stop(self, _number: int, _frame: Any) -> None:
        if self._process is not None and not self._stopped:
            threading.Thread(target=self._stop_job, args=(self._process,), daemon=True).start()
        self._stopped = True

    def _stop_job(self, process: subprocess.Popen[bytes]) -> None:
        """Send the job SIGTERM, as soon as it hears it: without its JVM, but begun, it would tell of another error."""
        tick = threading.Event()
        while process.poll() is None and not self._pid_file.exists():
            tick.wait(0.1)
        with suppress(OSError, ValueError):  # no file, or an empty one: the job has ended
            os.kill(int(self._pid_file.read_text()), signal.SIGTERM)


def _speak_for(job: str, pid_file: Path, talk: Path | None) -> None:
    """Say why it failed where the job cannot: it was killed, or it never began."""
    if not pid_file.exists():
        if talk is not None:
            print(f"segpipe: {explanation(talk.read_text(errors='replace'))}", file=sys.stderr, flush=True)
        return
    if word := pid_file.read_text():
        _await_end(int(word))  # where the JVM was killed, the job is about to say so
    if pid_file.read_text():
        reason = "the job was killed, most often because memory ran out: run the same command again to go on"
        print(f"segpipe {job}: {reason}", file=sys.stderr, flush=True)


def _await_end(process: int) -> None:
    tick = threading.Event()
    for _ in range(10 * _LAST_WORD_SECONDS):
        try:
            os.kill(process, 0)
        except OSError:
            return
        tick.wait(0.1)
