"""The matrix products of a piece of work by themselves: how much of its time is theirs.

What they take above the floor is the machine's: its rate moves, and no shape runs at the best one's rate.
What the work takes above them is the code's.
"""

from __future__ import annotations

from collections.abc import Callable

from torch.utils._python_dispatch import TorchDispatchMode

NAMES = ("aten.mm.default", "aten.addmm.default", "aten.bmm.default", "aten.baddbmm.default",
         "mkldnn._linear_pointwise.default")  # fmt: skip


class Products(TorchDispatchMode):
    """Keeps the matrix products that are made within it, with their operands, to be made once more."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., object], tuple]] = []

    def __torch_dispatch__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        """Makes the call as it is; products are kept."""
        del types
        if str(func) in NAMES:
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))

    def repeat(self) -> None:
        """The same products of the same tensors."""
        for func, args in self.calls:
            func(*args)
