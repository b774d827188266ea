"""`register`, and then Spark's own spark-sql, which knows nothing of segpipe."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest

from jobs.register import check
from segpipe.errors import UsageError
from segpipe.launch.java import java_home
from segpipe.pipelines.catalog import PROPERTIES, create_statement, metastore_folder
from segpipe.settings import RegisterSettings
from segpipe.warehouse.tables import RUNS, TABLES
from tests.jobs.test_spark_submit import call
from tests.report.small_warehouse import generate, write_results

BIN = Path(sys.executable).parent
QUICK = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]  # as in conf/spark-local.conf: it starts sooner


@pytest.fixture
def no_hive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Hadoop or Hive configuration of this machine."""
    for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR", "SPARK_CONF_DIR", "PYSPARK_GATEWAY_PORT"):
        monkeypatch.delenv(name, raising=False)


def spark_sql(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a person with spark-sql on the path sees; the project is neither the folder nor on Python's path."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SPARK", "HADOOP"))}
    given |= {"PATH": f"{BIN}:{os.environ['PATH']}", "JAVA_HOME": str(java_home())}
    given |= {"SPARK_SUBMIT_OPTS": " ".join(QUICK)}
    command = ["spark-sql", "--database", "brain_archive", *words]
    return subprocess.run(command, cwd=cwd, env=given | environment, capture_output=True, text=True, timeout=240)


def typed(line: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What a line and more words give in a shell of somebody whose Java, Spark and Python are others."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SPARK", "HADOOP"))}
    others = [folder for folder in os.environ["PATH"].split(":") if folder != str(BIN)]
    given |= {"PATH": ":".join(others), "SPARK_SUBMIT_OPTS": " ".join(QUICK)}
    given |= {"JAVA_HOME": "/none", "SPARK_HOME": "/none"}
    command = f"{line} {shlex.join(words)}"
    return subprocess.run(["bash", "-c", command], cwd=cwd, env=given, capture_output=True, text=True, timeout=240)


