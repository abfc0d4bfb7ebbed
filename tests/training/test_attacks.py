"""Attacks step by step against loops in numpy; what they do to a loss is in test_losses.py."""

import numpy as np
import pytest
import torch

from ancer.training.attacks import ATTACKS, ddn, pgd


def scripted(directions, wrong):
    """A `smoothed` of two classes for labels 0.

    Its loss climbs along directions[k] (B, ...) at its k-th call.
    """
    calls = iter(zip(directions, wrong, strict=True))

    def smoothed(x):
        direction, is_wrong = next(calls)
        climb = (x * direction).flatten(1).sum(1)
        climb = climb - climb.detach() + torch.where(is_wrong, 1.0, -1.0)
        return torch.stack([-climb, climb], dim=1)

    return smoothed


def script(steps, shape=(6, 1, 4, 4)):
    """Images with pixels at and near the bounds, directions and outcomes for every step."""
    rng = np.random.default_rng(5)
    x = np.rint(255 * np.clip(rng.uniform(-0.4, 1.4, shape), 0, 1)) / 255
    directions = rng.standard_normal((steps, *shape))
    return x, directions, rng.random((steps, shape[0])) < 0.5


def norms(x):
    return np.sqrt((x**2).reshape(len(x), -1).sum(1)).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_pgd_step_by_step(steps, epsilon):
    """Against the published loop in numpy.

    Along the unit gradient, clamp to the box, project to the ball.
    """
    x, directions, wrong = script(steps)
    delta = np.zeros_like(x)
    for g in directions:
        delta = np.clip(x + delta + epsilon / steps * 2 * g / norms(g), 0, 1) - x
        delta *= np.minimum(1, epsilon / norms(delta))
    tensors = [torch.from_numpy(t).float() for t in (directions, x)]
    found = pgd(
        scripted(tensors[0], torch.from_numpy(wrong)),
        tensors[1],
        torch.zeros(6).long(),
        epsilon,
        steps,
    )
    assert found.numpy() == pytest.approx(x + delta, abs=1e-5)


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_ddn_step_by_step(steps, epsilon):
    """Against a loop in numpy; the outcomes are scripted, so that norms rise and fall."""
    x, directions, wrong = script(steps)
    delta = np.zeros_like(x)
    best = np.zeros_like(x)
    norm = np.ones((6, 1, 1, 1))
    least = np.full((6, 1, 1, 1), np.inf)
    for k, g in enumerate(directions):
        lost = wrong[k].reshape(-1, 1, 1, 1)
        better = lost & (norms(delta) < least)
        best = np.where(better, delta, best)
        least = np.where(better, norms(delta), least)
        delta = delta + (0.01 + (1 - 0.01) * (1 + np.cos(np.pi * k / steps)) / 2) * g / norms(g)
        norm = norm * np.where(lost, 1 - 0.05, 1 + 0.05)
        delta = np.clip(np.rint((x + delta * norm / norms(delta)) * 255) / 255, 0, 1) - x
    best *= np.minimum(1, epsilon / np.maximum(norms(best), 1e-9))
    tensors = [torch.from_numpy(t).float() for t in (directions, x)]
    found = ddn(
        scripted(tensors[0], torch.from_numpy(wrong)),
        tensors[1],
        torch.zeros(6).long(),
        epsilon,
        steps,
    )
    assert found.numpy() == pytest.approx(x + best, abs=1e-5)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.5, 2.0, 10.0])
def test_attacks_stay_in_the_ball_and_in_the_box(attack, epsilon):
    """1,000 images with pixels at the bounds, a network and noise."""
    pixels = torch.rand(1000, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x = pixels.mul(1.6).sub(0.3).clamp(0, 1)
    weights = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    noise = 0.25 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    def smoothed(y):
        return ((y + noise).flatten(1) @ weights.T).log_softmax(1)

    attacked = ATTACKS[attack](smoothed, x, torch.arange(1000) % 4, epsilon, 6)
    assert attacked.min() >= 0 and attacked.max() <= 1
    length = (attacked.double() - x.double()).flatten(1).norm(dim=1)
    assert 0.9 * min(epsilon, 1) <= length.max() <= epsilon * (1 + 1e-6)
    assert not attacked.requires_grad and x.min() >= 0
