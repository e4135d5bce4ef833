"""fm_science: flow matching on the spaces of science.

The public names are listed here with their modules. Each is imported when it is first used, so that ``import
fm_science`` and the command line are fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fm_science.declarations import warn_renamed

__version__ = "0.2.0"

PUBLIC = {
    "state": "Context State",
    "spaces": "Categorical Centered Euclidean Functions Hyperbolic Leaf Mesh Product SO3 SPD Space Sphere Torus frames "
    "spectral_distance",
    "priors": "Classes Data GaussianProcess Harmonic IGSO3 Matern Normal Periodic Prior ProductPrior RBF "
    "Snapshots Uniform Wrapped",
    "schedules": "VE VP Betas Cosine Exponential Linear LipmanOT Polynomial Schedule SubVP Trigonometric",
    "predictions": "Endpoint Noise Posterior Prediction Score Velocity",
    "paths": "Bridge Gaussian Geodesic Interpolant Path Piecewise ProductPath Simulated brownian bump",
    "symmetries": "Mirrors Permutations Rotations Shifts Symmetry Translations",
    "couplings": (
        "Coupling ExactPlan GatherRanks Independent Inpainting Paired PartCoupling PrefetchedCoupling Reflow "
        "Semidiscrete Sinkhorn Transport Unbalanced"
    ),
    "solvers": "DDIM DDPM RK4 Adaptive Adjoint AnnealedLangevin Churn DPMSolver Euler EulerMaruyama FlowMap Heun "
    "Langevin Midpoint Multistep PredictorCorrector Restart ReverseSDE Solver power_grid log_snr_grid uniform_grid",
    "likelihood": "Divergence Estimate ExactTrace HutchPP Hutchinson bits_per_dimension elbo elbo_estimate "
    "entropy_along",
    "networks": "EGNN Embedding FNO ICNN Blocks ConvexMap Guided LatentOperator Network NodeEmbedding PlanarMap "
    "PointField Potential ProjectedEndpoint Rescheduled ScoreGuided SetTransformer TemperatureScaled TimeEmbedding "
    "TransportMap ZukoMap",
    "networks.message_passing": "MessagePassing",
    "networks.tensor_field": "TensorField",
    "posterior": "PosteriorGuided",
    "particles": "Particles",
    "population": "Population",
    "flow": "Flow Sampler",
    "standardised": "Standardised",
    "objectives": "JKO ActionMatching AdjointMatching BetaTime ChainTime FlowMapMatching FlowMatching InverseSquare "
    "KantorovichDual Lagrangian LogitNormalTime MaximumLikelihood MeanFlow Mixture Objective PolicyGradient Rewarded "
    "ScoreMatching Semigroup "
    "Stratified TimePairs UniformTime",
    "metrics": "Metric",
    "distances": "bures critic_wasserstein energy_distance frechet jensen_shannon line_wasserstein "
    "sinkhorn_divergence sliced_wasserstein wasserstein",
    "identities": "backward_drift continuity_residual current_velocity fokker_planck_residual "
    "ornstein_uhlenbeck_bridge osmotic_velocity probability_flow transport_bound",
    "sde": "SDE brownian_increments euler_maruyama milstein stochastic_heun",
    "data": "TrainingData",
    "domain": "Domain group groups option",
    "errors": "ContractError OptionError UserError",
    "models": "load",
    "training": "fit",
}
#: replaced names, which keep working for one release
RENAMED = {
    "AllRanks": "GatherRanks", "InWorkers": "PrefetchedCoupling", "OnPart": "PartCoupling",
    "SiteFeatures": "NodeEmbedding", "Spans": "TimePairs", "Steered": "ScoreGuided", "Teacher": "Reflow",
    "Tempered": "TemperatureScaled", "ratio_grid": "log_snr_grid",
}  # fmt: skip
HOMES = {name: module for module, names in PUBLIC.items() for name in names.split()}

__all__ = ["__version__", *HOMES]


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    if name in RENAMED:
        warn_renamed(f"{__name__}.{name}", RENAMED[name])
        return getattr(import_module(__name__), RENAMED[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
