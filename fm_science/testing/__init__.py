"""Laws that spaces, priors, paths, couplings, networks and domains must satisfy, for our tests and for plugin authors.

Each check measures every law, and raises one AssertionError that names those that fail with their numbers. It returns
the measured errors by law, so that a table of them is one line away.
"""

from fm_science.testing.derivatives import check_derivatives as check_derivatives
from fm_science.testing.networks import check_domain as check_domain
from fm_science.testing.networks import check_network as check_network
from fm_science.testing.paths import check_coupling as check_coupling
from fm_science.testing.paths import check_path as check_path
from fm_science.testing.priors import check_prior as check_prior
from fm_science.testing.spaces import check_space as check_space
