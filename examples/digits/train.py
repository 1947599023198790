#!/usr/bin/env python3
"""Trains a small network on handwritten digits, data-parallel over WORLD_SIZE ranks.

Every rank computes the gradient of its share of each batch; `Exchange` averages them. Which samples a step sees follows
from the seed and the step's number alone, so a run that resumes from a checkpoint ends with the same weights, to the bit,
as one that was never interrupted. Rank 0 saves checkpoints, measures the accuracy and writes `result.json`.

Under Berth progress and checkpoints are reported; without it the script just runs:

    python3 train.py --steps 600
"""

from __future__ import annotations

import os

# Threads would add in another order, and four ranks share the machine. Must be set before numpy is loaded.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np

try:
    import berth
except ImportError:  # not installed: use the one of this checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "sdk" / "python"))
    import berth

from exchange import Exchange

Arrays = Dict[str, np.ndarray]

#: Names of the arrays, in the order in which they travel and are hashed.
NAMES = ("w1", "b1", "w2", "b2")
PIXELS, HIDDEN, CLASSES = 64, 48, 10
#: Adam, as published.
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Digits:
    """The 1797 images of 8 x 8 pixels that scikit-learn ships; a fixed fifth of them is kept for the test."""

    def __init__(self, seed: int) -> None:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng([seed, 1]).permutation(len(labels))
        images = images[order].astype(np.float64) / 16.0
        labels = labels[order].astype(np.int64)
        held_out = len(labels) // 5
        self.test = (images[:held_out], labels[:held_out])
        self.train = (images[held_out:], labels[held_out:])

    def batch(self, seed: int, step: int, size: int) -> Tuple[np.ndarray, np.ndarray]:
        """The samples of one step, all ranks together: a function of seed and step alone."""
        images, labels = self.train
        chosen = np.random.default_rng([seed, 2, step]).choice(len(labels), size, replace=False)
        return images[chosen], labels[chosen]


class Model:
    """One hidden layer, softmax, and the state of its Adam optimizer."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng([seed, 3])
        self.step = 0
        self.weights: Arrays = {
            "w1": random.normal(0.0, (2.0 / PIXELS) ** 0.5, (PIXELS, HIDDEN)),
            "b1": np.zeros(HIDDEN),
            "w2": random.normal(0.0, (2.0 / HIDDEN) ** 0.5, (HIDDEN, CLASSES)),
            "b2": np.zeros(CLASSES),
        }
        self.first: Arrays = {name: np.zeros_like(self.weights[name]) for name in NAMES}
        self.second: Arrays = {name: np.zeros_like(self.weights[name]) for name in NAMES}

    def gradient(self, images: np.ndarray, labels: np.ndarray) -> Tuple[float, Arrays]:
        """Mean cross-entropy over these samples and its gradient."""
        hidden = np.maximum(0.0, images @ self.weights["w1"] + self.weights["b1"])
        scores = hidden @ self.weights["w2"] + self.weights["b2"]
        scores -= scores.max(axis=1, keepdims=True)
        chances = np.exp(scores)
        chances /= chances.sum(axis=1, keepdims=True)
        rows = np.arange(len(labels))
        loss = float(-np.log(chances[rows, labels] + 1e-300).mean())
        chances[rows, labels] -= 1.0
        chances /= len(labels)
        back = (chances @ self.weights["w2"].T) * (hidden > 0.0)
        return loss, {
            "w1": images.T @ back,
            "b1": back.sum(axis=0),
            "w2": hidden.T @ chances,
            "b2": chances.sum(axis=0),
        }

    def update(self, gradient: Arrays, rate: float) -> None:
        """One step of Adam."""
        self.step += 1
        for name in NAMES:
            g = gradient[name]
            self.first[name] = BETA1 * self.first[name] + (1.0 - BETA1) * g
            self.second[name] = BETA2 * self.second[name] + (1.0 - BETA2) * g * g
            mean = self.first[name] / (1.0 - BETA1**self.step)
            variance = self.second[name] / (1.0 - BETA2**self.step)
            self.weights[name] = self.weights[name] - rate * mean / (np.sqrt(variance) + EPSILON)

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        hidden = np.maximum(0.0, images @ self.weights["w1"] + self.weights["b1"])
        scores = hidden @ self.weights["w2"] + self.weights["b2"]
        return float((scores.argmax(axis=1) == labels).mean())

    def sha256(self) -> str:
        """Hash over the bits of all weights."""
        digest = hashlib.sha256()
        for name in NAMES:
            digest.update(np.ascontiguousarray(self.weights[name]).tobytes())
        return digest.hexdigest()

    def save(self, directory: Path) -> None:
        """Weights and optimizer in one file, the step in another."""
        arrays = {f"{kind}_{name}": group[name] for kind, group in self._groups() for name in NAMES}
        np.savez(directory / "model.npz", **arrays)
        (directory / "step.json").write_text(json.dumps({"step": self.step}) + "\n")

    def load(self, directory: Path) -> None:
        with np.load(directory / "model.npz", allow_pickle=False) as arrays:
            for kind, group in self._groups():
                for name in NAMES:
                    group[name] = arrays[f"{kind}_{name}"]
        self.step = json.loads((directory / "step.json").read_text())["step"]

    def _groups(self) -> List[Tuple[str, Arrays]]:
        return [("weight", self.weights), ("first", self.first), ("second", self.second)]


def train(options: argparse.Namespace, task: berth.Task) -> int:
    digits = Digits(options.seed)
    model = Model(options.seed)
    if task.resume_from is not None:
        model.load(task.resume_from)
        say(task, f"resumed at step {model.step} from {task.resume_from}")
    # Rank 0 binds the port here; the others wait for it.
    exchange = Exchange.from_environment()
    while model.step < options.steps and not task.stop_requested:
        started = time.monotonic()
        loss = one_step(options, model, digits, exchange)
        pause = options.step_ms / 1000.0 - (time.monotonic() - started)
        if pause > 0.0:
            time.sleep(pause)
        report(options, task, model, loss, (time.monotonic() - started) * 1000.0)
    exchange.close()
    if model.step < options.steps:
        say(task, f"stopped at step {model.step}: {task.stop_reason}")
        return 75  # asked to stop: start me again
    if task.rank == 0:
        finish(options, task, model, digits)
    return 0


def one_step(options: argparse.Namespace, model: Model, digits: Digits, exchange: Exchange) -> float:
    """Everybody's share of the batch, one exchange, the same update everywhere. Returns the mean loss."""
    images, labels = digits.batch(options.seed, model.step, options.batch)
    share = options.batch // exchange.world_size
    mine = slice(exchange.rank * share, (exchange.rank + 1) * share)
    loss, gradient = model.gradient(images[mine], labels[mine])
    flat = np.concatenate([gradient[name].ravel() for name in NAMES] + [np.array([loss])])
    mean = exchange.mean(flat)
    at = 0
    for name in NAMES:
        shape = model.weights[name].shape
        size = int(np.prod(shape))
        gradient[name] = mean[at : at + size].reshape(shape)
        at += size
    model.update(gradient, options.rate)
    return float(mean[-1])


