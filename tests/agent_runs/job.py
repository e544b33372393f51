"""Job of the kill matrix: reads a table, writes a program that fails, mends it, asks a person, writes a report."""

from typing import Any

from tests.agent_runs.script import Conversation, Say, Step, finish, plan

TABLE = b"city,amount\nBern,20\nGenf,40\n"
BAD = "import csv\nrows = csv.DictReader(open('sales.csv'))\nprint(sum(int(row['sum']) for row in rows))\n"
GOOD = BAD.replace("'sum'", "'amount'")
REPORT = """
import csv, pathlib
rows = list(csv.DictReader(open('sales.csv')))
bars = ''.join(f'<rect height="{row["amount"]}"/>' for row in rows)
pathlib.Path('chart.svg').write_text(f'<svg>{bars}</svg>')
pathlib.Path('report.md').write_text('# TITLE\\n\\nTotal: 60\\n')
"""
RESULT = {
    "summary": "The total is 60.",
    "files": [{"path": "chart.svg", "size_bytes": 49}, {"path": "report.md", "size_bytes": 26}],
    "steps": [
        {"goal": "Look at the table", "expected": "", "outcome": "columns city and amount"},
        {"goal": "Compute the total", "expected": "", "outcome": "60"},
        {"goal": "Write the report", "expected": "", "outcome": ""},
    ],
    "output": {"total": 60},
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"total": {"type": "integer"}},
    "required": ["total"],
    "additionalProperties": False,
}
CALLS = ["call-1-0", "call-2-0", "call-3-0", "call-4-0", "call-5-0", "call-7-0"]
"""Names of the calls of tools."""


def _mend(chat: Conversation) -> Say:
    assert "KeyError: 'sum'" in chat.last
    return "file_write", {"path": "total.py", "content": GOOD}


def _report(chat: Conversation) -> Say:
    assert chat.last == "Answer: Sales of May"
    return "code", {"language": "python", "source": REPORT.replace("TITLE", "Sales of May")}


def _ask(chat: Conversation) -> Say:
    assert "60" in chat.last
    return [("step_done", {"outcome": "60"}), ("ask_user", {"question": "Which title?", "choices": ["Sales"]})]


JOB: list[Step] = [
    plan("Look at the table", "Compute the total", "Write the report"),
    [("file_read", {"path": "sales.csv"}), ("step_done", {"outcome": "columns city and amount"})],
    ("file_write", {"path": "total.py", "content": BAD}),
    ("shell", {"command": "python3 total.py"}),
    _mend,
    ("shell", {"command": "python3 total.py"}),
    _ask,
    _report,
    finish("The total is 60.", files=["chart.svg", "report.md"], output={"total": 60}),
]
