"""The ring adds what each worker gives, to the same bits, and lets in nobody but them."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import pytest

from segpipe.errors import SegpipeError, UsageError
from segpipe.trainers.meeting import LOOPBACK, Meeting, listener, own_address, port_range
from segpipe.trainers.ring import Ring, admit, call

PORTS = "40300-40399"
SECRET = b"of this training"


def together(size, work, secrets=None):
    """What `work(ring)` gives for each of `size` workers, in threads of this process."""
    said, all_here = [""] * size, threading.Barrier(size, timeout=30)

    def run(rank):
        def gather(text):
            said[rank] = text
            all_here.wait()
            return list(said)

        meeting = Meeting(rank, ("here",) * size, gather)
        ring = Ring.join(meeting, (secrets or [SECRET] * size)[rank], PORTS)
        try:
            return work(ring)
        finally:
            ring.close()

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(), (2, 3), (1_000_003,)], ids=["a number", "fewer than workers", "large"])
def test_every_worker_gets_the_sum_and_the_same_bits(size, shape):
    arrays = [np.random.default_rng(rank).normal(size=shape).astype(np.float32) for rank in range(size)]
    sums = together(size, lambda ring: ring.add(arrays[ring.rank]))
    np.testing.assert_allclose(sums[0], np.sum(arrays, axis=0, dtype=np.float64), rtol=1e-5, atol=1e-5)
    assert {(found.shape, found.dtype, found.tobytes()) for found in sums} == {
        (shape, np.dtype(np.float32), sums[0].tobytes())
    }


def test_sums_follow_each_other_and_what_was_given_stays_as_it_is():
    given = np.arange(6.0).reshape(2, 3)
    found = together(3, lambda ring: [ring.add(given * factor).sum() for factor in (1, 2, 3)])
    assert found == [[45.0, 90.0, 135.0]] * 3
    assert given.sum() == 15


def test_a_worker_that_leaves_is_an_error_for_the_others_and_nobody_waits():
    def work(ring):
        if ring.rank == 1:
            return "gone"
        with pytest.raises(OSError, match=r"left the training|reset|Broken pipe"):
            add_for_ever(ring)
        return "told"

    def add_for_ever(ring):
        while True:
            ring.add(np.ones(10))

    assert together(3, work) == ["told", "gone", "told"]


def test_who_does_not_know_the_secret_is_not_let_in_and_who_does_is():
    with listener(LOOPBACK, PORTS) as server, ThreadPoolExecutor(1) as pool:
        place = server.getsockname()[:2]
        admitted = pool.submit(admit, server, SECRET, 3, 20.0)
        with pytest.raises(ConnectionError):
            call(place, b"another secret", 3)
        call(place, SECRET, 2).close()  # one of us, but not the neighbour
        with socket.create_connection(place) as silent:
            silent.sendall(b"GET / HTTP/1.0\r\n\r\n")
        behind = call(place, SECRET, 3)
        behind.sendall(b"x")
        assert admitted.result().recv(1) == b"x"


def test_an_impostor_that_listens_is_found_out():
    with listener(LOOPBACK, PORTS) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(admit, server, b"another secret", 0, 1.0)
        with pytest.raises(ConnectionError, match=r"127.0.0.1:\d+ does not know this training's secret"):
            call(server.getsockname()[:2], SECRET, 0)


def test_nothing_listens_once_all_have_come():
    import psutil

    def listening(ring):
        ring.add(np.ones(1))
        return [one for one in psutil.Process().net_connections("tcp") if one.status == "LISTEN"]

    before = [one for one in psutil.Process().net_connections("tcp") if one.status == "LISTEN"]
    assert together(2, listening)[0] == before


def test_workers_of_one_machine_meet_on_loopback_and_others_on_the_way_to_each_other():
    assert own_address("node1", ["node1", "node1"]) == LOOPBACK
    assert own_address("a", ["a", "127.0.0.7"]) == LOOPBACK  # the kernel's own way there
    assert own_address("a", ["a", "::1"]) == "::1"


def test_on_a_network_only_ports_of_the_range_are_taken():
    first = next(port for port in count(20_000, 7) if all(_free(port + more) for more in range(2)))
    ports = f"{first}-{first + 1}"
    with listener("127.0.0.2", ports) as one, listener("127.0.0.2", ports) as other:
        assert [end.getsockname() for end in (one, other)] == [("127.0.0.2", first), ("127.0.0.2", first + 1)]
        with pytest.raises(SegpipeError, match=rf"No port of {ports} is free at 127.0.0.2: give a wider range"):
            listener("127.0.0.2", ports)


def _free(port):
    try:
        socket.create_server(("127.0.0.2", port)).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("text", ["", "40300", "40399-40300", "80-90", "1024-70000", "a-b", "-1024-2000"])
def test_what_is_no_range_of_ports_is_told(text):
    with pytest.raises(UsageError, match="give first-last"):
        port_range(text)
