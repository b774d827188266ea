"""What a job needs on a YARN cluster's nodes, put on HDFS once: Python, Spark and BigDL, each named by its content.

Whatever the administrator's configuration already names stays as it is.
"""

from __future__ import annotations

import getpass
import os
import sys
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from segpipe.errors import UsageError
from segpipe.launch import environment, outcome
from segpipe.storage import filesystem as files

_PYTHON = "./environment/bin/python"
# Spark localizes the submitter's HADOOP_CONF_DIR there; hdfs-native in the Python workers reads the same files.
_CONTAINER_CONF = "./__spark_conf__/__hadoop_conf__"


def hadoop_settings() -> dict[str, str]:
    """The settings of core-site.xml, hdfs-site.xml and yarn-site.xml in HADOOP_CONF_DIR (or YARN_CONF_DIR).

    Raises UsageError if the variable is not set or the folder holds no configuration.
    """
    folder = os.environ.get("HADOOP_CONF_DIR") or os.environ.get("YARN_CONF_DIR")
    if not folder:
        raise UsageError(
            "HADOOP_CONF_DIR is not set", "set it to the folder of the cluster's core-site.xml and yarn-site.xml"
        )
    found = [Path(folder, f"{name}-site.xml") for name in ("core", "hdfs", "yarn")]
    found = [path for path in found if path.is_file()]
    if not {"core-site.xml", "yarn-site.xml"} <= {path.name for path in found}:
        raise UsageError(
            f"HADOOP_CONF_DIR {folder} lacks core-site.xml or yarn-site.xml", "name the cluster's configuration folder"
        )
    settings: dict[str, str] = {}
    for path in found:
        try:
            entries = ElementTree.parse(path).getroot().iter("property")
        except ElementTree.ParseError as error:
            raise UsageError(
                f"{path} is not a Hadoop configuration ({error})", "correct it, or fetch the file again"
            ) from None
        settings |= {entry.findtext("name", "").strip(): entry.findtext("value", "").strip() for entry in entries}
    return settings


def staging_folder(settings: Mapping[str, str]) -> str:
    """The URL of the folder that archives are cached in: SEGPIPE_STAGING, or .segpipe in the user's home on HDFS."""
    if given := os.environ.get("SEGPIPE_STAGING"):
        return given.rstrip("/")
    default = settings.get("fs.defaultFS", "").rstrip("/")
    if not default.startswith(("hdfs://", "viewfs://")):
        raise UsageError(
            f"The cluster's default file system is {default or 'not set'}",
            "set SEGPIPE_STAGING to a folder on hdfs:// that the nodes can read",
        )
    user = os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
    return f"{default}/user/{user}/.segpipe"


def staged(folder: str, name: str, write: Callable[[BinaryIO], None]) -> str:
    """The URL of the file `name` in `folder`, written there by `write` unless it is there already.

    It appears under its name only when it is whole; where two submit at once, one copy stays.
    """
    fs, path = files.filesystem(f"{folder}/{name}")
    if not fs.exists(path):
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        print(f"segpipe: putting {name} into {folder} (once)", file=sys.stderr, flush=True)
        with files.written_aside(fs, path) as target:
            write(target)
    return f"{folder}/{name}"


def submit_options(conf: Mapping[str, str], deploy_mode: str, jars: Sequence[str]) -> list[str]:
    """The spark-submit options that bring Python, Spark and `jars` to the nodes; `conf` is what is set already."""
    folder = staging_folder(hadoop_settings())
    options: list[str] = []

    def add(key: str, value: str) -> None:
        if key not in conf:
            options.extend(("--conf", f"{key}={value}"))

    if "spark.yarn.archive" not in conf and "spark.yarn.jars" not in conf:
        add("spark.yarn.archive", _stage_spark(folder))
    if "spark.pyspark.python" not in conf:
        archives = [conf.get("spark.yarn.dist.archives", ""), f"{_stage_environment(folder)}#environment"]
        options.extend(("--conf", "spark.yarn.dist.archives=" + ",".join(filter(None, archives))))
        add("spark.pyspark.python", _PYTHON)
        if deploy_mode == "client":
            add("spark.pyspark.driver.python", sys.executable)
    if conf.get("spark.eventLog.enabled") == "true" and "spark.eventLog.dir" not in conf:
        fs, path = files.filesystem(f"{folder}/events")  # Spark refuses to start where the folder is missing
        fs.makedirs(path, exist_ok=True)
        add("spark.eventLog.dir", f"{folder}/events")
    for where in ("spark.executorEnv", "spark.yarn.appMasterEnv"):
        add(f"{where}.HADOOP_CONF_DIR", _CONTAINER_CONF)
    if deploy_mode == "cluster":
        add(f"spark.yarn.appMasterEnv.{outcome.VARIABLE}", f"{folder}/outcomes/{uuid.uuid4().hex}.json")
    if jars:
        options.extend(("--jars", ",".join(_stage_jar(folder, jar) for jar in jars)))
    return options


def _stage_environment(folder: str) -> str:
    contents = environment.environment_files()
    write = partial(environment.write_packed, contents, extra={"bin/python": environment.LAUNCHER})
    return staged(folder, f"environment-{environment.fingerprint(contents)}.tar.gz", write)


def _stage_spark(folder: str) -> str:
    import pyspark

    jars = {path.name: path for path in Path(pyspark.__file__).parent.glob("jars/*.jar")}
    name = f"spark-{pyspark.__version__}-{environment.fingerprint(jars)}.tar"  # jars are packed already
    return staged(folder, name, partial(environment.write_archive, jars))


def _stage_jar(folder: str, jar: str) -> str:
    """A jar of this machine on HDFS; one that has a URL already stays where it is."""
    path = Path(jar)
    if "://" in jar or not path.is_file():
        return jar

    def copy(target: BinaryIO) -> None:
        with path.open("rb") as source:
            while block := source.read(1 << 22):
                target.write(block)

    return staged(folder, f"jars-{environment.fingerprint({path.name: path})}/{path.name}", copy)
