"""What stands before Gradio's own doors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]


class NoRemoteFiles:
    """ASGI middleware: Gradio's `file=` route would fetch any public address for a visitor; here it serves files only.

    Args:
        app: the application behind it.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Refuses `file=` of an address, and passes everything else on."""
        # The path is decoded here already, so that %3A is a colon.
        if scope["type"] != "http" or "/file=http" not in scope["path"].lower():
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"No addresses are fetched here."})
