"""Sums over the workers of a training, around a ring of connections that nobody else can join.

A worker listens only until its neighbour has come. Both prove with an HMAC (RFC 2104) that they know the secret of this
training, which Spark brought them. What crosses afterwards is numbers, never pickled, and not encrypted.
"""

import hashlib
import hmac
import json
import secrets
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from segpipe.trainers.meeting import Meeting, listener

_JOIN_SECONDS = 120.0
_PROOF_SECONDS = 20.0
_BYTES = 32
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
"""A machine that answers nothing for a minute counts as lost."""


class Ring:
    """One worker's place in the ring: it hears from the rank before it and speaks to the one behind it."""

    def __init__(self, rank: int, size: int, ends: tuple[socket.socket, socket.socket] | None):
        self.rank = rank
        self.size = size
        self._ends = ends

    @classmethod
    def join(cls, meeting: Meeting, secret: bytes, ports: str) -> "Ring":
        """Take part in the ring of a meeting.

        Raises SegpipeError if no port of `ports` is free, and OSError where a neighbour does not come or does not
        know the secret.
        """
        rank, size = meeting.rank, meeting.size
        if size == 1:
            return cls(rank, size, None)
        address = meeting.address
        with listener(address, ports) as server, ThreadPoolExecutor(1) as pool:
            before = pool.submit(admit, server, secret, (rank - 1) % size)
            places = meeting.gather(json.dumps([address, server.getsockname()[1]]))
            behind = call(tuple(json.loads(places[(rank + 1) % size])), secret, rank)
            return cls(rank, size, (_ready(before.result()), _ready(behind)))

    def add(self, array: np.ndarray) -> np.ndarray:
        """The sum of an array over all workers, the same bits for each (ring all-reduce, Patarasuk and Yuan 2009,
        doi 10.1016/j.jpdc.2008.09.002). All must call it in the same order, with arrays of one shape and dtype.

        Raises ConnectionError if a worker is gone.
        """
        total = np.array(array, order="C")
        if self.size == 1:
            return total
        parts = np.array_split(total.reshape(-1), self.size)
        heard = np.empty_like(parts[0])
        for step in range(self.size - 1):
            mine, theirs = parts[(self.rank - step) % self.size], parts[(self.rank - step - 1) % self.size]
            part = heard[: len(theirs)]
            self._pass_on(mine, part)
            theirs += part
        for step in range(self.size - 1):
            self._pass_on(parts[(self.rank + 1 - step) % self.size], parts[(self.rank - step) % self.size])
        return total

    def close(self) -> None:
        """Leave the ring."""
        for end in self._ends or ():
            end.close()

    def _pass_on(self, said: np.ndarray, heard: np.ndarray) -> None:
        """Send an array behind and fill another from before, both at once, so that nobody waits for a reader."""
        assert self._ends is not None
        before, behind = self._ends
        out, into = _bytes(said), _bytes(heard)
        poll = select.poll()
        if into:
            poll.register(before, select.POLLIN)
        if out:
            poll.register(behind, select.POLLOUT)
        while into or out:
            for end, _ in poll.poll():
                if end == before.fileno():
                    into = into[self._heard(before.recv_into(into)) :]
                    if not into:
                        poll.unregister(before)
                else:
                    out = out[behind.send(out) :]
                    if not out:
                        poll.unregister(behind)

    def _heard(self, count: int) -> int:
        if not count:
            raise ConnectionError(f"worker {(self.rank - 1) % self.size} has left the training")
        return count


def call(place: tuple[str, int], secret: bytes, rank: int) -> socket.socket:
    """A connection to the worker that listens at `place`, as worker `rank`; OSError where it does not prove itself."""
    end = socket.create_connection(place, timeout=_JOIN_SECONDS)
    try:
        asked = rank.to_bytes(4, "big") + secrets.token_bytes(_BYTES)
        end.sendall(asked)
        answer = _receive(end, 2 * _BYTES)
        talk = asked + answer[:_BYTES]
        if not hmac.compare_digest(answer[_BYTES:], _proof(secret, b"admit", talk)):
            raise ConnectionError(f"whoever listens at {place[0]}:{place[1]} does not know this training's secret")
        end.sendall(_proof(secret, b"call", talk))
    except BaseException:
        end.close()
        raise
    return end


def admit(server: socket.socket, secret: bytes, rank: int, seconds: float = _JOIN_SECONDS) -> socket.socket:
    """The connection of worker `rank` to a listening socket; others are closed. TimeoutError where it stays away."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        server.settimeout(left)
        try:
            end, _ = server.accept()
        except TimeoutError:
            break
        try:
            end.settimeout(min(_PROOF_SECONDS, seconds))
            asked = _receive(end, 4 + _BYTES)
            talk = asked + secrets.token_bytes(_BYTES)
            end.sendall(talk[-_BYTES:] + _proof(secret, b"admit", talk))
            proven = hmac.compare_digest(_receive(end, _BYTES), _proof(secret, b"call", talk))
            if proven and asked[:4] == rank.to_bytes(4, "big"):
                return end
        except OSError:  # it closed, or said too little for too long
            pass
        end.close()
    raise TimeoutError(f"worker {rank} did not connect within {seconds:g} s")


def _proof(secret: bytes, side: bytes, talk: bytes) -> bytes:
    return hmac.digest(secret, side + talk, hashlib.sha256)


def _receive(end: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := end.recv(count - len(data))):
            raise ConnectionError("the connection was closed before its proof")
        data += more
    return data


def _bytes(array: np.ndarray) -> memoryview:
    return memoryview(array.view(np.uint8).data) if array.size else memoryview(b"")


def _ready(end: socket.socket) -> socket.socket:
    """The connection as it is used: not blocking, without delay, and watched."""
    end.setblocking(False)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE:
        end.setsockopt(socket.IPPROTO_TCP, option, value)
    return end
