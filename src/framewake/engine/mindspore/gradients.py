"""The contract's gradients over MindSpore."""

from __future__ import annotations

import functools

import mindspore as ms
from mindspore import nn, ops

# Not ms.vjp: what it returns is found again by the identity of the inputs, and fails when two of them live on one.
_PRODUCT = ops.GradOperation(get_all=True, sens_param=True)


class MindsporeGradients:
    """Gradients of functions of flat dicts, and what functions may say about them."""

    def make_deterministic(self):
        _determine()

    def grad(self, function):
        def value_and_grad(weights, *arguments):
            names = list(weights)

            def of_leaves(*leaves):
                return function(dict(zip(names, leaves, strict=True)), *arguments)

            leaves = tuple(weights.values())
            value, grads = ms.value_and_grad(of_leaves, grad_position=tuple(range(len(leaves))))(*leaves)
            grads = grads if isinstance(grads, tuple) else (grads,)  # of a single weight it comes bare
            return value, dict(zip(names, grads, strict=True))

        return value_and_grad

    def vjp(self, function):
        def product(leaves, cotangents, *arguments):
            names, is_one = list(leaves), len(cotangents) == 1

            def of_leaves(*values):
                outputs = function(dict(zip(names, values, strict=True)), *arguments)
                return outputs[0] if is_one and isinstance(outputs, tuple) else outputs

            # Of one output the cotangent is bare.
            sens = cotangents[0] if is_one else tuple(cotangents)
            # As other objects than the arguments: what is a leaf is told by that.
            values = [ops.stop_gradient(x) for x in leaves.values()]
            return dict(zip(names, _PRODUCT(of_leaves)(*values, sens), strict=True))

        return product

    def stop_gradient(self, x):
        return ops.stop_gradient(x)

    def recompute(self, function):
        cell = _Cell(function)

        def call(*arguments):
            # The default way fails on dicts and tuples.
            return ms.recompute(cell, *arguments, use_reentrant=False)

        return call

    def adapted_linear(self, x, weight, factors, bias=None):
        up, down = factors
        # Zero, with the gradients of the factors: nothing here is written for one kind of device.
        low = self.linear(self.linear(self.stop_gradient(x), down), up)
        return self.linear(x, weight, bias) + (low - self.stop_gradient(low))


@functools.cache  # MindSpore refuses to be told twice
def _determine():
    ms.set_deterministic(True)


class _Cell(nn.Cell):
    """A function as the kind of object that recomputation is documented for."""

    def __init__(self, function):
        super().__init__()
        self._function = function

    def construct(self, *arguments):
        return self._function(*arguments)
