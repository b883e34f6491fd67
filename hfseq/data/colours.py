"""Named colours, a packaged demo of texts that begin with a vector: 30,222 names, each with a colour.

Columns: red, green and blue from 0 to 1, and CIELAB's lightness, green_red and blue_yellow, about -1 to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..hints import nearest_hint
from .packages import Package, packaged_file
from .tables import read_table

RGB, LAB = ("red", "green", "blue"), ("lightness", "green_red", "blue_yellow")


def _colours_in(path: Path) -> Iterator[tuple[str, str, str]]:
    """(place, name, "#rrggbb")."""
    for place, row in read_table(path, heading=("name", "code", "lower_case")):
        yield place, row["name"], row["code"]


COLOURS = Package(
    "colourmapper-dev",
    "0.0.7",
    "colourmapper/ColourMapperValues.csv",
    lambda path: (name for _, name, _ in _colours_in(path)),
)


def colour_rows(columns: Sequence[str]) -> Iterator[tuple[str, str, list[float]]]:
    """(place, name, the numbers of these columns); ValueError for a column that there is not."""
    known = (*RGB, *LAB)
    for column in columns:
        if column not in known:
            raise ValueError(
                f"colours has no column {column!r}.{nearest_hint(column, known)} Known: {', '.join(known)}."
            )
    path, asks_for_lab = packaged_file("colours", COLOURS), not set(LAB).isdisjoint(columns)
    for place, name, code in _colours_in(path):
        rgb = rgb_of(code)
        values = dict(zip(RGB, rgb, strict=True))
        if asks_for_lab:
            values |= zip(LAB, _scaled_lab(rgb), strict=True)
        yield place, name, [values[column] for column in columns]


def rgb_of(code: str) -> tuple[float, float, float]:
    """Red, green and blue from 0 to 1: of "#c93f38" (0.788, 0.247, 0.220)."""
    digits = code.strip().removeprefix("#")
    try:
        if len(digits) != 6:
            raise ValueError
        red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    except ValueError:
        raise ValueError(f"{code!r} is no colour: write six hexadecimal digits, such as #c93f38.") from None
    return red, green, blue


def lab_of(rgb: Sequence[float]) -> tuple[float, float, float]:
    """sRGB (IEC 61966-2-1) from 0 to 1 -> CIELAB (white point D65): distances of 2.3 are just noticeable there."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
    matrix = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.95047, 1.0, 1.08883)
    x, y, z = (
        sum(weight * v for weight, v in zip(row, linear, strict=True)) / w
        for row, w in zip(matrix, white, strict=True)
    )
    x, y, z = (t ** (1 / 3) if t > 216 / 24389 else t * 841 / 108 + 4 / 29 for t in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _scaled_lab(rgb: Sequence[float]) -> tuple[float, float, float]:
    lightness, a, b = lab_of(rgb)
    return lightness / 100, a / 128, b / 128
