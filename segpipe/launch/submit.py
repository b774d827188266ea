"""Runs a job through spark-submit: finds Java, ships the code, picks the conf file. ./spark-submit.sh and `segpipe`.

Wrong usage and missing places are told at once, without a JVM; --help needs none either, and doctor starts its own
Spark.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from segpipe.errors import NotFound, SegpipeError, UsageError
from segpipe.extras import named_extra
from segpipe.interrupts import ended_by, terminable
from segpipe.launch.command_line import CommandLine, help_text, read
from segpipe.launch.interpreter import absolute_only
from segpipe.launch.project import CONF, JOBS, ROOT
from segpipe.launch.submitted import settings_of
from segpipe.registry import TRAINERS, Trainer

_BROKEN_PIPE = 141
_HEARD = {signal.SIGTERM, signal.SIGCHLD}  # while a child checks a job


def console() -> int:
    """The program `segpipe`, which pip installs: ./spark-submit.sh from any folder."""
    path = absolute_only(os.environ.get("PYTHONPATH", ""))
    os.environ |= {"SEGPIPE_COMMAND": "segpipe", "PYTHONSAFEPATH": "1", "PYTHONPATH": path}
    return main()


def main(argv: Sequence[str] | None = None) -> int:
    """The program: gives its exit code."""
    try:
        with terminable():
            return submit(read(sys.argv[1:] if argv is None else argv))
    except SegpipeError as error:
        print(f"segpipe: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        return ended_by(interrupt)
    except BrokenPipeError:  # help, into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE


def submit(line: CommandLine) -> int:
    """Run the job of a command line, and give its exit code."""
    if line.help:
        print(help_text(), flush=True)
        return 0
    if line.passed_through:
        _find_spark()
        _exec([_spark_submit(), *line.options, *line.passed_through])
    line.check()
    _prepare_python(line)
    if {"--help", "-h"} & set(line.arguments):
        return run_here(line.job, ["--help"])
    line = line.with_profile()
    if line.job == "doctor":
        return _diagnose(line)
    return _check(line) or _launch(line)


def run_here(job: str, arguments: Sequence[str]) -> int:
    """Run the program of a job in this process."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    with named_extra():
        return int(importlib.import_module(f"jobs.{job}").main(list(arguments)))


def _prepare_python(line: CommandLine) -> None:
    """The environment of every Python from here on; ahead of the first one that opens HDFS."""
    if keytab := line.settings.get("spark.kerberos.keytab", "").removeprefix("file://"):
        if not os.access(keytab, os.R_OK):
            raise UsageError(f"Keytab {keytab} cannot be read", "give --keytab a file that you may read")
        # Spark logs in by itself; Python gets its tickets from the same keys, and keeps them in memory.
        os.environ |= {"KRB5_CLIENT_KTNAME": keytab, "KRB5CCNAME": "MEMORY:segpipe"}
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    for name, value in (("TF_ENABLE_ONEDNN_OPTS", "1"), ("TF_CPP_MIN_LOG_LEVEL", "2")):
        os.environ[name] = os.environ.get(name) or value


def _diagnose(line: CommandLine) -> int:
    os.environ["SEGPIPE_SUBMIT_OPTIONS"] = "\n".join(line.options)
    os.environ["SEGPIPE_PROFILE"] = line.profile or "local"
    os.environ["SEGPIPE_MASTER"] = line.settings.get("spark.master", "")
    return run_here("doctor", line.arguments)


