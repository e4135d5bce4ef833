"""Pairing where batches are made, so that training does not wait for it.

Transport is solved on the processor while the accelerator sits idle. In a data worker the same work overlaps with the
step before: the worker draws the noise, pairs it, and the batch arrives with both its ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from fm_science.couplings.base import Coupling
from fm_science.declarations import derived
from fm_science.errors import OptionError
from fm_science.priors import Prior, cast
from fm_science.seeds import seeded
from fm_science.spaces import Space
from fm_science.state import Context, State, leaves
from fm_science.symmetries import Symmetry


@dataclass(frozen=True)
class PrefetchedCoupling(Coupling):
    """A coupling that is solved by the processes that load data. Noise that comes along with a batch is paired
    already; where none comes along (validation) it is drawn and paired in place. With no data workers the pairs are
    the same, made by the training process itself.

    Args:
        coupling: what is solved, e.g. ``Transport(Rotations())``. It runs in a process of its own, without the other
            ranks and without an accelerator: ``Reflow`` and ``gather`` do not belong here.
    """

    coupling: Coupling
    pre_paired = True

    def __post_init__(self) -> None:
        if self.coupling.gather is not None:
            raise OptionError("PrefetchedCoupling cannot gather from other ranks: data workers are in no process group")

    @derived
    def independent(self) -> bool:
        return self.coupling.independent

    @derived
    def independent_parts(self) -> tuple[str, ...]:
        return self.coupling.independent_parts

    def preparation(self, space: Space, prior: Prior, augmentations: tuple[Symmetry, ...] = ()) -> Preparation:
        """What a data worker does to each batch, for ``train_loader(..., prepare=...)``."""
        return Preparation(self.coupling, space, prior, augmentations)

    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        return self.coupling.pair(space, x0, x1, context)


@dataclass(frozen=True)
class Preparation:
    """What a data worker does to a batch.

    Args:
        coupling: makes the pairs.
        space: of the states, not bound.
        prior: of the noise.
        augmentations: symmetries by which data are first moved at random.
    """

    coupling: Coupling
    space: Space
    prior: Prior
    augmentations: tuple[Symmetry, ...] = ()

    def __call__(self, x1: State, context: Context, seed: int) -> tuple[State, Context, State]:
        """Data, context and noise, paired; the same for the same batch and seed, in whichever process."""
        with seeded(seed, context.mask.device):
            space = self.space.bind(context)
            for symmetry in self.augmentations:
                x1 = symmetry.randomise(space, x1)
            x0 = cast(space, self.prior.sample(space, context), leaves(x1)[0])
            x0, x1, context = self.coupling.pair(space, x0, x1, context)
        return x1, context, x0
