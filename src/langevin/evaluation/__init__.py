"""How good generated items are, always beside what real, unseen items score in the same place.

Figures are distances of laws in features that need no download and no network: `features` describes items, `frechet`
and `kernel` compare two sets of features, `prdc` asks for fidelity and variety apart, `neighbours` finds copies of
training items, and `figures` puts them together with their real-against-real floors. None of them is FID or KID of
Inception features and none carries that name: values compare with each other, never with published tables.
"""

from langevin.evaluation.figures import Figure, figures, table
from langevin.evaluation.frechet import frechet, frechet_distance
from langevin.evaluation.kernel import kernel_distance
from langevin.evaluation.labels import label_agreement

__all__ = ["Figure", "figures", "frechet", "frechet_distance", "kernel_distance", "label_agreement", "table"]
