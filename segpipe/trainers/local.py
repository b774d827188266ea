"""Training in the driver's own process: no Spark, all of this machine's cores, or as many threads as asked for."""

from typing import Any

from segpipe.models import imports
from segpipe.trainers.contract import Alone, TrainPlan


def train(plan: TrainPlan, spark: Any = None) -> None:
    """Train `plan` to its end; what comes of it stands in the model directory."""
    with imports():
        from segpipe.trainers.worker import Worker

    worker = Worker(plan, Alone)
    worker.fit(worker.build_model())
