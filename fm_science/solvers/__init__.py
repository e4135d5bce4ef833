"""Solvers: integration from noise to data."""

from fm_science.declarations import renamed_names
from fm_science.solvers.adaptive import Adaptive as Adaptive
from fm_science.solvers.adaptive import failed as failed
from fm_science.solvers.adjoint import Adjoint as Adjoint
from fm_science.solvers.base import Predict as Predict
from fm_science.solvers.base import Solver as Solver
from fm_science.solvers.diffusion import DDIM as DDIM
from fm_science.solvers.diffusion import DDPM as DDPM
from fm_science.solvers.diffusion import AnnealedLangevin as AnnealedLangevin
from fm_science.solvers.diffusion import DPMSolver as DPMSolver
from fm_science.solvers.diffusion import ReverseSDE as ReverseSDE
from fm_science.solvers.fixed import RK4 as RK4
from fm_science.solvers.fixed import Euler as Euler
from fm_science.solvers.fixed import Heun as Heun
from fm_science.solvers.fixed import Midpoint as Midpoint
from fm_science.solvers.flow_map import FlowMap as FlowMap
from fm_science.solvers.grids import grid_after as grid_after
from fm_science.solvers.grids import log_snr_grid as log_snr_grid
from fm_science.solvers.grids import power_grid as power_grid
from fm_science.solvers.grids import uniform_grid as uniform_grid
from fm_science.solvers.multistep import Multistep as Multistep
from fm_science.solvers.restart import Restart as Restart
from fm_science.solvers.stochastic import Churn as Churn
from fm_science.solvers.stochastic import EulerMaruyama as EulerMaruyama
from fm_science.solvers.stochastic import Langevin as Langevin
from fm_science.solvers.stochastic import PredictorCorrector as PredictorCorrector

__getattr__ = renamed_names(__name__, {"ratio_grid": "log_snr_grid"})
