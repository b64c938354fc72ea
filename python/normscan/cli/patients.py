"""Patients whose pictures are scored: the part of `normscan score` that makes one row of all pictures of a folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normscan.deploy.session import Session


class Patients:
    """Scores of pictures by patient, who is the folder that they lie in: models with thresholds diagnose these."""

    def __init__(self, session: Session) -> None:
        self._scorer = session.scorer
        self._scores: list[float] = []
        self._names: list[str] = []

    def add(self, path: Path, score: float) -> None:
        """One picture's score."""
        from normscan.data.histology import patient_of

        self._scores.append(score)
        self._names.append(patient_of(path.absolute().parent.name))

    def write(self, target: Path) -> str:
        """Write scores_patients.csv -> what it says in short."""
        import numpy as np

        from normscan.files import csv_text, write_bytes

        group = self._scorer.spec.group
        assert group is not None
        counts = Counter(self._names)
        found = self._scorer.group(np.asarray(self._scores), self._names) if self._names else {}
        densities = {name: group.density(score) for name, score in found.items()}
        rows = [(name, found[name], densities[name] or "", counts[name]) for name in found]
        write_bytes(target, csv_text([("patient", "score", "diagnosis", "pictures"), *rows]).encode())
        said = Counter(density for density in densities.values() if density)
        kinds = ", ".join(f"{count} {density}" for density, count in sorted(said.items())) or "no thresholds"
        return f"{len(found)} patients (folders): {kinds}; {target}"
