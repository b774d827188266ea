"""Flags, the site's file and --help, all derived from the settings dataclasses."""

from dataclasses import fields
from pathlib import Path

import pytest

from segpipe.cli import check_warehouse
from segpipe.cli.edge import explain
from segpipe.cli.options import parse, parser_of
from segpipe.errors import NotFound, SegpipeError, UsageError
from segpipe.launch.project import job_names
from segpipe.settings import (
    AdoptSettings,
    CompactSettings,
    DemoSettings,
    DoctorSettings,
    EvaluateSettings,
    ExportSettings,
    IngestSettings,
    LocateSettings,
    RegisterSettings,
    ReportSettings,
    RestoreSettings,
    SegmentSettings,
    TrainSettings,
    VerifySettings,
    flag_of,
    help_of,
)

CLASSES = {
    "adopt": AdoptSettings,
    "ingest": IngestSettings,
    "train": TrainSettings,
    "export": ExportSettings,
    "segment": SegmentSettings,
    "evaluate": EvaluateSettings,
    "restore": RestoreSettings,
    "demo": DemoSettings,
    "locate": LocateSettings,
    "verify": VerifySettings,
    "compact": CompactSettings,
    "doctor": DoctorSettings,
    "register": RegisterSettings,
    "report": ReportSettings,
}
INGEST = ["--source", "a", "--warehouse", "w", "--cohort", "c"]
TRAIN = ["--warehouse", "w", "--cohort", "c", "--model", "m"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "site.toml"
    path.write_text("")
    monkeypatch.setenv("SEGPIPE_CONF", str(path))
    return path


@pytest.mark.parametrize("job", CLASSES)
def test_help_names_every_setting_with_its_default(job: str) -> None:
    text = " ".join(parser_of(job, CLASSES[job]).format_help().split())
    for setting in fields(CLASSES[job]):
        assert flag_of(setting) in text
        assert " ".join(help_of(setting).split()) in text.replace("- ", "-")


def test_every_job_has_a_settings_class() -> None:
    assert set(job_names()) == set(CLASSES)


def test_flags_win_over_the_site_file_and_that_over_the_defaults(site: Path) -> None:
    site.write_text("[ingest]\npart_mb = 10\nrow_group_mb = 4\ntrain_fraction = 1\nvalidation_fraction = 0\n")
    settings = parse("ingest", IngestSettings, [*INGEST, "--part-mb", "20"])
    assert (settings.part_mb, settings.row_group_mb, settings.max_voxels) == (20, 4, 1 << 30)
    assert settings.train_fraction == 1.0
    assert isinstance(settings.train_fraction, float)


def test_the_site_file_may_give_what_is_required(site: Path) -> None:
    site.write_text('[ingest]\nwarehouse = "hdfs://names/w"\n')
    settings = parse("ingest", IngestSettings, ["--source", "a", "--cohort", "c"])
    assert settings.warehouse == "hdfs://names/w"


def test_switches_go_both_ways(site: Path) -> None:
    site.write_text("[train]\naugment = false\n")
    assert parse("train", TrainSettings, TRAIN).augment is False
    assert parse("train", TrainSettings, [*TRAIN, "--augment"]).augment is True


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[ingest]\npart_mbs = 1\n", "unknown key `part_mbs` in [ingest]: did you mean `part_mb`?"),
        ("[ingset]\npart_mb = 1\n", "unknown section [ingset]: did you mean `ingest`?"),
        ("part_mb = 1\n", "unknown section [part_mb]"),
        ('[ingest]\npart_mb = "1"\n', "sets `part_mb` in [ingest] to '1': give a value of type int"),
        ("[ingest]\nstrict = 1\n", "sets `strict` in [ingest] to 1: give a value of type bool"),
        ("[ingest\n", "is not TOML"),
        ("[ingest]\npart_mb = 0\n", "--part-mb is 0 but must be at least 1"),
    ],
)
def test_a_wrong_site_file_is_wrong_usage(site: Path, content: str, said: str) -> None:
    site.write_text(content)
    with pytest.raises(UsageError) as error:
        parse("ingest", IngestSettings, INGEST)
    assert said in str(error.value)


def test_a_site_file_that_is_not_there_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGPIPE_CONF", str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match=r"none\.toml \(SEGPIPE_CONF\) does not exist"):
        parse("ingest", IngestSettings, INGEST)


