"""Causal 3D convolution: a frame sees itself and earlier frames, never later ones."""

from __future__ import annotations

from collections.abc import Callable

from framewake.engine.contract import Engine, OnDemand, Tensor, Weights

Work = Callable[[Tensor, Tensor, Tensor], Tensor]  # what is convolved, weight and bias -> what comes of it
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
            return self._convolved(w, x)
        side = self.kernel // 2
        if past is not None:
            return self.of_window(w, self._behind(x, side, past), past)
        if x.shape[2] == 1:
            return self._single_frame(w, x, side)
        x = self.engine.pad(x, [(self.kernel - 1, 0), (side, side), (side, side)], mode="replicate")
        return self._convolved(w, x)

    def _convolved(self, w: Weights, x: Tensor) -> Tensor:
        return self._made(w, x, self._clip)

    def _made(self, w: Weights, x: Tensor, work: Work) -> Tensor:
        if isinstance(w, OnDemand):
            return self._by_rows(w, x, work)
        return work(x, w[self.weight], w[self.bias])

    def _by_rows(self, w: OnDemand, x: Tensor, work: Work) -> Tensor:
        """Some output channels at a time."""
        parts: list[Tensor] = []
        first, bias = 0, w[self.bias]
        for taps in w.rows(self.weight):
            parts.append(work(x, taps, bias[first : first + taps.shape[0]]))
            first += taps.shape[0]
        return parts[0] if len(parts) == 1 else self.engine.concat(parts, 1)

    def _clip(self, x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        return self.engine.conv3d(x, taps, bias, stride=self.stride)

    def of_window(self, w: Weights, x: Tensor, past: Past) -> Tensor:
        """The same of frames that have their edges, behind the last ones before them; what comes next sees them."""
        # Joined anew: a slice would keep all the frames alive that it was cut from.
        kept = range(x.shape[2] - self.kernel + 1, x.shape[2])
        past[self.weight] = self.engine.concat([x[:, :, n : n + 1] for n in kept], 2)
        return self._convolved(w, x)

    def _behind(self, x: Tensor, side: int, past: Past) -> Tensor:
        """Frames with their edges behind the last ones before them."""
        engine, before, edges = self.engine, past.get(self.weight), (side, side)
        if before is None:
            return engine.pad(x, [(self.kernel - 1, 0), edges, edges], mode="replicate")
        return engine.concat([before, engine.pad(x, [(0, 0), edges, edges], mode="replicate")], 2)

    def _single_frame(self, w: Weights, x: Tensor, side: int) -> Tensor:
        """One 2D convolution with the taps in time summed: each of them sees the same repeated frame."""
        y = self.engine.pad(x[:, :, 0], [(side, side), (side, side)], mode="replicate")
        return self._made(w, y, self._frame)[:, :, None]

    def _frame(self, x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        engine = self.engine
        weight = engine.cast(engine.sum(engine.cast(taps, "float32"), (2,)), engine.dtype(x))
        return engine.conv2d(x, weight, bias, stride=self.stride[1:])
