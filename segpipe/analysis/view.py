"""One table, or some of its rows and columns, that is read when somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

from segpipe.analysis import html
from segpipe.errors import UsageError, nearest
from segpipe.extras import named_extra
from segpipe.storage import READ_ONLY
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import Table

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyspark.sql import DataFrame, SparkSession

    from segpipe.analysis.warehouse import Warehouse

Condition = tuple[str, tuple[Any, ...]]
_HEAD = 5


@dataclass(frozen=True)
class TableView:
    """A table of the warehouse, or a part of it, as pandas, Arrow, DuckDB or Spark; nothing is read before that.

    >>> view.where(split="test", region=["whole_tumour", "tumour_core"]).select("subject", "dice").to_pandas()
    ... # doctest: +SKIP
    """

    warehouse: Warehouse
    table: Table
    columns: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()

    @property
    def name(self) -> str:
        """The table's name."""
        return self.table.name

    @property
    def schema(self) -> pa.Schema:
        """Arrow types of the columns; the metadata of each field holds its description as `doc`."""
        import pyarrow as pa

        return pa.schema([self.table.schema.field(name) for name in self.columns])

    def where(self, **values: Any) -> TableView:
        """Only rows whose columns have these values; a list, tuple or set names several, None stands for null.

        Raises UsageError for columns that the table lacks, columns of lists, and values of another type.
        """
        conditions = [self._condition(name, value) for name, value in values.items()]
        return replace(self, conditions=(*self.conditions, *conditions))

    def select(self, *columns: str) -> TableView:
        """Only these columns, in this order. Raises UsageError for columns that the view lacks."""
        for name in columns:
            self._check_column(name)
        return replace(self, columns=columns)

    def dataset(self) -> ds.Dataset:
        """The whole table as a pyarrow dataset, for whoever wants its own filters; conditions are not in it."""
        return self.warehouse.dataset(self.table)

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table. Raises TableError if the table breaks a promise of the warehouse."""
        return self.dataset().to_table(list(self.columns), filter=self._expression())

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a pandas frame: lists as arrays, structs and maps as dicts, missing values as NaN or None."""
        return self.to_arrow().to_pandas(maps_as_pydicts="strict")

    def arrow(self) -> pa.Table:
        """Short for `to_arrow`."""
        return self.to_arrow()

    def pandas(self) -> pd.DataFrame:
        """Short for `to_pandas`."""
        return self.to_pandas()

    def duckdb(self) -> duckdb.DuckDBPyRelation:
        """The rows as a DuckDB relation: lazy, read while the relation's result is."""
        import duckdb

        relation = self.warehouse.duckdb.from_arrow(self.dataset())
        for name, values in self.conditions:
            column = duckdb.ColumnExpression(name)
            known = [duckdb.ConstantExpression(value) for value in values if value is not None]
            test = column.isin(*known) if known else duckdb.ConstantExpression(False)
            relation = relation.filter(test | column.isnull() if None in values else test)
        return relation.project(*(duckdb.ColumnExpression(name) for name in self.columns))

    def spark(self, session: SparkSession | None = None) -> DataFrame:
        """The rows as a Spark DataFrame, in `session` or the one that runs or is started."""
        with named_extra():
            from segpipe.pipelines.catalog import read
        check_spark_reads(self.warehouse.store)
        self.dataset()  # checked as for every other reader
        frame = read(session or self.warehouse.spark, self.warehouse.store, self.table)
        for name, values in self.conditions:
            column = frame[name]
            test = column.isin([value for value in values if value is not None])
            frame = frame.filter(test | column.isNull() if None in values else test)
        return frame.select(*self.columns)

    def head(self, rows: int = _HEAD) -> pd.DataFrame:
        """The first `rows` rows as pandas."""
        found = self.dataset().head(rows, columns=list(self.columns), filter=self._expression(), use_threads=False)
        return found.to_pandas(maps_as_pydicts="strict")

    def __len__(self) -> int:
        return int(self.dataset().count_rows(filter=self._expression()))

    def __repr__(self) -> str:
        where = "".join(f", {name} in {list(values)}" for name, values in self.conditions)
        return f"<{self.name}: each row {self.table.row}{where}>"

    def _repr_html_(self) -> str:
        items = {name: ", ".join(map(str, values)) for name, values in self.conditions}
        about = [(field.name, str(field.type), _description(field)) for field in self.schema]
        columns = html.details(f"{len(about)} columns", html.table(("column", "type", "meaning"), about))
        look = {"rows": ".head()", "number of rows": "len()"}
        return html.facts(f"{self.name}: {self.table.row}", items | look) + columns

    def _expression(self) -> ds.Expression | None:
        import pyarrow as pa
        import pyarrow.dataset as ds

        tests = []
        for name, values in self.conditions:
            known = [value for value in values if value is not None]
            test = ds.field(name).isin(pa.array(known, self.table.schema.field(name).type))
            tests.append(test | ds.field(name).is_null() if None in values else test)
        return reduce(and_, tests) if tests else None

    def _condition(self, name: str, value: Any) -> Condition:
        import pyarrow as pa

        self._check_column(name, self.table.schema.names)
        kind = self.table.schema.field(name).type
        if pa.types.is_nested(kind):
            raise UsageError(f"Column `{name}` of {self.name} holds {kind}", "filter it in pandas, SQL or Spark")
        values = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else (value,)
        try:
            return name, tuple(pa.scalar(one, kind).as_py() for one in values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError):
            raise UsageError(f"{value!r} is not a value of `{name}` in {self.name}", f"give {kind}") from None

    def _check_column(self, name: str, known: Iterable[str] | None = None) -> None:
        known = list(known or self.columns)
        if name not in known:
            near = nearest(name, known)
            remedy = f"did you mean `{near}`?" if near else f"take one of {', '.join(known)}"
            raise UsageError(f"Table {self.name} has no column `{name}`", remedy)


def check_spark_reads(store: Store) -> None:
    """Raise UsageError where the tables are on an object store, because Spark has no client for it."""
    if store.url.lower().startswith(READ_ONLY):
        remedy = "take to_pandas(), to_arrow() or sql(), or copy the warehouse to a disk or to HDFS"
        raise UsageError(f"Spark comes without a client for {store.url}", remedy)


def _description(field: pa.Field) -> str:
    return str((field.metadata or {}).get(b"doc", b"").decode())