def report(options: argparse.Namespace, task: berth.Task, model: Model, loss: float, step_ms: float) -> None:
    task.progress(model.step, samples=model.step * options.batch, loss=loss, step_ms=step_ms)
    if task.rank != 0:
        return
    if model.step % options.log_every == 0 or model.step == options.steps:
        say(task, f"step {model.step} loss {loss:.6f}")
    due = model.step % options.checkpoint_every == 0 or task.checkpoint_requested
    if due and model.step < options.steps:
        saved = task.save_checkpoint(model.step, model.save, wait=0.0)
        if saved.path is not None:
            say(task, f"checkpoint at step {model.step}")


def finish(options: argparse.Namespace, task: berth.Task, model: Model, digits: Digits) -> None:
    accuracy = model.accuracy(*digits.test)
    result = {"accuracy": accuracy, "weights_sha256": model.sha256(), "steps": model.step}
    out = Path(options.out) if options.out else default_out(task)
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / "result.json.tmp"
    temporary.write_text(json.dumps(result) + "\n")
    temporary.rename(out / "result.json")
    say(task, f"accuracy {accuracy:.4f}")
    say(task, f"weights sha256 {result['weights_sha256']}")


def default_out(task: berth.Task) -> Path:
    """Beside the attempts' checkpoints under Berth, else here."""
    return task.checkpoint_dir.absolute().parent if task.checkpoint_dir is not None else Path.cwd()


def say(task: berth.Task, text: str) -> None:
    print(f"[rank {task.rank}] {text}", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="data-parallel training on handwritten digits")
    parser.add_argument("--steps", type=int, default=600, help="steps in all (600)")
    parser.add_argument("--batch", type=int, default=256, help="samples a step, all ranks together (256)")
    parser.add_argument("--rate", type=float, default=0.003, help="learning rate (0.003)")
    parser.add_argument("--seed", type=int, default=7, help="of the data order and the first weights (7)")
    parser.add_argument("--step-ms", type=float, default=50.0, help="a step takes at least this long (50)")
    parser.add_argument("--checkpoint-every", type=int, default=20, help="steps between checkpoints (20)")
    parser.add_argument("--log-every", type=int, default=20, help="steps between lines of output (20)")
    parser.add_argument(
        "--out",
        default=os.environ.get("DIGITS_OUT", ""),
        help="directory of result.json ($DIGITS_OUT, else beside the checkpoints, else here)",
    )
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    task = berth.init()
    if options.batch % task.world_size != 0:
        print(f"error: a batch of {options.batch} does not split over {task.world_size} ranks", file=sys.stderr)
        return 2
    try:
        return train(options, task)
    except OSError as error:
        # Usually another rank that died; the scheduler restarts the gang from the newest checkpoint.
        print(f"[rank {task.rank}] error: {error}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
