"""Small tools for what classes declare: attributes that subclasses compute, and names that have been replaced."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:

    def derived(method: Callable[[Any], T]) -> T:
        """A property in the place of an attribute that a base class declares: readers and type checkers see an
        attribute."""
else:
    derived = property


def warn_renamed(old: str, new: str) -> None:
    """Warn that a public name has been replaced; the old one goes on working for one release."""
    warnings.warn(f"{old} is now called {new}; the old name goes away in the next release.", DeprecationWarning, 3)


def keep_renamed_methods(cls: type, renamed: Mapping[str, str]) -> None:
    """Keep old names of methods alive in a class, by old name: calls of an old name warn, and a subclass that still
    defines an old name is understood to define the new one."""
    for old, new in renamed.items():
        own = vars(cls)
        if old in own:
            warn_renamed(f"{cls.__name__}.{old}", new)
            setattr(cls, new, own[old])
        elif new in own:
            setattr(cls, old, _renamed_method(own[new], old, new))


def _renamed_method(method: Callable[..., Any], old: str, new: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **named: Any) -> Any:
        warn_renamed(old, new)
        return method(*args, **named)

    return call
