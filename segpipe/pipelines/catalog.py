"""The tables as Spark knows them: DataFrames with the declared schemas, and entries of its catalogue."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.errors import SegpipeError, TableError, UsageError
from segpipe.settings import RegisterSettings
from segpipe.storage import filesystem as files
from segpipe.storage import url_to_fs
from segpipe.traces import root_cause
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import TABLES, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

    from segpipe.warehouse.runs import RunRecord

_MARK = "segpipe.warehouse"
_CONFIGURED = ("SPARK_CONF_DIR", "HADOOP_CONF_DIR", "YARN_CONF_DIR")
_METASTORE = "_metastore"
PROPERTIES = "spark-sql.conf"


def schema_of(table: Table) -> StructType:
    """A table's schema in Spark's types; what is said of a column becomes its comment."""
    from pyspark.sql.pandas.types import from_arrow_schema
    from pyspark.sql.types import StructField, StructType

    found = from_arrow_schema(table.schema)
    documents = [field.metadata[b"doc"].decode() for field in table.schema]
    return StructType(
        [
            StructField(field.name, field.dataType, field.nullable, {"comment": document})
            for field, document in zip(found, documents, strict=True)
        ]
    )


_LISTINGS = 5
_VERIFY = "parquet.page.verify-checksum.enabled"  # parquet-mr's: a page that is damaged is an error


def location(warehouse: Store, table: Table) -> str:
    """Where a table stands, as Spark wants it: an absolute URL with its scheme."""
    path = warehouse.path(table.name)
    if files.is_local(warehouse.fs):
        return f"file://{path}"
    return f"{warehouse.url.rstrip('/')}/{table.name}"


def read(session: SparkSession, warehouse: Store, table: Table) -> DataFrame:
    """A table of the warehouse as a DataFrame, lazy; without rows where nothing was written so far."""
    schema = schema_of(table)
    for _ in range(_LISTINGS):
        if not warehouse.parts(table.name):
            return session.createDataFrame([], schema)
        place = location(warehouse, table)
        reader = session.read.option(_VERIFY, "true").schema(schema)
        frame = reader.parquet(place)  # whose files Spark lists here
        wanted = {f"{name}.parquet" for name in warehouse.parts(table.name)}
        if {file.rpartition("/")[2] for file in frame.inputFiles()} == wanted:
            return frame
        if {f"{name}.parquet" for name in warehouse.files(table.name)} >= wanted:
            return reader.parquet(*(f"{place}/{name}" for name in sorted(wanted)))
    raise TableError(f"The parts of {table.name} in {warehouse.url} change all the time", "try again a little later")


def hive_conf(settings: RegisterSettings) -> dict[str, str]:
    """The Spark settings that `register` needs on top: Hive's catalogue, the embedded one where no other is named.

    Raises UsageError if the warehouse is remote, no Hive metastore is configured and none is asked for.
    """
    conf = {"spark.sql.catalogImplementation": "hive"}
    folder = metastore_folder(settings)
    return conf | embedded_conf(folder) if folder else conf


def metastore_folder(settings: RegisterSettings) -> Path | None:
    """The folder of the embedded metastore; None where Spark's configuration names a Hive metastore to use."""
    if settings.metastore is not None:
        fs, path = url_to_fs(settings.metastore)
        if not files.is_local(fs):
            raise UsageError(
                f"--metastore is {settings.metastore}, which is not a local folder", "give a folder of this machine"
            )
        return Path(path)
    if _hive_is_configured():
        return None
    warehouse = Store(settings.warehouse)
    if not files.is_local(warehouse.fs):
        raise UsageError(
            f"No Hive metastore is configured, and an embedded one needs a local folder, not {settings.warehouse}",
            "put hive-site.xml into HADOOP_CONF_DIR, or give --metastore a local folder",
        )
    return Path(warehouse.path(_METASTORE))


def embedded_conf(folder: Path) -> dict[str, str]:
    """The Spark settings of the embedded metastore (Derby) in a folder, for one program at a time."""
    return {
        "spark.hadoop.javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={folder}/derby;create=true",
        "spark.sql.warehouse.dir": f"file://{folder}/databases",
    }


