"""`make docs` builds the pages as a site; a page that is in no menu or a link to nowhere is an error."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = "how-to/hospital"


def built(folder: Path) -> subprocess.CompletedProcess[str]:
    """What the command of `make docs` says in a folder."""
    found = re.search(r"(?m)^docs:.*\n\t@\$\(PYTHON\) (.+)$", (ROOT / "Makefile").read_text("utf-8"))
    assert found is not None
    command = [sys.executable, *shlex.split(found[1])]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.process
def test_the_site_has_all_pages_and_a_warning_is_an_error(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    done = built(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "build" / "site" / f"{PAGE}.html").is_file()
    menu = (tmp_path / "mkdocs.yml").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "mkdocs.yml").write_text("".join(line for line in menu if PAGE not in line), "utf-8")
    done = built(tmp_path)
    assert done.returncode == 1
    assert f"{PAGE}.md" in done.stderr
