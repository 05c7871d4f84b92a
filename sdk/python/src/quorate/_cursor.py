"""What a watcher has seen, so that streams from several nodes read as one. Pure.

Committed events are taken by sequence: each once, in order. Live tokens are taken by (step, attempt, offset): a node
asked anew sends the step's text from its beginning, and only what was not shown yet is let through.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Optional, Union

from .data import Event, GapEvent, RetractEvent, StateEvent, StepEvent, TaskState, TokenEvent

# Attempts are lease epochs, maybe with the number of the call under that lease: `1.42.0` or `1.42.0/1`.
_ATTEMPT = re.compile(r"([0-9]+)\.([0-9]+)\.([0-9]+)(?:/([0-9]+))?")


class Cursor:
    def __init__(self, from_sequence: int) -> None:
        self.next = max(from_sequence, 1)
        """Sequence of the committed event that comes next."""
        self.ended = False
        """The final state was seen, or the task ended before the sequence that was asked for."""
        # Where the lease began under which the task runs now.
        self._lease_from: Optional[int] = None
        self._committed_step = 0
        self._live: Optional[_Live] = None
        # Text of this step and attempt was taken back; stragglers of it are dropped.
        self._retracted: Optional[tuple[int, str]] = None
        # The sequence for which the stream was opened again after a hole.
        self._asked_again_for = 0

    @property
    def ask_from(self) -> int:
        """The sequence to ask another node for.

        A node begins live text with the event that gave the lease, so it is asked for that one again; what was seen
        before is left out here.
        """
        return self.next if self._lease_from is None else self._lease_from

    def take(self, event: Event) -> Optional[list[Event]]:
        """What to show of it. None: events are missing without a word, so ask again from `next`."""
        if isinstance(event, (StateEvent, StepEvent)):
            return self._on_committed(event)
        if isinstance(event, TokenEvent):
            return self._on_token(event)
        if isinstance(event, RetractEvent):
            return self._on_retract(event)
        return self._on_gap(event)

    def _on_committed(self, event: Union[StateEvent, StepEvent]) -> Optional[list[Event]]:
        if event.sequence < self.next:
            return []
        shown: list[Event] = []
        if event.sequence > self.next:
            if self._asked_again_for != self.next:
                self._asked_again_for = self.next
                return None
            # The second time the same events are missing they are gone: say so rather than wait for ever.
            shown.append(GapEvent(event.task, event.at_ms, self.next, event.sequence - 1))
        self.next = event.sequence + 1
        if isinstance(event, StateEvent):
            self.ended = self.ended or event.state.is_final
            self._lease_from = event.sequence if event.state is TaskState.RUNNING else None
        else:
            self._committed_step = max(self._committed_step, event.step)
        return [*shown, event]

    def _on_gap(self, event: GapEvent) -> list[Event]:
        if event.last < self.next:
            return []
        first = max(event.first, self.next)
        self.next = event.last + 1
        return [replace(event, first=first)]

    def _on_retract(self, event: RetractEvent) -> list[Event]:
        live = self._live
        if live is None or (live.step, live.attempt) != (event.step, event.attempt):
            return []
        self._retracted = (event.step, event.attempt)
        self._live = None
        return [event]

    def _on_token(self, event: TokenEvent) -> list[Event]:
        if self._retracted == (event.step, event.attempt) or self._is_past(event):
            return []
        shown: list[Event] = []
        live = self._live
        if live is not None and live.step == event.step and live.attempt != event.attempt:
            shown.append(self._take_back(live, event))
        if live is None or (live.step, live.attempt) != (event.step, event.attempt):
            live = self._live = _Live(event.step, event.attempt)
        added = live.add(event)
        if added is not None:
            return [*shown, *added]
        # The node's text is not the text that was shown.
        self._live = _Live(event.step, event.attempt)
        self._live.add(event)
        return [*shown, _retract(event, event.attempt), event]

    def _is_past(self, event: TokenEvent) -> bool:
        """It belongs to text that was shown, committed or given up before."""
        live = self._live
        if live is not None and event.step <= live.step:
            return event.step < live.step or _is_earlier(event.attempt, live.attempt)
        return event.step <= self._committed_step

    def _take_back(self, live: _Live, event: TokenEvent) -> RetractEvent:
        """Another attempt begins: what the last one showed is void, whether or not its node could say so."""
        self._retracted = (live.step, live.attempt)
        return _retract(event, live.attempt)


class _Live:
    """The text shown of a step that may not be committed yet."""

    def __init__(self, step: int, attempt: str) -> None:
        self.step = step
        self.attempt = attempt
        # Tokens up to here were shown, and where in the text the token of an offset begins.
        self._end = 0
        self._text = ""
        self._marks: dict[int, int] = {}

    def add(self, event: TokenEvent) -> Optional[list[Event]]:
        """What of the chunk is new; None when it disagrees with what was shown."""
        end = event.offset + event.tokens
        if event.offset >= self._end:
            self._push(event.offset, end, event.text)
            return [event] if event.text else []
        rest = self._unseen(event.offset, end, event.text)
        if rest is None:
            return None
        begin = self._end
        if not rest or end < begin:
            return []
        self._push(begin, end, rest)
        return [replace(event, offset=begin, tokens=end - begin, text=rest)]

    def _push(self, offset: int, end: int, text: str) -> None:
        self._marks[offset] = len(self._text)
        self._text += text
        self._marks[end] = len(self._text)
        self._end = end

    def _unseen(self, offset: int, end: int, text: str) -> Optional[str]:
        """The part of a chunk beyond what was shown; None when both disagree."""
        begin = self._marks.get(offset)
        if begin is None:
            # It begins inside one of ours, as of no node that begins at 0: they meet where the texts overlap most.
            meet = next(cut for cut in range(len(text), -1, -1) if self._text.endswith(text[:cut]))
            return text[meet:]
        shown = self._text[begin:]
        if text.startswith(shown):
            return text[len(shown) :]
        if not shown.startswith(text):
            return None
        # Its end is where the node's next chunk begins. Where words repeat, the texts alone could not tell that place.
        self._marks[end] = begin + len(text)
        return ""


def _retract(event: TokenEvent, attempt: str) -> RetractEvent:
    return RetractEvent(event.task, event.at_ms, event.step, attempt)


def _is_earlier(attempt: str, than: str) -> bool:
    """Later attempts compare greater; unreadable ones count as later."""
    mine, other = _order(attempt), _order(than)
    return mine is not None and other is not None and mine < other


def _order(attempt: str) -> Optional[tuple[int, ...]]:
    match = _ATTEMPT.fullmatch(attempt)
    return tuple(int(part or 0) for part in match.groups()) if match else None
