"""Which index the settings ask for."""

from collections.abc import Mapping, Sequence

from enrich.index.document import HeadSpec
from enrich.index.elastic.client import connect
from enrich.index.elastic.merge import MergeIndex
from enrich.index.elastic.own import OwnIndex
from enrich.index.embedded import EmbeddedIndex
from enrich.index.protocol import SearchIndex
from enrich.settings import Settings
from enrich.state.database import Database


def open_index(
    settings: Settings, database: Database, heads: Sequence[HeadSpec], copied: Mapping[str, str]
) -> SearchIndex:
    """The index that the settings name: Elasticsearch in one of its modes, or the embedded one.

    It connects when it is used first. `copied`: the copied columns with their Elasticsearch types; documents
    in mode merge carry none.

    Raises:
        IndexSetupError: a setting cannot be used.
    """
    if settings.index_backend == "embedded":
        return EmbeddedIndex(database, settings.index, heads, copied)
    client = connect(settings)
    if settings.index_mode == "merge":
        return MergeIndex(client, settings.index, heads)
    return OwnIndex(client, settings.index, heads, copied)
