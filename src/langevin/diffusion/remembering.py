"""No new evaluation where nothing changed: MDLM's cached sampler (Sahoo et al. 2024, section 4), row by row.

With N steps and L tokens a masked sample changes at most L times; every other step sees what the one before it saw. The exact
denoiser of masked tokens does not depend on the time, and a network need not either: then its last answer is its answer.
"""

from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.posterior import Categorical
from langevin.diffusion.process import MaskedDiffusion


class Remembering(Denoiser):
    """A denoiser of masked tokens that asks another one for the rows that changed since the last call, and for them alone.

    Args:
        denoiser: its answer must not depend on t: one whose network does not look at c_noise.

    One batch with one set of conditions is remembered; another is asked for anew.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        if not isinstance(denoiser.process, MaskedDiffusion):
            raise TypeError(f"only masked tokens stay as they are, not those of {type(denoiser.process).__name__}")
        self.denoiser, self.process = denoiser, denoiser.process
        self._last: tuple[Tensor, Condition | None, Tensor] | None = None

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Categorical:
        last = self._last
        if last is None or last[1] is not cond or last[0].shape != x_t.shape or last[0].device != x_t.device:
            logits = self._asked(x_t, t, cond)
        else:
            rows = (x_t != last[0]).flatten(1).any(1).nonzero()[:, 0]
            logits = last[2]
            if len(rows):
                some = None if cond is None else {name: value[rows] for name, value in cond.items()}
                logits = logits.index_copy(0, rows, self._asked(x_t[rows], t if t.ndim == 0 else t[rows], some))
        self._last = (x_t, cond, logits)
        return Categorical(logits)

    def _asked(self, x_t: Tensor, t: Tensor, cond: Condition | None) -> Tensor:
        q = self.denoiser(x_t, t, cond)
        assert isinstance(q, Categorical)
        return q.logits
