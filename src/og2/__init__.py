"""og2: an independent, complete implementation of OmniGen2.

Public names are imported on first use, so that `import og2` loads no heavy library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from og2.model.transformer import OmniGen2Transformer2DModel
    from og2.pipeline import OmniGen2Pipeline
    from og2.request import Guidance, Request, Result

__version__ = "0.1.0"

_HOMES = {
    "OmniGen2Pipeline": "og2.pipeline",
    "OmniGen2Transformer2DModel": "og2.model.transformer",
    "Guidance": "og2.request",
    "Request": "og2.request",
    "Result": "og2.request",
}

__all__ = ["Guidance", "OmniGen2Pipeline", "OmniGen2Transformer2DModel", "Request", "Result", "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'og2' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
