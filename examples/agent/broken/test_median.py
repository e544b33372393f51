"""Tests of `median`; the second one fails."""

import unittest

from median import median


class MedianTest(unittest.TestCase):
    """Median of odd and even counts."""

    def test_odd_count(self) -> None:
        self.assertEqual(median([9, 1, 5]), 5)

    def test_even_count(self) -> None:
        self.assertEqual(median([4, 1, 3, 2]), 2.5)


if __name__ == "__main__":
    unittest.main()
