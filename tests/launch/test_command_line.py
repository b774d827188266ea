"""The command line of ./spark-submit.sh, taken apart: the options of spark-submit, the job, and the job's own."""

import pytest

from segpipe.errors import UsageError
from segpipe.launch.command_line import CommandLine, read
from segpipe.launch.project import CONF
from segpipe.launch.submitted import settings_of


def test_the_job_parts_its_options_from_those_of_spark_submit() -> None:
    line = read(["--master", "local[1]", "--conf=a.b=c=d", "-v", "ingest", "--verbose", "--source", "--conf"])
    assert line == CommandLine(
        ("--master", "local[1]", "--conf", "a.b=c=d", "-v"), job="ingest", arguments=("--verbose", "--source", "--conf")
    )
    assert line.settings == {"spark.master": "local[1]", "a.b": "c=d"}


def test_options_win_over_conf_whatever_their_order() -> None:
    options = ["--deploy-mode", "cluster", "--conf", "spark.submit.deployMode=client", "-c", "spark.master=yarn"]
    assert settings_of(options) == {"spark.submit.deployMode": "cluster", "spark.master": "yarn"}


@pytest.mark.parametrize(
    ("words", "conf", "master"),
    [
        ((), "local", "local[*]"),
        (("--master", "local[3]"), "local", "local[3]"),
        (("--master", "yarn"), "yarn", "yarn"),
        (("--profile", "yarn"), "yarn", "yarn"),
        (("--master", "spark://h:7077"), "standalone", "spark://h:7077"),
    ],
)
def test_the_profile_fits_the_master(words: tuple[str, ...], conf: str, master: str) -> None:
    line = read([*words, "ingest"]).with_profile()
    assert line.plain_options[-2:] == ["--properties-file", str(CONF / f"spark-{conf}.conf")]
    assert (line.profile, line.master) == (conf, master)


def test_a_properties_file_of_ones_own_stays(tmp_path) -> None:
    own = tmp_path / "own.conf"
    own.write_text("spark.master spark://h:7077\nspark.submit.deployMode=cluster\n")
    line = read(["--properties-file", str(own), "ingest"]).with_profile()
    assert line.options == ("--properties-file", str(own))
    assert (line.master, line.deploy_mode, line.profile) == ("spark://h:7077", "cluster", "")


def test_lists_are_kept_apart_to_be_added_to() -> None:
    line = read(["--jars", "a.jar,b.jar", "--name", "x y", "--files=f", "train"])
    assert (line.listed("--jars"), line.listed("--files"), line.listed("--py-files")) == (["a.jar", "b.jar"], ["f"], [])
    assert line.plain_options == ["--name", "x y"]


def test_what_spark_submit_answers_itself_is_handed_on() -> None:
    line = read(["--master", "spark://h:7077", "--kill", "driver-1"])
    assert (line.options, line.passed_through) == (("--master", "spark://h:7077"), ("--kill", "driver-1"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--remote", "sc://h", "ingest"], "--remote .* give --master"),
        (["-c"], "Option -c needs a value"),
        (["-x", "ingest"], "Unknown spark-submit option -x"),
        (["--verbose=1", "ingest"], "Unknown spark-submit option --verbose"),
        (["--profile"], "give local, standalone or yarn"),
    ],
)
def test_wrong_options_are_told(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(words)
