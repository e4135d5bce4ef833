"""Any installed package can add a domain, and a broken one breaks only itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from fm_science.plugins import PluginError, domains, find

from .conftest import Command, metadata


def test_domains_are_listed_without_importing_them(fm: Command) -> None:
    shown = fm("domains").out
    assert "fm-ring 1.2.3" in shown
    assert "small" in shown  # its own preset
    assert "fm-broken 0.0.1" in shown


def test_every_option_is_explained(fm: Command) -> None:
    line = next(line for line in fm("domains", "ring").out.splitlines() if "data.radius" in line)
    assert " ".join(line.split()) == "data.radius float = 2.0 radius of the circle [nm; at least 0.0]"
    assert "trainer.max_steps" in fm("train", "domain=ring", "--help").out


@pytest.mark.usefixtures("installed")
def test_a_broken_plugin_says_what_is_wrong() -> None:
    with pytest.raises(PluginError, match=r"fm-broken 0\.0\.1.*libcudart"):
        find("broken").options()


def test_a_name_that_two_packages_offer(fm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata(tmp_path, "a-ring", "9.9", ring="other:build")
    metadata(tmp_path, "fm-science", "0.0", broken="builtin:build")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert domains()["ring"].dist == "a-ring"  # the first in the alphabet
    assert domains()["broken"].builtin  # a built-in domain before all others
    assert fm("domains").out.count("hidden by") == 2
