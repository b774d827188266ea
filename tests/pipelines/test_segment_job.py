"""Which scans a model takes."""

from __future__ import annotations

from typing import cast

import pytest

from segpipe.core.prediction import AS_INGESTED
from segpipe.errors import BadInput
from segpipe.pipelines.segment_job import StoredJob
from segpipe.prepare.atlas import SPACE
from segpipe.storage.lock import Fence

RAW, PREPARED = None, SPACE


@pytest.mark.parametrize(
    ("model", "scan", "prepares", "told"),
    [
        (AS_INGESTED, RAW, False, None),
        (AS_INGESTED, RAW, True, "--prepare needs prepared scans"),
        (AS_INGESTED, PREPARED, False, "is brain-1mm, but model m was trained on as ingested: add --prepare"),
        (AS_INGESTED, PREPARED, True, None),
        (SPACE, RAW, False, "is as ingested, but model m was trained on brain-1mm: segment its archive with --source"),
        (SPACE, RAW, True, "--prepare needs prepared scans"),
        (SPACE, PREPARED, False, None),
        (SPACE, PREPARED, True, None),
    ],
)
def test_space_of_model_and_scan_must_match_unless_it_is_said(
    model: str, scan: str | None, prepares: bool, told: str | None
) -> None:
    fence = cast(Fence, None)  # nothing is written
    job = StoredJob("w", "c", "m", ("T1",), "SPL", "brats", fence, space=model, prepares=prepares)
    if told is None:
        job.fit("c:p:1", ["T1", "T2"], "SPL", scan)
    else:
        with pytest.raises(BadInput, match=told):
            job.fit("c:p:1", ["T1", "T2"], "SPL", scan)
