"""The figures of guidance that `langevin check` shows are wrong where guidance is."""

import pytest
import torch

from langevin.diffusion.schedules import VE, VPLinear
from langevin.guidance import autoguidance, covariance
from langevin.recipes import check, guidance_oracles


def wrong() -> set[str]:
    return {c.name for c in check._measured("guidance", "", check._guidance) if not c.ok}


def test_all_is_right() -> None:
    assert wrong() == set()


def test_a_scale_one_percent_off_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    lerp = torch.lerp
    monkeypatch.setattr(autoguidance.torch, "lerp", lambda a, b, s: lerp(a, b, 1.01 * s))
    mean, _ = guidance_oracles.guided_law(3.0, 0.5, 0.5)
    assert abs(mean - 2.99925) > 1e-2


def test_a_covariance_without_its_sigma_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covariance, "lever", lambda process, t, x: process.schedule.alpha(t))
    assert guidance_oracles.measured_gap(VE()) > 1e-2


def test_a_denoiser_that_is_not_moved_is_seen() -> None:
    assert guidance_oracles.rescheduled_gap(VE(), VPLinear()) < 1e-11
    moved = guidance_oracles.Rescheduled
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guidance_oracles, "Rescheduled", lambda d, s: moved(d, d.process.schedule))
        assert guidance_oracles.rescheduled_gap(VE(), VPLinear()) > 1e-2
