"""The bundles that runs have used: what the view `photo_attributes` needs to read their scores."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from enrich.state.database import Database

_REMEMBER = text("""
    INSERT INTO bundle (id, name, heads) VALUES (:id, :name, CAST(:heads AS jsonb)) ON CONFLICT DO NOTHING
""")


def remember(database: Database, id: str, name: str, heads: Mapping[str, Any]) -> None:
    """Note a bundle, once; `heads` as in the table `bundle`."""
    database.execute(_REMEMBER, id=id, name=name, heads=json.dumps(heads))
