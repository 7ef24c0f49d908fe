"""Which part of a photo's URL says which photo it is.

Portals sign their image URLs anew every night. The *stripped* URL is the URL without its fragment and
without the query parameters named in `ENRICH_URL_IGNORE_PARAMS`; the *URL key* is the stripped URL's
sha256. `strip_sql` is the same rule for Postgres, so that fingerprints can be computed there. It works on
the parts between the `&`, because a regular expression over the whole query takes Postgres ten times as long.
"""

from collections.abc import Sequence
from hashlib import sha256


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


def strip_sql(url: str, ignore: Sequence[str]) -> str:
    """`strip_url` as an SQL expression over the text expression `url`.

    Where `ignore` is not empty it has the parameter `:ignored`, to be given `beginnings(ignore)`. Only the
    queries of URLs that have one are taken apart.
    """
    base = f"split_part({url}, '#', 1)"
    if not ignore:
        return base
    # Not substr, which counts the characters of the whole URL.
    query = f"array_to_string((string_to_array({base}, '?'))[2:], '?')"
    parts = f"(SELECT unnest(string_to_array({query}, '&')) AS part) AS parts"
    kept = (
        f"array_to_string(ARRAY(SELECT part FROM {parts}"  # noqa: S608 (expressions of our own)
        " WHERE NOT (part || '=') ^@ ANY(CAST(:ignored AS text[]))), '&')"
    )
    return (
        f"CASE WHEN strpos({url}, '?') = 0 THEN {base}"
        f" ELSE concat_ws('?', split_part({base}, '?', 1), nullif({kept}, '')) END"
    )


def url_key(stripped: str) -> str:
    """The URL key (hex sha256) of a stripped URL."""
    return sha256(stripped.encode()).hexdigest()
