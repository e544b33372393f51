"""Text of tools, as models read it."""


def fenced(marker: str, tool: str, text: str) -> str:
    """Return text between the lines `<marker tool="…">` and `</marker>`."""
    return f'<{marker} tool="{tool}">\n{text}\n</{marker}>'
