"""Environments of Python that a test makes for itself; where no package index answers, the test is skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def environment_of(base: str, folder: Path, *words: str) -> Path:
    """The bin folder of an environment of the Python `base` with what `pip install WORDS` brings, and nothing else."""
    subprocess.run([base, "-m", "venv", "--without-pip", str(folder)], check=True)
    inside = ("--python", str(folder / "bin" / "python"))
    pip(*inside, "install", "--no-compile", *words)  # few modules of many are imported
    return folder / "bin"


def pip(*words: str) -> None:
    """Run pip; one that finds no package index skips the test."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if "No matching distribution" in done.stderr or "Temporary failure in name resolution" in done.stderr:
        pytest.skip(f"the package index has nothing to give: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr


def clean() -> dict[str, str]:
    """The environment variables without those that would lend a Python the packages of the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SEGPIPE"))}
