"""The documentation names every command, every option and every setting, with the defaults that hold."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from enrich.model.bundle import load_bundle
from enrich.records import PhotoStatus
from enrich.settings import STARTER_BUNDLE, Settings, variable
from jobs.cli.commands import app
from tests.faults.test_images import BYTES_PER_PIXEL
from training.cli import app as training_app


def named(group: Any, *before: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group, with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from named(command, *before, name)
        else:
            yield (*before, name), command


DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = {
    f"{program} {' '.join(name)}": command
    for program, programs in (("enrich", app), ("enrich-train", training_app))
    for name, command in named(typer.main.get_group(programs))
}
EVERYWHERE = {"--help", "--verbose"}


def setting_row(name: str) -> str:
    """A setting's row in docs/settings.md."""
    field = Settings.model_fields[name]
    default: Any = field.get_default(call_default_factory=True)
    if default == STARTER_BUNDLE:
        text = "the starter bundle"
    elif name == "home":
        text = f"`{Path('/tmp') / default.relative_to(tempfile.gettempdir())}`"
    else:
        text = f"`{','.join(default) if isinstance(default, tuple) else default}`"
    return f"| `{variable(name)}` | {'' if default in (None, ()) else text} | {field.description} |"


def sections() -> dict[str, str]:
    """Command -> what docs/commands.md says of it."""
    parts = re.split(
        r"^## (enrich(?:-train)? [\w -]+)\n", (DOCS / "commands.md").read_text(), flags=re.MULTILINE
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_its_section_and_no_other() -> None:
    assert set(sections()) == set(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_is_documented_and_no_other(command: str) -> None:
    options = {name for option in COMMANDS[command].params for name in option.opts if name.startswith("--")}
    known = set(re.findall(r"`(--[a-z-]+)", sections()[command]))
    # An option of another command of the program may be mentioned too, in passing; this one's must be.
    program = command.split()[0]
    everything = {
        name
        for other, c in COMMANDS.items()
        if other.split()[0] == program
        for option in c.params
        for name in option.opts
    }
    assert options - EVERYWHERE <= known <= everything


def test_the_options_of_all_commands_are_documented() -> None:
    opening = (DOCS / "commands.md").read_text().partition("\n## ")[0]
    for option in typer.main.get_group(app).params:
        assert option.opts[0] == "--help" or option.opts[0] in opening


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default_and_meaning(name: str) -> None:
    assert setting_row(name) in (DOCS / "settings.md").read_text().splitlines()


def test_no_document_names_a_setting_that_is_not_there() -> None:
    known = {variable(name) for name in Settings.model_fields} | {"ENRICH_SHARED"}
    for path in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        named = set(re.findall(r"\bENRICH_[A-Z_]+[A-Z]\b(?!_?\*)", path.read_text()))
        assert named <= known, path.name


def test_the_readme_says_how_many_homes_back_the_starter_bundles_precision() -> None:
    homes = [head.backing_homes for head in load_bundle(STARTER_BUNDLE).heads[:2]]
    text = " ".join((DOCS.parent / "README.md").read_text().split())
    assert "there are {} for balconies and {} for fireplaces".format(*homes) in text


def test_the_architecture_page_lists_every_module() -> None:
    listing = (DOCS / "architecture.md").read_text().partition("## Folders")[2].partition("\n## ")[0]
    listed = set(re.findall(r"\w+", listing))
    modules = {path.stem for room in ("enrich", "jobs") for path in (DOCS.parent / room).rglob("*.py")}
    assert modules - {"__init__"} <= listed


def test_links_between_documents_lead_somewhere() -> None:
    for path in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_operations_say_how_much_memory_a_picture_takes() -> None:
    """As the decoder is held to, by `tests/faults/test_images.py`."""
    page = " ".join((DOCS / "operations.md").read_text().split())
    most, webp = BYTES_PER_PIXEL["png"], BYTES_PER_PIXEL["webp"]
    assert BYTES_PER_PIXEL["jpg"] == most
    assert f"at most {most} bytes per pixel, {webp} of a WebP" in page
    assert f"a picture take {Settings.model_fields['max_pixels'].default * webp / 1e9:.1f} GB" in page


def test_operations_name_every_status_and_tests_that_exist() -> None:
    page = (DOCS / "operations.md").read_text()
    statuses = {
        *map(str, PhotoStatus),
        *("pending", "leased", "done", "retry", "quarantined", "gone"),
        *("waiting", "awaiting", "refused"),
    }
    assert {status for status in statuses if f"`{status}`" not in page} == set()
    promised = page.partition("## The promises")[2].partition("\n## ")[0]
    named = re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", promised)
    assert len(named) > 10 and [path for path in named if not (DOCS.parent / path).exists()] == []
