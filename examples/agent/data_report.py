"""Let a model write a report on a CSV file: upload it, prompt, get a result of a given form, fetch the report."""

import csv
import math
import sys
from pathlib import Path

from swissbrain import Client, ClientError

SALES = Path(__file__).parent / "sales.csv"
PROMPT = """The file sales.csv has one row for each month and product: units sold, and the price of one unit in CHF.
Compute the sales of each month and in total with a program. Write report.html: a page with the total, a table of the
months, and a bar chart of them as SVG within the page, without anything from elsewhere."""
OUTPUT = {
    "type": "object",
    "properties": {
        "total_chf": {"type": "number", "description": "All sales, in CHF."},
        "best_month": {"type": "string", "description": "Month with the highest sales, as it is in the file."},
    },
    "required": ["total_chf", "best_month"],
    "additionalProperties": False,
}


def main(folder: Path) -> None:
    """Save the report in a folder."""
    with Client.from_env(notify=print) as client:
        run = client.run(
            prompt=PROMPT,
            files={"sales.csv": SALES},
            output_schema=OUTPUT,
            limits={"turns": 40},
            wait_s=1800,
            metadata={"example": "data_report"},
        )
        result = run.result or {}
        print(result["summary"])
        client.save(run.run_id, "report.html", folder / "report.html")
        print(f"saved {folder / 'report.html'}")
    # The schema has checked the form of the figures. Whether they are right, only another computation shows.
    with SALES.open(newline="") as file:
        total = sum(int(row["units"]) * float(row["price_chf"]) for row in csv.DictReader(file))
    if not math.isclose(result["output"]["total_chf"], total, abs_tol=0.01):
        raise SystemExit(f"the model says CHF {result['output']['total_chf']}, but the total is {total:.2f}")
    print(f"the total, CHF {total:.2f}, is right; the best month is {result['output']['best_month']}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    except ClientError as exc:
        raise SystemExit(str(exc)) from None
