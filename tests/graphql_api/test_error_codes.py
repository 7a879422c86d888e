"""Codes of errors are documented, and what a union promises as a problem is what some error becomes."""

import re
from pathlib import Path
from typing import Final, get_args

from graphql import GraphQLUnionType

from graphql_api.codes import Code
from graphql_api.problems import HANDLERS
from graphql_api.schema import make_schema
from metering import errors

ROOT: Final = Path(__file__).parents[2]
# What no request meets: the command line says it, or nothing but its subclasses are raised.
NOT_ANSWERED: Final = {
    errors.MeteringError,
    errors.ConfigurationError,
    errors.DataDirectoryError,
    errors.EmbeddedServerError,
    errors.AddressInUseError,
    errors.DatabaseError,
    errors.CredentialError,
    # Its code is given where it is raised.
    errors.BodyError,
}
# Of BodyError, inside of an operation.
BODY_CODES: Final = {"BODY_TOO_LARGE"}


def test_every_code_is_documented() -> None:
    """The table of docs/graphql.md has the code of every error that a request can meet, and no other."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MeteringError)
    ]
    of_errors = {kind.code.upper() for kind in kinds if kind not in NOT_ANSWERED}
    documented = re.findall(r"^\| (`[A-Z_`, ]+`) \|", (ROOT / "docs" / "graphql.md").read_text(), re.MULTILINE)

    assert {code for row in documented for code in re.findall(r"[A-Z_]+", row)} == of_errors | set(Code) | BODY_CODES


def test_every_problem_of_a_union_is_what_an_error_becomes() -> None:
    """Each member of a result union that is a Problem has a handler, which turns an error of ours into it by one rule."""
    schema = make_schema().core
    unions = [kind for kind in schema.type_map.values() if isinstance(kind, GraphQLUnionType)]
    promised = {
        member.name
        for union in unions
        for member in union.types
        if "Problem" in {each.name for each in member.interfaces}
    }
    handled = {get_args(type(handler).__orig_bases__[0])[1].__name__ for handler in HANDLERS}

    assert len(unions) > 5
    assert promised == handled
