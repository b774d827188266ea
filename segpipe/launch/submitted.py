"""What spark-submit was told: its options and properties file as one set of Spark settings."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from segpipe.launch.session import read_conf

# Options of spark-submit that stand for a setting; spark-submit lets them win over --conf.
_SETTINGS = {
    "--master": "spark.master",
    "--deploy-mode": "spark.submit.deployMode",
    "--name": "spark.app.name",
    "--driver-memory": "spark.driver.memory",
    "--driver-cores": "spark.driver.cores",
    "--executor-memory": "spark.executor.memory",
    "--executor-cores": "spark.executor.cores",
    "--total-executor-cores": "spark.cores.max",
    "--num-executors": "spark.executor.instances",
    "--queue": "spark.yarn.queue",
    "--principal": "spark.kerberos.principal",
    "--keytab": "spark.kerberos.keytab",
}


def settings_of(options: Sequence[str]) -> dict[str, str]:
    """The Spark settings of spark-submit's options: the properties file, then --conf, then options of their own.

    >>> settings_of(["--master", "yarn", "--conf", "spark.executor.cores=2", "--num-executors", "4"])
    {'spark.executor.cores': '2', 'spark.master': 'yarn', 'spark.executor.instances': '4'}
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--conf", "-c", action="append", default=[])
    parser.add_argument("--properties-file", type=Path)
    for option, key in _SETTINGS.items():
        parser.add_argument(option, dest=key)
    known = vars(parser.parse_known_args(options)[0])
    properties, entries = known.pop("properties_file"), known.pop("conf")
    settings = read_conf(properties) if properties else {}
    settings |= dict(entry.partition("=")[::2] for entry in entries)
    return settings | {key: value for key, value in known.items() if value is not None}


_UNITS = {"": 1, "k": 2**-10, "m": 1, "g": 2**10, "t": 2**20}


def megabytes(text: str) -> int:
    """A size of Spark's in MB, which is its unit where none is given.

    >>> megabytes("2g"), megabytes("512"), megabytes("1536m")
    (2048, 512, 1536)
    """
    found = re.fullmatch(r"(\d+)([kmgt]?)b?", text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is no size of memory")
    return math.ceil(int(found[1]) * _UNITS[found[2]])


def container_mb(settings: Mapping[str, str], role: str) -> int:
    """The memory that a container of Spark's asks YARN for: `role` is executor, driver, or am.

    am is the application master of client deploy mode, which holds no driver.
    """
    prefix = "spark.yarn.am" if role == "am" else f"spark.{role}"
    heap = megabytes(settings.get(f"{prefix}.memory", "512m" if role == "am" else "1g"))
    share = 0.1 if role == "am" else float(settings.get(f"{prefix}.memoryOverheadFactor", "0.1"))
    overhead = settings.get(f"{prefix}.memoryOverhead")
    total = heap + (megabytes(overhead) if overhead is not None else max(384, math.floor(heap * share)))
    if role == "executor":
        total += megabytes(settings.get("spark.executor.pyspark.memory", "0"))
    return total
