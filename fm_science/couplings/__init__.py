"""Couplings: which noise meets which datum."""

from fm_science.couplings.base import Coupling as Coupling
from fm_science.couplings.base import Independent as Independent
from fm_science.couplings.base import Paired as Paired
from fm_science.couplings.base import PartCoupling as PartCoupling
from fm_science.couplings.inpainting import Inpainting as Inpainting
from fm_science.couplings.plans import ExactPlan as ExactPlan
from fm_science.couplings.plans import Sinkhorn as Sinkhorn
from fm_science.couplings.plans import Unbalanced as Unbalanced
from fm_science.couplings.ranks import GatherRanks as GatherRanks
from fm_science.couplings.semidiscrete import Semidiscrete as Semidiscrete
from fm_science.couplings.teacher import Reflow as Reflow
from fm_science.couplings.transport import Transport as Transport
from fm_science.couplings.workers import PrefetchedCoupling as PrefetchedCoupling
from fm_science.declarations import renamed_names

__getattr__ = renamed_names(
    __name__,
    {
        "AllRanks": "GatherRanks",
        "InWorkers": "PrefetchedCoupling",
        "OnPart": "PartCoupling",
        "Teacher": "Reflow",
    },
)
