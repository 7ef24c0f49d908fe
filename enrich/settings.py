"""All settings, read from the environment (and a `.env` file in the working folder).

`enrich settings` lists them with their values, defaults and meaning; secrets are never shown.
"""

import os
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from enrich.errors import SettingsError
from enrich.setting_values import (
    SIGNING_PARAMS,
    Address,
    DeviceName,
    Hook,
    IndexName,
    Lines,
    MaxRemoved,
    Seconds,
    SomePath,
    StringList,
    TableName,
    ZoneName,
    contradictions,
    from_files,
    surroundings,
    temporary_folder,
    users_cache,
)

STARTER_BUNDLE = Path(__file__).parent / "model" / "starter"
PREFIX = "ENRICH_"


class Settings(Lines):
    """Everything that can be set. Read with `load_settings`, which raises mistakes as `SettingsError`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *_: Any, **sources: PydanticBaseSettingsSource
    ) -> tuple[Any, ...]:
        """What the caller says, files that variables with `_FILE` name, the environment, and `.env`."""
        # Files go before variables, of which one may be set beside them as long as it is empty.
        given, *variables = (sources[f"{name}_settings"] for name in ("init", "env", "dotenv"))
        return (given, _from_files, *variables)

    # Where things are
    database_url: SecretStr | None = Field(
        None, validation_alias="DATABASE_URL", description="Postgres with the portal's tables and our schema"
    )
    source_database_url: SecretStr | None = Field(
        None, validation_alias="SOURCE_DATABASE_URL", description="Read replica for the portal's tables"
    )
    elasticsearch_url: SecretStr | None = Field(
        None,
        validation_alias="ELASTICSEARCH_URL",
        description="Elasticsearch or OpenSearch; unset: the embedded index",
    )
    elasticsearch_api_key: SecretStr | None = Field(
        None, validation_alias="ELASTICSEARCH_API_KEY", description="API key in base64, as it is shown once"
    )
    elasticsearch_username: str | None = Field(
        None, validation_alias="ELASTICSEARCH_USERNAME", description="Basic auth, with the password"
    )
    elasticsearch_password: SecretStr | None = Field(
        None, validation_alias="ELASTICSEARCH_PASSWORD", description="Basic auth, with the user name"
    )
    elasticsearch_ca: SomePath | None = Field(
        None, validation_alias="ELASTICSEARCH_CA", description="CA certificate file (PEM)"
    )
    embedded: bool = Field(False, description="Start an embedded Postgres, instead of DATABASE_URL")
    home: SomePath = Field(
        default_factory=lambda: temporary_folder() / "listing-enrichment",
        description="Folder of the embedded Postgres",
    )

    # The portal's tables
    source_listings: TableName = Field("listings", description="Table or view of listings, schema.name")
    source_images: TableName = Field("listing_images", description="Table or view of image rows, schema.name")
    index_columns: StringList = Field(
        (), description="Listing columns copied into the documents (own mode); place=lat+lon makes a point"
    )
    url_ignore_params: StringList = Field(
        SIGNING_PARAMS, description="Query parameters that do not make another photo; X-* matches a prefix"
    )

    # The index
    index_backend: Literal["elasticsearch", "opensearch"] = Field(
        "elasticsearch", description="What answers at ELASTICSEARCH_URL"
    )
    index: IndexName = Field("listings-enriched", description="Alias (own mode); index or alias (merge mode)")
    index_mode: Literal["own", "merge"] = Field(
        "own", description="own: our index; merge: the portal's documents"
    )
    index_mapping: SomePath | None = Field(
        None, description="JSON file whose properties are merged into the mapping (own mode)"
    )
    index_settings: SomePath | None = Field(
        None, description="JSON file of index settings, such as analyzers (own mode)"
    )

    # The model
    bundle: SomePath = Field(
        STARTER_BUNDLE, description="Folder of the model bundle; default: the starter bundle"
    )
    device: DeviceName = Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto", description="auto: the fastest that the bundle's held-out figures show to be as good as fp32"
    )
    precision_target: float | None = Field(
        None, gt=0, lt=1, description="Precision of homes that yes is to have; default: the bundle's own"
    )
    engine: Literal["auto", "torch", "openvino"] = Field(
        "auto", description="auto: OpenVINO on a CPU, PyTorch on CUDA"
    )
    cache: SomePath | None = Field(
        None, description="Folder of converted models; default: listing-enrichment in the user's cache folder"
    )
    batch_size: int = Field(32, ge=1, le=1024, description="Photos per model batch (on a CPU at most 4)")
    person: str | None = Field(
        None,
        description="Who says what `enrich override` and `enrich labels` record; default: the login name",
    )
    keep_embeddings: Literal["float16", "int8", "none"] = Field(
        "float16", description="How the features of scored photos are kept, for `enrich rescore`; none: not"
    )
    min_photos_false: int = Field(
        8, ge=1, description="Distinct photos that `false` needs; `enrich backfill` applies a change to all"
    )

    # Fetching
    allowed_private_hosts: StringList = Field(
        (), description="Names, addresses or CIDRs of private photo hosts that may be asked"
    )
    allowed_folders: StringList = Field(
        (), description="Folders (absolute paths) below which photos may be read by file:// URLs"
    )
    allowed_stores: StringList = Field(
        (),
        description="Buckets, or folders in them, whose photos may be read: s3://name/folder, gs://, az://",
    )
    fetch_concurrency: int = Field(64, ge=1, le=1024, description="Photo requests under way at once")
    fetch_per_host: int = Field(16, ge=1, le=256, description="Photo requests under way at once per host")
    fetch_timeout: Seconds = Field(30.0, description="Seconds for one photo, from request to last byte")
    fetch_connect_timeout: Seconds = Field(10.0, description="Seconds to connect")
    fetch_max_bytes: int = Field(20_000_000, ge=1, description="Largest photo file accepted, bytes")
    fetch_max_redirects: int = Field(5, ge=0, le=20, description="Redirects followed for one photo")
    max_pixels: int = Field(100_000_000, ge=1, description="Largest picture accepted, pixels")
    user_agent: str = Field("listing-enrichment/0.1", description="User-Agent of photo requests")
    revalidate_after: float = Field(
        86_400.0, ge=0, description="Seconds before a listing whose updated_at moved is revalidated again"
    )

    # Running
    lease_seconds: Seconds = Field(
        60.0, ge=1, description="A worker that is silent for this long loses its listings"
    )
    max_attempts: int = Field(5, ge=1, description="Times a listing may kill its worker before quarantine")
    max_removed: MaxRemoved = Field(
        "5%",
        description="Most documents one run may remove: a share of those published (then 20 in any case), "
        "or a number",
    )
    error_budget: float = Field(
        0.2, gt=0, le=1, description="Share of recent transient photo failures that stops a run"
    )
    outage_seconds: float = Field(
        600.0, ge=0, description="How long to wait for Postgres or the index to come back"
    )
    decode_threads: int = Field(0, ge=0, description="Threads that decode photos; 0: one per core")
    page_size: int = Field(5_000, ge=1, description="Listings per discovery page")
    publish_batch: int = Field(500, ge=1, le=10_000, description="Documents per bulk request")
    log_interval: Seconds = Field(
        10.0, description="Seconds between progress lines where there is no terminal"
    )

    # Seen from outside
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        description="Port of /metrics, /healthz and /readyz while a job runs; unset: none",
    )
    metrics_address: Address = Field("127.0.0.1", description="Address that ENRICH_METRICS_PORT listens on")
    metrics_file: SomePath | None = Field(
        None, description="File (.prom) that gets a job's metrics when it has ended, for a textfile collector"
    )
    metrics_push: SecretStr | None = Field(
        None, description="URL of a Prometheus push gateway that gets a job's metrics when it has ended"
    )
    max_drift: float = Field(
        0.1,
        gt=0,
        le=1,
        description="How far a night's shares and means may lie from those of the last 30 nights; 1: any",
    )
    on_finish: Hook = Field(
        None, description="Command (report on stdin) or http(s) URL (posted) that gets a job's report as JSON"
    )

    # The page
    web_token: SecretStr | None = Field(None, description="Token to look at the page, 16 signs or more")
    web_edit_token: SecretStr | None = Field(None, description="Token to look, and to change things")
    web_trusted_header: str | None = Field(
        None, description="Header in which a reverse proxy names the user, such as X-Forwarded-User"
    )
    web_trusted_proxies: StringList = Field(
        (), description="Addresses or CIDRs of the proxies whose ENRICH_WEB_TRUSTED_HEADER is believed"
    )
    web_editors: StringList = Field(
        (), description="Users of ENRICH_WEB_TRUSTED_HEADER who may also change things; * is all of them"
    )
    web_hosts: StringList = Field(
        (), description="Names by which browsers reach the page; on loopback, localhost may always be said"
    )
    photo_cache: SomePath | None = Field(
        None, description="Folder of the page's thumbnails; default: photos in the folder of ENRICH_CACHE"
    )
    photo_cache_bytes: int = Field(
        500_000_000, ge=1_000_000, description="Largest size of that folder; what was not shown longest goes"
    )

    # The worker
    cron: str = Field(
        "30 3 * * *", description="When `enrich worker` runs: five cron fields, or six with seconds first"
    )
    timezone: ZoneName = Field("Europe/Stockholm", description="Time zone of the cron expression")

    @property
    def cache_folder(self) -> Path:
        """Where what can be made again is kept."""
        return users_cache() if self.cache is None else self.cache.expanduser()

    @property
    def index_embedded(self) -> bool:
        """Whether documents stay in our schema, for want of a search server."""
        return self.elasticsearch_url is None

    @model_validator(mode="after")
    def _together(self) -> "Settings":
        for told in contradictions(self):
            raise ValueError(told)
        return self


def secret_variables() -> list[str]:
    """The variables that hold secrets."""
    return [
        variable(name)
        for name, field in Settings.model_fields.items()
        if SecretStr in (field.annotation, *get_args(field.annotation))
    ]


def secrets_in_files() -> dict[str, str]:
    """Variable -> secret, of those that a variable `…_FILE` leads to.

    Raises:
        SettingsError: such a file, or `.env`, cannot be used.
    """
    return from_files(secret_variables(), surroundings())


def _from_files() -> dict[str, str]:
    """`secrets_in_files` by the names that pydantic looks for, which are variables for the servers alone."""
    names = {variable(name): field.validation_alias or name for name, field in Settings.model_fields.items()}
    return {str(names[name]): secret for name, secret in secrets_in_files().items()}


def variable(name: str) -> str:
    """The environment variable of a settings field."""
    alias = Settings.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else f"{PREFIX}{name.upper()}"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; `overrides` (field names) win over the environment.

    Raises:
        SettingsError: one line per setting that cannot be used, values left out since they may be secret.
    """
    surroundings()  # says so where `.env` cannot be read; pydantic-settings would end in a traceback,
    overrides.setdefault("_env_file", ".env" if os.path.exists(".env") else None)  # as where it is shut off
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            where = str(item["loc"][0]) if item["loc"] else ""
            name = variable(where) if where in Settings.model_fields else where
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}" if name else message)
        raise SettingsError("; ".join(lines)) from None
