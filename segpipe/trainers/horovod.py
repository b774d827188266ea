"""Training with Horovod on Spark: Spark tasks host the processes, Gloo adds the gradients up."""

import gc
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.errors import SegpipeError
from segpipe.models import TENSORFLOW_ENVIRONMENT, imports
from segpipe.trainers.contract import TrainPlan

if TYPE_CHECKING:
    import tensorflow as tf
    from pyspark.sql import SparkSession

_START_SECONDS = 300
# Each process asks the others so often whether a tensor is ready. A step has two such meetings, which wait for the next
# time; but with a single thread, each asking takes a third of a millisecond from the core that computes.
_CYCLE_MILLISECONDS, _CYCLE_MILLISECONDS_OF_ONE_THREAD = 5, 20


def train(plan: TrainPlan, spark: "SparkSession") -> None:
    """Train `plan` to its end on the session's executors; what comes of it stands in the model directory."""
    try:
        import horovod.spark
    except ImportError as error:
        remedy = "run `make setup` where g++ and make are installed, or use --trainer orca"
        raise SegpipeError(f"Trainer horovod needs Horovod, which is not installed ({error})", remedy) from error
    _ask_for_gloo()
    threads = int(spark.conf.get("spark.task.cpus", "1"))
    cycle = _CYCLE_MILLISECONDS if threads > 1 else _CYCLE_MILLISECONDS_OF_ONE_THREAD
    with _quiet_thread():
        horovod.spark.run(
            run_worker,
            args=(plan, threads),
            num_proc=plan.settings.workers,
            use_gloo=True,
            start_timeout=_START_SECONDS,
            # The processes have the environment of the Spark workers that start them, not that of the driver.
            executable=spark.sparkContext.pythonExec,
            env={**TENSORFLOW_ENVIRONMENT, "HOROVOD_CYCLE_TIME": str(cycle)},
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


@contextmanager
def _quiet_thread() -> Iterator[None]:
    """Have no stack trace of Horovod's thread that waits for Spark: when workers are lost, `run` raises as well."""
    before = threading.excepthook

    def show(failed: threading.ExceptHookArgs) -> None:
        if failed.thread is None or not failed.thread.name.endswith("(run_spark)"):
            before(failed)

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = before


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
        import tensorflow as tf

        # Each call has a name of its own, the same for all workers, for they all trace the same step.
        name = f"total{next(self._totals)}"

        @tf.custom_gradient
        def summed(part: "tf.Tensor") -> tuple["tf.Tensor", Any]:
            # What comes back is the same everywhere, so that its sum needs no meeting.
            return hvd.allreduce(part, op=hvd.Sum, name=name), lambda gradient: gradient * self.size

        return summed(tensor)

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
