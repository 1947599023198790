"""Submits, waits for, lists and cancels jobs by calling the `berth` command, whose JSON output is stable."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

Job = Dict[str, Any]

#: States in which nothing changes any more.
FINAL_STATES = frozenset({"completed", "failed", "cancelled", "timed_out"})
#: How often `wait` asks.
POLL_SECONDS = 0.5


class BerthError(RuntimeError):
    """A call failed and changed nothing. `code` is the command's exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Client:
    """Calls a cluster. `binary` is the command; by default $BERTH_CLI, or `berth` on the PATH.

    Which cluster is asked is the command's own choice (its environment and configuration file); `arguments` are put
    before each subcommand, for example `["--masters", "127.0.0.1:7101"]`.
    """

    def __init__(self, binary: Optional[str] = None, arguments: Sequence[str] = ()) -> None:
        self._binary = binary or os.environ.get("BERTH_CLI") or "berth"
        self._arguments = list(arguments)

    def submit(self, job: Union[str, "os.PathLike[str]", Mapping[str, Any]]) -> str:
        """Submits a job file, or a mapping with the same keys, and returns the job's id."""
        if isinstance(job, Mapping):
            return self._submit_mapping(job)
        return _id_of(self._call("submit", os.fspath(job)))

    def job(self, job_id: str) -> Job:
        """One job, finished ones too."""
        return _mapping(self._call("job", str(job_id)))

    def jobs(self, *filters: str) -> List[Job]:
        """Jobs, newest first. `filters` are options of `berth jobs`, such as `"--all"`."""
        answer = self._call("jobs", *filters)
        if isinstance(answer, Mapping):
            answer = answer.get("jobs", [])
        if not isinstance(answer, list):
            raise BerthError("`berth jobs` did not answer with a list", 0)
        return answer

    def cancel(self, job_id: str) -> None:
        """Cancels a job. Cancelling a finished one changes nothing."""
        self._run("cancel", str(job_id))

    def wait(self, job_id: str, timeout: Optional[float] = None) -> Job:
        """Waits until the job has ended and returns it; raises `TimeoutError` after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            job = self.job(job_id)
            if str(job.get("state", "")).lower() in FINAL_STATES:
                return job
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"job {job_id} is {job.get('state')} after {timeout} s")
            time.sleep(POLL_SECONDS)

    def _submit_mapping(self, job: Mapping[str, Any]) -> str:
        # JSON is YAML, which is one of the formats of job files. The file lies elsewhere, so say where the job is.
        spec = {"work_dir": os.getcwd(), **job}
        with tempfile.TemporaryDirectory(prefix="berth-") as directory:
            path = Path(directory) / "job.yaml"
            path.write_text(json.dumps(spec), encoding="utf-8")
            return _id_of(self._call("submit", str(path)))

    def _call(self, *arguments: str) -> Any:
        text = self._run(*arguments, "-o", "json")
        try:
            return json.loads(text)
        except ValueError as error:
            raise BerthError(f"`berth {arguments[0]}` did not answer with JSON: {text[:200]!r}", 0) from error

    def _run(self, *arguments: str) -> str:
        command = [self._binary, *self._arguments, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            hint = "set BERTH_CLI to its path, or put it on the PATH"
            raise BerthError(f"cannot find {self._binary}; {hint}", 127) from error
        if done.returncode != 0:
            raise BerthError(done.stderr.strip() or f"{command} failed", done.returncode)
        return done.stdout


def _id_of(answer: Any) -> str:
    for key in ("id", "job"):
        if isinstance(answer, Mapping) and key in answer:
            return str(answer[key])
    raise BerthError(f"`berth submit` answered without an id: {answer!r}", 0)


def _mapping(answer: Any) -> Job:
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, dict):
        raise BerthError(f"`berth job` did not answer with an object: {answer!r}", 0)
    return answer
