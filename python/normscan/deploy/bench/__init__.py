"""How fast a bundle scores, told honestly: each setting in a process of its own, in turns, verified before timed."""

from normscan.deploy.bench.measure import Row, Setting, measure, settings
from normscan.deploy.bench.peer import Peer

__all__ = ["Peer", "Row", "Setting", "measure", "settings"]
