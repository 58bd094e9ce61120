"""Feature selection: sine-cosine algorithm, adaptive beta-hill climbing, fitness, ask/tell search."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cotray.selection.selector import SineCosineSelector

__all__ = ["SineCosineSelector"]


def __getattr__(name: str) -> Any:
    """The scikit-learn selector, imported when it is first asked for: scikit-learn is slow to import."""
    if name == "SineCosineSelector":
        from cotray.selection.selector import SineCosineSelector

        return SineCosineSelector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
