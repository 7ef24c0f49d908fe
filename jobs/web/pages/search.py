"""What a buyer could filter by, with counts, and the listings that it finds."""

from fastapi import APIRouter, Request, Response

from jobs.web.rendering import Opened, render

router = APIRouter()
NAV = ("Search", "/")


@router.get("/")
def search(request: Request, services: Opened) -> Response:
    return render(request, "search.html")
