"""On one machine nothing of a training listens beyond loopback, whatever the trainer."""

import ipaddress
import os
import threading

import psutil
import pytest

from segpipe import trainers
from segpipe.warehouse.runs import record_run

pytestmark = pytest.mark.slow


class Listeners:
    """What this process and all below it listen at, looked up again and again: (ip, port, process)."""

    def __init__(self):
        self.seen = set()
        self.looks = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(0.05):
            me = psutil.Process(os.getpid())
            for process in [me, *me.children(recursive=True)]:
                self.seen |= listening(process)
            self.looks += 1

    @property
    def beyond_loopback(self):
        return {place for place in self.seen if not _is_loopback(place[0])}


def listening(process):
    try:
        ends = [end.laddr for end in process.net_connections("tcp") if end.status == psutil.CONN_LISTEN]
        return {(end.ip, end.port, " ".join(process.cmdline()[:4])) for end in ends}
    except psutil.Error:  # it has ended
        return set()


def _is_loopback(text):
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


@pytest.mark.parametrize("trainer", ["orca", "horovod"])
def test_a_training_on_one_machine_listens_on_loopback_alone(settings, spark, trainer):
    wanted = settings(trainer=trainer, epochs=1)
    with Listeners() as listeners, record_run(None, "train", wanted) as record:
        trainers.train(wanted, spark, record)
    assert listeners.looks > 10
    assert listeners.seen, "Spark itself listens: whoever sees nothing has not looked"
    assert not listeners.beyond_loopback
