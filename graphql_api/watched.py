"""How a request is answered, for whoever stands around what answers it."""

from starlette.types import Message, Send


class Watched:
    """A request's `send`, which knows what was begun to be answered: `status` is 0 until then."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        """Pass on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)
