"""What a job works with: the Spark session, the progress display, and its row in the table `runs`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from segpipe.cli.process import catch_signals

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.pipelines.progress import Progress
    from segpipe.warehouse.runs import RunRecord


class Context:
    """What a job works with: the Spark session (started when first asked for) and the progress display."""

    def __init__(self, job: str, spark: SparkSession | None = None, conf: Mapping[str, str] | None = None):
        self.job = job
        self._spark = spark
        self._conf = conf
        self._owns_spark = False

    @property
    def spark(self) -> SparkSession:
        """The session; SegpipeError when it does not start."""
        if self._spark is None:
            from segpipe.launch.session import build

            self._spark = build(f"segpipe {self.job}", extra_conf=self._conf)
            self._owns_spark = True
            catch_signals()  # pyspark has put its own handler in place
            accumulators: Any = self._spark.sparkContext._accumulatorServer
            accumulators.handle_error = lambda *_: None  # a stack trace when the JVM is killed, which the job tells
        return self._spark

    @property
    def progress(self) -> Progress:
        """`progress(total, label)`, see segpipe.pipelines.progress."""
        from segpipe.pipelines.progress import watch

        return partial(watch, self._spark)

    @contextmanager
    def recorded(self, job: str, warehouse: str | None, settings: Any) -> Iterator[RunRecord]:
        """Record the block as a run of `job` in the table `runs`, and close it with the summary of that row."""
        from segpipe.warehouse.runs import record_run
        from segpipe.warehouse.store import Store

        with record_run(Store(warehouse) if warehouse is not None else None, job, settings) as record:
            yield record
        self.say(record.summary())

    def say(self, text: str) -> None:
        """A line for the person at the terminal."""
        print(text, flush=True)

    def ended_by_yarn(self, error: Exception) -> Exception | None:
        """What YARN says, where `error` comes of its having ended the application."""
        from segpipe.launch.session import ended_by_yarn

        return None if self._spark is None else ended_by_yarn(self._spark, error)

    def close(self) -> None:
        """Stop the session that this context started."""
        if self._owns_spark and self._spark is not None:
            from segpipe.launch.session import stop

            stop(self._spark)
