"""Training with Horovod on Spark: Spark tasks host the processes, Gloo adds the gradients up."""

import gc
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.errors import SegpipeError
from segpipe.models import TENSORFLOW_ENVIRONMENT, imports
from segpipe.trainers.contract import TrainPlan

if TYPE_CHECKING:
    import tensorflow as tf
    from pyspark.sql import SparkSession

_START_SECONDS = 300
# Each process asks the others so often whether a tensor is ready, on the core that it computes on. Doing so every
# millisecond, the default, costs 5 % of the training; a step has three such meetings and takes a second.
_CYCLE_MILLISECONDS = 5


def train(plan: TrainPlan, spark: "SparkSession") -> None:
    """Train `plan` to its end on the session's executors; what comes of it stands in the model directory."""
    try:
        import horovod.spark
    except ImportError as error:
        remedy = "run `make setup` where g++ and make are installed, or use --trainer orca"
        raise SegpipeError(f"Trainer horovod needs Horovod, which is not installed ({error})", remedy) from error
    _ask_for_gloo()
    threads = int(spark.conf.get("spark.task.cpus", "1"))
    horovod.spark.run(
        run_worker,
        args=(plan, threads),
        num_proc=plan.settings.workers,
        use_gloo=True,
        start_timeout=_START_SECONDS,
        # The processes have the environment of the Spark workers that start them, not that of the driver.
        executable=spark.sparkContext.pythonExec,
        env={**TENSORFLOW_ENVIRONMENT, "HOROVOD_CYCLE_TIME": str(_CYCLE_MILLISECONDS)},
        verbose=0,
    )


def _ask_for_gloo() -> None:
    """Have Horovod find out that it has Gloo; it remembers the answer.

    It loads its library in a forked copy of this process. Where TensorFlow has been used before, collecting its garbage
    there crashes, so that the copy gets none.
    """
    from horovod.common.util import gloo_built

    gc.collect()
    gc.freeze()
    try:
        gloo_built(verbose=False)
    finally:
        gc.unfreeze()


def run_worker(plan: TrainPlan, threads: int) -> None:
    """What each process does."""
    with imports():
        import horovod.tensorflow as hvd
        import tensorflow as tf

        from segpipe.trainers.worker import Worker

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    hvd.init()
    worker = Worker(plan, HorovodGroup)
    worker.fit(worker.build_model())
    hvd.shutdown()


class HorovodGroup:
    """The processes of a Horovod job, seen from one of them."""

    def __init__(self) -> None:
        import horovod.tensorflow as hvd

        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self._totals = itertools.count()

    def total(self, tensor: "tf.Tensor") -> "tf.Tensor":
        """The sum of a tensor over all workers, inside a training step."""
        import horovod.tensorflow as hvd

        # Each call has a name of its own, the same for all workers, for they all trace the same step.
        return hvd.allreduce(tensor, op=hvd.Sum, name=f"total{next(self._totals)}")

    def sum(self, numbers: np.ndarray) -> np.ndarray:
        """The sum of an array over all workers, between steps."""
        import horovod.tensorflow as hvd
        import tensorflow as tf

        return hvd.allreduce(tf.constant(numbers), op=hvd.Sum, name="sum").numpy()

    def optimizer(self, **options: Any) -> "tf.keras.optimizers.Optimizer":
        """Adam on gradients that are averaged over the workers."""
        import horovod.tensorflow as hvd
        import tensorflow as tf

        class AveragingAdam(tf.keras.optimizers.Adam):
            def aggregate_gradients(self, grads_and_vars: Any) -> Any:
                gradients, variables = zip(*grads_and_vars, strict=True)
                return list(zip(hvd.grouped_allreduce(gradients, op=hvd.Average), variables, strict=True))

        return AveragingAdam(**options)
