"""Training with Horovod: tasks of a barrier stage of Spark are its processes, Gloo adds the gradients up.

`horovod.spark.run` starts services for that, in the driver and in each task, which listen on all of a machine's
addresses. Here the tasks find each other by way of Spark, and what listens has one, see `segpipe.trainers.meeting`.
"""

import itertools
import json
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.errors import SegpipeError
from segpipe.models import imports
from segpipe.trainers.contract import TrainPlan
from segpipe.trainers.meeting import LOOPBACK, Meeting, barrier_meeting, port_range

if TYPE_CHECKING:
    import tensorflow as tf
    from pyspark.sql import SparkSession

# Each process asks the others so often whether a tensor is ready. A step has two such meetings, which wait for the next
# time; but with a single thread, each asking takes a third of a millisecond from the core that computes.
_CYCLE_MILLISECONDS, _CYCLE_MILLISECONDS_OF_ONE_THREAD = 5, 20
_GLOO_SECONDS = 120


def train(plan: TrainPlan, spark: "SparkSession") -> None:
    """Train `plan` to its end on the session's executors; what comes of it stands in the model directory."""
    if find_spec("horovod") is None:
        remedy = "run `make setup` where g++ and make are installed, or use --trainer orca"
        raise SegpipeError("Trainer horovod needs Horovod, which is not installed", remedy)
    threads = int(spark.conf.get("spark.task.cpus", "1"))
    workers = plan.settings.workers
    tasks = spark.sparkContext.parallelize(range(workers), workers).barrier()
    tasks.mapPartitions(lambda _: run_worker(plan, threads)).collect()


def run_worker(plan: TrainPlan, threads: int) -> list[None]:
    """What each task does."""
    with imports():
        import horovod.tensorflow as hvd
        import tensorflow as tf

        from segpipe.trainers.worker import Worker

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    cycle = _CYCLE_MILLISECONDS if threads > 1 else _CYCLE_MILLISECONDS_OF_ONE_THREAD
    meeting = barrier_meeting()
    with rendezvous(meeting, plan.settings.ports) as environment:
        os.environ.update(environment)
        os.environ["HOROVOD_CYCLE_TIME"] = str(cycle)
        hvd.init()
        meeting.gather("")  # all are connected: nobody asks for addresses any more
    worker = Worker(plan, HorovodGroup)
    worker.fit(worker.build_model())
    return []


@contextmanager
def rendezvous(meeting: Meeting, ports: str) -> Iterator[dict[str, str]]:
    """The environment by which Horovod's processes find each other, for as long as it takes them.

    The first of them serves the addresses. Gloo listens at this worker's address, at ports that the kernel chooses.
    """
    from horovod.runner.gloo_run import create_run_env_vars, create_slot_env_vars

    address, plan = meeting.address, slots(meeting.hosts)
    server = _serve(address, ports, plan) if meeting.rank == 0 else None
    try:
        told = json.dumps([address, server.server_address[1]]) if server is not None else ""
        host, port = json.loads(meeting.gather(told)[0])
        environment = create_run_env_vars(host, [interface_of(address)], port) | create_slot_env_vars(
            plan[meeting.rank]
        )
        environment["HOROVOD_GLOO_TIMEOUT_SECONDS"] = _GLOO_SECONDS
        yield {name: str(value) for name, value in environment.items()}
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()


def slots(hosts: Sequence[str]) -> list[Any]:
    """Horovod's place for each worker, by its rank in the meeting: workers of one machine have ranks in a row there.

    >>> [slot.rank for slot in slots(["a", "b", "a"])]
    [0, 2, 1]
    """
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts

    # Names of machines may hold what Horovod parses, so that it gets numbers.
    names = {host: f"machine{place}" for place, host in enumerate(dict.fromkeys(hosts))}
    counts = Counter(names[host] for host in hosts)
    free = defaultdict(list)
    for slot in get_host_assignments(parse_hosts(",".join(f"{name}:{n}" for name, n in counts.items())), len(hosts)):
        free[slot.hostname].append(slot)
    return [free[names[host]].pop(0) for host in hosts]


def interface_of(address: str) -> str:
    """The network interface that has an address, for Gloo is told of nothing else."""
    import psutil

    for interface, entries in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == address for entry in entries):
            return interface
    raise SegpipeError(f"No network interface has the address {address}", "look at `ip address` on that machine")


def _serve(address: str, ports: str, plan: Sequence[Any]) -> Any:
    """Horovod's own store of addresses, listening at `address`."""
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    class Server(RendezvousHTTPServer):
        def __init__(self, place: tuple[str, int]):
            super().__init__(place, RendezvousHandler, verbose=0)

    for port in (0,) if address == LOOPBACK else port_range(ports):
        try:
            server = Server((address, port))
            break
        except OSError:
            continue
    else:
        raise SegpipeError(f"No port of {ports} is free at {address}", "give a wider range of --ports")
    server.init(plan)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


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

        from segpipe.trainers.averaging import summed

        # Each call has a name of its own, the same for all workers, because they all trace the same step.
        name = f"total{next(self._totals)}"
        return summed(tensor, lambda part: hvd.allreduce(part, op=hvd.Sum, name=name), self.size)

    def sum(self, numbers: np.ndarray) -> np.ndarray:
        """The sum of an array over all workers, between steps."""
        import horovod.tensorflow as hvd
        import tensorflow as tf

        return hvd.allreduce(tf.constant(numbers), op=hvd.Sum, name="sum").numpy()

    def optimizer(self, **options: Any) -> "tf.keras.optimizers.Optimizer":
        """Adam on gradients that are averaged over the workers."""
        import horovod.tensorflow as hvd

        from segpipe.trainers.averaging import averaging_adam

        return averaging_adam(lambda gradients: hvd.grouped_allreduce(gradients, op=hvd.Average), **options)

    def close(self) -> None:
        """Leave the others."""
        import horovod.tensorflow as hvd

        hvd.shutdown()
