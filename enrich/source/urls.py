"""Which part of a photo's URL says which photo it is.

Portals sign their image URLs anew every night. The *stripped* URL is the URL without its fragment and
without the query parameters named in `ENRICH_URL_IGNORE_PARAMS`; the *URL key* is the stripped URL's
sha256. `strip_sql` is the same rule for Postgres, so that fingerprints can be computed there.
"""

import re
from collections.abc import Sequence
from hashlib import sha256


def _names(ignore: Sequence[str]) -> str:
    parts = [re.escape(n[:-1]) + "[^=&]*" if n.endswith("*") else re.escape(n) for n in ignore]
    return "|".join(parts)


def strip_pattern(ignore: Sequence[str]) -> str:
    r"""A regular expression, in the syntax that Python and Postgres share, of one ignored parameter.

    It runs over the query with an `&` put before it; the match takes that `&` along. `\Z`, since Python's `$`
    also matches before a last line break and Postgres's does not.
    """
    return rf"&(?:{_names(ignore)})(?:=[^&]*)?(?=&|\Z)"


def strip_url(url: str, ignore: Sequence[str]) -> str:
    """The URL without fragment and without the ignored query parameters."""
    base = url.split("#", 1)[0]
    path, mark, query = base.partition("?")
    if not mark or not ignore:
        return base
    kept = re.sub(strip_pattern(ignore), "", "&" + query)[1:]
    return f"{path}?{kept}" if kept else path


def strip_sql(url: str, ignore: Sequence[str]) -> str:
    """`strip_url` as an SQL expression over the text expression `url`.

    Where `ignore` is not empty it has the parameter `:strip`, to be given `strip_pattern(ignore)`. The
    regular expression runs for URLs with a query only.
    """
    base = f"split_part({url}, '#', 1)"
    if not ignore:
        return base
    query = f"substr({base}, strpos({base}, '?') + 1)"
    kept = f"substr(regexp_replace('&' || {query}, :strip, '', 'g'), 2)"
    return (
        f"CASE WHEN strpos({url}, '?') = 0 AND strpos({url}, '#') = 0 THEN {url}"
        f" WHEN strpos({base}, '?') = 0 THEN {base}"
        f" ELSE concat_ws('?', split_part({base}, '?', 1), nullif({kept}, '')) END"
    )


def url_key(stripped: str) -> str:
    """The URL key (hex sha256) of a stripped URL."""
    return sha256(stripped.encode()).hexdigest()
