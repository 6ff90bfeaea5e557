"""Domains: what the user declares of a graph's inputs, as one box an input."""

from onnx_exact.domains.domain import DOMAIN_KEY, Domain, InputLike
from onnx_exact.domains.spec import DomainLike, carried_domain, resolve_domain
from onnx_exact.domains.within import domain_of_run, same_boxes

__all__ = [
    "DOMAIN_KEY",
    "Domain",
    "DomainLike",
    "InputLike",
    "carried_domain",
    "domain_of_run",
    "resolve_domain",
    "same_boxes",
]
