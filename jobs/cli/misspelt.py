"""Variables that look like settings and are none."""

import difflib

from enrich.setting_values import IN_FILE, surroundings
from enrich.settings import PREFIX, Settings, secret_variables, variable

_NO_SETTINGS = frozenset({"ENRICH_SHARED"})
"""Variables of tests and tools, whose names begin like those of settings."""


def misspelt() -> list[str]:
    """A line for each `ENRICH_…` variable, in the environment or `.env`, that is no setting.

    Upper and lower case are the same, as they are to pydantic-settings.

    Raises:
        SettingsError: `.env` cannot be read.
    """
    # A field with another variable can be set by ENRICH_ and its name as well.
    known = {variable(name) for name in Settings.model_fields} | _NO_SETTINGS
    known |= {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {name + IN_FILE for name in secret_variables()}
    given = {name for name in surroundings() if name.upper().startswith(PREFIX)}
    found = []
    for name in sorted(name for name in given if name.upper() not in known):
        nearest = difflib.get_close_matches(name[len(PREFIX) :].lower(), Settings.model_fields, n=1)
        meant = f"is {variable(nearest[0])} meant?" if nearest else "see `enrich settings` for all there are"
        found.append(f"{name} is no setting and has no effect: {meant}")
    return found
