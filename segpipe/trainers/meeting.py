"""How the workers of a training find each other: tasks of one barrier stage of Spark, each with one address.

Nothing listens on more than that address: loopback where all workers are on one machine, else the one by which this
machine reaches the others.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segpipe.errors import SegpipeError, UsageError

LOOPBACK = "127.0.0.1"
_DISCARD = 9  # a port for datagrams; connecting a socket to it sends none


@dataclass(frozen=True)
class Meeting:
    """The workers of a training, seen from one of them; `hosts` has a machine's name for each rank."""

    rank: int
    hosts: tuple[str, ...]
    gather: Callable[[str], list[str]]
    """Give a text and get those of all workers by rank; every worker must call it."""

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self.hosts)

    @property
    def address(self) -> str:
        """The address that this worker may listen at."""
        return own_address(self.hosts[self.rank], self.hosts)


def barrier_meeting() -> Meeting:
    """The meeting of the barrier stage whose task this process runs."""
    from pyspark import BarrierTaskContext

    context = BarrierTaskContext.get()
    hosts = tuple(info.address.rpartition(":")[0] for info in context.getTaskInfos())
    return Meeting(context.partitionId(), hosts, lambda text: list(context.allGather(text)))


def own_address(host: str, hosts: Sequence[str]) -> str:
    """The address by which this machine, called `host`, reaches the others of `hosts`; loopback where there is none.

    >>> own_address("node1", ["node1", "node1"])
    '127.0.0.1'
    """
    others = [other for other in hosts if other != host]
    if not others:
        return LOOPBACK
    family, kind, protocol, _, where = socket.getaddrinfo(others[0], _DISCARD, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as route:
        route.connect(where)
        return str(route.getsockname()[0])


def port_range(text: str) -> range:
    """The ports of `first-last`. Raises UsageError if it is not such a range.

    >>> port_range("40300-40302")
    range(40300, 40303)
    """
    first, _, last = text.partition("-")
    if first.isdecimal() and last.isdecimal() and 1024 <= int(first) <= int(last) <= 65535:
        return range(int(first), int(last) + 1)
    raise UsageError(f"--ports is {text!r}", "give first-last, between 1024 and 65535, such as 40300-40399")


def listener(address: str, ports: str) -> socket.socket:
    """A socket that listens at `address`, at a free port of `ports`; on this machine's own loopback at any.

    Raises SegpipeError if all of them are taken.
    """
    candidates: Sequence[int] = (0,) if address == LOOPBACK else port_range(ports)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in candidates:
        try:
            return socket.create_server((address, port), family=family, backlog=16)
        except OSError:
            continue
    raise SegpipeError(f"No port of {ports} is free at {address}", "give a wider range of --ports")
