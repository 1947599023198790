"""The training job by itself: four ranks on this machine, killed in the middle, resumed, compared to the bit.

Needs numpy and scikit-learn: `make demo-check` runs it in the demo's own environment.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Dict, List

HERE = Path(__file__).resolve().parent
RANKS = 4
# Never measured, only a bound on a failing test.
DEADLINE = 120.0


class Gang:
    """Four ranks of one attempt. Rank 0 is started last, so the others have to wait for it."""

    def __init__(self, root: Path, attempt: int, *options: str, resume_from: str = "") -> None:
        self.checkpoints = root / f"epoch-{attempt}"
        self.ranks: Dict[int, subprocess.Popen] = {}
        port = free_port()
        for rank in reversed(range(RANKS)):
            environ = {
                **os.environ,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "RANK": str(rank),
                "WORLD_SIZE": str(RANKS),
                "BERTH_CHECKPOINT_DIR": str(self.checkpoints),
                "BERTH_RESUME_FROM": resume_from,
            }
            environ.pop("BERTH_SOCKET", None)
            self.ranks[rank] = subprocess.Popen(
                [sys.executable, str(HERE / "train.py"), *options],
                env=environ,
                cwd=root,
                stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )

    def read_until(self, text: str) -> None:
        """Reads rank 0's output up to a line that ends with `text`."""
        stream = self.ranks[0].stdout
        assert stream is not None
        for line in stream:
            if line.rstrip().endswith(text):
                return
        raise AssertionError(f"rank 0 ended without saying {text!r}")

    def codes(self) -> List[int]:
        """Waits for all ranks and returns their exit codes, by rank."""
        return [self.ranks[rank].wait(DEADLINE) for rank in range(RANKS)]

    def end(self) -> None:
        for process in self.ranks.values():
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


class TrainTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = Path(scratch.name)

    def gang(self, root: Path, attempt: int, *options: str, resume_from: str = "") -> Gang:
        root.mkdir(exist_ok=True)
        gang = Gang(root, attempt, "--step-ms", "0", *options, resume_from=resume_from)
        self.addCleanup(gang.end)
        return gang

    def test_a_killed_run_resumes_to_the_same_bits(self) -> None:
        whole = self.gang(self.root / "whole", 1)
        self.assertEqual(whole.codes(), [0] * RANKS)
        expected = json.loads((self.root / "whole" / "result.json").read_text())
        self.assertGreaterEqual(expected["accuracy"], 0.95)
        self.assertEqual(expected["steps"], 600)

        broken = self.gang(self.root / "broken", 1)
        broken.read_until("checkpoint at step 200")
        broken.ranks[2].send_signal(signal.SIGKILL)
        codes = broken.codes()
        self.assertEqual(codes[2], -signal.SIGKILL)
        self.assertTrue(all(code != 0 for code in codes), f"a rank did not notice: {codes}")
        self.assertFalse((self.root / "broken" / "result.json").exists())

        newest = newest_checkpoint(broken.checkpoints)
        resumed = self.gang(self.root / "broken", 2, resume_from=str(newest))
        self.assertEqual(resumed.codes(), [0] * RANKS)
        self.assertEqual(json.loads((self.root / "broken" / "result.json").read_text()), expected)
        first = newest_checkpoint(resumed.checkpoints, oldest=True)
        self.assertGreater(step_of(first), step_of(newest), "it did not resume but started again")

    def test_when_rank_0_dies_the_others_end_with_an_error(self) -> None:
        gang = self.gang(self.root / "headless", 1, "--steps", "1000000")
        gang.read_until("checkpoint at step 20")
        gang.ranks[0].send_signal(signal.SIGKILL)
        self.assertEqual(gang.codes(), [-signal.SIGKILL, 1, 1, 1])


def newest_checkpoint(directory: Path, oldest: bool = False) -> Path:
    whole = [path for path in directory.iterdir() if not path.name.endswith(".tmp")]
    return sorted(whole, key=step_of, reverse=not oldest)[0]


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    unittest.main()
