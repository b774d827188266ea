"""Spark's classes as its JVM keeps them in memory, in one file that is mapped and not parsed: class-data sharing.

A third of the processor time of a start goes into reading and verifying some 15,000 classes. `make setup` writes the
file once (`python -m segpipe.launch.class_data`); a JVM that it does not fit (another Java, other jars, other folders
ahead of them) says nothing and reads its classes as ever. JEP 350, https://openjdk.org/jeps/350.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.launch.java import java_home, version
from segpipe.launch.project import CONF

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pandas import DataFrame
    from pyspark.sql import SparkSession

_FIRST_JAVA = 13  # that writes such a file for the classes of a program
_SILENT = "-Xlog:cds=off -Xlog:cds+dynamic=off"
_USE = "-XX:SharedArchiveFile="
_JAVA = ".java"  # of the file beside it, which names the Java
_LOCAL = re.compile(r"local(\[.*\])?")
_SPACE = re.compile(r"\s")
_WATCHED = re.compile(r"-javaagent:|-agent(?:lib|path):|-XX:(?:\+FlightRecorder|StartFlightRecording)")
_OPTIONS = ("SPARK_SUBMIT_OPTS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")
_PROFILE = re.compile(r"spark-(?!defaults\.).+\.conf")
_EXIT_SECONDS = 600


def archive(home: Path) -> Path:
    """Where the file for the Java in `home` belongs, written or not: in the environment that has Spark's jars."""
    library = home / "lib" / "server" / "libjvm.so"
    about = library.stat() if library.is_file() else None
    identity = f"{library.resolve()}\0{about and (about.st_size, about.st_mtime_ns)}"
    return Path(sys.prefix, "share", "segpipe", f"spark-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.jsa")


def share(home: Path, master: str, options: str = "") -> None:
    """Let the JVM that starts from here use the file, where it is there and costs nothing of the conf folder.

    A JVM whose `options` or variables name an agent or a flight recording gets none: Java 17 looks for the bytes of
    mapped classes then, and may end with a segmentation fault.

    No folder may stand ahead of the jars, so the conf folder comes behind them, from where log settings are found and
    nothing else is. It stays ahead where it holds more, and where other machines take part (their class path too has
    SPARK_DIST_CLASSPATH). The folder that somebody else names in SPARK_CONF_DIR stays in force.
    """
    unshare()
    if _writes() or (os.environ.get("SPARK_CONF_DIR") or str(CONF)) != str(CONF):
        return
    if _WATCHED.search(" ".join([options, *(os.environ.get(name, "") for name in _OPTIONS)])):
        return
    os.environ["SPARK_CONF_DIR"] = str(CONF)
    found = archive(home)
    if _LOCAL.fullmatch(master) and found.is_file() and not _SPACE.search(str(found)) and _only_ours(CONF):
        _conf_folder_last()
        _add_option(f"{_USE}{found} {_SILENT}")


def unshare() -> None:
    """Take back what `share` named, so that no other program that is started from here gets it."""
    if os.environ.get("SPARK_CONF_DIR") != str(CONF / "none") or _writes():
        return
    os.environ["SPARK_CONF_DIR"] = str(CONF)
    entries = os.environ.get("SPARK_DIST_CLASSPATH", "").split(":")
    _set("SPARK_DIST_CLASSPATH", ":".join(entry for entry in entries if entry != str(CONF)))
    words = os.environ.get("SPARK_SUBMIT_OPTS", "").split(" ")
    ours = {f"{_USE}{file}" for file in archive(Path()).parent.glob("spark-*.jsa")} | set(_SILENT.split())
    _set("SPARK_SUBMIT_OPTS", " ".join(word for word in words if word not in ours))


def _writes() -> bool:
    return "-XX:ArchiveClassesAtExit" in os.environ.get("SPARK_SUBMIT_OPTS", "")


def _only_ours(conf: Path) -> bool:
    """Whether Spark itself reads nothing in the folder but log settings: profiles and segpipe.toml are ours."""
    if not conf.is_dir():
        return False
    names = {entry.name for entry in conf.iterdir()} - {"log4j2.properties", "segpipe.toml"}
    return all(_PROFILE.fullmatch(name) for name in names)


def _conf_folder_last() -> None:
    os.environ["SPARK_CONF_DIR"] = str(CONF / "none")
    own = os.environ.get("SPARK_DIST_CLASSPATH")
    os.environ["SPARK_DIST_CLASSPATH"] = f"{own}:{CONF}" if own else str(CONF)


def _add_option(option: str) -> None:
    os.environ["SPARK_SUBMIT_OPTS"] = f"{option} {os.environ.get('SPARK_SUBMIT_OPTS', '')}".strip()


def _set(name: str, value: str) -> None:
    if value:
        os.environ[name] = value
    else:
        os.environ.pop(name, None)


def keeps(home: Path) -> bool:
    """Whether the Java in `home` writes such a file, and its path can be named to Spark, which splits at spaces."""
    return (version(home) or 0) >= _FIRST_JAVA and not _SPACE.search(str(archive(home)))


def write() -> Path | None:
    """Write the file by a run of Spark that does what jobs do; None where none is kept."""
    home = java_home()
    if not keeps(home):
        return None
    target = archive(home)
    draft = target.with_suffix(f".{os.getpid()}.draft")
    target.parent.mkdir(parents=True, exist_ok=True)
    _conf_folder_last()
    _add_option(f"-XX:ArchiveClassesAtExit={draft} {_SILENT}")
    try:
        _exercise()
        if not draft.is_file():
            raise RuntimeError(f"{home} left no {draft.name}")
        target.with_suffix(_JAVA).write_text(str(home))
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    _remove_old(target.parent)
    return target


def _remove_old(folder: Path) -> None:
    """Remove the files of Javas that are gone or were updated; another Java that is still there keeps its own."""
    for file in folder.glob("spark-*.jsa"):
        about = file.with_suffix(_JAVA)
        if not about.is_file() or archive(Path(about.read_text())) != file:
            file.unlink(missing_ok=True)
            about.unlink(missing_ok=True)


def _exercise() -> None:
    """A session, Python workers, a frame through them, and Parquet; then the JVM ends by itself."""
    from segpipe.launch.session import build

    session = build("class data", master="local[1]")
    gateway = session.sparkContext._gateway
    assert gateway is not None
    try:
        _use(session)
    finally:
        session.stop()
        gateway.shutdown()
        jvm: subprocess.Popen[bytes] = gateway.proc
        assert jvm.stdin is not None
        jvm.stdin.close()
        jvm.wait(_EXIT_SECONDS)


def _use(session: SparkSession) -> None:
    import tempfile

    session.sparkContext.parallelize([1, 2], 2).map(str).collect()
    with tempfile.TemporaryDirectory() as folder:
        session.range(4).mapInPandas(_same, "id long").write.parquet(f"{folder}/part")
        session.read.parquet(f"{folder}/part").groupBy("id").count().collect()


def _same(frames: Iterator[DataFrame]) -> Iterator[DataFrame]:
    yield from frames


def main() -> int:
    """What `make setup` calls: the last line says what became of it, exit code 1 that it is to be tried again."""
    try:
        found = write()
    except Exception as error:
        print(f"class data of Spark were not written ({' '.join(str(error).split())}): jobs start a little slower")
        return 1
    print("class data of Spark are written" if found else "no class data are kept here: jobs start a little slower")
    return 0


if __name__ == "__main__":
    sys.exit(main())
