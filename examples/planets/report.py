"""`report.html`: the statistics as a table, with the chart."""

import json
from html import escape
from pathlib import Path

result = json.loads(Path("statistics.json").read_text())

rows = []
for column, found in result["columns"].items():
    ends = [f"{found[end]['planet']} ({found[end]['value']:,g})" for end in ("smallest", "largest")]
    cells = [column.replace("_", " "), f"{found['mean']:,.6g}", f"{found['median']:,.6g}", *ends]
    rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")

kepler = ", ".join(f"{escape(planet)} {ratio:.3f}" for planet, ratio in result["kepler"].items())

Path("report.html").write_text(
    f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>The planets</title>
<h1>The {result["planets"]} planets</h1>
<table border="1" cellpadding="6">
<tr><th></th><th>mean</th><th>median</th><th>smallest</th><th>largest</th></tr>
{chr(10).join(rows)}
</table>
<p>Distance³ / period², with Earth's as 1: {kepler}.</p>
<img src="orbits.svg" alt="Orbital period against distance from the Sun" width="760">
<p>Figures: NASA Planetary Fact Sheet.</p>
</html>
""",
    encoding="utf-8",
)
