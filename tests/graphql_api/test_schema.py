"""The schema as text is committed, so that a change of it is seen where it is reviewed."""

from importlib.resources import files

from graphql import build_schema, validate_schema

from graphql_api.schema import sdl


def test_the_committed_schema_is_the_one_that_is_served() -> None:
    """graphql_api/schema.graphql is the schema's text to the byte; `graphql_api.schema.sdl()` makes it anew."""
    committed = files("graphql_api").joinpath("schema.graphql").read_text(encoding="utf-8")

    assert committed == sdl()


def test_the_committed_schema_is_a_schema() -> None:
    """Any GraphQL tool can read the text, and finds nothing wrong with it."""
    assert [] == validate_schema(build_schema(sdl()))


def test_every_field_that_shows_usage_says_which_scope_it_needs() -> None:
    """But for `service`, and `node` which asks for the scope of what it finds, every field of the roots is marked."""
    schema = build_schema(sdl())
    roots = [root for root in (schema.query_type, schema.mutation_type, schema.subscription_type) if root is not None]
    open_fields = {
        name
        for root in roots
        for name, field in root.fields.items()
        if field.ast_node is not None
        and "requires" not in {mark.name.value for mark in field.ast_node.directives or ()}
    }

    assert {"service", "node"} == open_fields
