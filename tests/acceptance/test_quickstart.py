"""`docs/quickstart-own-data.md` is true: its blocks are run as they stand, and print what it shows.

The page's blocks: `sql` for the owner of the database, `ini` for the file .env, `console` for a shell (a
command behind `$`, then what it prints), `cron`, and `http` for Elasticsearch with its answer in the `json`
that follows.

Whoever changed a command or the model has the page's outputs written anew: QUICKSTART_REWRITE=1 pytest …
"""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from enrich.settings import STARTER_BUNDLE
from enrich.state.database import Database, parse_url
from jobs.demo.homes import PHOTOS, shipped
from tests.support.harness import CHECKOUT, World
from tests.support.photo_server import PhotoServer
from tests.support.postgres import Portal

PAGE = CHECKOUT / "docs" / "quickstart-own-data.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ (.*)$", re.MULTILINE)
PROBABILITY = re.compile(r"([01]\.\d{2,4})([,;}\]]*)")
NEAR = 0.02  # how far a probability may be from the page's, on another processor
FIRST = 1001  # the number of the first home
URL = "postgresql://enrich_job:secret@db.crm.example:5432/portal"
ON_THIS_MACHINE = {  # what another machine, or another minute, shows otherwise
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?": "TIME",
    r"(?<=crm-homes-)\d+": "TIME",
    r"revision \d{16}": "revision",
    r"took .*|work .*": "TOOK",
    r"Postgres [^,]*,": "Postgres,",
    r"[\d.]+ s │ +(\d+ │ +\d+ │) +[\d.]+ │": r"\1",  # `took` and `photos/s` in the table of runs
    r"[┏┳┓┃┡╇┩│└┴┘━─]": " ",
}


@dataclass
class Reader:
    """Does what the page says; `names` are pairs of what a thing is called on the page, and in this test."""

    world: World
    folder: Path
    names: Sequence[tuple[str, str]]
    answer: str = ""
    """What Elasticsearch answered last."""

    def real(self, text: str) -> str:
        return replaced(text, dict(reversed(self.names)))

    def told(self, text: str) -> str:
        return replaced(text, {here: on_page for on_page, here in self.names})

    def follow(self, kind: str, block: str) -> str:
        """Do what a block says; the block as it should be."""
        if kind == "console":
            return "".join(f"$ {command}\n{self.shell(command)}" for command in COMMAND.findall(block))
        if kind == "sql":
            with self.world.portal.engine.begin() as connection:
                connection.exec_driver_sql(self.real(block))
            if "CREATE TABLE crm.pictures" in block:
                add_homes(self.world)
        elif kind == "ini":
            (self.folder / ".env").write_text(self.real(block))
        elif kind == "cron":
            self.shell(block.split(maxsplit=5)[5])
        elif kind == "http":
            self.answer = self.ask(block)
        elif kind == "json":
            return self.answer
        return block

    def shell(self, command: str) -> str:
        """What a command prints that is typed in the folder of the page."""
        environment = self.world.environment()
        path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(
            ["sh", "-c", self.real(command)],
            cwd=self.folder,
            env={**environment, "PATH": path, "PYTHONPATH": str(CHECKOUT), "LOGNAME": "anna"},
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        self._refresh()
        return self.told("".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines()))

    def ask(self, request: str) -> str:
        """What Elasticsearch answers to a request as Kibana's console takes it."""
        line, _, body = self.real(request).partition("\n")
        kind = {"Content-Type": "application/json", "Accept": "application/json"}
        method, target = line.split()
        answer = self.world.elasticsearch.perform_request(method, target, headers=kind, body=json.loads(body))
        return self.told(json.dumps(answer.body)) + "\n"

    def _refresh(self) -> None:
        """Have what was written found at once: it takes up to a second otherwise."""
        self.world.elasticsearch.indices.refresh(index=f"{self.world.index}*")


