"""Causal 3D convolution: a frame sees itself and earlier frames, never later ones."""

from __future__ import annotations

from framewake.engine.contract import Engine, Tensor, Weights

Past = dict[str, Tensor]  # what earlier frames leave for later ones, by the layer's name


class CausalConv3d:
    """3D convolution whose time padding is all at the front; edges are repeated, not zero.

    Shapes: x (B, I, F, H, W) -> (B, O, ceil(F / s), ceil(H / s), ceil(W / s)) for odd kernels.
    Source: specification, section 7.3.
    """

    def __init__(
        self, engine: Engine, name: str, *, inputs: int, outputs: int, kernel: int = 3, stride: tuple = (1, 1, 1)
    ) -> None:
        self.engine = engine
        self.weight = f"{name}.weight"
        self.bias = f"{name}.bias"
        self.inputs = inputs
        self.outputs = outputs
        self.kernel = kernel
        self.stride = stride

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight."""
        return {
            self.weight: (self.outputs, self.inputs, self.kernel, self.kernel, self.kernel),
            self.bias: (self.outputs,),
        }

    def __call__(self, w: Weights, x: Tensor, *, past: Past | None = None) -> Tensor:
        """With a ``past``, x are some frames of a clip behind those of the call before; strides in time are 1 then."""
        if self.kernel == 1:
            return self.engine.conv3d(x, w[self.weight], w[self.bias], stride=self.stride)
        side = self.kernel // 2
        if past is not None:
            return self.engine.conv3d(self._behind(x, side, past), w[self.weight], w[self.bias], stride=self.stride)
        if x.shape[2] == 1:
            return self._single_frame(w, x, side)
        x = self.engine.pad(x, [(self.kernel - 1, 0), (side, side), (side, side)], mode="replicate")
        return self.engine.conv3d(x, w[self.weight], w[self.bias], stride=self.stride)

    def _behind(self, x: Tensor, side: int, past: Past) -> Tensor:
        """Frames with their edges behind the last ones before them, and what comes next in the past."""
        engine, before = self.engine, past.get(self.weight)
        if before is None:
            x = engine.pad(x, [(self.kernel - 1, 0), (side, side), (side, side)], mode="replicate")
        else:
            x = engine.concat([before, engine.pad(x, [(0, 0), (side, side), (side, side)], mode="replicate")], 2)
        # Joined anew: a slice would keep all the frames alive that it was cut from.
        kept = range(x.shape[2] - self.kernel + 1, x.shape[2])
        past[self.weight] = engine.concat([x[:, :, n : n + 1] for n in kept], 2)
        return x

    def _single_frame(self, w: Weights, x: Tensor, side: int) -> Tensor:
        """One 2D convolution with the taps in time summed: each of them sees the same repeated frame."""
        engine = self.engine
        taps = engine.cast(w[self.weight], "float32")
        weight = engine.cast(engine.sum(taps, (2,)), engine.dtype(x))
        y = engine.pad(x[:, :, 0], [(side, side), (side, side)], mode="replicate")
        return engine.conv2d(y, weight, w[self.bias], stride=self.stride[1:])[:, :, None]
