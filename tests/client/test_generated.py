"""Client and AsyncClient: one source, the same names and signatures."""

import inspect
import re
import typing
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest

import swissbrain
from scripts import unasync
from swissbrain import AsyncClient, Client

NAMES = sorted(name for name in dir(Client) if not name.startswith("_"))


def test_the_committed_client_is_the_generated_one() -> None:
    committed = {path.name: path.read_text() for path in unasync.TARGET.glob("*.py")}
    assert committed == unasync.generated(), "run `python -m scripts.unasync`"


def test_nothing_asynchronous_is_left_in_the_generated_client() -> None:
    for path in unasync.TARGET.glob("*.py"):
        lines = path.read_text().splitlines()[1:]
        assert [line for line in lines if re.search("async|await|anyio", line, re.IGNORECASE)] == [], path.name


def test_both_clients_have_the_same_names() -> None:
    assert sorted(name for name in dir(AsyncClient) if not name.startswith("_")) == NAMES
    assert len(NAMES) > 25


@pytest.mark.parametrize("name", [*NAMES, "__init__"])
def test_both_clients_have_the_same_signatures(name: str) -> None:
    own, other = getattr(Client, name), getattr(AsyncClient, name)
    assert parameters(own) == parameters(other)
    blocking, result = typing.get_type_hints(own)["return"], typing.get_type_hints(other)["return"]
    if typing.get_origin(result) is AsyncGenerator:
        assert typing.get_origin(blocking) is Generator
        assert typing.get_args(blocking)[0] == typing.get_args(result)[0]
    else:
        assert blocking == result
        assert inspect.iscoroutinefunction(other) == (name not in {"__init__", "from_env"})
    if name != "__init__":
        assert own.__doc__ == other.__doc__
        assert own.__doc__


def parameters(method: Any) -> list[tuple[str, Any, Any, Any]]:
    hints = typing.get_type_hints(method)
    signature = inspect.signature(method).parameters.values()
    return [(each.name, each.kind, each.default, hints.get(each.name)) for each in signature]


def test_the_package_exports_what_its_methods_take_and_return() -> None:
    exported = {getattr(swissbrain, name) for name in swissbrain.__all__ if name != "Plan"}
    for name in NAMES:
        for hint in typing.get_type_hints(getattr(Client, name)).values():
            for part in parts(hint):
                if getattr(part, "__module__", "").startswith("swissbrain"):
                    assert part in exported, (name, part)
    assert sorted(swissbrain.__all__) == swissbrain.__all__
    assert (Path(swissbrain.__file__).parent / "py.typed").exists()


def parts(hint: Any) -> typing.Iterator[Any]:
    yield hint
    for argument in typing.get_args(hint):
        yield from parts(argument)
