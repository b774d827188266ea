"""What earlier runs have rejected, as the next one asks for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from segpipe.errors import Reason
from segpipe.pipelines import quarantine
from segpipe.readers.archive import Entry, Rejected
from segpipe.readers.dicom_index import Series
from segpipe.storage.lock import lock
from segpipe.warehouse.store import Store


def series(name: str) -> Series:
    return cast(Series, SimpleNamespace(entries=lambda: [Entry(f"{name}/1", 10, "t"), Entry(f"{name}/2", 10, "t")]))


@pytest.mark.process  # a lock asks the machine for its name
def test_another_series_may_take_the_place_of_one_that_cannot_be_used_or_prepared(tmp_path: Path) -> None:
    warehouse = Store(str(tmp_path))
    reasons = (Reason.CORRUPT, Reason.UNPREPARABLE, Reason.BAD_PREPARATION, Reason.NO_BRAIN, Reason.UNREADABLE)
    with lock(warehouse.url, "slices-c", 5, "r1") as fence:
        rows = [quarantine.row("ingest", "r1", "c", None, [], reason, "", f"print of {reason}/1") for reason in reasons]
        quarantine.write(warehouse, fence, "r1", rows)

    def fingerprint(one: Rejected) -> str:
        return f"print of {one.paths[0]}"

    unusable = quarantine.unusable(warehouse, "c", {"ingest": fingerprint})
    found = {name: unusable(series(str(name))) for name in (*reasons, "another")}
    assert found == {name: name not in (Reason.UNREADABLE, "another") for name in found}
