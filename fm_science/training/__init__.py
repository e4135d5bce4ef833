"""Training: one Lightning loop for every domain, exact to the bit when it resumes."""

from fm_science.training.fit import fit as fit
from fm_science.training.module import FlowModule as FlowModule
from fm_science.training.options import Optimizer as Optimizer
from fm_science.training.options import Trainer as Trainer
from fm_science.training.runs import load as load
