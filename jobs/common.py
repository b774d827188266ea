"""What all jobs share: settings from flags and the site's file, errors to one line, interrupts, the closing summary."""

from __future__ import annotations

import argparse
import difflib
import errno
import io
import logging
import os
import pkgutil
import re
import signal
import socket
import sys
import tempfile
import threading
import tomllib
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, Field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from segpipe.errors import NotFound, SegpipeError, UsageError
from segpipe.settings import check as check_ranges
from segpipe.settings import flag_of, help_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.pipelines.progress import Progress
    from segpipe.warehouse.runs import RunRecord

ROOT = Path(__file__).resolve().parents[1]
S = TypeVar("S")

DONE, FAILED, QUARANTINED, INTERRUPTED, TERMINATED = 0, 1, 3, 130, 143
_PARENT_SECONDS = 0.5  # so often a job looks whether its JVM is alive


class Context:
    """What a job works with: the Spark session (started when first asked for) and the progress display."""

    def __init__(self, job: str, spark: SparkSession | None = None, conf: Mapping[str, str] | None = None):
        self.job = job
        self._spark = spark
        self._conf = conf
        self._owns_spark = False

    @property
    def spark(self) -> SparkSession:
        """The session; SegpipeError when it does not start."""
        if self._spark is None:
            from segpipe.launch.session import build

            self._spark = build(f"segpipe {self.job}", extra_conf=self._conf)
            self._owns_spark = True
            _catch_signals()  # pyspark has put its own handler in place
            accumulators: Any = self._spark.sparkContext._accumulatorServer
            accumulators.handle_error = lambda *_: None  # a stack trace when the JVM is killed, which the job tells
        return self._spark

    @property
    def progress(self) -> Progress:
        """`progress(total, label)`, see segpipe.pipelines.progress."""
        from segpipe.pipelines.progress import watch

        return partial(watch, self._spark)

    @contextmanager
    def recorded(self, job: str, warehouse: str | None, settings: Any, must_exist: bool = False) -> Iterator[RunRecord]:
        """Record the block as a run of `job` in the table `runs`, and close it with the summary of that row.

        Raises NotFound where the warehouse must exist and does not, and SegpipeError where it cannot be written.
        """
        from segpipe.warehouse.runs import record_run
        from segpipe.warehouse.store import Warehouse

        with record_run(Warehouse(warehouse) if warehouse is not None else None, job, settings) as record:
            yield record
        self.say(record.summary())

    def say(self, text: str) -> None:
        """A line for the person at the terminal."""
        print(text, flush=True)

    def ended_by_yarn(self, error: Exception) -> Exception | None:
        """What YARN says, where `error` comes of its having ended the application."""
        from segpipe.launch.session import ended_by_yarn

        return None if self._spark is None else ended_by_yarn(self._spark, error)

    def close(self) -> None:
        """Stop the session that this context started."""
        if self._owns_spark and self._spark is not None:
            self._spark.stop()


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

    `check` says in an instant what would fail later; spark-submit.sh asks for it before it starts a JVM. `context` is
    that of a surrounding program (tests, notebooks) which keeps its session. `spark_conf` gives settings that this job
    needs of the session, over what spark-submit was told.
    """
    from segpipe.launch.outcome import sent_home

    with sent_home() as send:
        code = _execute(
            job, settings_class, run, sys.argv[1:] if argv is None else list(argv), context, check, spark_conf
        )
        send(code)
    if context is None:
        _detach()
    return code


def _execute(
    job: str,
    settings_class: type[S],
    run: Callable[[S, Context], int | None],
    argv: Sequence[str],
    context: Context | None,
    check: Callable[[S], None],
    spark_conf: Callable[[S], Mapping[str, str]],
) -> int:
    verbose, own = "--verbose" in argv, False
    try:
        settings = _of_attempt(parse(job, settings_class, argv))
        asked = os.environ.get("SEGPIPE_CHECK_ONLY")
        if asked != "usage":
            check(settings)
        if asked:
            return DONE
        if context is not None:
            return run(settings, context) or DONE
        own = True
        attach_terminal()
        if not verbose:
            _quiet_logging()
        _catch_signals()
        context = Context(job, conf=spark_conf(settings))
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
    except KeyboardInterrupt as interrupt:
        ended = _JVM_ENDED if _jvm_has_ended() else "interrupted: run the same command again to go on"
        print(f"segpipe {job}: {ended}", file=sys.stderr, flush=True)
        return TERMINATED if str(interrupt) == "terminated" else INTERRUPTED
    except Exception as error:
        if own:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # there is nothing left to stop
        if verbose:
            traceback.print_exc()
        problem = _JVM_ENDED if _jvm_has_ended() else explain(error)
        print(f"segpipe {job}: {problem}", file=sys.stderr, flush=True)
        return error.exit_code if isinstance(error, SegpipeError) else FAILED


def _of_attempt(settings: S) -> S:
    """The settings of a driver that YARN starts again: it waits until the lock of the one before it has run out."""
    attempt = re.match(r"container(?:_e\d+)?_\d+_\d+_(\d+)_", os.environ.get("CONTAINER_ID", ""))
    if attempt is None or int(attempt[1]) < 2 or not hasattr(settings, "lock_wait_seconds"):
        return settings
    from segpipe.storage.lock import LEASE_SECONDS

    return replace(settings, lock_wait_seconds=max(settings.lock_wait_seconds, 1.5 * LEASE_SECONDS))  # type: ignore


def explain(error: BaseException) -> str:
    """One line `problem: remedy` for any exception."""
    if isinstance(error, SegpipeError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "memory ran out: use fewer cores (--master 'local[1]') or smaller batches"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no space left on the device{_of_file(error)}: free some, then run the same command again"
    if isinstance(error, PermissionError):
        return f"no permission{_of_file(error)}: choose a place that you may read and write"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror.lower()}{_of_file(error)}: check the place and run the same command again"

    from segpipe.launch.session import root_cause

    cause = root_cause(error)
    if cause.startswith("segpipe.errors."):  # raised in a worker, with its remedy
        return cause.partition(": ")[2]
    return f"{cause}: run again with --verbose for the stack trace"


def check_source(url: str) -> None:
    """Raise NotFound where there is no archive."""
    if not _exists(url):
        raise NotFound(f"Source {url} does not exist", "check the path and the rights to read it")


def check_warehouse(url: str, make: bool = False) -> None:
    """Raise NotFound where a warehouse is missing, unless it may be made, and SegpipeError where it cannot be written.

    Nothing is made here. Only places on a local disk can be judged before something is written.
    """
    from segpipe.storage.filesystem import filesystem, is_local

    if not make and not _exists(url):
        raise NotFound(f"Warehouse {url} does not exist", "give the folder that ingest wrote to")
    fs, path = filesystem(url)
    if not is_local(fs):
        return
    folder = Path(path)
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise SegpipeError(f"Warehouse {url} cannot be made because {folder} is no folder", _ELSEWHERE)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        reason = f"{folder} takes no files ({error.strerror})"
        raise SegpipeError(f"Warehouse {url} cannot be written because {reason}", _ELSEWHERE) from None


def check_model(url: str) -> None:
    """Raise ModelError where there is no model directory, or one that is not whole."""
    from segpipe.models.bundle import Bundle

    Bundle.load(url)


def _exists(url: str) -> bool:
    from segpipe.storage.filesystem import filesystem

    try:
        fs, path = filesystem(url)
        return bool(fs.exists(path))
    except (ImportError, ValueError) as error:  # a protocol that is unknown, or whose client is not installed
        raise UsageError(
            f"{url} cannot be opened ({error})", "give a path, or a URL of file://, hdfs:// or s3a://"
        ) from None


_ELSEWHERE = "give --warehouse a folder that you may write to"


def _of_file(error: OSError) -> str:
    return f" for {error.filename}" if error.filename else ""


# ---- settings: defaults < site file < flags


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageErrors with the nearest flag as remedy."""

    @property
    def remedy(self) -> str:
        return f"see `./spark-submit.sh {self.prog.split()[-1]} --help`"

    def error(self, message: str) -> typing.NoReturn:
        message = message.replace("the following arguments are required: ", "missing ")
        message = _INVALID.sub(lambda found: f"{found[1]} is {found[3]}, allowed is {_KINDS[found[2]]}", message)
        message = _CHOICE.sub(r"\1 is \2, allowed is \3", message)
        raise UsageError(message, self.remedy)

    def check_flags(self, argv: Sequence[str]) -> None:
        """Raise UsageError for the first unknown flag, before anything is said of what is missing."""
        known = [flag for action in self._actions for flag in action.option_strings]
        for word in argv:
            flag = word.split("=")[0]
            if flag.startswith("--") and flag not in known:
                near = nearest(flag, known)
                raise UsageError(f"unknown option {flag}", f"did you mean {near}?" if near else self.remedy)