def _check(line: CommandLine) -> int:
    """The exit code of the job's own check, made in a child: what that has to import is gone before the JVM comes.

    In cluster mode the driver's machine may see other files than this one, so only the usage is checked.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, nobody is told that a child has ended
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)  # and taken below, so that none comes too early or too late
    child = os.fork()
    if child == 0:
        os.environ["SEGPIPE_CHECK_ONLY"] = "paths" if line.deploy_mode == "client" else "usage"
        _end_with(line)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child says that it was interrupted
    ended = status = 0
    while not ended:
        if signal.sigwait(_HEARD) == signal.SIGTERM:  # which the child has not had
            os.kill(child, signal.SIGTERM)
        ended, status = os.waitpid(child, os.WNOHANG)
    code = os.waitstatus_to_exitcode(status)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
    signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def _end_with(line: CommandLine) -> NoReturn:
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        code = run_here(line.job, line.arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    except KeyboardInterrupt as interrupt:
        code = ended_by(interrupt)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _launch(line: CommandLine) -> int:
    _find_spark()
    _prepare_spark(line)
    options = _options(line)
    command = [_spark_submit(), *options, str(JOBS / f"{line.job}.py"), *line.arguments]
    if line.deploy_mode != "cluster":
        from segpipe.launch import supervise

        return supervise.run(line.job, command, verbose="--verbose" in line.arguments)
    # The JVM hands the job over, and ends.
    os.environ["SPARK_SUBMIT_OPTS"] = f"-XX:TieredStopAtLevel=1 {os.environ.get('SPARK_SUBMIT_OPTS', '')}"
    from segpipe.launch import outcome

    url = settings_of(options).get(f"spark.yarn.appMasterEnv.{outcome.VARIABLE}")
    return outcome.submit(command, url) if url else _exec(command)


def _find_spark() -> None:
    """Name Java and Spark to spark-submit; NotFound if one is missing."""
    from segpipe.launch.java import java_home

    found = importlib.util.find_spec("pyspark")
    if found is None or not found.submodule_search_locations:
        raise NotFound(f"Python {sys.executable} has no pyspark", "run `make setup`, or pip install 'segpipe[spark]'")
    os.environ["SPARK_HOME"] = found.submodule_search_locations[0]
    os.environ["JAVA_HOME"] = str(java_home())


def _spark_submit() -> str:
    return os.path.join(os.environ["SPARK_HOME"], "bin", "spark-submit")


def _prepare_spark(line: CommandLine) -> None:
    from segpipe.launch import class_data

    java_options = line.settings.get("spark.driver.extraJavaOptions", "")
    class_data.share(Path(os.environ["JAVA_HOME"]), line.master, java_options)
    os.environ.setdefault("PYTHONHOME", "")  # Orca hands it to its workers, which die where it is not set
    names = ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")
    if line.master.startswith("local"):
        os.environ |= dict.fromkeys(names, _python())
        # where Spark's web page listens, if there is one
        os.environ["SPARK_LOCAL_IP"] = os.environ.get("SPARK_LOCAL_IP") or "127.0.0.1"
    elif line.master != "yarn" and line.deploy_mode != "cluster":
        os.environ |= {name: os.environ.get(name) or _python() for name in names}


def _python() -> str:
    return shutil.which(os.environ.get("SEGPIPE_PYTHON") or sys.executable) or sys.executable


def _options(line: CommandLine) -> list[str]:
    """The options of spark-submit: those that were given, and what brings the code where it runs."""
    options = line.plain_options
    jars, py_files, files = (line.listed(name) for name in ("--jars", "--py-files", "--files"))
    local = line.master.startswith("local")
    if not local:
        py_files.append(str(_shipped_code()))
        if line.deploy_mode == "cluster":
            site = Path(os.environ.get("SEGPIPE_CONF") or CONF / "segpipe.toml")
            files += [str(site)] if site.is_file() else []
    if _may_train(line, lambda trainer: trainer.bigdl):
        jars += bigdl_jars()
    if local and _may_train(line, lambda trainer: trainer.on_spark):
        # its workers are forked from one process, which imports TensorFlow once
        options = ["--conf", "spark.python.daemon.module=segpipe.trainers.forkserver", *options]
    if line.master == "yarn":  # nodes have Java and nothing else: all the rest travels, once, by way of HDFS
        from segpipe.launch import yarn

        staged = yarn.submit_options(line.settings, line.deploy_mode, jars)
        options = ["--name", f"segpipe {line.job}", *options, *staged]  # YARN names it before it runs
        jars = []
    lists = {"--jars": jars, "--py-files": py_files, "--files": files}
    return options + [word for name, entries in lists.items() if entries for word in (name, ",".join(entries))]


def _may_train(line: CommandLine, kind: Callable[[Trainer], bool]) -> bool:
    """Whether a job trains, and names no trainer of another kind."""
    words = f" {' '.join(line.arguments)} ".replace("=", " ")
    others = (name for name, trainer in TRAINERS.items() if not kind(trainer))
    return line.job in ("train", "demo") and not any(f" --trainer {name} " in words for name in others)


def bigdl_jars() -> list[str]:
    """The jars that Orca needs on the driver; none where BigDL is not installed. Imports neither BigDL nor Spark."""
    found = importlib.util.find_spec("bigdl")
    folders = list(found.submodule_search_locations or ()) if found else []
    return sorted(str(jar) for folder in folders for jar in Path(folder).glob("share/*/lib/*.jar"))


def _shipped_code() -> Path:
    """A zip of segpipe and jobs, named by what is in it."""
    from segpipe.launch.code import cached_code

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or "/tmp", ".cache"), "segpipe")
    try:
        return cached_code(cache)
    except OSError:
        remedy = "set XDG_CACHE_HOME to a folder that can be written"
        raise SegpipeError(f"Cannot write the code's zip into {cache}", remedy) from None


def _exec(command: list[str]) -> NoReturn:
    sys.stdout.flush()
    os.execv(command[0], command)
