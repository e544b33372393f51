"""Structure of output schemas: the API refuses none that a worker accepts."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contract.agent import AgentOptions
from infra.contract.errors import InvalidInput
from infra.contract.json_schema import DIALECT, MAX_DEPTH, MAX_SCHEMA_BYTES, Keywords, check_json_schema
from worker.agent.schema_program import verdict_on

AT = "$.output_schema"
KEYWORDS = sorted({*Keywords.__struct_encode_fields__, "const", "default", "format", "$comment", "unknown"})
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.5, 2.0, "object", "objekt", "a", "", "#", "#a", "#/properties/a", "#/$defs/a", "b.json", "("]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=3),
    max_leaves=6,
)


def is_refused(schema: dict[str, Any]) -> bool:
    try:
        check_json_schema(schema, at=AT)
    except InvalidInput:
        return True
    return False


def is_refused_by_a_worker(schema: dict[str, Any]) -> bool:
    return verdict_on({"schema": schema})[0] != ""


DIALECTS = st.sampled_from(
    [{}, {"$schema": DIALECT}, {"$schema": "http://json-schema.org/draft-07/schema#"}, {"$schema": "x"}]
)


@given(st.text("()[]?*+|\\a1k=!<:^{},-#", max_size=7))
def test_a_pattern_that_is_refused_is_refused_by_workers_too(pattern: str) -> None:
    assert is_refused_by_a_worker({"pattern": pattern}) or not is_refused({"pattern": pattern})


@given(st.dictionaries(st.sampled_from(KEYWORDS), VALUES, max_size=3), DIALECTS)
def test_a_schema_that_is_refused_is_refused_by_workers_too(schema: dict[str, Any], dialect: dict[str, str]) -> None:
    schema = {**schema, **dialect}
    assert is_refused_by_a_worker(schema) or not is_refused(schema)


@pytest.mark.parametrize(
    ("schema", "field", "message"),
    [
        ({"type": "objekt"}, ".type", "allowed are array, boolean, integer, null, number, object, string"),
        ({"type": ["string", "text"]}, ".type[1]", "allowed are array"),
        ({"properties": ["a"]}, ".properties", "Expected `object`, got `array`"),
        ({"properties": {"a": {"items": {"type": "int"}}}}, ".properties[...].items.type", "'int'"),
        ({"items": None}, ".items", "got `null`"),
        ({"anyOf": []}, ".anyOf", "length >= 1"),
        ({"required": "a"}, ".required", "got `str`"),
        ({"minLength": -1}, ".minLength", ">= 0"),
        ({"multipleOf": 0}, ".multipleOf", "> 0"),
        ({"minLength": 1.5}, ".minLength", "multiple of 1"),
        ({"required": ["a", "a"]}, ".required", "given twice"),
        ({"items": {"properties": {"a": {"pattern": "("}}}}, ".items.properties.a.pattern", "a '[(]' has no '[)]'"),
        ({"pattern": "(?!a)"}, ".pattern", "takes too long"),
        ({"anyOf": [{}, {"pattern": r"(a)\1"}]}, ".anyOf[1].pattern", "takes too long"),
        ({"patternProperties": {"[a": {}}}, ".patternProperties.[a", "has no ']'"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, ".properties.a.$ref", "nothing at '#/.defs/b'"),
        ({"$ref": "#/allOf/" + "1" * 5000, "allOf": [{}, {}]}, ".$ref", "nothing at '#/allOf/1"),
        ({"$ref": "#/allOf/²", "allOf": [{}]}, ".$ref", "nothing at '#/allOf/²'"),
        ({"$ref": "https://example.org/a.json"}, ".$ref", "must be complete"),
        ({"$dynamicRef": "#a"}, ".$dynamicRef", "nothing at '#a'"),
        ({"$schema": "https://example.org/"}, ".$schema", "another dialect"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": {"type": "int"}}, ".items.type", "'int'"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "["}, ".pattern", "has no"),
    ],
)
def test_the_error_says_where_and_what_is_allowed(schema: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message.replace("`", ".")) as caught:
        check_json_schema(schema, at=AT)
    assert caught.value.field == f"{AT}{field}"
    assert is_refused_by_a_worker(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": DIALECT, "type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": True}},
        {"type": ["string", "null"], "minLength": 1.0, "enum": ["a", None], "unknown": 3},
        {"not": {"if": True, "then": False, "else": {}}, "additionalProperties": False},
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{}], "$defs": {"a": {"type": "x"}}},
        {"$ref": "#/$defs/a~1%25b", "$defs": {"a/%b": {"$anchor": "c"}}, "items": {"$ref": "#c"}},
        {"$id": "https://example.org/a", "properties": {"b": {"$id": "b"}}, "items": {"$ref": "b"}},
        {"properties": {"$ref": {"type": "string"}, "pattern": {"const": {"$ref": "#/x", "pattern": "("}}}},
        {"pattern": r"^[\]()]+\p{L}(?:a|\()$", "patternProperties": {"[](]": {}}},
        {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True},
    ],
)
def test_a_usable_schema_passes(schema: dict[str, Any]) -> None:
    assert (is_refused(schema), is_refused_by_a_worker(schema)) == (False, False)


def nested(levels: int, *, within: Any) -> dict[str, Any]:
    """Return a schema with this number of objects or arrays within each other."""
    schema = within
    for _ in range(levels - 2):
        schema = {"not": schema} if isinstance(within, dict) else [schema]
    return {"not" if isinstance(within, dict) else "const": schema}


@pytest.mark.parametrize("within", [{}, []])
@pytest.mark.parametrize("dialect", [{}, {"$schema": "http://json-schema.org/draft-04/schema#"}])
def test_a_schema_may_be_as_deep_as_workers_can_read(dialect: dict[str, str], within: Any) -> None:
    deepest, deeper = (nested(levels, within=within) | dialect for levels in (MAX_DEPTH, MAX_DEPTH + 1))
    assert (is_refused(deepest), is_refused_by_a_worker(deepest)) == (False, False)
    assert (is_refused(deeper), is_refused_by_a_worker(deeper)) == (True, True)


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 5000])
def test_a_schema_that_is_nested_too_deeply_is_refused(levels: int) -> None:
    options = AgentOptions(output_schema=nested(levels, within={}))
    with pytest.raises(InvalidInput, match="nested too deeply; allowed are 255 levels") as caught:
        options.check_options(has_agent=True)
    assert caught.value.field == AT


def test_the_check_of_a_schema_of_many_parts_does_not_hold_up_other_requests() -> None:
    """Processor time, so that a busy machine does not matter. Quadratic work took a minute for this schema."""
    began = time.process_time()
    check_json_schema({"allOf": [{}] * ((MAX_SCHEMA_BYTES - 100) // 3)}, at=AT)
    assert time.process_time() - began < 3
