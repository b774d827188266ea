"""The tables of examples in docs/reference/archives.md say what the readers make of such archives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from segpipe.readers.archive import Listing
from segpipe.readers.sources import find

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "archives.md"
HEADING = "| why | name | subject | session | role |"
TOLD = "(told)"


class Example(NamedTuple):
    """An archive: why it is read so, and by file the subject, session and role, or what became of it."""

    why: str
    files: dict[str, tuple[str, str, str]]


def examples(page: str) -> Iterator[Example]:
    """The archives of all tables: a row with a reason begins one, those without belong to it."""
    found: list[Example] = []
    is_inside = False
    for line in page.splitlines():
        is_inside = line == HEADING or (is_inside and line.startswith("|"))
        if not is_inside or line == HEADING or line.startswith("|---"):
            continue
        why, name, *said = (cell.strip() for cell in line[1:-1].split("|"))
        if why:
            found.append(Example(why, {}))
        found[-1].files[f"{name.strip('`')}.nii.gz"] = (said[0], said[1], said[2])
    yield from found


def read(root: Path, example: Example) -> Listing:
    for path in example.files:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return find(str(root))


EXAMPLES = list(examples(PAGE.read_text("utf-8")))


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) > 80


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.why)
def test_an_archive_is_read_as_the_page_says(tmp_path: Path, example: Example) -> None:
    listing = read(tmp_path, example)
    found = dict.fromkeys(example.files, ("", "", "counted"))
    found |= {file.path: (scan.subject, scan.session, file.role) for scan in listing.scans for file in scan.files}
    found |= {path: ("", "", str(one.reason)) for one in listing.rejected for path in one.paths}
    assert found == example.files
    assert bool(listing.told) == (TOLD in example.why), listing.told
