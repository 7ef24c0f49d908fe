"""The page as an application: its parts, who may come in, and what every answer carries."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException

from enrich.errors import EnrichError, OutageError, UsageError
from enrich.index.protocol import IndexUnavailable
from enrich.looks import colours
from enrich.photos.open import open_transport
from jobs.run.services import Services
from jobs.web.access import FORM_COOKIE, Access, form_token, keep, same_origin
from jobs.web.pages import listing, login, photo, review, search, status
from jobs.web.photos import Photos
from jobs.web.rendering import COLOURS, STATIC, render

log = logging.getLogger(__name__)

PAGES = (search, review, status, listing, photo, login)
"""Each page is a module with a `router`; its `NAV`, where it has one, is shown on top, in this order."""
MOST_BYTES = 64_000  # of a form
_UNGUARDED = ("/static/", "/healthz", "/login")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FOREVER = "public, max-age=31536000, immutable"  # another file has another address
Next = Callable[[Request], Awaitable[Response]]


def make_app(services: Services, access: Access) -> FastAPI:
    """The application on what is open; whoever made `services` closes them after it.

    Raises:
        UsageError: photos cannot be kept where the settings say, or not be asked for as they say.
    """
    transport = open_transport(services.settings)
    photos = Photos(services, transport)  # not in `lifespan`, whose errors uvicorn keeps to itself

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with transport:
            yield

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.services, app.state.access, app.state.photos = services, access, photos
    app.state.changes = {}
    app.state.publishing, app.state.standing = review.Publishing(), status.Standing()
    app.state.nav = [page.NAV for page in PAGES if hasattr(page, "NAV")]
    for page in PAGES:
        app.include_router(page.router)
    app.add_api_route(f"/static/{COLOURS}", lambda: Response(colours(), media_type="text/css"))
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_api_route("/healthz", lambda: PlainTextResponse("alive\n"), include_in_schema=False)
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(EnrichError, _failed)
    app.add_exception_handler(IndexUnavailable, _failed)
    app.middleware("http")(_guard)
    return app


async def _guard(request: Request, call_next: Next) -> Response:
    """Whoever may not come in gets no further; every answer carries the headers."""
    access: Access = request.app.state.access
    request.state.visitor, request.state.form_token = None, form_token(request)
    try:
        response = _turned_away(request, access) or await call_next(request)
    except Exception:
        log.exception("%s %s failed", request.method, request.url.path)
        response = _told(request, 500, "That went wrong here. The log of `enrich serve` says why.")
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    ours = request.scope["path"].startswith("/static/") and response.status_code == 200
    response.headers.setdefault("Cache-Control", _FOREVER if ours else "no-store")
    is_page = response.headers.get("content-type", "").startswith("text/html")
    if is_page and request.cookies.get(FORM_COOKIE) != request.state.form_token:
        keep(response, request, FORM_COOKIE, request.state.form_token)
    return response


def _turned_away(request: Request, access: Access) -> Response | None:
    if not access.knows_host(request):
        return PlainTextResponse("The page does not go by this name: see ENRICH_WEB_HOSTS.\n", 421)
    request.state.visitor = visitor = access.visitor(request)
    if visitor is None and not request.scope["path"].startswith(_UNGUARDED):
        return _asked_for_login(request, access)
    if request.method in ("GET", "HEAD"):
        return None
    # A form in pieces is as long as they are, whatever else its headers say.
    if "transfer-encoding" in request.headers or not request.headers.get("content-length", "").isdecimal():
        return _told(request, 411, "How long the form is, is missing.")
    if int(request.headers["content-length"]) > MOST_BYTES:
        return _told(request, 413, f"The form is longer than {MOST_BYTES} bytes.")
    if (visitor is None or not visitor.bearer) and not same_origin(request):
        return _told(request, 403, "This was sent by another site.")
    return None


def _asked_for_login(request: Request, access: Access) -> Response:
    if access.has_login and "hx-request" in request.headers:  # which accepts anything, by its headers
        return Response(status_code=401, headers={"HX-Redirect": "/login"})
    wants_page = "text/html" in request.headers.get("accept", "") and request.method == "GET"
    if not (access.has_login and wants_page):
        return PlainTextResponse("Nobody is logged in.\n", 401, {"WWW-Authenticate": "Bearer"})
    # As the browser wrote it: ids may hold what else is a part of an address.
    path: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    query: bytes = request.scope["query_string"]
    wanted = path + (b"?" + query if query else b"")
    return RedirectResponse(f"/login?next={quote(wanted, safe='')}", 303)


def _told(request: Request, status: int, message: str) -> Response:
    if request.scope["path"].endswith(".json"):
        return JSONResponse({"error": message}, status)
    return render(request, "told.html", status, message=message, number=status)


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException | AnyHTTPException):
        return _told(request, 400, "The address does not say what it should.")
    told = "There is no such page." if error.detail == "Not Found" else str(error.detail)
    return _told(request, error.status_code, told)


async def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, IndexUnavailable):
        return _told(request, 503, f"The index gives no answer ({error}). Try again later.")
    if isinstance(error, UsageError):
        return _told(request, 400, str(error))
    log.warning("%s %s: %s", request.method, request.url.path, error)
    if isinstance(error, OutageError):  # which tells whoever starts commands what to do
        looks = request.method in ("GET", "HEAD")
        what = "Try again later." if looks else "What you just said may not be recorded: look again later."
        return _told(request, 503, f"The database gives no answer. {what}")
    return _told(request, 503, str(error))
