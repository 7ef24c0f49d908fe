"""`compare --cache-features`: what a frozen backbone makes of photos, in files, in place of the photos.

Of a training photo there are so many draws, augmented as in the first epochs; later epochs take them in turn.
A file holds one draw of all photos, so a run that was killed goes on with the draw it was at.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from enrich.atomic import new_file
from training.compare.plan import Plan
from training.models.architectures import Network
from training.trainer.loading import Batch, Loader, Side, epoch_rows, in_order


@dataclass
class Kept:
    """The features of one run's photos, in place of its `Loader`. `making` hears how many photos of a file
    were seen."""

    network: Network
    loader: Loader
    draws: int
    folder: Path
    making: Callable[[int], None]

    def training(self, side: Side, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch in the order that pictures would have, from step `start` on."""
        draw, batch = (epoch - 1) % self.draws + 1, self.loader.batch
        pictures = self.loader.drawn(side, seed, draw, in_order(len(side), batch))
        features = self._features(f"draw{draw}", pictures)
        device = self.loader.device
        for rows in epoch_rows(len(side), batch, seed, epoch)[start:]:
            yield Batch(rows, features[rows].to(device), side.labels[rows].to(device))

    def validation(self, side: Side) -> Iterator[Batch]:
        """All photos in their order."""
        features = self._features("validation", self.loader.validation(side))
        device = self.loader.device
        for rows in in_order(len(side), self.loader.batch):
            yield Batch(rows, features[rows].to(device), side.labels[rows].to(device))

    def _features(self, name: str, batches: Iterator[Batch]) -> Tensor:
        """float32 [photos, width]: read, or else made of all batches."""
        path = self.folder / f"{name}.npy"
        if not path.exists():
            parts: list[Tensor] = []
            for batch in batches:
                with torch.inference_mode():
                    parts.append(self.network.features(batch.pictures)[0].cpu())
                self.making(sum(map(len, parts)))
            self.folder.mkdir(parents=True, exist_ok=True)
            with new_file(path) as part, part.open("wb") as file:
                np.save(file, torch.cat(parts).numpy())
        return torch.from_numpy(np.load(path))


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
