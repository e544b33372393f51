"""Replies of the scripted model: for each task of the examples, a list of them."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PLANETS = FOLDER.parent / "planets"

Call = tuple[str, dict[str, Any]]


class NoReply(Exception):
    """Request that no script has a reply for; the message says why."""


class Chat:
    """Conversation of a request."""

    def __init__(self, messages: Sequence[dict[str, Any]]) -> None:
        self._messages = messages

    @property
    def task(self) -> str:
        """Text of the first message of the user."""
        return next((str(each.get("content")) for each in self._messages if each["role"] == "user"), "")

    @property
    def replies(self) -> int:
        """Number of replies so far."""
        return sum(each["role"] == "assistant" for each in self._messages)

    def find(self, pattern: str) -> list[str]:
        """Return what the group of a pattern matches in the outputs of tools."""
        outputs = [str(each.get("content")) for each in self._messages if each["role"] == "tool"]
        return [found for output in outputs for found in re.findall(pattern, output, re.MULTILINE)]

    def figure(self, pattern: str) -> str:
        """Return the first match. Raises NoReply."""
        found = self.find(pattern)
        if not found:
            failures = self.find(r"^failed \((\w+)\)") or ["none"]
            raise NoReply(f"the output of the tools is not as the script expects it; last failure: {failures[-1]}")
        return found[0]


Reply = Callable[[Chat], tuple[str, Sequence[Call]]]


def says(text: str, *calls: Call) -> Reply:
    """Return a reply that is the same in every conversation."""
    return lambda _: (text, calls)


def plan(*goals: str) -> Reply:
    """Return the reply that plans these steps."""
    return says("", ("plan", {"steps": [{"goal": goal} for goal in goals]}))


def done(outcome: str) -> Call:
    """Return the call that ends a step of the plan."""
    return "step_done", {"outcome": outcome}


def code(source: str) -> Call:
    """Return the call that runs a Python program."""
    return "code", {"language": "python", "source": source}


# ---- data_report.py

SALES_PROGRAM = """
import csv, json
from collections import Counter
from pathlib import Path

months = Counter()
with open("sales.csv", newline="") as file:
    for row in csv.DictReader(file):
        months[row["month"]] += int(row["units"]) * float(row["price_chf"])
best = max(months, key=months.get)
total = round(sum(months.values()), 2)

bars, rows = [], []
for index, (month, value) in enumerate(months.items()):
    height = round(180 * value / months[best])
    bars.append(f'<rect x="{20 + 90 * index}" y="{200 - height}" width="60" height="{height}" fill="steelblue"/>')
    bars.append(f'<text x="{50 + 90 * index}" y="218" text-anchor="middle" font-size="13">{month}</text>')
    rows.append(f"<tr><td>{month}</td><td>{value:,.2f}</td></tr>")
