"""A segmentation in a process of its own, for tests that kill it: ARCHIVE WAREHOUSE MODEL.

Prints `ready` once Spark is up and `done` when it is through.
"""

import sys
from pathlib import Path

from segpipe.launch.session import build
from segpipe.pipelines import segment
from tests.pipelines.cohorts import Cohort

MOST_SCANS = 2
"""Scans of a part, so that a small archive has many parts."""

if __name__ == "__main__":
    archive, warehouse, model = sys.argv[1:]
    segment.MOST_SCANS = MOST_SCANS
    spark = build("segmentation to be killed", master="local[2]", extra_conf={"spark.ui.enabled": "false"})
    print("ready", flush=True)
    Cohort(spark, Path(archive), warehouse).segment(model, source=archive)
    print("done", flush=True)
    spark.stop()
