"""Settings: what people may write in the environment, and what they are told when they write it wrong."""

import os
import tempfile
from pathlib import Path

import pytest

from enrich.errors import SettingsError
from enrich.setting_values import SIGNING_PARAMS, parse_number_or_share
from enrich.settings import (
    STARTER_BUNDLE,
    Settings,
    load_settings,
    secret_variables,
    variable,
)
from jobs.cli.misspelt import misspelt
from jobs.cli.redact import HIDDEN, Redactor

SECRET = "s3cret-pa55"
PATHS = [name for name, field in Settings.model_fields.items() if "Path" in str(field.annotation)]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The working folder, empty; and no settings in the environment."""
    for name in set(os.environ) & {variable(field) for field in Settings.model_fields}:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_needs_to_be_set() -> None:
    settings = load_settings()
    assert settings.database_url is settings.elasticsearch_url is None
    assert (settings.index, settings.index_mode) == ("listings-enriched", "own")
    assert (settings.lease_seconds, settings.min_photos_false, settings.allowed_private_hosts) == (60, 8, ())
    assert settings.url_ignore_params == SIGNING_PARAMS
    assert settings.bundle == STARTER_BUNDLE and (STARTER_BUNDLE / "manifest.json").is_file()
    assert (settings.cron, settings.timezone) == ("30 3 * * *", "Europe/Stockholm")


def test_no_folder_for_temporary_files_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)  # all is read-only, or full
    assert load_settings().home == Path("/tmp/listing-enrichment")


def test_variables_are_named_after_their_fields_but_for_the_servers() -> None:
    names = {variable(field) for field in Settings.model_fields}
    others = {name for name in names if not name.startswith("ENRICH_")}
    assert {"DATABASE_URL", "SOURCE_DATABASE_URL", "ELASTICSEARCH_URL"} < others
    assert all(name.startswith(("DATABASE_", "SOURCE_DATABASE_", "ELASTICSEARCH_")) for name in others)
    assert variable("max_removed") == "ENRICH_MAX_REMOVED"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("10.0.0.0/8,photos.local", ("10.0.0.0/8", "photos.local")),
        (" 10.0.0.0/8 , photos.local, ", ("10.0.0.0/8", "photos.local")),
        ('["10.0.0.0/8", "photos.local"]', ("10.0.0.0/8", "photos.local")),
        (' ["a,b"] ', ("a,b",)),
        ("one", ("one",)),
        ("[]", ()),
        ("", ()),
        (" , ", ()),
    ],
)
def test_lists_are_json_or_separated_by_commas(
    written: str, read: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for field in ("allowed_private_hosts", "index_columns", "url_ignore_params"):
        monkeypatch.setenv(variable(field), written)
        assert getattr(load_settings(), field) == read


@pytest.mark.parametrize("written", ['["a"', "[1]", '[["a"]]', "[null]"])
def test_a_list_that_is_no_list_of_names_is_a_mistake(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENRICH_INDEX_COLUMNS", written)
    with pytest.raises(SettingsError, match=r"^ENRICH_INDEX_COLUMNS: .*\[\"a\",\"b\"\]"):
        load_settings()


@pytest.mark.parametrize(
    ("written", "share", "number"),
    [
        ("5%", 0.05, None),
        (" 12.5% ", 0.125, None),
        ("0.05", 0.05, None),
        ("0%", 0.0, None),
        ("100%", 1.0, None),
        ("1%", 0.01, None),
        ("200", 0.0, 200),
        ("1", 0.0, 1),
        ("0", 0.0, 0),
    ],
)
def test_most_removed_is_a_share_or_a_number(written: str, share: float, number: int | None) -> None:
    read = parse_number_or_share(written)
    assert read[0] == pytest.approx(share) and read[1] == number
    assert load_settings(max_removed=written).max_removed == written


@pytest.mark.parametrize("written", ["", "plenty", "101%", "-5%", "-1", "1.5", "%", "nan", "inf", "nan%"])
def test_most_removed_is_nothing_else(written: str) -> None:
    with pytest.raises(SettingsError, match=r"^ENRICH_MAX_REMOVED: a (share|number)"):
        load_settings(max_removed=written)


@pytest.mark.parametrize("field", ["database_url", "source_database_url", "elasticsearch_url"])
def test_secrets_are_not_in_what_settings_look_like(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(field), f"https://me:{SECRET}@host/x")
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", SECRET)
    settings = load_settings()
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert SECRET not in shown
    assert getattr(settings, field).get_secret_value() == f"https://me:{SECRET}@host/x"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ENRICH_BATCH_SIZE", SECRET, "integer"),
        ("ENRICH_BATCH_SIZE", "0", "greater than or equal to 1"),
        ("ENRICH_FETCH_TIMEOUT", "0", "greater than 0"),
        ("ENRICH_FETCH_TIMEOUT", "inf", "finite"),
        ("ENRICH_FETCH_CONNECT_TIMEOUT", "inf", "finite"),
        ("ENRICH_LEASE_SECONDS", "0.5", "greater than or equal to 1"),
        ("ENRICH_LEASE_SECONDS", "inf", "finite"),
        ("ENRICH_LOG_INTERVAL", "inf", "finite"),
        ("ENRICH_ERROR_BUDGET", "1.5", "less than or equal to 1"),
        ("ENRICH_DEVICE", "gpu", "cuda:N"),
        ("ENRICH_DEVICE", "CPU", "cuda:N"),
        ("ENRICH_DEVICE", "cuda:", "cuda:N"),
        ("ENRICH_INDEX_MODE", SECRET, "'own' or 'merge'"),
        ("ENRICH_PRECISION", SECRET, "'auto', 'fp32', 'bf16' or 'int8'"),
        ("ENRICH_INDEX", "Listings", "lower case"),
        ("ENRICH_INDEX", "_all", "lower case"),
        ("ENRICH_SOURCE_LISTINGS", "listings; DROP TABLE x", "schema.name"),
        ("ENRICH_SOURCE_IMAGES", "a.b.c", "schema.name"),
        ("ENRICH_TIMEZONE", "Stockholm", "Europe/Stockholm"),
        ("ENRICH_MAX_REMOVED", SECRET, "such as 5%"),
        ("ENRICH_METRICS_ADDRESS", "", "all addresses"),
        ("ENRICH_METRICS_ADDRESS", " ", "all addresses"),
        *((variable(field), "", "the working folder") for field in PATHS),
    ],
)
def test_a_mistake_is_one_line_that_names_its_variable_and_not_its_value(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    message = str(caught.value)
    assert message.startswith(f"{name}: ") and says in message and "\n" not in message
    assert SECRET not in message


def test_every_file_and_folder_is_known_as_one() -> None:
    assert {"home", "bundle", "cache", "photo_cache", "metrics_file", "elasticsearch_ca"} < set(PATHS)


def test_all_mistakes_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"ENRICH_BATCH_SIZE": "many", "ENRICH_TIMEZONE": "here", "ENRICH_INDEX": "A"}
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert {part.partition(":")[0] for part in str(caught.value).split("; ")} == set(wrong)


@pytest.mark.parametrize("given", ["elasticsearch_username", "elasticsearch_password"])
def test_user_name_and_password_belong_together(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(given), SECRET)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_merge_mode_needs_an_index_to_merge_into() -> None:
    with pytest.raises(SettingsError, match="ENRICH_INDEX_MODE=merge needs ELASTICSEARCH_URL"):
        load_settings(index_mode="merge")
    assert load_settings(index_mode="merge", elasticsearch_url="http://h:9200").index_mode == "merge"


def test_a_dotenv_file_is_read_and_the_environment_outranks_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".env").write_text(
        "ENRICH_BATCH_SIZE=4\nENRICH_INDEX=from-file\nDATABASE_URL=postgresql://h/x\nSOMETHING_ELSE=1\n"
    )
    monkeypatch.setenv("ENRICH_INDEX", "from-environment")
    settings = load_settings(min_photos_false=3)
    assert (settings.batch_size, settings.index, settings.min_photos_false) == (4, "from-environment", 3)
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://h/x"


@pytest.mark.parametrize("table", ["listings", "portal.listings", "_v2$", "Sales.Listings", "sälj.bostäder"])
def test_tables_may_have_a_schema(table: str) -> None:
    assert load_settings(source_listings=table).source_listings == table


def test_a_misspelt_variable_is_told_with_the_nearest_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "ENRICH_BUNDEL",
        "enrich_max_removd",
        "ENRICH_SHARED",
        "enrich_index",
        "ENRICH_DATABASE_URL",
    ):
        monkeypatch.setenv(name, "x")
    (folder / ".env").write_text("ENRICH_CORN=0 4 * * *\nENRICH_XQZ=1\nOTHER_BUNDEL=1\nENRICH_HOME=/tmp\n")
    told = misspelt()
    assert [line.split()[0] for line in told] == [
        "ENRICH_BUNDEL", "ENRICH_CORN", "ENRICH_XQZ", "enrich_max_removd"
    ]  # fmt: skip
    means = (
        "is ENRICH_BUNDLE meant",
        "is ENRICH_CRON meant",
        "see `enrich settings`",
        "is ENRICH_MAX_REMOVED",
    )
    assert all(meant in line for meant, line in zip(means, told, strict=True))


def test_without_misspelt_variables_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Enrich_Batch_Size", "4")
    assert load_settings().batch_size == 4 and misspelt() == []


def test_a_secret_may_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://me:s3cret@db/portal\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(secret))
    settings = load_settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://me:s3cret@db/portal"
    assert load_settings(database_url="postgresql://other/portal").database_url != settings.database_url


def test_a_user_without_a_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number without a name, as clusters give one to a container."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME", "ENRICH_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert not load_settings().cache_folder.parent.exists()


def test_every_secret_may_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = secret_variables()
    assert {"ELASTICSEARCH_API_KEY", "ENRICH_WEB_EDIT_TOKEN", "ENRICH_ON_FINISH"} < set(names)
    for name in names:
        (tmp_path / name).write_text(f"https://host/{name}\n")
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    monkeypatch.setenv("ELASTICSEARCH_USERNAME", "me")
    settings = load_settings()
    read = {variable(field): getattr(settings, field) for field in Settings.model_fields}
    assert {name: read[name] and read[name].get_secret_value() for name in names} == {
        name: f"https://host/{name}" for name in names
    }


@pytest.mark.parametrize("name", ["ENRICH_WEB_TOKEN_FILE", "enrich_web_token_file", "Enrich_Web_Token_File"])
def test_upper_and_lower_case_are_the_same_in_variables_that_name_files_too(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "token").write_text("a-token-of-16-signs\n")
    monkeypatch.setenv(name, str(folder / "token"))
    token = load_settings().web_token
    assert token is not None and token.get_secret_value() == "a-token-of-16-signs"
    assert misspelt() == [] and Redactor.from_surroundings()("a-token-of-16-signs") == HIDDEN
    monkeypatch.setenv("enrich_web_token", "another")
    with pytest.raises(SettingsError, match="ENRICH_WEB_TOKEN and ENRICH_WEB_TOKEN_FILE are both set"):
        load_settings()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_variable_may_end_with_the_line_break_of_the_file_it_was_made_of(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a Secret of Kubernetes that was made with `--from-file` or `echo`, and in blocks of YAML."""
    names = secret_variables()
    for name in names:
        monkeypatch.setenv(name, f"https://host/{name}{end}")
    monkeypatch.setenv("ELASTICSEARCH_USERNAME", "me")
    monkeypatch.setenv("ENRICH_INDEX", f"homes{end}")
    settings = load_settings()
    assert settings.index == "homes"
    read = {variable(field): getattr(settings, field) for field in Settings.model_fields}
    assert {name: read[name].get_secret_value() for name in names} == {
        name: f"https://host/{name}" for name in names
    }
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", f"aGVsbG86d29ybGQ={end}")
    assert Redactor.from_surroundings()("key aGVsbG86d29ybGQ= refused") == f"key {HIDDEN} refused"


