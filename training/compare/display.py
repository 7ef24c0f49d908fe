"""How a comparison shows where it is: bars on a terminal, one line an epoch elsewhere; on stderr."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from training.compare.results import EpochRow, RunKey


class Display:
    """`total` runs, of which `done` were finished before."""

    def __init__(self, total: int, done: int) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._runs: TaskID = self._bars.add_task("runs", total=total, completed=done)
        self._steps: TaskID = self._bars.add_task("", total=1, visible=False)
        self._of = (0, 0, 0)
        """Epochs, steps an epoch, steps done in whole epochs."""

    def __enter__(self) -> "Display":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._bars.stop()

    def started(self, key: RunKey, epochs: int, steps: int, epoch: int, step: int) -> None:
        """A run begins, or goes on at this step of this epoch."""
        self._of = (epochs, steps, (epoch - 1) * steps)
        name = f"{key.task} · {key.architecture} · {key.mode}"
        self._bars.reset(self._steps, total=epochs * steps, description=name, visible=True)
        self._bars.update(self._steps, completed=self._of[2] + step)

    def stepped(self, step: int) -> None:
        """So many steps of this epoch are done."""
        self._bars.update(self._steps, completed=self._of[2] + step)

    def epoch(self, row: EpochRow) -> None:
        """An epoch is over."""
        self._of = (self._of[0], self._of[1], row.epoch * self._of[1])
        line = (
            f"task={row.task} architecture={row.architecture} mode={row.mode} seed={row.seed} "
            f"epoch={row.epoch}/{self._of[0]} train_loss={row.train_loss:.4f} "
            f"train_accuracy={row.train_accuracy:.4f} val_loss={row.val_loss:.4f} "
            f"val_accuracy={row.val_accuracy:.4f} seconds={row.seconds:.1f} "
            f"images_per_second={row.images_per_second or 0:.1f}"
        )
        if self._console.is_terminal:
            best = f"epoch {row.epoch}/{self._of[0]}, validation {row.val_accuracy:.1%}"
            self._bars.update(self._steps, description=f"{row.task} · {row.architecture} · {best}")
        else:
            self._console.print(line, soft_wrap=True, markup=False, highlight=False)

    def finished(self) -> None:
        """A run is done, here or elsewhere."""
        self._bars.advance(self._runs)
