"""The codes of errors that are GraphQL's own matter; all others are those of metering/errors.py. They do not change."""

from enum import StrEnum


class Code(StrEnum):
    """What `extensions.code` says; docs/graphql.md explains each."""

    GRAPHQL_INVALID = "GRAPHQL_INVALID"
    OPERATION_TOO_LARGE = "OPERATION_TOO_LARGE"
    PERSISTED_QUERY_NOT_FOUND = "PERSISTED_QUERY_NOT_FOUND"
    PERSISTED_QUERY_MISMATCH = "PERSISTED_QUERY_MISMATCH"
    PERSISTED_QUERY_NOT_SUPPORTED = "PERSISTED_QUERY_NOT_SUPPORTED"
    DOCUMENT_NOT_LISTED = "DOCUMENT_NOT_LISTED"
    STREAM_NEEDED = "STREAM_NEEDED"
    INTERNAL = "INTERNAL"
