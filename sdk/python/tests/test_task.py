"""The task side against a socket that plays the agent."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any, Dict, List, Optional

from berth.task import Task

# Never measured, only a bound on a failing test.
DEADLINE = 20.0


class Agent:
    """Accepts one connection at a time and hands out whole lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.settimeout(DEADLINE)
        self.connection: Optional[socket.socket] = None
        self.lines: Any = None

    def accept(self) -> Dict[str, Any]:
        """Waits for a connection and returns its hello."""
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(DEADLINE)
        self.lines = self.connection.makefile("r", encoding="utf-8")
        return self.receive()

    def receive(self, kind: Optional[str] = None) -> Dict[str, Any]:
        """The next message, or the next of this kind."""
        while True:
            line = self.lines.readline()
            if not line:
                raise EOFError("the task hung up")
            message = json.loads(line)
            if kind is None or message["type"] == kind:
                return message

    def send(self, *lines: str) -> None:
        assert self.connection is not None
        self.connection.sendall("".join(line + "\n" for line in lines).encode())

    def acknowledge(self, step: int, accepted: bool = True, reason: str = "") -> None:
        self.send(json.dumps({"type": "ack", "step": step, "accepted": accepted, "reason": reason}))

    def hang_up(self) -> None:
        if self.connection is not None:
            self.lines.close()
            self.connection.close()
            self.connection = None

    def close(self) -> None:
        self.hang_up()
        self.listener.close()
        self.path.unlink()


class TaskTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name)
        self.agent = Agent(self.directory / "task.sock")
        self.addCleanup(lambda: self.agent.close())

    def environ(self, **more: str) -> Dict[str, str]:
        return {
            "BERTH_SOCKET": str(self.agent.path),
            "BERTH_JOB_ID": "7",
            "BERTH_ATTEMPT": "3",
            "BERTH_CHECKPOINT_DIR": str(self.directory / "checkpoints"),
            "BERTH_RESUME_FROM": "",
            "RANK": "1",
            "WORLD_SIZE": "4",
            **more,
        }

    def task(self, **more: str) -> Task:
        task = Task(self.environ(**more))
        self.addCleanup(task.close)
        return task

    def save_in_background(self, task: Task, step: int, **options: Any) -> "Background":
        return Background(lambda: task.save_checkpoint(step, write_two_files, wait=DEADLINE, **options))

    def test_the_hello_names_rank_and_epoch(self) -> None:
        task = self.task()
        hello = self.agent.accept()
        expected = {"type": "hello", "version": 1, "rank": 1, "epoch": 3, "pid": os.getpid()}
        self.assertEqual(hello, expected)
        self.assertTrue(task.under_berth)
        self.assertIsNone(task.resume_from)

    def test_progress_carries_what_is_known_and_the_newest_arrives(self) -> None:
        task = self.task()
        self.agent.accept()
        task.progress(1, samples=64, loss=0.5, step_ms=2.0)
        first = self.agent.receive()
        self.assertEqual(first, {"type": "progress", "step": 1, "samples": 64, "loss": 0.5, "step_ms": 2.0})
        for step in range(2, 500):
            task.progress(step, loss=float("nan"))
        steps: List[int] = []
        while not steps or steps[-1] != 499:
            message = self.agent.receive()
            self.assertNotIn("loss", message)
            steps.append(message["step"])
        self.assertEqual(steps, sorted(steps))
        self.assertLess(len(steps), 498)

    def test_a_checkpoint_is_reported_with_its_files_and_the_answer_comes_back(self) -> None:
        task = self.task()
        self.agent.accept()
        saving = self.save_in_background(task, 100)
        report = self.agent.receive("checkpoint")
        self.assertEqual((report["step"], "shard" in report), (100, False))
        self.assertTrue(Path(report["path"]).is_absolute())
        self.assertEqual(Path(report["path"]).name, "step-100")
        self.assertEqual([file["path"] for file in report["files"]], ["a.bin", "inner/b.bin"])
        for file in report["files"]:
            content = (Path(report["path"]) / file["path"]).read_bytes()
            self.assertEqual(file["bytes"], len(content))
            self.assertEqual(file["sha256"], hashlib.sha256(content).hexdigest())
        self.agent.acknowledge(100)
        saved = saving.result()
        self.assertTrue(saved)
        self.assertEqual(saved.path, Path(report["path"]))

    def test_a_refused_checkpoint_is_false_and_says_why(self) -> None:
        task = self.task()
        self.agent.accept()
        saving = self.save_in_background(task, 5)
        self.agent.receive("checkpoint")
        self.agent.acknowledge(5, accepted=False, reason="a.bin: wrong checksum")
        saved = saving.result()
        self.assertFalse(saved)
        self.assertIs(saved.accepted, False)
        self.assertEqual(saved.reason, "a.bin: wrong checksum")

    def test_an_agent_that_restarts_hears_the_hello_and_the_unanswered_report_again(self) -> None:
        task = self.task()
        self.agent.accept()
        saving = self.save_in_background(task, 8)
        report = self.agent.receive("checkpoint")
        self.agent.hang_up()
        self.assertEqual(self.agent.accept()["type"], "hello")
        self.assertEqual(self.agent.receive("checkpoint"), report)
        self.agent.acknowledge(8)
        self.assertTrue(saving.result())
        # An answered one is not sent again.
        self.agent.hang_up()
        self.agent.accept()
        task.progress(9)
        self.assertEqual(self.agent.receive()["type"], "progress")

    def test_an_agent_that_comes_late_is_found(self) -> None:
        self.agent.close()
        task = self.task()
        task.progress(4)
        self.agent = Agent(self.directory / "task.sock")
        self.assertEqual(self.agent.accept()["type"], "hello")
        self.assertEqual(self.agent.receive()["step"], 4)

    def test_a_shard_names_itself_and_its_files_lie_below_it(self) -> None:
        task = self.task()
        self.agent.accept()
        saving = self.save_in_background(task, 10, sharded=True)
        report = self.agent.receive("checkpoint")
        self.assertEqual((report["shard"], report["shards"]), (1, 4))
        self.assertEqual([file["path"] for file in report["files"]], ["shard-1/a.bin", "shard-1/inner/b.bin"])
        self.assertEqual(Path(report["path"]).name, "step-10")
        self.agent.acknowledge(10)
        self.assertTrue(saving.result())

    def test_requests_are_seen_and_what_is_unknown_is_ignored(self) -> None:
        task = self.task()
        self.agent.accept()
        self.assertFalse(task.stop_requested or task.checkpoint_requested)
        saving = self.save_in_background(task, 1)
        self.agent.receive("checkpoint")
        self.agent.send('{"type":"welcome","version":1}', "not json", "[1]", '{"type":"surprise"}')
        self.agent.send('{"type":"checkpoint_request","deadline_ms":30000}')
        self.agent.send('{"type":"stop","deadline_ms":10000,"reason":"cancel"}')
        # Messages are read in order, so the answer to the report shows that everything before it was read.
        self.agent.acknowledge(1)
        self.assertTrue(saving.result())
        self.assertTrue(task.stop_requested)
        self.assertEqual(task.stop_reason, "cancel")
        self.assertLessEqual(task.stop_seconds, 10.0)
        self.assertTrue(task.checkpoint_requested)
        saving = self.save_in_background(task, 2)
        self.agent.receive("checkpoint")
        self.agent.acknowledge(2)
        self.assertTrue(saving.result())
        self.assertFalse(task.checkpoint_requested)

    def test_a_failing_writer_reports_nothing_and_leaves_no_checkpoint(self) -> None:
        task = self.task()
        self.agent.accept()

        def fail(directory: Path) -> None:
            (directory / "half").write_bytes(b"half")
            raise RuntimeError("disk on fire")

        with self.assertRaisesRegex(RuntimeError, "disk on fire"):
            task.save_checkpoint(3, fail)
        self.assertFalse((self.directory / "checkpoints" / "step-3").exists())
        # The next attempt at the same step does not trip over the rest of the failed one.
        saving = self.save_in_background(task, 3)
        self.assertEqual(len(self.agent.receive()["files"]), 2)
        self.agent.acknowledge(3)
        self.assertTrue(saving.result())

    def test_the_last_messages_of_a_process_arrive(self) -> None:
        script = "import berth; t = berth.init(); [t.progress(i) for i in range(1, 51)]"
        package = Path(__file__).resolve().parents[1]
        environ = {**os.environ, **self.environ(PYTHONPATH=str(package))}
        process = subprocess.Popen([sys.executable, "-c", script], env=environ)
        try:
            self.agent.accept()
            last = 0
            while last != 50:
                last = self.agent.receive()["step"]
            self.assertEqual(process.wait(DEADLINE), 0)
        finally:
            process.kill()
            process.wait()


class OutsideBerthTest(unittest.TestCase):
    def test_everything_is_a_no_op(self) -> None:
        task = Task({})
        self.assertFalse(task.under_berth)
        self.assertEqual((task.rank, task.world_size, task.attempt), (0, 1, 0))
        task.progress(1, loss=1.0)
        saved = task.save_checkpoint(1, lambda directory: self.fail("nothing is to be written"))
        self.assertFalse(saved)
        self.assertIsNone(saved.path)
        task.close()

    def test_a_directory_alone_is_written_to_but_nobody_answers(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            task = Task({"BERTH_CHECKPOINT_DIR": scratch})
            saved = task.save_checkpoint(2, write_two_files)
            self.assertIsNone(saved.accepted)
            self.assertEqual((Path(scratch) / "step-2" / "a.bin").read_bytes(), b"aaaa")


class Background:
    """Runs a call in a thread and hands out its result."""

    def __init__(self, call: Any) -> None:
        self._value: Any = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Any) -> None:
        self._value = call()

    def result(self) -> Any:
        self._thread.join(DEADLINE)
        return self._value


def write_two_files(directory: Path) -> None:
    (directory / "a.bin").write_bytes(b"aaaa")
    (directory / "inner").mkdir()
    (directory / "inner" / "b.bin").write_bytes(bytes(range(256)))


if __name__ == "__main__":
    unittest.main()