@pytest.mark.parametrize(
    ("job", "flags", "said"),
    [
        ("ingest", ["--sorce", "a"], "unknown option --sorce: did you mean --source?"),
        ("ingest", [*INGEST, "--source", "b"], "--source is given 2 times: give it once"),
        ("ingest", [*INGEST, "--source=b"], "--source is given 2 times: give it once"),
        ("ingest", [], "missing --source, --warehouse, --cohort"),
        ("ingest", [*INGEST, "--part-mb", "many"], "--part-mb is 'many' but must be a whole number"),
        ("ingest", [*INGEST, "--layout", "brat"], "--layout is 'brat' but must be"),
        ("ingest", [*INGEST, "extra"], "extra"),
        ("ingest", [*INGEST[:-1], "a b"], "--cohort is 'a b' but must be letters, digits"),
        ("ingest", [*INGEST[:-1], ""], "--cohort is empty"),
        ("ingest", [*INGEST, "--train-fraction", "0.9", "--validation-fraction", "0.2"], "add up to 1.1"),
        ("ingest", [*INGEST, "--train-fraction", "nan"], "--train-fraction is nan but must be"),
        ("train", [*TRAIN, "--workers", "0"], "--workers is 0 but must be at least 1"),
        ("train", [*TRAIN, "--dropout", "1"], "--dropout is 1 but must be at least 0 and below 1"),
        ("train", [*TRAIN, "--learning-rate", "-0.1"], "--learning-rate is -0.1 but must be above 0"),
        ("train", [*TRAIN, "--dimensions", "4"], "--dimensions is 4 but must be one of 2, 3"),
        ("train", [*TRAIN, "--epoch", "3"], "unknown option --epoch: did you mean --epochs?"),
    ],
)
def test_wrong_flags_name_flag_value_and_range(site: Path, job: str, flags: list[str], said: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(job, CLASSES[job], flags)
    assert said in str(error.value)
    assert error.value.exit_code == 2


def test_all_wrong_values_are_told_at_once(site: Path) -> None:
    with pytest.raises(UsageError, match=r"--workers is 0.*--epochs is 0"):
        parse("train", TrainSettings, [*TRAIN, "--workers", "0", "--epochs", "0"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SegpipeError("Thing\nbroke", "mend it"), "Thing broke: mend it"),
        (ValueError("first\nsecond"), "ValueError: first: run again with --verbose for the stack trace"),
        (OSError(28, "No space left on device", "/d/f"), "no space left on the device for /d/f: free some"),
        (PermissionError(13, "Permission denied", "/d/f"), "no permission for /d/f: choose a place"),
        (MemoryError(), "memory ran out"),
        (ModuleNotFoundError("No module named 'pydicom'", name="pydicom"), "pydicom is not installed: pip install"),
        (
            RuntimeError("Traceback (most recent call last):\nModuleNotFoundError: No module named 'isal'\n"),
            "isal is not",
        ),
        (
            ModuleNotFoundError("No module named 'horovod'", name="horovod"),
            "horovod is not installed: run `make setup`",
        ),
        (
            RuntimeError(
                "Traceback (most recent call last):\nOSError: [Errno 28] No space left on device: '/d/f'\n\tat java"
            ),
            "no space left on the device for /d/f: free some",
        ),
        (RuntimeError("o1\nCaused by: java.io.IOException: No space left on device"), "no space left on the device: "),
        (RuntimeError("Traceback (most recent call last):\nnumpy._ArrayMemoryError: Unable to"), "memory ran out"),
        (
            RuntimeError(
                "Job aborted\nTraceback (most recent call last):\n  File\nsegpipe.errors.TableError: Odd: redo\n"
            ),
            "Odd: redo",
        ),
    ],
)
def test_any_exception_becomes_one_line(error: Exception, line: str) -> None:
    text = explain(error)
    assert text.startswith(line)
    assert "\n" not in text


def test_the_folder_above_a_warehouse_is_refused_before_spark_starts(tmp_path: Path) -> None:
    (tmp_path / "demo" / "tables" / "scans").mkdir(parents=True)
    (tmp_path / "demo" / "tables" / "scans" / "c.0.parquet").touch()
    (tmp_path / "demo" / "scans" / "Synthetic_00_000").mkdir(parents=True)  # as make demo does: an archive, no table
    check_warehouse(str(tmp_path / "demo" / "tables"))
    with pytest.raises(NotFound, match="demo is not a warehouse: it has no table: give the folder that ingest wrote"):
        check_warehouse(str(tmp_path / "demo"))
    check_warehouse(str(tmp_path / "demo"), make=True)
    (tmp_path / "new").mkdir()
    check_warehouse(str(tmp_path / "new"))


def test_a_flag_without_its_value_is_told() -> None:
    with pytest.raises(UsageError, match=r"^--scan needs a value"):
        parse("restore", RestoreSettings, ["--warehouse", "w", "--scan"])
