"""Settings of every test: no time limit per example, so that a busy machine fails nothing; torch's seed."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("og2", deadline=None, print_blob=True)
settings.load_profile("og2")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A test sees the same numbers in every run and order; torch begins each process with another seed."""
    torch.manual_seed(0)
