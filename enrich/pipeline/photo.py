"""One photo, from what is known of it to its result: fetch, decode, score.

What several listings share is worked on once: a photo by its URL key, a picture by its bytes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from enrich.model.bundle import Bundle
from enrich.model.engine import scores_of
from enrich.photos.decode import decode
from enrich.photos.transport import Paused, PhotoTransport
from enrich.pipeline.batching import Batcher, Memo
from enrich.pipeline.features import FreshFeatures
from enrich.pipeline.figures import Figures
from enrich.pipeline.known import KnownScores
from enrich.pipeline.outcome import UNKNOWN, Known, look_up, settled, with_bytes, without_bytes
from enrich.pipeline.pools import Pools, run_in
from enrich.pipeline.requests import PhotoRequests
from enrich.records import (
    Claim,
    Decoded,
    Fetched,
    Output,
    Photo,
    PhotoResult,
    PhotoScore,
    PhotoState,
    PhotoStatus,
)
from enrich.state.queue import WorkQueue

LOOKED_UP = 32  # photos whose scores are looked up at once
LOOK_UP_LINGER = 0.05  # seconds without another photo after which fewer are


class PhotoStages:
    """Takes photos to their results.

    `stopping()` says that the run was told to stop: then no photo is asked for any more.
    """

    def __init__(
        self,
        queue: WorkQueue,
        bundle: Bundle,
        transport: PhotoTransport,
        batcher: Batcher[Decoded, dict[str, Output]],
        pools: Pools,
        max_pixels: int,
        features: FreshFeatures,
        figures: Figures,
        stopping: Callable[[], bool],
    ) -> None:
        self._queue, self._bundle = queue, bundle
        self._batcher, self._pools, self._max_pixels = batcher, pools, max_pixels
        self._features, self._figures = features, figures
        self._known = KnownScores(queue, bundle, figures)
        self._fetch_memo, self._score_memo = Memo(), Memo()
        self.requests = PhotoRequests(transport, stopping)
        self.look_ups: Batcher[str, PhotoScore | None] = Batcher(
            self._known_scores, LOOKED_UP, pools.state, lambda _: bool(self.requests), LOOK_UP_LINGER
        )
        """Scores on record of bytes (by sha256) that were just fetched; to be run with the pipeline."""

    def look_up(self, keys: Sequence[str]) -> dict[str, Known]:
        """What state knows of these URL keys; called in a thread."""
        return look_up(self._queue, keys, self._known.of)

    def settled(self, claim: Claim, photos: Sequence[Photo], known: Mapping[str, Known]) -> list[PhotoResult]:
        """The results of a listing's photos, by URL key `known`; [] where one of them is to be asked for."""
        if claim.revalidate:
            return []
        results = [settled(photo, known.get(photo.key, UNKNOWN)) for photo in photos]
        return [result for result in results if result] if all(results) else []

    async def result(
        self, claim: Claim, photo: Photo, known: Known, last: bool
    ) -> PhotoResult | Paused | None:
        """How one photo of a claim's listing ends.

        `Paused` where its host wants to be left alone, unless this is the `last` try; None where the run is
        stopping.
        """
        if not claim.revalidate and (result := settled(photo, known)) is not None:
            return result
        before = known.state
        key = _key(claim, photo)

        async def fetch() -> tuple[PhotoResult | Paused | None, PhotoState | None]:
            return await self._fetch(photo, known, last), before

        fetched, made = await self._fetch_memo.get(key, fetch)
        if not made and _superseded(*fetched, before):
            self._fetch_memo.forget(key, fetched)
            fetched, made = await self._fetch_memo.get(key, fetch)
        outcome, _ = fetched
        if made and (not isinstance(outcome, PhotoResult) or outcome.transient):
            self._fetch_memo.forget(key)
        if not isinstance(outcome, PhotoResult):
            return outcome
        if made:
            return self._features.join(outcome)
        return replace(outcome, photo=photo, requested=False)

    def forget(self, claim: Claim, results: Iterable[PhotoResult]) -> None:
        """These results are not saved: whoever needs such a photo is to ask for it again."""
        for result in results:
            if result.requested:
                self._fetch_memo.forget(_key(claim, result.photo))
            if result.score and result.score.embeddings:
                self._score_memo.forget(result.sha256)

    async def _fetch(self, photo: Photo, known: Known, last: bool) -> PhotoResult | Paused | None:
        """Request one photo and take it to its scores."""
        fetched = await self.requests.ask(photo.url, known.validators(photo), self._figures)
        left_alone = False
        if fetched is None or (isinstance(fetched, Paused) and not last):
            return fetched
        if isinstance(fetched, Paused):
            left_alone = fetched.refusal is None
            text = f"its host wants to be left alone for {fetched.seconds:.0f} s more"
            fetched = fetched.refusal or Fetched(PhotoStatus.THROTTLED, error=text)
        self._figures.bytes += fetched.bytes_read
        if (result := without_bytes(photo, known, fetched)) is not None:
            return replace(result, left_alone=left_alone)
        return with_bytes(photo, known, fetched, await self._score(fetched))

    async def _score(self, fetched: Fetched) -> PhotoScore | Decoded:
        """The scores of some bytes, made once per run and model; or why they cannot be decoded."""
        sha, body = fetched.sha256, fetched.body
        assert sha is not None and body is not None

        async def make() -> PhotoScore | Decoded:
            if known := await self.look_ups.submit(sha):
                return known
            decoded = await run_in(self._pools.decode, self._decode, body)
            if not decoded.status.ok:
                return decoded
            outputs = await self._batcher.submit(decoded)
            self._figures.scored += 1
            self._features.put(sha, outputs)
            return PhotoScore(sha, decoded.dhash, scores_of(outputs))

        return (await self._score_memo.get(sha, make))[0]

    def _known_scores(self, shas: Sequence[str]) -> list[PhotoScore | None]:
        with self._figures.timed("read"):
            known = self._known.of(shas)
        return [known.get(sha) for sha in shas]

    def _decode(self, body: bytes) -> Decoded:
        with self._figures.timed("decode"):
            return decode(body, self._bundle.preprocessings, self._max_pixels)


def _key(claim: Claim, photo: Photo) -> Any:
    """What listings share a photo by; a revalidation asks anew."""
    return photo.key, photo.version, claim.revalidate and claim.token


def _superseded(
    outcome: PhotoResult | Paused | None, before: PhotoState | None, now: PhotoState | None
) -> bool:
    """Whether state has moved past a remembered outcome: asked for again, or other bytes are on record.

    `before` is what was known when it was fetched; who knows no more than that shares what was found.
    """
    if not isinstance(outcome, PhotoResult) or now is None or now == before:
        return False
    if not outcome.status.ok:
        return now.status.ok or now.retry_due
    return now.status.ok and now.sha256 != outcome.sha256
