"""The alphabet of the world's text plates: capital letters as 5 x 7 bitmaps, and the words to write.

Public language, as the palette is: renderer and scorer both know what an A looks like.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
GLYPH_WIDTH, GLYPH_HEIGHT = 5, 7
LETTER_PITCH = 6  # a letter and the gap after it, in cells
MIN_LETTERS, MAX_LETTERS = 2, 6

# One string a letter: seven rows from top to bottom, each a number in base 32 whose bits are the cells.
_ROWS: dict[str, str] = {
    "A": "EHHVHHH",
    "B": "UHHUHHU",
    "C": "EHGGGHE",
    "D": "UHHHHHU",
    "E": "VGGUGGV",
    "F": "VGGUGGG",
    "G": "EHGNHHF",
    "H": "HHHVHHH",
    "I": "E44444E",
    "J": "72222IC",
    "K": "HIKOKIH",
    "L": "GGGGGGV",
    "M": "HRLLHHH",
    "N": "HPPLJJH",
    "O": "EHHHHHE",
    "P": "UHHUGGG",
    "Q": "EHHHLID",
    "R": "UHHUKIH",
    "S": "FGGE11U",
    "T": "V444444",
    "U": "HHHHHHE",
    "V": "HHHHHA4",
    "W": "HHHLLRH",
    "X": "HHA4AHH",
    "Y": "HHA4444",
    "Z": "V1248GV",
}
WORDS: tuple[str, ...] = (
    "GO",
    "UP",
    "ON",
    "NO",
    "HI",
    "OK",
    "ZOO",
    "SUN",
    "SKY",
    "TEA",
    "CAT",
    "DOG",
    "FOX",
    "OWL",
    "BUS",
    "MAP",
    "ICE",
    "JAM",
    "RED",
    "HUT",
    "MOON",
    "STAR",
    "SIGN",
    "OPEN",
    "STOP",
    "EXIT",
    "LOVE",
    "TREE",
    "BIRD",
    "FISH",
    "BOOK",
    "KITE",
    "WAVE",
    "QUIZ",
    "JUMP",
    "HOME",
    "HELLO",
    "MUSIC",
    "WATER",
    "HAPPY",
    "PIZZA",
    "TRAIN",
    "CLOUD",
    "QUEEN",
    "GHOST",
    "LIGHT",
    "PLANET",
    "ROCKET",
    "FOREST",
    "GARDEN",
    "SILVER",
    "WIZARD",
    "BRIDGE",
    "MONKEY",
)


def glyph_table() -> NDArray[np.float32]:
    """The letters as bitmaps: (26, 7, 5), 1 where there is ink."""
    table = np.zeros((len(LETTERS), GLYPH_HEIGHT, GLYPH_WIDTH), dtype=np.float32)
    for i, letter in enumerate(LETTERS):
        for row, digit in enumerate(_ROWS[letter]):
            bits = int(digit, 32)
            table[i, row] = [bits >> (GLYPH_WIDTH - 1 - column) & 1 for column in range(GLYPH_WIDTH)]
    return table
