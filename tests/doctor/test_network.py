"""What `doctor` says of what will listen, by the conf files that are there."""

from pathlib import Path

import pytest

from segpipe.doctor.network import listeners
from segpipe.launch.submitted import read_conf

CONF = Path(__file__).resolve().parents[2] / "conf"


def rows(conf, web_address="127.0.0.1"):
    return {finding.check: finding for finding in listeners(conf, "40300-40399", web_address)}


def test_the_local_profile_listens_on_loopback_alone():
    found = rows(read_conf(CONF / "spark-local.conf"))
    assert found["Listens"].state == "ok"
    assert "loopback alone" in found["Listens"].detail


@pytest.mark.parametrize(
    ("change", "web_address", "said"),
    [
        ({"spark.driver.bindAddress": "0.0.0.0"}, "127.0.0.1", "Spark at 0.0.0.0 (spark.driver.bindAddress)"),
        ({"spark.ui.enabled": "true"}, "10.0.0.7", "its web page at 10.0.0.7 (SPARK_LOCAL_IP)"),
    ],
)
def test_who_asks_for_more_is_told(change, web_address, said):
    found = rows(read_conf(CONF / "spark-local.conf") | change, web_address)["Listens"]
    assert found.state == "note"
    assert said in found.detail


@pytest.mark.parametrize("profile", ["yarn", "standalone"])
def test_the_profiles_of_clusters_name_every_port_and_are_encrypted(profile):
    found = rows({"spark.master": "spark://m:7077"} | read_conf(CONF / f"spark-{profile}.conf"))
    assert {finding.state for finding in found.values()} == {"ok"}
    assert "40000 to 40099 and 40100 to 40199" in found["Listens, driver"].detail
    assert "40200 to 40299" in found["Listens, executors"].detail
    assert "40300 to 40399" in found["Listens, training"].detail
    assert "not encrypted: let the network between them be theirs alone" in found["Traffic"].detail
    assert "Gloo listens as well, at ports of the kernel" in found["Listens, training"].detail
    assert "use --trainer orca" in found["Listens, training"].detail


def test_a_cluster_without_settings_is_a_note_for_each():
    found = rows({"spark.master": "yarn"})
    assert {name: finding.state for name, finding in found.items()} == {
        "Listens, driver": "note",
        "Listens, executors": "note",
        "Listens, training": "ok",
        "Traffic": "note",
    }
    assert "spark.driver.blockManager.port and spark.driver.port is not set" in found["Listens, driver"].detail
    assert "anybody may read along" in found["Traffic"].detail


def test_blocks_of_the_driver_follow_those_of_the_executors():
    """As in Spark: spark.driver.blockManager.port is spark.blockManager.port unless it is set."""
    conf = {"spark.master": "yarn", "spark.driver.port": "5000", "spark.blockManager.port": "6000"}
    assert "5000 to 5016 and 6000 to 6016" in rows(conf)["Listens, driver"].detail
