"""What an index of our own has beyond our fields: the files of ENRICH_INDEX_MAPPING and _SETTINGS."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enrich.atomic import reading
from enrich.errors import SettingsError
from enrich.index.document import properties as own_properties
from enrich.model.head import Head
from enrich.settings import Settings, variable

OWN_SETTINGS = {"gc_deletes": "1d"}  # how long a delete keeps its version


@dataclass(frozen=True, slots=True)
class Extras:
    """What is merged into mapping and settings of the index."""

    properties: Mapping[str, Any] = field(default_factory=dict)
    """Field -> mapping; it replaces that of a copied column."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """As `flat` makes them."""

    def __bool__(self) -> bool:
        return bool(self.properties or self.settings)


NOTHING = Extras()


def read_extras(settings: Settings, heads: Sequence[Head]) -> Extras:
    """Read both files, where they are set.

    Raises:
        SettingsError: one is missing, not JSON, contradicts our own fields, or is set in mode merge.
    """
    if settings.index_mode == "merge" and (settings.index_mapping or settings.index_settings):
        raise SettingsError(
            "ENRICH_INDEX_MAPPING and ENRICH_INDEX_SETTINGS are for ENRICH_INDEX_MODE=own: in mode merge the "
            "index is the portal's. Unset them"
        )
    return Extras(
        {} if settings.index_mapping is None else _properties(settings.index_mapping, heads),
        {} if settings.index_settings is None else _settings(settings.index_settings),
    )


def _properties(path: Path, heads: Sequence[Head]) -> dict[str, Any]:
    where = f"{variable('index_mapping')}: {path}"
    found = _read(path, where)
    fields = found.get("properties")
    if set(found) != {"properties"} or not isinstance(fields, dict):
        raise SettingsError(f'{where} needs "properties", and nothing beside it: {{"properties": {{…}}}}')
    _must_be_objects(where, fields)
    ours = own_properties(heads)
    if taken := sorted(n for n, spec in fields.items() if n.split(".")[0] in ours and spec != ours.get(n)):
        raise SettingsError(f"{where} maps {', '.join(taken)}, which the job itself maps: take it out")
    return fields


def _must_be_objects(where: str, fields: Mapping[str, Any], path: str = "") -> None:
    for name, spec in fields.items():
        field = path + name
        if not isinstance(spec, dict):
            raise SettingsError(f'{where}: the mapping of {field} is an object, such as {{"type": "text"}}')
        for inner in ("properties", "fields"):
            if not isinstance(within := spec.get(inner, {}), dict):
                raise SettingsError(f"{where}: {inner} of {field} is an object of fields and their mappings")
            _must_be_objects(where, within, f"{field}.")


def _settings(path: Path) -> dict[str, Any]:
    where = f"{variable('index_settings')}: {path}"
    found = {name.removeprefix("index."): value for name, value in flat(_read(path, where)).items()}
    if taken := sorted(OWN_SETTINGS.keys() & found.keys()):
        raise SettingsError(
            f"{where} sets index.{', index.'.join(taken)}, which the job itself sets: take it out"
        )
    return found


def _read(path: Path, where: str) -> dict[str, Any]:
    with reading(where, SettingsError):
        text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{where} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise SettingsError(f"{where} is not a JSON object")
    return found


def flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Settings by their dotted names, with values as Elasticsearch answers them: texts, or lists of texts."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{path}{name}."))
        else:
            found[path + name] = [_text(item) for item in value] if isinstance(value, list) else _text(value)
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
