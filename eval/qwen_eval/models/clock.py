"""Clocks that stand still, so that a chat template can be rendered as on a given day.

transformers gives templates one clock, strftime_now; code that comes with a tokenizer may read any of Python's. What reads
a clock finds it by a name, in its module or among the template's globals: there the name is bound to a replacement.
"""

from __future__ import annotations

import datetime
import threading
import time
import types
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeAlias

Names: TypeAlias = MutableMapping[str, Any]

NOON = datetime.time(12)  # at which the date is the same in nearly all time zones
# Three moments that share no field of a date or of a time of day: what is the same at all three does not follow the clock.
MOMENTS = (
    datetime.datetime(2001, 2, 3, 4, 5, 6),
    datetime.datetime(2024, 11, 14, 23, 47, 58),
    datetime.datetime(2068, 7, 30, 13, 26, 39),
)
_LOCK = threading.Lock()  # names are shared by all threads


def noon(day: str) -> datetime.datetime:
    """12:00 of a day (2026-12-01), local time."""
    return datetime.datetime.combine(datetime.date.fromisoformat(day), NOON)


@contextmanager
def stopped(moment: datetime.datetime, places: Sequence[Names]) -> Iterator[None]:
    """While the block runs, the clocks of the modules datetime and time that `places` (the names of modules, the globals of
    templates) refer to show this moment, local time. Other threads wait where they want another one."""
    with _LOCK:
        replacements = _replacements(moment)
        changed: list[tuple[Names, str, Any]] = []
        try:
            for names in places:
                for name, value in list(names.items()):
                    if (key := _key(value)) in replacements:
                        changed.append((names, name, value))
                        names[name] = replacements[key]
            yield
        finally:
            for names, name, value in reversed(changed):
                names[name] = value


def _key(value: Any) -> tuple[int, str]:
    """Identifies a clock: a class by the one of datetime's that it extends, a method of a class (datetime.now), which is
    another object each time it is asked for, by its class and name, anything else by itself."""
    if isinstance(value, type) and issubclass(value, datetime.date):
        return id(datetime.datetime if issubclass(value, datetime.datetime) else datetime.date), ""
    method = isinstance(value, types.BuiltinMethodType)
    return (id(value.__self__), value.__name__) if method else (id(value), "")


@lru_cache(maxsize=8)
def _replacements(moment: datetime.datetime) -> Mapping[tuple[int, str], Any]:
    """The replacements of the standard library's clocks at this moment, by their _key."""
    seconds = moment.timestamp()

    class Day(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:  # type: ignore[override]
            return moment.date()

    class Moment(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return moment if tz is None else moment.astimezone(tz)

        @classmethod
        def today(cls) -> datetime.datetime:  # type: ignore[override]
            return moment

        @classmethod
        def utcnow(cls) -> datetime.datetime:  # type: ignore[override]
            return moment.astimezone(datetime.timezone.utc).replace(tzinfo=None)

    def parts(secs: float | None = None) -> time.struct_time:
        return time.localtime(seconds if secs is None else secs)

    clocks: dict[str, Any] = {
        "time": lambda: seconds,
        "time_ns": lambda: int(seconds) * 10**9,
        "localtime": parts,
        "gmtime": lambda secs=None: time.gmtime(seconds if secs is None else secs),
        "ctime": lambda secs=None: time.ctime(seconds if secs is None else secs),
        "asctime": lambda t=None: time.asctime(parts() if t is None else t),
        "strftime": lambda format, t=None: time.strftime(format, parts() if t is None else t),
    }
    methods = [
        (getattr(old, name), getattr(new, name))
        for old, new, names in (
            (datetime.datetime, Moment, ("now", "today", "utcnow")),
            (datetime.date, Day, ("today",)),
        )
        for name in names
    ]
    pairs = [
        (datetime, _module(datetime, {"datetime": Moment, "date": Day})),
        (datetime.datetime, Moment),
        (datetime.date, Day),
        (time, _module(time, clocks)),
        *((getattr(time, name), clock) for name, clock in clocks.items()),
        *methods,
    ]
    return {_key(old): new for old, new in pairs}


def _module(real: types.ModuleType, others: dict[str, Any]) -> types.ModuleType:
    """A module with the content of another, but for some names."""
    made = types.ModuleType(real.__name__)
    vars(made).update({**vars(real), **others})
    return made
