"""A Python that segpipe starts runs no code of the current folder; not on Python 3.10 either, which has no option."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from segpipe.launch import interpreter

pytestmark = pytest.mark.process


@pytest.mark.parametrize("option", [["-P"], []], ids=["3.11", "3.10"])
@pytest.mark.parametrize("kind", ["-c", "-m"])
def test_code_of_the_current_folder_is_not_run(option: list[str], kind: str, tmp_path: Path) -> None:
    program = (
        "import json, sys\n\ndef name(): return __name__\n\nprint(json.dumps([json.__file__, name(), *sys.argv[1:]]))\n"
    )
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "json.py").write_text("raise SystemExit('code of the current folder')")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "told.py").write_text(program)
    words = [kind, program if kind == "-c" else "told", "first", "second"]
    command = [sys.executable, *option, *words] if option else [sys.executable, *interpreter.without_option(*words)]
    environment = {"PYTHONPATH": str(tmp_path / "there")}
    done = subprocess.run(command, cwd=tmp_path / "here", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [json.__file__, "__main__", "first", "second"]


def test_the_command_of_this_python_is_one_of_the_two() -> None:
    assert interpreter.command("-c", "1") == [sys.executable, "-P", "-c", "1"]
