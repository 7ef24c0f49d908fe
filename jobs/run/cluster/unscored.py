"""The photos to be asked for, of listings that wait: read from state and source page by page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enrich.pipeline.figures import Figures
from enrich.pipeline.known import KnownScores
from enrich.pipeline.outcome import UNKNOWN, look_up, settled
from enrich.state.ahead import Ahead
from jobs.run.cluster.hosts import Ask
from jobs.run.services import Services

PAGE = 200  # listings read at once
REMEMBERED = 100_000  # URL keys that are not handed out again, so that a photo that listings share comes once


@dataclass(frozen=True, slots=True)
class Page:
    """Some listings, and the photos of theirs that are to be asked for."""

    number: int
    listings: int
    asks: Sequence[Ask]


def unscored(services: Services, ids: Sequence[str] | None) -> Iterator[Page]:
    """Listings that can be claimed now (of `ids`, if given), with the photos that state does not settle.

    A photo comes once, whatever the number of listings that show it, unless so many others come in between
    that it is forgotten; by then it is in state.
    """
    ahead = Ahead(services.database)
    scores = KnownScores(services.queue, services.bundle, Figures())
    remembered: dict[str, None] = {}
    after, number = None, 0
    while waiting := ahead.waiting(after, PAGE, ids):
        after, number = waiting[-1], number + 1
        photos = {photo.key: photo for found in services.source.photos(waiting) for photo in found.photos}
        known = look_up(services.queue, sorted(photos), scores.of)
        asks = []
        for key, photo in photos.items():
            ask = Ask(photo, known.get(key, UNKNOWN), number)
            if key not in remembered and settled(photo, ask.known) is None:
                remembered[key] = None
                asks.append(ask)
        while len(remembered) > REMEMBERED:
            del remembered[next(iter(remembered))]
        yield Page(number, len(waiting), asks)
