"""What this machine lacks to run segpipe, each fault with its remedy."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from segpipe.doctor.finding import Finding
from segpipe.doctor.network import listeners
from segpipe.errors import SegpipeError
from segpipe.launch import interpreter
from segpipe.launch.project import FROM_WHEEL, ROOT
from segpipe.models import TENSORFLOW_ENVIRONMENT
from segpipe.settings import TrainSettings

GB = 1 << 30
SETUP = "run `make setup` in a checkout, which pip cannot do" if FROM_WHEEL else "run `make setup`"

LOCK_FILES = ("requirements.lock", "requirements-data.lock", "requirements-horovod.lock")

LEAST_MEMORY_GB = 4
LEAST_DISK_GB = 2
LEAST_CORES = 2


def examine(
    timeout_seconds: float = 90.0,
    conf: Mapping[str, str] | None = None,
    workers: int | None = None,
    ports: str = TrainSettings.ports,
) -> Iterator[Finding]:
    """All checks, in the order of the table. The slow ones (Spark, imports) run beside each other in processes.

    `conf` is what spark-submit was told; where that is YARN, the cluster is examined, also for a training of `workers`,
    and instead of starting a Spark of its own. `ports` are those that `train` would take.
    """
    conf = conf or {}
    on_yarn = conf.get("spark.master") == "yarn"
    with ThreadPoolExecutor(2) as pool:
        imports = pool.submit(_probe_imports, timeout_seconds)
        spark = pool.submit(_probe_yarn, conf, workers) if on_yarn else pool.submit(_probe_spark, timeout_seconds)
        yield python()
        yield java()
        yield from compiler()
        yield from packages()
        yield cores()
        yield memory()
        yield from disk()
        yield from listeners(conf, ports)
        yield from spark.result()
        yield from imports.result()


def python() -> Finding:
    """The interpreter is a Python 3.11; what pip installs needs that for training alone."""
    found = f"{platform.python_version()} in {sys.prefix}"
    if platform.python_version_tuple()[:2] == ("3", "11"):
        return Finding("Python", "ok", found)
    if FROM_WHEEL:
        remedy = "to train, install segpipe[train] into an environment of Python 3.11"
        return Finding("Python", "note", f"{found}, not 3.11, which training needs", remedy)
    return Finding("Python", "fault", f"{found}, not 3.11", f"{SETUP}, or set SEGPIPE_PYTHON to a Python 3.11")


def java() -> Finding:
    """There is a Java that Spark 3.5 runs on."""
    from segpipe.launch.java import embedded_home, java_home, version

    try:
        home = java_home()
    except SegpipeError as error:
        return Finding("Java", "fault", error.problem, error.remedy)
    embedded = " (embedded)" if home == embedded_home() else ""
    return Finding("Java", "ok", f"{version(home)} in {home}{embedded}")


def compiler() -> Iterator[Finding]:
    """What builds Horovod; a note only, since nothing else needs it."""
    for tool in ("g++", "make"):
        path = shutil.which(tool)
        if path is None:
            yield Finding(tool, "note", "not found, so Horovod cannot be built", f"apt install {tool}, then {SETUP}")
            continue
        lines = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20).stdout.splitlines()
        yield Finding(tool, "ok", lines[0] if lines else path)


def packages() -> Iterator[Finding]:
    """Every package of the lock files is installed in its version: one line a file, and one for each that is not.

    The wheel brings no lock files.
    """
    if FROM_WHEEL:
        detail = "installed by pip, perhaps in other versions than the tested ones"
        yield Finding("Packages", "note", detail, "`make setup` in a checkout installs the tested ones")
        return
    for lock in (ROOT / name for name in LOCK_FILES):
        if not lock.is_file():
            yield Finding(lock.name, "fault", "not found beside segpipe", "get the whole repository")
            continue
        optional = lock.name == "requirements-horovod.lock"
        found = [_package(name, wanted, optional) for name, wanted in locked(lock.read_text()).items()]
        bad = [one for one in found if one.state != "ok"]
        if len(bad) < len(found):
            yield Finding(lock.name, "ok", f"{len(found) - len(bad)} of {len(found)} packages are there as pinned")
        yield from bad


def locked(text: str) -> dict[str, str]:
    """Names and versions of a lock file.

    >>> locked("numpy==2.0.2 \\\\\\n    --hash=sha256:00\\n")
    {'numpy': '2.0.2'}
    """
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE))


def _package(name: str, wanted: str, optional: bool) -> Finding:
    absent = "note" if optional else "fault"
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, absent, f"not installed, {wanted} is needed", SETUP)
    if found != wanted:
        return Finding(name, "fault", f"{found}, {wanted} is needed", f"{SETUP}: it restores the locked version")
    return Finding(name, "ok", found)


def cores() -> Finding:
    """Enough cores for two training workers."""
    count = len(os.sched_getaffinity(0))
    if count >= LEAST_CORES:
        return Finding("Cores", "ok", str(count))
    return Finding("Cores", "note", f"{count}, two workers need {LEAST_CORES}", "train with --trainer local")


def memory() -> Finding:
    """Enough memory for a driver and two workers."""
    total = memory_bytes() / GB
    if total >= LEAST_MEMORY_GB:
        return Finding("Memory", "ok", f"{total:.1f} GB")
    remedy = "use another machine, or --master 'local[1]' and --batch-size 4"
    return Finding("Memory", "fault", f"{total:.1f} GB, at least {LEAST_MEMORY_GB} GB are needed", remedy)


def memory_bytes() -> int:
    """Memory that this process may use: that of the machine or of its control group."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            total = min(total, int(text))
    return total


