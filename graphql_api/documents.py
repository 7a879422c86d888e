"""Documents, understood once: a front end sends the same few again and again, each time with other variables."""

from collections import OrderedDict
from typing import Final

import msgspec
from graphql import DocumentNode, GraphQLError, GraphQLSchema, GraphQLSyntaxError, parse, specified_rules
from strawberry.schema.schema import validate_document

from graphql_api.depth import too_deep
from metering.limits import Limits

# One tuple for all documents; Strawberry adds its own rules to it.
_RULES: Final = tuple(specified_rules)


class Document(msgspec.Struct, frozen=True):
    """A document, and all that is wrong with it. There is none where its text could not be read."""

    parsed: DocumentNode | None
    errors: tuple[GraphQLError, ...]


class Documents:
    """Reads, bounds and validates documents; those that were asked for last are kept, the wrong ones too."""

    def __init__(self, schema: GraphQLSchema, limits: Limits) -> None:
        self._schema = schema
        self._limits = limits
        self._kept: OrderedDict[str, Document] = OrderedDict()
        self._kept_bytes = 0

    def understand(self, text: str) -> Document:
        """The document of this text. Its errors say what is wrong with it; they are the same objects each time."""
        document = self._kept.get(text)
        if document is not None:
            self._kept.move_to_end(text)
            return document
        document = self._read(text)
        self._keep(text, document)
        return document

    def _read(self, text: str) -> Document:
        try:
            parsed = parse(text, max_tokens=self._limits.graphql_tokens_max)
        except GraphQLSyntaxError as error:
            # It is kept, and must not keep the stack that it was raised from.
            return Document(None, (error.with_traceback(None),))
        # Depth first: what validation costs depends on it.
        errors = too_deep(parsed, self._limits.graphql_depth_max) or validate_document(self._schema, parsed, _RULES)
        return Document(parsed, tuple(errors))

    def _keep(self, text: str, document: Document) -> None:
        limits = self._limits
        size = _size(text)
        if size > limits.graphql_documents_bytes_max:
            return
        self._kept[text] = document
        self._kept_bytes += size
        while len(self._kept) > limits.graphql_documents_max or self._kept_bytes > limits.graphql_documents_bytes_max:
            oldest, _ = self._kept.popitem(last=False)
            self._kept_bytes -= _size(oldest)


def _size(text: str) -> int:
    """Bytes of text: what is made of it takes about 300 times as many at most, however dense it is."""
    return len(text.encode())
