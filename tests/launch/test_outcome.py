"""What refusals of Spark and YARN are told as, and how the words of a job in the cluster come home."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from segpipe.launch import outcome
from segpipe.launch.refusals import explanation, refusal

# As Spark 3.5 and Hadoop 3.3 say it; `tests/hadoop` brings the first three about for real.
SAID = {
    "Failed to submit application_1_2 to YARN : Application application_1_2 submitted by user a to unknown queue: q": (
        "Queue q does not exist on this cluster: give --queue one that `doctor` names"
    ),
    "Required executor memory (9216 MB), offHeap memory (0) MB, overhead (4096 MB), and PySpark memory (0 MB) is above"
    " the max threshold (10240 MB) of this cluster!": (
        "An executor of 9216 MB and 4096 MB overhead is more than the 10240 MB that a container may have: give less"
    ),
    "java.lang.IllegalArgumentException: Required AM memory (9216+3072 MB) is above the max threshold (10240 MB)": (
        "A driver of 9216 MB and 3072 MB overhead is more than the 10240 MB"
    ),
    "Requested resource type=[vcores], Requested resource=<memory:5120, vCores:9>, maximum allowed"
    " allocation=<memory:10240, vCores:4>, please": "A container of 9 cores is more than the 4 that one may have",
    "org.apache.hadoop.ipc.RemoteException(org.apache.hadoop.hdfs.protocol.DSQuotaExceededException): The DiskSpace"
    " quota of /u is exceeded: quota = 1": "HDFS refused: The DiskSpace quota of /u is exceeded: delete files",
    'AccessControlException: Permission denied: user=eve, access=WRITE, inode="/user":root:supergroup:drwxr-xr-x': (
        'HDFS refused: Permission denied: user=eve, access=WRITE, inode="/user": ask the owner'
    ),
    "SafeModeException: Cannot create directory /a. Name node is in safe mode.\nIt was turned on manually.": (
        "HDFS is in safe mode (Cannot create directory /a): wait until"
    ),
    "requirement failed: A secret key must be specified via the spark.authenticate.secret config.": (
        "Spark has no secret to prove itself with (spark.authenticate is on): let SEGPIPE_SPARK_SECRET_FILE name"
    ),
    "Delegation Token can be issued only with kerberos or web authentication": (
        "The cluster asks for Kerberos, and there is no valid ticket: kinit, or give --principal and --keytab"
    ),
    "ConnectException: Call From a/127.0.0.1 to b:8032 failed on connection exception": "Nobody answers at b:8032:",
}


@pytest.mark.parametrize("said", SAID)
def test_a_refusal_is_told_with_its_remedy(said: str) -> None:
    assert str(refusal(f"12:00:00 ERROR Client: noise\n{said}\n\tat a.b.C(D.scala:1)")).startswith(SAID[said])


def test_what_is_unknown_is_told_as_it_was_said() -> None:
    assert refusal("java.lang.IllegalStateException: odd") is None
    error = explanation('Exception in thread "main" a.B: odd\n\tat c.D(E.java:1)\nCaused by: f.G: why\n')
    assert str(error).startswith("spark-submit failed (f.G: why): check its options")
    assert "it said nothing" in str(explanation(""))


PROGRAM = """
import sys
from segpipe.launch.outcome import sent_home
with sent_home() as send:
    print("done")
    print("segpipe: wrong", file=sys.stderr)
    send({code})
print("12:00:00 ERROR Client: finished with failed status")
sys.exit({exit})
"""


def _submit(code: int, exit_code: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    url = str(folder / "outcome.json")
    monkeypatch.setenv(outcome.VARIABLE, url)
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-c", PROGRAM.format(code=code, exit=exit_code)]
    ended = outcome.submit(command, url)
    assert not Path(url).exists()
    return ended


@pytest.mark.process
@pytest.mark.parametrize(("code", "exit_code"), [(0, 0), (3, 1), (2, 1)])
def test_words_and_exit_code_come_home(
    code: int, exit_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _submit(code, exit_code, tmp_path, monkeypatch) == code
    assert capsys.readouterr() == ("done\n", "segpipe: wrong\n")


@pytest.mark.process
def test_words_that_contradict_the_cluster_are_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _submit(0, 1, tmp_path, monkeypatch) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "finished with failed status" in err


@pytest.mark.process
def test_without_words_the_cluster_s_own_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('a to unknown queue: q')"]
    assert outcome.submit(command, str(tmp_path / "none.json")) == 1
    assert capsys.readouterr().err.startswith("segpipe: Queue q does not exist")
