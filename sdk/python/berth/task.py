"""A task's view of itself: its place in the gang, progress, checkpoints, and what the scheduler asks of it."""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
from pathlib import Path
from typing import Dict, Mapping, Optional

from .channel import Channel, Message, ReportKey
from .checkpoint import Saved, Writer, write

#: Version of the protocol in docs/task-socket.md.
PROTOCOL_VERSION = 1
#: How long `save_checkpoint` waits for the agent's answer unless told otherwise.
ACK_SECONDS = 10.0
#: How long the end of the process waits for unsent messages.
CLOSE_SECONDS = 2.0


class Task:
    """One rank of one attempt. Get it from `init()`. Safe to use from several threads."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        #: The job's id as the scheduler knows it; empty outside Berth.
        self.job_id: str = environ.get("BERTH_JOB_ID", "")
        #: Which attempt this is, counted from 1; 0 outside Berth.
        self.attempt: int = _integer(environ, "BERTH_ATTEMPT", 0)
        #: This task's number, from 0.
        self.rank: int = _integer(environ, "RANK", 0)
        #: How many tasks there are.
        self.world_size: int = _integer(environ, "WORLD_SIZE", 1)
        #: This task's number on its node, from 0.
        self.local_rank: int = _integer(environ, "LOCAL_RANK", 0)
        #: Where checkpoints of this attempt go; none outside Berth.
        self.checkpoint_dir: Optional[Path] = _path(environ, "BERTH_CHECKPOINT_DIR")
        #: The checkpoint to start from; none to start from the beginning.
        self.resume_from: Optional[Path] = _path(environ, "BERTH_RESUME_FROM")
        self._lock = threading.Lock()
        self._saved: Dict[ReportKey, Saved] = {}
        self._stop: Optional[Message] = None
        self._stop_deadline = math.inf
        self._checkpoint_requested = False
        socket_path = environ.get("BERTH_SOCKET", "")
        self._channel: Optional[Channel] = None
        if socket_path:
            hello: Message = {
                "type": "hello",
                "version": PROTOCOL_VERSION,
                "rank": self.rank,
                "epoch": self.attempt,
                "pid": os.getpid(),
            }
            self._channel = Channel(socket_path, hello, self._on_message)
            atexit.register(self.close)

    @property
    def under_berth(self) -> bool:
        """True if an agent listens, or listened, to this task."""
        return self._channel is not None

    @property
    def stop_requested(self) -> bool:
        """True once the task has been asked to end. Save a checkpoint if `stop_seconds` allows, and exit."""
        return self._stop is not None

    @property
    def stop_reason(self) -> str:
        """Why the task has been asked to end; empty if it has not."""
        return str(self._stop.get("reason", "")) if self._stop is not None else ""

    @property
    def stop_seconds(self) -> float:
        """Seconds left until the task is killed; infinite if it has not been asked to end."""
        return max(0.0, self._stop_deadline - time.monotonic())

    @property
    def checkpoint_requested(self) -> bool:
        """True from the moment a checkpoint is asked for until the next `save_checkpoint`."""
        return self._checkpoint_requested

    def progress(
        self,
        step: int,
        samples: Optional[int] = None,
        loss: Optional[float] = None,
        step_ms: Optional[float] = None,
    ) -> None:
        """Says how far the task is: steps done, samples seen in all, current loss, duration of the last step.

        Never waits and never fails. Call it each step; only the newest is sent, a few times a second.
        """
        if self._channel is None:
            return
        message: Message = {"type": "progress", "step": int(step)}
        if samples is not None:
            message["samples"] = int(samples)
        # JSON has no NaN and no infinity; a loss that is neither is simply not reported.
        if loss is not None and math.isfinite(loss):
            message["loss"] = float(loss)
        if step_ms is not None and math.isfinite(step_ms):
            message["step_ms"] = float(step_ms)
        self._channel.progress(message)

    def save_checkpoint(
        self, step: int, writer: Writer, *, sharded: bool = False, wait: float = ACK_SECONDS
    ) -> Saved:
        """Lets `writer(directory)` write a checkpoint, makes it durable and reports it.

        The result is true once the agent has verified the files. It waits at most `wait` seconds for that (0 to go on
        training and ask `Saved.wait` later); without an answer the report is sent again when the agent is back.

        By default one rank writes the whole checkpoint. With `sharded`, every rank calls this for the same step and
        writes its own files; the checkpoint is complete when all shards are there. Every shard's files are found
        below `shard-<rank>` in the directory that a later attempt resumes from.

        Without a checkpoint directory (outside Berth) nothing is written, and the result is false.

        Raises whatever `writer` raises, and `OSError` if the files cannot be written; nothing is reported then.
        """
        with self._lock:
            self._checkpoint_requested = False
        if self.checkpoint_dir is None:
            return Saved(step, None)
        started = time.monotonic()
        directory = self.checkpoint_dir.absolute() / f"step-{step}"
        if sharded:
            directory.mkdir(parents=True, exist_ok=True)
            temporary = directory / f"shard-{self.rank}.tmp"
            final = directory / f"shard-{self.rank}"
        else:
            temporary = directory.with_name(f"step-{step}.tmp")
            final = directory
        files = write(directory, temporary, final, writer)
        saved = Saved(step, directory, time.monotonic() - started, files)
        if self._channel is not None:
            self._report(saved, sharded)
            saved.wait(wait)
        return saved

    def close(self) -> None:
        """Sends what has not been sent yet. Called by itself when the process ends."""
        if self._channel is not None:
            self._channel.close(CLOSE_SECONDS)
            atexit.unregister(self.close)

    def _report(self, saved: Saved, sharded: bool) -> None:
        message: Message = {
            "type": "checkpoint",
            "step": saved.step,
            "path": str(saved.path),
            "files": [file.to_json() for file in saved.files],
            "seconds": saved.seconds,
        }
        key = (saved.step, -1)
        if sharded:
            message["shard"] = self.rank
            message["shards"] = self.world_size
            key = (saved.step, self.rank)
        with self._lock:
            self._saved[key] = saved
        assert self._channel is not None
        self._channel.report(key, message)

    def _on_message(self, message: Message) -> None:
        """Runs in the channel's thread. What is unknown or malformed is ignored."""
        kind = message.get("type")
        if kind == "ack":
            self._on_ack(message)
        elif kind == "checkpoint_request":
            with self._lock:
                self._checkpoint_requested = True
        elif kind == "stop":
            with self._lock:
                self._stop = message
                deadline_ms = message.get("deadline_ms")
                if isinstance(deadline_ms, (int, float)):
                    self._stop_deadline = time.monotonic() + deadline_ms / 1000

    def _on_ack(self, message: Message) -> None:
        step = message.get("step")
        if not isinstance(step, int):
            return
        with self._lock:
            keys = [key for key in self._saved if key[0] == step]
            answered = [(key, self._saved.pop(key)) for key in keys]
        for key, saved in answered:
            if self._channel is not None:
                self._channel.settle(key)
            saved.answer(bool(message.get("accepted")), str(message.get("reason", "")))


_task: Optional[Task] = None
_task_lock = threading.Lock()


def init() -> Task:
    """The task this process is. Outside Berth everything about it is a no-op. Repeated calls return the same one."""
    global _task
    with _task_lock:
        if _task is None:
            _task = Task(os.environ)
        return _task


def _integer(environ: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(environ.get(name, ""))
    except ValueError:
        return default


def _path(environ: Mapping[str, str], name: str) -> Optional[Path]:
    text = environ.get(name, "")
    return Path(text) if text else None
