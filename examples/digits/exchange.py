"""Averages arrays over all ranks through rank 0, bit for bit the same in every run.

Only MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE are used. Rank 0 receives everybody's array, adds them in the order of
ranks in float64, and sends the mean back. Floating-point addition depends on its order, so the order is fixed.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import List

import numpy as np

#: Rank 0 may be started later than the others; they try this long.
CONNECT_SECONDS = 60.0
#: A rank that says nothing for this long is taken for dead.
SILENCE_SECONDS = 60.0
_LENGTH = struct.Struct("<Q")


class Exchange:
    """A star of TCP connections around rank 0. If any rank dies, every other one gets an `OSError` at once."""

    def __init__(self, rank: int, world_size: int, address: str, port: int) -> None:
        self.rank = rank
        self.world_size = world_size
        self._peers: List[socket.socket] = []
        if world_size == 1:
            return
        if rank == 0:
            self._peers = _accept_all(address, port, world_size)
        else:
            self._peers = [_connect(address, port, rank)]

    @classmethod
    def from_environment(cls) -> "Exchange":
        return cls(
            int(os.environ.get("RANK", "0")),
            int(os.environ.get("WORLD_SIZE", "1")),
            os.environ.get("MASTER_ADDR", "127.0.0.1"),
            int(os.environ.get("MASTER_PORT", "29500")),
        )

    def mean(self, mine: np.ndarray) -> np.ndarray:
        """The mean of every rank's float64 array of the same shape; the same bits on every rank."""
        assert mine.dtype == np.float64
        if self.world_size == 1:
            return mine
        if self.rank != 0:
            _send(self._peers[0], mine)
            return _receive(self._peers[0], mine.shape)
        total = mine.copy()
        for peer in self._peers:  # in the order of ranks
            total += _receive(peer, mine.shape)
        total /= self.world_size
        for peer in self._peers:
            _send(peer, total)
        return total

    def close(self) -> None:
        for peer in self._peers:
            peer.close()


def _accept_all(address: str, port: int, world_size: int) -> List[socket.socket]:
    deadline = time.monotonic() + CONNECT_SECONDS
    by_rank = {}
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(world_size)
        while len(by_rank) < world_size - 1:
            listener.settimeout(max(0.01, deadline - time.monotonic()))
            connection, _ = listener.accept()
            _tune(connection)
            (rank,) = _LENGTH.unpack(_receive_exactly(connection, _LENGTH.size))
            by_rank[rank] = connection
    return [by_rank[rank] for rank in sorted(by_rank)]


def _connect(address: str, port: int, rank: int) -> socket.socket:
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            connection = socket.create_connection((address, port), timeout=5.0)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    _tune(connection)
    connection.sendall(_LENGTH.pack(rank))
    return connection


def _tune(connection: socket.socket) -> None:
    connection.settimeout(SILENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _send(connection: socket.socket, array: np.ndarray) -> None:
    connection.sendall(_LENGTH.pack(array.nbytes))
    connection.sendall(np.ascontiguousarray(array).data.cast("B"))


def _receive(connection: socket.socket, shape: tuple) -> np.ndarray:
    (size,) = _LENGTH.unpack(_receive_exactly(connection, _LENGTH.size))
    expected = int(np.prod(shape)) * 8
    if size != expected:
        raise OSError(f"a peer sent {size} bytes instead of {expected}")
    return np.frombuffer(_receive_exactly(connection, size), dtype=np.float64).reshape(shape)


def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        chunk = connection.recv(min(size - len(parts), 1 << 20))
        if not chunk:
            raise ConnectionError("a peer went away")
        parts += chunk
    return bytes(parts)
