"""The recipes of docs/contributing.md, followed in a copy of the project: two files each, and it works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "contributing.md").read_text("utf-8")
NAME = "novel"


def put(old: str, new: str) -> tuple[str, str]:
    """An edit: `new` behind the only place of `old`."""
    return old, old + new


JOB = '''"""A job of a newcomer."""

import sys

from segpipe.cli import DONE, Context, execute
from segpipe.settings import NovelSettings


def run(settings: NovelSettings, context: Context) -> int:
    context.say(f"greets {settings.whom}")
    return DONE


def main(argv: list[str] | None = None) -> int:
    return execute("novel", NovelSettings, run, argv)
'''
SETTINGS = '''@dataclass(frozen=True)
class NovelSettings:
    """A job of a newcomer."""

    whom: str = option("whom to greet", "all")


@dataclass(frozen=True)
class DoctorSettings'''
LAYOUT = """from segpipe.readers.layouts import plain


def claim(archive, entries, named):
    return plain.claim(archive, entries, named)
"""
RUNTIME = """def precision(bundle):
    return "float32"


def files(bundle, precision):
    return (), "export it"


def predictor(packed, threads):
    raise NotImplementedError
"""
RECIPES: dict[str, dict[str, str | tuple[str, str]]] = {
    "A layout of archives": {
        f"segpipe/readers/layouts/{NAME}.py": LAYOUT,
        "segpipe/registry.py": put("LAYOUTS = {\n", '    "novel": Layout("segpipe.readers.layouts.novel:claim"),\n'),
    },
    "A runtime": {
        f"segpipe/runtimes/{NAME}.py": RUNTIME,
        "segpipe/registry.py": put("RUNTIMES = {\n", '    "novel": "segpipe.runtimes.novel",\n'),
    },
    "A trainer": {
        f"segpipe/trainers/{NAME}.py": "def train(plan, spark=None):\n    return plan\n",
        "segpipe/registry.py": put("TRAINERS = {\n", '    "novel": Trainer("segpipe.trainers.novel", False),\n'),
    },
    "A column": {
        "segpipe/warehouse/tables.py": put(
            '    ("max_probability", _F64, True, "over the scan"),\n',
            '    ("novel_ml", _F64, True, "a newcomer\'s"),\n',
        ),
        "segpipe/pipelines/measures.py": put('            "region": region,\n', '            "novel_ml": brain_ml,\n'),
    },
    "A job": {
        f"jobs/{NAME}.py": JOB,
        "segpipe/settings.py": ("@dataclass(frozen=True)\nclass DoctorSettings", SETTINGS),
    },
}
CHECKS = {
    "A layout of archives": """
from segpipe.cli.options import parser_of
from segpipe.readers import sources
from segpipe.settings import IngestSettings
assert "novel" in parser_of("ingest", IngestSettings).format_help()
assert sources.LAYOUTS["novel"].__module__ == "segpipe.readers.layouts.novel"
assert sources.AUTO[0] == "novel"
""",
    "A runtime": """
from segpipe import registry
from segpipe.cli.options import parse
from segpipe.runtimes.contract import PredictorSpec
from segpipe.settings import SegmentSettings
chosen = parse("segment", SegmentSettings, "--warehouse w --cohort c --model m --runtime novel".split()).runtime
assert PredictorSpec("m", chosen).runtime == "novel"
assert registry.module(registry.RUNTIMES[chosen]).precision(None) == "float32"
""",
    "A trainer": """
from segpipe import registry
from segpipe.cli.options import parse
from segpipe.settings import TrainSettings
chosen = parse("train", TrainSettings, "--warehouse w --cohort c --model m --trainer novel".split()).trainer
assert registry.module(registry.TRAINERS[chosen].module).train("plan") == "plan"
""",
    "A column": """
import numpy as np
from segpipe.pipelines.measures import region_rows
from segpipe.warehouse.tables import SEGMENTATIONS
scan = dict(scan_id="c:s:1", cohort="c", subject="s", session="1", split="test", fingerprint="f", brain_voxels=8)
scan |= dict(affine=np.eye(4).ravel().tolist(), label_convention=None, modalities=["t1"], shape=[2, 2, 2])
(row, *_) = region_rows(scan, np.ones((2, 2, 2), np.uint8), "brats", None, {}, {})
assert row["novel_ml"] == 0.008
assert "novel_ml" in SEGMENTATIONS.schema.names
""",
    "A job": """
from segpipe.launch.command_line import help_text
from segpipe.launch.submit import run_here
assert "novel      A job of a newcomer." in help_text()
assert run_here("novel", ["--whom", "Ada"]) == 0
""",
}


def section(recipe: str) -> str:
    return PAGE.split(f"## {recipe}\n")[1].split("\n## ")[0]


def test_the_page_has_these_recipes_and_no_other() -> None:
    assert re.findall(r"^## (.+)$", PAGE, re.MULTILINE) == list(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_names_the_two_files_that_it_takes(recipe: str) -> None:
    assert len(RECIPES[recipe]) == 2
    for path in RECIPES[recipe]:
        assert f"`{path.replace(NAME, 'NAME')}`" in section(recipe)
    assert len(re.findall(r"^\d\. ", section(recipe), re.MULTILINE)) == 2


@pytest.mark.process
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_works(recipe: str, tmp_path: Path) -> None:
    for folder in ("segpipe", "jobs", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path, change in RECIPES[recipe].items():
        file = tmp_path / path
        if isinstance(change, str):
            assert not file.exists()
            file.write_text(change)
        else:
            text = file.read_text()
            assert text.count(change[0]) == 1
            file.write_text(text.replace(*change))
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("SEGPIPE_CONF", None)
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHECKS[recipe]], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
