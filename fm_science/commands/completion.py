"""Completion for the shell: commands, domains, presets and options by the tab key.

usage: fm-science completion bash|zsh|fish

Prints a script. It has the domains that are installed when it is written; write it again after installing another.

examples:
  fm-science completion bash > ~/.local/share/bash-completion/completions/fm-science
  fm-science completion zsh > ~/.zfunc/_fm-science          with fpath+=~/.zfunc before compinit in ~/.zshrc
  fm-science completion fish > ~/.config/fish/completions/fm-science.fish
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields

from fm_science import config
from fm_science.commands import COMMANDS
from fm_science.errors import UserError, nearest
from fm_science.plugins import Plugin, PluginError, domains

PLAIN = (
    "domain=", "preset=", "run=", "resume=", "from=", "seed=", "input=", "out=", "workers=", "n=", "steps=", "solver=",
    "dry=true",
)  # fmt: skip


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Print the script of one shell."""
    shells = {"bash": bash, "zsh": zsh, "fish": fish}
    if len(args) != 1:
        raise UserError("completion takes one shell: fm-science completion bash|zsh|fish")
    if args[0] not in shells:
        raise UserError(f"unknown shell {args[0]!r}; {nearest(args[0], shells)}")
    print(shells[args[0]](known()), end="")


@dataclass(frozen=True)
class Known:
    """What can be completed.

    Args:
        presets: the presets of each domain.
        keys: the options of each domain, as ``group.name=``.
        engine: those of every domain.
    """

    presets: dict[str, list[str]]
    keys: dict[str, list[str]]
    engine: list[str]


def known() -> Known:
    """Everything that is installed; a domain that cannot be imported has no options."""
    found = domains()
    engine = list(_keys(config.engine()))
    return Known(
        {name: [*config.presets(plugin)] for name, plugin in found.items()},
        {name: _own(plugin) for name, plugin in found.items()},
        engine,
    )


def _own(plugin: Plugin) -> list[str]:
    try:
        return list(_keys(dict(plugin.options())))
    except PluginError:
        return []


def _keys(groups: dict[str, type]) -> Iterator[str]:
    for group, kind in groups.items():
        for item in fields(kind):
            yield f"{group}.{item.name}="


def _cases(found: dict[str, list[str]], prefix: str, line: str) -> str:
    """A branch for each domain, for whose words ``line`` is a template."""
    return "\n".join(f"      {name}) {line.format(' '.join(prefix + word for word in words))} ;;"
                     for name, words in found.items() if words)  # fmt: skip


BASH = """# bash completion of fm-science
_fm_science() {{
  local cur="${{COMP_LINE:0:COMP_POINT}}" name="" words="" word
  cur="${{cur##* }}"
  COMPREPLY=()
  if [[ "${{COMP_LINE:0:COMP_POINT}}" != *" "*" "* ]]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$cur"))
    return
  fi
  for word in $COMP_LINE; do
    [[ "$word" == domain=* ]] && name="${{word#domain=}}"
  done
  case "$cur" in
    domain=*) words="{domains}" ;;
    preset=*) case "$name" in
{presets}
    esac ;;
    *) words="{plain} {engine}"; case "$name" in
{keys}
    esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  if [[ "$COMP_WORDBREAKS" == *"="* && "$cur" == *"="* ]]; then
    COMPREPLY=("${{COMPREPLY[@]#"${{cur%=*}}="}}")
  fi
  if [[ "${{COMPREPLY[0]}}" == *"=" ]]; then compopt -o nospace 2> /dev/null; fi
}}
complete -o default -F _fm_science fm-science
"""


def bash(found: Known) -> str:
    """The script of bash."""
    return BASH.format(
        commands=" ".join(COMMANDS), domains=" ".join(f"domain={name}" for name in found.presets),
        presets=_cases(found.presets, "preset=", 'words="{}"'), plain=" ".join(PLAIN), engine=" ".join(found.engine),
        keys=_cases(found.keys, "", 'words="$words {}"'),
    )  # fmt: skip


ZSH = """#compdef fm-science
# zsh completion of fm-science
_fm_science() {{
  local name="" word
  local -a commands found
  if (( CURRENT == 2 )); then
    commands=({commands})
    _describe command commands
    return
  fi
  for word in $words; do
    [[ "$word" == domain=* ]] && name="${{word#domain=}}"
  done
  case "$words[CURRENT]" in
    domain=*) found=({domains}) ;;
    preset=*) case "$name" in
{presets}
    esac ;;
    *) found=({plain} {engine}); case "$name" in
{keys}
    esac ;;
  esac
  compadd -S '' -- $found
  _files
}}
compdef _fm_science fm-science
"""


def zsh(found: Known) -> str:
    """The script of zsh."""
    return ZSH.format(
        commands=" ".join(shlex.quote(f"{name}:{line}") for name, line in COMMANDS.items()),
        domains=" ".join(f"domain={name}" for name in found.presets),
        presets=_cases(found.presets, "preset=", "found=({})"), plain=" ".join(PLAIN), engine=" ".join(found.engine),
        keys=_cases(found.keys, "", "found+=({})"),
    )  # fmt: skip


def fish(found: Known) -> str:
    """The script of fish."""
    lines = ["# fish completion of fm-science"]
    for name, line in COMMANDS.items():
        described = line.replace("'", "\\'")
        lines.append(f"complete -c fm-science -n __fish_use_subcommand -f -a {name} -d '{described}'")
    rest = "complete -c fm-science -n 'not __fish_use_subcommand{}' -a '{}'"
    words = [*PLAIN, *(f"domain={name}" for name in found.presets), *found.engine]
    lines.append(rest.format("", " ".join(words)))
    for name in found.presets:
        own = [*(f"preset={preset}" for preset in found.presets[name]), *found.keys[name]]
        if own:
            lines.append(rest.format(f'; and string match -q "* domain={name} *" -- (commandline)" "', " ".join(own)))
    return "\n".join([*lines, ""])
