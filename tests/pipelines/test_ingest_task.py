"""What one Spark task does when its worker dies under it, run without Spark: processes that are really killed."""

import os
import resource
import shutil
import signal
from dataclasses import replace

import pytest

from segpipe.core.splits import SplitRule
from segpipe.errors import BadInput
from segpipe.pipelines import baselines, ingest_task
from segpipe.pipelines.attempts import DEADLY, Watch
from segpipe.pipelines.ingest_task import IngestJob, PartTask, write_part
from segpipe.readers import sources
from segpipe.readers.archive import Earlier, ScanSource
from segpipe.settings import IngestSettings
from segpipe.storage.lock import lock
from segpipe.warehouse.store import Store
from tests.pipelines.examples import COHORT, archive, tables

DEADLY_SUBJECT = "Synthetic_00_001"


@pytest.fixture
def task(tmp_path) -> PartTask:
    source = archive(tmp_path / "source", subjects=3)
    return PartTask("c.part", tuple(sources.find(str(source)).scans))


@pytest.fixture
def job(tmp_path):
    settings = IngestSettings(source=str(tmp_path / "source"), warehouse=str(tmp_path / "w"), cohort=COHORT)
    with lock(settings.warehouse, "slices-c", 0, "r1") as fence:
        yield IngestJob(settings, SplitRule("segpipe", 0.7, 0.15), fence)


