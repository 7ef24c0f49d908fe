"""`ENRICH_ON_FINISH`: a command or a webhook gets what a job did. That it fails costs no job anything."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any
from urllib.parse import urlsplit

import aiohttp

from enrich.setting_values import read_hook

log = logging.getLogger(__name__)

LIMIT = 60.0  # seconds that it may take
TOLD = 300  # characters of what a command said last


def tell(hook: str, report: Mapping[str, Any], limit: float = LIMIT) -> None:
    """Give the report as JSON to the hook; a failure is a warning in the log."""
    target = read_hook(hook)
    body = json.dumps(report, default=str).encode()
    try:
        if isinstance(target, str):
            asyncio.run(_post(target, body, limit))
        else:
            _run(target, body, limit)
    except (TimeoutError, subprocess.TimeoutExpired):
        log.warning("ENRICH_ON_FINISH: %s was not done after %g s and was ended", _called(target), limit)
    except (OSError, _Failed) as error:
        log.warning("ENRICH_ON_FINISH: %s failed: %s", _called(target), error)
    except (aiohttp.ClientError, UnicodeError) as error:  # its message may hold the whole URL
        log.warning("ENRICH_ON_FINISH: %s gave no answer (%s)", _called(target), type(error).__name__)


class _Failed(Exception):
    """The hook was reached, and said no."""


async def _post(url: str, body: bytes, limit: float) -> None:
    timeout = aiohttp.ClientTimeout(total=limit)
    headers = {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
    ):
        if answer.status >= 300:
            raise _Failed(f"it answered {answer.status}")


def _run(words: Sequence[str], body: bytes, limit: float) -> None:
    with _kept() as said:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,  # so that what it started ends with it
        )
        try:
            process.communicate(body, timeout=limit)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if process.returncode:
            said.seek(max(said.seek(0, os.SEEK_END) - TOLD, 0))
            last = " ".join(said.read().decode(errors="replace").split())
            raise _Failed(f"exit code {process.returncode}" + (f", {last}" if last else ""))


def _kept() -> IO[bytes]:
    """Where to keep what a command says: nowhere, on a machine that has no temporary folder."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return open(os.devnull, "r+b")


def _called(target: str | Sequence[str]) -> str:
    """The hook's name without what may be secret: a webhook's path, a command's arguments."""
    return f"the webhook at {urlsplit(target).hostname}" if isinstance(target, str) else target[0]