def test_a_secret_in_a_file_counts_beside_a_variable_that_is_empty(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "secret").write_text("https://host/secret\n")
    (folder / ".env").write_text("ENRICH_WEB_TOKEN=\n")
    for name in ("ENRICH_WEB_EDIT_TOKEN", "ELASTICSEARCH_URL"):
        monkeypatch.setenv(name, "")
    for name in ("ENRICH_WEB_TOKEN", "ENRICH_WEB_EDIT_TOKEN", "ELASTICSEARCH_URL"):
        monkeypatch.setenv(f"{name}_FILE", str(folder / "secret"))
    settings = load_settings()
    for secret in (settings.web_token, settings.web_edit_token, settings.elasticsearch_url):
        assert secret is not None and secret.get_secret_value() == "https://host/secret"


@pytest.mark.parametrize(
    ("content", "beside", "message"),
    [
        (None, {}, "ELASTICSEARCH_API_KEY_FILE: .* cannot be read: No such file"),
        ("\n", {}, "ELASTICSEARCH_API_KEY_FILE: .* is empty"),
        (
            "abc",
            {"ELASTICSEARCH_API_KEY": "def"},
            "ELASTICSEARCH_API_KEY and ELASTICSEARCH_API_KEY_FILE are both set",
        ),
    ],
)
def test_a_secret_s_file_that_cannot_be_used_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
    beside: dict[str, str],
    message: str,
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    for name, value in {"ELASTICSEARCH_API_KEY_FILE": str(path), **beside}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message) as raised:
        load_settings()
    assert "abc" not in str(raised.value) and "def" not in str(raised.value)
