"""One run: a network learns a task for so many epochs, and may be killed at any moment.

What is drawn depends on seed, epoch, step and photo alone. So in fp32 on a CPU a run that was killed and
resumed ends with the same bits as an undisturbed one.
"""

import hashlib
import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from enrich.atomic import new_file
from training.compare.plan import Plan
from training.compare.results import EpochRow
from training.models.architectures import MODES, Network, pretrained
from training.trainer.loading import Batch, Loader, Rows, Side, epoch_rows, in_order

AUXILIARY_WEIGHT = 0.4


@dataclass
class Kept:
    """`compare --cache-features`: what a frozen backbone makes of a run's photos, in place of its `Loader`.

    Of a training photo there are `draws` draws, augmented as in the first epochs; later epochs take them in
    turn. A file holds one draw of all photos, so a run that was killed goes on with the draw it was at.
    `making` hears how many photos of a file were seen.
    """

    network: Network
    loader: Loader
    draws: int
    folder: Path
    making: Callable[[int], None]

    def training(self, side: Side, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch in the order that pictures would have, from step `start` on."""
        draw, batch = (epoch - 1) % self.draws + 1, self.loader.batch
        pictures = self.loader.drawn(side, seed, draw, in_order(len(side), batch))
        places = epoch_rows(len(side), batch, seed, epoch)[start:]
        yield from self._batches(f"draw{draw}", pictures, side, places)

    def validation(self, side: Side) -> Iterator[Batch]:
        """All photos in their order."""
        pictures, places = self.loader.validation(side), in_order(len(side), self.loader.batch)
        yield from self._batches("validation", pictures, side, places)

    def _batches(
        self, name: str, pictures: Iterator[Batch], side: Side, places: Sequence[Rows]
    ) -> Iterator[Batch]:
        """Features float32 [n, width] of these places, read; or first made of all `pictures`, in order."""
        path = self.folder / f"{name}.npy"
        if not path.exists():
            parts: list[Tensor] = []
            for batch in pictures:
                with torch.inference_mode():
                    parts.append(self.network.features(batch.pictures)[0].cpu())
                self.making(sum(map(len, parts)))
            self.folder.mkdir(parents=True, exist_ok=True)
            with new_file(path) as part, part.open("wb") as file:
                np.save(file, torch.cat(parts).numpy())
        features, device = torch.from_numpy(np.load(path)), self.loader.device
        for rows in places:
            yield Batch(rows, features[rows].to(device), side.labels[rows].to(device))


def kept_of(
    plan: Plan, network: Network, loader: Loader, out: Path, making: Callable[[int], None] = lambda _: None
) -> Kept:
    """The features of a run, in a folder of `out` that is named by all that they depend on but the draw."""
    told = [plan.digest, plan.key.task, plan.key.architecture, plan.key.seed, plan.recipe.precision]
    found = hashlib.sha256(json.dumps([*told, asdict(plan.preprocessing)]).encode())
    for name, tensor in sorted(network.backbone.state_dict().items()):
        if not name.startswith("AuxLogits."):
            found.update(name.encode() + tensor.cpu().numpy().tobytes())
    folder = out / "features" / found.hexdigest()[:24]
    return Kept(network, loader, plan.recipe.cache_features or 1, folder, making)


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
    """A network at work on one task, for `training.trainer.loop`.

    `source`: batches of pictures, or of what is kept of them. `ended` hears of every epoch.
    """

    remedy = "use a lower --rate"

    def __init__(
        self,
        plan: Plan,
        network: Network,
        train: Side,
        validation: Side,
        source: Loader | Kept,
        ended: Callable[[EpochRow], None],
    ) -> None:
        self.plan, self.network, self.train, self.validation = plan, network, train, validation
        self._source, self._ended = source, ended
        self._optimiser = optimiser_of(plan, network)
        self.best, self.progress = Best(), Progress()
        self._frozen: list[Tensor] = []
        self._clock = 0.0

    @property
    def identity(self) -> dict[str, Any]:
        return self.plan.identity()

    @property
    def where(self) -> str:
        return f"{self.plan.key.folder}, epoch {self.progress.epoch}"

    def batches(self) -> Generator[Batch]:
        """The training batches that are left. What passes between two of them, such as saving, is not the
        run's time."""
        while self.progress.epoch <= self.plan.recipe.epochs:
            self._clock = time.monotonic()
            self.network.learn(True)
            at = self.progress
            for batch in self._source.training(self.train, self.plan.key.seed, at.epoch, at.step):
                yield batch
                self._clock = time.monotonic()
            self._end_epoch()

    def step(self, batch: Batch) -> float:
        at = self.progress
        torch.manual_seed(_step_seed(self.plan.key.seed, at.epoch, at.step))
        loss, right = train_step(self.network, self._optimiser, batch)
        at.loss += loss * len(batch.rows)
        at.right += right
        at.seen += len(batch.rows)
        at.step += 1
        self._tick()
        return loss

    def state(self) -> dict[str, Any]:
        return {
            "progress": vars(self.progress),
            "best": vars(self.best),
            "learnt": self.network.learnt(),
            "optimiser": self._optimiser.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["learnt"], strict=False)
        self._optimiser.load_state_dict(state["optimiser"])
        self.best, self.progress = Best(**state["best"]), Progress(**state["progress"])

    def _end_epoch(self) -> None:
        at, key = self.progress, self.plan.key
        rate = at.seen / max(at.epoch_seconds, 1e-9)
        loss, logits = self._validate()
        accuracy = float((logits.argmax(1) == self.validation.labels).double().mean())
        if accuracy > self.best.accuracy:
            learnt = {name: t.detach().cpu().clone() for name, t in self.network.learnt().items()}
            self.best = Best(at.epoch, accuracy, logits, learnt)
        self._tick()
        row = EpochRow(
            *(key.task, key.architecture, key.mode, key.seed, at.epoch),
            *(at.loss / at.seen, at.right / at.seen, loss, accuracy),
            *(at.epoch_seconds, rate),
        )
        self.progress = Progress(epoch=at.epoch + 1, seconds=at.seconds + at.epoch_seconds)
        self._ended(row)

    def _validate(self) -> tuple[float, Tensor]:
        """Mean loss and logits [n, classes] of all validation photos; what a frozen backbone makes of them is
        made once."""
        self.network.learn(False)
        with torch.inference_mode():
            features = self._frozen or [
                self.network.features(batch.pictures)[0] for batch in self._source.validation(self.validation)
            ]
            logits = torch.cat([self.network.head(one) for one in features]).cpu()
        if self.plan.key.mode == MODES[0]:
            self._frozen = features
        return float(functional.cross_entropy(logits, self.validation.labels)), logits.clone()

    def _tick(self) -> None:
        now = time.monotonic()
        self.progress.epoch_seconds += now - self._clock
        self._clock = now


def build(plan: Plan, device: torch.device) -> Network:
    """The network of a run, with its weights, on its device; a UsageError where weights cannot be had."""
    torch.manual_seed(_step_seed(plan.key.seed, 0, 0))
    key, bf16 = plan.key, plan.recipe.precision == "bf16"
    network = Network(key.architecture, len(plan.classes), key.mode, plan.preprocessing, bf16)
    if loaded := pretrained(key.architecture, plan.weights):
        network.load_pretrained(*loaded)
    return network.to(device).to(memory_format=torch.channels_last)


def optimiser_of(plan: Plan, network: Network) -> torch.optim.Optimizer:
    """The thesis's SGD, of the parameters that learn."""
    learning = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.SGD(learning, lr=plan.recipe.rate, momentum=plan.recipe.momentum)


def train_step(network: Network, optimiser: torch.optim.Optimizer, batch: Batch) -> tuple[float, int]:
    """One step of SGD: mean loss (Inception's auxiliary loss included), photos that were recognised."""
    logits, auxiliary = network(batch.pictures)
    loss = functional.cross_entropy(logits, batch.labels)
    if auxiliary is not None:
        loss = loss + AUXILIARY_WEIGHT * functional.cross_entropy(auxiliary, batch.labels)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach()), int((logits.argmax(1) == batch.labels).sum())


def _step_seed(seed: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, epoch, step)).generate_state(1)[0])