Path("report.html").write_text(
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Sales</title><h1>Sales</h1>'
    f"<p>Total: CHF {total:,.2f}. Best month: {best}.</p>"
    f"<table><tr><th>month</th><th>CHF</th></tr>{''.join(rows)}</table>"
    f'<svg viewBox="0 0 {20 + 90 * len(months)} 230" width="400">{"".join(bars)}</svg></html>'
)
print(json.dumps({"total_chf": total, "best_month": best}))
"""


def sales_end(chat: Chat) -> tuple[str, Sequence[Call]]:
    """Finish with the figures that the program has printed."""
    output = json.loads(chat.figure(r'^(\{"total_chf".*\})$'))
    summary = f"The sales add up to CHF {output['total_chf']:,.2f}; the best month is {output['best_month']}."
    return "", [("finish", {"summary": summary, "files": ["report.html"], "output": output})]


SALES = [
    plan("Look at the table", "Compute the figures and write the report", "Check the report"),
    says("I look at the columns first.", ("shell", {"command": "head -n 4 sales.csv"})),
    says("The program writes the report.", done("Columns: month, product, units, price_chf."), code(SALES_PROGRAM)),
    says("", done("report.html is written."), ("shell", {"command": "grep -o '<p>.*</p>' report.html"})),
    sales_end,
]

# ---- fix_script.py

BROKEN = (FOLDER / "broken" / "median.py").read_text()
MENDED = BROKEN.replace(
    "    return ordered[len(ordered) // 2]\n",
    "    middle = len(ordered) // 2\n"
    "    if len(ordered) % 2:\n"
    "        return ordered[middle]\n"
    "    return (ordered[middle - 1] + ordered[middle]) / 2\n",
)
TESTS: Call = ("shell", {"command": "python3 -m unittest -v"})
FIX = [
    plan("See the test fail", "Repair median.py", "See all tests pass"),
    says("I run the tests.", TESTS),
    says("Even counts are wrong. I read the function.", ("file_read", {"path": "median.py"})),
    says(
        "With an even count, the two values in the middle count.",
        done("test_even_count fails: 3 instead of 2.5."),
        ("file_write", {"path": "median.py", "content": MENDED}),
    ),
    says("", done("median.py is repaired."), TESTS),
    says(
        "",
        ("finish", {"summary": "median() now takes the mean of the two middle values.", "files": ["median.py"]}),
    ),
]

# ---- local_research.py


def lakes_index(chat: Chat) -> tuple[str, Sequence[Call]]:
    """Fetch the address in the task."""
    urls = re.findall(r"http://\S+\.html", chat.task)
    if not urls:
        raise NoReply("the task has no address of a page")
    return "I begin with the list of the lakes.", [("http_fetch", {"url": urls[0]})]


def lakes_pages(chat: Chat) -> tuple[str, Sequence[Call]]:
    """Fetch each page that the first one links to."""
    chat.figure(r"(Alder Lake)")
    links = chat.find(r"\((http://[^)\s]+\.html)\)")
    return "Each lake has a page.", [
        done("The list links to the lakes."),
        *(("http_fetch", {"url": url}) for url in links),
    ]


def lakes_figures(chat: Chat) -> list[tuple[str, float]]:
    """Return name and temperature of each lake, the warmest first."""
    pairs = chat.find(r"In July the water of (\w+ Lake had [\d.]+)")
    lakes = [(name, float(figure)) for name, _, figure in (pair.partition(" had ") for pair in pairs)]
    return sorted(lakes, key=lambda lake: -lake[1])


def lakes_report(chat: Chat) -> tuple[str, Sequence[Call]]:
    """Write what the pages say."""
    chat.figure(r"In July the water of (\w+)")
    lines = [f"- {name}: {figure} °C in July" for name, figure in lakes_figures(chat)]
    text = "\n".join(
        ["# Lakes by temperature", "", *lines, "", f"Source: {chat.task.split('http://')[1].split()[0]}", ""]
    )
    return "", [done("All pages are read."), ("file_write", {"path": "answer.md", "content": text})]


def lakes_end(chat: Chat) -> tuple[str, Sequence[Call]]:
    """Finish with the warmest lake."""
    name, figure = lakes_figures(chat)[0]
    output = {"lake": name, "temperature_c": figure}
    return "", [("finish", {"summary": f"{name}, with {figure} °C in July.", "files": ["answer.md"], "output": output})]


LAKES = [
    plan("Read the list of lakes", "Read the page of each lake", "Write the answer"),
    lakes_index,
    lakes_pages,
    lakes_report,
    lakes_end,
]

# ---- the demo


def planets_end(chat: Chat) -> tuple[str, Sequence[Call]]:
    """Finish with the figures that the program has printed."""
    output = {
        "mean_distance_million_km": float(chat.figure(r"distance_million_km: mean ([\d,.]+),").replace(",", "")),
        "largest_planet": chat.figure(r"diameter_km: mean .* to (\w+)$"),
    }
    files = ["statistics.json", "orbits.svg", "report.html"]
    return "", [("finish", {"summary": "The report is in report.html.", "files": files, "output": output})]


PLANETS_REPLIES = [
    plan("Compute the statistics", "Draw the chart", "Write the report", "Check the results"),
    says("The figures come first.", code((PLANETS / "compute.py").read_text())),
    says("", done("statistics.json is written."), code((PLANETS / "chart.py").read_text())),
    says("", done("orbits.svg is drawn."), code((PLANETS / "report.py").read_text())),
    says("I look at what is there.", done("report.html is written."), ("shell", {"command": "wc -c *"})),
    planets_end,
]


@dataclass(frozen=True)
class Script:
    """Replies to the task that has `word` in it."""

    word: str
    replies: Sequence[Reply]


SCRIPTS = (
    Script("sales.csv", SALES),
    Script("median.py", FIX),
    Script("warmest", LAKES),
    Script("planets.csv", PLANETS_REPLIES),
)
