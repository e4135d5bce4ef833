"""Couplings: which noise meets which datum."""

from fm_science.couplings.base import Coupling as Coupling
from fm_science.couplings.base import Independent as Independent
from fm_science.couplings.base import OnPart as OnPart
from fm_science.couplings.base import Paired as Paired
from fm_science.couplings.inpainting import Inpainting as Inpainting
from fm_science.couplings.plans import ExactPlan as ExactPlan
from fm_science.couplings.plans import Sinkhorn as Sinkhorn
from fm_science.couplings.plans import Unbalanced as Unbalanced
from fm_science.couplings.ranks import AllRanks as AllRanks
from fm_science.couplings.semidiscrete import Semidiscrete as Semidiscrete
from fm_science.couplings.teacher import Teacher as Teacher
from fm_science.couplings.transport import Transport as Transport
from fm_science.couplings.workers import InWorkers as InWorkers
