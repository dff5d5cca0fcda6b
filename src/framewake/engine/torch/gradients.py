"""The contract's gradients over torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint


class TorchGradients:
    """Gradients of functions of flat dicts, and what functions may say about them."""

    def grad(self, function):
        def value_and_grad(weights, *args):
            leaves = _leaves(weights)
            with torch.enable_grad():
                value = function(leaves, *args)
            return value.detach(), _gradients(leaves, [value], None)

        return value_and_grad

    def vjp(self, function):
        def product(leaves, cotangents, *args):
            leaves = _leaves(leaves)
            with torch.enable_grad():
                outputs = function(leaves, *args)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            pairs = [(y, c) for y, c in zip(outputs, cotangents, strict=True) if y.requires_grad]
            return _gradients(leaves, [y for y, _ in pairs], [c for _, c in pairs])

        return product

    def stop_gradient(self, x):
        return x.detach()

    def recompute(self, function):
        def call(*args):
            if not torch.is_grad_enabled():
                return function(*args)
            return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)

        return call

    def adapted_linear(self, x, weight, factors, bias=None):
        return _AdaptedLinear.apply(x, weight, *factors, bias)


class _AdaptedLinear(torch.autograd.Function):
    """With dy the cotangent: dx = dy weight, d_up = dy^T (x down^T), d_down = (dy up)^T x."""

    @staticmethod
    def forward(ctx, x, weight, up, down, bias):
        ctx.save_for_backward(x, weight, up, down)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, dy):
        x, weight, up, down = ctx.saved_tensors
        dx = dy @ weight if ctx.needs_input_grad[0] else None
        x, dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        return dx, None, dy.T @ (x @ down.T), (dy @ up).T @ x, None


def _leaves(tensors):
    return {name: x.detach().requires_grad_(True) for name, x in tensors.items()}


def _gradients(leaves, outputs, cotangents):
    """Of outputs, weighted by cotangents; zeros where nothing depends on a leaf."""
    found = [None] * len(leaves)
    if outputs:
        found = torch.autograd.grad(outputs, list(leaves.values()), cotangents, allow_unused=True)
    pairs = zip(leaves.items(), found, strict=True)
    return {name: torch.zeros_like(leaf) if g is None else g for (name, leaf), g in pairs}
