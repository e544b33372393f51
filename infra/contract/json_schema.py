"""Structure of a JSON Schema, so that the API refuses one that no worker could use, and says where it is wrong.

Checked are the form of the keywords, references, and what no regular expression of a worker may have. The rest is left
to the worker, whose library is larger than the whole package of the API on Lambda. Nothing is refused that a worker
would accept.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import unquote

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from infra.contract.errors import InvalidInput
from infra.contract.json_schema_patterns import pattern_fault
from infra.contract.validation import invalid_input, is_deeper

MAX_SCHEMA_BYTES = 32 * 1024
MAX_DEPTH = 255
"""Objects and arrays within each other, the schema included: what the library of the workers reads."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""Dialect of a schema that names none."""
_INDEX = re.compile(r"[0-9]{1,9}")
_STANDARD = re.compile(r"https?://json-schema\.org/")
_COMMON_DIALECT = re.compile(r"https?://json-schema\.org/draft(?:-07|/2019-09)/schema#?")
_COMMON = frozenset(
    [
        "type",
        "enum",
        "required",
        "pattern",
        "title",
        "description",
        "properties",
        "patternProperties",
        "additionalProperties",
        "propertyNames",
        "contains",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "uniqueItems",
        "definitions",
        "format",
    ]
)
"""Keywords that have the same form in the dialects of `_COMMON_DIALECT`."""

TypeName = Literal["array", "boolean", "integer", "null", "number", "object", "string"]
Part: TypeAlias = "bool | Keywords | UnsetType"
Parts: TypeAlias = "dict[str, bool | Keywords] | UnsetType"
Choices: TypeAlias = "Annotated[list[bool | Keywords], Meta(min_length=1)] | UnsetType"
Count: TypeAlias = Annotated[float, Meta(ge=0, multiple_of=1)] | UnsetType
Number: TypeAlias = float | UnsetType
Text: TypeAlias = str | UnsetType
Flag: TypeAlias = bool | UnsetType
Anchor: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z_][-A-Za-z0-9._]*$")] | UnsetType


