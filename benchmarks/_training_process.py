"""One measurement of training in a process of its own: `WHAT TABLES THREADS`; the last line it prints is JSON."""

import itertools
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks._training import COHORT
from segpipe.models import imports
from segpipe.settings import TrainSettings
from segpipe.trainers.contract import TrainPlan
from segpipe.trainers.feed import Feed
from segpipe.trainers.meeting import barrier_meeting
from segpipe.trainers.plan import make_plan

WORKERS = 2
STEPS = int(os.environ.get("BENCH_STEPS", "24"))
EPOCHS = 4
FEED_STEPS = 60


def main() -> None:
    """Measure what the first argument says."""
    what, tables, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    settings = TrainSettings(
        warehouse=tables,
        cohort=COHORT,
        model="unused",
        trainer="local",
        dimensions=2,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
    )
    plan = make_plan(settings)
    found = MEASUREMENTS[what](plan, threads)
    print(json.dumps(found))


def plain(plan: TrainPlan, threads: int) -> dict[str, Any]:
    """The default network in `model.fit`, fed from arrays, with a worker's share of the batch."""
    import tensorflow as tf

    from segpipe.models.losses import dice_cross_entropy
    from segpipe.models.unet import build_unet

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    settings = plan.settings
    batch = plan.batch_size // WORKERS
    images, regions = _examples(plan, STEPS // 2)
    model = build_unet(settings, plan.channels, len(plan.regions), settings.seed)
    model.compile(tf.keras.optimizers.Adam(settings.learning_rate, global_clipnorm=12.0), loss=dice_cross_entropy())
    # Of a batch whose size it knows, the network normalises each slice in one operation, as it does in our workers.
    batches = tf.data.Dataset.from_tensor_slices((images, regions)).batch(batch, drop_remainder=True)
    # Each `fit` lets go of its iterator, and with several threads waits for its tuner then: for up to half of its time.
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = batches.repeat().prefetch(2).with_options(options)
    seconds = []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        model.fit(dataset, steps_per_epoch=STEPS, verbose=0)
        seconds.append(time.perf_counter() - start)
    gradient_bytes = sum(int(np.prod(weight.shape)) * 4 for weight in model.trainable_weights)
    return {
        "images_per_second": STEPS * batch / float(np.median(seconds[1:])),
        "step_seconds": float(np.median(seconds[1:])) / STEPS,
        "gradient_bytes": gradient_bytes,
    }


def feed(plan: TrainPlan, threads: int) -> dict[str, Any]:
    """The feed alone, decoding and augmentation included, after one pass over the tables and during the first."""
    source = Feed(plan, 0, WORKERS)
    rates = []
    for epoch in range(2):
        start = time.perf_counter()
        count = sum(len(examples) for examples in itertools.islice(source.epoch(epoch), FEED_STEPS))
        rates.append(count / (time.perf_counter() - start))
    return {"first_images_per_second": rates[0], "images_per_second": rates[1]}


def trained(trainer: str, plan: TrainPlan, workers: int = WORKERS) -> dict[str, Any]:
    """Images/s of every epoch of a real training whose workers have one thread each, the same share of a batch each."""
    from segpipe.storage.model_directory import read_history
    from segpipe.trainers import train
    from segpipe.warehouse.runs import record_run

    spark = _spark(workers)
    with tempfile.TemporaryDirectory(prefix="segpipe-bench-") as model:
        share = plan.batch_size // WORKERS
        changes = {"trainer": trainer, "workers": workers, "batch_size": share * workers, "model": f"{model}/model"}
        settings = replace(plan.settings, **changes)
        with record_run(None, "train", settings) as run:
            train(settings, spark, run)
        history = read_history(settings.model)
    spark.stop()
    return {"images_per_second": [row["images_per_second"] for row in history]}


def all_reduce(plan: TrainPlan, threads: int) -> dict[str, Any]:
    """Seconds in which two processes add up tensors of several sizes with Horovod, by way of the loopback."""
    from segpipe.launch.session import stop

    spark = _spark(WORKERS)
    megabytes, ports = [0.1, 1.0, 8.0, 32.0], plan.settings.ports
    tasks = spark.sparkContext.parallelize(range(WORKERS), WORKERS).barrier()
    seconds = tasks.mapPartitions(lambda _: [_time_all_reduce(megabytes, ports)]).collect()[0]
    stop(spark)
    return {"bytes": [int(size * 1e6) for size in megabytes], "seconds": seconds}


def _time_all_reduce(megabytes: list[float], ports: str) -> list[float]:
    """What each worker does, after it has met the others as those of a training do, on loopback."""
    with imports():
        import horovod.tensorflow as hvd
        import tensorflow as tf

        from segpipe.trainers.horovod import rendezvous

    tf.config.threading.set_intra_op_parallelism_threads(1)
    meeting = barrier_meeting()
    with rendezvous(meeting, ports) as environment:
        os.environ.update(environment)
        hvd.init()
        meeting.gather("")
    medians = []
    for size in megabytes:
        tensor = tf.zeros(int(size * 1e6) // 4)
        seconds = []
        for turn in range(12):
            start = time.perf_counter()
            hvd.allreduce(tensor, op=hvd.Sum, name=f"{size}")
            if turn > 1:
                seconds.append(time.perf_counter() - start)
        medians.append(float(np.median(seconds)))
    hvd.shutdown()
    return medians


def _spark(workers: int) -> Any:
    from segpipe.launch.session import build
    from segpipe.launch.submit import bigdl_jars

    conf = {"spark.ui.enabled": "false", "spark.jars": ",".join(bigdl_jars()), "spark.task.cpus": "1"}
    return build("benchmark training", master=f"local[{workers}]", extra_conf=conf)


def _examples(plan: TrainPlan, steps: int) -> tuple[np.ndarray, np.ndarray]:
    examples = [one for batch in itertools.islice(Feed(plan, 0, WORKERS).epoch(0), steps) for one in batch]
    images, regions = zip(*examples, strict=True)
    return np.stack(images), np.stack(regions)


MEASUREMENTS = {
    "plain": plain,
    "feed": feed,
    "orca": lambda plan, threads: trained("orca", plan),
    "horovod": lambda plan, threads: trained("horovod", plan),
    "horovod-alone": lambda plan, threads: trained("horovod", plan, 1),
    "all-reduce": all_reduce,
}

if __name__ == "__main__":
    main()
