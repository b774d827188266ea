"""The face of a warehouse for notebooks."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from segpipe.analysis import html
from segpipe.analysis.view import TableView, check_spark_reads
from segpipe.errors import NotFound, UsageError
from segpipe.extras import named_extra
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS, TABLES, Table

if TYPE_CHECKING:
    import duckdb
    import pyarrow.dataset as ds
    from pyspark.sql import DataFrame, SparkSession

    from segpipe.analysis.scan import Scan


class Warehouse:
    """The tables of a warehouse by name, SQL over them, and scans as volumes; nothing is read before it is asked for.

    Tables are always those of the moment: what a job adds while a notebook is open is seen by the next call.
    """

    def __init__(self, path: str):
        self.store = Store(path, to_read=True)
        self._opened: dict[str, tuple[dict[str, tuple[int, int]], ds.Dataset]] = {}
        self._checked: dict[str, tuple[int, int]] = {}
        if not self.store.exists():
            raise NotFound(f"Warehouse {path} does not exist", "give the folder that ingest wrote to")
        if self.store.is_another_folder():
            raise NotFound(f"{path} is not a warehouse: it has no table", "give the folder that ingest wrote to")

    @property
    def series(self) -> TableView:
        """One row per series of a DICOM archive: what it is, and what became of it."""
        return self["series"]

    @property
    def scans(self) -> TableView:
        """One row per scan: geometry, split, source files, intensities."""
        return self["scans"]

    @property
    def slices(self) -> TableView:
        """One row per slice of a scan: stored voxels and labels."""
        return self["slices"]

    @property
    def quarantine(self) -> TableView:
        """One row per rejected input, with its reason."""
        return self["quarantine"]

    @property
    def predictions(self) -> TableView:
        """One row per slice and model: the predicted label map."""
        return self["predictions"]

    @property
    def segmentations(self) -> TableView:
        """One row per scan, region and model: volumes, diameters, and measures where there is a truth."""
        return self["segmentations"]

    @property
    def changes(self) -> TableView:
        """One row per later scan of a patient, region and model: what changed since earlier visits."""
        return self["changes"]

    @property
    def runs(self) -> TableView:
        """One row per run of a job: settings, versions, seconds, counts."""
        return self["runs"]

    def __getitem__(self, name: str) -> TableView:
        if name not in TABLES:
            raise NotFound(f"There is no table {name}", f"take one of {', '.join(TABLES)}")
        return TableView(self, TABLES[name], tuple(TABLES[name].schema.names))

    @property
    def cohorts(self) -> list[str]:
        """The names of the cohorts that were ingested, sorted."""
        return self._distinct("scans", "cohort")

    @property
    def models(self) -> list[str]:
        """The ids of the models that segmented something, sorted."""
        return self._distinct("segmentations", "model_id")

    def scan(self, scan: str) -> Scan:
        """One scan with its volumes, by scan_id, or by subject where that subject has one scan only.

        Raises NotFound if there is none, and UsageError if a subject has several scans.
        """
        from segpipe.analysis.scan import Scan

        rows = self.scans.select("scan_id", "subject", "cohort").arrow().to_pylist()
        found = [row for row in rows if scan in (row["scan_id"], row["subject"])]
        if not found:
            examples = ", ".join(row["scan_id"] for row in rows[:3]) or "none so far"
            raise NotFound(f"Scan {scan} is not in {self.store.url}", f"take one of `scans`: {examples}")
        if len(found) > 1:
            ids = ", ".join(sorted(row["scan_id"] for row in found))
            raise UsageError(f"{scan} has {len(found)} scans", f"take one of {ids}")
        row = self.scans.where(scan_id=found[0]["scan_id"]).arrow().to_pylist()[0]
        return Scan(self, row)

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """The answer of DuckDB to a query over the tables, as a lazy relation (`.df()`, `.arrow()`, `.show()`).

        The tables stand by their names: `select region, avg(dice) from segmentations group by region`.
        """
        for table in self._named_in(query):
            self.duckdb.register(table.name, self.dataset(table))
        return self.duckdb.sql(query)

    def spark_sql(self, query: str, session: SparkSession | None = None) -> DataFrame:
        """The answer of Spark to a query over the tables, in `session` or the one that runs or is started."""
        check_spark_reads(self.store)
        session = session or self.spark
        for table in self._named_in(query):
            self[table.name].spark(session).createOrReplaceTempView(table.name)
        return session.sql(query)

    @cached_property
    def duckdb(self) -> duckdb.DuckDBPyConnection:
        """The DuckDB connection of this warehouse, in memory; made when first asked for."""
        import duckdb

        return duckdb.connect(config={"autoinstall_known_extensions": False})  # nothing is fetched from anywhere

    @property
    def spark(self) -> SparkSession:
        """The Spark session that runs, or one that is started with the settings of conf/."""
        with named_extra():
            from pyspark.sql import SparkSession
        from segpipe.launch.session import build

        return SparkSession.getActiveSession() or build("segpipe notebook")

    def dataset(self, table: Table) -> ds.Dataset:
        """A table as a pyarrow dataset, after the checks that every reader relies on.

        Parts never change, so those that were checked are not opened again as long as the same files are there: many
        questions to a table of thousands of parts cost the checks once. Raises TableError where `scans` breaks a
        promise (`segpipe.warehouse.store.check_scans`), or a file lacks a column or is damaged.
        """
        if "split" in table.schema.names:
            self._check_splits()
        versions = self.store.versions(table.name)
        if table.name not in self._opened or self._opened[table.name][0] != versions:
            self._opened[table.name] = versions, self.store.table(table.name)
        return self._opened[table.name][1]

    def _check_splits(self) -> None:
        versions = self.store.versions(SCANS.name)
        if versions != self._checked:
            self.store.check_splits()
            self._checked = versions

    def __repr__(self) -> str:
        return f"<warehouse {self.store.url}: {', '.join(TABLES)}>"

    def _repr_html_(self) -> str:
        rows = [(name, len(self.store.parts(name)), table.row) for name, table in TABLES.items()]
        title = html.facts(f"Warehouse {self.store.url}", {"rows of a table": "len(warehouse.scans)"})
        return title + html.table(("table", "part files", "one row per"), rows)

    def _ipython_key_completions_(self) -> list[str]:
        return list(TABLES)

    def _distinct(self, table: str, column: str) -> list[str]:
        found: Any = self.store.table(table).to_table([column])[column].unique().to_pylist()
        return sorted(value for value in found if value is not None)

    def _named_in(self, query: str) -> list[Table]:
        return [table for table in TABLES.values() if re.search(rf"\b{table.name}\b", query, re.IGNORECASE)]
