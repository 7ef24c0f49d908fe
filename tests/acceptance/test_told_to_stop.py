"""Jobs that a signal stops: they say so, with what is left, an exit code and in `enrich status`."""

import json
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.gate import Gate
from tests.support.harness import World, until
from tests.support.proxy import Answer, Proxy

SLOW = {"fetch_timeout": 120.0}
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def last_line(process: "subprocess.Popen[str]", code: int) -> str:
    """What the command said last on stderr, having ended with this exit code."""
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return err.splitlines()[-1]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", ["run", "backfill"])
def test_a_job_says_what_is_left(world: World, gate: Gate, command: str, number: signal.Signals) -> None:
    world.listing("0", "kitchen")
    for id in ("1", "2", "3"):
        gate.holds(world.photos, *world.listing(id, "kitchen"))
    process = world.start(command, **SLOW)
    until(lambda: world.statuses().get("0") == "done" and world.requests() == 4, "three are under way")
    assert "under way" in world.enrich_here("status").stdout
    process.send_signal(number)
    assert last_line(process, SIGNALS[number]) == (
        "enrich: stopped by signal, 3 left: the same command goes on"
    )
    assert world.portal.execute("SELECT exit_code FROM enrichment.run") == [(SIGNALS[number],)]
    status = world.enrich_here("status").stdout
    assert "stopped: 3 left" in status
    gate.open()
    assert world.run().exit_code == 0
    assert world.documents().keys() == {"0", "1", "2", "3"}


def test_a_publish_says_how_many_documents_are_left(world: World, elasticsearch_proxy: Proxy) -> None:
    world.listing("1", "kitchen")
    world.listing("2", "balcony")
    assert world.run().exit_code == 0
    world.drop_indices()
    world.fixed["elasticsearch_url"] = elasticsearch_proxy.url
    elasticsearch_proxy.answer = lambda request: Answer(503) if "_bulk" in request.path else None
    process = world.start("publish", outage_seconds=100)
    until(lambda: elasticsearch_proxy.sent("_bulk"), "the index turns it away")
    process.send_signal(signal.SIGTERM)
    assert "stopped by signal, 2 left: the same command goes on" in last_line(process, 143)
    assert world.portal.execute("SELECT exit_code FROM enrichment.run ORDER BY id") == [(0,), (143,)]


def test_a_job_that_was_done_when_the_signal_came_is_done(world: World) -> None:
    stopped = world.script(STOPPED_AT_ITS_END, "run", "--json")
    assert stopped.returncode == 0, stopped.stderr
    assert json.loads(stopped.stdout)["left"] is None


def test_what_others_ask_for_is_not_left_of_a_job_with_ids(world: World, tmp_path: Path) -> None:
    for id in ("1", "2"):
        world.listing(id, "kitchen")
    world.run(limit=1)
    (tmp_path / "ids").write_text("1\n")
    stopped = world.script(STOPPED_AT_ITS_END, "run", "--ids", str(tmp_path / "ids"), "--json")
    assert stopped.returncode == 0, stopped.stderr
    assert world.statuses() == {"1": "done", "2": "pending"} and json.loads(stopped.stdout)["left"] is None


STOPPED_AT_ITS_END = """
import os, signal
from jobs.run import nightly
before = nightly.enrich_and_publish
def then_stopped(*args, **kwargs):
    before(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGTERM)
nightly.enrich_and_publish = then_stopped
from jobs.cli.commands import main
main()
"""


def test_a_backfill_that_is_stopped_before_it_marks_says_so_and_is_gone_on_with(world: World) -> None:
    world.listing("1", "kitchen")
    assert world.run().exit_code == 0
    stopped = world.script(STOPPED_BEFORE_MARKING, "backfill")
    assert stopped.returncode == 143 and "stopped by signal, 1 left" in stopped.stderr, stopped.stderr
    assert world.run().figures.listings == 1


STOPPED_BEFORE_MARKING = """
import os, signal
from jobs.run import backfill
backfill.discover_beside = lambda *args: os.kill(os.getpid(), signal.SIGTERM)
from jobs.cli.commands import main
main()
"""


def test_a_dry_run_that_is_stopped_says_that_it_is_not_whole(world: World, gate: Gate) -> None:
    gate.holds(world.photos, *world.listing("1", "kitchen"))
    process = world.start("run", "--dry-run", **SLOW)
    until(world.requests, "it is under way")
    process.send_signal(signal.SIGINT)
    assert last_line(process, 130).startswith("enrich: stopped by signal: ")


STOPPED_DEMO = """
import os, signal
from jobs.demo import run
before = run._run
def stopped(*args):
    os.kill(os.getpid(), signal.SIGTERM)
    before(*args)
run._run = stopped
from jobs.cli.commands import main
main()
"""


@pytest.mark.parametrize("options", [(), ("--serve", "--port", "0")], ids=["demo", "page"])
def test_a_demo_that_is_stopped_says_so(world: World, options: tuple[str, ...]) -> None:
    # Not in pytest's folder, which is closed to the user that Postgres runs as.
    with tempfile.TemporaryDirectory(prefix="enrich-stop-", ignore_cleanup_errors=True) as home:
        stopped = world.script(STOPPED_DEMO, "demo", *options, home=home)
    assert stopped.returncode == 143
    assert stopped.stderr.startswith("enrich: stopped by signal: ") and stopped.stderr.count("\n") == 1
