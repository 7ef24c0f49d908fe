"""`compare --timing-steps`: how long an epoch takes, without training to the end.

Every (architecture, mode) is measured in each round, one after another, so that a machine that slows down
slows them all. Weights are random: time does not depend on them. Validation is measured as the thesis made
it, with a forward pass over every photo in both modes.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path

import torch

from enrich.atomic import writing
from enrich.errors import UsageError
from training import thesis
from training.compare.compare import Machine
from training.compare.plan import Choice, Plan, Recipe, check_photos, make_plans
from training.compare.results import LOCK, TIMINGS, TimingRow, add_rows
from training.compare.run import build, optimiser_of, train_step
from training.data.prepared import Prepared, read_prepared
from training.models.architectures import WeightSource
from training.trainer.loading import Batch, Loader, side_of
from training.trainer.loop import locked

WARM_UP = 1
"""Steps before the clock starts: libraries choose their kernels and take memory in the first."""


def measure(
    folder: Path, out: Path, choice: Choice, recipe: Recipe, machine: Machine, steps: int, rounds: int
) -> Iterator[TimingRow]:
    """Measure `steps` steps of training and of validation a round; a row as soon as it is known, also added
    to `out`/timings.csv. Raises UsageError: see `plan`; or timings are there already."""
    with writing(f"--out {out}"):
        there = (out / TIMINGS).exists()
    if there:
        raise UsageError(f"{out / TIMINGS} is there already: name another --out")
    prepared = read_prepared(folder)
    scratch = WeightSource("none")
    plans = make_plans(prepared, choice, scratch, replace(recipe, epochs=1))
    check_photos(prepared, plans)
    with writing(f"--out {out}"), locked(out / LOCK):
        pass
    for number in range(1, rounds + 1):
        for plan in plans:
            row = _measure(plan, prepared, machine, steps, number)
            add_rows(out, [row])
            yield row


def _measure(plan: Plan, prepared: Prepared, machine: Machine, steps: int, number: int) -> TimingRow:
    key, recipe = plan.key, plan.recipe
    train, validation = side_of(prepared, key.task, "train"), side_of(prepared, key.task, "val")
    loader = Loader(plan.preprocessing, recipe.batch, machine.workers, machine.device)
    network = build(plan, machine.device)
    optimiser = optimiser_of(plan, network)

    def learn(batch: Batch) -> None:
        train_step(network, optimiser, batch)

    def look(batch: Batch) -> None:
        with torch.inference_mode():
            network(batch.pictures)[0].argmax().item()

    network.learn(True)
    epochs = (loader.training(train, key.seed, epoch) for epoch in count(1))
    train_rate = _rate(chain.from_iterable(epochs), steps, learn)
    network.learn(False)
    val_rate = _rate(chain.from_iterable(loader.validation(validation) for _ in count()), steps, look)
    photos = thesis.PHOTOS.get(key.task, (len(train), len(validation)))
    return TimingRow(
        *(key.task, key.architecture, key.mode, number, steps, recipe.batch, train_rate, val_rate),
        *(photos[0] / train_rate + photos[1] / val_rate, machine.name, torch.get_num_threads()),
    )


def _rate(batches: Iterator[Batch], steps: int, work: Callable[[Batch], None]) -> float:
    """Photos a second, loading included."""
    for batch in islice(batches, WARM_UP):
        work(batch)
    photos, start = 0, time.monotonic()
    for batch in islice(batches, steps):
        work(batch)
        photos += len(batch.rows)
    return photos / (time.monotonic() - start)
