"""`enrich serve`: listens, and answers until told to stop."""

import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Thread

from enrich.errors import UsageError
from enrich.settings import Settings
from jobs.run.services import open_services
from jobs.run.stop import Stop

LOOPBACK = "127.0.0.1"
PATIENCE = 5.0  # seconds that a visitor waits for a server that is away
MOST_AT_ONCE = 200  # connections and requests; more are told to come later (503)
LINGER = 5.0  # seconds that answers under way get when the page is told to stop
log = logging.getLogger(__name__)


def serve(settings: Settings, host: str, port: int, stop: Stop) -> None:
    """Show the page at this address until `stop`.

    Raises:
        UsageError: the extra is not installed, the address cannot be listened on, or anybody could come in.
    """
    with served(settings, host, port) as url:
        sys.stdout.write(f"the page is at {url} (Ctrl-C ends it)\n")
        sys.stdout.flush()
        stop.wait()


def require() -> None:
    """Find out that the extra is missing before anything else is done.

    Raises:
        UsageError: it is.
    """
    for module in ("fastapi", "jinja2", "python_multipart", "uvicorn"):
        if find_spec(module) is None:
            install = "pip install 'listing-enrichment[web]'"
            raise UsageError(f"the page needs {module}, which is not installed: {install}")


@contextmanager
def served(settings: Settings, host: str, port: int) -> Iterator[str]:
    """The page's URL, which answers while the block runs. Raises as `serve`."""
    require()
    import uvicorn

    from jobs.web.access import Access
    from jobs.web.app import make_app

    access = Access(settings, host)
    if access.nobody_edits:
        log.warning("the page only shows: set ENRICH_WEB_EDIT_TOKEN or ENRICH_WEB_EDITORS for who may edit")
    settings = settings.model_copy(update={"outage_seconds": min(settings.outage_seconds, PATIENCE)})
    with _listening(host, port) as listening, open_services(settings, "page") as services:
        config = uvicorn.Config(
            make_app(services, access),
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=MOST_AT_ONCE,
            proxy_headers=False,  # a visitor's address is that of the connection
            timeout_graceful_shutdown=int(LINGER),
        )
        server = uvicorn.Server(config)
        thread = Thread(target=server.run, kwargs={"sockets": [listening]}, name="page", daemon=True)
        thread.start()
        try:
            shown = f"[{host}]" if ":" in host else host
            yield f"http://{shown}:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(2 * LINGER)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen()  # whoever comes before the page is up waits
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(
                f"{host}:{port} cannot be listened on ({reason}): choose another --port"
            ) from None
        yield listening
