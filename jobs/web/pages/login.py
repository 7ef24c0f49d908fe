"""Coming in with a token, and leaving."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from jobs.web.access import COOKIE, STAYS, Access, form_checked, keep
from jobs.web.rendering import render

router = APIRouter()
Checked = Depends(form_checked)


@router.get("/login")
def ask(request: Request, next: str = "/") -> Response:
    return render(request, "login.html", next=_inside(next), wrong=False)


@router.post("/login", dependencies=[Checked])
def log_in(
    request: Request, token: Annotated[str, Form()] = "", next: Annotated[str, Form()] = "/"
) -> Response:
    access: Access = request.app.state.access
    cookie = access.log_in(token.strip())
    if cookie is None:
        return render(request, "login.html", 401, next=_inside(next), wrong=True)
    response = RedirectResponse(_inside(next), 303)
    keep(response, request, COOKIE, cookie, STAYS)
    return response


@router.post("/logout", dependencies=[Checked])
def log_out() -> Response:
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="lax")
    return response


def _inside(path: str) -> str:
    """A path of this page; an address of another site becomes the first page."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
