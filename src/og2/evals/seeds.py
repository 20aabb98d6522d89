"""Which items a run asks: public ones, sealed ones whose seed only its keeper knows, or fresh ones."""

from __future__ import annotations

import hashlib
import os

from og2.errors import RequestError

SEALED_VARIABLE = "OG2_SEALED_SEED"
_FRESH = 1_000_000  # fresh:N asks the items of seed 1,000,000 + N


def seed_of(name: str) -> tuple[int, str]:
    """The seed of the items, and the name under which a report states it.

    name: "public" (seed 0), "fresh:N", "sealed" (the number in the variable OG2_SEALED_SEED; the report only
    shows its fingerprint), or a number. Raises: RequestError for anything else.
    """
    if name == "public":
        return 0, "public"
    if name == "sealed":
        text = os.environ.get(SEALED_VARIABLE, "")
        if not text.isdigit():
            raise RequestError(f"--seeds sealed needs a whole number in the variable {SEALED_VARIABLE}")
        mark = hashlib.sha256(f"og2 sealed {int(text)}".encode()).hexdigest()[:12]
        return int(text), f"sealed, fingerprint {mark}"
    kind, _, number = name.rpartition(":")
    if number.isdigit() and kind in ("", "fresh"):
        return (_FRESH + int(number), name) if kind else (int(number), f"seed {int(number)}")
    raise RequestError(f"--seeds {name!r}: use public, sealed, fresh:N or a number")
