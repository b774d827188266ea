"""Visits of a patient, whenever they come, lie on one baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from segpipe.core.splits import SplitRule
from segpipe.errors import BadInput, Reason, TableError
from segpipe.pipelines import baselines
from segpipe.pipelines.attempts import RETRIED
from segpipe.pipelines.baselines import _Patient, _Visit, with_earlier_visits
from segpipe.pipelines.ingest_task import IngestJob, PartTask, load, write_part
from segpipe.pipelines.restore import restore
from segpipe.prepare import atlas
from segpipe.prepare.register import moved_mm
from segpipe.prepare.scan import Baseline
from segpipe.readers import sources
from segpipe.readers.archive import Earlier, ScanSource, SourceFile
from segpipe.readers.scan import LoadedScan
from segpipe.settings import IngestSettings, RestoreSettings
from segpipe.storage.lock import lock
from segpipe.warehouse.scan_slices import read_channel, scan_rows
from segpipe.warehouse.store import Store
from tests.pipelines.visits import VISITS, write_visit
from tests.warehouse.examples import images
from tests.warehouse.examples import write_part as write_rows


def patient(sessions: dict[str, str], stays: list[_Visit]) -> _Patient:
    """A patient with these sessions, and their fingerprints, in the archive."""
    found = {name: ScanSource("p", name, (), "manifest") for name in sessions}
    ordered = sorted(stays, key=lambda visit: (visit.follows is not None, visit.part is None, visit.session))
    return _Patient({name: f"c:p:{name}" for name in sessions}, found, sessions, ordered)


def stored(session: str, follows: tuple[str, str] | None = None, part: str | None = "part", print_: str = "") -> _Visit:
    return _Visit(f"c:p:{session}", session, print_ or f"print of {session}", follows, part)


def wanted(of: _Patient, session: str) -> list[tuple[str, str]]:
    """The visits that a session may follow, and where each is had from."""
    return [
        (one.session, "table" if one.part else "files")
        for one in of.earlier(of.sources.get(session, ScanSource("p", session, (), "manifest")))
    ]


ONE_TWO_THREE = {name: f"print of {name}" for name in "123"}
FOLLOWS_1 = ("1", "print of 1")


def test_in_a_new_archive_the_first_visit_is_the_baseline() -> None:
    of = patient(ONE_TWO_THREE, [])
    assert [wanted(of, session) for session in "123"] == [[], [("1", "files")], [("1", "files"), ("2", "files")]]


def test_a_baseline_on_record_stays_the_baseline_of_visits_before_it() -> None:
    of = patient(ONE_TWO_THREE, [stored("2")])
    assert wanted(of, "1") == [("2", "table")]
    assert wanted(of, "2") == []
    assert wanted(of, "3")[0] == ("2", "table")


def test_a_killed_run_goes_on_to_the_same_end() -> None:
    of = patient(ONE_TWO_THREE, [stored("2", FOLLOWS_1)])  # the second was committed, then came the kill
    assert wanted(of, "1") == []
    assert wanted(of, "3") == [("1", "files"), ("2", "table")]
    assert not of.baseline_changed


def test_a_changed_baseline_is_laid_onto_what_follows_it() -> None:
    of = patient(ONE_TWO_THREE | {"1": "another"}, [stored("2", FOLLOWS_1)])
    assert wanted(of, "1") == [("2", "table")]
    assert of.baseline_changed


def test_a_baseline_that_has_gone_is_replaced_by_what_follows_it() -> None:
    of = patient({"3": "print of 3"}, [stored("2", FOLLOWS_1)])
    assert wanted(of, "3") == [("2", "table")]
    assert wanted(patient({"2": "print of 2"}, [stored("2", FOLLOWS_1)]), "2") == [("2", "table")]


def test_a_visit_of_which_only_predictions_are_kept_is_prepared_again() -> None:
    assert wanted(patient(ONE_TWO_THREE, [stored("1", part=None)]), "2") == [("1", "files")]
    assert wanted(patient({"2": "print of 2"}, [stored("1", part=None)]), "2") == []  # its files are gone


def test_what_stands_in_the_tables_is_known_with_what_it_follows(tmp_path: Path) -> None:
    warehouse = Store(str(tmp_path))
    follows = {"session": "0", "fingerprint": "print of 0"}
    write_rows(warehouse, "part", ["p"], follows=follows, space="brain-1mm")
    write_rows(warehouse, "other", ["q"])
    assert baselines._recorded(warehouse, "c") == {
        "p": [_Visit("c:p:1", "1", "print of p", ("0", "print of 0"), "part")]
    }
    (row,) = scan_rows(warehouse, "part", ["c:p:1"]).values()
    rng = np.random.default_rng(list(b"p r1"))
    for modality, image in zip(row["modalities"], images(rng), strict=True):
        np.testing.assert_array_equal(read_channel(warehouse, "part", row, modality), image)


class Counted(list[_Visit]):
    """Counts how often it is gone through."""

    passes = 0

    def __iter__(self) -> Iterator[_Visit]:
        self.passes += 1
        return super().__iter__()


def test_visits_on_record_are_not_gone_through_for_each_that_a_scan_may_follow() -> None:
    stays = Counted([stored(f"{number:03}", ("x", "gone")) for number in range(200)])
    new = {f"{number:03}": f"print of {number:03}" for number in range(300)}
    of = replace(patient(new, []), stays=stays)
    assert wanted(of, "250") == [(f"{number:03}", "table") for number in range(4)]
    stays.passes = 0
    for session in new:
        of.earlier(of.sources[session])
    assert stays.passes <= len(new)


# A visit that cannot be had


def from_files(session: str) -> Earlier:
    files = (SourceFile("T1", f"{session}.nii.gz", 1, ""),)
    return Earlier(f"c:p:{session}", session, f"print of {session}", source=ScanSource("p", session, files, "manifest"))


def reader(**faults: Reason) -> Callable[[ScanSource], LoadedScan]:
    """Reads visits as if they were prepared already, or finds these faults in them, by session."""

    def read(source: ScanSource) -> LoadedScan:
        if source.session in faults:
            raise BadInput(faults[source.session], f"Scan {source.session} is bad", "mend it")
        image = np.zeros(atlas.grid().shape, np.float32)
        image[60:120, 60:120, 60:120] = 1
        how = {"how": "prepared", "reference": "T1"}
        return cast(
            LoadedScan,
            SimpleNamespace(preparation=how, images={"T1": image}, orientation="RAS", slopes={"T1": (1.0, 0.0)}),
        )

    return read


@pytest.mark.parametrize("reason", RETRIED)
def test_a_fault_that_may_pass_is_waited_for_once(tmp_path: Path, reason: Reason) -> None:
    warehouse, visits, read = Store(str(tmp_path)), [from_files("v1"), from_files("v2")], reader(v1=reason)
    with pytest.raises(BadInput, match=r"c:p:v1, which this scan is to follow, .* Scan v1 is bad: mend it") as told:
        baselines.first(warehouse, visits, read)
    assert told.value.reason in RETRIED
    found = baselines.first(warehouse, visits, read, waited=True)
    assert found is not None
    assert found.session == "v2"


def test_a_visit_that_cannot_be_prepared_is_not_waited_for(tmp_path: Path) -> None:
    visits = [from_files("v1"), from_files("v2")]
    found = baselines.first(Store(str(tmp_path)), visits, reader(v1=Reason.BAD_PREPARATION))
    assert found is not None
    assert found.session == "v2"


def test_a_damaged_part_of_the_tables_blames_no_visit_for_good(tmp_path: Path) -> None:
    warehouse = Store(str(tmp_path))
    write_rows(warehouse, "part", ["p"], space="brain-1mm")
    (tmp_path / "scans" / "part.parquet").write_bytes(b"damaged")
    earlier = Earlier("c:p:1", "1", "print of p", part="part")
    for waited in (False, True):
        with pytest.raises(BadInput, match=r"part.parquet is damaged .*run `verify`") as told:
            baselines.first(warehouse, [earlier], reader(), waited=waited)
        assert told.value.reason in RETRIED


# Real arrays


def write_head(folder: Path, session: str) -> Path:
    """The head of the atlas at a visit, with a fluid of its own."""
    head = atlas.head()
    values = head.values.copy()
    if session == "2":
        values[head.brain] = 40 + 700 / np.sqrt(values[head.brain].clip(20))
    return write_visit(folder, session, "T1w", values)


def matrix(row: dict) -> np.ndarray:
    """Points of the space to points of the file."""
    return np.reshape(row["transforms"][0]["matrix"], (4, 4))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)  # three scans are prepared
@pytest.mark.process
def test_a_follow_up_lies_on_its_baseline_wherever_that_is_read_from(tmp_path: Path) -> None:
    write_head(tmp_path / "archive", "1")
    write_head(tmp_path / "archive", "2")
    settings = IngestSettings(
        source=str(tmp_path / "archive"), warehouse=str(tmp_path / "w"), cohort="c", prepare=True, layout="bids"
    )
    warehouse = Store(settings.warehouse)
    listing = sources.find(settings.source)
    with lock(warehouse.url, "slices-c", 5, "r1") as fence:
        job = IngestJob(settings, SplitRule("segpipe", 0.7, 0.15), fence)

        def baseline(of: ScanSource) -> Baseline:
            baselines._kept.clear()  # as in another process
            found = baselines.first(warehouse, of.earlier, lambda other: load(other, job))
            assert found is not None
            return found

        first, second = with_earlier_visits(warehouse, job, listing).scans
        assert (first.earlier, [one.scan_id for one in second.earlier]) == ((), [job.scan_id(first)])
        from_files = baseline(second)
        gone = Earlier(job.scan_id(first), "0", "of files that are gone")
        write_part(PartTask("part", (replace(first, earlier=(gone,)),)), job)
        first, second = with_earlier_visits(warehouse, job, listing).scans
        assert [one.part for one in second.earlier] == ["part"]
        from_table = baseline(second)
        assert (from_files.session, from_files.fingerprint) == (first.session, job.fingerprint(first))
        assert (from_table.session, from_table.fingerprint) == (first.session, job.fingerprint(first))
        np.testing.assert_array_equal(from_files.head.values, from_table.head.values)
        np.testing.assert_array_equal(from_files.head.brain, from_table.head.brain)
        follower = load(second, job)
    assert follower.follows == {"session": first.session, "fingerprint": job.fingerprint(first)}
    assert follower.flags == []
    (row,) = warehouse.scans("c").to_pylist()
    assert (row["follows"], row["flags"]) == (None, ["baseline_missing"])
    truth = np.linalg.inv(VISITS["2"][0]) @ VISITS["1"][0]  # points of the first visit to points of the second
    here = atlas.head()

    def error_mm(found: dict) -> float:
        between = matrix(found) @ np.linalg.inv(matrix(row["preparation"]))
        there = np.linalg.inv(VISITS["1"][0])  # points of the atlas's own brain to points of the first visit
        return moved_mm(here, np.linalg.inv(truth @ there) @ between @ there)

    assert error_mm(follower.preparation) < 0.8
    with pytest.raises(TableError, match="was prepared: its slices hold resampled brains"):
        restore(RestoreSettings(warehouse=warehouse.url, scan=row["scan_id"], output=str(tmp_path / "restored")))
