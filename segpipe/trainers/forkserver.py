"""The process that forks Spark's Python workers on a machine that trains with Orca: it imports TensorFlow for them all.

Spark starts it where `spark.python.daemon.module` names it. Each worker would spend five seconds of a core on these
imports; so they are done once, and their memory is shared. TensorFlow may be forked until it has computed something.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from importlib import import_module

from pyspark.daemon import manager

from segpipe.models import imports


@contextlib.contextmanager
def _stdout_as_stderr() -> Iterator[None]:
    """Spark reads a port from stdout, and BigDL prints when it is imported, in Python and beyond."""
    kept = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        yield
        sys.stdout.flush()
    finally:
        os.dup2(kept, sys.stdout.fileno())
        os.close(kept)


def load() -> None:
    """Import what Orca's workers need; what goes wrong here goes wrong again in them, where the job is told of it."""
    with imports(), _stdout_as_stderr(), contextlib.suppress(Exception):
        import_module("bigdl.orca.learn.tf2.pyspark_estimator")
        import_module("segpipe.trainers.worker")


if __name__ == "__main__":
    os.setpgid(0, 0)  # as `manager` does, too late for this: Ctrl-C is for the job, which ends Spark
    load()
    manager()