def replaced(text: str, names: Mapping[str, str]) -> str:
    """`text` with these names replaced, the first one that fits; what was put in stays as it is."""
    pattern = "|".join(map(re.escape, names))
    return re.sub(pattern, lambda found: names[found[0]], text)


def add_homes(world: World) -> None:
    """The demo's homes in the tables of the page, the last one sold, and their photos at the photo host."""
    homes = shipped()
    for number, home in enumerate(homes, start=FIRST):
        world.portal.execute(
            "INSERT INTO crm.objects VALUES (:no, :title, :city, :price, :state, now(), :lat, :lon)",
            no=number,
            **{name: home.columns[name] for name in ("title", "city", "price")},
            state="sold" if home is homes[-1] else "for_sale",
            lat=round(59.3 + (number - FIRST) / 100, 2),
            lon=round(18.01 + (number - FIRST) / 100, 2),
        )
        for photo in home.photos:
            file = f"{number}/{photo.file.name}"
            world.photos.add(f"/{file}", file=PHOTOS / photo.file)
            world.portal.execute(
                "INSERT INTO crm.pictures VALUES (:no, :sort, md5(:file), :file)",
                no=number,
                sort=photo.position,
                file=file,
            )


@pytest.fixture
def role(postgres_url: str) -> Iterator[str]:
    """The name of a role that is on the server for this test only; it goes after the database."""
    name = f"enrich_{uuid.uuid4().hex[:8]}"
    yield name
    Portal(postgres_url).execute(f"DROP ROLE IF EXISTS {name}")


@pytest.fixture
def reader(
    role: str,
    database_url: str,
    elasticsearch_url: str,
    index_name: str,
    photo_server: PhotoServer,
    tmp_path: Path,
) -> Iterator[Reader]:
    """Somebody with the page before them, in a folder with an installed `enrich`."""
    world = World(Portal(database_url), photo_server, elasticsearch_url, index_name, STARTER_BUNDLE)
    world.fixed = {name: world.fixed[name] for name in ("device", "precision", "cache")}
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    url = parse_url(database_url).set(drivername="postgresql", username=role, password="secret")
    names = [
        (URL, url.render_as_string(hide_password=False)),
        (Database(URL).place, Database(database_url).place),
        ("DATABASE portal", f"DATABASE {url.database}"),
        ("database portal", f"database {url.database}"),
        ("enrich_job", role),
        ("http://search.crm.example:9200", elasticsearch_url),
        ("http://img.crm.example", photo_server.url("")),
        ("img.crm.example", "127.0.0.1"),
        ("crm-homes", index_name),
        ("/srv/enrich", str(tmp_path)),
        ("/srv/enrich", str(CHECKOUT)),
    ]
    yield Reader(world, tmp_path, names)
    world.close()
    world.portal.engine.dispose()


def words(text: str) -> list[str]:
    """The words of an output, without what depends on the machine or on the width of columns."""
    for pattern, instead in ON_THIS_MACHINE.items():
        text = re.sub(pattern, instead, text)
    return text.split()


def alike(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether these are the same words; probabilities may differ by `NEAR`."""
    return len(shown) == len(printed) and all(map(_same, shown, printed))


def _same(one: str, other: str) -> bool:
    first, second = PROBABILITY.fullmatch(one), PROBABILITY.fullmatch(other)
    if not first or not second:
        return one == other
    return first[2] == second[2] and abs(float(first[1]) - float(second[1])) <= NEAR


def test_the_page_can_be_followed_and_shows_what_is_printed(reader: Reader) -> None:
    wrong = []

    def follow(found: re.Match[str]) -> str:
        kind, block = found.groups()
        printed = reader.follow(kind, block)
        if not alike(words(block), words(printed)):
            wrong.append(f"--- the page shows\n{block}--- printed was\n{printed}")
        return f"```{kind}\n{printed}```"

    rewritten = BLOCK.sub(follow, PAGE.read_text())
    if os.environ.get("QUICKSTART_REWRITE"):
        PAGE.write_text(rewritten)
    assert not wrong, "\n".join(wrong)
