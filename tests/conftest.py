"""Settings of every test: no time limit per example, so that a busy machine fails nothing."""

from hypothesis import settings

settings.register_profile("og2", deadline=None, print_blob=True)
settings.load_profile("og2")