@pytest.fixture
def hive_site(tmp_path: Path) -> Iterator[Path]:
    """A folder whose hive-site.xml names a Hive metastore that runs, the one whose classes come with Spark."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    folder, log = tmp_path / "conf", tmp_path / "metastore.log"
    folder.mkdir()
    url = f"thrift://127.0.0.1:{port}"
    (folder / "hive-site.xml").write_text(
        f"<configuration><property><name>hive.metastore.uris</name><value>{url}</value></property></configuration>"
    )
    settings = {
        "hive.async.log.enabled": "false",
        "hive.metastore.schema.verification": "false",
        "hive.metastore.warehouse.dir": f"file://{tmp_path}/databases",
        "datanucleus.schema.autoCreateAll": "true",
        "javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={tmp_path}/derby;create=true",
    }
    command = [
        java_home() / "bin/java",
        *QUICK,
        "-cp",
        Path(pyspark.__file__).parent / "jars/*",
        "-Dhive.async.log.enabled=false",
    ]
    command += ["org.apache.hadoop.hive.metastore.HiveMetaStore", "-p", str(port)]
    command += [word for name, value in settings.items() for word in ("--hiveconf", f"{name}={value}")]
    with log.open("wb") as output, subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output) as service:
        try:
            deadline = time.monotonic() + 120
            while not answers(port):
                assert service.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield folder
        finally:
            service.kill()


def answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.long
def test_spark_sql_finds_the_tables_by_name(tmp_path: Path, no_hive: None) -> None:
    made = write_results(tmp_path / "it's here", [generate(7, number, (10, 24, 20)) for number in (10, 13)])
    before = {path: path.read_bytes() for path in made.warehouse.rglob("*.parquet")}
    words = ("register", "--warehouse", made.warehouse, "--database", "brain_archive")
    done = call("--master", "local[1]", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"tables {len(TABLES)}" in done.stdout
    properties = made.warehouse / "_metastore" / PROPERTIES
    to_type = done.stdout.strip().splitlines()[-1]
    assert str(properties) in shlex.split(to_type)
    query = (
        "select split, count(*) from segmentations group by split;"
        " select job, outcome from runs where job = 'register'; describe segmentations; show tables"
    )
    asked = typed(to_type, "-e", query, cwd=tmp_path)
    assert asked.returncode == 0, asked.stderr
    answer = asked.stdout
    assert "test\t6" in answer
    assert answer.count("register\tdone") == 1  # read in place: the run of register itself is there
    assert "predicted volume" in answer
    assert all(f"\n{name}\n" in f"\n{answer}" for name in TABLES)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not (tmp_path / "metastore_db").exists()
    assert not (tmp_path / "spark-warehouse").exists()


@pytest.mark.slow
@pytest.mark.long
def test_a_hive_metastore_that_runs_has_the_tables_for_everybody(
    tmp_path: Path, no_hive: None, hive_site: Path
) -> None:
    made = write_results(tmp_path / "made", [generate(7, 10, (10, 24, 20))])
    words = ("--master", "local[1]", "register", "--warehouse", made.warehouse, "--database", "brain_archive")
    done = call(*words, cwd=tmp_path, env={"HADOOP_CONF_DIR": str(hive_site)})
    assert done.returncode == 0, done.stderr
    assert not (made.warehouse / "_metastore").exists()
    catalogue = ("--conf", "spark.sql.catalogImplementation=hive")
    query = "select region, count(*) from segmentations group by region; describe scans"
    asked = spark_sql(*catalogue, "-e", query, cwd=tmp_path, HADOOP_CONF_DIR=str(hive_site))
    assert asked.returncode == 0, asked.stderr
    assert "whole_tumour\t1" in asked.stdout
    assert "the ingest that wrote the row" in asked.stdout


@pytest.mark.slow
@pytest.mark.long
def test_a_hive_metastore_that_is_down_is_named(tmp_path: Path, no_hive: None) -> None:
    made = write_results(tmp_path / "made", [generate(7, 10, (10, 24, 20))])
    done = call(
        *("--master", "local[1]", "--conf", "spark.hadoop.hive.metastore.uris=thrift://127.0.0.1:1"),
        *("register", "--warehouse", made.warehouse),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "The Hive metastore thrift://127.0.0.1:1 does not answer: start it" in done.stderr


def test_statement_quotes_what_a_path_may_hold() -> None:
    statement = create_statement("d", RUNS, "file:///it's")
    assert "LOCATION 'file:///it\\'s'" in statement
    assert "`counts` map<string,bigint> COMMENT 'rows and bytes in and out, quarantined, skipped, …'" in statement


def test_metastore_is_the_one_asked_for_then_hives_then_one_in_the_warehouse(
    tmp_path: Path, no_hive: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RegisterSettings(warehouse=str(tmp_path))
    assert metastore_folder(settings) == tmp_path / "_metastore"
    (tmp_path / "hive-site.xml").touch()
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    assert metastore_folder(settings) is None
    asked = RegisterSettings(warehouse=str(tmp_path), metastore=str(tmp_path / "m"))
    assert metastore_folder(asked) == tmp_path / "m"


def test_remote_warehouse_without_a_metastore_is_refused(no_hive: None) -> None:
    with pytest.raises(UsageError, match=r"hive-site\.xml"):
        metastore_folder(RegisterSettings(warehouse="memory://w"))


def test_name_that_hive_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="letters, digits"):
        check(RegisterSettings(warehouse=str(tmp_path), database="a-b"))


@pytest.mark.slow
def test_table_of_somebody_else_is_left_alone(tmp_path: Path, no_hive: None) -> None:
    made = write_results(tmp_path / "one", [generate(7, 10, (10, 24, 20))])
    shutil.copytree(made.warehouse, tmp_path / "two")
    script = f"""
import sys
from segpipe.settings import RegisterSettings
from segpipe.pipelines import catalog
from segpipe.launch.session import build
from segpipe.warehouse.runs import record_run
from segpipe.errors import TableError
settings = RegisterSettings({str(made.warehouse)!r}, "shared")
spark = build("test", master="local[1]", extra_conf=catalog.hive_conf(settings))
spark.sql("create database shared")
spark.sql("create table shared.runs (theirs int) using parquet")
spark.sql("insert into shared.runs values (7)")
with record_run(None, "register", settings) as record:
    try:
        catalog.register(spark, settings, record)
    except TableError as error:
        print(error)
print(spark.sql("select * from shared.runs").collect(), spark.catalog.tableExists("shared.scans"))
spark.sql("drop table shared.runs")
for warehouse in ({str(made.warehouse)!r}, {str(made.warehouse)!r}, {str(tmp_path / "two")!r}):  # again, and moved
    moved = RegisterSettings(warehouse, "shared", {str(made.warehouse / "_metastore")!r})
    with record_run(None, "register", moved) as record:
        catalog.register(spark, moved, record)
    print(record.counts["tables"], "tables")
print(spark.sql("select split, count(*) from shared.segmentations group by split").collect())
print(spark.sql("describe extended shared.scans").where("col_name = 'Location'").collect()[0][1])
spark.stop()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    assert "The catalogue has a table shared.runs that `register` did not make" in done.stdout
    assert "[Row(theirs=7)] False" in done.stdout
    assert done.stdout.count(f"{len(TABLES)} tables") == 3
    assert "[Row(split='test', count(1)=3)]" in done.stdout
    assert done.stdout.rstrip().endswith("/two/scans")
