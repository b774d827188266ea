"""Whether a Spark session can hold a training at all: a barrier that cannot fill would wait for ever."""

import math
import os
import re
import time
from typing import TYPE_CHECKING, Any

from segpipe.errors import UsageError

if TYPE_CHECKING:
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

_GRANT_SECONDS = 180.0
_LOOK_SECONDS = 0.2


def check_cluster(conf: "SparkConf", workers: int) -> None:
    """Raise UsageError, with the option that mends it, where `workers` tasks cannot run at the same time and stay."""
    for name, what in (("spark.dynamicAllocation.enabled", "dynamic allocation"), ("spark.speculation", "speculation")):
        if conf.get(name, "false").lower() == "true":
            raise UsageError(f"Training cannot run with {what} on", f"add --conf {name}=false")
    slots = session_slots(conf)
    if slots is not None and slots < workers:
        raise UsageError(
            f"{workers} workers need {workers} slots, {conf.get('spark.master', '')} has {slots}",
            _remedy(conf, workers, slots),
        )


def await_slots(spark: "SparkSession", workers: int, seconds: float = _GRANT_SECONDS) -> None:
    """Return once the cluster runs `workers` tasks at the same time; raise UsageError if it does not in time.

    What the configuration asks for a cluster may be slow to grant, or never grant: a full queue, machines that are too
    small, executors that were lost.
    """
    context: Any = spark.sparkContext._jsc.sc()
    profile = context.resourceProfileManager().defaultResourceProfile()
    deadline = time.monotonic() + seconds
    while (slots := int(context.maxNumConcurrentTasks(profile))) < workers:
        if time.monotonic() >= deadline:
            conf = spark.sparkContext.getConf()
            fewer = f"use --workers {slots}, " if slots else ""
            raise UsageError(
                f"{conf.get('spark.master')} gave {slots} of {workers} slots within {seconds:g} s",
                f"{fewer}wait until others are done, or ask for less with --conf spark.executor.memory",
            )
        time.sleep(_LOOK_SECONDS)


def session_slots(conf: "SparkConf") -> int | None:
    """How many tasks run at the same time; None if the configuration does not say."""
    task_cores = int(conf.get("spark.task.cpus", "1"))
    master = conf.get("spark.master", "")
    if master.startswith("local"):
        return _local_threads(master) // task_cores
    cores = int(conf.get("spark.executor.cores", "1" if master.startswith("yarn") else "0"))
    if not cores:
        return None
    if instances := conf.get("spark.executor.instances", None):
        return int(instances) * (cores // task_cores)
    if most := conf.get("spark.cores.max", None):
        return int(most) // cores * (cores // task_cores)
    return None


def _local_threads(master: str) -> int:
    found = re.match(r"local\[(\*|\d+)", master)
    if found is None:
        return 1
    return os.cpu_count() or 1 if found[1] == "*" else int(found[1])


def _remedy(conf: "SparkConf", workers: int, slots: int) -> str:
    fewer = f" or use --workers {slots}" if slots else ""
    task_cores = int(conf.get("spark.task.cpus", "1"))
    master = conf.get("spark.master", "")
    if master.startswith("local"):
        return f"give --master 'local[{workers * task_cores}]'{fewer}"
    cores = max(int(conf.get("spark.executor.cores", "1")), task_cores)
    executors = math.ceil(workers / (cores // task_cores))
    if master.startswith("spark://"):
        return f"add --conf spark.executor.cores={cores} --conf spark.cores.max={executors * cores}{fewer}"
    return f"add --conf spark.executor.cores={cores} --conf spark.executor.instances={executors}{fewer}"
