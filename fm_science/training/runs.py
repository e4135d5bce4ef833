"""Runs: a folder that holds everything about one training, and how to get its flow back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fm_science.domain import Domain
from fm_science.errors import UserError
from fm_science.flow import Flow
from fm_science.plugins import find
from fm_science.trust import source


def read_config(run: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration of a run. Raises UserError where ``run`` is no run folder."""
    file = Path(run) / "config.yaml"
    if not file.is_file():
        raise UserError(f"{str(run)!r} is no run folder: it has no config.yaml. Give a folder that training wrote.")
    config = yaml.safe_load(file.read_text())
    if not isinstance(config, dict) or "domain" not in config:
        raise UserError(f"{str(file)!r} names no domain: it is not the configuration of a run.")
    return config


def build(config: Mapping[str, Any]) -> Domain:
    """The domain a configuration describes; groups that the domain does not know are left to others."""
    plugin = find(config["domain"])
    return plugin.builder()(**{name: config[name] for name in plugin.options() if config.get(name) is not None})


def load(run: str | os.PathLike[str], trust: bool = False) -> Flow:
    """The flow of a run folder, with its averaged weights and its domain. Code that the run names, such as an energy of
    the user's own, is imported only with ``trust``.

    Raises:
        UserError: when the folder is no run or holds no checkpoint yet.
    """
    config = read_config(run)
    checkpoint = Path(run) / "checkpoints" / "last.ckpt"
    if not checkpoint.is_file():
        raise UserError(
            f"the run {str(run)!r} has no checkpoint yet: expected {checkpoint.name} in its checkpoints folder."
        )
    with source(None if trust else str(run)):
        return build(config).flow().load(checkpoint).eval()
