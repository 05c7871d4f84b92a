"""The client for asyncio."""

from .client import AsyncClient
from .quota_watch import AsyncQuotaWatch
from .tasks import AsyncTask, AsyncTasks
from .watch import AsyncWatch

__all__ = ["AsyncClient", "AsyncQuotaWatch", "AsyncTask", "AsyncTasks", "AsyncWatch"]
