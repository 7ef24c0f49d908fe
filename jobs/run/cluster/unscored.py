"""The photos to be asked for, of listings that wait: read from state and source page by page."""

from collections.abc import Iterator, Sequence

from enrich.pipeline.figures import Figures
from enrich.pipeline.known import KnownScores
from enrich.pipeline.outcome import UNKNOWN, look_up, settled
from enrich.state.ahead import Ahead
from jobs.run.cluster.hosts import Ask, Page
from jobs.run.services import Services

PAGE = 200  # listings read at once
REMEMBERED = 100_000  # URL keys that are not handed out again, so that a photo that listings share comes once


def unscored(services: Services, ids: Sequence[str] | None) -> Iterator[tuple[Page, list[Ask]]]:
    """Listings that can be claimed now (of `ids`, if given), with the photos that state does not settle.

    A photo comes once, whatever the number of listings that show it, unless so many others come in between
    that it is forgotten; by then it is in state.
    """
    ahead = Ahead(services.database)
    scores = KnownScores(services.queue, services.bundle, Figures())
    remembered: dict[str, None] = {}
    after = None
    while waiting := ahead.waiting(after, PAGE, ids):
        after, page = waiting[-1], Page(len(waiting))
        photos = {photo.key: photo for found in services.source.photos(waiting) for photo in found.photos}
        known = look_up(services.queue, sorted(photos), scores.of)
        asks = []
        for key, photo in photos.items():
            ask = Ask(photo, known.get(key, UNKNOWN), page)
            if key not in remembered and settled(photo, ask.known) is None:
                remembered[key] = None
                asks.append(ask)
        while len(remembered) > REMEMBERED:
            del remembered[next(iter(remembered))]
        page.photos = len(asks)
        yield page, asks
