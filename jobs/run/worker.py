"""The scheduler: the nightly run from a cron expression, in a process that stays."""

import logging
import re
from threading import Event, Thread

from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.cron import CronTrigger

from enrich.errors import EnrichError, SettingsError
from enrich.settings import Settings
from jobs.run.nightly import RunOptions, run

log = logging.getLogger(__name__)

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NUMBERED = re.compile(r"(\*|[0-7])(?:-([0-7]))?(?:/([1-7]))?")


def trigger(settings: Settings) -> CronTrigger:
    """The trigger of `ENRICH_CRON`: five fields as in crontab, or six with seconds first.

    Raises:
        SettingsError: the expression cannot be read.
    """
    fields = settings.cron.split()
    try:
        if len(fields) not in (5, 6):
            raise ValueError(f"it has {len(fields)} fields")
        fields[-1] = ",".join(_weekdays(part) for part in fields[-1].split(","))
        if len(fields) == 5:
            return CronTrigger.from_crontab(" ".join(fields), timezone=settings.timezone)
        names = ("second", "minute", "hour", "day", "month", "day_of_week")
        return CronTrigger(**dict(zip(names, fields, strict=True)), timezone=settings.timezone)
    except ValueError as error:
        raise SettingsError(
            f"ENRICH_CRON={settings.cron!r} cannot be read ({error}): write five cron fields such as "
            "'30 3 * * *', or six with seconds first"
        ) from None


def _weekdays(part: str) -> str:
    """Numbered weekdays by name: crontab counts from Sunday (0 and 7), APScheduler from Monday."""
    found = _NUMBERED.fullmatch(part)
    if part == "*" or found is None:
        return part
    first, last, step = found.groups()
    if first == "*":
        first, last = "0", "6"
    elif last is None:
        last = "6" if step else first
    chosen = [WEEKDAYS[day % 7] for day in range(int(first), int(last) + 1, int(step or 1))]
    if not chosen:
        raise ValueError(f"the weekdays {part} end before they begin")
    return ",".join(chosen)


def work(settings: Settings, stop: Event) -> None:
    """Run every time the cron expression says so, one run at a time, until `stop` is set.

    A run that fails is logged and recorded; the next one is tried all the same. Late starts are made up for
    once (`coalesce`), however late.
    """
    scheduler = BlockingScheduler(timezone=settings.timezone)
    scheduler.add_job(
        _one_run,
        trigger(settings),
        args=(settings, stop),
        name="nightly",
        coalesce=True,
        max_instances=1,
        misfire_grace_time=None,
    )
    Thread(target=lambda: (stop.wait(), scheduler.shutdown(wait=True)), name="stop", daemon=True).start()
    log.info("worker started", extra={"cron": settings.cron, "timezone": settings.timezone})
    scheduler.start()
    log.info("worker stopped")


def _one_run(settings: Settings, stop: Event) -> None:
    try:
        report = run(settings, RunOptions(wait=True), stop)
        log.info("run finished", extra={"exit_code": report.exit_code, **report.as_json()})
    except EnrichError as error:
        log.error("run ended early: %s", error, extra={"exit_code": error.exit_code})
    except Exception:
        log.exception("run broke")
