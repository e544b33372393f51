"""Median of numbers."""


def median(values: list[float]) -> float:
    """Return the middle of the sorted values; with an even count, the mean of the two in the middle."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
