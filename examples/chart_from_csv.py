"""Upload a CSV file, compute statistics and a chart from it in the sandbox, and fetch the results."""

import sys
from pathlib import Path

from swissbrain import Client, code

PLANETS = Path(__file__).parent / "planets"


def main(folder: Path) -> None:
    """Save the chart and the statistics in a folder."""
    with Client.from_env(notify=print) as client:
        run = client.run(
            [code.python(PLANETS / "compute.py"), code.python(PLANETS / "chart.py")],
            files={"planets.csv": PLANETS / "planets.csv"},
            metadata={"example": "chart_from_csv"},
        )
        for name in ("statistics.json", "orbits.svg"):
            client.save(run.run_id, name, folder / name)
            print(f"saved {folder / name}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