_KINDS = {"int": "a whole number", "float": "a number"}
_INVALID = re.compile(r"argument (--[\w-]+): invalid (int|float) value: (.*)")
_CHOICE = re.compile(r"argument (--[\w-]+): invalid choice: (.*) \(choose from (.*)\)")


def parse(job: str, settings_class: type[S], argv: Sequence[str]) -> S:
    """The settings of `job`: flags in `argv` over the site's file over the defaults. Raises UsageError."""
    site = site_settings(job, settings_class)
    parser = parser_of(job, settings_class, site)
    parser.check_flags(argv)
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if name != "verbose"}
    settings = settings_class(**{**site, **given})
    check_ranges(settings)
    return settings


def parser_of(job: str, settings_class: type[Any], site: dict[str, Any] | None = None) -> _Parser:
    """The argument parser of a settings dataclass; what `site` holds is no longer required."""
    parser = _Parser(
        prog=f"spark-submit.sh {job}",
        description=settings_class.__doc__,
        epilog="exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but inputs were quarantined under --strict, "
        "130 interrupted. Defaults of a site go into conf/segpipe.toml.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    types_ = typing.get_type_hints(settings_class)
    ordered = sorted(fields(settings_class), key=lambda setting: not setting.metadata["required"])
    for setting in ordered:
        _add_flag(parser, setting, types_[setting.name], site or {})
    parser.add_argument("--verbose", action="store_true", help="show the stack trace of an error")
    return parser


def _add_flag(parser: argparse.ArgumentParser, setting: Field[Any], kind: Any, site: dict[str, Any]) -> None:
    required = setting.metadata["required"] and setting.name not in site
    if kind is bool:
        action = argparse.BooleanOptionalAction if setting.default else "store_true"
        parser.add_argument(flag_of(setting), action=action, help=_escaped(setting))
        return
    value_type = _plain(kind)
    parser.add_argument(
        flag_of(setting),
        type=value_type,
        choices=setting.metadata["choices"],
        required=required,
        metavar=None if setting.metadata["choices"] else _METAVARS.get(value_type, "TEXT"),
        help=_escaped(setting) + (" (required)" if required else ""),
    )


_METAVARS = {int: "N", float: "X"}


def _escaped(setting: Field[Any]) -> str:
    return help_of(setting).replace("%", "%%")


def _plain(kind: Any) -> type:
    """`int | None` is `int`."""
    if isinstance(kind, types.UnionType):
        return next(member for member in typing.get_args(kind) if member is not type(None))
    assert isinstance(kind, type)
    return kind


def site_file() -> Path | None:
    """The file of SEGPIPE_CONF, the project's conf/segpipe.toml, or what spark-submit shipped; None where none is."""
    if given := os.environ.get("SEGPIPE_CONF"):
        if not Path(given).is_file():
            raise UsageError(
                f"settings file {given} (SEGPIPE_CONF) does not exist", "name an existing file, or unset it"
            )
        return Path(given)
    shipped = (ROOT / "conf" / "segpipe.toml", Path("segpipe.toml"))
    return next((path for path in shipped if path.is_file()), None)


def site_settings(job: str, settings_class: type[Any]) -> dict[str, Any]:
    """The section of `job` in the site's file; UsageError for unknown sections and keys and for wrong types."""
    path = site_file()
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"settings file {path} is not TOML ({error})", "mend that line") from None
    for section, keys in content.items():
        if not isinstance(keys, dict) or section not in job_names():
            raise _unknown(path, f"section [{section}]", section, job_names())
    section = content.get(job, {})
    kinds = typing.get_type_hints(settings_class)
    defaults = {setting.name for setting in fields(settings_class) if setting.default is not MISSING}
    for key, value in section.items():
        if key not in defaults:
            raise _unknown(path, f"key `{key}` in [{job}]", key, sorted(defaults))
        kind = _plain(kinds[key])
        if kind is float and type(value) is int:
            section[key] = float(value)
        elif type(value) is not kind:
            raise UsageError(f"{path} sets `{key}` in [{job}] to {value!r}", f"give a value of type {kind.__name__}")
    return dict(section)


