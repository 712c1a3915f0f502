"""No reply ends a run: an item whose judging raises counts as wrong, and the run says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from qwen_eval.schema import InputError, Score, Scored

UNJUDGED = "unjudged"  # the statistic of such an item: how many of its texts could not be judged

_log = logging.getLogger("harness")


def guarded(name: str, judge: Callable[[], Score], wrong: Callable[[], Score]) -> Score:
    """The score that `judge` gives; where it raises, that of `wrong`, marked as not judged. name: the item's id. Raises
    InputError, which is about the run and not about a reply, and whatever `wrong` raises, which has seen no reply."""
    try:
        return judge()
    except InputError:
        raise
    except Exception as error:  # a reply may be anything, and so may be what it leads to
        tell(name, error)
        score = wrong()
        stats = {stat: value for stat, value in score.stats.items() if stat != "unanswered"}
        return Score({**stats, UNJUDGED: 1.0}, score.answer)


def tell(name: str, error: Exception) -> None:
    """Warns of an item that could not be judged."""
    _log.warning("%s could not be judged and counts as wrong: %s: %.200s", name, type(error).__name__, error)


def remark(scored: Sequence[Scored]) -> list[str]:
    """A sentence for the table on items that could not be judged; nothing where there are none."""
    names = [item.sample.id for item in scored if item.score.stats.get(UNJUDGED)]
    if not names:
        return []
    shown = ", ".join(names[:3]) + " ..." * (len(names) > 3)
    return [
        f"warning: judging {len(names)} of {len(scored)} replies failed ({shown}): they count as wrong; please report it with "
        "these replies"
    ]
