"""Tasks that are created again and again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Optional, Union

from . import _requests, _wire
from ._proto import task_pb2
from .data import Input, Schedule, TaskClass

if TYPE_CHECKING:
    from .client import Client


class Schedules:
    """Schedules of the client's project."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def set(
        self,
        name: str,
        cron: str,
        agent: str,
        input: Optional[str] = None,
        *,
        inputs: Iterable[Union[str, Input]] = (),
        klass: Optional[Union[TaskClass, str]] = None,
        priority: Optional[int] = None,
        request_id: Optional[str] = None,
    ) -> Schedule:
        """Puts a schedule, in place of the one that had its name.

        Args:
            cron: minute, hour, day of the month, month, day of the week, in UTC: `0 6 * * MON-FRI`.
            agent: name of an agent or a team.
            input: a text; `inputs` takes several, with names where they are `Input`s.
            klass: which queue its tasks wait in; `batch` when not set.
            priority: 0 to 9; 5 when not set.
        """
        request = _requests.set_schedule(
            self._client.project, name, cron, agent, input, inputs, klass, priority, request_id
        )
        return _wire.schedule(self._client._call(lambda s: s.tasks.SetSchedule, request, request.request_id))

    def list(self) -> tuple[Schedule, ...]:
        request = task_pb2.ListSchedulesRequest(project=self._client.project)
        answer = self._client._call(lambda s: s.tasks.ListSchedules, request)
        return tuple(_wire.schedule(it) for it in answer.schedules)

    def delete(self, name: str, *, request_id: Optional[str] = None) -> None:
        """Ends a schedule; tasks that it created go on."""
        request = task_pb2.DeleteScheduleRequest(
            project=self._client.project, name=name, request_id=_requests.given_or_fresh(request_id)
        )
        self._client._call(lambda s: s.tasks.DeleteSchedule, request, request.request_id)
