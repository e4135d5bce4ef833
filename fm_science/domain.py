"""A domain is one science's choice of everything: space, path, prior, network, data and metrics.

A science is a subclass of :class:`Domain` with a dozen short methods. Its options are groups, each a frozen dataclass:
the defaults are defined only there. Data are read by training and evaluation only. What sampling needs to know about
them (standard deviation, sizes, classes, ...) is fitted once, as *statistics*, and stored in the run. The engine never
imports a domain: it finds one through an entry point of the group ``fm_science.domains`` that names the class.
"""

from __future__ import annotations

import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import nn

from fm_science.data import TrainingData, collate
from fm_science.errors import OptionError, UserError, nearest
from fm_science.flow import Flow, Sampler
from fm_science.metrics import Metric
from fm_science.objectives import FlowMatching, Objective
from fm_science.options import Configured
from fm_science.options import group as group
from fm_science.options import groups as groups
from fm_science.options import option as option
from fm_science.paths import Path
from fm_science.prepared import Preparation
from fm_science.priors import Prior
from fm_science.state import Context, State
from fm_science.symmetries import Symmetry

Statistics = Mapping[str, Any]  #: what a domain fitted to its data: plain values and tensors by name, nested


class Domain(Configured, ABC):
    """One science. Decoded objects (a backbone, a molecule, an image) are what scientists read and write.

    A subclass names itself, declares its groups of options, and writes the seven abstract methods; the others have
    defaults that serve ordinary cases::

        @dataclass(frozen=True)
        class Options:
            data: Data = Data()
            network: Network = Network()

        class Crystal(Domain):
            name = "crystal"
            options: Options

    An instance is made from groups, each a dataclass, a mapping of some of its fields, or ``None``:
    ``Crystal(data={"limit": 100})``. Everything else is created when it is first used: the network with initial weights
    from torch's generator, the data when training or evaluation need them.

    Args:
        statistics: those of an earlier fit; ``None``: they are fitted from the data at first use.
        groups: the groups of options by name.

    Attributes:
        name: the name on the command line.
        options: the groups of options.
        given: the statistics that were given, ``None`` if the domain fits its own. Data are encoded with them.
        slow: the names of metrics that only ``evaluate`` measures, since they would slow down training.
        numbered: whether :meth:`request` takes ``first``, the number of its first sample, since samples belong to
            something that has an order, such as rows of a file.
        metric_meanings: one line for each number that the metrics give: what it is, its unit, which direction is
            better.
        trace_atom: the name of the atom that traces a chain in files of samples; "": there are no chains.
        sample_batch: samples that are generated together by default.
        evaluation_samples: samples that ``evaluate`` draws by default.
        renamed_options: names ``group.option`` in older runs, and their present names.
        renamed_weights: prefixes of names of weights in older runs, and their present prefixes.

    Raises:
        OptionError: for an unknown group or option, or a value that does not fit.
    """

    name: str
    options: Any
    slow: frozenset[str] = frozenset()
    numbered: bool = False
    metric_meanings: Mapping[str, str] = types.MappingProxyType({})
    trace_atom: str = ""
    sample_batch: int = 16
    evaluation_samples: int = 50
    renamed_options: Mapping[str, str] = types.MappingProxyType({})
    renamed_weights: Mapping[str, str] = types.MappingProxyType({})

    def __new__(cls, *args: Any, **fields: Any) -> Domain:
        if cls is Domain:  # a record of parts, as domains were written before they were classes
            from fm_science.record import RecordDomain

            return object.__new__(RecordDomain)  # type: ignore[type-abstract]
        return object.__new__(cls)

    def __init__(self, statistics: Statistics | None = None, **groups: Any) -> None:
        kinds = self.groups()
        for name in groups:
            if name not in kinds:
                raise OptionError(f"unknown group of options {name!r}; {nearest(name, kinds)}")
        chosen = {name: group(kind, groups.get(name), name) for name, kind in kinds.items()}
        self.given = statistics
        self.options = typing.get_type_hints(type(self))["options"](**chosen)
        self.check_options()

    # ------------------------------------------------------------------------------------ what every science defines

    @abstractmethod
    def load_data(self) -> TrainingData:
        """Read the training and held-out sets. Called once, and by training and evaluation only. If :attr:`given`
        statistics define a vocabulary, classes or a scale, data are encoded with those. Raises UserError if there are
        no usable data."""

    @abstractmethod
    def build_flow(self, statistics: Statistics) -> Flow:
        """Path, prior, new network and sampler, from options and statistics alone."""

    @abstractmethod
    def request(self, n: int, *names: Any, **sample: Any) -> Context:
        """What to sample, ``n`` times; keywords override the options of the group ``sample``. Reads no data. Raises
        UserError if that is not possible."""

    @abstractmethod
    def decode(self, state: State, context: Context) -> list[Any]:
        """The objects of a batch of states at t = 1."""

    @abstractmethod
    def read(self, paths: Sequence[Any]) -> list[Any]:
        """Decoded objects from files or folders. Raises UserError if one cannot be read."""

    @abstractmethod
    def write(self, samples: Sequence[Any], folder: FilePath, first: int = 0) -> list[FilePath]:
        """Write decoded objects into a folder, numbered from ``first``; returns the files."""

    @abstractmethod
    def build_metrics(self) -> Mapping[str, Metric]:
        """The metrics by name; each takes (samples, reference) and gives named numbers, NaN for those that are not
        defined, as when the reference is empty. Data are read when a metric that needs them is called."""

    # ------------------------------------------------------------------------------------------- what has a default

    def check_options(self) -> None:
        """Raise OptionError or UserError if options are not compatible, before any work. Reads no data."""

    def count_samples(self, n: int | None) -> int:
        """How many samples to draw if ``n`` are requested; ``None``: no number was given."""
        return 10 if n is None else n

    def fit_statistics(self, data: TrainingData) -> Statistics:
        """Everything that sampling needs to know about the data: standard deviation, sizes, classes, ... Plain values
        and tensors, nested."""
        return {}

    def build_objective(self, statistics: Statistics) -> Objective:
        """What a training step minimises."""
        return FlowMatching()

    def references(self, samples: Sequence[Any]) -> dict[str, list[Any]]:
        """Rows to compare samples with; the first is the held-out set. Reads the data."""
        held_out = self.data.validation
        state, context = collate(self.path.space, [held_out[i] for i in range(min(len(held_out), 1000))])
        return {"held-out": self.decode(state, context)}

    def report(self, rows: Mapping[str, list[Any]], folder: FilePath) -> list[FilePath]:
        """Draw pictures of rows of decoded objects; returns their files."""
        return []

    def encode(self, samples: Sequence[Any]) -> tuple[State, Context]:
        """A batch of decoded objects as states at t = 1 with their context, so that ``decode`` returns them: the start
        of variants. Raises UserError if one cannot be represented with what was learned."""
        raise UserError(f"domain {self.name!r} makes no variants of files: it cannot encode objects as states")

    def trajectory(self, frames: Sequence[Sequence[Any]], folder: FilePath, first: int = 0) -> list[FilePath]:
        """Write the trajectory from noise to each sample, if a science can; ``frames[k][i]`` is sample i after step
        k."""
        raise NotImplementedError(f"domain {self.name!r} cannot write trajectories")

    def per_sample_metrics(self, samples: Sequence[Any]) -> list[dict[str, Any]]:
        """Every metric of each sample, for a table with one row per sample; empty if there is none."""
        return []

    def evaluate_flow(self, flow: Flow, folder: FilePath | None = None) -> dict[str, float]:
        """Measurements of the trained flow itself, such as likelihoods; pictures of it are drawn into the
        folder. Reads the data."""
        return {}

    def write_provenance(self, folder: FilePath) -> list[FilePath]:
        """What to store with a run, such as a list of data that were left out. Reads the data."""
        return []

    def preparation(self) -> Preparation[Any] | None:
        """How ``fm-science prepare`` reads files into one; ``None``: it cannot. Reads no data."""
        return None

    @cached_property
    def symmetries(self) -> Sequence[Symmetry]:
        """Transformations under which the distribution of the data does not change, conditions included."""
        return ()

    @cached_property
    def equivariant(self) -> bool:
        """Whether the network commutes with every symmetry."""
        return True

    @cached_property
    def network_symmetries(self) -> Sequence[Symmetry]:
        """The symmetries that the network commutes with, which ``check_domain`` tests. By default all, or none where it
        is not :attr:`equivariant`; define it where a network respects some of them."""
        return self.symmetries if self.equivariant else ()

    # ------------------------------------------------------------------------------------- what follows from these

    @property
    def writes_trajectories(self) -> bool:
        """Whether :meth:`trajectory` exists."""
        return type(self).trajectory is not Domain.trajectory

    @cached_property
    def augmentations(self) -> tuple[Symmetry, ...]:
        """The symmetries that the network lacks: training moves its data by them at random."""
        return tuple(s for s in self.symmetries if s not in self.network_symmetries)

    @cached_property
    def data(self) -> TrainingData:
        """The training and held-out sets, read at first use; torch's generator is left as it was."""
        with torch.random.fork_rng([]):
            return self.load_data()

    @cached_property
    def statistics(self) -> Statistics:
        """The given ones, else fitted from the data at first use."""
        if self.given is not None:
            return self.given
        with torch.random.fork_rng([]):
            return self.fit_statistics(self.data)

    @cached_property
    def _built(self) -> Flow:
        return self.build_flow(self.statistics)

    @cached_property
    def path(self) -> Path:
        """The path of samples, and what the network's output means."""
        return self._built.path

    @cached_property
    def prior(self) -> Prior:
        """The distribution of their start."""
        return self._built.prior

    @cached_property
    def network(self) -> nn.Module:
        """The network that is trained."""
        return self._built.network

    @cached_property
    def sampler(self) -> Sampler:
        """How samples are drawn by default."""
        return self._built.sampler

    @cached_property
    def objective(self) -> Any:
        """What a training step minimises."""
        return self.build_objective(self.statistics)

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics of samples, by name."""
        return self.build_metrics()

    def flow(self) -> Flow:
        """The flow of this domain, untrained, or with the trained weights of the domain's network."""
        flow = Flow(self.path, self.prior, self.network, self.sampler, domain=self)
        if isinstance(self.objective, Objective):
            self.objective.record_training(flow)
        return flow
