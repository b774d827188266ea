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

from segpipe.interrupts import terminate

_PARENT_SECONDS = 0.5  # so often a job looks whether its JVM is alive


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
        Path(pid_file).write_text(str(os.getpid()))


def detach() -> None:
    """Tell the launcher that the job has had its word; of a job that was killed it speaks itself."""
    if pid_file := os.environ.get("SEGPIPE_PID_FILE"):
        with suppress(OSError):
            Path(pid_file).write_text("")


def jvm_has_ended() -> bool:
    """Whether nobody listens any more where the JVM that started this process did."""
    port = os.environ.get("PYSPARK_GATEWAY_PORT")
    if port is None:
        return False
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
    except OSError:
        return True
    return False


def catch_signals() -> None:
    """Make Ctrl-C, SIGTERM and a closed terminal a KeyboardInterrupt, which the job's edge tells in one line."""

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminate)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, terminate)


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
    parent, tick = os.getppid(), threading.Event()

    def watch() -> None:
        while os.getppid() == parent:
            tick.wait(_PARENT_SECONDS)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
