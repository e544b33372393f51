"""Generate `swissbrain/_sync`, the synchronous client, from `swissbrain/_async`: `python -m scripts.unasync`.

Both clients have one source, so that they cannot differ. The names that are replaced are few and are listed here.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE, TARGET = ROOT / "swissbrain/_async", ROOT / "swissbrain/_sync"
NOTICE = "# Generated from swissbrain/_async by `python -m scripts.unasync`; change it there.\n"

REPLACEMENTS = [
    (r"AsyncGenerator\[(.+?), None\]", r"Generator[\1, None, None]"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsyncGenerator\b", "Generator"),
    (r"\b(_?)Async(?=[A-Z])", r"\1"),
    (r"\basync_(?=call|owner|sleep)", ""),
    ("this process and event loop", "this process"),
    (r"\bopen_async_client\b", "open_client"),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\ba(close|closing|read|iter_sse|iter_bytes)\b", r"\1"),
    (r"\banext\b", "next"),
    ("asynchronous client, and the source of the synchronous one", "synchronous client"),
    (r"\bbetween tasks, event loops and\b", "between threads and"),
    (r"\bswissbrain\._async\b", "swissbrain._sync"),
]


def generated() -> dict[str, str]:
    """Return the text of each file of the synchronous client by its name."""
    return {
        path.name: _formatted(path.name, NOTICE + _synchronous(path.read_text()))
        for path in sorted(SOURCE.glob("*.py"))
    }


def _synchronous(text: str) -> str:
    for pattern, replacement in REPLACEMENTS:
        text = re.sub(pattern, replacement, text)
    return text


def _formatted(name: str, text: str) -> str:
    # Shorter lines are joined, and shorter names are sorted differently.
    ruff = str(Path(sys.executable).with_name("ruff"))
    for command in (["check", "--quiet", "--select", "I", "--fix"], ["format"]):
        arguments = [ruff, *command, "--stdin-filename", str(TARGET / name), "-"]
        done = subprocess.run(arguments, input=text, text=True, capture_output=True, check=True, cwd=ROOT)
        text = done.stdout
    return text


def main() -> None:
    """Write the files, and remove those that no longer have a source."""
    TARGET.mkdir(exist_ok=True)
    texts = generated()
    for path in TARGET.glob("*.py"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (TARGET / name).write_text(text)


if __name__ == "__main__":
    main()
