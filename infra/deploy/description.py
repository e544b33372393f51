"""Description of a deployment: a handful of values from a TOML file, from options, or both.

Paths in the file are relative to its folder, paths in options to the current one.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from infra.deploy.errors import InvalidDescription

MAX_FILE_BYTES = 64 * 1024
IMAGES = ("worker", "api", "tools", "valkey")
IMAGE = re.compile(r"[a-z0-9.-]+(?::\d+)?/[a-z0-9._/-]+@sha256:[0-9a-f]{64}")
"""Image with its registry and its digest. A tag may name another image tomorrow."""

Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.@:/+][^\s\x00-\x1f\x7f]*\Z", max_length=253)]
"""Value that is one argument of a program, and none of its options."""
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z", max_length=63)]

Parameter = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z]+\Z", max_length=63)]
Value = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]*\Z")]


class Edge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The API on AWS Lambda. `folder` has serverless.yml; `params` are its parameters."""

    folder: str = "."
    stage: Name = "prod"
    region: Name = "eu-central-2"
    params: dict[Parameter, Value | int] = {}


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Description of a deployment: its objects, images and destination.

    Either `overlay` (a folder for kustomize) or `chart` with `values` (files for helm) describes the objects of the
    cluster. `images` replace those named there. Without `edge`, the API is what the overlay or the chart holds.
    """

    context: Word
    namespace: Name = "agents"
    overlay: str | None = None
    chart: str | None = None
    values: list[str] = []
    helm_release: Name = "swissbrain"
    images: dict[str, str] = {}
    edge: Edge | None = None


def read(file: Path | None, options: Mapping[str, Any]) -> Description:
    """Return the description of a file, in which options replace values. Raises InvalidDescription, OSError."""
    given = {} if file is None else _of_file(file)
    replaced = {"chart", "values"} if "overlay" in options else {"overlay"} if "chart" in options else set()
    given = {name: value for name, value in given.items() if name not in replaced}
    edge = {**given.get("edge", {}), **options.get("edge", {})}
    if params := options.get("edge", {}).get("params"):
        edge["params"] = {**given.get("edge", {}).get("params", {}), **params}
    merged = {**given, **{name: value for name, value in options.items() if name != "edge"}}
    if images := options.get("images"):
        merged["images"] = {**given.get("images", {}), **images}
    if edge:
        merged["edge"] = edge
    where = "the options" if file is None else str(file)
    try:
        description = msgspec.convert(merged, Description)
    except msgspec.ValidationError as exc:
        raise InvalidDescription(f"{where}: {exc}") from None
    _check(description, where)
    return description


def _of_file(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise InvalidDescription(f"{file} has more than {MAX_FILE_BYTES} bytes")
        given = tomllib.loads(text.decode())
    except RecursionError:
        raise InvalidDescription(f"{file} is nested too deeply") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InvalidDescription(f"{file} is not TOML: {' '.join(str(exc).split())}") from None
    folder = file.parent
    for name in ("overlay", "chart"):
        if isinstance(given.get(name), str):
            given[name] = str(folder / given[name])
    if isinstance(given.get("values"), list):
        given["values"] = [str(folder / value) if isinstance(value, str) else value for value in given["values"]]
    if isinstance(given.get("edge"), dict):
        given["edge"]["folder"] = str(folder / str(given["edge"].get("folder", ".")))
    _table(file, given, "edge")
    _table(file, given, "images")
    _table(file, given.get("edge", {}), "params")
    return given


def _table(file: Path, within: dict[str, Any], name: str) -> None:
    if not isinstance(within.get(name, {}), dict):
        raise InvalidDescription(f"{file}: '{name}' must be a table")


def _check(description: Description, where: str) -> None:
    if (description.overlay is None) == (description.chart is None):
        raise InvalidDescription(f"{where}: give either 'overlay' or 'chart' (docs/deploy.md)")
    if description.values and description.chart is None:
        raise InvalidDescription(f"{where}: 'values' are for a 'chart'; an overlay has its values in its files")
    for name, image in description.images.items():
        if name not in IMAGES:
            raise InvalidDescription(f"{where}: there is no image '{name}'; there are {', '.join(IMAGES)}")
        if not IMAGE.fullmatch(image):
            raise InvalidDescription(
                f"{where}: the image '{name}' must be given by its digest, REGISTRY/NAME@sha256:…, not as '{image}'"
            )
    kinds = [("overlay", description.overlay, Path.is_dir), ("chart", description.chart, Path.is_dir)]
    kinds += [("values", value, Path.is_file) for value in description.values]
    if description.edge:
        kinds.append(("edge.folder", description.edge.folder, Path.is_dir))
    for name, value, exists in kinds:
        if value is not None and not exists(Path(value)):
            raise InvalidDescription(f"{where}: '{name}' leads to '{value}', which does not exist")
