"""Texts that models read: templates beside this module, one file each, with `$name` for values.

A section (from a line `## …` to the next one) with a value that is empty is left out.
"""

import hashlib
import re
from importlib.resources import files
from string import Template

_SECTION = re.compile(r"(?m)^(?=## )")
_TEXTS = {
    path.name.removesuffix(".md"): path.read_text() for path in files(__package__).iterdir() if path.name[-3:] == ".md"
}

VERSION = hashlib.sha256("\0".join(f"{name}\0{_TEXTS[name]}" for name in sorted(_TEXTS)).encode()).hexdigest()[:12]
"""Version of the templates: another one for any change."""

_TEMPLATES = {name: [Template(part) for part in _SECTION.split(text)] for name, text in _TEXTS.items()}


def render(name: str, **values: str) -> str:
    """Return a template with its values, without white space around it.

    Values are inserted as they are: a `$` in one has no meaning. Raises KeyError for an unknown template, and unless
    `values` has exactly the names that the template uses.
    """
    sections = [(section, section.get_identifiers()) for section in _TEMPLATES[name]]
    used = {value for _, names in sections for value in names}
    if used != values.keys():
        raise KeyError(f"the template '{name}' uses the values {sorted(used)}, not {sorted(values)}")
    shown = (section for section, names in sections if all(values[value] for value in names))
    return "".join(section.substitute(values) for section in shown).strip()
