"""List the domains that are installed, or every option of one.

usage: fm-science domains            name, distribution, version and presets of every domain
       fm-science domains NAME       every option with its type, default, unit and meaning
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields

from fm_science import config
from fm_science.errors import UserError
from fm_science.plugins import Plugin, find, plugins


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Print the list, or one domain."""
    if len(args) > 1:
        raise UserError("domains takes one name at most")
    print(table(find(args[0])) if args else listing())


def listing() -> str:
    """All domains of all distributions; reads metadata only."""
    lines = [f"{'domain':<16}{'from':<28}{'presets'}"]
    seen: set[str] = set()
    for plugin in plugins():
        hidden = f"   (hidden by the other {plugin.name!r})" if plugin.name in seen else ""
        seen.add(plugin.name)
        lines.append(f"{plugin.name:<16}{origin(plugin):<28}{', '.join(config.presets(plugin)) or '-'}{hidden}")
    if not seen:
        lines.append("none: install fm-science itself (pip install -e .) or a package with a domain")
    return "\n".join(lines)


def origin(plugin: Plugin) -> str:
    """Where a domain comes from, in words."""
    return "built in" if plugin.builtin else f"{plugin.dist} {plugin.version}"


def table(plugin: Plugin) -> str:
    """Every option of a domain and of the engine, one per line."""
    lines = [f"{plugin.name}: {origin(plugin)} ({plugin.entry.value})"]
    lines.append(f"presets: {', '.join(config.presets(plugin)) or 'none'}")
    for group, cls in {**plugin.options(), **config.engine()}.items():
        lines += ["", f"{group}: {summary(cls)}", *aligned(list(options(group, cls)))]
    return "\n".join(lines)


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of cells as lines with straight columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def summary(cls: type) -> str:
    """The first line of a dataclass's own docstring (not the signature that dataclasses generate)."""
    text = (cls.__doc__ or "").strip().partition("\n")[0]
    return "" if text.startswith(f"{cls.__name__}(") else text


def options(group: str, cls: type) -> Iterator[tuple[str, ...]]:
    """Name, type, default and meaning of every option of a group."""
    for item in fields(cls):
        kind = item.type if isinstance(item.type, str) else getattr(item.type, "__name__", str(item.type))
        yield f"{group}.{item.name}", kind, f"= {default(item)}", meaning(item)


def default(item: Field) -> str:
    """The default as it would be typed on the command line."""
    value = item.default_factory() if item.default_factory is not MISSING else item.default
    words = {None: "null", True: "true", False: "false", "": "''"}
    return words[value] if value is None or isinstance(value, bool) or value == "" else str(value)


def meaning(item: Field) -> str:
    """The help of an option, with its unit, bounds and choices."""
    about = item.metadata
    low, high, choices = about.get("low"), about.get("high"), about.get("choices")
    bounds = {(True, False): f"at least {low}", (False, True): f"at most {high}", (True, True): f"{low} to {high}"}
    notes = [about.get("unit"), bounds.get((low is not None, high is not None))]
    notes.append(" | ".join(map(str, choices)) if choices else None)
    extra = "; ".join(note for note in notes if note)
    return f"{about.get('help', '')}{f' [{extra}]' if extra else ''}"
