"""A real Hadoop cluster on loopback, from Hadoop's Maven artifacts: HDFS and YARN, two workers each.

    python tools/hadoop/cluster.py up        start it (or what is missing of it), wait until it is healthy
    python tools/hadoop/cluster.py status    what runs, and whether it is healthy
    python tools/hadoop/cluster.py down      end every process it started; HDFS keeps its files
    python tools/hadoop/cluster.py reset     down, then delete HDFS and all other state

With --kerberos, `up` starts a cluster that asks for tickets, with a KDC of its own (tools/hadoop/kerberos.py).

Each daemon is a process of its own with its own directories and ports. Where Linux allows it, the node managers and
their containers see neither this checkout's code nor the Python it runs on, as on machines of their own. Everything
lives in one state folder: `.hadoop` beside the Makefile, or where SEGPIPE_HADOOP points.
"""

import argparse
import contextlib
import fcntl
import getpass
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import psutil

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from tools.hadoop.kerberos import Realm, missing_tools  # noqa: E402

POM = Path(__file__).with_name("pom.xml")
LOG4J = Path(__file__).with_name("log4j.properties")
PERMISSIONS = Path(__file__).with_name("JavaPermissions.java")
MASTER = "127.0.0.1"
WORKERS = (1, 2)

# Java 17 hides what Hadoop 3.3 reaches for by reflection (Guice and its cglib in YARN's web pages, the RPC's unsafe).
ADD_OPENS = [
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in (
        "java.lang",
        "java.lang.reflect",
        "java.io",
        "java.net",
        "java.nio",
        "java.util",
        "java.util.concurrent",
        "sun.nio.ch",
    )
]
# A daemon's whole life is a few minutes on two cores: the quick compiler and the simplest collector cost least.
JVM = [*ADD_OPENS, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"]


class ClusterError(RuntimeError):
    """The cluster cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Daemon:
    """One process of the cluster: its main class, heap, and the settings that only it has."""

    name: str
    main: str
    heap_mb: int
    overrides: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


# Ports ---------------------------------------------------------------------------------------------------------------

# Hadoop's customary ports where it has one; any free port is taken where the customary one is busy.
PORTS = {
    "namenode.rpc": 8020,
    "namenode.http": 9870,
    "resourcemanager.rpc": 8032,
    "resourcemanager.scheduler": 8030,
    "resourcemanager.tracker": 8031,
    "resourcemanager.admin": 8033,
    "resourcemanager.http": 8088,
} | {
    f"{kind}-{worker}.{use}": base + 10 * (worker - 1)
    for worker in WORKERS
    for kind, use, base in (
        ("datanode", "data", 9866),
        ("datanode", "ipc", 9867),
        ("datanode", "http", 9864),
        ("nodemanager", "rpc", 8041),
        ("nodemanager", "localizer", 8040),
        ("nodemanager", "http", 8042),
    )
}

KDC_PORT = {"kdc": 8800}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def choose_ports(wanted: Mapping[str, int]) -> dict[str, int]:
    """The ports of `wanted`, each one that is busy replaced by a free one."""
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for use, port in wanted.items():
            if not _is_free(port):
                probe = held.enter_context(socket.socket())
                probe.bind(("", 0))
                port = probe.getsockname()[1]
            chosen[use] = port
    return chosen


def worker_host(worker: int) -> str:
    """A loopback address of the node manager's own, where this machine's resolver keeps such addresses apart.

    Node managers are known by name: with a resolver that calls all of 127/8 `localhost` they share 127.0.0.1 and
    differ by port alone.
    """
    address = f"127.0.0.{worker + 1}"
    return address if socket.getfqdn(address) == address and sys.platform == "linux" else MASTER


# Configuration -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """A cluster's state folder, its ports, and the memory that each node manager may hand out.

    Each node can hold an executor and a driver of conf/spark-yarn.conf; what they touch of it is a fraction.
    """

    state: Path
    ports: Mapping[str, int]
    node_memory_mb: int = 10240
    kerberos: bool = False
    apart: bool = True
    """Whether nodes are kept from this machine's Python and code; else they have them as if an administrator had."""

    @property
    def realm(self) -> Realm:
        """The realm whose tickets a cluster with Kerberos asks for."""
        return Realm(self.state / "kdc", self.ports["kdc"])

    @property
    def conf(self) -> Path:
        """The HADOOP_CONF_DIR of clients."""
        return self.state / "conf"

    def web(self, use: str) -> str:
        """The address of a daemon's web pages, such as `namenode`."""
        host = worker_host(int(use[-1])) if use.startswith("nodemanager") else MASTER
        return f"http://{host}:{self.ports[use + '.http']}"

    @property
    def file_system(self) -> str:
        """The default file system, such as hdfs://127.0.0.1:8020."""
        return f"hdfs://{MASTER}:{self.ports['namenode.rpc']}"

    def log(self, daemon: str) -> Path:
        """Where a daemon writes its log."""
        return self.state / daemon / "daemon.log"

    def daemons(self) -> list[Daemon]:
        """All daemons, masters first."""
        return [
            Daemon("namenode", "org.apache.hadoop.hdfs.server.namenode.NameNode", 256),
            Daemon("resourcemanager", "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager", 384),
            *(self._data_node(worker) for worker in WORKERS),
            *(self._node_manager(worker) for worker in WORKERS),
        ]

    def _data_node(self, worker: int) -> Daemon:
        name = f"datanode-{worker}"
        own = {
            "dfs.datanode.data.dir": (self.state / name / "data").as_uri(),
            "dfs.datanode.address": f"{MASTER}:{self.ports[name + '.data']}",
            "dfs.datanode.ipc.address": f"{MASTER}:{self.ports[name + '.ipc']}",
            "dfs.datanode.http.address": f"{MASTER}:{self.ports[name + '.http']}",
        }
        return Daemon(name, "org.apache.hadoop.hdfs.server.datanode.DataNode", 256, {"hdfs-site": own})

    def _node_manager(self, worker: int) -> Daemon:
        name, host = f"nodemanager-{worker}", worker_host(worker)
        own = {
            "yarn.nodemanager.recovery.dir": str(self.state / name / "recovery"),
            "yarn.nodemanager.local-dirs": str(self.state / name / "local"),
            "yarn.nodemanager.log-dirs": str(self.state / name / "logs"),
            "yarn.nodemanager.address": f"{host}:{self.ports[name + '.rpc']}",
            "yarn.nodemanager.localizer.address": f"{host}:{self.ports[name + '.localizer']}",
            "yarn.nodemanager.webapp.address": f"{host}:{self.ports[name + '.http']}",
        }
        if own_classes(self.state).is_dir():
            own["fs.AbstractFileSystem.file.impl"] = "org.apache.hadoop.fs.local.JavaPermissions"
        return Daemon(name, "org.apache.hadoop.yarn.server.nodemanager.NodeManager", 256, {"yarn-site": own})

    def sites(self) -> dict[str, dict[str, str]]:
        """The configuration files that all daemons and clients share, by name."""
        rm = {
            use: f"{MASTER}:{self.ports['resourcemanager.' + use]}"
            for use in ("rpc", "scheduler", "tracker", "admin", "http")
        }
        return {
            "core-site": {
                "fs.defaultFS": self.file_system,
                "hadoop.tmp.dir": str(self.state / "tmp"),
                "hadoop.http.staticuser.user": "segpipe",
            },
            "hdfs-site": {
                "dfs.replication": str(len(WORKERS)),
                "dfs.namenode.name.dir": (self.state / "namenode" / "name").as_uri(),
                "dfs.namenode.http-address": f"{MASTER}:{self.ports['namenode.http']}",
                "dfs.namenode.handler.count": "4",
                "dfs.datanode.handler.count": "4",
                # A killed data node counts as dead after 2 x 10 s + 10 x 3 s instead of ten minutes.
                "dfs.namenode.heartbeat.recheck-interval": "10000",
                # Leave safe mode when the last data node has reported, without the extra 30 s meant for large clusters.
                "dfs.namenode.safemode.extension": "0",
                "dfs.client.block.write.replace-datanode-on-failure.best-effort": "true",
            },
            "yarn-site": {
                "yarn.resourcemanager.hostname": MASTER,
                "yarn.resourcemanager.address": rm["rpc"],
                "yarn.resourcemanager.scheduler.address": rm["scheduler"],
                "yarn.resourcemanager.resource-tracker.address": rm["tracker"],
                "yarn.resourcemanager.admin.address": rm["admin"],
                "yarn.resourcemanager.webapp.address": rm["http"],
                "yarn.resourcemanager.nodemanagers.heartbeat-interval-ms": "250",
                # A killed node manager is missed after half a minute instead of ten.
                "yarn.nm.liveness-monitor.expiry-interval-ms": "30000",
                "yarn.scheduler.minimum-allocation-mb": "256",
                "yarn.scheduler.maximum-allocation-mb": str(self.node_memory_mb),
                "yarn.nodemanager.resource.memory-mb": str(self.node_memory_mb),
                "yarn.nodemanager.resource.cpu-vcores": "4",
                # Real memory is policed, so that a job whose overhead is too small fails here and not at the customer;
                # virtual memory is not, for a JVM and TensorFlow reserve far more address space than they touch.
                "yarn.nodemanager.pmem-check-enabled": "true",
                "yarn.nodemanager.vmem-check-enabled": "false",
                # The default takes a node out of service when its disk is 90 % full, which laptops often are.
                "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": "99",
                "yarn.nodemanager.disk-health-checker.min-free-space-per-disk-mb": "2048",
                # A node manager that is started again still has the archives it unpacked; unsupervised, it ends its
                # containers when it is told to stop.
                "yarn.nodemanager.recovery.enabled": "true",
                "yarn.nodemanager.recovery.supervised": "false",
                # Containers inherit nothing of the daemon's own set-up but Java, and where the realm is that real nodes
                # find in /etc.
                "yarn.nodemanager.env-whitelist": "JAVA_HOME,KRB5_CONFIG,JAVA_TOOL_OPTIONS",
                "yarn.nodemanager.localizer.fetch.thread-count": "2",
                "yarn.log-aggregation-enable": "false",
            },
            "capacity-scheduler": {
                "yarn.scheduler.capacity.root.queues": "default",
                "yarn.scheduler.capacity.root.default.capacity": "100",
                # The default of 0.1 would leave no room for one application master on a cluster this small.
                "yarn.scheduler.capacity.maximum-am-resource-percent": "0.5",
                # One container per node and heartbeat: two executors land on two nodes.
                "yarn.scheduler.capacity.per-node-heartbeat.multiple-assignments-enabled": "false",
            },
        }

    def write_configuration(self) -> None:
        """Write the clients' configuration and each daemon's own."""
        shared = self.sites()
        if self.kerberos:
            shared = _merged(shared, self.realm.sites(getpass.getuser()))
        _write_sites(self.conf, shared)
        for daemon in self.daemons():
            own = _merged(shared, daemon.overrides)
            _write_sites(self.state / daemon.name / "conf", own)
            shutil.copy(LOG4J, self.state / daemon.name / "conf" / "log4j.properties")


def _merged(sites: Mapping[str, Mapping[str, str]], more: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    return {name: dict(values) | dict(more.get(name, {})) for name, values in sites.items()}


def _write_sites(folder: Path, sites: Mapping[str, Mapping[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in sites.items():
        properties = "\n".join(
            f"  <property><name>{escape(key)}</name><value>{escape(value)}</value></property>"
            for key, value in values.items()
        )
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<configuration>\n{properties}\n</configuration>\n'
        (folder / f"{name}.xml").write_text(text)


# Java and the class path ---------------------------------------------------------------------------------------------


def find_java() -> Path:
    """JAVA_HOME, or the home of the `java` on the PATH; ClusterError where there is none."""
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").exists():
        return Path(home)
    found = shutil.which("java")
    if not found:
        raise ClusterError(
            "Java is missing: install a Java 17 runtime (Debian: openjdk-17-jre-headless) or set JAVA_HOME"
        )
    return Path(found).resolve().parents[1]


def class_path(state: Path) -> str:
    """The daemons' jars as a class path, resolved by Maven once per version of pom.xml."""
    cached = state / f"classpath-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if cached.exists() and all(Path(jar).exists() for jar in cached.read_text().split(os.pathsep)):
        return cached.read_text()
    if not shutil.which("mvn"):
        raise ClusterError("Maven is missing: install it (Debian: maven), the cluster's jars are Maven artifacts")
    print("hadoop: resolving Hadoop's jars with Maven (about 90 MB the first time)", flush=True)
    fresh = cached.with_suffix(".new")
    command = ["mvn", "-B", "-q", "-f", str(POM), "dependency:build-classpath", f"-Dmdep.outputFile={fresh}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0 or not fresh.exists():
        raise ClusterError(f"Maven could not resolve Hadoop's jars; its last words:\n{done.stdout[-2000:]}")
    fresh.rename(cached)
    return cached.read_text()


def own_classes(state: Path) -> Path:
    """Where JavaPermissions is, once compiled."""
    return state / f"classes-{hashlib.sha256(PERMISSIONS.read_bytes()).hexdigest()[:12]}"


def compile_own_classes(state: Path, jars: str, java: Path) -> None:
    """Compile JavaPermissions unless it is, or Java came without its compiler.

    Node managers then set permissions as Hadoop does without its native library, which takes minutes for Python.
    """
    target, compiler = own_classes(state), java / "bin" / "javac"
    if target.is_dir() or not compiler.exists():
        return
    fresh = target.with_suffix(".new")
    command = [str(compiler), "-cp", jars, "-proc:none", "-d", str(fresh), str(PERMISSIONS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{PERMISSIONS} could not be compiled:\n{done.stderr[-2000:]}")
    fresh.rename(target)


# Processes -----------------------------------------------------------------------------------------------------------


def _record(cluster: Cluster, name: str) -> Path:
    return cluster.state / name / "process.json"


def process_of(cluster: Cluster, name: str) -> psutil.Process | None:
    """The running process of a daemon that this folder recorded; None if it is gone or its pid is another's."""
    try:
        record = json.loads(_record(cluster, name).read_text())
        process = psutil.Process(record["pid"])
        same = process.create_time() == record["started"] and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, psutil.Error):
        return None
    return process if same else None


def _environment(cluster: Cluster, java: Path) -> dict[str, str]:
    """What a freshly installed node would have: no virtual environment, no home, no settings of this shell."""
    home = cluster.state / "home"
    home.mkdir(exist_ok=True)
    kept = {key: os.environ[key] for key in ("USER", "LOGNAME", "LANG", "TZ") if key in os.environ}
    kept |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "JAVA_HOME": str(java)}
    return kept | (cluster.realm.environment if cluster.kerberos else {})


def _java_command(cluster: Cluster, daemon: Daemon, jars: str, java: Path, *arguments: str) -> list[str]:
    folder = cluster.state / daemon.name
    classpath = os.pathsep.join((str(folder / "conf"), str(own_classes(cluster.state)), jars))
    logs = [f"-Dhadoop.log.dir={folder}", f"-Dyarn.log.dir={folder}"]
    return [
        str(java / "bin" / "java"),
        f"-Dproc_{daemon.name}",
        f"-Xmx{daemon.heap_mb}m",
        *JVM,
        *logs,
        "-cp",
        classpath,
        daemon.main,
        *arguments,
    ]


def _format_name_node(cluster: Cluster, daemon: Daemon, jars: str, java: Path) -> None:
    if (cluster.state / "namenode" / "name" / "current" / "VERSION").exists():
        return
    for worker in WORKERS:  # blocks of an earlier name space would be refused
        shutil.rmtree(cluster.state / f"datanode-{worker}" / "data", ignore_errors=True)
    with cluster.log("namenode").open("ab") as log:
        command = _java_command(cluster, daemon, jars, java, "-format", "-nonInteractive", "-force")
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(cluster, java), check=False
        )
    if done.returncode != 0:
        raise ClusterError(f"HDFS could not be formatted:\n{_tail(cluster, 'namenode')}")


def hidden_from_nodes(java: Path) -> list[Path]:
    """What real nodes would not have: the checkout's code, its virtual environment and the Python behind that."""
    folders = [ROOT / name for name in (".venv", "segpipe", "jobs")]
    if not sys.base_prefix.startswith("/usr"):
        folders.append(Path(sys.base_prefix))
    return [folder for folder in folders if folder.is_dir() and not java.is_relative_to(folder.resolve())]


def _apart(command: list[str], hidden: list[Path]) -> list[str]:
    """`command` in a mount name space where the hidden folders are empty; as it is where Linux does not allow that."""
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    mounts = " && ".join(f"mount -t tmpfs -o ro,size=4k none {shlex.quote(str(folder))}" for folder in hidden)
    apart = ["unshare", "--mount", *as_root, "sh", "-c", f'{mounts or "true"} && exec "$@"', "sh"]
    try:
        allowed = subprocess.run([*apart, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        print("hadoop: this system does not let the nodes be kept from this machine's Python and code", file=sys.stderr)
    return [*apart, *command] if allowed else command


def start(cluster: Cluster, daemon: Daemon) -> None:
    """Start one daemon unless it runs already, and record its process."""
    if process_of(cluster, daemon.name):
        return
    jars, java = class_path(cluster.state), find_java()
    if daemon.name == "namenode":
        _format_name_node(cluster, daemon, jars, java)
    command = _java_command(cluster, daemon, jars, java)
    if daemon.name.startswith("nodemanager") and cluster.apart:
        command = _apart(command, hidden_from_nodes(java))
    with cluster.log(daemon.name).open("ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(cluster, java),
            cwd=cluster.state / daemon.name,
            start_new_session=True,
        )
    _keep(cluster, daemon.name, child.pid)


def start_kdc(cluster: Cluster) -> None:
    """Start the KDC of a cluster with Kerberos unless it runs already."""
    if process_of(cluster, "kdc"):
        return
    if missing := missing_tools():
        raise ClusterError(
            f"{', '.join(missing)} missing: install Kerberos (Debian: krb5-kdc, krb5-admin-server, krb5-user)"
        )
    cluster.realm.make()
    with cluster.log("kdc").open("ab") as log:
        child = subprocess.Popen(
            cluster.realm.command(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(cluster, find_java()),
            start_new_session=True,
        )
    _keep(cluster, "kdc", child.pid)


def _keep(cluster: Cluster, name: str, pid: int) -> None:
    started = psutil.Process(pid).create_time()
    _record(cluster, name).write_text(json.dumps({"pid": pid, "started": started}))


def end(cluster: Cluster, names: list[str], seconds: float = 20) -> None:
    """End the recorded processes of daemons: asked first, then killed."""
    processes = {name: process for name in names if (process := process_of(cluster, name))}
    for process in processes.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(list(processes.values()), timeout=seconds)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=seconds)
    for name in names:
        _record(cluster, name).unlink(missing_ok=True)


def kill(cluster: Cluster, name: str) -> None:
    """SIGKILL a daemon, as a power cut would: for tests of faults."""
    process = process_of(cluster, name)
    if process is None:
        raise ClusterError(f"{name} does not run: start the cluster first")
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=20)
    _record(cluster, name).unlink(missing_ok=True)


def power_cut(cluster: Cluster, worker: int) -> None:
    """SIGKILL all that runs on a worker: its node manager, the containers of that, and its data node."""
    kill(cluster, f"nodemanager-{worker}")
    killed = containers(cluster, [worker])
    for process in killed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    kill(cluster, f"datanode-{worker}")
    psutil.wait_procs(killed, timeout=20)


def hdfs_admin(cluster: Cluster, *words: str) -> str:
    """Run `hdfs dfsadmin` as the user who started the cluster and give what it prints; ClusterError where it fails."""
    java = find_java()
    classpath = os.pathsep.join((str(cluster.state / "namenode" / "conf"), class_path(cluster.state)))
    command = [str(java / "bin" / "java"), *JVM, "-cp", classpath, "org.apache.hadoop.hdfs.tools.DFSAdmin", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(cluster, java), check=False)
    if done.returncode != 0:
        raise ClusterError(f"dfsadmin {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def containers(cluster: Cluster, workers: Sequence[int] = WORKERS) -> list[psutil.Process]:
    """Processes that work inside a container's directory: what a killed node manager leaves behind."""
    roots = [str(cluster.state / f"nodemanager-{worker}" / "local") + os.sep for worker in workers]
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if any((process.cwd() + os.sep).startswith(root) for root in roots):
                found.append(process)
    return found


# Health --------------------------------------------------------------------------------------------------------------


def _ask(url: str) -> Any:
    with urllib.request.urlopen(
        urllib.request.Request(url, headers={"Accept": "application/json"}), timeout=5
    ) as answer:
        return json.load(answer)


def complaints(cluster: Cluster) -> list[str]:
    """What the daemons themselves say is missing; empty when the cluster is healthy."""
    return [*_hdfs_complaints(cluster), *_yarn_complaints(cluster), *_silent_workers(cluster)]


def _hdfs_complaints(cluster: Cluster) -> Iterator[str]:
    try:
        (info,) = _ask(f"{cluster.web('namenode')}/jmx?qry=Hadoop:service=NameNode,name=NameNodeInfo")["beans"]
    except (OSError, ValueError, KeyError):
        yield "the name node does not answer"
        return
    if info["Safemode"]:
        yield "HDFS is in safe mode"
    live = len(json.loads(info["LiveNodes"]))
    if live < len(WORKERS):
        yield f"{live} of {len(WORKERS)} data nodes are alive"


def _yarn_complaints(cluster: Cluster) -> Iterator[str]:
    try:
        nodes = _ask(f"{cluster.web('resourcemanager')}/ws/v1/cluster/nodes?states=RUNNING")["nodes"] or {"node": []}
    except (OSError, ValueError, KeyError):
        yield "the resource manager does not answer"
        return
    running = {node["id"].rpartition(":")[2] for node in nodes["node"]}
    wanted = {str(cluster.ports[f"nodemanager-{worker}.rpc"]) for worker in WORKERS}
    if not wanted <= running:
        yield f"{len(wanted & running)} of {len(WORKERS)} node managers run"


def _silent_workers(cluster: Cluster) -> Iterator[str]:
    """The masters count a daemon that was just killed as alive for a while; it does not answer, though."""
    for worker in WORKERS:
        for name, host, use in (
            (f"datanode-{worker}", MASTER, "data"),
            (f"nodemanager-{worker}", worker_host(worker), "rpc"),
        ):
            try:
                socket.create_connection((host, cluster.ports[f"{name}.{use}"]), timeout=5).close()
            except OSError:
                yield f"{name} does not answer"


def _tail(cluster: Cluster, name: str, lines: int = 15) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(cluster.log(name).read_text(errors="replace").splitlines()[-lines:])
    return ""


def wait_until_healthy(cluster: Cluster, seconds: float) -> None:
    """Poll the daemons until none complains; ClusterError when one dies or the time is over."""
    deadline = time.monotonic() + seconds
    while faults := complaints(cluster):
        dead = [daemon.name for daemon in cluster.daemons() if not process_of(cluster, daemon.name)]
        if dead:
            raise ClusterError(f"{dead[0]} ended; the end of {cluster.log(dead[0])}:\n{_tail(cluster, dead[0])}")
        if time.monotonic() > deadline:
            raise ClusterError(
                f"After {seconds:.0f} s {'; '.join(faults)}: see the logs in {cluster.state}/*/daemon.log"
            )
        time.sleep(0.25)


def _calm_token_renewer(cluster: Cluster) -> None:
    """Let a thread of the resource manager have only what others leave.

    With Kerberos, Hadoop 3.3's DelegationTokenRenewer goes round its list of late renewals without a pause and takes a
    core of its own (`DelegationTokenRenewerPoolTracker.run`, an empty list included).
    """
    if process := process_of(cluster, "resourcemanager"):
        for thread in Path(f"/proc/{process.pid}/task").glob("*"):
            with contextlib.suppress(OSError):  # it may end while it is looked at
                if (thread / "comm").read_text().startswith("DelegationToken"):
                    os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)


# Commands ------------------------------------------------------------------------------------------------------------


def default_state() -> Path:
    """`.hadoop` in the checkout, or SEGPIPE_HADOOP."""
    return Path(os.environ.get("SEGPIPE_HADOOP", ROOT / ".hadoop")).absolute()


def load(state: Path | None = None) -> Cluster:
    """The cluster of a state folder, as it was last started; ClusterError when it never was."""
    state = state or default_state()
    try:
        saved = json.loads((state / "cluster.json").read_text())
    except FileNotFoundError:
        raise ClusterError(f"There is no cluster in {state}: start it with `make hadoop-up`") from None
    return Cluster(state, **saved)


def is_up(state: Path | None = None) -> bool:
    """Whether anything of the cluster in `state` runs."""
    with contextlib.suppress(ClusterError):
        cluster = load(state)
        return any(process_of(cluster, daemon.name) for daemon in cluster.daemons())
    return False


@contextlib.contextmanager
def _exclusive(state: Path) -> Iterator[None]:
    """One command at a time per state folder."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def up(
    state: Path | None = None,
    node_memory_mb: int = 10240,
    kerberos: bool = False,
    apart: bool = True,
    seconds: float = 180,
) -> Cluster:
    """Start what does not run of the cluster in `state` and wait until it is healthy.

    A cluster that runs stays as it is, whatever else is asked for.
    """
    state = state or default_state()
    java = find_java()
    with _exclusive(state):
        compile_own_classes(state, class_path(state), java)
        cluster = _plan(Cluster(state, PORTS, node_memory_mb, kerberos, apart))
        if cluster.kerberos:
            start_kdc(cluster)
        for daemon in cluster.daemons():
            start(cluster, daemon)
        wait_until_healthy(cluster, seconds)
        if cluster.kerberos:
            _calm_token_renewer(cluster)
    return cluster


def _plan(asked: Cluster) -> Cluster:
    """The cluster as it runs, or the one asked for with free ports where nothing of it does."""
    wanted: Mapping[str, int] = asked.ports
    with contextlib.suppress(ClusterError):
        known = load(asked.state)
        if is_up(asked.state):
            return known
        wanted = known.ports
    cluster = replace(asked, ports=choose_ports({**(KDC_PORT if asked.kerberos else {}), **wanted}))
    saved = asdict(cluster)
    del saved["state"]
    (cluster.state / "cluster.json").write_text(json.dumps(saved, indent=1))
    cluster.write_configuration()
    return cluster


def down(state: Path | None = None) -> None:
    """End all processes of the cluster in `state`, containers included; nothing to do is fine."""
    state = state or default_state()
    if not state.exists():
        return
    with _exclusive(state), contextlib.suppress(ClusterError):
        cluster = load(state)
        end(cluster, [f"nodemanager-{worker}" for worker in WORKERS])
        for process in (orphans := containers(cluster)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(orphans, timeout=20)
        end(cluster, ["resourcemanager", *(f"datanode-{worker}" for worker in WORKERS), "namenode", "kdc"])


def _describe(cluster: Cluster) -> str:
    rows = {"name node": cluster.web("namenode"), "resource manager": cluster.web("resourcemanager")}
    rows |= {f"data node {worker}": cluster.web(f"datanode-{worker}") for worker in WORKERS}
    rows |= {f"node manager {worker}": cluster.web(f"nodemanager-{worker}") for worker in WORKERS}
    rows |= {"file system": cluster.file_system, "logs": f"{cluster.state}/*/daemon.log"}
    table = "\n".join(f"  {label:<17}{value}" for label, value in rows.items())
    settings = {"HADOOP_CONF_DIR": str(cluster.conf)} | (cluster.realm.environment if cluster.kerberos else {})
    return f"{table}\n\n" + "\n".join(f"export {name}={shlex.quote(value)}" for name, value in settings.items())


def _status(state: Path) -> int:
    cluster = load(state)
    for daemon in cluster.daemons():
        process = process_of(cluster, daemon.name)
        print(f"  {daemon.name:<17}{f'pid {process.pid}' if process else 'does not run'}")
    faults = complaints(cluster)
    print("hadoop: " + ("; ".join(faults) if faults else "healthy"))
    return 1 if faults else 0


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 when the cluster is as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("up", "down", "status", "reset"))
    parser.add_argument(
        "--state", type=Path, default=default_state(), help="folder of all state (default: %(default)s)"
    )
    parser.add_argument(
        "--node-memory-mb",
        type=int,
        default=10240,
        help="memory that each node manager hands out, MB (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, default=180, help="how long to wait for health, seconds (default: %(default)s)"
    )
    parser.add_argument("--kerberos", action="store_true", help="ask for tickets; needs Debian's KDC")
    options = parser.parse_args(argv)
    state = options.state.absolute()
    try:
        if options.command == "up":
            began = time.monotonic()
            cluster = up(state, options.node_memory_mb, options.kerberos, seconds=options.seconds)
            print(f"hadoop: healthy after {time.monotonic() - began:.0f} s\n{_describe(cluster)}")
        elif options.command == "status":
            return _status(state)
        else:
            down(state)
            if options.command == "reset":
                shutil.rmtree(state, ignore_errors=True)
    except ClusterError as error:
        print(f"hadoop: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
