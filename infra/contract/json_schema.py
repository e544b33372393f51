"""Structure of a JSON Schema, so that the API can refuse one that no worker could use.

Only the form of the keywords is checked: types, nesting, names of types. Patterns and references are checked by the
worker, whose library is larger than the whole package of the API on Lambda.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from infra.contract.errors import InvalidInput
from infra.contract.validation import invalid_input

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""Dialect of a schema that names none."""

TypeName = Literal["array", "boolean", "integer", "null", "number", "object", "string"]
Part: TypeAlias = "bool | Keywords | UnsetType"
Parts: TypeAlias = "dict[str, bool | Keywords] | UnsetType"
Choices: TypeAlias = "Annotated[list[bool | Keywords], Meta(min_length=1)] | UnsetType"
Count: TypeAlias = Annotated[float, Meta(ge=0)] | UnsetType
Number: TypeAlias = float | UnsetType


class Keywords(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Keywords of a schema whose values have a form; all others are ignored, as JSON Schema demands."""

    type: TypeName | Annotated[list[TypeName], Meta(min_length=1)] | UnsetType = UNSET
    enum: list[Any] | UnsetType = UNSET
    required: list[str] | UnsetType = UNSET
    pattern: str | UnsetType = UNSET
    title: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    reference: str | UnsetType = field(name="$ref", default=UNSET)

    properties: Parts = UNSET
    pattern_properties: Parts = UNSET
    dependent_schemas: Parts = UNSET
    defs: Parts = field(name="$defs", default=UNSET)
    additional_properties: Part = UNSET
    property_names: Part = UNSET
    items: Part = UNSET
    contains: Part = UNSET
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
    min_properties: Count = UNSET
    max_properties: Count = UNSET
    minimum: Number = UNSET
    maximum: Number = UNSET
    exclusive_minimum: Number = UNSET
    exclusive_maximum: Number = UNSET
    multiple_of: Annotated[float, Meta(gt=0)] | UnsetType = UNSET
    unique_items: bool | UnsetType = UNSET


def check_json_schema(schema: Mapping[str, Any], *, at: str) -> None:
    """Raise InvalidInput for a schema whose keywords do not have the form of the dialect. Other dialects pass."""
    if schema.get("$schema", DIALECT) != DIALECT:
        return
    try:
        msgspec.convert(schema, Keywords)
    except msgspec.ValidationError as exc:
        raise invalid_input(exc, Keywords, at=at) from None
    except RecursionError:
        raise InvalidInput("the schema is nested too deeply", at) from None
