"""What models cost, and what was spent."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Optional, Union

from .. import _requests, _wire
from .._proto import price_pb2
from ..data import CostGroup, Costs, Price

if TYPE_CHECKING:
    from .client import AsyncClient


class AsyncPrices:
    """The price book of the cluster."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def set(
        self,
        model: str,
        *,
        input: int,
        output: int,
        cached: int = 0,
        reason: str = "",
        etag: Optional[str] = None,
        request_id: Optional[str] = None,
    ) -> Price:
        """Sets what a model costs from the next reservation on. What is under way settles at the price it began with.

        Args:
            input: new tokens of the prompt, in micro-dollars a million: 3_000_000 are 3 dollars.
            output: generated tokens, likewise.
            cached: tokens of the prompt that were in the chain before, likewise.
            etag: refused (`Conflict`) unless that is the one in force; `0`: the model must have no price yet.
        """
        request = _requests.set_price(model, input, cached, output, reason, etag, request_id)
        return _wire.price(await self._client._call(lambda s: s.prices.SetPrice, request, request.request_id))

    async def get(self, model: str) -> Price:
        request = price_pb2.GetPriceRequest(model=model)
        return _wire.price(await self._client._call(lambda s: s.prices.GetPrice, request))

    async def list(self) -> tuple[Price, ...]:
        """Of every model that has one."""
        answer = await self._client._call(lambda s: s.prices.ListPrices, price_pb2.ListPricesRequest())
        return tuple(_wire.price(it) for it in answer.prices)

    async def costs(
        self,
        by: Union[CostGroup, str] = CostGroup.PROJECT,
        *,
        since: Optional[datetime] = None,
        until: Optional[datetime] = None,
        project: Optional[str] = None,
    ) -> Costs:
        """What tasks used, summed over those that the cluster still keeps: ended ones for 7 days.

        Args:
            by: `project`, `agent`, `model`, `task` or `day`.
            since: tasks whose last step (or creation, before the first) is not before this moment.
            until: and before this one.
            project: only this one; None: all.
        """
        request = _requests.query_cost(by, since, until, project)
        return _wire.costs(await self._client._call(lambda s: s.prices.QueryCost, request))
