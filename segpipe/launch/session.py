"""The Spark session of a job, a test or a notebook."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.errors import SegpipeError, UsageError
from segpipe.launch import class_data
from segpipe.launch.project import CONF, PACKAGE, ROOT, command
from segpipe.launch.refusals import refusal
from segpipe.launch.submitted import read_conf
from segpipe.storage import modes
from segpipe.traces import root_cause, words_of

if TYPE_CHECKING:
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

_LOOPBACK = "127.0.0.1"
SECRET_FILE = "SEGPIPE_SPARK_SECRET_FILE"
"""Variable that names the file of a standalone cluster's secret, which so comes into no conf and no process list."""


def build(app_name: str, master: str | None = None, extra_conf: Mapping[str, str] | None = None) -> SparkSession:
    """Give the session, started when there is none; what spark-submit was told stays as it was told.

    Started from plain Python (tests, notebooks), the conf file of the profile that SEGPIPE_PROFILE names (local when
    unset) is the base. Python workers find segpipe: on the driver's machine by its path, elsewhere as a zip that Spark
    ships. Raises SegpipeError if Java is missing or the session does not come up.
    """
    in_process = "PYSPARK_GATEWAY_PORT" not in os.environ
    settings = _in_process_conf() if in_process else {}
    settings.update(extra_conf or {})
    if master is not None:
        settings["spark.master"] = master
    if in_process:
        _prepare_java(settings)
    settings |= _of_workers(settings)
    if _runs_here(settings):
        os.environ.setdefault("SPARK_LOCAL_IP", _LOOPBACK)  # of the web page, where this process starts the JVM
        for key in ("spark.driver.host", "spark.driver.bindAddress"):
            if not _submitted(key):
                settings.setdefault(key, _LOOPBACK)
    if (path := os.environ.get(SECRET_FILE)) and (_wanted(settings, "spark.master") or "").startswith("spark://"):
        settings["spark.authenticate.secret"] = _secret(Path(path))
    session = _started(app_name, settings)
    _ship_code(session)
    return session


def _prepare_java(settings: Mapping[str, str]) -> None:
    """What spark-submit.sh does before there is a JVM, for a JVM that this process starts."""
    from segpipe.launch.java import java_home

    os.environ["JAVA_HOME"] = str(java_home())
    java_options = settings.get("spark.driver.extraJavaOptions", "")
    class_data.share(Path(os.environ["JAVA_HOME"]), _wanted(settings, "spark.master") or "", java_options)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


def _of_workers(settings: Mapping[str, str]) -> dict[str, str]:
    """What Python workers find in their environment."""
    found = {"PYTHONSAFEPATH": "1"}  # they find no code in the folder that they start in
    if ROOT.is_dir() and not _runs_on_yarn():
        found["PYTHONPATH"] = settings.get("spark.executorEnv.PYTHONPATH", str(ROOT))
    if umask := os.environ.get(modes.VARIABLE):
        found[modes.VARIABLE] = umask
    return {f"spark.executorEnv.{name}": value for name, value in found.items()}


def _started(app_name: str, settings: Mapping[str, str]) -> SparkSession:
    """The session, or the SegpipeError that says why it does not come up."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(app_name)
    for key, value in settings.items():
        builder = builder.config(key, value)
    try:
        with warnings.catch_warnings():
            # In cluster mode Spark also looks for the code where it was on the submitting machine, and says so.
            warnings.filterwarnings("ignore", "Failed to add file", RuntimeWarning)
            return builder.getOrCreate()
    except Exception as error:
        if known := refusal(words_of(error)):
            raise known from error
        raise SegpipeError(
            f"Spark did not start ({root_cause(error)})", f"see `{command()} doctor` for what this machine lacks"
        ) from error
    finally:
        class_data.unshare()


def _runs_on_yarn() -> bool:
    """Whether spark-submit was told so: nodes must not look for a folder of the submitting machine."""
    return _submitted("spark.master") == "yarn"


def _runs_here(settings: Mapping[str, str]) -> bool:
    """Whether the driver is the only process of Spark, so that nothing of it needs to be reached from elsewhere."""
    return (_wanted(settings, "spark.master") or "").startswith("local")


def _wanted(settings: Mapping[str, str], key: str) -> str | None:
    """A setting of the session to be, where it is not Spark's default."""
    return settings.get(key) or _submitted(key)


def _secret(path: Path) -> str:
    try:
        mode, secret = path.stat().st_mode, path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{SECRET_FILE} is {path}, which cannot be read ({error})", "name the file") from None
    if mode & 0o007:
        raise UsageError(f"{path} ({SECRET_FILE}) is open to everybody on this machine", f"chmod o= {path}")
    if not secret:
        raise UsageError(f"{path} ({SECRET_FILE}) is empty", "put the cluster's spark.authenticate.secret into it")
    return secret


def _submitted(key: str) -> str | None:
    """A setting that spark-submit was told."""
    conf = submitted_conf()
    return None if conf is None else conf.get(key, None)


def submitted_conf() -> SparkConf | None:
    """What spark-submit was told, readable before a session takes anything of the cluster; None in plain Python."""
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return None
    from pyspark import SparkConf, SparkContext

    SparkContext._ensure_initialized()
    return SparkConf()


def ended_by_yarn(spark: SparkSession, error: Exception) -> SegpipeError | None:
    """Why YARN took the application away in the middle of the job, where `error` comes of that."""
    text = words_of(error)
    if "stopped SparkContext" not in text and "SparkContext was shut down" not in text:
        return None
    context = spark.sparkContext
    if context.master != "yarn":
        return None
    hadoop = context._jvm.org.apache.hadoop.yarn
    client = hadoop.client.api.YarnClient.createYarnClient()
    client.init(context._jsc.hadoopConfiguration())
    client.start()
    try:
        identity = hadoop.api.records.ApplicationId.fromString(context.applicationId)
        said = str(client.getApplicationReport(identity).getDiagnostics())
    finally:
        client.stop()
    if known := refusal(said):
        return known
    first = next((line.strip() for line in said.splitlines() if line.strip()), "no reason given")
    return SegpipeError(
        f"YARN ended {context.applicationId} ({first})",
        f"see its log: yarn logs -applicationId {context.applicationId}",
    )


def _in_process_conf() -> dict[str, str]:
    path = CONF / f"spark-{os.environ.get('SEGPIPE_PROFILE') or 'local'}.conf"
    return read_conf(path) if path.is_file() else {}


def _ship_code(spark: SparkSession) -> None:
    """Send segpipe to executors on other machines, unless spark-submit did (`--py-files`)."""
    context = spark.sparkContext
    if context.master.startswith("local") or "segpipe" in context.getConf().get("spark.submit.pyFiles", ""):
        return
    if PACKAGE.is_dir():
        from segpipe.launch.code import zip_code

        folder = tempfile.mkdtemp(prefix="segpipe-code-")
        context.addPyFile(str(zip_code(Path(folder) / "segpipe.zip")))


def stop(spark: SparkSession) -> None:
    """Stop a session for good, so that its JVM can end.

    A barrier stage that has run in this JVM leaves the timer of its meetings behind, whose thread keeps the JVM alive
    for ever; Spark never cancels it.
    """
    jvm: Any = spark.sparkContext._jvm
    spark.stop()
    with suppress(Exception):  # a JVM that is gone has no timer
        contexts = jvm.java.lang.Class.forName("org.apache.spark.BarrierTaskContext$").getField("MODULE$").get(None)
        getattr(contexts, "org$apache$spark$BarrierTaskContext$$timer")().cancel()
