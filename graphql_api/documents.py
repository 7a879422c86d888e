"""Documents, understood once: a front end sends the same few again and again, each time with other variables."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    NoSchemaIntrospectionCustomRule,
    parse,
    specified_rules,
    validate,
)
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from graphql_api.bounds import beyond_bounds, root_fields, shown_count, too_large
from graphql_api.page_rows import Page, pages_of, rows_asked
from graphql_api.root_names import root_names
from metering.limits import Limits

# One tuple for all documents: the specification's rules, and Strawberry's own.
_RULES: Final = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)
# The parser has no other sign of it.
_TOO_MANY_TOKENS: Final = "tokens. Parsing aborted."


class Document(msgspec.Struct, frozen=True):
    """A document, and all that is wrong with it. There is none where its text could not be read."""

    parsed: DocumentNode | None
    errors: tuple[GraphQLError, ...]
    # How many fields each operation has at its root, by its name.
    root_fields: Mapping[str | None, int] = msgspec.field(default_factory=dict)
    # And the pages that it asks for.
    pages: Mapping[str | None, tuple[Page, ...]] = msgspec.field(default_factory=dict)
    # And their names, each once.
    root_names: Mapping[str | None, tuple[str, ...]] = msgspec.field(default_factory=dict)


class Documents:
    """Reads, bounds and validates documents; those that were asked for last are kept, the wrong ones too."""

    def __init__(self, schema: GraphQLSchema, limits: Limits, *, introspection: bool = True) -> None:
        self._schema = schema
        self._limits = limits
        self._introspection = introspection
        self._rules = _RULES if introspection else (*_RULES, NoSchemaIntrospectionCustomRule)
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
        limits = self._limits
        try:
            parsed = parse(text, max_tokens=limits.graphql_tokens_max)
        except GraphQLSyntaxError as error:
            if error.message.endswith(_TOO_MANY_TOKENS):
                return Document(None, (too_large(error.message, "graphql_tokens_max", limits),))
            # It is kept, and must not keep the stack that it was raised from.
            return Document(None, (error.with_traceback(None),))
        # Bounds first: what validation costs depends on them. Without introspection nothing is told of what there is, and
        # a suggestion tells it name by name.
        errors = beyond_bounds(parsed, limits) or validate(
            self._schema,
            parsed,
            self._rules,
            max_errors=limits.graphql_errors_max,
            hide_suggestions=not self._introspection,
        )
        if errors:
            return Document(parsed, tuple(errors))
        return Document(parsed, (), root_fields(parsed), pages_of(parsed, self._schema), root_names(parsed))

    def beyond_rows(self, document: Document, name: str | None, variables: Mapping[str, Any]) -> GraphQLError | None:
        """The error of an operation whose pages have more rows, together, than one may ask for."""
        rows, maximum = rows_asked(document.pages.get(name, ()), variables), self._limits.graphql_rows_max
        if rows <= maximum:
            return None
        message = (
            f"The pages of one operation may have {maximum:,} rows together; this asks for {shown_count(rows)}. Ask for fewer "
            "with `first`, above all where a page is inside of another one, or in several operations."
        )
        return too_large(message, "graphql_rows_max", self._limits)

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
