"""Small cohorts in the tables, and models run over them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from segpipe.pipelines.ingest import ingest
from segpipe.pipelines.progress import Progress
from segpipe.pipelines.segment import SegmentOutcome, segment
from segpipe.runtimes.contract import PredictorSpec
from segpipe.settings import IngestSettings, SegmentSettings
from segpipe.warehouse.runs import RunRecord, record_run
from segpipe.warehouse.store import Store

COHORT = "c"


@dataclass
class Cohort:
    """An archive, the warehouse that it is ingested into, and the Spark that does it."""

    spark: SparkSession
    archive: Path
    url: str

    @property
    def warehouse(self) -> Store:
        return Store(self.url)

    def copy(self, folder: Path) -> Cohort:
        """The same in another folder, for a test to spoil."""
        shutil.copytree(self.archive, folder / "archive")
        shutil.copytree(self.url, folder / "warehouse")
        return Cohort(self.spark, folder / "archive", str(folder / "warehouse"))

    def ingest(self) -> None:
        settings = IngestSettings(source=str(self.archive), warehouse=self.url, cohort=COHORT)
        with record_run(self.warehouse, "ingest", settings) as run:
            ingest(self.spark, settings, run)

    def segment(
        self, model: str, predictor: Any = None, progress: Progress | None = None, **options: Any
    ) -> tuple[SegmentOutcome, RunRecord]:
        settings = SegmentSettings(warehouse=self.url, cohort=COHORT, model=model, precision="float32", **options)
        packed = PredictorSpec(model, settings.runtime, settings.batch_size, settings.precision).pack()
        with record_run(self.warehouse, "segment", settings) as run:
            return segment(self.spark, settings, predictor or packed, packed.bundle, run, progress), run

    def rows(self, table: str, *keys: str) -> list[dict[str, Any]]:
        """All rows of a table, in the order of these columns."""
        if not self.warehouse.parts(table):
            return []
        found = self.warehouse.table(table).to_table().to_pylist()
        return sorted(found, key=lambda row: [row[key] for key in keys])

    def content(self) -> dict[str, list[dict[str, Any]]]:
        """What a segmentation leaves, except for the names of runs."""
        predictions = self.rows("predictions", "model_id", "scan_id", "slice_index")
        segmentations = self.rows("segmentations", "model_id", "scan_id", "region")
        for row in predictions + segmentations:
            del row["run_id"]
        return {"predictions": predictions, "segmentations": segmentations}
