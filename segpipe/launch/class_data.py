"""Spark's classes as its JVM keeps them in memory, in one file that is mapped and not parsed: class-data sharing.

A third of the processor time of a start goes into reading and verifying some 15,000 classes. `make setup` writes the
file once (`python -m segpipe.launch.class_data`); a JVM that it does not fit (another Java, other jars, other folders
ahead of them) says nothing and reads its classes as ever. JEP 350, https://openjdk.org/jeps/350.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.launch.java import java_home, version
from segpipe.launch.project import CONF

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_FIRST_JAVA = 13  # that writes such a file for the classes of a program
_SILENT = "-Xlog:cds=off -Xlog:cds+dynamic=off"
_EXIT_SECONDS = 600


def archive(home: Path) -> Path:
    """Where the file for the Java in `home` belongs, written or not: in the environment that has Spark's jars."""
    library = home / "lib" / "server" / "libjvm.so"
    about = library.stat() if library.is_file() else None
    identity = f"{library.resolve()}\0{about and (about.st_size, about.st_mtime_ns)}"
    return Path(sys.prefix, "share", "segpipe", f"spark-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.jsa")


def share(home: Path) -> None:
    """Let the JVM that starts from here use the file, where it is there and no administrator's own folder is named.

    No folder may stand ahead of the jars, so Spark's conf folder, which holds its log settings, comes behind them.
    """
    if os.environ.get("SPARK_CONF_DIR"):
        return
    found = archive(home)
    if not found.is_file():
        os.environ["SPARK_CONF_DIR"] = str(CONF)
        return
    _conf_folder_last()
    _add_option(f"-XX:SharedArchiveFile={found} {_SILENT}")


def _conf_folder_last() -> None:
    os.environ["SPARK_CONF_DIR"] = str(CONF / "none")
    own = os.environ.get("SPARK_DIST_CLASSPATH")
    os.environ["SPARK_DIST_CLASSPATH"] = f"{own}:{CONF}" if own else str(CONF)


def _add_option(option: str) -> None:
    os.environ["SPARK_SUBMIT_OPTS"] = f"{option} {os.environ.get('SPARK_SUBMIT_OPTS', '')}".strip()


def write() -> Path | None:
    """Write the file by a run of Spark that does what jobs do; None if this machine's Java cannot."""
    home = java_home()
    if (version(home) or 0) < _FIRST_JAVA:
        return None
    target = archive(home)
    draft = target.with_suffix(f".{os.getpid()}.draft")
    target.parent.mkdir(parents=True, exist_ok=True)
    _conf_folder_last()
    _add_option(f"-XX:ArchiveClassesAtExit={draft} {_SILENT}")
    try:
        _exercise()
        if not draft.is_file():
            return None
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    for other in target.parent.glob("spark-*.jsa"):  # of a Java that was here before
        if other != target:
            other.unlink()
    return target


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
        session.range(4).mapInPandas(iter, "id long").write.parquet(f"{folder}/part")
        session.read.parquet(f"{folder}/part").groupBy("id").count().collect()


def main() -> int:
    """What `make setup` calls; without the file all works, only slower."""
    try:
        found = write()
    except Exception as error:
        print(f"class data of Spark were not written ({error}): jobs start a little slower", file=sys.stderr)
        return 0
    print("class data of Spark are written" if found else "this Java keeps no class data: jobs start a little slower")
    return 0


if __name__ == "__main__":
    sys.exit(main())
