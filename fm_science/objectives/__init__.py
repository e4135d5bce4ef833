"""Objectives: what a training step minimises."""

from fm_science.declarations import renamed_names
from fm_science.objectives.action_matching import ActionMatching as ActionMatching
from fm_science.objectives.adjoint_matching import AdjointMatching as AdjointMatching
from fm_science.objectives.base import Objective as Objective
from fm_science.objectives.flow_map import FlowMapMatching as FlowMapMatching
from fm_science.objectives.flow_map import TimePairs as TimePairs
from fm_science.objectives.flow_matching import FlowMatching as FlowMatching
from fm_science.objectives.jko import JKO as JKO
from fm_science.objectives.kantorovich import KantorovichDual as KantorovichDual
from fm_science.objectives.laws import Lagrangian as Lagrangian
from fm_science.objectives.laws import MeanFlow as MeanFlow
from fm_science.objectives.laws import Semigroup as Semigroup
from fm_science.objectives.maximum_likelihood import MaximumLikelihood as MaximumLikelihood
from fm_science.objectives.policy_gradient import PolicyGradient as PolicyGradient
from fm_science.objectives.rewarded import Rewarded as Rewarded
from fm_science.objectives.score_matching import ScoreMatching as ScoreMatching
from fm_science.objectives.times import BetaTime as BetaTime
from fm_science.objectives.times import ChainTime as ChainTime
from fm_science.objectives.times import InverseSquare as InverseSquare
from fm_science.objectives.times import LogitNormalTime as LogitNormalTime
from fm_science.objectives.times import Mixture as Mixture
from fm_science.objectives.times import Stratified as Stratified
from fm_science.objectives.times import UniformTime as UniformTime

__getattr__ = renamed_names(__name__, {"Spans": "TimePairs"})