def disk() -> Iterator[Finding]:
    """Room where jobs write by default: the current folder and Spark's scratch folder."""
    scratch = Path(os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).split(",")[0])
    for label, folder, remedy in (
        ("Disk, here", Path.cwd(), "work in a folder on a larger disk"),
        ("Disk, scratch", scratch, "set SPARK_LOCAL_DIRS to a folder on a larger disk"),
    ):
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            yield Finding(label, "fault", f"{folder} cannot be written", remedy)
            continue
        free = shutil.disk_usage(folder).free / GB
        if free >= LEAST_DISK_GB:
            yield Finding(label, "ok", f"{free:.0f} GB free in {folder}")
        else:
            yield Finding(label, "fault", f"{free:.1f} GB free in {folder}, {LEAST_DISK_GB} GB are needed", remedy)


# ---- probes in processes of their own: a crash or a hang there is a finding

_SPARK_PROBE = """
import os
from segpipe.launch.session import build
spark = build("segpipe doctor", master=os.environ.get("SEGPIPE_MASTER") or None)
print("Spark session|ok|Spark", spark.version, "on", spark.sparkContext.master, flush=True)

def look(_):
    import platform, pyarrow, segpipe
    return f"Python {platform.python_version()}, segpipe {segpipe.__version__}, pyarrow {pyarrow.__version__}"

print("Python worker|ok|" + spark.sparkContext.parallelize([0], 1).map(look).collect()[0], flush=True)
spark.stop()
"""

_IMPORT_PROBE = """
import importlib, time
for name, module in (
    ("TensorFlow", "tensorflow"),
    ("Keras", "tf_keras"),
    ("Orca", "bigdl.orca.learn.tf2"),
    ("OpenVINO", "openvino"),
    ("Horovod", "horovod.tensorflow"),
    ("Horovod on Spark", "horovod.runner.gloo_run"),
):
    start = time.perf_counter()
    try:
        found = importlib.import_module(module)
        seconds = time.perf_counter() - start
        print(f"{name}|ok|{module} imported in {seconds:.1f} s", flush=True)
    except Exception as error:
        print(f"{name}|bad|{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", flush=True)
"""

