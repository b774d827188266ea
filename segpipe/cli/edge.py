"""The edge of a job: settings in, exit code out, every error one line on stderr."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from segpipe.cli.context import Context
from segpipe.cli.options import parse
from segpipe.cli.process import (
    JvmEnded,
    attach_terminal,
    catch_signals,
    detach,
    ignore_signals,
    jvm_has_ended,
    quiet_logging,
)
from segpipe.errors import SegpipeError
from segpipe.extras import missing
from segpipe.interrupts import interrupt_behind, was_terminated
from segpipe.traces import root_cause

S = TypeVar("S")

DONE, FAILED, QUARANTINED, INTERRUPTED, TERMINATED = 0, 1, 3, 130, 143
_INTERRUPTED = "interrupted: run the same command again to go on"
_JVM_ENDED = (
    "Spark's Java process was killed or ended, most often because memory ran out: run the same command again to go on, "
    "with fewer cores (--master 'local[1]') if it happens again"
)


def execute(
    job: str,
    settings_class: type[S],
    run: Callable[[S, Context], int | None],
    argv: Sequence[str] | None = None,
    context: Context | None = None,
    check: Callable[[S], None] = lambda settings: None,
    spark_conf: Callable[[S], Mapping[str, str]] = lambda settings: {},
) -> int:
    """Parse `argv`, call `run(settings, context)`, and give the exit code; every error becomes one line on stderr.

    `check` says in an instant what would fail later; the launcher asks for it before it starts a JVM. `context` is
    that of a surrounding program (tests, notebooks) which keeps its session. `spark_conf` gives settings that this job
    needs of the session, over what spark-submit was told.
    """
    from segpipe.launch.outcome import sent_home

    argv = sys.argv[1:] if argv is None else list(argv)
    verbose = "--verbose" in argv

    def work() -> int:
        settings = _of_attempt(parse(job, settings_class, argv))
        asked = os.environ.get("SEGPIPE_CHECK_ONLY")
        if asked != "usage":
            check(settings)
        if asked:
            return DONE
        if context is not None:
            return run(settings, context) or DONE
        return _in_own_process(run, settings, Context(job, conf=spark_conf(settings)), verbose)

    with sent_home() as send:
        code = _told(job, work, verbose)
        send(code)
    if context is None:
        detach()
    return code


def explain(error: BaseException) -> str:
    """One line `problem: remedy` for any exception."""
    error = missing(error) or error
    if isinstance(error, SegpipeError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "memory ran out: use fewer cores (--master 'local[1]') or smaller batches"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no space left on the device{_of_file(error)}: free some, then run the same command again"
    if isinstance(error, PermissionError):
        return f"no permission{_of_file(error)}: choose a place that you may use, or ask its owner for the right"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror.lower()}{_of_file(error)}: check the place and run the same command again"

    cause = root_cause(error)
    if cause.startswith("segpipe.errors."):  # raised in a worker, with its remedy
        return cause.partition(": ")[2]
    module = re.match(r"ModuleNotFoundError: No module named '([\w.]+)'", cause)  # in a worker as well
    if module and (lacked := missing(ModuleNotFoundError(name=module[1]))):
        return str(lacked)
    if raised := _raised_elsewhere(cause):
        return explain(raised)
    return f"{cause}: run again with --verbose for the stack trace"


def _raised_elsewhere(cause: str) -> Exception | None:
    """An error of a worker or of the JVM, whose words alone came here, as what it was; None for one without advice.

    >>> _raised_elsewhere("OSError: [Errno 28] No space left on device: '/w/a'").filename
    '/w/a'
    """
    if re.match(r"[\w.]*MemoryError\b", cause):
        return MemoryError()
    if told := re.match(r"[\w.]+: \[Errno (\d+)\] (.+?)(?:: '(.*)')?$", cause):
        return OSError(int(told[1]), told[2], told[3])
    return OSError(errno.ENOSPC, "full") if "No space left on device" in cause else None


def _told(job: str, work: Callable[[], int], verbose: bool) -> int:
    """The exit code of `work`, after one line on stderr where it failed or was interrupted."""
    try:
        return work()
    except (Exception, KeyboardInterrupt) as error:
        interrupt = interrupt_behind(error)
        if verbose and error is not interrupt:
            traceback.print_exc()
        if interrupt is None:
            problem = _JVM_ENDED if jvm_has_ended(error) else explain(error)
            code = error.exit_code if isinstance(error, SegpipeError) else FAILED
        else:
            problem = _JVM_ENDED if isinstance(interrupt, JvmEnded) else _INTERRUPTED
            code = TERMINATED if was_terminated(interrupt) else INTERRUPTED
    print(f"segpipe {job}: {problem}", file=sys.stderr, flush=True)
    return code


def _in_own_process(run: Callable[[S, Context], int | None], settings: S, context: Context, verbose: bool) -> int:
    catch_signals()  # before the launcher learns whom to send them to
    attach_terminal()
    if not verbose:
        quiet_logging()
    try:
        return _in_own_session(run, settings, context)
    except BaseException:
        ignore_signals()  # there is nothing left to stop
        raise


def _in_own_session(run: Callable[[S, Context], int | None], settings: S, context: Context) -> int:
    """Run the job in a session that is stopped after it; what YARN did to it is told as YARN tells it."""
    try:
        if "CONTAINER_ID" in os.environ:  # YARN calls it a failure when its driver never starts Spark
            _ = context.spark
        return run(settings, context) or DONE
    except Exception as error:
        if reason := context.ended_by_yarn(error):
            raise reason from error
        raise
    finally:
        context.close()


def _of_attempt(settings: S) -> S:
    """The settings of a driver that YARN starts again: it waits until the lock of the one before it has run out."""
    attempt = re.match(r"container(?:_e\d+)?_\d+_\d+_(\d+)_", os.environ.get("CONTAINER_ID", ""))
    if attempt is None or int(attempt[1]) < 2 or not hasattr(settings, "lock_wait_seconds"):
        return settings
    from segpipe.storage.lock import LEASE_SECONDS

    return replace(settings, lock_wait_seconds=max(settings.lock_wait_seconds, 1.5 * LEASE_SECONDS))  # type: ignore


def _of_file(error: OSError) -> str:
    return f" for {error.filename}" if error.filename else ""
