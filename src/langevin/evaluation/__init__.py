"""How good generated items are, always beside what real, unseen items score in the same place.

Figures are distances of laws in features that need no download: `features` describes items by fixed arithmetic, `learned` by
a small network that knows the training items; `metrics` holds one file a metric, `copies` asks whether training items are said
again, and `figures` puts them together with their intervals and real-against-real floors. None of them is FID or KID of
Inception features and none carries that name: values compare with each other, never with published tables. Features of networks
that other people trained are in `pretrained`.
"""

from langevin.evaluation.figures import Figure, figures, table
from langevin.evaluation.labels import label_agreement
from langevin.evaluation.metrics.frechet import frechet, frechet_distance
from langevin.evaluation.metrics.kernel import kernel_distance

__all__ = ["Figure", "figures", "frechet", "frechet_distance", "kernel_distance", "label_agreement", "table"]
