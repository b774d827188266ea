"""What is refused before a worker starts, and that the message says what to type."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segpipe.errors import ModelError, NotFound, TableError, UsageError
from segpipe.trainers.cluster import await_slots, check_cluster, session_slots
from segpipe.trainers.plan import complete, make_plan
from segpipe.warehouse.tables import SCANS
from tests.trainers.conftest import with_column

Rows = list[dict[str, Any]]


@pytest.fixture
def edited(tables: str, tmp_path: Path) -> Callable[[Callable[[Rows], Rows]], str]:
    """A copy of the tables in which a function has changed the rows of `scans`."""

    def copy(change: Callable[[Rows], Rows]) -> str:
        target = tmp_path / "edited"
        shutil.copytree(tables, target)
        for path in (target / "scans").glob("*.parquet"):
            rows = change(pq.read_table(path, schema=SCANS.schema).to_pylist())
            pq.write_table(pa.Table.from_pylist(rows, SCANS.schema), path)
        return str(target)

    return copy


@pytest.mark.parametrize("workers", [5, 7])
def test_a_batch_that_cannot_be_shared(settings, workers: int):
    with pytest.raises(UsageError, match=f"--batch-size {12 // workers * workers}$"):
        make_plan(settings(trainer="orca", workers=workers))


def test_a_default_batch_of_patches_that_cannot_be_shared(settings):
    asked = settings(trainer="orca", workers=3, dimensions=3, batch_size=None)
    with pytest.raises(UsageError, match=r"A batch of 2 patches cannot .* use --batch-size 3$"):
        make_plan(asked)


@pytest.mark.parametrize("slices", [False, None])
def test_neighbours_of_a_network_that_sees_no_slices(settings, slices: bool | None):
    with pytest.raises(UsageError, match=r"--neighbours 2 is for networks of slices alone: leave it out, or use --sl"):
        make_plan(settings(dimensions=3, batch_size=None, neighbours=2, slices=slices))


def test_no_such_cohort(settings):
    with pytest.raises(NotFound, match="'other'"):
        make_plan(settings(cohort="other"))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split(settings, edited, split: str):
    url = edited(lambda rows: [row for row in rows if row["split"] != split])
    with pytest.raises(NotFound, match=f"{split} split: .*--{split}-fraction"):
        make_plan(settings(warehouse=url))


def test_scans_without_masks_leave_a_split_empty(settings, edited):
    url = edited(lambda rows: [row | {"label_counts": None} for row in rows])
    with pytest.raises(NotFound, match="train split"):
        make_plan(settings(warehouse=url))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("modalities", ["flair", "t1", "t1ce"], r"differ in modalities: .* has flair\+t1\+t1ce"),
        ("orientation", "PIL", "differ in orientation"),
        ("label_convention", "decathlon", "differ in label_convention"),
    ],
)
def test_scans_that_do_not_go_together(settings, edited, name: str, value: Any, message: str):
    def change(rows: Rows) -> Rows:
        return [row | {name: value} if row["scan_id"].endswith("000:1") else row for row in rows]

    with pytest.raises(TableError, match=message):
        make_plan(settings(warehouse=edited(change)))


def test_a_scan_that_lacks_a_modality_is_left_out():
    """A damaged file drops out of its scan alone; tests/docs/test_pages.py trains on such a cohort."""
    whole, less, other = ["FLAIR", "T1", "T2"], ["FLAIR", "T2"], ["FLAIR", "PD", "T2"]
    rows = [{"scan_id": str(number), "modalities": whole} for number in range(3)]
    assert complete([*rows, {"scan_id": "x", "modalities": less}]) == (rows, ("x",))
    odd = [*rows, {"scan_id": "x", "modalities": other}]
    assert complete(odd) == (odd, ())  # refused afterwards: nothing is missing there
    halves = [*rows[:2], *({"scan_id": name, "modalities": less} for name in "xy")]
    assert complete(halves) == (halves, ())
    assert complete([]) == ([], ())


def test_a_subject_in_two_splits(settings, edited):
    def change(rows: Rows) -> Rows:
        return [row | {"split": "validation"} if row["scan_id"].endswith("000:1") else row for row in rows]

    with pytest.raises(TableError, match="cannot be trusted"):
        make_plan(settings(warehouse=edited(change)))


def test_a_model_without_checkpoints(settings, tmp_path: Path):
    from segpipe.trainers import resumed

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "bundle.json").write_text("{}")
    with pytest.raises(ModelError, match="another --model"):
        resumed(make_plan(settings()))


def test_another_training_in_the_model_directory(settings):
    from segpipe.trainers.identity import check_identity, identity

    plan = make_plan(settings())
    check_identity(make_plan(settings(workers=4, trainer="horovod", retries=1)), identity(plan))
    with pytest.raises(ModelError, match=r"--learning-rate 0\.001, not 0\.1: .*--learning-rate 0\.001 to go on"):
        check_identity(make_plan(settings(learning_rate=0.1)), identity(plan))


def conf(master: str, **entries: str) -> Any:
    from pyspark import SparkConf

    made = SparkConf(loadDefaults=False).setMaster(master)
    for name, value in entries.items():
        made.set(f"spark.{name.replace('_', '.')}", value)
    return made


@pytest.mark.parametrize(
    ("session", "slots"),
    [
        (conf("local[3]"), 3),
        (conf("local"), 1),
        (conf("local[4]", task_cpus="2"), 2),
        (conf("spark://h:1", executor_cores="2", cores_max="6"), 6),
        (conf("spark://h:1"), None),
        (conf("yarn", executor_cores="3", executor_instances="2", task_cpus="2"), 2),
    ],
    ids=["local", "one thread", "two cores a task", "standalone", "standalone, not said", "yarn"],
)
def test_slots_of_a_session(session: Any, slots: int | None):
    assert session_slots(session) == slots


@pytest.mark.parametrize(
    ("session", "remedy"),
    [
        (conf("local[1]"), r"--master 'local\[2\]' or use --workers 1"),
        (
            conf("spark://h:1", executor_cores="1", cores_max="1"),
            "--conf spark.executor.cores=1 --conf spark.cores.max=2",
        ),
        (conf("yarn", executor_cores="1", executor_instances="1"), "--conf spark.executor.instances=2"),
        (conf("local[2]", dynamicAllocation_enabled="true"), "--conf spark.dynamicAllocation.enabled=false"),
        (conf("local[2]", speculation="true"), "--conf spark.speculation=false"),
    ],
    ids=["local", "standalone", "yarn", "dynamic allocation", "speculation"],
)
def test_a_session_that_cannot_hold_two_workers(session: Any, remedy: str):
    with pytest.raises(UsageError, match=remedy):
        check_cluster(session, 2)


def test_a_session_that_can():
    check_cluster(conf("local[2]"), 2)


def test_a_cluster_that_grants_too_little(spark):
    await_slots(spark, 2)
    with pytest.raises(UsageError, match=r"gave 2 of 3 slots within 0.5 s: use --workers 2,"):
        await_slots(spark, 3, seconds=0.5)


def test_nothing_is_started_for_what_is_refused(settings):
    """Neither for settings nor for tables does a session take executors."""
    from segpipe import trainers
    from segpipe.warehouse.runs import record_run

    def session() -> Any:
        raise AssertionError("a session was started")

    for wrong in ({"batch_size": 13}, {"cohort": "other"}):
        asked = settings(trainer="orca", **wrong)
        with record_run(None, "train", asked) as run, pytest.raises((UsageError, NotFound)):
            trainers.train(asked, session, run)


def test_a_trainer_that_needs_spark(settings):
    from segpipe import trainers
    from segpipe.warehouse.runs import record_run

    asked = settings(trainer="orca")
    with record_run(None, "train", asked) as run, pytest.raises(UsageError, match="--trainer local"):
        trainers.train(asked, None, run)


def test_a_patch_that_cannot_be_halved(settings):
    with pytest.raises(UsageError, match="--patch-size 16 or more"):
        make_plan(settings(dimensions=3, patch_size=8, depth=4))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"dimensions": 3, "coarse_share": 0.5}, "--coarse-share 0.5 is for --dimensions 2 alone"),
        ({"pool": 2, "coarse_share": 0.5}, "--coarse-share 0.5 is for --dimensions 2 alone"),
        ({"dimensions": 2, "patch_size": 64}, "--patch-size 64 is for --dimensions 3 alone"),
        ({"patch_size": 64}, "--patch-size 64 is for --dimensions 3 alone"),
        ({"dimensions": 2, "tile_overlap": 0.5}, "--tile-overlap 0.5 is for --dimensions 3 alone"),
        ({"dimensions": 3, "patch_size": 50, "depth": 4}, r"50 is no multiple of 16.*: use --patch-size 48"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_an_option_that_the_network_would_not_read(settings, asked: dict[str, Any], told: str):
    """Slices have no patches, patches no coarse epochs; the tiny cohort is one for slices."""
    with pytest.raises(UsageError, match=told):
        make_plan(settings(**asked))


def test_no_foreground(settings, tables: str, tmp_path: Path):
    """The slices say so, whatever `scans` counts."""
    url = with_column(
        tables, tmp_path / "edited", "foreground_pixels", lambda group: pa.array([0] * len(group), pa.int32())
    )
    with pytest.raises(TableError, match=r"No training slice of cohort 'tiny' has a label: .*--split-salt"):
        make_plan(settings(warehouse=url))


@pytest.mark.parametrize("trainer", ["orca", "horovod"])
def test_batch_normalisation_over_several_workers(settings, trainer: str):
    """Its statistics would be those of a worker's part of the batch, and differ among the workers."""
    make_plan(settings(trainer="local", normalisation="batch"))
    make_plan(settings(trainer=trainer, workers=1, normalisation="batch"))
    with pytest.raises(UsageError, match="use --normalisation instance, or --workers 1"):
        make_plan(settings(trainer=trainer, normalisation="batch"))
