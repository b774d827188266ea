"""What Spark and YARN say when they refuse a job, as one line with the option that mends it."""

from __future__ import annotations

import re

from segpipe.errors import SegpipeError

_LARGEST = "or have yarn.scheduler.maximum-allocation-mb raised"

# Pattern, problem, remedy; numbers in braces are the pattern's groups. The first that is found counts.
_KNOWN = (
    (
        r"unknown queue: ?(\S+?)\s*(?:\)|$)",
        "Queue {1} does not exist on this cluster",
        "give --queue one that `doctor` names",
    ),
    (
        r"(?:User|user) (\S+) (?:does not have permission to submit|cannot submit) .*?queue:? ?(\S+)",
        "User {1} may not submit to queue {2}",
        "give another --queue, or ask its administrator for the right",
    ),
    (
        r"Required executor memory \((\d+) MB\).*?overhead \((\d+) MB\).*?max threshold \((\d+) MB\)",
        "An executor of {1} MB and {2} MB overhead is more than the {3} MB that a container may have",
        f"give less --executor-memory or --conf spark.executor.memoryOverhead, {_LARGEST}",
    ),
    (
        r"Required AM memory \((\d+)\+(\d+) MB\).*?max threshold \((\d+) MB\)",
        "A driver of {1} MB and {2} MB overhead is more than the {3} MB that a container may have",
        f"give less --driver-memory or --conf spark.driver.memoryOverhead, {_LARGEST}",
    ),
    (
        r"Requested resource type=\[vcores\].*?vCores:(\d+)>, maximum allowed allocation=<[^>]*vCores:(\d+)",
        "A container of {1} cores is more than the {2} that one may have",
        "give --executor-cores {2} at most, or have yarn.scheduler.maximum-allocation-vcores raised",
    ),
    (
        r"Requested resource type=\[memory-mb\].*?memory:(\d+)[^>]*>, maximum allowed allocation=<memory:(\d+)",
        "A container of {1} MB is more than the {2} MB that one may have",
        f"give less --executor-memory or --conf spark.executor.memoryOverhead, {_LARGEST}",
    ),
    (
        r"SafeModeException\)?: (.*?)(?:\. Name node is in safe mode|\.?\s*$)",
        "HDFS is in safe mode ({1})",
        "wait until the name node has left it (`hdfs dfsadmin -safemode get` tells)",
    ),
    (
        r"[DN]SQuotaExceededException\)?: (The \w+ quota .*? is exceeded)",
        "HDFS refused: {1}",
        "delete files below that folder, or ask the administrator for a larger quota",
    ),
    (
        r"AccessControlException\)?: (Permission denied: user=\S+, access=\w+, inode=\"[^\"]*\")",
        "HDFS refused: {1}",
        "ask the owner of that folder for access, or the administrator for a home folder on HDFS",
    ),
    (
        r"(?:Delegation Token can be issued only|Client cannot authenticate via:\[\w*(?:TOKEN|KERBEROS)|"
        r"Failed to find any Kerberos tgt|No valid credentials provided)",
        "The cluster asks for Kerberos, and there is no valid ticket",
        "kinit, or give --principal and --keytab",
    ),
    (
        r"A secret key must be specified via the spark.authenticate.secret config",
        "Spark has no secret to prove itself with (spark.authenticate is on)",
        "let SEGPIPE_SPARK_SECRET_FILE name the file of the cluster's secret, see docs/security.md",
    ),
    (
        r"Connecting to ResourceManager at (\S+)|Call From \S+ to (\S+) failed on connection exception",
        "Nobody answers at {1}{2}",
        "check HADOOP_CONF_DIR and that the daemon runs (`doctor` tells)",
    ),
)


def refusal(text: str) -> SegpipeError | None:
    """The error behind what Spark or YARN wrote, None if it is none that is known here.

    >>> print(refusal("Application application_1_1 submitted by user a to unknown queue: nope"))
    Queue nope does not exist on this cluster: give --queue one that `doctor` names
    """
    for pattern, problem, remedy in _KNOWN:
        if found := re.search(pattern, text, re.MULTILINE):
            groups = [part or "" for part in (found[0], *found.groups())]
            return SegpipeError(problem.format(*groups), remedy.format(*groups))
    return None


def explanation(talk: str) -> SegpipeError:
    """Why spark-submit failed, by all it wrote: a refusal that is known, or the line that tells most."""
    if known := refusal(talk):
        return known
    lines = [line.strip() for line in talk.splitlines() if line.strip()]
    causes = [line.partition("Caused by: ")[2] for line in lines if "Caused by: " in line]
    said = [line for line in lines if re.search(r"Exception|Error|rror:|nvalid", line) and not line.startswith("at ")]
    cause = (causes[-1:] or said[:1] or lines[-1:] or ["it said nothing"])[0]
    cause = cause.removeprefix('Exception in thread "main" ')
    return SegpipeError(
        f"spark-submit failed ({cause})", "check its options; add --verbose after the job to see all that it said"
    )
