"""Berth for Python: what a training script tells the scheduler, and a client that submits jobs.

In a training script::

    import berth

    task = berth.init()
    for step in range(start, steps):
        ...
        task.progress(step, samples=seen, loss=loss, step_ms=elapsed)
        if step % 100 == 0 or task.checkpoint_requested:
            task.save_checkpoint(step, lambda directory: model.save(directory / "model.bin"))
        if task.stop_requested:
            break

Outside Berth the same script runs unchanged: nothing is sent and nothing is written.

From anywhere else::

    job = berth.Client().submit("job.toml")
    print(berth.Client().wait(job))

The protocol is in docs/task-socket.md; this package has no dependencies.
"""

from .checkpoint import CheckpointFile, Saved
from .client import BerthError, Client
from .task import Task, init

__all__ = ["BerthError", "CheckpointFile", "Client", "Saved", "Task", "init"]
__version__ = "0.1.0"
