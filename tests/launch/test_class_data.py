"""Spark's JVM maps its class data where set-up has written them, and finds the log settings behind its jars."""

from __future__ import annotations

import os
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
    monkeypatch.setattr(class_data.sys, "prefix", str(tmp_path / "environment"))
    return tmp_path / "java"


def write(home: Path) -> Path:
    found = class_data.archive(home)
    found.parent.mkdir(parents=True)
    found.touch()
    return found


def test_without_the_file_all_is_as_spark_has_it(home: Path) -> None:
    class_data.share(home)
    assert [os.environ.get(name) for name in NAMES] == [str(CONF), None, None]


def test_the_file_is_named_with_no_folder_ahead_of_the_jars(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_DIST_CLASSPATH", "/theirs")
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "-Dtheirs=1")
    found = write(home)
    class_data.share(home)
    assert not Path(os.environ["SPARK_CONF_DIR"]).exists()
    assert os.environ["SPARK_DIST_CLASSPATH"] == f"/theirs:{CONF}"
    assert os.environ["SPARK_SUBMIT_OPTS"].split()[0] == f"-XX:SharedArchiveFile={found}"
    assert os.environ["SPARK_SUBMIT_OPTS"].split()[-1] == "-Dtheirs=1"


def test_the_folder_of_an_administrator_stays_in_force(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_CONF_DIR", "/etc/spark")
    write(home)
    class_data.share(home)
    assert [os.environ.get(name) for name in NAMES] == ["/etc/spark", None, None]


def test_another_java_has_another_file(home: Path) -> None:
    library = home / "lib" / "server" / "libjvm.so"
    library.parent.mkdir(parents=True)
    names = []
    for content in ("one", "another"):
        library.write_text(content)
        names.append(class_data.archive(home))
    assert names[0] != names[1]


def test_spark_maps_the_file_and_knows_its_log_settings(spark: SparkSession) -> None:
    jvm = spark.sparkContext._jvm
    settings = jvm.org.apache.logging.log4j.LogManager.getContext(False).getConfiguration()
    assert settings.getConfigurationSource().getLocation().endswith("conf/log4j2.properties")
    found = class_data.archive(java_home())
    if not found.is_file():
        message = f"no class data in {found}: run `make setup`, or this Java keeps none"
        (pytest.fail if os.environ.get("CI", "").lower() in ("1", "true") else pytest.skip)(message)
    (java,) = [one for one in psutil.Process().children(recursive=True) if "SparkSubmit" in " ".join(one.cmdline())]
    assert str(found) in Path(f"/proc/{java.pid}/maps").read_text()
