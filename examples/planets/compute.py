"""Statistics of `planets.csv`, into `statistics.json`.

`kepler` is distance³ / period² for each planet, with Earth's as 1: by Kepler's third law it is the same for all.
"""

import csv
import json
import statistics
import sys
from pathlib import Path

with Path("planets.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))

columns = {}
for column in ("distance_million_km", "orbital_period_days", "diameter_km", "mass_1e24_kg"):
    values = {row["planet"]: float(row[column]) for row in rows}
    smallest, largest = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    columns[column] = {
        "mean": statistics.mean(values.values()),
        "median": statistics.median(values.values()),
        "smallest": {"planet": smallest, "value": values[smallest]},
        "largest": {"planet": largest, "value": values[largest]},
    }
    sys.stdout.write(f"{column}: mean {columns[column]['mean']:,.6g}, {smallest} to {largest}\n")

ratios = {
    row["planet"]: float(row["distance_million_km"]) ** 3 / float(row["orbital_period_days"]) ** 2 for row in rows
}
kepler = {planet: ratio / ratios["Earth"] for planet, ratio in ratios.items()}
worst = max(kepler, key=lambda planet: abs(kepler[planet] - 1))
sys.stdout.write(f"Kepler's third law holds within {abs(kepler[worst] - 1):.1%} ({worst} is farthest from it)\n")

result = {"planets": len(rows), "columns": columns, "kepler": kepler}
Path("statistics.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
