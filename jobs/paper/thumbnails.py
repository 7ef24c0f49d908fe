"""Photos as small pictures inside a page: fetched as the job fetches them, decoded, and drawn anew.

No byte of a photo host gets into the page.
"""

import base64
import io
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from enrich.atomic import scratch
from enrich.model.bundle import Preprocessing
from enrich.photos.decode import decode
from enrich.state.labels import Place
from jobs.labels.photos import save_photos
from jobs.run.services import Records

SIZE = Preprocessing((300, 400), "crop", "lanczos", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
QUALITY = 72
MOST_BYTES = 6_000_000  # of all pictures of a page; one may stand in two places

Photo = Mapping[str, Any]
"""An entry of `listing.photos`."""


def thumbnails(records: Records, wanted: Iterable[tuple[str, Photo]], most: int) -> dict[str, str]:
    """sha256 -> `data:` URI, of the photos (listing, photo) that can be had; the first `most` of them.

    What is left out, because its host does not answer, it shows other bytes by now or the page would get too
    large, is missing.

    Raises:
        UsageError: there is no folder for temporary files.
    """
    places: dict[str, Place] = {}
    for listing, photo in wanted:
        if photo["sha256"] and photo["sha256"] not in places and len(places) < most:
            places[photo["sha256"]] = Place(listing, photo["key"], photo["position"])
    if not places:
        return {}
    made: dict[str, str] = {}
    left = MOST_BYTES
    with tempfile.TemporaryDirectory(prefix="enrich-photos-", dir=scratch()) as folder:
        saved = save_photos(records.settings, records.source, places, Path(folder))
        for sha in places:
            if sha in saved.names:
                uri = _drawn((Path(folder) / saved.names[sha]).read_bytes(), records.settings.max_pixels)
                if uri and len(uri) <= left:
                    made[sha] = uri
                    left -= len(uri)
    return made


def _drawn(data: bytes, max_pixels: int) -> str | None:
    decoded = decode(data, [SIZE], max_pixels)
    if not decoded.status.ok:
        return None
    file = io.BytesIO()
    Image.fromarray(decoded.pixels[0]).save(file, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
