"""A photo, or a picture that says that there is none."""

from typing import Literal

from fastapi import APIRouter, Request, Response

from jobs.web.photos import Photos

router = APIRouter()
FOREVER = 365 * 86_400
A_DAY = 86_400
_NONE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 240" fill="none" stroke="#8a9496" '
    'stroke-width="5">'
    '<path fill="#8a9496" fill-opacity=".2" stroke="none" d="M0 0h320v240H0z"/>'
    '<path d="M116 88h88v64h-88zM116 140l28-28 24 24 14-12 22 22M104 172 216 68"/></svg>'
)


@router.get("/photo/{key}")
async def photo(request: Request, key: str, size: Literal["320", "1280"] = "320", v: str = "") -> Response:
    """`v`: how the sha256 of the bytes begins that were seen, so browsers may keep what they got."""
    photos: Photos = request.app.state.photos
    shown = await photos.show(key, int(size), v)
    if shown.status == 200:
        age = f"private, max-age={FOREVER}, immutable" if v else f"private, max-age={A_DAY}"
        return Response(shown.jpeg, media_type="image/jpeg", headers={"Cache-Control": age})
    told = "".join(sign if " " <= sign <= "~" else "?" for sign in shown.reason)[:200]
    headers = {"X-Reason": told, "Cache-Control": "private, max-age=60"}
    return Response(_NONE, shown.status, headers, "image/svg+xml")
