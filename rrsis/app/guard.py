"""What stands before Gradio's own doors."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class NoRemoteFiles:
    """ASGI middleware: Gradio would fetch addresses for a visitor, by two doors; here both take files only.

    One is the route `file=`. The other are events: a file in an event's JSON is a dictionary whose `path` may be an
    address, which Gradio downloads (public addresses alone, by its own check).

    Args:
        app: the application behind it.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuses addresses in the place of files, and passes everything else on."""
        refused = False
        if scope["type"] == "http":
            # The path is decoded here already, so that %3A is a colon.
            refused = "/file=http" in scope["path"].lower()
            if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not _is_upload(scope):
                body, receive = await _read(receive)
                refused = refused or _has_address(body)
        if not refused:
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"No addresses are fetched here."})


def _is_upload(scope: Message) -> bool:
    """Whether the body is a form: no event is read from one, and it is too large to be kept here."""
    return any(name == b"content-type" and value.startswith(b"multipart/form-data") for name, value in scope["headers"])


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """The whole body, and a `receive` that gives it once more."""
    pieces, message = [], {"more_body": True}
    while message.get("more_body", False):
        message = await receive()
        pieces.append(message.get("body", b""))
    body = b"".join(pieces)
    # A visitor who left in between is told of as before.
    again = (
        [{"type": "http.request", "body": body, "more_body": False}] if message["type"] == "http.request" else [message]
    )

    async def repeat() -> Message:
        return again.pop() if again else await receive()

    return body, repeat


def _has_address(body: bytes) -> bool:
    """Whether JSON holds a dictionary with an address as its `path`; what is no JSON is no event."""
    try:
        waiting = [json.loads(body)]
    except RecursionError:
        return True  # nested deeper than can be looked through
    except ValueError:
        return False
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and path.strip().lower().startswith(("http:", "https:")):
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False
