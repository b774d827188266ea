"""Bad input to every job: one clear line with the next step, the right exit code, nothing half-written."""

import importlib
from pathlib import Path

import pyarrow as pa
import pytest

from segpipe.cli import Context
from segpipe.errors import Reason
from segpipe.pipelines import quarantine
from segpipe.readers.generate import write_brats
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import QUARANTINE
from tests.models.test_bundle import bundle_at


def run(job: str, *flags: str) -> int:
    return importlib.import_module(f"jobs.{job}").main(list(flags))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with everything that can be wrong in it."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "note.txt").write_text("no scan")
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "tables").mkdir()
    (tmp_path / "odd model").mkdir()
    (tmp_path / "odd model" / "bundle.json").write_text('{"format": 1}')
    return tmp_path


NEW = "{}/new"
CASES = {
    "no source": (
        ("ingest", "--source", "{}/none", "--warehouse", NEW, "--cohort", "c"),
        "Source {}/none does not exist",
    ),
    "warehouse below a file": (
        ("ingest", "--source", "{}/letters", "--warehouse", "{}/file/w", "--cohort", "c"),
        "Warehouse {}/file/w cannot be made because {}/file is not a folder: give --warehouse",
    ),
    "warehouse is a file": (
        ("ingest", "--source", "{}/letters", "--warehouse", "{}/file", "--cohort", "c"),
        "Warehouse {}/file cannot be made because {}/file is not a folder",
    ),
    "warehouse in the archive's own folder": (
        ("ingest", "--source", "{}/letters", "--warehouse", "file://{}/letters/", "--cohort", "c"),
        "--warehouse file://{}/letters/ is the --source itself: give the tables a folder of their own",
    ),
    "read-only file system": (
        ("ingest", "--source", "{}/letters", "--warehouse", "/proc/segpipe", "--cohort", "c"),
        "Warehouse /proc/segpipe cannot be written",
    ),
    "unknown protocol": (
        ("ingest", "--source", "hfds://x/y", "--warehouse", NEW, "--cohort", "c"),
        "hfds://x/y cannot be opened",
    ),
    "unknown label convention": (
        ("ingest", "--source", "{}/letters", "--warehouse", NEW, "--cohort", "c", "--label-convention", "brats2022"),
        "Label convention 'brats2022' is unknown: choose one of brats",
    ),
    "label convention that is not there, of a plan": (
        (
            *("ingest", "--source", "{}/letters", "--warehouse", NEW, "--cohort", "c", "--plan"),
            *("--label-convention", "{}/none.toml"),
        ),
        "Label convention {}/none.toml does not exist",
    ),
    "train without tables": (
        ("train", "--warehouse", NEW, "--cohort", "c", "--model", "{}/m"),
        "Warehouse {}/new does not exist: give the folder that ingest wrote to",
    ),
    "export of nothing": (("export", "--model", "{}/none"), "No model in {}/none: bundle.json is missing"),
    "export of a folder that is no model": (("export", "--model", "{}/empty"), "No model in {}/empty"),
    "export of an odd bundle": (("export", "--model", "{}/odd model"), "lacks or adds the bundle fields"),
    "segment without tables": (
        ("segment", "--warehouse", NEW, "--cohort", "c", "--model", "{}/empty"),
        "Warehouse {}/new does not exist",
    ),
    "segment with no model": (
        ("segment", "--warehouse", "{}/tables", "--cohort", "c", "--model", "{}/empty"),
        "No model in {}/empty",
    ),
    "how to read an archive that is not named": (
        (
            *("segment", "--warehouse", "{}/tables", "--cohort", "c", "--model", "{}/empty"),
            *("--layout", "brats", "--resample-to", "FLAIR"),
        ),
        "--layout, --resample-to would change nothing, because the scans of the tables are read already: give the",
    ),
    "masks below a file": (
        ("segment", "--warehouse", "{}/tables", "--cohort", "c", "--model", "{}/empty", "--nifti", "{}/file/masks"),
        "Folder {}/file/masks cannot be made because {}/file is not a folder: give --nifti",
    ),
    "reports on a read-only file system": (
        (
            *("segment", "--source", "{}/letters", "--warehouse", NEW, "--cohort", "c", "--model", "{}/empty"),
            *("--dicom-sr", "/proc/reports"),
        ),
        "Folder /proc/reports cannot be written because /proc takes no files",
    ),
    "evaluate without tables": (
        ("evaluate", "--warehouse", NEW, "--cohort", "c", "--model", "{}/empty"),
        "Warehouse {}/new does not exist",
    ),
    "restore without tables": (
        ("restore", "--warehouse", NEW, "--scan", "c:s:1", "--output", "{}/out"),
        "Warehouse {}/new does not exist",
    ),
    "restore of no scan": (
        ("restore", "--warehouse", "{}/tables", "--scan", "c:s:1", "--output", "{}/out"),
        "Scan c:s:1 is not in {}/tables: take a scan_id from the table scans",
    ),
    "demo of no source": (("demo", "--source", "{}/none", "--warehouse", NEW), "Source {}/none does not exist"),
    "demo below a file": (("demo", "--warehouse", "{}/file/d"), "{}/file is not a folder"),
}


