"""When the worker runs: the cron expression of `ENRICH_CRON`."""

import re
from datetime import UTC, datetime, timedelta

from apscheduler.triggers.cron import CronTrigger

from enrich.errors import SettingsError
from enrich.settings import Settings

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NUMBERED = re.compile(r"(\*|[0-7])(?:-([0-7]))?(?:/([1-7]))?")


class _Cron(CronTrigger):  # type: ignore[misc]
    """APScheduler's, but for the days on which clocks change.

    APScheduler adds 24 hours to find the next day. From a day on which clocks go forth that is past midnight:
    a run at half past midnight was left out, and with it the week or month that it stood for. Where clocks
    went back, it fired twice at a time that the clock shows twice.
    """

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        found: datetime | None = super().get_next_fire_time(previous, now)
        any_hour = str(self.fields[self.FIELD_NAMES.index("hour")]).startswith("*")
        while found and found.fold and not any_hour:
            found = super().get_next_fire_time(None, found.astimezone(UTC) + timedelta(seconds=1))
        return found

    def _increment_field_value(self, moment: datetime, number: int) -> tuple[datetime, int]:
        later: datetime
        later, changed = super()._increment_field_value(moment, number)
        if changed <= self.FIELD_NAMES.index("day"):
            by_the_clock, _ = super()._increment_field_value(moment.replace(tzinfo=UTC), number)
            later = min(by_the_clock.replace(tzinfo=self.timezone), later, key=datetime.timestamp)
        return later, changed


def trigger(settings: Settings) -> CronTrigger:
    """The trigger of `ENRICH_CRON`: five fields, all of which have to match, or six with seconds first.

    Raises:
        SettingsError: the expression cannot be read, or names a time that never comes.
    """
    fields = settings.cron.split()
    try:
        if len(fields) not in (5, 6):
            raise ValueError(f"it has {len(fields)} fields")
        fields[-1] = ",".join(_weekdays(part) for part in fields[-1].split(","))
        names = ("second", "minute", "hour", "day", "month", "day_of_week")[-len(fields) :]
        found = _Cron(**dict(zip(names, fields, strict=True)), timezone=settings.timezone)
    except ValueError as error:
        raise SettingsError(
            f"ENRICH_CRON={settings.cron!r} cannot be read ({error}): write five cron fields such as "
            "'30 3 * * *', or six with seconds first"
        ) from None
    if found.get_next_fire_time(None, datetime.now(UTC)) is None:
        raise SettingsError(
            f"ENRICH_CRON={settings.cron!r} never fires: no month has such a day; write a time that comes, "
            "such as '30 3 * * *'"
        )
    return found


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
