"""The worker: runs by its cron expression, one at a time, beside another one, and until it is told to end."""

import itertools
import signal
import subprocess
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from threading import Timer
from typing import Any
from zoneinfo import ZoneInfo

import psycopg2
import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.exc import DBAPIError

from enrich.errors import SettingsError
from enrich.settings import load_settings
from jobs.run import worker as module
from jobs.run.nightly import run
from jobs.run.record import RunReport
from jobs.run.schedule import trigger
from jobs.run.stop import Stop
from tests.support.gate import Gate
from tests.support.harness import World, until

STOCKHOLM = ZoneInfo("Europe/Stockholm")
EVERY = 2  # seconds between starts
OFTEN = {"cron": f"*/{EVERY} * * * * *", "fetch_timeout": 120.0}
LEASE = 3.0
MISSED = 4 * EVERY + 1  # seconds in which several starts are missed


@pytest.fixture
def house(world: World, gate: Gate) -> World:
    """One home, whose photo waits at the gate."""
    gate.holds(world.photos, *world.listing("house", "balcony"))
    return world


def runs(world: World) -> list[Any]:
    """The runs, by their start: `started_at`, `finished_at`, `exit_code`."""
    query = "SELECT started_at, finished_at, exit_code FROM enrichment.run ORDER BY started_at"
    return list(world.portal.execute(query))


def finished(world: World) -> list[Any]:
    return [run for run in runs(world) if run.finished_at]


def now(world: World) -> datetime:
    moment: datetime = world.portal.execute("SELECT clock_timestamp()")[0][0]
    return moment


def pass_by(world: World, seconds: float) -> None:
    """Wait until the database's clock is so much later."""
    end = now(world) + timedelta(seconds=seconds)
    until(lambda: now(world) > end, f"{seconds} s are over")


def assert_one_at_a_time(found: Sequence[Any]) -> None:
    for before, after in itertools.pairwise(found):
        assert before.finished_at is not None and after.started_at >= before.finished_at
    assert {run.exit_code for run in found if run.finished_at} <= {0, 143}, "143: told to end by SIGTERM"


def ended(worker: "subprocess.Popen[str]") -> str:
    """Tell a worker to end, and wait until it has; its log."""
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, err
    assert "Traceback" not in err
    return err


def test_runs_do_not_overlap_and_late_ones_are_not_made_up_for_one_by_one(house: World, gate: Gate) -> None:
    worker = house.start("worker", **OFTEN)
    until(house.requests, "the first run is under way")
    pass_by(house, MISSED)
    assert len(runs(house)) == 1, "no run beside the one that takes long"
    gate.open()
    until(lambda: len(finished(house)) >= 3, "runs follow")

    found = finished(house)
    assert_one_at_a_time(found)
    since = (found[-1].finished_at - found[0].finished_at).total_seconds()
    assert len(found) - 1 <= since / EVERY + 2, "as many as the clock asked for"
    assert "run finished" in ended(worker)
    assert house.documents()["house"]["has_balcony"] is True
    assert house.requests() == 1


def test_what_was_missed_while_the_machine_slept_is_one_run(house: World, gate: Gate) -> None:
    gate.open()
    worker = house.start("worker", **OFTEN)
    until(lambda: finished(house), "the first run is over")
    until(lambda: all(run.finished_at for run in runs(house)), "no run is under way")
    worker.send_signal(signal.SIGSTOP)
    asleep = now(house)
    pass_by(house, MISSED)
    awake = now(house)
    worker.send_signal(signal.SIGCONT)
    until(lambda: len([run for run in finished(house) if run.started_at > awake]) >= 4, "it goes on")

    after = [run for run in finished(house) if run.started_at > awake]
    assert (after[-1].started_at - awake).total_seconds() > 2 * EVERY, "one for all that was missed"
    assert not [run for run in runs(house) if asleep < run.started_at < awake]
    assert_one_at_a_time(finished(house))
    ended(worker)


def test_a_second_worker_waits_and_takes_over(house: World, gate: Gate) -> None:
    first = house.start("worker", **OFTEN)
    until(house.requests, "the first worker's run is under way")
    second = house.start("worker", **OFTEN)
    assert second.stderr is not None
    until(lambda: "worker started" in (second.stderr.readline() if second.stderr else ""), "it is there too")
    pass_by(house, 2 * EVERY)
    assert len(runs(house)) == 1 and second.poll() is None, "it waits"

    ended(first)
    until(lambda: house.requests() == 2, "the second one goes on where the first one ended")
    gate.open()
    until(lambda: len(finished(house)) >= 3, "the second one's runs follow")
    assert_one_at_a_time(runs(house)[:3])
    assert house.documents()["house"]["has_balcony"] is True
    ended(second)