def register(session: SparkSession, settings: RegisterSettings, record: RunRecord) -> None:
    """Enter all tables into the catalogue as external tables of one database; their files stay where they are.

    Entries that an earlier `register` made are replaced. Raises TableError if a table of that name is another's,
    and SegpipeError where the catalogue cannot be opened or its metastore does not answer.
    """
    warehouse = Store(settings.warehouse)
    folder = metastore_folder(settings)
    if folder:
        _prepare(session, folder)
    database = settings.database
    _run(session, f"CREATE DATABASE IF NOT EXISTS `{database}`")
    foreign = [name for name in TABLES if _belongs_to_another(session, database, name)]
    if foreign:
        raise TableError(
            f"The catalogue has a table {database}.{foreign[0]} that `register` did not make",
            "give another --database, or drop that table yourself",
        )
    for table in TABLES.values():
        files.make_folder(warehouse.fs, warehouse.path(table.name))
        _run(session, f"DROP TABLE IF EXISTS `{database}`.`{table.name}`")  # external: its files stay
        _run(session, create_statement(database, table, location(warehouse, table)))
        record.count("tables")
    record.lines.append(f"database {database}: {', '.join(TABLES)}")
    if folder:
        options = ("--properties-file", str(folder / PROPERTIES), "--database", database)
        record.lines.append(f"{spark_sql()} {shlex.join(options)}")


def spark_sql() -> str:
    """Spark's own shell for SQL as it can be typed anywhere: with its path, its Spark and, where it is known, its Java.

    A shell may have a JAVA_HOME or SPARK_HOME of other programs, and the script that pip puts beside Python finds Spark
    only while that folder is on the path. Under spark-submit, pyspark is imported from a zip, which holds no programs.
    """
    import pyspark

    home = os.environ.get("SPARK_HOME") or str(Path(pyspark.__file__).parent)
    variables = {"JAVA_HOME": os.environ.get("JAVA_HOME"), "SPARK_HOME": home}
    words = [f"{name}={shlex.quote(value)}" for name, value in variables.items() if value]
    return " ".join((*words, shlex.quote(f"{home}/bin/spark-sql")))


def create_statement(database: str, table: Table, place: str) -> str:
    """The SQL that enters a table into the catalogue, its columns with their descriptions."""
    columns = ",\n  ".join(
        f"`{field.name}` {field.dataType.simpleString()} COMMENT {_quoted(field.metadata['comment'])}"
        for field in schema_of(table)
    )
    return (
        f"CREATE TABLE `{database}`.`{table.name}` (\n  {columns})\nUSING parquet LOCATION {_quoted(place)}\n"
        f"COMMENT {_quoted(f'one row per {table.row}')} TBLPROPERTIES ({_quoted(_MARK)} = {_quoted(place)})"
    )


def _prepare(session: SparkSession, folder: Path) -> None:
    """Make the folder of the embedded metastore, with the settings that spark-sql needs to find it."""
    folder.mkdir(parents=True, exist_ok=True)
    assert session._jvm is not None
    session._jvm.java.lang.System.setProperty("derby.stream.error.file", str(folder / "derby.log"))
    conf = {"spark.sql.catalogImplementation": "hive"} | embedded_conf(folder)
    conf["spark.driver.extraJavaOptions"] = f'"-Dderby.stream.error.file={folder}/derby.log"'
    (folder / PROPERTIES).write_text(_properties(conf))


def _properties(conf: Mapping[str, str]) -> str:
    return "".join(f"{key} {value}\n" for key, value in conf.items())


def _belongs_to_another(session: SparkSession, database: str, name: str) -> bool:
    if not session.catalog.tableExists(f"`{database}`.`{name}`"):
        return False
    rows = session.sql(f"SHOW TBLPROPERTIES `{database}`.`{name}`").collect()
    return _MARK not in {row[0] for row in rows}


def _run(session: SparkSession, statement: str) -> None:
    try:
        session.sql(statement)
    except Exception as error:
        cause = root_cause(error)
        if "Derby" in cause or "XSDB6" in cause:
            raise SegpipeError(
                "The embedded metastore is in use by another program", "end the spark-sql or notebook that holds it"
            ) from None
        if "SessionHiveMetaStoreClient" in cause:
            raise SegpipeError(
                f"The Hive metastore {_metastore_uris(session)} does not answer",
                "start it, or correct hive.metastore.uris in hive-site.xml",
            ) from None
        raise


def _metastore_uris(session: SparkSession) -> str:
    return session._jsparkSession.sharedState().hadoopConf().get("hive.metastore.uris") or "that hive-site.xml names"


def _hive_is_configured() -> bool:
    folders = [os.environ[name] for name in _CONFIGURED if name in os.environ]
    if any((Path(folder) / "hive-site.xml").is_file() for folder in folders):
        return True
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return False
    from pyspark import SparkConf, SparkContext

    SparkContext._ensure_initialized()
    return SparkConf().get("spark.hadoop.hive.metastore.uris", "") not in ("", None)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
