"""Which index the settings ask for."""

import logging
from collections.abc import Mapping, Sequence

from enrich.errors import SettingsError, UsageError
from enrich.index.elastic.elasticsearch import ElasticsearchServer
from enrich.index.elastic.generations import Generations as ElasticGenerations
from enrich.index.elastic.merge import MergeIndex
from enrich.index.elastic.own import OwnIndex
from enrich.index.elastic.server import Server
from enrich.index.embedded import EmbeddedIndex
from enrich.index.mapping import read_extras
from enrich.index.protocol import Generations, SearchIndex
from enrich.model.head import Head
from enrich.settings import Settings
from enrich.state.database import Database

log = logging.getLogger(__name__)


def open_index(
    settings: Settings, database: Database, heads: Sequence[Head], copied: Mapping[str, str]
) -> SearchIndex:
    """The index that the settings name: Elasticsearch in one of its modes, or the embedded one.

    It connects when it is used first. `copied`: the copied columns with their Elasticsearch types; documents
    in mode merge carry none.

    Raises:
        SettingsError, IndexSetupError: a setting cannot be used.
    """
    extras = read_extras(settings, heads)
    if settings.index_embedded:
        if extras:
            log.warning(
                "the embedded index leaves ENRICH_INDEX_MAPPING and ENRICH_INDEX_SETTINGS unused: it "
                "compares texts whole and knows no distances; set ELASTICSEARCH_URL for these"
            )
        return EmbeddedIndex(database, settings.index, heads, copied)
    server = connect(settings)
    if settings.index_mode == "merge":
        return MergeIndex(server, settings.index, heads)
    return OwnIndex(server, settings.index, heads, copied, extras)


def open_generations(settings: Settings, heads: Sequence[Head], copied: Mapping[str, str]) -> Generations:
    """The indices of the alias that the settings name, for building another one.

    Raises:
        UsageError: not of an index in mode merge, nor of the embedded one.
        SettingsError, IndexSetupError: a setting cannot be used.
    """
    extras = read_extras(settings, heads)
    if settings.index_embedded:
        raise UsageError(
            "the embedded index has no mapping, so there is nothing to reindex: `enrich reconcile --fix` "
            "writes documents anew that differ; set ELASTICSEARCH_URL for an index of Elasticsearch"
        )
    if settings.index_mode == "merge":
        raise UsageError(
            f"in mode merge the index {settings.index} is the portal's, and so is reindexing it: have the "
            "portal build a new one behind its alias, and the next run or `enrich publish` adds our fields"
        )
    return ElasticGenerations(connect(settings), settings.index, heads, copied, extras)


def connect(settings: Settings) -> Server:
    """The search server at `ELASTICSEARCH_URL`, of the kind that `ENRICH_INDEX_BACKEND` says.

    Raises:
        SettingsError: OpenSearch's client is not installed.
        IndexSetupError: the URL or the CA file cannot be read.
    """
    if settings.index_backend == "elasticsearch":
        return ElasticsearchServer(settings)
    try:
        from enrich.index.elastic.opensearch import OpenSearchServer
    except ImportError:
        raise SettingsError(
            "ENRICH_INDEX_BACKEND=opensearch needs OpenSearch's client: "
            'pip install "listing-enrichment[opensearch]"'
        ) from None
    return OpenSearchServer(settings)
