"""Spark's JVM maps its class data where set-up has written them, and finds the log settings behind its jars."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from segpipe.launch import class_data
from segpipe.launch.java import java_home
from segpipe.launch.project import CONF

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NAMES = ("SPARK_CONF_DIR", "SPARK_DIST_CLASSPATH", "SPARK_SUBMIT_OPTS")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Java of nobody, in an environment of nobody, without Spark's variables."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    return tmp_path / "java"


def java(home: Path, content: str = "one") -> Path:
    library = home / "lib" / "server" / "libjvm.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    library.write_text(content)
    return home


def write(home: Path) -> Path:
    found = class_data.archive(home)
    found.parent.mkdir(parents=True)
    found.touch()
    return found


def test_without_the_file_all_is_as_spark_has_it(home: Path) -> None:
    class_data.share(home, "local[2]")
    assert [os.environ.get(name) for name in NAMES] == [str(CONF), None, None]


def test_the_file_is_named_with_no_folder_ahead_of_the_jars(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_DIST_CLASSPATH", "/theirs")
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "-Dtheirs=1")
    found = write(home)
    class_data.share(home, "local[2]")
    assert not Path(os.environ["SPARK_CONF_DIR"]).exists()
    assert os.environ["SPARK_DIST_CLASSPATH"] == f"/theirs:{CONF}"
    assert os.environ["SPARK_SUBMIT_OPTS"].split()[0] == f"-XX:SharedArchiveFile={found}"
    assert os.environ["SPARK_SUBMIT_OPTS"].split()[-1] == "-Dtheirs=1"


def test_the_folder_of_an_administrator_stays_in_force(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_CONF_DIR", "/etc/spark")
    write(home)
    class_data.share(home, "local[2]")
    assert [os.environ.get(name) for name in NAMES] == ["/etc/spark", None, None]


@pytest.mark.parametrize("master", ["yarn", "spark://host:7077", "local-cluster[2,1,1024]", ""])
def test_other_machines_get_no_class_path_of_this_one(home: Path, master: str) -> None:
    write(home)
    class_data.share(home, master)
    assert [os.environ.get(name) for name in NAMES] == [str(CONF), None, None]


@pytest.mark.parametrize("name", ["spark-env.sh", "spark-defaults.conf", "hive-site.xml", "fairscheduler.xml"])
def test_what_spark_reads_in_the_conf_folder_is_not_lost(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    for ours in ("log4j2.properties", "segpipe.toml", "spark-local.conf", "spark-site.conf"):
        (conf / ours).touch()
    monkeypatch.setattr(class_data, "CONF", conf)
    write(home)
    class_data.share(home, "local")
    assert "SPARK_SUBMIT_OPTS" in os.environ
    (conf / name).touch()
    class_data.share(home, "local")
    assert [os.environ.get(name) for name in NAMES] == [str(conf), None, None]


@pytest.mark.parametrize(
    "option",
    ["-XX:StartFlightRecording=filename=x.jfr", "-javaagent:/opt/exporter.jar=9404", "-agentlib:jdwp=server=y"],
)
def test_a_jvm_that_is_watched_gets_none(home: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    write(home)
    class_data.share(home, "local", f"-XX:+UseSerialGC {option}")
    assert "SPARK_SUBMIT_OPTS" not in os.environ
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", option)
    class_data.share(home, "local", "-XX:+UseSerialGC")
    assert "SPARK_SUBMIT_OPTS" not in os.environ


def test_nothing_stays_for_programs_that_start_later(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_DIST_CLASSPATH", "/theirs")
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "-Dtheirs=1")
    write(home)
    class_data.share(home, "local")
    class_data.unshare()
    assert [os.environ.get(name) for name in NAMES] == [str(CONF), "/theirs", "-Dtheirs=1"]


def test_another_java_has_another_file_and_each_is_kept_while_it_is_there(home: Path, tmp_path: Path) -> None:
    homes = [java(home), java(tmp_path / "second"), java(tmp_path / "third")]
    files = [class_data.archive(one) for one in homes]
    files[0].parent.mkdir(parents=True)
    for file, one in zip(files, homes, strict=True):
        file.touch()
        file.with_suffix(".java").write_text(str(one))
    java(homes[2], "an update of it")
    class_data._remove_old(files[0].parent)
    assert [file.is_file() for file in files] == [True, True, False]


def test_spark_maps_the_file_and_knows_its_log_settings(spark: SparkSession) -> None:
    jvm = spark.sparkContext._jvm
    settings = jvm.org.apache.logging.log4j.LogManager.getContext(False).getConfiguration()
    assert settings.getConfigurationSource().getLocation().endswith("conf/log4j2.properties")
    home = java_home()
    if not class_data.keeps(home):
        pytest.skip(f"{home} keeps no class data")
    found = class_data.archive(home)
    assert found.is_file(), f"no class data in {found}: run `make setup`"
    (jvm_process,) = [one for one in psutil.Process().children(recursive=True) if _is_spark(one)]
    assert str(found) in Path(f"/proc/{jvm_process.pid}/maps").read_text()


def _is_spark(process: psutil.Process) -> bool:
    """Whether a process is a Spark's JVM; one that has ended meanwhile is not."""
    try:
        return "SparkSubmit" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # or a zombie, which is a kind of it
        return False