def _unknown(path: Path, what: str, word: str, known: Sequence[str]) -> UsageError:
    near = nearest(word, known)
    return UsageError(f"{path} holds the unknown {what}", f"did you mean `{near}`?" if near else "remove it")


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that looks most like `word`, None when none does."""
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.5)), None)


def job_names() -> list[str]:
    """The names of all jobs, also where the code is a zip on a cluster's node."""
    names = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return sorted(name for name in names if name != "common")


# ---- the process: terminal and signals


def attach_terminal() -> None:
    """Open the real stdout and stderr, which spark-submit keeps from the job.

    spark-submit reads the job's stderr through the pipe of its stdout and passes both on to its own stdout, so that
    errors land in results and no bar can be drawn. spark-submit.sh says in SEGPIPE_STREAMS under which numbers the JVM
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


def _detach() -> None:
    """Tell spark-submit.sh that the job has had its word; of a job that was killed it speaks itself."""
    if pid_file := os.environ.get("SEGPIPE_PID_FILE"):
        with suppress(OSError):
            Path(pid_file).write_text("")


_JVM_ENDED = (
    "Spark's Java process was killed or ended, most often for want of memory: run the same command again to go on, "
    "with fewer cores (--master 'local[1]') should it happen again"
)


def _jvm_has_ended() -> bool:
    """Whether nobody listens any more where the JVM that started this process did."""
    port = os.environ.get("PYSPARK_GATEWAY_PORT")
    if port is None:
        return False
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
    except OSError:
        return True
    return False


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


def _quiet_logging() -> None:
    """Warnings to stderr; what py4j logs of an interrupt is told in one line by `execute`."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    handler.addFilter(lambda record: "py4j" not in record.pathname)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _catch_signals() -> None:
    def terminate(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt("terminated")  # as segpipe.warehouse.runs does while a run is on record

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminate)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, terminate)
