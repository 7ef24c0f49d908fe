"""The scheduler: the nightly run from a cron expression, in a process that stays."""

import logging
import time
from contextlib import closing, nullcontext, suppress
from datetime import UTC, datetime, timedelta

from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.exc import SQLAlchemyError

from enrich.errors import EnrichError, SignalError, UnreachableError
from enrich.settings import Settings
from enrich.state.database import need_database, state_database
from enrich.state.refusals import servers_state
from enrich.state.runs import Runs
from jobs.run.nightly import RunOptions, run
from jobs.run.record import Watch
from jobs.run.schedule import trigger
from jobs.run.stop import Stop

AGAIN = 30.0  # seconds until a database that was away when a run started is tried again
LOOK = 30.0  # seconds between looks at the clock
SLIGHT = timedelta(minutes=1)  # a clock that is set back by less repeats no run
log = logging.getLogger(__name__)


def work(settings: Settings, stop: Stop, watch: Watch = nullcontext) -> None:
    """Run every time the cron expression says so, one run at a time, until `stop` is set.

    A run that fails is logged and recorded; the next one is tried all the same. A database that is away when
    one starts is waited for as in any outage. Late starts are made up for once (`coalesce`), however late. A
    run that was killed, or ended by SIGTERM, is gone on with at once.

    Raises:
        SettingsError: no database is set, or a cron expression that cannot be read or never fires.
    """
    need_database(settings)
    scheduler = BackgroundScheduler(timezone=settings.timezone)
    job = scheduler.add_job(
        _one_run,
        trigger(settings),
        args=(settings, stop, watch),
        name="nightly",
        coalesce=True,
        max_instances=1,
        misfire_grace_time=None,
    )
    if _left_undone(settings):
        log.info("the last run was ended before its work was done: another one starts at once")
        job.modify(next_run_time=datetime.now(UTC))
    scheduler.start()
    log.info("worker started", extra={"cron": settings.cron, "timezone": settings.timezone})
    while not stop.wait(LOOK):
        _heed_the_clock(scheduler, job, datetime.now(UTC))
    scheduler.shutdown(wait=True)
    log.info("worker stopped")


def _left_undone(settings: Settings) -> bool:
    """Whether the last run has no end (it was killed, or is still under way, and waited for), or one by
    SIGTERM. Not known of a database that is away, or has no schema yet: then it waits for its time."""
    with closing(state_database(settings, 0.0)) as database, suppress(EnrichError, SQLAlchemyError):
        return any(one.exit_code in (None, SignalError.exit_code) for one in Runs(database).runs(1, ["run"]))
    return False


def _heed_the_clock(scheduler: BackgroundScheduler, job: Job, now: datetime) -> None:
    """Have the next run start when the clock on the wall says so: APScheduler waits for it in one piece, by a
    clock that stands still while the machine sleeps and that is never set."""
    due = job.trigger.get_next_fire_time(None, now + SLIGHT)
    if due and job.next_run_time.timestamp() > due.timestamp():  # a clock may show 2:00 after 2:55
        log.warning("the clock was set back: the next run is due earlier than it was")
        job.modify(next_run_time=job.trigger.get_next_fire_time(None, now))
    scheduler.wakeup()


def _one_run(settings: Settings, stop: Stop, watch: Watch) -> None:
    since = time.monotonic()
    try:
        while True:
            try:
                report = run(settings, RunOptions(wait=True), stop, watch)
                break
            except UnreachableError as error:
                if time.monotonic() - since + AGAIN > settings.outage_seconds:
                    raise
                log.warning("%s; trying again in %.0f s", error, AGAIN)
            if stop.wait(AGAIN):
                return
        log.info("run finished", extra={"exit_code": report.exit_code, **report.as_json()})
    except Exception as error:
        ended = error if isinstance(error, EnrichError) else servers_state(error)
        if ended is None:
            log.exception("run broke")
        else:
            log.error("run ended early: %s", ended, extra={"exit_code": ended.exit_code})
