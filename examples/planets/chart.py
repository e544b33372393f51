"""`orbits.svg`: distance and period of each planet, both axes logarithmic, with the line that Kepler's law predicts."""

import csv
import math
from pathlib import Path
from xml.etree import ElementTree as Xml

WIDTH, HEIGHT, MARGIN = 760, 480, 60
X, Y = (30.0, 9000.0), (40.0, 150_000.0)

svg = Xml.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {HEIGHT}")


def place(value: float, span: tuple[float, float], length: int) -> float:
    share = math.log(value / span[0]) / math.log(span[1] / span[0])
    return MARGIN + share * (length - 2 * MARGIN)


def point(distance: float, period: float) -> tuple[float, float]:
    return round(place(distance, X, WIDTH), 1), round(HEIGHT - place(period, Y, HEIGHT), 1)


def line(start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    ends = zip(("x1", "y1", "x2", "y2"), (*start, *end), strict=True)
    Xml.SubElement(svg, "line", {name: str(value) for name, value in ends}, stroke=colour)


def text(words: str, x: float, y: float, anchor: str = "start") -> None:
    label = Xml.SubElement(svg, "text", {"x": str(x), "y": str(y), "text-anchor": anchor, "font-size": "13"})
    label.text = words


Xml.SubElement(svg, "rect", width=str(WIDTH), height=str(HEIGHT), fill="white")
line(point(X[0], Y[0]), point(X[1], Y[0]), "black")
line(point(X[0], Y[0]), point(X[0], Y[1]), "black")
for distance in (100, 1000):
    text(f"{distance:,}", point(distance, Y[0])[0], HEIGHT - MARGIN + 18, "middle")
for period in (100, 1000, 10_000, 100_000):
    text(f"{period:,}", MARGIN - 6, point(X[0], period)[1] + 4, "end")
text("Distance from the Sun, million km", WIDTH / 2, HEIGHT - 14, "middle")
text("Orbital period, days", 10, MARGIN - 14)
line(*[point(distance, 365.2 * (distance / 149.6) ** 1.5) for distance in (45, 6000)], "silver")

with Path("planets.csv").open(newline="") as file:
    for row in csv.DictReader(file):
        x, y = point(float(row["distance_million_km"]), float(row["orbital_period_days"]))
        Xml.SubElement(svg, "circle", cx=str(x), cy=str(y), r="5", fill="crimson")
        text(row["planet"], x + 10, y + 12)

Xml.ElementTree(svg).write("orbits.svg", encoding="utf-8", xml_declaration=True)
