"""What the scorer says about one property of a picture: a word with its confidence, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """What was measured: a word, or None with the reason; confidence in [0, 1], 0 where there is no word."""

    value: str | None
    confidence: float
    reason: str = ""
