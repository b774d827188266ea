"""What will listen on the network while a job runs, and who may read along: by the settings, nothing is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from segpipe.doctor.finding import Finding

_TRIES = 16  # Spark's own spark.port.maxRetries
_LOOPBACK = ("127.", "localhost", "::1", "[::1]")
_KERNEL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def listeners(conf: Mapping[str, str], training_ports: str, web_address: str | None = None) -> Iterator[Finding]:
    """Who listens where, with `conf` what spark-submit was told and `training_ports` the `--ports` of train.

    `web_address` is where Spark's web page listens, SPARK_LOCAL_IP when not given.
    """
    web_address = os.environ.get("SPARK_LOCAL_IP", "127.0.0.1") if web_address is None else web_address
    if conf.get("spark.master", "local").startswith("local"):
        yield _here(conf, web_address)
        return
    yield _spark(conf, "Listens, driver", ("spark.driver.port", "spark.driver.blockManager.port"), _page(conf))
    yield _spark(conf, "Listens, executors", ("spark.blockManager.port",), "")
    yield Finding(
        "Listens, training",
        "ok",
        f"a worker at one address, ports {training_ports.replace('-', ' to ')} until all have met, if they are on"
        f" several machines; with Horovod Gloo listens as well, at ports of the kernel ({_kernel_ports()}), takes no"
        " others and does not check who connects: where the network is not the workers' own, use --trainer orca",
    )
    yield _traffic(conf)


def _here(conf: Mapping[str, str], web_address: str) -> Finding:
    label, outside = "Listens", []
    if not (bound := conf.get("spark.driver.bindAddress", "127.0.0.1")).startswith(_LOOPBACK):
        outside.append(f"Spark at {bound} (spark.driver.bindAddress)")
    if conf.get("spark.ui.enabled", "false") == "true" and not web_address.startswith(_LOOPBACK):
        outside.append(f"its web page at {web_address} (SPARK_LOCAL_IP)")
    if not outside:
        return Finding(label, "ok", "on loopback alone, whatever the job and the trainer")
    return Finding(label, "note", f"beyond loopback: {', '.join(outside)}", "set it to 127.0.0.1, or leave it out")


def _spark(conf: Mapping[str, str], label: str, keys: tuple[str, ...], more: str) -> Finding:
    """The ports of a process of Spark: those that are set, each with as many as Spark tries."""
    tries = int(conf.get("spark.port.maxRetries", _TRIES))
    ports = {key: int(conf.get(key) or conf.get("spark.blockManager.port", "0")) for key in keys[1:]}
    ports[keys[0]] = int(conf.get(keys[0], "0"))
    if loose := sorted(key for key, port in ports.items() if not port):
        return Finding(
            label,
            "note",
            f"at ports of the kernel ({_kernel_ports()}), because {' and '.join(loose)} is not set{more}",
            "set it where a firewall has to know, as conf/spark-yarn.conf does",
        )
    ranges = " and ".join(f"{port} to {port + tries}" for port in sorted(ports.values()))
    return Finding(label, "ok", f"at its own address, ports {ranges}{more}")


def _page(conf: Mapping[str, str]) -> str:
    if conf.get("spark.ui.enabled", "true") != "true":
        return ""
    if conf.get("spark.submit.deployMode") == "cluster":
        return "; web page at a port of the kernel, by way of YARN's proxy"
    first = int(conf.get("spark.ui.port", "4040"))
    return f"; web page at all of its addresses, port {first} or one of the next"


def _traffic(conf: Mapping[str, str]) -> Finding:
    label = "Traffic"
    wanted = {
        "spark.authenticate": "who connects is not checked",
        "spark.network.crypto.enabled": "anybody may read along",
    }
    missing = {key: what for key, what in wanted.items() if conf.get(key, "false") != "true"}
    if not missing:
        detail = (
            "of Spark is authenticated and encrypted; sums that training workers add up are not encrypted: let the"
            " network between them be theirs alone"
        )
        return Finding(label, "ok", detail)
    detail = "of Spark: " + ", ".join(f"{what} ({key} is off)" for key, what in missing.items())
    return Finding(label, "note", detail, "switch it on, as conf/spark-yarn.conf and conf/spark-standalone.conf do")


def _kernel_ports() -> str:
    try:
        return " to ".join(_KERNEL_PORTS.read_text().split())
    except OSError:
        return "see net.ipv4.ip_local_port_range"
