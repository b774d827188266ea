"""README and docs name only commands, options and files that are there."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

import segpipe.settings
from segpipe.settings import flag_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")))
VALUED = (
    "--master", "--profile", "--queue", "--deploy-mode", "--conf", "--num-executors", "--executor-cores", "--principal",
    "--keytab",
)  # fmt: skip


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_name_jobs_and_options_that_exist(page: Path) -> None:
    lines = re.findall(r"(?m)^    (\./spark-submit\.sh .*)$", page.read_text("utf-8"))
    for line in lines:
        job, options = job_and_options(shlex.split(line, comments=True)[1:])
        assert (ROOT / "jobs" / f"{job}.py").is_file(), line
        settings = getattr(segpipe.settings, f"{job.capitalize()}Settings", None)
        known = {flag_of(field) for field in fields(settings)} if settings else set()
        assert {option for option in options if option.startswith("--")} <= known, line


def job_and_options(words: list[str]) -> tuple[str, list[str]]:
    """The job of a command line and what follows it; options of spark-submit come before and take a value."""
    while words[0].startswith("-"):
        assert words[0] in VALUED, words[0]
        words = words[2:]
    return words[0], words[1:]


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+)(?:%|):", (ROOT / "Makefile").read_text("utf-8")))
    named = set(
        re.findall(r"(?:^    |`)make ([a-z-]+?)(?:NAME)?(?=\s|`|$)", (ROOT / "README.md").read_text("utf-8"), re.M)
    )
    assert {"demo", "test"} <= named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_no_path_of_a_machine(page: Path) -> None:
    assert not re.findall(r"(?<![\w./])/(?:root|home|tmp|work)/", page.read_text("utf-8"))
