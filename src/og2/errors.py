"""The errors og2 raises on purpose: each message says what came, what is allowed, what to do.

Not here: programming errors of our own, which are assertions.
"""


class Og2Error(Exception):
    """Base of every error that og2 raises on purpose."""


class RequestError(Og2Error, ValueError):
    """A request that cannot be carried out as asked: sizes, guidance, counts, prompts."""


class ImageError(RequestError):
    """A picture that cannot be read or is not allowed."""


class CheckpointError(Og2Error):
    """A checkpoint folder or file that is missing, incomplete, of the wrong shape, or unsafe to read."""


class ConfigError(Og2Error, ValueError):
    """A recipe or option that is unknown, misspelt or out of range."""


class DataError(Og2Error):
    """A data set, a row of it or a data worker that cannot be used; it names the source and the line."""


class Cancelled(Og2Error):  # noqa: N818  a stop asked for, not a fault
    """A run that its callback asked to stop."""
