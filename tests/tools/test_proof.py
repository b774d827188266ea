"""What the long tests have proved is on record, and counts until what they prove changes."""

import subprocess
from pathlib import Path

import pytest

from tools import proof

PASSED = '<testsuites><testsuite>{}<testcase classname="tests.core.test_a" name="b"/></testsuite></testsuites>'
LONG = '<testcase classname="tests.hadoop.test_kerberos" name="test_c">{}</testcase>'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one module that starts jobs and one long test."""
    for name, text in (
        ("segpipe/launch/submit.py", "a = 1"),
        ("segpipe/core/metrics.py", "b = 1"),
        ("jobs/register.py", "d = 1"),
        ("requirements.lock", "c==1"),
        ("tests/hadoop/test_kerberos.py", "pytestmark = pytest.mark.long"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run("git init -q && git add .", shell=True, check=True, cwd=tmp_path)
    monkeypatch.setattr(proof, "ROOT", tmp_path)
    monkeypatch.setattr(proof, "PROOF", tmp_path / "tests" / "proof.txt")
    return tmp_path


def write(project: Path, results: str) -> None:
    (project / "results.xml").write_text(results)
    assert proof.main(["write", str(project / "results.xml")]) == 0


@pytest.mark.process
@pytest.mark.parametrize("changed", ["segpipe/launch/submit.py", "jobs/register.py", "requirements.lock"])
def test_it_counts_until_what_is_proved_changes(project: Path, changed: str) -> None:
    assert proof.main(["check"]) == 1
    write(project, PASSED.format(LONG.format("")))
    assert proof.main(["check"]) == 0
    (project / "segpipe/core/metrics.py").write_text("b = 2")
    assert proof.main(["check"]) == 0
    (project / changed).write_text("else")
    assert proof.main(["check"]) == 1


@pytest.mark.process
@pytest.mark.parametrize(
    ("case", "said"),
    [
        (LONG.format("<skipped/>"), "tests.hadoop.test_kerberos::test_c was skipped"),
        (LONG.format("<failure/>"), "tests.hadoop.test_kerberos::test_c failed"),
        ("", "tests.hadoop.test_kerberos did not run"),
    ],
)
def test_a_run_that_proves_less_leaves_no_record(
    project: Path, case: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, PASSED.format(case))
    assert proof.main(["check"]) == 1
    assert said in capsys.readouterr().err
