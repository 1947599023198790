"""The client against a command that plays `berth` and writes down how it was called."""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, List

from berth import BerthError, Client

SCRIPT = """#!{python}
import json, os, pathlib, sys
here = pathlib.Path({directory!r})
arguments = sys.argv[1:]
with open(here / "calls", "a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
command = next(a for a in arguments if not a.startswith("-") and ":" not in a)
if command == "submit":
    path = pathlib.Path(arguments[arguments.index("submit") + 1])
    (here / "submitted").write_text(path.read_text())
answer = here / (command + ".json")
if not answer.exists():
    print("error: no such job\\nhint: `berth jobs` lists them", file=sys.stderr)
    sys.exit(4)
answers = answer.read_text().splitlines()
print(answers[0])
if len(answers) > 1:
    answer.write_text("\\n".join(answers[1:]))
"""


class ClientTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name)
        binary = self.directory / "berth"
        binary.write_text(SCRIPT.format(python=sys.executable, directory=str(self.directory)))
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
        self.client = Client(str(binary), ["--masters", "127.0.0.1:1"])

    def answer(self, command: str, *answers: Any) -> None:
        lines = "\n".join(json.dumps(answer) for answer in answers)
        (self.directory / f"{command}.json").write_text(lines)

    def calls(self) -> List[List[str]]:
        return [json.loads(line) for line in (self.directory / "calls").read_text().splitlines()]

    def test_a_file_is_submitted_as_it_is(self) -> None:
        self.answer("submit", {"id": "12"})
        path = self.directory / "job.toml"
        path.write_text('name = "a"\n')
        self.assertEqual(self.client.submit(path), "12")
        self.assertEqual(self.calls(), [["--masters", "127.0.0.1:1", "submit", str(path), "-o", "json"]])

    def test_a_mapping_becomes_a_job_file_of_this_directory(self) -> None:
        self.answer("submit", {"id": 5})
        self.assertEqual(self.client.submit({"name": "b", "groups": []}), "5")
        submitted = json.loads((self.directory / "submitted").read_text())
        self.assertEqual(submitted, {"name": "b", "groups": [], "work_dir": os.getcwd()})

    def test_waiting_ends_with_the_job(self) -> None:
        self.answer("job", {"state": "pending"}, {"state": "running"}, {"state": "failed", "exit_code": 3})
        self.assertEqual(self.client.wait("1"), {"state": "failed", "exit_code": 3})
        self.assertEqual(len(self.calls()), 3)

    def test_waiting_gives_up_when_told(self) -> None:
        self.answer("job", {"state": "running"})
        with self.assertRaises(TimeoutError):
            self.client.wait("1", timeout=0.0)

    def test_jobs_are_listed_and_cancelled(self) -> None:
        self.answer("jobs", [{"id": "1"}, {"id": "2"}])
        self.answer("cancel", "done")
        self.assertEqual([job["id"] for job in self.client.jobs("--all")], ["1", "2"])
        self.client.cancel("2")
        self.assertEqual([call[2:] for call in self.calls()], [["jobs", "--all", "-o", "json"], ["cancel", "2"]])

    def test_an_error_is_raised_with_the_words_and_the_code_of_the_command(self) -> None:
        with self.assertRaisesRegex(BerthError, "no such job\nhint: ") as caught:
            self.client.job("99")
        self.assertEqual(caught.exception.code, 4)

    def test_a_missing_command_says_what_to_do(self) -> None:
        with self.assertRaisesRegex(BerthError, "BERTH_CLI"):
            Client(str(self.directory / "absent")).jobs()


if __name__ == "__main__":
    unittest.main()
