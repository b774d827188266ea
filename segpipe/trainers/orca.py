"""Training with BigDL Orca: Spark tasks of a barrier stage become TensorFlow's workers
(MultiWorkerMirroredStrategy)."""

import contextlib
import gc
import json
import os
from collections.abc import Iterator
from functools import cached_property, wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.errors import SegpipeError, UsageError
from segpipe.models import imports
from segpipe.trainers.contract import TrainPlan

if TYPE_CHECKING:
    import tensorflow as tf
    from pyspark.sql import SparkSession


def bigdl_jars() -> str:
    """The jars that Orca needs on the driver, for `spark.jars`: comma-separated, empty where BigDL is not installed.

    Imports neither BigDL nor Spark, so that whoever builds a session can ask.
    """
    spec = find_spec("bigdl")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return ",".join(str(jar) for folder in folders for jar in sorted(Path(folder).glob("share/*/lib/*.jar")))


def train(plan: TrainPlan, spark: "SparkSession") -> None:
    """Train `plan` to its end on the session's executors; what comes of it stands in the model directory."""
    with imports():
        from segpipe.trainers.worker import Journal, Worker

    worker = Worker(plan, OrcaGroup)
    estimator = _estimator(plan, spark, lambda config: _built(worker))
    estimator.fit(
        lambda config, batch_size: _distributed(worker),
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


class OrcaGroup:
    """The workers of a MultiWorkerMirroredStrategy, seen from one of them."""

    def __init__(self) -> None:
        cluster = json.loads(os.environ["TF_CONFIG"])
        self.rank: int = cluster["task"]["index"]
        self.size: int = len(cluster["cluster"]["worker"])

    def total(self, tensor: "tf.Tensor") -> "tf.Tensor":
        """The sum of a tensor over all workers, inside a training step."""
        import tensorflow as tf

        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensor)

    def sum(self, numbers: np.ndarray) -> np.ndarray:
        """The sum of an array over all workers, between steps."""
        import tensorflow as tf

        return self._add(tf.constant(numbers)).numpy()

    @cached_property
    def _add(self) -> Any:
        import tensorflow as tf

        strategy = tf.distribute.get_strategy()
        return tf.function(
            lambda tensor: strategy.run(lambda part: self.total(tf.identity(part)), args=(tensor,)),
            reduce_retracing=True,
        )

    def optimizer(self, **options: Any) -> "tf.keras.optimizers.Optimizer":
        """Adam; Keras itself adds the gradients up."""
        import tensorflow as tf

        return tf.keras.optimizers.Adam(**options)


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


def _distributed(worker: Any) -> Any:
    import tensorflow as tf

    _switch_off_tuner()
    strategy = tf.distribute.get_strategy()
    return strategy.distribute_datasets_from_function(lambda context: worker.dataset())


def _switch_off_tuner() -> None:
    """Keep TensorFlow from tuning the small dataset that it puts between ours and the replica, in this process.

    There is nothing to tune in it, but whoever lets go of its iterator waits for the tuner's next look: up to a minute
    at the end of every fit. TensorFlow has no option for it; where it has no such function any more, nothing is done.
    """
    import tensorflow as tf
    from tensorflow.python.data.ops import multi_device_iterator_ops as iterators

    create = getattr(iterators, "_create_device_dataset", None)
    if create is None or hasattr(create, "__wrapped__"):
        return

    @wraps(create)
    def untuned(*arguments: Any) -> Any:
        options = tf.data.Options()
        options.autotune.enabled = False
        return create(*arguments).with_options(options)

    iterators._create_device_dataset = untuned


def _estimator(plan: TrainPlan, spark: "SparkSession", model_creator: Any) -> Any:
    if find_spec("bigdl") is None:
        raise SegpipeError(
            "Trainer orca needs BigDL, which is not installed", "run `make setup`, or use --trainer local"
        )
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
