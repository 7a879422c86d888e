"""Content-Type as it is sent -> the type, and whether its text is UTF-8. Pure."""

from functools import lru_cache

import msgspec


class MediaType(msgspec.Struct, frozen=True):
    """A media type without its parameters, and the charset among them."""

    essence: str
    charset: str | None = None

    @property
    def is_json(self) -> bool:
        """Whether it says that the content is JSON: application/json, or anything that is written in it."""
        return self.essence.endswith(("/json", "+json"))

    @property
    def is_utf8(self) -> bool:
        """Whether its text is UTF-8, which it is where nothing is said."""
        return self.charset in {None, "utf-8", "utf8"}


# Clients send few different ones; whoever sends many costs no memory.
@lru_cache(maxsize=64)
def media_type(header: str) -> MediaType:
    """Read a Content-Type; parameters other than the charset mean nothing here."""
    essence, *parameters = header.split(";")
    charset = None
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    return MediaType(essence.strip().lower(), charset)
