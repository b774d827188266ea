"""An ingest in a process of its own, for tests that kill it: SOURCE WAREHOUSE MASTER.

Prints `ready` once Spark is up; ends with the exit code that the job would have.
"""

import sys
from pathlib import Path

from segpipe.launch.session import build
from tests.pipelines.examples import run_ingest

PART_MB = 0.1
"""Less than a whole number, so that a small archive has many parts."""

if __name__ == "__main__":
    conf = {"spark.ui.enabled": "false", "spark.executor.memory": "512m"}
    spark = build("ingest to be killed", master=sys.argv[3], extra_conf=conf)
    print("ready", flush=True)
    run_ingest(spark, Path(sys.argv[1]), Path(sys.argv[2]), part_mb=PART_MB)
    print("done", flush=True)
    spark.stop()
