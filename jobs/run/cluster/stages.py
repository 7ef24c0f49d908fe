"""What runs on the nodes: a `Fetcher` asks photo hosts, a `Scorer` decodes, scores and saves.

Plain classes that Ray makes actors of. Photos' bytes go from the one to the other through Ray's object store.
"""

import asyncio
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from platform import node
from typing import cast

from enrich.cores import usable_cores
from enrich.errors import UsageError
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.engine import Engine, lane_pool, scores_of
from enrich.model.open import choose, missing
from enrich.photos.decode import decode
from enrich.photos.open import open_transport
from enrich.photos.transport import Paused
from enrich.pipeline.features import FreshFeatures
from enrich.pipeline.figures import Figures
from enrich.pipeline.outcome import with_bytes, without_bytes
from enrich.pipeline.requests import PhotoRequests
from enrich.records import Decoded, Fetched, PhotoResult, PhotoScore, PhotoStatus
from enrich.settings import Settings
from enrich.state.ahead import Ahead
from enrich.state.database import connect
from enrich.state.queue import complete_scores
from jobs.run.cluster.hosts import Ask

OpenEngine = Callable[[Bundle, Settings], Engine]


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking for some photos, without their bytes."""

    paused: Mapping[int, Paused]
    """By the photo's place, of those whose host is paused."""
    dropped: frozenset[int]
    """The places of those that were not asked for, or not to the end, because all is to end."""
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of some photos, in order."""

    ends: Sequence[tuple[PhotoStatus, bool]]
    """How each ended, and whether that may pass."""
    scored: int
    places: int
    """In the batches that they were scored in."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    left: frozenset[int] = frozenset()
    """The places of those that cannot be written down, such as scores that are no numbers."""


class NotReadyError(Exception):
    """An actor that died between two calls was started anew by Ray, and has nothing open."""


class Fetcher:
    """Asks the hosts that are its own, within the settings' limits for all and for each."""

    def __init__(self) -> None:
        self._requests: PhotoRequests | None = None
        self._stopped = False
        self._open = AsyncExitStack()

    async def ready(self, settings: Settings) -> None:
        """Get ready to fetch.

        Raises:
            SettingsError: a setting cannot be used.
        """
        if self._requests is None:
            transport = await self._open.enter_async_context(open_transport(settings))
            self._requests = PhotoRequests(transport, lambda: self._stopped)

    async def fetch(self, asks: Sequence[Ask]) -> tuple[Asked, list[Fetched]]:
        """Ask for photos of one host: what came of it, and all answers but of those paused or dropped.

        Raises:
            NotReadyError: `ready` has to be called first.
        """
        if self._requests is None:
            raise NotReadyError("the fetcher was started anew")
        figures = Figures()
        asking = (self._requests.ask(ask.photo.url, ask.known.validators(ask.photo), figures) for ask in asks)
        answers = await asyncio.gather(*asking)
        fetched = [answer for answer in answers if isinstance(answer, Fetched)]
        asked = Asked(
            {place: answer for place, answer in enumerate(answers) if isinstance(answer, Paused)},
            frozenset(place for place, answer in enumerate(answers) if answer is None),
            sum(answer.bytes_read for answer in fetched),
            figures.seconds["fetch"],
        )
        return asked, fetched

    async def stop(self) -> None:
        """Drop the requests under way, and ask for nothing any more."""
        self._stopped = True
        if self._requests is not None:
            self._requests.cancel()


