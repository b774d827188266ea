"""`verify` names what is damaged, and nothing else."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segpipe.pipelines import verify as module
from segpipe.pipelines.verify import verify, verify_part
from segpipe.settings import VerifySettings
from segpipe.warehouse import checked
from segpipe.warehouse.checked import read_metadata
from segpipe.warehouse.parts import STAMP, open_writer
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS
from tests.pipelines.deadly import In
from tests.pipelines.examples import archive, run_ingest
from tests.warehouse.test_checked import pages


@pytest.fixture(scope="module")
def ingested(spark, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    run_ingest(spark, archive(folder / "source", subjects=4), folder / "w")
    return folder / "w"


@pytest.fixture
def warehouse(ingested, tmp_path) -> Path:
    return Path(shutil.copytree(ingested, tmp_path / "w"))


def problems(spark, warehouse: Path, **settings) -> list[str]:
    chosen = VerifySettings(warehouse=str(warehouse), **settings)
    with record_run(Store(chosen.warehouse), "verify", chosen) as run:
        found = verify(spark, chosen, run)
    assert run.counts["problems"] == len(found)
    assert run.counts["parts_without_checksums"] == 0
    return found


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def test_a_whole_warehouse_has_no_problem(spark, warehouse):
    assert problems(spark, warehouse, rebuild=True) == []


def test_every_damaged_part_is_named_and_no_other(spark, warehouse):
    first, second = sorted((warehouse / "slices").glob("*.parquet"))
    flip(first, pages(first, "image")[50])
    run = next((warehouse / "runs").glob("*.parquet"))
    flip(run, run.stat().st_size - 100)
    found = problems(spark, warehouse)
    assert [one.partition(":")[0] for one in found] == [f"slices/{first.name}", f"runs/{run.name}"]
    assert "checksum" in found[0].lower()
    second.unlink()
    assert f"slices/{second.name}: it is missing, but the other half of its part is there" in problems(spark, warehouse)


def test_a_part_that_another_run_wrote_is_told(spark, warehouse):
    first, second = sorted((warehouse / "slices").glob("*.parquet"))
    shutil.copyfile(first, second)
    assert any(one.startswith(f"slices/{second.name}: it is not of the same run") for one in problems(spark, warehouse))


def test_voxels_that_are_not_those_of_the_source_are_told_when_files_are_rebuilt(warehouse):
    """Parts are whole, but what they hold is not what their checksum at ingest says."""
    opened = Store(str(warehouse))
    name = opened.parts("scans")[0]
    path = warehouse / "scans" / f"{name}.parquet"
    stamp = read_metadata(opened.fs, str(path)).metadata[STAMP]
    rows = [row for row in opened.table("scans").to_table().to_pylist() if row["scan_id"] in scans_of(opened, name)]
    rows[0]["files"][0]["voxels_crc32"] ^= 1
    with path.open("wb") as file, open_writer(file, SCANS, {STAMP: stamp}) as writer:
        writer.write_table(pa.Table.from_pylist(rows, SCANS.schema))
    assert verify_part(str(warehouse), "scans", name).problem is None
    assert "its voxels have another checksum" in str(verify_part(str(warehouse), "scans", name, rebuild=True).problem)


def scans_of(warehouse: Store, part: str) -> set[str]:
    table = warehouse.table("scans").to_table(["scan_id", "__filename"])
    mine = np.array([name.endswith(f"{part}.parquet") for name in table["__filename"].to_pylist()])
    return set(table.filter(pa.array(mine))["scan_id"].to_pylist())


def test_a_part_that_kills_its_readers_is_named_and_all_others_are_read(spark, warehouse, monkeypatch):
    deadly = sorted((warehouse / "slices").glob("*.parquet"))[0].name
    In(module, "verify_part", checked, "open_part", lambda _, path: path.endswith(f"slices/{deadly}")).put(monkeypatch)
    (told,) = problems(spark, warehouse)
    assert told == f"slices/{deadly}: Reading it killed 2 workers, most likely because memory ran out"


def test_a_part_with_a_sector_that_cannot_be_read_is_named(spark, warehouse):
    """A file that Linux answers with EIO, as a disk does that wears out."""
    path = sorted((warehouse / "slices").glob("*.parquet"))[0]
    path.unlink()
    path.symlink_to("/proc/self/mem")
    told = problems(spark, warehouse)
    assert told[0].startswith(f"slices/{path.name}: ")
    assert "Input/output error" in told[0]
    assert not [line for line in told if path.name not in line]
