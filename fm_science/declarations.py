"""Small tools for what classes declare: attributes that subclasses compute, and names that have been replaced."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:

    def derived(method: Callable[[Any], T]) -> T:
        """A property in place of an attribute that a base class declares: readers and type checkers see an
        attribute."""
else:
    derived = property


def warn_renamed(old: str, new: str, above: int = 3) -> None:
    """Warn that a public name has been replaced; the old one keeps working for one release."""
    warnings.warn(f"{old} is now called {new}; the old name goes away in the next release.", DeprecationWarning, above)


def renamed_names(module: str, renamed: Mapping[str, str]) -> Callable[[str], Any]:
    """A ``__getattr__`` for a module, under which old names of its members keep working."""

    def find(name: str) -> Any:
        if name not in renamed:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn_renamed(f"{module}.{name}", renamed[name])
        return getattr(sys.modules[module], renamed[name])

    return find


def renamed_keywords(**renamed: str) -> Callable[[type[T]], type[T]]:
    """A decorator of classes whose constructors still accept old keywords: ``old="new"``."""

    def decorate(cls: type[T]) -> type[T]:
        init: Callable[..., None] = vars(cls)["__init__"]

        @functools.wraps(init)
        def begin(self: T, *args: Any, **named: Any) -> None:
            for old in renamed.keys() & named.keys():
                warn_renamed(f"{cls.__name__}({old}=...)", f"{renamed[old]}=...")
                named[renamed[old]] = named.pop(old)
            init(self, *args, **named)

        setattr(cls, "__init__", begin)  # noqa: B010  # a plain assignment is refused by type checkers
        return cls

    return decorate


def keep_renamed_members(cls: type, renamed: Mapping[str, str]) -> None:
    """Keep old names of methods and attributes usable in a class, by old name: the use of an old name warns, and a
    subclass that still defines an old name is taken to define the new one."""
    for old, new in renamed.items():
        own = vars(cls)
        if old in own and not isinstance(own[old], _Renamed):
            warn_renamed(f"{cls.__name__}.{old}", new, 4)
            setattr(cls, new, own[old])
        elif new in own:
            setattr(cls, old, _Renamed(own[new], old, new))


class _Renamed:
    """The old name of a member of a class: of that class's own, so that ``super()`` resolves correctly."""

    def __init__(self, member: Any, old: str, new: str) -> None:
        self.member, self.old, self.new = member, old, new

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        warn_renamed(self.old, self.new)
        return self.member.__get__(owner, kind) if callable(type(self.member).__dict__.get("__get__")) else self.member
