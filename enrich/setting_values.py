"""How settings may be written: lists, names, shares, and secrets in files."""

import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from enrich.atomic import reading
from enrich.errors import SettingsError

IN_FILE = "_FILE"
SIGNING_PARAMS = (
    "X-Amz-*",
    "X-Goog-*",
    "Expires",
    "Signature",
    "Key-Pair-Id",
    "Policy",
    "sig",
    "se",
    "token",
)
"""Query parameters that signed URLs change from night to night; `*` at the end matches any rest."""
_TABLE = re.compile(r"^[^\W\d][\w$]*(\.[^\W\d][\w$]*)?$")  # letters of any script, as in SQL
_INDEX = re.compile(r"^[a-z0-9][a-z0-9_.-]{0,200}$")
_DEVICE = re.compile("auto|cpu|cuda(:[0-9]{1,3})?")


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("["):
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise ValueError(f'not a JSON list: {error}; write ["a","b"] or a,b') from None
        if not isinstance(parsed, list) or not all(isinstance(item, str) for item in parsed):
            raise ValueError('a JSON list of strings is needed, such as ["a","b"]')
        return tuple(parsed)
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _table(value: str) -> str:
    if not _TABLE.match(value):
        raise ValueError("a table or view name is needed: name or schema.name, of letters, digits, _ and $")
    return value


def _index(value: str) -> str:
    if not _INDEX.match(value):
        raise ValueError("an index or alias name is needed: lower case letters, digits, - _ and .")
    return value


def _device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError("auto, cpu, cuda or cuda:N is needed")
    return value


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("not a time zone name such as Europe/Stockholm or UTC")
    return value


def _removed(value: str) -> str:
    parse_number_or_share(value)
    return value


def _path(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("empty, which would be the working folder: name a file or folder, or unset it")
    return value


def _address(value: str) -> str:
    if not value.strip():
        raise ValueError("empty, which would be all addresses: name one such as 127.0.0.1, or unset it")
    return value


def _hook(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        read_hook(value.get_secret_value())
    return value


class Lines(BaseSettings):
    """Settings whose values end where their lines do: what makes variables, such as Kubernetes' secrets and
    blocks of YAML, may leave a line break behind them."""

    @field_validator("*", mode="before")
    @classmethod
    def _line(cls, value: Any) -> Any:
        return line(value) if isinstance(value, str) else value


def line(value: str) -> str:
    """A variable's value without the line break behind it."""
    return value.rstrip("\r\n")


StringList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""A JSON list, or names separated by commas."""
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
TableName = Annotated[str, AfterValidator(_table)]
IndexName = Annotated[str, AfterValidator(_index)]
DeviceName = Annotated[str, AfterValidator(_device)]
ZoneName = Annotated[str, AfterValidator(_zone)]
SomePath = Annotated[Path, BeforeValidator(_path)]
Address = Annotated[str, AfterValidator(_address)]
Hook = Annotated[SecretStr | None, AfterValidator(_hook)]
MaxRemoved = Annotated[str, AfterValidator(_removed)]


def parse_number_or_share(text: str) -> tuple[float, int | None]:
    """Read `ENRICH_MAX_REMOVED` and `--max-flips`: "5%" or "0.05" -> (0.05, None); "200" -> (0.0, 200).

    Raises:
        ValueError: neither a share nor a whole number.
    """
    value = text.strip()
    try:
        share = float(value[:-1]) / 100 if value.endswith("%") else float(value)
    except ValueError:
        raise ValueError("a share such as 5% or 0.05, or a number such as 200, is needed") from None
    if value.endswith("%") or 0 < share < 1:
        if not 0 <= share <= 1:
            raise ValueError("a share lies between 0% and 100%")
        return share, None
    if share < 0 or not share.is_integer():
        raise ValueError("a number is a whole one, 0 or more")
    return 0.0, int(share)


def share_of(share: float, whole: int) -> int:
    """The most that is no more than this share of so many."""
    return int(round(share * whole, 6))  # 0.29 * 100 is 28.999999999999996


def temporary_folder() -> Path:
    """The folder for temporary files, or /tmp where none can be written to: few commands need one."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path("/tmp")


def users_cache() -> Path:
    """The user's folder of what can be made again; for a user without a home one that keeps nothing."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "listing-enrichment"
    try:
        return folder.expanduser()
    except RuntimeError:  # a number without a name, as containers may have
        return Path("/nonexistent") / folder.name


def read_hook(text: str) -> str | list[str]:
    """Read `ENRICH_ON_FINISH`: an http(s) URL as it is, a command as its words. No shell is involved.

    Raises:
        ValueError: neither; the text itself is not told, since a webhook's URL is a secret.
    """
    text = text.strip()
    if text.startswith(("http://", "https://")):
        try:
            usable = urlsplit(text).hostname and urlsplit(text).port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("the URL has no host, or a port that is none")
        return text
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"not a command line ({error})") from None
    if not words:
        raise ValueError("a command or an http(s) URL is needed")
    return words


def surroundings() -> dict[str, str | None]:
    """The variables of `.env` and of the environment, which outrank them.

    Raises:
        SettingsError: `.env` cannot be read.
    """
    with reading("the file .env in the working folder", SettingsError):
        return {**dotenv_values(".env"), **os.environ}


def from_files(names: Iterable[str], environ: Mapping[str, str | None]) -> dict[str, str]:
    """Of the variables `names`, those whose secret lies in the file that `NAME_FILE` names.

    Raises:
        SettingsError: the file cannot be read or is empty, or the variable itself is set, too.
    """
    given = {name.upper(): value for name, value in environ.items()}  # as pydantic-settings reads them
    found = {}
    for name in names:
        path = given.get(name + IN_FILE)
        if not path:
            continue
        if given.get(name):
            raise SettingsError(f"{name} and {name}{IN_FILE} are both set: unset one of them")
        with reading(f"{name}{IN_FILE}: {path}", SettingsError):
            found[name] = line(Path(path).read_text(encoding="utf-8"))
        if not found[name].strip():
            raise SettingsError(f"{name}{IN_FILE}: {path} is empty; write the secret into it")
    return found


def contradictions(settings: Any) -> Iterator[str]:
    """What settings (`enrich.settings.Settings`) that are right each by itself say against each other."""
    if settings.embedded and settings.database_url is not None:
        yield ("DATABASE_URL and ENRICH_EMBEDDED=true contradict each other: unset one of them")
    if bool(settings.elasticsearch_username) != bool(settings.elasticsearch_password):
        yield ("ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD belong together: set both or none")
    if settings.index_backend == "opensearch" and settings.index_embedded:
        yield ("ENRICH_INDEX_BACKEND=opensearch needs ELASTICSEARCH_URL: OpenSearch's address")
    if settings.index_backend == "opensearch" and settings.elasticsearch_api_key is not None:
        yield (
            "OpenSearch takes no ELASTICSEARCH_API_KEY: set ELASTICSEARCH_USERNAME and "
            "ELASTICSEARCH_PASSWORD instead"
        )
    if settings.engine == "openvino" and settings.device not in ("auto", "cpu"):
        yield (
            "ENRICH_ENGINE=openvino scores on the CPU: leave ENRICH_DEVICE at auto, or set "
            "ENRICH_ENGINE=torch"
        )
    if settings.index_mode == "merge" and settings.index_embedded:
        yield ("ENRICH_INDEX_MODE=merge needs ELASTICSEARCH_URL: the embedded index has no other documents")
