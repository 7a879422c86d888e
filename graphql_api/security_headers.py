"""Headers on every answer that tell a browser how little it may do with it; a page that needs more says so itself.

What is answered is data for programs: no page may show it in a frame, take it for a script or a document, or learn from where
it was asked. Behind TLS, browsers are told to come that way only.
"""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A header that is there stays: the editor has a policy of its own.
_ALWAYS: Final = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}
# A year, as browsers' lists of such sites ask; of this host alone, for others are not ours to speak for.
_BEHIND_TLS: Final = {b"strict-transport-security": b"max-age=31536000"}


class SecurityHeaders:
    """Adds them, whoever answers."""

    def __init__(self, app: ASGIApp, *, behind_tls: bool) -> None:
        self._app = app
        self._headers = list((_ALWAYS | (_BEHIND_TLS if behind_tls else {})).items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and complete what is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = list(message.get("headers", ()))
                names = {name.lower() for name, _ in answered}
                message["headers"] = [*answered, *(each for each in self._headers if each[0] not in names)]
            await send(message)

        await self._app(scope, receive, completed)