def test_sigterm_ends_it_within_the_batch(house: World, gate: Gate) -> None:
    house.listing("flat", "kitchen")
    worker = house.start("worker", **OFTEN)
    until(lambda: house.statuses().get("flat") == "done", "a run is under way")
    until(lambda: house.requests("/house/0.jpg"), "a photo hangs")
    log = ended(worker)
    assert "worker stopped" in log
    assert house.statuses() == {"flat": "done", "house": "pending"}
    assert house.portal.execute("SELECT count(token) FROM enrichment.lock") == [(0,)]
    assert_one_at_a_time(finished(house))
    assert len(finished(house)) == len(runs(house)) == 1
    gate.open()
    assert house.run().exit_code == 0
    assert house.documents().keys() == {"house", "flat"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_ended_is_gone_on_with_by_the_next_worker(
    house: World, gate: Gate, number: signal.Signals
) -> None:
    worker = house.start("worker", **OFTEN, lease_seconds=LEASE)
    until(house.requests, "a run is under way")
    worker.send_signal(number)
    worker.wait(timeout=60)
    if number == signal.SIGKILL:
        pass_by(house, LEASE + 1)
        assert "leased, left by" in house.enrich("show", "house").stdout
        assert "1 waiting, 0 being worked on" in house.enrich("status").stdout
    gate.open()
    worker = house.start("worker", cron="30 3 29 2 *", lease_seconds=LEASE)
    until(lambda: "house" in house.documents(), "nobody waits for the next night")
    assert "another one starts at once" in ended(worker)
    worker = house.start("worker", cron="30 3 29 2 *")
    pass_by(house, EVERY)
    assert "another one starts at once" not in ended(worker), "it is done"


def test_a_run_that_fails_does_not_end_the_worker(house: World, gate: Gate) -> None:
    gate.open()
    worker = house.start("worker", **OFTEN)
    until(lambda: finished(house), "the first run is over")
    house.portal.execute("ALTER TABLE listings RENAME COLUMN price TO cost")
    assert worker.stderr is not None
    until(lambda: "ended early" in (worker.stderr.readline() if worker.stderr else ""), "a run fails")
    house.portal.execute("ALTER TABLE listings RENAME COLUMN cost TO price")
    house.listing("flat", "kitchen")
    until(lambda: "flat" in house.documents(), "a later run does its work")
    ended(worker)


AWAY = "postgresql://me@127.0.0.1:1/homes"


def test_a_postgres_that_is_away_when_a_run_starts_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next night is a day away."""
    tries: list[object] = []

    def back_at_the_third_try(*given: Any) -> RunReport:
        tries.append(given)
        return RunReport() if len(tries) == 3 else run(*given)

    monkeypatch.setattr(module, "AGAIN", 0.01)
    monkeypatch.setattr(module, "run", back_at_the_third_try)
    caplog.set_level("INFO", module.__name__)
    module._one_run(load_settings(database_url=AWAY), Stop(), nullcontext)
    told = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert told[-1] == "run finished" and len(told) == 3
    assert "nothing answers there" in told[0] and "trying again in" in told[0]


def test_a_postgres_that_stays_away_is_waited_for_no_longer_than_another_outage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.4)
    module._one_run(load_settings(database_url=AWAY, outage_seconds=1), Stop(), nullcontext)
    *before, last = [record for record in caplog.records if record.name == module.__name__]
    assert len(before) in (1, 2) and last.getMessage().startswith("run ended early: cannot connect")


class Suspended(BackgroundScheduler):  # type: ignore[misc]
    """Waits for ever: the clock that it waits by stands still while the machine is suspended."""

    def _process_jobs(self) -> None:
        super()._process_jobs()


class Ahead(BackgroundScheduler):  # type: ignore[misc]
    """Started while the machine's clock was two days fast."""

    def start(self, *args: Any, **kwargs: Any) -> None:
        (job,) = self.get_jobs()
        job.modify(next_run_time=datetime.now(UTC) + timedelta(days=2))
        super().start(*args, **kwargs)


@pytest.mark.parametrize("scheduler", [Suspended, Ahead])
def test_a_run_is_due_by_the_clock_on_the_wall(
    scheduler: type[BackgroundScheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, stop = [], Stop()

    def one(*given: Any) -> RunReport:
        begun.append(given)
        stop.set()
        return RunReport()

    monkeypatch.setattr(module, "BackgroundScheduler", scheduler)
    monkeypatch.setattr(module, "LOOK", 0.2, raising=False)
    monkeypatch.setattr(module, "run", one)
    in_vain = Timer(10, stop.set)
    in_vain.start()
    module.work(load_settings(database_url=AWAY, cron="* * * * * *"), stop)
    in_vain.cancel()
    assert begun


@pytest.mark.parametrize(
    ("now", "before", "after"),
    [
        ("2026-05-04 02:10:00", "2026-05-06 03:30:00", "2026-05-04 03:30:00"),
        ("2026-05-04 03:29:58", "2026-05-05 03:30:00", "2026-05-05 03:30:00"),  # tonight's began 2 s ago
        ("2026-05-04 03:30:02", "2026-05-05 03:30:00", "2026-05-05 03:30:00"),
    ],
)
def test_a_clock_that_was_set_back_costs_no_night_and_repeats_none(now: str, before: str, after: str) -> None:
    moment, due, expected = (
        datetime.fromisoformat(time).replace(tzinfo=STOCKHOLM) for time in (now, before, after)
    )
    scheduler = BackgroundScheduler(timezone="Europe/Stockholm")
    job = scheduler.add_job(print, trigger(load_settings()), next_run_time=due)
    scheduler.start(paused=True)
    module._heed_the_clock(scheduler, job, moment)
    assert job.next_run_time == expected
    scheduler.shutdown()


def test_the_night_in_which_clocks_go_back_is_no_clock_that_was_set_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    moment = datetime(2026, 10, 25, 0, 54, 30, tzinfo=UTC)  # 2:54 in Stockholm; 2:55 and then 2:00 are due
    scheduler = BackgroundScheduler(timezone="Europe/Stockholm")
    often = trigger(load_settings(cron="*/5 * * * *"))
    job = scheduler.add_job(print, often, next_run_time=often.get_next_fire_time(None, moment))
    scheduler.start(paused=True)
    with caplog.at_level("WARNING"):
        module._heed_the_clock(scheduler, job, moment)
    scheduler.shutdown()
    assert caplog.messages == []


class Forbidden(psycopg2.Error):
    pgcode = "42501"


@pytest.mark.parametrize("kind", [Forbidden, psycopg2.Error])
def test_what_the_server_forbids_is_no_bug_in_the_log(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def ends(*given: Any) -> RunReport:
        raise DBAPIError("INSERT", {}, kind("permission denied for table history"))

    monkeypatch.setattr(module, "run", ends)
    module._one_run(load_settings(database_url=AWAY), Stop(), nullcontext)
    (told,) = [record for record in caplog.records if record.name == module.__name__]
    ours = kind is Forbidden
    assert told.getMessage().startswith("run ended early: Postgres: permission" if ours else "run broke")
    assert (told.exc_info is None) == ours


def fires(cron: str | None, start: datetime, days: int) -> list[datetime]:
    """When the worker would run, from `start` on for so many days, in Stockholm's time."""
    given = {} if cron is None else {"cron": cron}
    when = trigger(load_settings(**given))
    found: list[datetime] = []
    moment, end = start.astimezone(UTC), start + timedelta(days=days)
    while (fire := when.get_next_fire_time(None, moment).astimezone(UTC)) < end:
        found.append(fire.astimezone(STOCKHOLM))
        moment = fire + timedelta(seconds=1)
    return found


@pytest.mark.parametrize(
    "start",
    [datetime(2026, 10, 22, tzinfo=STOCKHOLM), datetime(2027, 3, 25, tzinfo=STOCKHOLM)],
    ids=["back", "forth"],
)
def test_by_default_it_runs_once_a_night_also_when_the_clock_changes(start: datetime) -> None:
    found = fires(None, start, 7)
    assert [(fire.date() - start.date()).days for fire in found] == list(range(7))
    assert {(fire.hour, fire.minute) for fire in found} == {(3, 30)}
    offsets = {fire.utcoffset() for fire in found}
    assert len(offsets) == 2, "the clock does change in these days"


@pytest.mark.parametrize(
    ("cron", "days", "expected"),
    [
        ("30 0 * * *", 4, "Sat 27, Sun 28, Mon 29, Tue 30"),
        ("0 0 * * 1", 12, "Mon 29, Mon 05"),
        ("0 0 1 * *", 40, "Thu 01, Sat 01"),
        ("0 0 27,29 * *", 4, "Sat 27, Mon 29"),
    ],
)
def test_no_night_is_left_out_after_the_day_in_which_clocks_go_forth(
    cron: str, days: int, expected: str
) -> None:
    found = fires(cron, datetime(2027, 3, 27, tzinfo=STOCKHOLM), days)
    assert ", ".join(fire.strftime("%a %d") for fire in found) == expected
    assert {fire.hour for fire in found} == {0}


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("30 2 * * *", "Sat 02:30+0200, Sun 02:30+0200, Mon 02:30+0100"),
        ("0 2-3 * * sun", "Sun 02:00+0200, Sun 03:00+0100"),
        (
            "0 */12 * * *",
            "Sat 00:00+0200, Sat 12:00+0200, Sun 00:00+0200, Sun 12:00+0100, Mon 00:00+0100, Mon 12:00+0100",
        ),
        ("0 2 * * sun", "Sun 02:00+0200"),
    ],
)
def test_a_time_that_the_clock_shows_twice_comes_once(cron: str, expected: str) -> None:
    found = fires(cron, datetime(2026, 10, 24, tzinfo=STOCKHOLM), 3)
    assert ", ".join(fire.strftime("%a %H:%M%z") for fire in found) == expected


@pytest.mark.parametrize(
    ("zone", "day"), [("Europe/Stockholm", "10-30"), ("Asia/Beirut", "10-29"), ("Asia/Beirut", "03-26")]
)
def test_half_hours_come_one_by_one_also_when_the_clock_changes_at_midnight(zone: str, day: str) -> None:
    when = trigger(load_settings(cron="*/30 * * * *", timezone=zone))
    moment = datetime.fromisoformat(f"2027-{day}").replace(tzinfo=UTC)
    for _ in range(4 * 48):
        fire = when.get_next_fire_time(None, moment).astimezone(UTC)
        assert fire == moment
        moment = fire + timedelta(minutes=30)


def test_six_fields_begin_with_seconds() -> None:
    start = datetime(2026, 5, 1, tzinfo=STOCKHOLM)
    found = fires("*/30 0 4 * * mon", start, 7)
    assert {fire.strftime("%a %H:%M:%S") for fire in found} == {"Mon 04:00:00", "Mon 04:00:30"}


@pytest.mark.parametrize(
    ("weekdays", "expected"),
    [
        ("0", "Sun"),
        ("7", "Sun"),
        ("1-5", "Mon Tue Wed Thu Fri"),
        ("0-2", "Mon Tue Sun"),
        ("5-7", "Fri Sat Sun"),
        ("*/3", "Wed Sat Sun"),
        ("2,mon", "Mon Tue"),
        ("sat", "Sat"),
    ],
)
def test_weekdays_are_numbered_as_in_crontab(weekdays: str, expected: str) -> None:
    monday = datetime(2026, 5, 4, tzinfo=STOCKHOLM)
    for cron in (f"30 3 * * {weekdays}", f"0 30 3 * * {weekdays}"):
        assert " ".join(fire.strftime("%a") for fire in fires(cron, monday, 7)) == expected


@pytest.mark.parametrize("cron", ["every night", "61 3 * * *", "30 3 * * 8", "30 3 * * 5-1", "* * * *", ""])
def test_an_expression_that_cannot_be_read_is_one_clear_line(cron: str) -> None:
    with pytest.raises(SettingsError, match=r"ENRICH_CRON=.*five cron fields"):
        trigger(load_settings(cron=cron))


@pytest.mark.parametrize("cron", ["0 0 31 2 *", "0 0 0 30 2 mon", "0 0 31 4,6,9,11 *"])
def test_an_expression_that_never_fires_is_refused(cron: str) -> None:
    with pytest.raises(SettingsError, match=r"ENRICH_CRON=.*never fires"):
        trigger(load_settings(cron=cron))
    assert trigger(load_settings(cron="0 0 29 2 *"))


@pytest.mark.parametrize("cron", ["0 0 31 2 *", "every night"])
@pytest.mark.parametrize("command", ["settings", "check", "worker"])
def test_a_cron_that_brings_no_run_is_exit_2(world: World, command: str, cron: str) -> None:
    done = world.enrich(command, cron=cron)
    assert done.returncode == 2
    assert (done.stdout + done.stderr).count("ENRICH_CRON=") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_worker_starts_ends_it(world: World, number: signal.Signals) -> None:
    code = (
        "import os, signal\n"
        "from apscheduler.schedulers.background import BackgroundScheduler\n"
        "class Interrupted(BackgroundScheduler):\n"
        "    def start(self, *args, **kwargs):\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        super().start(*args, **kwargs)\n"
        "import apscheduler.schedulers.background as module\n"
        "module.BackgroundScheduler = Interrupted\n"
        "from jobs.cli.commands import main\n"
        "main()\n"
    )
    done = world.script(code, "worker")
    assert done.returncode == 0, done.stderr
    assert "worker stopped" in done.stderr
    assert runs(world) == []


def test_a_signal_at_any_moment_after_the_start_ends_the_worker(world: World) -> None:
    worker = world.start("worker")
    assert worker.stderr is not None
    until(lambda: "worker started" in (worker.stderr.readline() if worker.stderr else ""), "it is there")
    ended(worker)
