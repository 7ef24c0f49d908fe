"""One run: a network learns a task for so many epochs, and may be killed at any moment.

A checkpoint holds all that the rest of the run depends on; what is drawn depends on seed, epoch, step and
photo alone. So in fp32 on a CPU a run that was killed and resumed ends with the same bits as an undisturbed
one.
"""

import math
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from enrich.atomic import new_file
from enrich.errors import UsageError
from training.compare.plan import Plan
from training.compare.results import CHECKPOINT, EpochRow
from training.models.architectures import MODES, Network
from training.models.weights import pretrained
from training.trainer.loading import Loader, Side

AUXILIARY_WEIGHT = 0.4


@dataclass
class Best:
    """The best validation epoch so far (of equals the first): its logits [n, classes] and weights."""

    epoch: int = 0
    accuracy: float = -1.0
    logits: Tensor = field(default_factory=lambda: torch.zeros(0))
    learnt: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Progress:
    """Where a run is: the next step of the next epoch, and the sums of the epoch so far."""

    epoch: int = 1
    step: int = 0
    seen: int = 0
    right: int = 0
    loss: float = 0.0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    """Of the whole epochs before this one."""


class Run:
    """A network at work on one task.

    `train` and `validation` are the task's photos; `save_seconds` is how often a checkpoint is written.

    Raises:
        UsageError: weights cannot be had, a checkpoint is another run's, or the loss is not finite.
    """

    def __init__(
        self,
        plan: Plan,
        train: Side,
        validation: Side,
        loader: Loader,
        device: torch.device,
        folder: Path,
        save_seconds: float,
    ) -> None:
        self.plan, self.train, self.validation = plan, train, validation
        self._loader, self._device, self._save_seconds = loader, device, save_seconds
        self._checkpoint = folder / CHECKPOINT
        self.network = build(plan, device)
        self._optimiser = torch.optim.SGD(
            [p for p in self.network.parameters() if p.requires_grad],
            lr=plan.recipe.rate,
            momentum=plan.recipe.momentum,
        )
        self.best, self.progress = Best(), Progress()
        self._frozen: list[tuple[Tensor, Tensor]] = []
        self._load()
        self._clock = self._saved = time.monotonic()

    def epochs(self, stepped: Callable[[int], None]) -> Iterator[EpochRow]:
        """Go on from where the run is, epoch by epoch; `stepped` hears of every step."""
        while self.progress.epoch <= self.plan.recipe.epochs:
            self._clock = time.monotonic()
            yield self._epoch(stepped)
            if self.progress.epoch <= self.plan.recipe.epochs:
                self._save_if_due()

    def save(self) -> None:
        """Write the checkpoint; the time it takes is not the run's."""
        self._tick()
        state = {
            "identity": self.plan.identity(),
            "progress": vars(self.progress),
            "best": vars(self.best),
            "learnt": self.network.learnt(),
            "optimiser": self._optimiser.state_dict(),
        }
        with new_file(self._checkpoint) as part:
            torch.save(state, part)
        self._clock = self._saved = time.monotonic()

    def _epoch(self, stepped: Callable[[int], None]) -> EpochRow:
        at = self.progress
        self.network.learn(True)
        for batch in self._loader.training(self.train, self.plan.key.seed, at.epoch, at.step):
            torch.manual_seed(_step_seed(self.plan.key.seed, at.epoch, at.step))
            loss, right = train_step(self.network, self._optimiser, batch.pictures, batch.labels)
            at.loss += loss * len(batch.rows)
            at.right += right
            at.seen += len(batch.rows)
            at.step += 1
            if not math.isfinite(at.loss):
                raise UsageError(
                    f"{self.plan.key.folder}: the loss is {at.loss} in epoch {at.epoch}; use a lower --rate"
                )
            stepped(at.step)
            if at.step < self._loader.steps(len(self.train)):
                self._save_if_due()
        self._tick()
        rate = at.seen / max(at.epoch_seconds, 1e-9)
        loss, logits = self._validate()
        accuracy = float((logits.argmax(1) == self.validation.labels).double().mean())
        if accuracy > self.best.accuracy:
            learnt = {name: t.detach().cpu().clone() for name, t in self.network.learnt().items()}
            self.best = Best(at.epoch, accuracy, logits, learnt)
        self._tick()
        key = self.plan.key
        row = EpochRow(
            *(key.task, key.architecture, key.mode, key.seed, at.epoch),
            *(at.loss / at.seen, at.right / at.seen, loss, accuracy),
            *(at.epoch_seconds, rate),
        )
        self.progress = Progress(epoch=at.epoch + 1, seconds=at.seconds + at.epoch_seconds)
        return row

    def _validate(self) -> tuple[float, Tensor]:
        """Mean loss and logits [n, classes] of all validation photos."""
        self.network.learn(False)
        with torch.inference_mode():
            parts = [self.network.head(features) for features, _ in self._validation_features()]
        logits = torch.cat(parts).cpu()
        return float(functional.cross_entropy(logits, self.validation.labels)), logits.clone()

    def _validation_features(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What the last layer gets, with labels; a frozen backbone makes it once."""
        if self._frozen:
            yield from self._frozen
            return
        for batch in self._loader.validation(self.validation):
            made = self.network.features(batch.pictures)[0], batch.labels
            if self.plan.key.mode == MODES[0]:
                self._frozen.append(made)
            yield made

    def _tick(self) -> None:
        now = time.monotonic()
        self.progress.epoch_seconds += now - self._clock
        self._clock = now

    def _save_if_due(self) -> None:
        if time.monotonic() - self._saved >= self._save_seconds:
            self.save()

    def _load(self) -> None:
        path = self._checkpoint
        if not path.exists():
            return
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if state["identity"] != self.plan.identity():
                raise UsageError(
                    f"{path} is of another run (other photos or options); name another --out, "
                    "or delete it to start the run over"
                )
            self.network.load_state_dict(state["learnt"], strict=False)
            self._optimiser.load_state_dict(state["optimiser"])
            self.best, self.progress = Best(**state["best"]), Progress(**state["progress"])
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsageError(
                f"{path} is not a readable checkpoint ({reason}); delete it to start the run over"
            ) from None


def build(plan: Plan, device: torch.device) -> Network:
    """The network of a run, with its weights, on its device."""
    torch.manual_seed(_step_seed(plan.key.seed, 0, 0))
    key, bf16 = plan.key, plan.recipe.precision == "bf16"
    network = Network(key.architecture, len(plan.classes), key.mode, plan.preprocessing, bf16)
    loaded = pretrained(key.architecture, plan.weights)
    if loaded:
        network.load_pretrained(*loaded)
    return network.to(device).to(memory_format=torch.channels_last)


def train_step(
    network: Network, optimiser: torch.optim.Optimizer, pictures: Tensor, labels: Tensor
) -> tuple[float, int]:
    """One step of SGD: mean loss (Inception's auxiliary loss included), photos that were recognised."""
    outputs = network(pictures)
    loss = functional.cross_entropy(outputs.logits, labels)
    if outputs.auxiliary is not None:
        loss = loss + AUXILIARY_WEIGHT * functional.cross_entropy(outputs.auxiliary, labels)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach()), int((outputs.logits.argmax(1) == labels).sum())


def _step_seed(seed: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, epoch, step)).generate_state(1)[0])
