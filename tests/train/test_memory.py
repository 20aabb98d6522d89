"""A training process keeps the memory that it frees."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STEPS = """
import resource, sys, torch
from og2.train.memory import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("refused")
    sys.exit()
for step in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.zeros(5_000_000) for _ in range(8)]
    del held
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(taken)
"""


def test_a_step_that_needs_as_much_as_the_one_before_takes_no_new_pages() -> None:
    # Without these the library now and then finds a larger threshold by itself.
    giving_back = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    found = [
        subprocess.run(
            [sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True, env=giving_back
        ).stdout
        for how in ("plain", "keep")
    ]
    if found[1].strip() == "refused":
        pytest.skip("this C library has no mallopt")
    plain, kept = map(int, found)
    assert kept < 100 < plain
