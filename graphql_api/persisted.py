"""Documents that a request names instead of holding: by the hash of their text, or as the operator's list calls them."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
from graphql import GraphQLError, GraphQLSchema

from graphql_api.codes import Code
from graphql_api.documents import Documents
from graphql_api.operations import GraphQLRequest
from graphql_api.recent import Recent
from metering.config import PREFIX, Settings
from metering.errors import ConfigurationError
from metering.limits import Limits

_SHA256: Final = "sha256:"
_VERSION: Final = 1
_SETTING: Final = f"{PREFIX}GRAPHQL_DOCUMENTS"


class PersistedQuery(msgspec.Struct):
    """The extension by which clients name a document by its hash, and teach it by sending both."""

    version: int
    sha256Hash: str  # noqa: N815 - the protocol's own name


class Persisted:
    """What the texts are that requests name: the listed ones, and those that clients have taught this process."""

    def __init__(self, listed: Mapping[str, str], limits: Limits, *, only_listed: bool = False) -> None:
        self._listed = {**listed, **{_hash(text): text for text in listed.values()}}
        self._only_listed = only_listed
        self._taught: Recent[str] = Recent(limits.graphql_documents_max, limits.graphql_documents_bytes_max)

    def text_of(self, asked: GraphQLRequest) -> str:
        """The document that a request means. Raises GraphQLError where it cannot be had."""
        name = asked.document_id
        if name is None:
            named = (asked.extensions or {}).get("persistedQuery")
            name = None if named is None else _named(named)
        text = asked.query
        if name is not None and text is None:
            found = self._find(name.removeprefix(_SHA256))
            if found is None:
                # The words and the code that clients know: they answer it by sending the text along.
                raise _error("PersistedQueryNotFound", Code.PERSISTED_QUERY_NOT_FOUND)
            return found
        text = text or ""
        if self._only_listed and self._listed.get(_hash(text)) != text:
            raise _error("Only listed documents are answered here; name one by its id.", Code.DOCUMENT_NOT_LISTED)
        if name is not None and not self._only_listed:
            self._teach(name.removeprefix(_SHA256), text)
        return text

    def _find(self, name: str) -> str | None:
        return self._listed.get(name) or self._taught.get(name)

    def _teach(self, name: str, text: str) -> None:
        if name in self._listed:
            if self._listed[name] != text:
                raise _error("The id is of another document.", Code.PERSISTED_QUERY_MISMATCH)
            return
        if _hash(text) != name:
            raise _error("The hash is not the SHA-256 of the document.", Code.PERSISTED_QUERY_MISMATCH)
        self._taught.keep(name, text, len(text.encode()))


def _named(given: Any) -> str:
    try:
        named = msgspec.convert(given, PersistedQuery)
    except msgspec.ValidationError as error:
        raise _error(f"`extensions.persistedQuery` cannot be read: {error}.", Code.GRAPHQL_INVALID) from error
    if named.version != _VERSION:
        raise _error("PersistedQueryNotSupported", Code.PERSISTED_QUERY_NOT_SUPPORTED)
    return named.sha256Hash


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _error(message: str, code: Code) -> GraphQLError:
    return GraphQLError(message, extensions={"code": code})


# ---------------------------------------------------------------- the list


def listed_documents(settings: Settings, schema: GraphQLSchema, limits: Limits) -> dict[str, str]:
    """The documents of the operator's list by id, as a JSON object holds them; none where no list is set.

    Raises ConfigurationError, with every fault of every document: what this release cannot answer is found at the start.
    """
    path = settings.graphql_documents
    if path is None:
        return {}
    listed = _read(path)
    documents = Documents(schema, limits, introspection=settings.graphql_introspection)
    faults = [
        f"{_SETTING}: the document {name!r:.80} of {path}: {error.message}"
        for name, text in listed.items()
        for error in documents.understand(text).errors
    ]
    if faults:
        raise ConfigurationError(faults)
    return listed


def _read(path: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except OSError as error:
        raise ConfigurationError([f"{_SETTING}={path}: cannot be read: {error.strerror}."]) from error
    except msgspec.DecodeError as error:
        message = f'{_SETTING}={path}: must be a JSON object like {{"id": "query {{ … }}"}}: {error}.'
        raise ConfigurationError([message]) from error
