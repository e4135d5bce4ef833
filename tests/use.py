"""What tests of mistakes share: domains make things when they are first used, so mistakes show then."""

from __future__ import annotations

from fm_science.domain import Domain


def use(domain: Domain) -> Domain:
    """Ask a domain for all that training asks for before its first step."""
    domain.flow()
    domain.request(1)
    return domain
