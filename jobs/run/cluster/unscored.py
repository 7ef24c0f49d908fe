"""The photos to be asked for, of listings that wait: read from state and source page by page."""

from collections.abc import Iterator, Sequence

from enrich.pipeline.figures import Figures
from enrich.pipeline.known import KnownScores
from enrich.pipeline.outcome import UNKNOWN, look_up, seen, settled
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
        after, page = next(reversed(waiting)), Page(len(waiting))
        found = list(services.source.photos(list(waiting)))
        keys = sorted({photo.key for listing in found for photo in listing.photos})
        known = look_up(services.queue, keys, scores.of)
        asks = []
        for listing in found:
            same = waiting[listing.id] == listing.photo_fp
            own = seen(listing.photos, known) if same else known
            for photo in listing.photos:
                ask = Ask(photo, own.get(photo.key, UNKNOWN), page)
                if photo.key not in remembered and settled(photo, ask.known) is None:
                    remembered[photo.key] = None
                    asks.append(ask)
        while len(remembered) > REMEMBERED:
            del remembered[next(iter(remembered))]
        page.photos = len(asks)
        yield page, asks
