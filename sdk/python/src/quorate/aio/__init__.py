"""The client for asyncio."""

from .client import AsyncClient
from .tasks import AsyncTask, AsyncTasks
from .watch import AsyncWatch

__all__ = ["AsyncClient", "AsyncTask", "AsyncTasks", "AsyncWatch"]
