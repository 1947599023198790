"""Checkpoints: how one is written so that it is whole or absent, and what is reported about it."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, List, Optional, Union

#: Gets the directory to write into and writes the checkpoint's files there.
Writer = Callable[[Path], object]

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class CheckpointFile:
    """One file of a checkpoint, with its path relative to the checkpoint's directory."""

    path: str
    bytes: int
    sha256: str

    def to_json(self) -> Dict[str, Union[str, int]]:
        return {"path": self.path, "bytes": self.bytes, "sha256": self.sha256}


@dataclass
class Saved:
    """What became of a checkpoint. It is true once the agent has verified it."""

    step: int
    #: The checkpoint's directory; none if there is nowhere to write, which is so outside Berth.
    path: Optional[Path]
    #: How long writing took.
    seconds: float = 0.0
    files: List[CheckpointFile] = field(default_factory=list)
    #: True or false once the agent has answered; none before, and outside Berth.
    accepted: Optional[bool] = None
    #: Why it was refused.
    reason: str = ""
    _answered: threading.Event = field(default_factory=threading.Event, repr=False)

    def __bool__(self) -> bool:
        return self.accepted is True

    def wait(self, seconds: Optional[float] = None) -> bool:
        """Waits for the agent's answer; true if it accepted the checkpoint by then."""
        self._answered.wait(seconds)
        return bool(self)

    def answer(self, accepted: bool, reason: str) -> None:
        """Records the agent's answer. Called by the channel's thread."""
        self.accepted = accepted
        self.reason = reason
        self._answered.set()


def write(directory: Path, temporary: Path, final: Path, writer: Writer) -> List[CheckpointFile]:
    """Writes into `temporary`, makes it durable, renames it to `final`; a crash leaves all or nothing.

    File paths are relative to `directory`, which holds `final` or is it.
    """
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    writer(temporary)
    for path in sorted(temporary.rglob("*"), reverse=True):
        if path.is_file() or path.is_dir():
            _sync(path)
    _sync(temporary)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _sync(final.parent)
    return [_describe(path, directory) for path in sorted(final.rglob("*")) if path.is_file()]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _describe(path: Path, directory: Path) -> CheckpointFile:
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while True:
            chunk = stream.read(_CHUNK_BYTES)
            if not chunk:
                break
            digest.update(chunk)
            size += len(chunk)
    return CheckpointFile(path.relative_to(directory).as_posix(), size, digest.hexdigest())
