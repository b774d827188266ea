"""Fixtures that all rooms share."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # segpipe.models says why
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("PYTHONHOME", "")  # Orca hands it to its workers, which die on a missing one

import hypothesis
import pytest

from tests import tiers

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# A shared machine stalls now and then; the timeout of pytest catches what hangs.
hypothesis.settings.register_profile("segpipe", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=25)  # the gate tries 100
hypothesis.settings.load_profile("segpipe")

ROOT = Path(__file__).resolve().parents[1]
MEMORY = Path("/dev/shm")
_ALL_GB, _QUICK_GB = (6, 18), (1, 4)
"""Room for files, and memory with these files and all that is started, of a run of all tests and of the quick ones."""
_STATUS = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--quick`, see tests/tiers.py, and what `make check` asks for after it."""
    parser.addoption("--quick", action="store_true", help="only what needs no Spark, TensorFlow or other process")
    parser.addoption("--after-quick", action="store_true", help="leave out what --quick runs")
    parser.addoption("--slow-only-in", metavar="FILES", help="leave out the slow tests of other files")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' files in memory where there is room; watch quick tests, and try fewer examples in them."""
    if _has_room(MEMORY, *(_QUICK_GB if config.getoption("quick") else _ALL_GB)):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    if config.getoption("quick"):
        config.pluginmanager.register(tiers.Guard())
        hypothesis.settings.load_profile("quick")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember how it ended."""
    session.config.stash[_STATUS] = int(exitstatus)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give the memory back of tests that have all passed; not sooner, so that no two tests get the same folder."""
    factory: Any = getattr(config, "_tmp_path_factory", None)
    made: Path | None = getattr(factory, "_basetemp", None)
    alone = not hasattr(config, "workerinput")  # not one of several processes
    if alone and made is not None and made.is_relative_to(MEMORY) and config.stash.get(_STATUS, 1) == 0:
        shutil.rmtree(made, ignore_errors=True)


def _has_room(folder: Path, room_gb: float, memory_gb: float) -> bool:
    """Whether so much fits into a folder in memory and is left beside it, and programs may be started there.

    On a disk, each of thousands of small parts waits until it outlives a power cut, and no test cuts the power.
    """
    try:
        found = os.statvfs(folder)
        memory = int(re.findall(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())[0]) / 1e6
    except (OSError, IndexError):
        return False
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize > room_gb * 1e9 and memory > memory_gb


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A quick run imports no file of tests that imports TensorFlow."""
    return True if config.getoption("quick") and tiers.is_ignored(collection_path, ROOT) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Hadoop first, then files with slow tests, and what is quick last: it fills what the others leave of the time."""
    asked_for = [_is_asked_for(item, config) for item in items]
    if left_out := [item for item, kept in zip(items, asked_for, strict=True) if not kept]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item, kept in zip(items, asked_for, strict=True) if kept]
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    starting = {item.path for item in items if tiers.is_ignored(item.path, ROOT) or not tiers.is_quick(item)}

    def place(item: pytest.Item) -> int:
        return 0 if _is_hadoop(item.nodeid) else 1 if item.path in slow else 2 if item.path in starting else 3

    items.sort(key=place)


def _is_asked_for(item: pytest.Item, config: pytest.Config) -> bool:
    quick = tiers.is_quick(item) and not tiers.is_ignored(item.path, ROOT)
    if (config.getoption("quick") and not quick) or (config.getoption("after_quick") and quick):
        return False
    files: str | None = config.getoption("slow_only_in")
    far = files is not None and item.nodeid.partition("::")[0] not in files.split(",")
    return not (far and item.get_closest_marker("slow"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files go to processes as a whole, and all of tests/hadoop to one: a cluster is there once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "hadoop" if _is_hadoop(nodeid) else nodeid.partition("::")[0]

    return ByFile(config, log)


def _is_hadoop(nodeid: str) -> bool:
    return nodeid.startswith("tests/hadoop/")


@pytest.fixture(autouse=True)
def handlers_of_signals() -> Iterator[None]:
    """Put back the handlers of signals that a job in this process leaves; a program started later inherits SIG_IGN."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before, hook = [signal.getsignal(number) for number in numbers], sys.unraisablehook
    yield
    for number, handler in zip(numbers, before, strict=True):
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)
    sys.unraisablehook = hook


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One local Spark with two slots, that Orca can train on as well."""
    from segpipe.launch.session import build
    from segpipe.launch.submit import bigdl_jars

    scratch = tmp_path_factory.mktemp("spark")
    conf = {
        "spark.driver.memory": "1g",
        "spark.sql.shuffle.partitions": "2",
        "spark.local.dir": str(scratch / "local"),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.hadoop.fs.defaultFS": "file:///",  # HADOOP_CONF_DIR may name the cluster of tests/hadoop
        "spark.jars": ",".join(bigdl_jars()),
        "spark.python.daemon.module": "segpipe.trainers.forkserver",  # as spark-submit.sh has it for trainings
    }
    session = build("segpipe tests", master="local[2]", extra_conf=conf)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans; the test is skipped without it, but CI requires it."""
    folder = Path(os.environ.get("SEGPIPE_REAL_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        message = f"no real scans in {folder}: set SEGPIPE_REAL_DATA to the folder that holds brats2021/"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def real_gliomas(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the first two real gliomas: one takes seconds to go through the tables, and they are all alike."""
    folder = tmp_path_factory.mktemp("real")
    for scan in sorted((real_data / "brats2021").iterdir())[:2]:
        shutil.copytree(scan, folder / scan.name)
    return folder


@pytest.fixture(scope="session")
def glioma_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six tiny generated scans in BraTS layout, the same in every run."""
    from segpipe.readers.generate import write_brats

    folder = tmp_path_factory.mktemp("glioma")
    write_brats(folder, subjects=6, seed=0, shape=(12, 48, 40))
    return folder
