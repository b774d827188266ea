"""What spark-submit is told: its options, and with its properties file the Spark settings that they make."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# The options of spark-submit 3.5.9 (its --help) that take a value, with the setting that they stand for, if any.
# spark-submit lets them win over --conf.
VALUE_OPTIONS: Mapping[str, str | None] = {
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
} | dict.fromkeys((
    "--class", "--jars", "--packages", "--exclude-packages", "--repositories", "--py-files", "--files", "--archives",
    "--conf", "-c", "--properties-file", "--driver-java-options", "--driver-library-path", "--driver-class-path",
    "--proxy-user", "--remote",
))  # fmt: skip
SWITCHES = ("--verbose", "-v", "--supervise")
PASSED_THROUGH = ("--version", "--kill", "--status")  # these submit nothing: spark-submit answers itself


def read_conf(path: Path) -> dict[str, str]:
    """Read a Spark properties file: `key value` or `key=value` lines, `#` comments."""
    entries: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if (line := line.strip()) and not line.startswith("#"):
            key, value = line.replace("=", " ", 1).split(None, 1) if "=" in line.split()[0] else line.split(None, 1)
            entries[key] = value.strip()
    return entries


def pairs(options: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options that take a value, with it, in their order."""
    words = iter(options)
    for word in words:
        if word in VALUE_OPTIONS:
            yield word, next(words, "")


def settings_of(options: Sequence[str]) -> dict[str, str]:
    """The Spark settings of spark-submit's options: the properties file, then --conf, then options of their own.

    >>> settings_of(["--master", "yarn", "--conf", "spark.executor.cores=2", "--num-executors", "4"])
    {'spark.executor.cores': '2', 'spark.master': 'yarn', 'spark.executor.instances': '4'}
    """
    given = list(pairs(options))
    files = [value for option, value in given if option == "--properties-file"]
    settings = read_conf(Path(files[-1])) if files else {}
    settings |= dict(value.partition("=")[::2] for option, value in given if option in ("--conf", "-c"))
    return settings | {key: value for option, value in given if (key := VALUE_OPTIONS[option])}


_UNITS = {"": 1, "k": 2**-10, "m": 1, "g": 2**10, "t": 2**20}


def megabytes(text: str) -> int:
    """A size of Spark's in MB, which is its unit where none is given.

    >>> megabytes("2g"), megabytes("512"), megabytes("1536m")
    (2048, 512, 1536)
    """
    found = re.fullmatch(r"(\d+)([kmgt]?)b?", text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is not a size of memory")
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