_BUILT = f"{SETUP}; it needs g++ and make, and the other trainers work without Horovod"


def _brought_by(extra: str) -> str:
    """What installs the packages of an extra: pip where it has installed the wheel, set-up in a checkout."""
    return f"pip install 'segpipe[{extra}]'" if FROM_WHEEL else SETUP


def _spark_rows() -> dict[str, str]:
    """What is looked at in a Spark session, and the remedies."""
    return {
        "Spark session": _brought_by("spark"),
        "Python worker": "see the message; SEGPIPE_PYTHON must run on every node",
    }


def _import_rows() -> dict[str, str]:
    """What is imported, and the remedies."""
    return {
        "TensorFlow": _brought_by("train"),
        "Keras": _brought_by("train"),
        "Orca": SETUP,
        "OpenVINO": _brought_by("openvino"),
        "Horovod": _BUILT,
        "Horovod on Spark": _BUILT,
    }


def _is_optional(name: str) -> bool:
    """Whether it is no fault that something is missing: whoever installs the wheel chooses the extras."""
    return name.startswith("Horovod") or (FROM_WHEEL and name in _import_rows())


def _probe_spark(timeout_seconds: float) -> list[Finding]:
    return _probe(_SPARK_PROBE, _spark_rows(), timeout_seconds)


def _probe_yarn(conf: Mapping[str, str], workers: int | None) -> list[Finding]:
    from segpipe.doctor import cluster

    return list(cluster.examine(conf, workers))


def _probe_imports(timeout_seconds: float) -> list[Finding]:
    return _probe(_IMPORT_PROBE, _import_rows(), timeout_seconds)


def _probe(code: str, rows: dict[str, str], timeout_seconds: float) -> list[Finding]:
    """Run `code`, which prints `row|ok or bad|detail` lines; a row without a line is a fault with the last error."""
    environment = interpreter.environment({**TENSORFLOW_ENVIRONMENT, "TF_CPP_MIN_LOG_LEVEL": "2"})
    command = interpreter.command("-c", code)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_seconds, env=environment, check=False
        )
        said, last = done.stdout, _last_line(done.stderr) or f"ended with exit code {done.returncode}"
    except subprocess.TimeoutExpired as expired:
        said = expired.stdout.decode() if isinstance(expired.stdout, bytes) else expired.stdout or ""
        last = f"did not answer in {timeout_seconds:.0f} s"
    found = {name: (state, detail) for name, state, detail in _answers(said) if name in rows}
    findings = []
    for name, remedy in rows.items():
        state, detail = found.get(name, ("bad", last))
        bad = "note" if _is_optional(name) else "fault"
        findings.append(Finding(name, "ok", detail) if state == "ok" else Finding(name, bad, detail, remedy))
    return findings


def _answers(said: str) -> Iterator[tuple[str, str, str]]:
    for line in said.splitlines():
        if line.count("|") >= 2:
            name, state, detail = line.split("|", 2)
            yield name, state, detail


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("segpipe.errors.") if lines else ""


def table(findings: list[Finding]) -> str:
    """Findings as aligned lines, the remedy below each one that is not ok."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:5}  {finding.check:{width}}  {finding.detail}")
        if finding.remedy:
            lines.append(f"{'':5}  {'':{width}}  → {finding.remedy}")
    return "\n".join(lines)


def diagnose(
    say: Callable[[str], None],
    conf: Mapping[str, str] | None = None,
    workers: int | None = None,
    ports: str = TrainSettings.ports,
) -> int:
    """Print the table and a closing line; gives the number of faults. See `examine`."""
    findings = list(examine(conf=conf, workers=workers, ports=ports))
    say(table(findings))
    faults = sum(finding.state == "fault" for finding in findings)
    notes = sum(finding.state == "note" for finding in findings)
    say(f"{len(findings)} checks: {faults} faults, {notes} notes" + (" – segpipe can run here" if not faults else ""))
    return faults
