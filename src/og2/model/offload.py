"""Group offload for methods that are not `forward`.

diffusers' group offload brings a group of weights to the accelerator when the `forward` of the group's first
module is called, and takes it away after that of its last. A method marked here does the same where it is
called. accelerate's hooks have `apply_forward_hook` for this.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)
Given = ParamSpec("Given")
Returned = TypeVar("Returned")


def brings_weights(
    method: Callable[Concatenate[Module, Given], Returned],
) -> Callable[Concatenate[Module, Given], Returned]:
    """The method, with the weights of its module's group, and its arguments, where they run."""

    @functools.wraps(method)
    def wrapper(self: Module, *args: Given.args, **kwargs: Given.kwargs) -> Returned:
        registry: Any = getattr(self, "_diffusers_hook", None)
        hook = None if registry is None else registry.get_hook("group_offloading")
        if hook is None:
            return method(self, *args, **kwargs)
        moved, named = hook.pre_forward(self, *args, **kwargs)
        return hook.post_forward(self, method(self, *moved, **named))

    return wrapper
