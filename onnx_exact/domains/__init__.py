"""Domains: what the user declares of a graph's inputs, as one box an input."""

from onnx_exact.domains.domain import DOMAIN_KEY, Domain, InputLike
from onnx_exact.domains.spec import DomainLike, resolve_domain

__all__ = ["DOMAIN_KEY", "Domain", "DomainLike", "InputLike", "resolve_domain"]
