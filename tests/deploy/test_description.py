"""Descriptions from files and options, and what is refused."""

from pathlib import Path

import pytest

from infra.deploy.description import read
from infra.deploy.errors import InvalidDescription
from tests.docs.pages import DOCS, ROOT, blocks

GOOD = f"registry.example/swissbrain/api@sha256:{'a' * 64}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "overlay").mkdir()
    made = tmp_path / "deploy.toml"
    made.write_text(
        'context = "sks"\noverlay = "overlay"\n[edge]\nparams = {redisUrl = "https://a", retentionDays = 7}\n'
    )
    return made


def test_paths_in_a_file_are_relative_to_it_and_options_replace_values(file: Path) -> None:
    options = {"context": "other", "images": {"api": GOOD}, "edge": {"params": {"redisUrl": "https://b"}}}
    found = read(file, options)
    assert found.overlay == str(file.parent / "overlay")
    assert (found.context, found.images, found.namespace) == ("other", {"api": GOOD}, "agents")
    assert found.edge is not None
    assert found.edge.params == {"redisUrl": "https://b", "retentionDays": 7}
    assert (found.edge.stage, found.edge.region) == ("prod", "eu-central-2")


def test_a_chart_given_as_an_option_replaces_the_overlay_of_the_file(file: Path) -> None:
    found = read(file, {"chart": str(file.parent)})
    assert (found.overlay, found.chart) == (None, str(file.parent))


def test_values_given_beside_an_overlay_are_refused_and_not_ignored(file: Path) -> None:
    with pytest.raises(InvalidDescription, match="'values' are for a 'chart'"):
        read(file, {"overlay": str(file.parent), "values": ["mine.yaml"]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("context = 1\noverlay = 'overlay'", r"Expected `str`, got `int` - at `\$.context`"),
        ("overlay = 'overlay'", "missing required field `context`"),
        ("context = 'a'\noverlay = 'overlay'\nkontext = 'b'", "unknown field `kontext`"),
        ("context = '--kubeconfig=x'\noverlay = 'overlay'", r"matching regex .* at `\$.context`"),
        ("context = 'a'", "either 'overlay' or 'chart'"),
        ("context = 'a'\noverlay = 'overlay'\nchart = 'overlay'", "either 'overlay' or 'chart'"),
        ("context = 'a'\noverlay = 'overlay'\nvalues = ['v']", "'values' are for a 'chart'"),
        ("context = 'a'\noverlay = 'nowhere'", "'overlay' leads to .*nowhere', which does not exist"),
        ("context = 'a'\noverlay = 'overlay'\nimages = {web = 'x'}", "no image 'web'; there are worker, api"),
        ("context = 'a'\noverlay = 'overlay'\nimages = {api = 'r.io/api:1.2'}", "by its digest.*not as 'r.io/api:1.2'"),
        ("context = 'a'\noverlay = 'overlay'\nedge = 'yes'", "'edge' must be a table"),
        ("context = 'a'\noverlay = 'overlay'\n[edge]\nparams = 'x'", "'params' must be a table"),
        ("context = 'a'\noverlay = 'overlay'\n[edge]\nstage = 'a b'", r"at `\$.edge.stage`"),
        ("context = 'a'\noverlay = 'overlay'\n[edge]\nparams = {secret = \"a\\u0000\"}", r"at `\$.edge.params"),
        ('context = "a\\u0000b"\noverlay = "overlay"', r"at `\$.context`"),
        ('context = "a\\n"\noverlay = "overlay"', r"at `\$.context`"),
        ('context = "a"\nnamespace = "agents\\n"\noverlay = "overlay"', r"at `\$.namespace`"),
        (f"context = {'[' * 20_000}", "nested too deeply"),
        ("context = ", "is not TOML"),
        ("#" * 70_000, "more than 65536 bytes"),
    ],
)
def test_a_bad_description_is_refused_with_its_place(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidDescription, match=message) as caught:
        read(file, {})
    assert "\n" not in str(caught.value)


def test_the_example_can_be_read() -> None:
    assert read(ROOT / "deploy" / "deploy.toml", {}).edge is not None


def test_the_description_of_the_page_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "my-overlay").mkdir()
    made = tmp_path / "deploy.toml"
    made.write_text(blocks(DOCS / "deploy.md", "toml")[0])
    found = read(made, {})
    assert found.edge is not None
    assert found.images.keys() == {"worker", "api", "tools"}