def dies_of(task: PartTask, job: IngestJob, subject: str) -> bool:
    """Run the task in a forked process that dies when it begins to read the scan of a subject; whether it died."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    read = ingest_task.scan_reader.load

    def load(source_url, scan_source, *arguments):
        if scan_source.subject == subject:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(source_url, scan_source, *arguments)

    try:
        ingest_task.scan_reader.load = load
        write_part(task, job)
    except BaseException:
        os._exit(1)
    os._exit(0)


@pytest.mark.process
def test_a_scan_that_kills_its_workers_is_quarantined_and_the_others_are_written(task, job, tmp_path):
    assert [dies_of(task, job, DEADLY_SUBJECT) for _ in range(DEADLY)] == [True] * DEADLY
    outcome = write_part(task, job)
    assert list(outcome.written) == ["c:Synthetic_00_000:1", "c:Synthetic_00_002:1"]
    assert list(outcome.quarantined) == [f"c:{DEADLY_SUBJECT}:1"]
    (row,) = tables(tmp_path / "w")["quarantine"]
    assert (row["reason"], row["scan_id"]) == ("crashed", f"c:{DEADLY_SUBJECT}:1")
    assert f"killed {DEADLY} workers" in row["message"]


@pytest.fixture
def follower(task, job) -> tuple[PartTask, IngestJob, ScanSource]:
    """A visit, too small to be prepared, that follows the deadly scan, which is in another part."""
    baseline, visit = task.sources[1], task.sources[2]
    earlier = Earlier(job.scan_id(baseline), "1", "print", source=baseline)
    return (
        replace(task, sources=(replace(visit, earlier=(earlier,)),)),
        replace(job, settings=replace(job.settings, prepare=True)),
        baseline,
    )


@pytest.mark.process
def test_a_baseline_that_kills_workers_is_given_up_and_not_the_visit_that_follows_it(follower, tmp_path):
    part, job, _ = follower
    assert [dies_of(part, job, DEADLY_SUBJECT) for _ in range(DEADLY)] == [True] * DEADLY
    assert not dies_of(part, job, DEADLY_SUBJECT)
    (row,) = tables(tmp_path / "w")["quarantine"]
    assert (row["reason"], row["scan_id"]) == ("unpreparable", "c:Synthetic_00_002:1")


@pytest.mark.process
def test_a_visit_that_kills_workers_after_its_baseline_is_itself_to_blame(job, tmp_path):
    warehouse = Store(job.settings.warehouse)

    def dies() -> bool:
        child = os.fork()
        if child:
            return os.WIFSIGNALED(os.waitpid(child, 0)[1])
        with Watch(warehouse, "r1") as watch:
            watch.enter("c:p:2")
            with watch.aside("c:p:1"):
                pass
            os.kill(os.getpid(), signal.SIGKILL)

    assert [dies() for _ in range(DEADLY)] == [True] * DEADLY
    with Watch(warehouse, "r1") as watch:
        watch.enter("c:p:1")
        with pytest.raises(BadInput, match=f"c:p:2 killed {DEADLY} workers"):
            watch.enter("c:p:2")


def test_a_visit_waits_a_run_for_a_baseline_that_cannot_be_read(follower, tmp_path, monkeypatch):
    part, job, baseline = follower
    for file in baseline.files:
        (tmp_path / "source" / file.path).unlink()
    write_part(part, job)
    (row,) = tables(tmp_path / "w")["quarantine"]
    assert (row["reason"], row["scan_id"]) == ("unreadable", "c:Synthetic_00_002:1")
    assert f"{DEADLY_SUBJECT}:1, which this scan is to follow, is not to be had" in row["message"]
    found = []
    first = baselines.first
    monkeypatch.setattr(baselines, "first", lambda *arguments: found.append(first(*arguments)))
    write_part(replace(part, reported=frozenset({row["fingerprint"]})), job)  # as the next run plans it
    assert found == [None]


@pytest.mark.process
def test_one_death_is_forgiven(task, job):
    assert dies_of(task, job, DEADLY_SUBJECT)
    assert len(write_part(task, job).written) == 3


def test_a_file_that_vanished_after_the_listing_is_quarantined(task, job, tmp_path):
    next((tmp_path / "source" / DEADLY_SUBJECT).glob("*_t1.nii.gz")).unlink()
    assert len(write_part(task, job).written) == 2
    (row,) = tables(tmp_path / "w")["quarantine"]
    assert (row["reason"], row["scan_id"]) == ("unreadable", f"c:{DEADLY_SUBJECT}:1")


def test_a_source_that_vanished_stops_the_run_and_blames_no_scan(task, job, tmp_path):
    shutil.rmtree(tmp_path / "source")
    with pytest.raises(FileNotFoundError, match="source"):
        write_part(task, job)
    assert not Store(str(tmp_path / "w")).parts("quarantine")
    assert not Store(str(tmp_path / "w")).parts("scans")


def test_an_attempt_after_a_commit_reads_nothing(task, job, monkeypatch):
    first = write_part(task, job)
    monkeypatch.setattr(ingest_task, "load", lambda source, job: pytest.fail("a finished scan was read again"))
    assert write_part(task, job).written == first.written


@pytest.mark.process
def test_memory_does_not_grow_with_the_number_of_scans(tmp_path, job):
    source = archive(tmp_path / "source", subjects=2, shape=(32, 128, 128))
    two = sources.find(str(source)).scans

    def peak(count: int) -> int:
        many = PartTask(f"c.{count}", tuple(two[number % 2] for number in range(count)))
        child = os.fork()
        if child:
            _, status, usage = os.wait4(child, 0)
            assert status == 0
            return usage.ru_maxrss
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            write_part(many, job)
        except BaseException:
            os._exit(1)
        os._exit(0)

    peak(2)
    few, many = peak(10), peak(100)
    assert many <= 1.2 * few


def test_a_bad_copy_takes_nothing_from_a_stored_scan(job, tmp_path):
    source = archive(tmp_path / "source", subjects=1)
    (folder,) = source.iterdir()
    extra = folder / f"{folder.name}_adc.nii.gz"
    extra.write_bytes(b"")

    def written(run: str, replaces: str | None) -> tuple[bool, list[str]]:
        task = PartTask(f"c.{run}", tuple(sources.find(str(source)).scans), replaces)
        with lock(job.settings.warehouse, "slices-d", 0, run) as fence:
            outcome = write_part(task, replace(job, fence=fence))
        (row,) = tables(tmp_path / "w")["scans"]
        return bool(outcome.written), list(row["modalities"])

    assert written("r1", None) == (True, ["FLAIR", "T1", "T1ce", "T2"])
    shutil.copyfile(folder / f"{folder.name}_t2.nii.gz", folder / f"{folder.name}_swi.nii.gz")
    assert written("r2", "c.r1") == (True, ["FLAIR", "T1", "T1ce", "T2", "SWI"])
    (folder / f"{folder.name}_t1.nii.gz").write_bytes(b"")
    assert written("r3", "c.r2") == (False, ["FLAIR", "T1", "T1ce", "T2", "SWI"])
