"""Laws that spaces, priors, paths, couplings, networks and domains must obey, for our tests and for plugin authors.

Each check measures every law, and raises one AssertionError that names the broken ones with their numbers. It returns
the measured errors by law, so that a table of them is one line away.
"""

from fm_science.testing.spaces import check_space as check_space