class Keywords(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Keywords of a schema whose values have a form; all others are ignored, as JSON Schema demands."""

    identifier: Annotated[str, Meta(pattern=r"^[^#]*#?$")] | UnsetType = field(name="$id", default=UNSET)
    anchor: Anchor = field(name="$anchor", default=UNSET)
    dynamic_anchor: Anchor = field(name="$dynamicAnchor", default=UNSET)
    reference: Text = field(name="$ref", default=UNSET)
    dynamic_reference: Text = field(name="$dynamicRef", default=UNSET)
    comment: Text = field(name="$comment", default=UNSET)

    type: TypeName | Annotated[list[TypeName], Meta(min_length=1)] | UnsetType = UNSET
    enum: list[Any] | UnsetType = UNSET
    required: list[str] | UnsetType = UNSET
    dependent_required: dict[str, list[str]] | UnsetType = UNSET
    pattern: Text = UNSET
    title: Text = UNSET
    description: Text = UNSET
    format: Text = UNSET
    content_encoding: Text = UNSET
    content_media_type: Text = UNSET
    examples: list[Any] | UnsetType = UNSET
    deprecated: Flag = UNSET
    read_only: Flag = UNSET
    write_only: Flag = UNSET

    properties: Parts = UNSET
    pattern_properties: Parts = UNSET
    dependent_schemas: Parts = UNSET
    defs: Parts = field(name="$defs", default=UNSET)
    definitions: Parts = UNSET
    additional_properties: Part = UNSET
    unevaluated_properties: Part = UNSET
    property_names: Part = UNSET
    items: Part = UNSET
    unevaluated_items: Part = UNSET
    contains: Part = UNSET
    content_schema: Part = UNSET
    prefix_items: Choices = UNSET
    all_of: Choices = UNSET
    any_of: Choices = UNSET
    one_of: Choices = UNSET
    negated: Part = field(name="not", default=UNSET)
    condition: Part = field(name="if", default=UNSET)
    then: Part = UNSET
    otherwise: Part = field(name="else", default=UNSET)

    min_length: Count = UNSET
    max_length: Count = UNSET
    min_items: Count = UNSET
    max_items: Count = UNSET
    min_contains: Count = UNSET
    max_contains: Count = UNSET
    min_properties: Count = UNSET
    max_properties: Count = UNSET
    minimum: Number = UNSET
    maximum: Number = UNSET
    exclusive_minimum: Number = UNSET
    exclusive_maximum: Number = UNSET
    multiple_of: Annotated[float, Meta(gt=0)] | UnsetType = UNSET
    unique_items: Flag = UNSET


_NAMES = dict(zip(Keywords.__struct_fields__, Keywords.__struct_encode_fields__, strict=True))
_UNUSED = frozenset(["definitions", "defs", "condition", "then", "otherwise", "content_schema"])
"""Keywords whose references a worker resolves only if something uses them."""


def check_json_schema(schema: Mapping[str, Any], *, at: str) -> None:
    """Raise InvalidInput for a schema that is too large, or that a worker would refuse, as far as this module finds
    it.
    """
    # First: the depth that msgspec bears differs between versions of Python, and is less where the stack is deep.
    if is_deeper(schema, MAX_DEPTH):
        raise InvalidInput(f"the schema is nested too deeply; allowed are {MAX_DEPTH} levels", at)
    size = len(msgspec.json.encode(schema))
    if size > MAX_SCHEMA_BYTES:
        raise InvalidInput(f"the schema has {size} bytes as JSON; allowed are {MAX_SCHEMA_BYTES}", at)
    dialect = schema.get("$schema", DIALECT)
    if not isinstance(dialect, str) or not _STANDARD.match(dialect):
        message = f"a schema of another dialect than those of json-schema.org; allowed is {DIALECT!r}"
        raise InvalidInput(message, f"{at}.$schema")
    is_current = dialect.removesuffix("#") == DIALECT
    if not is_current and not _COMMON_DIALECT.fullmatch(dialect):
        return
    try:
        keywords = msgspec.convert(schema, Keywords)
    except msgspec.ValidationError as exc:
        fault = invalid_input(exc, Keywords, at=at)
        if is_current or _is_common(fault.field.removeprefix(at)):
            raise fault from None
        return
    for part, place in _parts(keywords, at):
        _check_values(part, place, is_current=is_current)
    if is_current and not any("$id" in each for each in _objects(schema)):  # references are relative to it
        _check_references(schema, keywords, at)


def _is_common(path: str) -> bool:
    """Return whether a path has only keywords of `_COMMON`, and names and indexes."""
    *above, last = (re.sub(r"\[.*?\]", "", name) for name in path.split("."))
    # `items` may be a list elsewhere, but if it is an object, that has the same form.
    return last in _COMMON and all(name in _COMMON or name in {"", "items"} for name in above)


def _parts(keywords: Keywords, at: str, skipped: frozenset[str] = frozenset()) -> Iterator[tuple[Keywords, str]]:
    """Yield a schema and all schemas in it, each with its path, except for those in the `skipped` fields."""
    names = {name: key for name, key in _NAMES.items() if name not in skipped}
    read, keys = attrgetter(*names), list(names.values())
    left: deque[tuple[Any, str]] = deque([(keywords, at)])
    while left:
        value, place = left.popleft()
        if isinstance(value, Keywords):
            yield value, place
            given = [(each, key) for each, key in zip(read(value), keys, strict=True) if each is not UNSET]
            left += [(each, f"{place}.{key}") for each, key in given if isinstance(each, Keywords | dict | list)]
        elif isinstance(value, dict):
            left += [(part, f"{place}.{name}") for name, part in value.items()]
        elif isinstance(value, list):
            left += [(part, f"{place}[{index}]") for index, part in enumerate(value)]


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield every object in a JSON value."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            yield each
            left += each.values()
        elif isinstance(each, list):
            left += each


def _check_values(part: Keywords, at: str, *, is_current: bool) -> None:
    """Check lists without repetitions, and patterns."""
    lists: list[tuple[object, str]] = [(part.type, "type"), (part.required, "required")]
    if is_current and part.dependent_required:
        lists += [(names, f"dependentRequired.{name}") for name, names in part.dependent_required.items()]
    for names, place in lists:
        if isinstance(names, list) and len(set(names)) < len(names):
            raise InvalidInput("a name is given twice", f"{at}.{place}")
    patterns = [(part.pattern, "pattern")] if part.pattern is not UNSET else []
    patterns += [(each, f"patternProperties.{each}") for each in part.pattern_properties or ()]
    for pattern, place in patterns:
        if fault := pattern_fault(pattern):
            raise InvalidInput(f"the regular expression cannot be used: {fault}", f"{at}.{place}")


def _check_references(schema: Mapping[str, Any], keywords: Keywords, at: str) -> None:
    names = (each.get(key) for each in _objects(schema) for key in ("$anchor", "$dynamicAnchor"))
    anchors = {name for name in names if isinstance(name, str)}
    for part, place in _parts(keywords, at, _UNUSED):
        for reference, key in ((part.reference, "$ref"), (part.dynamic_reference, "$dynamicRef")):
            if reference and not _exists(reference, schema, anchors):
                message = f"the schema has nothing at {reference[:200]!r}; a schema must be complete"
                raise InvalidInput(message, f"{place}.{key}")


def _exists(reference: str, schema: Mapping[str, Any], anchors: set[str]) -> bool:
    """Return whether the schema has what a reference names, or the reference names a standard."""
    document, _, fragment = reference.partition("#")
    if document:
        return bool(_STANDARD.match(document))
    if not fragment.startswith("/"):
        return not fragment or unquote(fragment) in anchors
    value: Any = schema
    for name in fragment.split("/")[1:]:
        key = unquote(name).replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            return False
    return True
