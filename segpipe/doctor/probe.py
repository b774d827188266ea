"""What the resource manager tells this user, asked by YARN's own Java client as spark-submit would: one line of JSON.

`python -m segpipe.doctor.probe QUEUE [PRINCIPAL KEYTAB]`; Java without a Spark context, about 4 s. Exit code 1 with
the cause as the last line of stderr where the resource manager does not answer or refuses.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

# A doctor waits seconds, not the quarter of an hour that a job may.
_PATIENCE = {
    "yarn.resourcemanager.connect.max-wait.ms": 6000,
    "yarn.resourcemanager.connect.retry-interval.ms": 1000,
    "yarn.client.failover-max-attempts": 3,
    "yarn.client.failover-sleep-base-ms": 500,
    "ipc.client.connect.max.retries": 1,
    "ipc.client.connect.timeout": 4000,
    "ipc.client.connect.max.retries.on.timeouts": 1,
}


def main(argv: Sequence[str]) -> int:
    """Print what YARN answers; the exit code."""
    from py4j.protocol import Py4JJavaError
    from pyspark.java_gateway import launch_gateway

    from segpipe.launch.java import java_home

    queue, login = argv[0], argv[1:]
    os.environ["JAVA_HOME"] = str(java_home())
    os.environ["PYSPARK_SUBMIT_ARGS"] = "--master local --driver-memory 256m pyspark-shell"
    gateway = launch_gateway()
    jvm: Any = gateway.jvm
    try:
        print(json.dumps(_ask(jvm, queue, login)), flush=True)
        return 0
    except Py4JJavaError as error:
        cause = error.java_exception
        while cause.getCause() is not None:
            cause = cause.getCause()
        print(str(cause.toString()).splitlines()[0], file=sys.stderr)
        return 1
    finally:
        gateway.shutdown()
        gateway.proc.stdin.close()


def _ask(jvm: Any, queue: str, login: Sequence[str]) -> dict[str, Any]:
    hadoop = jvm.org.apache.hadoop
    conf = hadoop.yarn.conf.YarnConfiguration()
    for key, value in _PATIENCE.items():
        conf.setInt(key, value)
    hadoop.security.UserGroupInformation.setConfiguration(conf)
    if login:
        hadoop.security.UserGroupInformation.loginUserFromKeytab(*login)
    client = hadoop.yarn.client.api.YarnClient.createYarnClient()
    client.init(conf)
    client.start()
    try:
        largest = client.createApplication().getNewApplicationResponse().getMaximumResourceCapability()
        found = _queue(client, queue)
        return {
            "user": hadoop.security.UserGroupInformation.getCurrentUser().getShortUserName(),
            "client_version": str(hadoop.util.VersionInfo.getVersion()),
            "largest_mb": largest.getMemorySize(),
            "largest_cores": largest.getVirtualCores(),
            "nodes": [_node(report) for report in client.getNodeReports(_array(jvm, hadoop.yarn.api.records))],
            "queues": sorted(str(entry.getQueueName()) for entry in client.getAllQueues()),
            "queue": found and {
                "state": str(found.getQueueState()),
                "share": found.getMaximumCapacity(),
                "may_submit": _may_submit(client, str(found.getQueueName())),
            },
        }  # fmt: skip
    finally:
        client.stop()


def _array(jvm: Any, records: Any) -> Any:
    states = jvm.py4j.reflection.ReflectionUtil.classForName("org.apache.hadoop.yarn.api.records.NodeState")
    array = jvm.java.lang.reflect.Array.newInstance(states, 1)
    array[0] = records.NodeState.RUNNING
    return array


def _node(report: Any) -> dict[str, Any]:
    whole, used = report.getCapability(), report.getUsed()
    return {
        "name": str(report.getNodeId().toString()),
        "web": str(report.getHttpAddress()),
        "mb": whole.getMemorySize(),
        "cores": whole.getVirtualCores(),
        "free_mb": whole.getMemorySize() - (used.getMemorySize() if used is not None else 0),
    }


def _queue(client: Any, name: str) -> Any:
    """The queue of that name, or None; a full path (root.a.b) means its last part, by which queues are listed."""
    wanted = (name, name.rpartition(".")[2])
    return next((entry for entry in client.getAllQueues() if str(entry.getQueueName()) in wanted), None)


def _may_submit(client: Any, name: str) -> bool:
    rights = next((entry for entry in client.getQueueAclsInfo() if str(entry.getQueueName()) == name), None)
    return rights is None or any(str(right) == "SUBMIT_APPLICATIONS" for right in rights.getUserAcls())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
