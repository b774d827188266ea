"""The wheel in empty environments: it reads a warehouse, says what is missing, and brings the program `segpipe`.

Installing asks the package index for pandas, pyarrow and DuckDB; where none answers, these tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import segpipe
from segpipe import __version__
from tests.environments import clean, environment_of, pip
from tests.report.small_warehouse import generate, write_results

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[1]
QUERY = """
import json, sys, segpipe
warehouse = segpipe.open_warehouse(sys.argv[1])
scan = warehouse.scan(sys.argv[2])
said = []
for lacking in (scan.plot, lambda: segpipe.open_warehouse("hdfs://namenode/tables"), warehouse.scans.spark):
    try:
        lacking()
    except segpipe.MissingPackage as error:
        said.append(str(error))
print(json.dumps({
    "pandas": len(warehouse.scans.to_pandas()),
    "arrow": warehouse.slices.to_arrow().num_rows,
    "duckdb": warehouse.sql("select count(*) from scans").fetchall()[0][0],
    "image": list(scan.image("flair").shape),
    "labels": sorted(map(int, scan.convention.labels)),
    "said": said,
    "where": segpipe.__file__,
}))
"""


def other_python() -> str | None:
    """A Python beside the one of the lock, of those that tables can be read with."""
    installed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for version in ("3.12", "3.13", "3.10"):
        for found in (shutil.which(f"python{version}"), *sorted(map(str, installed.glob(f"{version}.*/bin/python")))):
            if found and subprocess.run([found, "-c", "import venv"], capture_output=True).returncode == 0:
                return found
    return None


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools leaves its work in the folder that it builds."""
    copy, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("segpipe", "jobs", "conf"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    pip("wheel", str(copy), "--no-deps", "--no-build-isolation", "--wheel-dir", str(target))
    (made,) = target.glob("*.whl")
    return made


@pytest.fixture(scope="module", params=["the Python of the lock", pytest.param("another", marks=pytest.mark.long)])
def environment(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel and what it asks for, and nothing else."""
    base = sys.executable if request.param == "the Python of the lock" else other_python()
    if base is None:
        pytest.skip("there is no Python 3.10, 3.12 or 3.13 on this machine")
    return environment_of(base, tmp_path_factory.mktemp("environment"), str(wheel))


def test_it_reads_a_warehouse_and_names_the_extra_of_what_is_missing(environment: Path, tmp_path: Path) -> None:
    cases = [generate(0, number, (8, 24, 24)) for number in range(3)]
    results = write_results(tmp_path, cases)
    command = [environment / "python", "-c", QUERY, str(results.warehouse), cases[0].subject]
    done = subprocess.run(command, cwd=tmp_path, env=clean(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["pandas"], said["arrow"], said["duckdb"]) == (3, 24, 3)
    assert (said["image"], said["labels"]) == ([8, 24, 24], [1, 2, 4])
    extras = [one.partition(" is not installed: pip install ")[2] for one in said["said"]]
    assert extras == ["'segpipe[notebook]'", "'segpipe[hdfs]'", "'segpipe[spark]'"]
    assert Path(said["where"]).is_relative_to(environment.parent)


def test_the_program_lists_jobs_from_any_folder(environment: Path, tmp_path: Path) -> None:
    def segpipe(*words: str) -> subprocess.CompletedProcess[str]:
        command = [environment / "segpipe", *words]
        return subprocess.run(command, cwd=tmp_path, env=clean(), capture_output=True, text=True)

    listed = segpipe()
    assert listed.returncode == 0
    assert listed.stdout.startswith("usage: segpipe [spark-submit options]")
    assert "  ingest     Read an archive of scans into the tables `scans` and `slices`." in listed.stdout
    asked = segpipe("ingest", "--help")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.startswith("usage: segpipe ingest ")
    (tmp_path / "scans").mkdir()
    words = ("--source", str(tmp_path / "scans"), "--warehouse", str(tmp_path / "w"), "--cohort", "c")
    refused = segpipe("ingest", *words)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "pip install 'segpipe[ingest]'" in refused.stderr  # what reads archives; Spark comes after it


# In every Python of an environment: a file of the checkout that is opened is written down; packages of the lock may be.
_WATCHED = """
import os, sys
def watch(event, arguments, root={root!r}, packages={packages!r}, log={log!r}):
    if event == "open" and isinstance(arguments[0], str):
        path = os.path.abspath(arguments[0])
        if path.startswith(root + os.sep) and not path.startswith(packages + os.sep):
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(handle, (path + os.linesep).encode())
            os.close(handle)
sys.addaudithook(watch)
"""


@pytest.mark.long
def test_a_job_reaches_spark_from_the_wheel_and_from_no_file_of_the_checkout(
    wheel: Path, glioma_archive: Path, tmp_path: Path
) -> None:
    """In an environment with the wheel, beside which the packages of the lock are found, but not this checkout."""
    bin_folder = environment_of(sys.executable, tmp_path / "environment", "--no-deps", str(wheel))
    (site,) = bin_folder.parent.glob("lib/python*/site-packages")
    packages, log = sysconfig.get_path("purelib"), tmp_path / "opened"
    (site / "watched.py").write_text(_WATCHED.format(root=str(ROOT), packages=packages, log=str(log)))
    (site / "lock.pth").write_text(f"{packages}\nimport watched\n")  # whose own .pth files are not followed
    archive = tmp_path / "archive"
    for subject in ("Synthetic_00_000", "Synthetic_00_001"):
        shutil.copytree(glioma_archive / subject, archive / subject)

    words = ("--source", "archive", "--warehouse", "tables", "--cohort", "c")
    command = [bin_folder / "segpipe", "--master", "local[1]", "ingest", *words]
    done = subprocess.run(command, cwd=tmp_path, env=clean(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scans = segpipe.open_warehouse(tmp_path / "tables").scans.to_pandas()
    assert sorted(scans["subject"]) == sorted(os.listdir(archive))
    assert not log.exists(), log.read_text()
    subprocess.run([bin_folder / "python", "-c", f"open({str(ROOT / 'README.md')!r})"], env=clean(), check=True)
    assert log.read_text() == f"{ROOT / 'README.md'}\n"  # the watch itself works


def test_the_wheel_has_jobs_conf_types_and_the_version_of_the_package(wheel: Path) -> None:
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert wheel.name.startswith(f"segpipe-{__version__}-")
    jobs = {path.name for path in (ROOT / "jobs").glob("*.py")}
    assert {f"segpipe/_project/jobs/{name}" for name in jobs} <= names
    assert {"segpipe/_project/conf/spark-yarn.conf", "segpipe/py.typed", "segpipe/report/template.html"} <= names
    assert not [name for name in names if name.startswith(("tests/", "jobs/", "benchmarks/"))]
