"""The connection to the agent: one background thread that sends, receives and connects again.

Training never waits for it. The agent may be restarted under a running task, so a lost connection is normal: the hello is
sent again, and so is every checkpoint report that has not been answered. Progress is a sample of the present: only the
newest is kept, and at most a few a second are sent.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

Message = Dict[str, Any]
# A checkpoint report is known by its step and shard; a report without shards has shard -1.
ReportKey = Tuple[int, int]

#: Longest line that either side accepts.
MAX_LINE_BYTES = 1 << 20
#: Progress messages are at least this far apart; the newest one wins.
PROGRESS_SECONDS = 0.1
#: Pauses between attempts to connect, the last one repeated.
RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
#: How long one send may block before the connection is given up.
SEND_SECONDS = 5.0


class Channel:
    """Keeps a conversation with the agent going over `path`."""

    def __init__(self, path: str, hello: Message, on_message: Callable[[Message], None]) -> None:
        self._path = path
        self._hello = hello
        self._on_message = on_message
        self._changed = threading.Condition()
        self._reports: Dict[ReportKey, Message] = {}
        self._unsent: List[ReportKey] = []
        self._progress: Optional[Message] = None
        self._closing = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="berth-channel", daemon=True)
        self._thread.start()

    def progress(self, message: Message) -> None:
        """Replaces the progress that has not been sent yet."""
        with self._changed:
            self._progress = message
        self._wake()

    def report(self, key: ReportKey, message: Message) -> None:
        """Sends a checkpoint report, again after each reconnection until `settle(key)`."""
        with self._changed:
            self._reports[key] = message
            self._unsent.append(key)
        self._wake()

    def settle(self, key: ReportKey) -> None:
        """The report was answered (or is given up): do not send it again."""
        with self._changed:
            self._reports.pop(key, None)
            self._changed.notify_all()

    def close(self, seconds: float) -> None:
        """Sends what is left, waiting at most `seconds`, and ends the thread."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._closing = True
            self._wake()
            while (self._unsent or self._progress) and self._thread.is_alive():
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._unsent.clear()
            self._progress = None
        self._wake()
        self._thread.join(max(0.0, deadline - time.monotonic()) + 0.1)
        if not self._thread.is_alive():
            self._wake_reader.close()
            self._wake_writer.close()

    def _wake(self) -> None:
        try:
            self._wake_writer.send(b"x")
        except OSError:
            pass  # full: the thread is about to wake anyway

    def _finished(self) -> bool:
        with self._changed:
            return self._closing and not self._unsent and self._progress is None

    def _run(self) -> None:
        failures = 0
        while not self._finished():
            try:
                connection = self._connect()
            except OSError:
                pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                failures += 1
                self._sleep(pause)
                continue
            failures = 0
            try:
                self._converse(connection)
            except OSError:
                pass  # the agent went away; connect again
            finally:
                connection.close()

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(SEND_SECONDS)
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        return connection

    def _sleep(self, seconds: float) -> None:
        """Sleeps, but not past the moment of closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing, timeout=seconds)
            closing = self._closing
        if closing:
            time.sleep(min(seconds, 0.02))

    def _converse(self, connection: socket.socket) -> None:
        _send(connection, self._hello)
        with self._changed:
            self._unsent = list(self._reports)
        received = b""
        next_progress = 0.0
        while not self._finished():
            next_progress = self._send_due(connection, next_progress)
            pause = None
            with self._changed:
                if self._progress is not None:
                    pause = max(0.0, next_progress - time.monotonic())
                if self._finished():
                    return
            readable, _, _ = select.select([connection, self._wake_reader], [], [], pause)
            if self._wake_reader in readable:
                _drain(self._wake_reader)
            if connection in readable:
                chunk = connection.recv(65536)
                if not chunk:
                    return
                received = self._receive(received + chunk)

    def _send_due(self, connection: socket.socket, next_progress: float) -> float:
        """Sends reports at once and progress when it is due; returns when the next progress is due."""
        while True:
            with self._changed:
                key = self._unsent[0] if self._unsent else None
                report = self._reports.get(key) if key is not None else None
            if key is None:
                break
            if report is not None:
                _send(connection, report)
            with self._changed:
                self._unsent = [other for other in self._unsent if other != key]
                self._changed.notify_all()
        with self._changed:
            message = self._progress
            closing = self._closing
        if message is None or (time.monotonic() < next_progress and not closing):
            return next_progress
        _send(connection, message)
        with self._changed:
            if self._progress is message:
                self._progress = None
            self._changed.notify_all()
        return time.monotonic() + PROGRESS_SECONDS

    def _receive(self, received: bytes) -> bytes:
        *lines, rest = received.split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue  # not for us: both sides ignore what they do not know
            if isinstance(message, dict):
                self._on_message(message)
        if len(rest) > MAX_LINE_BYTES:
            raise OSError("the agent sent a line without end")
        return rest


def _send(connection: socket.socket, message: Message) -> None:
    connection.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")


def _drain(wake: socket.socket) -> None:
    try:
        while wake.recv(4096):
            pass
    except OSError:
        pass