@pytest.mark.parametrize(("command", "said"), CASES.values(), ids=CASES.keys())
def test_one_line_and_nothing_written(
    command: tuple[str, ...], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for path in place.rglob("*") if "runs" not in path.parts)
    job, *flags = (word.replace("{}", str(place)) for word in command)
    code = run(job, *flags)
    told = capsys.readouterr().err
    assert code == (
        2
        if any(words in said for words in ("cannot be opened", "is unknown", "is the --source", "would change nothing"))
        else 1
    )
    assert told.count("\n") == 1
    assert told.startswith(f"segpipe {job}: ")
    assert said.replace("{}", str(place)) in told
    assert ": " in told.removeprefix(f"segpipe {job}: ")
    written = [path for path in place.rglob("*") if not {"runs", "_staging", "_locks"} & set(path.parts)]
    assert sorted(written) == before


def test_a_cohort_of_which_everything_was_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has been ingested: to ask for that again would be no help."""
    row = quarantine.row("ingest", "r1", "c", None, ["P1/P1_T1.nii"], Reason.TRUNCATED, "P1/P1_T1.nii is cut off", "f")
    Store(str(tmp_path / "tables")).append(QUARANTINE, pa.Table.from_pylist([row], QUARANTINE.schema), "r1")
    assert run("train", "--warehouse", str(tmp_path / "tables"), "--cohort", "c", "--model", str(tmp_path / "m")) == 1
    told = capsys.readouterr().err
    assert "Cohort 'c' has no scans" in told
    assert "but 1 rejected inputs: mend what the table quarantine names and run ingest again" in told


def test_verbose_adds_the_stack_trace(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", "--model", str(place / "empty"), "--verbose") == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert told.splitlines()[-1].startswith("segpipe export: No model in")


@pytest.mark.parametrize("job", ["segment", "export", "evaluate"])
def test_another_model_than_the_expected_one_is_refused(
    job: str, place: Path, capsys: pytest.CaptureFixture[str], spark
) -> None:
    from segpipe import settings
    from segpipe.cli import execute

    (place / "model").mkdir()
    bundle = bundle_at(place / "model").with_files()
    tables = () if job == "export" else ("--warehouse", str(place / "tables"), "--cohort", "c")
    assert run(job, *tables, "--model", bundle.url, "--expect-model", "0" * 32) == 1
    told = capsys.readouterr().err
    assert f"has the seal {bundle.seal}, not {'0' * 32}: get the model again from whoever gave you the seal" in told
    assert told.count("\n") == 1
    flags = [*tables, "--model", bundle.url, "--expect-model", bundle.seal]
    work = importlib.import_module(f"jobs.{job}").run, flags, Context(job, spark)  # a session of its own would end ours
    assert execute(job, getattr(settings, f"{job.title()}Settings"), *work) == 1  # something else is wrong with it
    assert "has the seal" not in capsys.readouterr().err


@pytest.mark.parametrize(("folder", "said"), [("empty", "is empty"), ("letters", "no")])
def test_a_source_without_scans_makes_no_warehouse(
    folder: str, said: str, place: Path, capsys: pytest.CaptureFixture[str], spark
) -> None:
    from jobs.ingest import check
    from jobs.ingest import run as ingest
    from segpipe.cli import execute
    from segpipe.settings import IngestSettings

    flags = ["--source", str(place / folder), "--warehouse", str(place / "new"), "--cohort", "c"]
    assert execute("ingest", IngestSettings, ingest, flags, Context("ingest", spark), check) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert said in told
    assert not (place / "new").exists()


def test_strict_ends_with_3_where_an_input_was_quarantined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spark
) -> None:
    from jobs.ingest import run as ingest
    from segpipe.cli import execute
    from segpipe.settings import IngestSettings
    from segpipe.warehouse.store import Store

    write_brats(tmp_path / "scans", subjects=2, seed=0, shape=(8, 16, 16))
    for bad in (tmp_path / "scans").glob("*_000/*.nii.gz"):
        bad.write_bytes(bad.read_bytes()[:100])
    flags = ["--source", str(tmp_path / "scans"), "--warehouse", str(tmp_path / "w"), "--cohort", "c", "--strict"]
    assert execute("ingest", IngestSettings, ingest, flags, Context("ingest", spark)) == 3
    told = capsys.readouterr().out
    tables = Store(str(tmp_path / "w"))
    assert tables.table("scans").count_rows() == 1
    assert tables.table("quarantine").count_rows() == 1
    runs = tables.table("runs").to_table().to_pylist()
    assert [(row["job"], row["outcome"], dict(row["counts"])["quarantined"]) for row in runs] == [("ingest", "done", 1)]
    assert runs[0]["run_id"] in told
    assert execute("ingest", IngestSettings, ingest, flags[:-1], Context("ingest", spark)) == 0
