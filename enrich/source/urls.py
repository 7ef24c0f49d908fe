"""Which part of a photo's URL says which photo it is.

Portals sign their image URLs anew every night. The *stripped* URL is the URL without its fragment and
without the query parameters named in `ENRICH_URL_IGNORE_PARAMS`; the *URL key* is the stripped URL's
sha256. `strip_sql` is the same rule for Postgres, so that fingerprints can be computed there. It works on
the parts between the `&`, because a regular expression over the whole query takes Postgres ten times as long.
"""

# ruff: noqa: S608 (expressions of our own)

import re
from collections.abc import Sequence
from hashlib import sha256

FEW = 10
"""Parameters of a URL; more are taken apart in a slower way."""


def beginnings(ignore: Sequence[str]) -> list[str]:
    """How ignored parameters begin, once an `=` was put behind each; a name may end in `*`."""
    return [name[:-1] if name.endswith("*") else name + "=" for name in ignore]


def strip_url(url: str, ignore: Sequence[str]) -> str:
    """The URL without fragment and without the ignored query parameters."""
    base = url.split("#", 1)[0]
    path, mark, query = base.partition("?")
    if not mark or not ignore:
        return base
    ignored = tuple(beginnings(ignore))
    kept = "&".join(part for part in query.split("&") if not (part + "=").startswith(ignored))
    return f"{path}?{kept}" if kept else path


def patterns(ignore: Sequence[str]) -> list[str]:
    """`beginnings` as patterns of LIKE."""
    return [re.sub(r"([\\%_])", r"\\\1", beginning) + "%" for beginning in beginnings(ignore)]


def strip_sql(url: str, ignore: Sequence[str]) -> str:
    """`strip_url` as an SQL expression over the text expression `url`.

    Where `ignore` is not empty it has the parameter `:ignored`, to be given `patterns(ignore)`. Only the
    queries of URLs that have one are taken apart.
    """
    base = f"split_part({url}, '#', 1)"
    if not ignore:
        return base
    # Not substr, which counts the characters of the whole URL.
    query = f"array_to_string((string_to_array({base}, '?'))[2:], '?')"
    parts = f"(SELECT unnest(string_to_array({query}, '&')) AS part) AS parts"
    any_url = (
        f"concat_ws('?', split_part({base}, '?', 1), nullif(array_to_string(ARRAY("
        f"SELECT part FROM {parts} WHERE {_stays('part')}), '&'), ''))"
    )
    # Nearly all URLs have no fragment, one `?` before the first `&`, and few parameters. Taken by number, the
    # parts of these cost Postgres less than as rows.
    rare = (
        f"strpos({url}, '#') > 0 OR cardinality(string_to_array(a[1], '?')) <> 2 OR a[{FEW + 1}] IS NOT NULL"
    )
    numbered = ["split_part(a[1], '?', 2)", *(f"a[{number}]" for number in range(2, FEW + 1))]
    stay = ", ".join(f"CASE WHEN {_stays(part)} THEN {part} END" for part in numbered)
    return (
        f"CASE WHEN strpos({url}, '?') = 0 THEN {base} ELSE (SELECT CASE WHEN {rare} THEN {any_url}"
        f" ELSE concat_ws('?', split_part(a[1], '?', 1), nullif(concat_ws('&', {stay}), '')) END"
        f" FROM (SELECT string_to_array({url}, '&') AS a OFFSET 0) AS cut) END"
    )


def _stays(part: str) -> str:
    return f"NOT ({part} || '=') COLLATE \"C\" LIKE ANY(CAST(:ignored AS text[]))"


def url_key(stripped: str) -> str:
    """The URL key (hex sha256) of a stripped URL."""
    return sha256(stripped.encode()).hexdigest()
