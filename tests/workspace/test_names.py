"""Object keys and content types, without a store."""

import pytest

from infra.contract.content_types import content_type
from infra.contract.errors import InvalidInput
from infra.workspace.links import served_as
from infra.workspace.object_keys import run_prefix


def test_the_prefix_of_a_run_contains_user_and_run() -> None:
    assert run_prefix("ann", "r1") == "users/ann/runs/r1/"


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "../b", "a b", "a\n", "ü", "-x", "x" * 129])
def test_an_id_that_could_change_the_structure_of_a_key_is_refused(bad: str) -> None:
    with pytest.raises(InvalidInput, match="user_id"):
        run_prefix(bad, "r1")
    with pytest.raises(InvalidInput, match="run_id"):
        run_prefix("ann", bad)


@pytest.mark.parametrize(
    "name", ["a.html", "a.svg", "a.xhtml", "a.xml", "a.pdf", "a.js", "noext", "a.png.html", ".png/x"]
)
def test_active_content_is_never_shown_inline(name: str) -> None:
    content_type, disposition = served_as(name, inline=True)
    assert content_type == "application/octet-stream"
    assert disposition.startswith("attachment; ")


def test_an_image_may_be_shown_inline_but_is_not_by_default() -> None:
    assert served_as("plots/P.PNG", inline=True) == ("image/png", "inline; filename=\"P.PNG\"; filename*=UTF-8''P.PNG")
    assert served_as("plots/P.PNG", inline=False)[0] == "application/octet-stream"


def test_a_name_cannot_add_a_header_parameter() -> None:
    _, disposition = served_as('x/a"; filename=evil.exe; ü.txt', inline=False)
    assert disposition == (
        'attachment; filename="a__ filename=evil.exe_ _.txt"; '
        "filename*=UTF-8''a%22%3B%20filename%3Devil.exe%3B%20%C3%BC.txt"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.csv", "text/csv"),
        ("a", "application/octet-stream"),
        ("a.tar.gz", "application/gzip"),
        ("a.d/B.PNG", "image/png"),
        ("a.sh/b", "application/octet-stream"),
    ],
)
def test_a_file_is_stored_with_the_type_of_its_name(name: str, expected: str) -> None:
    assert content_type(name) == expected
