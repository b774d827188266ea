"""A job as a process: the terminal behind spark-submit, signals, and the JVM that it must not outlive."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from segpipe.interrupts import TERMINATED, terminate, was_terminated
from segpipe.traces import words_of

_PARENT_SECONDS = 0.5  # so often a job looks whether its JVM is alive
_ENDING_SECONDS = 10.0  # so long a JVM may take to end that has stopped Spark
_ENDING = ("stopped SparkContext", "SparkContext was shut down", "Answer from Java side is empty")
_AGAIN_SECONDS = 0.1
_STOPS = (signal.SIGTERM, signal.SIGHUP)
_PARENT = os.getppid()


class JvmEnded(KeyboardInterrupt):
    """Nobody stopped the job but the end of the JVM that started it."""


def attach_terminal() -> None:
    """Open the real stdout and stderr, which spark-submit keeps from the job.

    spark-submit reads the job's stderr through the pipe of its stdout and passes both on to its own stdout, so that
    errors land in results and no bar can be drawn. Who called it says in SEGPIPE_STREAMS under which numbers the JVM
    holds what may be opened again; under a plain spark-submit that is tried where it is a terminal or a pipe.
    """
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return
    numbers = [int(word) for word in os.environ.get("SEGPIPE_STREAMS", "1 2").split()]
    for stream, number in zip((sys.stdout, sys.stderr), numbers, strict=True):
        source = Path(f"/proc/{os.getppid()}/fd/{number}")
        try:
            if source.is_file():  # another opening of it would write over what is there
                continue
            descriptor = os.open(source, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY)
        except OSError:  # a socket, or no /proc: stay with spark-submit's pipe
            continue
        stream.flush()
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    if sys.stdout.isatty() and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    _die_with_parent()
    if pid_file := os.environ.get("SEGPIPE_PID_FILE"):
        written = Path(f"{pid_file}.written")
        written.write_text(str(os.getpid()))
        written.rename(pid_file)


def detach() -> None:
    """Tell the launcher that the job has had its word; of a job that was killed it speaks itself."""
    if pid_file := os.environ.get("SEGPIPE_PID_FILE"):
        with suppress(OSError):
            Path(pid_file).write_text("")


def jvm_has_ended(error: BaseException) -> bool:
    """Whether nobody listens any more where the JVM that started this process did.

    Where `error` says that the JVM is about to end, it is waited for: it stops Spark before it goes.
    """
    port, tick = os.environ.get("PYSPARK_GATEWAY_PORT"), threading.Event()
    if port is None:
        return False
    text = words_of(error)
    ticks = round(_ENDING_SECONDS / _PARENT_SECONDS) if any(sign in text for sign in _ENDING) else 0
    for left in reversed(range(ticks + 1)):
        try:
            socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
        except OSError:
            return True
        if left:
            tick.wait(_PARENT_SECONDS)
    return False


def catch_signals() -> None:
    """Make Ctrl-C, SIGTERM and a closed terminal a KeyboardInterrupt, which the job's edge tells in one line.

    One that is raised where Python can raise nothing, in a finalizer, comes again.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, _stop)
    sys.unraisablehook = _come_again


def ignore_signals() -> None:
    """From now on nothing stops this process, which is about to end."""
    for number in (signal.SIGINT, *_STOPS):
        signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: Any) -> None:
    """Interrupt the job, once: who signals a whole group sends one here and one by way of the launcher.

    The second would break off what the first one has begun, the last row in `runs` and giving back of locks.
    """
    for other in _STOPS:
        signal.signal(other, signal.SIG_IGN)
    if os.getppid() != _PARENT:
        raise JvmEnded(TERMINATED)
    terminate(number, frame)


def _come_again(unraisable: Any) -> None:
    """A `sys.unraisablehook`: an interrupt that got lost is sent again when this function has ended."""
    stop = unraisable.exc_value
    if not isinstance(stop, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    number = signal.SIGTERM if was_terminated(stop) else signal.SIGINT
    if number == signal.SIGTERM:
        signal.signal(number, _stop)
    threading.Timer(_AGAIN_SECONDS, signal.pthread_kill, (threading.main_thread().ident, number)).start()


def quiet_logging() -> None:
    """Warnings to stderr; what py4j logs of an interrupt is told in one line by the job's edge."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    handler.addFilter(lambda record: "py4j" not in record.pathname)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _die_with_parent() -> None:
    """Send this process one SIGTERM when the JVM has died, so that no training goes on alone.

    Linux can do so by itself (PR_SET_PDEATHSIG), but does it again and again while the JVM's threads end, and in the
    handler that Horovod has for SIGTERM the second waits for the first for ever.
    """
    tick = threading.Event()

    def watch() -> None:
        while os.getppid() == _PARENT:
            tick.wait(_PARENT_SECONDS)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
