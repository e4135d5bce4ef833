"""fm_science: flow matching on the spaces of science."""

__version__ = "0.1.0"
