"""Which index the settings ask for."""

from collections.abc import Mapping, Sequence

from enrich.database import Database
from enrich.index import SearchIndex
from enrich.index.document import HeadSpec
from enrich.index.elasticsearch import connect
from enrich.index.merge import MergeIndex
from enrich.index.own import OwnIndex
from enrich.index.postgres import EmbeddedIndex
from enrich.settings import Settings


def open_index(
    settings: Settings, database: Database, heads: Sequence[HeadSpec], copied: Mapping[str, str]
) -> SearchIndex:
    """The index that the settings name: Elasticsearch in one of its modes, or the embedded one.

    `copied`: the copied columns with their Elasticsearch types; documents in mode merge carry none.

    Raises:
        IndexSetupError: Elasticsearch cannot be reached as set up.
    """
    if settings.elasticsearch_url is None:
        return EmbeddedIndex(database, settings.index, heads, copied)
    client = connect(settings)
    if settings.index_mode == "merge":
        return MergeIndex(client, settings.index, heads)
    return OwnIndex(client, settings.index, heads, copied)
