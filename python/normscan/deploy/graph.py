"""Distances as part of the network's graph: a bundle's engine then hands over maps instead of features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from normscan import ops
from normscan.errors import UsageError
from normscan.nn.outputs import outputs_type
from normscan.ops.autograd.distance_onnx import METRICS
from normscan.scoring.spec import ScoringSpec, Term


def distances_in_graph(network: nn.Module, spec: ScoringSpec) -> tuple[nn.Module, ScoringSpec]:
    """A network that gives the map of each distance term, and the spec that takes it as a "value"; scores are the same.

    Distances that look through a window (ssim, cs) stay as they are. A `UsageError` where no other is left.
    """
    moved: dict[str, Term] = {}
    terms: list[Term] = []
    kept: list[str] = []
    for i, term in enumerate(spec.terms, start=1):
        if _fits(term):
            moved[f"distance_{i}"] = term
            terms.append(_as_value(term, f"distance_{i}"))
        else:
            terms.append(term)
            kept += term.of
    if not moved:
        raise UsageError(f"{spec.family} has no distance of {', '.join(METRICS)} that the graph could hold")
    return _WithDistances(network, moved, list(dict.fromkeys(kept))), replace(spec, terms=tuple(terms))


def _fits(term: Term) -> bool:
    return term.op == "distance" and term.metric in METRICS


def _as_value(term: Term, name: str) -> Term:
    return Term("value", (name,), per="position", pool=term.pool, scale=term.scale, weight=term.weight)


class _WithDistances(nn.Module):
    """The network's outputs that are still asked for, and a map [N,1,h,w] of each distance."""

    def __init__(self, network: nn.Module, terms: dict[str, Term], kept: list[str]) -> None:
        super().__init__()
        self.network, self.kept = network, kept
        self.pairs = [(*term.of, str(term.metric)) for term in terms.values()]
        self.outputs = outputs_type([*kept, *terms])

    def forward(self, x: Tensor) -> Any:
        """x [N,C,H,W] -> named outputs."""
        found = self.network(x)._asdict()
        maps = [ops.distance_map(found[a], found[b], metric=metric)[:, None] for a, b, metric in self.pairs]
        return self.outputs(*(found[name] for name in self.kept), *maps)
