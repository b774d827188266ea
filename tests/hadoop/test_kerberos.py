"""A cluster that asks for Kerberos tickets, with its own KDC: HDFS from Python, and a job from keytab to tables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from segpipe.doctor.cluster import kerberos
from segpipe.launch.yarn import hadoop_settings
from tools.hadoop import cluster as hadoop
from tools.hadoop.kerberos import REALM, missing_tools

pytestmark = [pytest.mark.hadoop, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]

_MAKE_HOME = """
import sys
from segpipe.storage import filesystem as files
fs, path = files.filesystem(sys.argv[1])
fs.makedirs(path, exist_ok=True)
fs.client.set_owner(path, "alice", "alice")
"""
_LIST = """
import sys
from segpipe.errors import SegpipeError
from segpipe.storage import filesystem as files
try:
    fs, path = files.filesystem(sys.argv[1])
    files.replace(fs, path + "/hello", b"hello")
    print(fs.info(path + "/hello")["owner"])
except SegpipeError as error:
    print(error)
"""
_ROWS = """
import sys
from segpipe.warehouse.store import Store
for table in ("scans", "slices"):
    print(table, Store(sys.argv[1]).table(table).to_table().num_rows)
"""


@dataclass(frozen=True)
class Secure:
    """A cluster with Kerberos, and a user of it."""

    cluster: hadoop.Cluster
    keytab: Path

    @property
    def home(self) -> str:
        return f"{self.cluster.file_system}/user/alice"

    def environment(self, keytab: Path | None) -> dict[str, str]:
        """Of a process that gets its tickets from a keytab, or has none."""
        base = os.environ | self.cluster.realm.environment | {"HADOOP_CONF_DIR": str(self.cluster.conf)}
        base |= {"KRB5CCNAME": "MEMORY:test", "PYTHONPATH": str(hadoop.ROOT), "SEGPIPE_STAGING": f"{self.home}/staging"}
        return base | ({"KRB5_CLIENT_KTNAME": str(keytab)} if keytab else {})

    def python(self, program: str, *words: str, keytab: Path | None) -> str:
        """What a Python program prints."""
        command = [sys.executable, "-c", program, *words]
        return subprocess.run(
            command, env=self.environment(keytab), capture_output=True, text=True, check=True
        ).stdout.strip()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A cluster of its own that asks for tickets, ended afterwards."""
    missing = [tool for tool in ("java", "mvn") if not shutil.which(tool)] + missing_tools()
    if missing:
        pytest.skip(f"no {', '.join(missing)}: a cluster with Kerberos needs Java, Maven and Debian's krb5-kdc,"
                    " krb5-admin-server and krb5-user")  # fmt: skip
    state = tmp_path_factory.mktemp("kerberos")
    cluster = hadoop.up(state, kerberos=True, apart=False)
    try:
        keytab = state / "alice.keytab"
        cluster.realm.add(["alice"], keytab)
        found = Secure(cluster, keytab)
        found.python(_MAKE_HOME, found.home, keytab=cluster.realm.keytab)
        yield found
    finally:
        hadoop.down(state)


def test_without_a_ticket_one_line_says_so(secure: Secure) -> None:
    line = secure.python(_LIST, secure.home, keytab=None)
    assert line.startswith("HDFS asks for Kerberos at /user/alice")
    assert line.endswith("kinit, or give --principal and --keytab before the job's name")


def test_python_reads_and_writes_encrypted_hdfs_as_the_principal(secure: Secure) -> None:
    assert secure.python(_LIST, secure.home, keytab=secure.keytab) == "alice"


def test_a_job_from_a_keytab_fills_the_tables_with_delegation_tokens(secure: Secure, glioma_archive: Path) -> None:
    """Executors have no ticket and no keytab: what they read and write, they do with the tokens that YARN hands out.

    Python and Spark are those of this machine, as if an administrator had installed them on the nodes.
    """
    import pyspark

    jars = Path(pyspark.__file__).parent / "jars"
    done = subprocess.run(
        [
            hadoop.ROOT / "spark-submit.sh", "--profile", "yarn",
            "--principal", f"alice@{REALM}", "--keytab", str(secure.keytab),
            "--conf", f"spark.yarn.jars=local:{jars}/*", "--conf", f"spark.pyspark.python={sys.executable}",
            "--conf", f"spark.executorEnv.PYTHONPATH={hadoop.ROOT}",
            "--num-executors", "1",
            "ingest", "--source", str(glioma_archive), "--warehouse", f"{secure.home}/warehouse", "--cohort", "glioma",
        ],
        env=secure.environment(None), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "scans written 6" in done.stdout
    said = secure.python(_ROWS, f"{secure.home}/warehouse", keytab=secure.keytab)
    assert said.splitlines() == ["scans 6", "slices 72"]


def test_doctor_asks_for_a_ticket_or_a_keytab(secure: Secure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", str(secure.cluster.conf))
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/none")
    site = hadoop_settings()
    (ticket,) = kerberos(site, {})
    assert (ticket.state, ticket.detail) == ("fault", "no valid ticket")
    assert ticket.remedy.startswith("kinit")
    (keytab,) = kerberos(site, {"spark.kerberos.keytab": str(secure.keytab)})
    assert keytab.state == "ok"
    (wrong,) = kerberos(site, {"spark.kerberos.keytab": str(tmp_path / "none")})
    assert "cannot be read" in wrong.detail
