"""What importing costs, and who may import whom."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"tensorflow", "keras", "tf_keras", "openvino", "pyspark", "bigdl", "horovod", "torch", "matplotlib"}

ROOMS = {
    "segpipe": HEAVY | {"pyarrow", "pandas", "nibabel", "fsspec", "scipy", "jinja2", "rich"},
    "segpipe.settings": HEAVY | {"numpy", "pyarrow", "pandas", "nibabel", "fsspec", "scipy"},
    "segpipe.core": HEAVY | {"pyarrow", "pandas", "nibabel", "fsspec", "scipy"},
    "segpipe.readers": HEAVY | {"pyarrow", "pandas"},
    "segpipe.warehouse": HEAVY | {"nibabel"},
    "segpipe.runtimes.contract": HEAVY | {"nibabel"},
    "segpipe.models.bundle": HEAVY | {"nibabel"},
    "segpipe.trainers": HEAVY | {"nibabel"},
    "segpipe.pipelines.progress": HEAVY,
    "segpipe.launch.session": HEAVY,
    "segpipe.analysis": HEAVY | {"nibabel", "scipy", "duckdb", "IPython", "ipyniivue"},
    "segpipe.report": HEAVY | {"nibabel", "scipy"},
    "jobs.ingest": HEAVY | {"numpy", "pyarrow", "nibabel"},
    "jobs.train": HEAVY | {"numpy", "pyarrow", "nibabel"},
    "jobs.segment": HEAVY | {"numpy", "pyarrow", "nibabel"},
    "jobs.report": HEAVY | {"numpy", "pyarrow", "nibabel"},
    "jobs.register": HEAVY | {"numpy", "pyarrow", "nibabel"},
    "jobs.doctor": HEAVY | {"numpy", "pyarrow", "nibabel"},
}


def fresh(code: str) -> str:
    """What `code` prints in a Python that has imported nothing yet."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_importing_a_room_loads_nothing_heavy(room: str) -> None:
    loaded = set(fresh(f"import {room}, sys; print(*{{name.split('.')[0] for name in sys.modules}})").split())
    assert not ROOMS[room] & loaded


@pytest.mark.parametrize("arguments", [["--help"], ["ingest", "--help"]], ids=" ".join)
def test_help_loads_nothing_that_it_does_not_show(arguments: list[str]) -> None:
    """What is imported before the text stands there is waited for at every `--help`."""
    code = f"""
import sys
from segpipe.launch.submit import main
try:
    main({arguments!r})
except SystemExit:
    pass
print(*{{name.split('.')[0] for name in sys.modules}})
"""
    *said, loaded = fresh(code).splitlines()
    assert any("usage" in line.lower() for line in said)
    assert not (HEAVY | {"fsspec", "pyarrow", "pandas", "numpy", "asyncio"}) & set(loaded.split())


def test_importing_segpipe_takes_under_a_fifth_of_a_second() -> None:
    code = "import time; t = time.process_time(); import segpipe; print(time.process_time() - t)"
    assert min(float(fresh(code)) for _ in range(3)) < 0.2


def test_the_import_rules_of_the_design_hold() -> None:
    code = "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
