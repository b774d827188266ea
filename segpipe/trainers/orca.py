"""Training with BigDL Orca: tasks of a barrier stage of Spark train, and a ring between them adds gradients up."""

import contextlib
import gc
import os
import secrets
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from segpipe.errors import SegpipeError, UsageError
from segpipe.models import imports
from segpipe.trainers.contract import TrainPlan

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def train(plan: TrainPlan, spark: "SparkSession") -> None:
    """Train `plan` to its end on the session's executors; what comes of it stands in the model directory."""
    if find_spec("bigdl") is None:
        raise SegpipeError(
            "Trainer orca needs BigDL, which is not installed", "run `make setup`, or use --trainer local"
        )
    with imports():
        from segpipe.trainers.orca_worker import RingGroup
        from segpipe.trainers.worker import Journal, Worker

    worker = Worker(plan, partial(RingGroup, secrets.token_bytes(32), plan.settings.ports))
    estimator = _estimator(plan, spark, lambda config: _built(worker))
    estimator._get_cluster_info = lambda context: None  # a stage of its own, for addresses that nobody asks for
    with _our_runner():
        estimator.fit(
            lambda config, batch_size: worker.dataset(),
            epochs=plan.epochs,
            initial_epoch=plan.initial_epoch,
            batch_size=plan.batch_size,
            steps_per_epoch=plan.steps,
            callbacks=[Journal(worker)],
            verbose=0,
        )


def _built(worker: Any) -> Any:
    """The model, in a worker of its own; what was imported there stays, and no garbage is looked for in it."""
    gc.freeze()
    return worker.build_model()


@contextlib.contextmanager
def _silence(spark: "SparkSession") -> Iterator[None]:
    """Keep what BigDL prints while it starts, in Python and in Scala, out of the job's own output."""
    jvm: Any = spark.sparkContext._jvm
    console = jvm.scala.Console
    before = console.out()
    console.setOut(jvm.java.io.PrintStream(jvm.java.io.OutputStream.nullOutputStream()))
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        console.setOut(before)


@contextlib.contextmanager
def _our_runner() -> Iterator[None]:
    """Have Orca send its workers `orca_worker.Runner` in the place of its own SparkRunner."""
    from bigdl.orca.learn.tf2 import pyspark_estimator

    from segpipe.trainers.orca_worker import Runner

    theirs = pyspark_estimator.SparkRunner
    pyspark_estimator.SparkRunner = Runner
    try:
        yield
    finally:
        pyspark_estimator.SparkRunner = theirs


def _estimator(plan: TrainPlan, spark: "SparkSession", model_creator: Any) -> Any:
    if not (spark.conf.get("spark.jars", "") or spark.conf.get("spark.yarn.dist.jars", "")):
        raise SegpipeError(
            "Spark was started without BigDL's jars", "start it with spark-submit.sh, or give --jars of BigDL"
        )
    os.environ.setdefault("PYTHONHOME", "")  # Orca hands it on to its workers, where None would be fatal
    with _silence(spark):
        from bigdl.dllib.nncontext import init_nncontext
        from bigdl.orca.learn.tf2 import Estimator

        init_nncontext(redirect_spark_log=False, spark_log_level="ERROR", init_executor_gateway=False)
        from bigdl.dllib.utils.common import get_node_and_core_number

        nodes, cores = get_node_and_core_number()
        workers = plan.settings.workers
        if workers % nodes:
            raise UsageError(
                f"{workers} workers cannot be shared equally by {nodes} executors", f"use --workers {nodes}"
            )
        return Estimator.from_keras(
            model_creator=model_creator,
            config={"intra_op_parallelism": max(1, cores // (workers // nodes))},
            backend="spark",
            workers_per_node=workers // nodes,
            model_dir=None,
            log_to_driver=False,
        )
