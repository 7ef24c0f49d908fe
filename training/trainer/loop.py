"""The loop of `compare` and `fit --finetune`: steps, and checkpoints that a killed run goes on from."""

import fcntl
import math
import pickle
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from enrich.atomic import new_file
from enrich.errors import UsageError, reason


class Learner(Protocol):
    """What learns. A run that was killed ends as an undisturbed one where `state` holds all that a step
    changes, and all that is drawn depends on the step alone."""

    remedy: str
    """What to do where the loss is not finite."""

    @property
    def identity(self) -> dict[str, Any] | None:
        """What a checkpoint must be of; None: the name of its file says it."""

    @property
    def where(self) -> str:
        """Which run is at which step, for messages."""

    def batches(self) -> Generator[Any]:
        """The batches that are left."""

    def step(self, batch: Any) -> float:
        """Learn from one batch; returns the loss."""

    def state(self) -> dict[str, Any]:
        """All that the rest depends on."""

    def load(self, state: dict[str, Any]) -> None:
        """Be where this state was taken."""


@contextmanager
def locked(file: Path, wait: bool = True) -> Iterator[bool]:
    """Have to oneself what `file` is the lock of; without `wait`: whether one has. A kill gives it back."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def learn(learner: Learner, checkpoint: Path, save_seconds: float) -> Iterator[None]:
    """Make all steps that are left, and yield after each; save every `save_seconds` and at the end. Raises
    UsageError: the loss is not finite."""
    saved, changed = time.monotonic(), False
    with closing(learner.batches()) as batches:
        for batch in batches:
            loss = learner.step(batch)
            if not math.isfinite(loss):
                raise UsageError(f"{learner.where}: the loss is {loss}; {learner.remedy}")
            changed = time.monotonic() - saved < save_seconds
            if not changed:
                _save(learner, checkpoint)
                saved = time.monotonic()
            yield
    if changed:
        _save(learner, checkpoint)


def resume(learner: Learner, checkpoint: Path) -> None:
    """Take up the checkpoint, where there is one. Raises UsageError: it is another run's, or not readable."""
    if not checkpoint.exists():
        return
    try:
        state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if state.get("identity") != learner.identity:
            raise UsageError(
                f"{checkpoint} is of another run (other photos or options); name another --out, "
                "or delete it to start the run over"
            )
        learner.load(state)
    except (RuntimeError, pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"{checkpoint} is not a readable checkpoint ({reason(error)}); delete it to start the run over"
        ) from None


def _save(learner: Learner, checkpoint: Path) -> None:
    # By the path, torch would say of a full disk that it met an unexpected position.
    with new_file(checkpoint) as part, part.open("wb") as file:
        torch.save({"identity": learner.identity, **learner.state()}, file)