class Scorer:
    """Takes fetched photos to their rows in state."""

    def ready(self, settings: Settings, bundle: bytes, open_engine: OpenEngine) -> None:
        """Connect to state and load the model from the `packed` bundle.

        Raises:
            EnrichError: one of them cannot be used.
        """
        if hasattr(self, "_engine"):
            return
        loaded, wanted = load_bundle(unpacked(bundle)), settings.precision
        if wanted != "auto" and (reason := missing(wanted, loaded, settings)):
            raise UsageError(
                f"the node {node()} cannot score in {wanted}, in which the command does: {reason}; set "
                "ENRICH_PRECISION=fp32, or bf16 where all nodes have it"
            )
        self._bundle = choose(loaded, settings).bundle
        engine = open_engine(self._bundle, settings)
        self._features = FreshFeatures(self._bundle, settings.keep_embeddings)
        database, _ = connect(settings)
        self._ahead = Ahead(database)
        self._decoders = ThreadPoolExecutor(settings.decode_threads or usable_cores(), "decode")
        self._max_pixels = settings.max_pixels
        self._lanes = lane_pool(engine)
        self._engine = engine

    def score(self, asks: Sequence[Ask], *fetched: Sequence[Fetched]) -> Scored:
        """Decode and score what is not scored yet, and save how each photo ended, in one transaction.

        Raises:
            NotReadyError: `ready` has to be called first.
        """
        if not hasattr(self, "_engine"):
            raise NotReadyError("the scorer was started anew")
        figures = Figures()
        answers = [each for batch in fetched for each in batch]
        scores = self._scores(answers, figures)
        results: list[PhotoResult] = []
        for ask, answer in zip(asks, answers, strict=True):
            result = without_bytes(ask.photo, ask.known, answer)
            if result is None:
                result = with_bytes(ask.photo, ask.known, answer, scores[answer.sha256 or ""])
            results.append(result)
        with figures.timed("save"):
            left = frozenset(self._unsaved(results))
        ends = [(result.status, result.transient) for result in results]
        return Scored(ends, figures.scored, figures.places, dict(figures.seconds), left)

    def _unsaved(self, results: Sequence[PhotoResult], start: int = 0) -> Iterator[int]:
        """Save how photos ended; the places of those that cannot be written down, which cost the others
        nothing."""
        try:
            self._ahead.save(results)
        except ValueError:
            if len(results) == 1:
                yield start
                return
            middle = len(results) // 2
            yield from self._unsaved(results[:middle], start)
            yield from self._unsaved(results[middle:], start + middle)

    def _scores(self, answers: Sequence[Fetched], figures: Figures) -> dict[str, PhotoScore | Decoded]:
        """Scores of the answers' bytes by sha256, or why they cannot be decoded; the same bytes just once."""
        bodies = {one.sha256: one.body for one in answers if one.sha256 and one.body is not None}
        models = [member.model_id for member in self._bundle.members]
        ends: dict[str, PhotoScore | Decoded] = {**complete_scores(self._ahead, list(bodies), models)}
        shas = [sha for sha in bodies if sha not in ends]
        with figures.timed("decode"):
            decoded = dict(zip(shas, self._decoders.map(self._decode, map(bodies.get, shas)), strict=True))
        ends |= {sha: one for sha, one in decoded.items() if not one.status.ok}
        good = [(sha, one) for sha, one in decoded.items() if one.status.ok]
        size = self._engine.batch_size
        batches = [[one.pixels for _, one in good[n : n + size]] for n in range(0, len(good), size)]
        with figures.timed("score"):
            made = [each for batch in self._lanes.map(self._engine.score, batches) for each in batch]
        for (sha, one), outputs in zip(good, made, strict=True):
            ends[sha] = PhotoScore(sha, one.dhash, scores_of(outputs), self._features.packed(outputs))
        figures.scored, figures.places = len(good), len(batches) * size
        return ends

    def _decode(self, body: bytes | None) -> Decoded:
        return decode(body or b"", self._bundle.preprocessings, self._max_pixels)


def packed(folder: Path) -> bytes:
    """A bundle's files as one archive, so that nodes need not share the folder."""
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        for path in folder.rglob("*"):
            if path.is_file():
                files.writestr(str(path.relative_to(folder)), path.read_bytes())
    return archive.getvalue()


def unpacked(bundle: bytes) -> Path:
    """What `packed` made, as a folder to read from that stands nowhere on the disk: Ray kills actors, also
    while they load, and nobody would remove it."""
    files = zipfile.ZipFile(BytesIO(bundle))
    files.filename = "bundle"  # what messages call it
    return cast(Path, zipfile.Path(files))


def counted(scored: Scored, figures: Figures) -> None:
    """Add to the figures how requested photos ended, but for those that are left, and what it took."""
    kinds = Counter(status for place, (status, _) in enumerate(scored.ends) if place not in scored.left)
    figures.photos += kinds.total()
    figures.scored += scored.scored
    figures.places += scored.places
    for stage, seconds in scored.seconds.items():
        figures.seconds[stage] += seconds
    figures.fetched += kinds.pop(PhotoStatus.OK, 0)
    figures.unchanged += kinds.pop(PhotoStatus.UNCHANGED, 0)
    figures.failures.update({status.value: count for status, count in kinds.items()})
