"""What a process and all below it listen at, for tests that want nothing of it to be reached from elsewhere."""

import ipaddress
import os
import threading

import psutil


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
