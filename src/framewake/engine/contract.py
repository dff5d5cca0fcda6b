"""What a model may ask of a framework: the only place where an operation is documented.

Every engine (``engine/torch/``, ``engine/mindspore/``) has exactly these methods with exactly
these signatures; a test compares them.  Axis letters: ``B`` batch, ``C`` channels, ``F`` frames,
``H W`` grid, ``N M`` tokens, ``D`` width, ``A`` heads, ``E`` head width.

Tensors are the engine's own.  Outside an engine file they are touched only through these methods,
arithmetic and comparison operators, basic indexing (integers, slices with steps, ``None``, ``...``)
and ``.shape``.  There are no in-place operations.  Types are named by strings.  Python numbers keep a
tensor's type; two tensors that meet in one operation must already agree in type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from framewake.engine.traits import Traits

Tensor = Any
Dtype = Literal["float32", "float16", "bfloat16", "int64", "bool"]
Weights = dict[str, Tensor]
BY_TENSOR = ("",)  # what a model without blocks says is streamed: every large tensor by itself


class OnDemand(dict[str, Tensor]):
    """Weights that hold only the small tensors: a large one is made whenever it is asked for, and not kept."""

    def __missing__(self, name: str) -> Tensor:
        raise NotImplementedError

    def rows(self, name: str) -> Iterator[Tensor]:
        """A tensor some rows at a time, for whoever can use them one after another."""
        raise NotImplementedError


class Engine(Protocol):
    """One framework on one device."""

    name: str  # "torch:cpu", "torch:cuda:0", "mindspore:ascend:0", ...
    kind: str  # "torch" or "mindspore"
    device: str  # "cpu", "cuda:0", "ascend:0"
    reason: str  # why this engine was chosen, in a few words
    traits: Traits  # what decides how a run is done here
    attention_reason: str  # which fused kernel attention takes and why; empty before that is known
    plain_reason: str  # why a compiled function runs as it was written; empty as long as none does

    # --- make and move -------------------------------------------------------------------------

    def asarray(self, values: Any, dtype: Dtype | None = None) -> Tensor:
        """A tensor on this device from a numpy array, list or number (copied when it must be).

        Without ``dtype``: float64 becomes float32, int32 becomes int64, others keep their type. numpy has no
        bfloat16: a uint16 array with dtype "bfloat16" is taken for its bits. The array must not change later.
        """

    def numpy(self, x: Tensor) -> np.ndarray:
        """A numpy copy or view on the host; bfloat16 becomes float32. Waits for the device."""

    def zeros(self, shape: Sequence[int], dtype: Dtype = "float32") -> Tensor:
        """Zeros."""

    def full(self, shape: Sequence[int], value: float, dtype: Dtype = "float32") -> Tensor:
        """One value everywhere."""

    def arange(self, count: int, dtype: Dtype = "int64") -> Tensor:
        """0, 1, ... count - 1."""

    def cast(self, x: Tensor, dtype: Dtype) -> Tensor:
        """The same values in another type (x itself when the type is already right)."""

    def dtype(self, x: Tensor) -> Dtype:
        """The name of a tensor's type."""

    def to_device(self, x: Tensor) -> Tensor:
        """x on this engine's device, itself when it is there already."""

    def to_host(self, x: Tensor) -> Tensor:
        """x in the host's memory, to come back by ``to_device``; itself when it is there already."""

    def draw_normal(self, shape: Sequence[int], seed: int, dtype: Dtype) -> Tensor:
        """Standard normal numbers of torch's own generator on this device, drawn in the type itself.

        The numbers depend on device and type, as the original's do: this exists to repeat them.
        Raises: EngineError without ``traits.draws_as_torch``. Source: specification, section 6.2.
        """

    # --- shape ---------------------------------------------------------------------------------

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Another shape, row-major; one size may be -1."""

    def permute(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """Axes in another order."""

    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        """Join along an existing axis; types must agree."""

    def stack(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        """Join along a new axis."""

    def split(self, x: Tensor, sizes: Sequence[int], axis: int) -> tuple[Tensor, ...]:
        """Cut into consecutive pieces of the given sizes, which add up to the axis."""

    def pad(
        self,
        x: Tensor,
        widths: Sequence[tuple[int, int]],
        mode: Literal["constant", "replicate"] = "constant",
    ) -> Tensor:
        """Grow the last ``len(widths)`` axes, each by (before, after): zeros or the edge repeated."""

    def broadcast_to(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Repeat axes of size one up to the shape."""

    def take(self, x: Tensor, index: Tensor, axis: int) -> Tensor:
        """Rows of an axis by a one-dimensional int64 index."""

    # --- arithmetic ----------------------------------------------------------------------------

    def exp(self, x: Tensor) -> Tensor:
        """e to the x."""

    def cos(self, x: Tensor) -> Tensor:
        """Cosine."""

    def sin(self, x: Tensor) -> Tensor:
        """Sine."""

    def sqrt(self, x: Tensor) -> Tensor:
        """Square root."""

    def rsqrt(self, x: Tensor) -> Tensor:
        """One over the square root."""

    def tanh(self, x: Tensor) -> Tensor:
        """Hyperbolic tangent."""

    def sigmoid(self, x: Tensor) -> Tensor:
        """1 / (1 + exp(-x))."""

    def clip(self, x: Tensor, low: float, high: float) -> Tensor:
        """Values forced into [low, high]."""

    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """x where the condition holds, else y."""

    def sum(self, x: Tensor, axes: Sequence[int], keepdims: bool = False) -> Tensor:
        """Sum over axes."""

    def mean(self, x: Tensor, axes: Sequence[int], keepdims: bool = False) -> Tensor:
        """Mean over axes."""

    def max(self, x: Tensor, axes: Sequence[int], keepdims: bool = False) -> Tensor:
        """Maximum over axes."""

    # --- layers --------------------------------------------------------------------------------

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        """Matrix product of the last two axes, leading axes broadcast."""

    def linear(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: Literal["silu", "gelu_tanh"] | None = None,
    ) -> Tensor:
        """x @ weight.T + bias, through an activation. Shapes: x (..., I), weight (O, I), bias (O,) -> (..., O)."""

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sequence[int] = (1, 1)) -> Tensor:
        """Convolution without padding. Shapes: x (B, C, H, W), weight (O, C, h, w)."""

    def conv3d(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sequence[int] = (1, 1, 1)
    ) -> Tensor:
        """Convolution without padding. Shapes: x (B, C, F, H, W), weight (O, C, f, h, w)."""

    def embedding(self, table: Tensor, ids: Tensor) -> Tensor:
        """Rows of a table. Shapes: table (V, D), ids (...) int64 -> (..., D)."""

    def layer_norm(
        self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-6
    ) -> Tensor:
        """Zero mean, unit variance over the last axis. Precision: statistics in float32, result in x's type."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
        """x / rms(x) over the last axis, cast to x's type, then times the weight. Precision: rms in float32."""

    def group_norm(self, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
        """Normalise groups of channels over all following axes.

        Shapes: x (B, C, ...), weight and bias (C,). Precision: statistics in float32.
        """

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (the squares' mean, around that mean) of each channel.

        Shapes: x (B, C, ...) -> two (B, C) in float32.
        """

    def window(
        self,
        x: Tensor,
        gain: Tensor,
        shift: Tensor,
        before: Tensor | None = None,
        activation: Literal["silu"] | None = None,
    ) -> Tensor:
        """What a causal convolution of three taps reads: x times gain plus shift, through an activation, with edges.

        Edges are repeated by one cell. In front stand the frames ``before``, which have theirs; without, the first
        frame twice.
        Shapes: x (B, C, F, H, W), gain and shift (B, C) in float32, before (B, C, 2, H + 2, W + 2)
        -> (B, C, F + 2, H + 2, W + 2). Precision: float32 inside, x's type outside.
        """

    def silu(self, x: Tensor) -> Tensor:
        """x * sigmoid(x)."""

    def gelu(self, x: Tensor, approximate: Literal["none", "tanh"] = "none") -> Tensor:
        """Gaussian error linear unit, exact or with tanh."""

    def softmax(self, x: Tensor) -> Tensor:
        """Softmax over the last axis."""

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        mask: Tensor | None = None,
        lengths: Any = None,
    ) -> Tensor:
        """Softmax(q k^T * scale) v.

        Shapes: q (B, N, A, E), k and v (B, M, A, E) -> (B, N, A, E). ``mask`` is bool and broadcasts to
        (B, A, N, M), True where a query may look; only for short sequences. ``lengths`` are host
        integers, or what ``key_lengths`` made of them: keys of sample i from lengths[i] on do not exist,
        and no mask is built for them (rows of queries beyond the length come out finite and mean nothing).
        """

    def key_lengths(self, lengths: Sequence[int]) -> Any:
        """The ``lengths`` of ``attention`` as an argument of a compiled function.

        With ``traits.text_bucket`` other numbers do not make another program.
        """

    def attention_kernels(self, order: Sequence[str] = ()) -> tuple[str, ...]:
        """The kernels of ``attention``, best first; with an order of the same ones, in that from now on.

        Different kernels differ in the last bits. Empty where there is no choice.
        """

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Pairs of neighbouring channels turned: x times cos, plus (-x1, x0) times sin.

        Shapes: x (B, N, A, E), cos and sin float32 (N, E), channels 2k and 2k + 1 of a row sharing an angle.
        Precision: float32 inside, x's type outside.
        """

    def interleave(self, x: Tensor, factors: tuple[int, int, int], start: int = 0) -> Tensor:
        """The places that each cell turns into, from its channels to where they belong, without the first frames.

        Of t s r places, place (a * s + b) * r + c has the channels from that times C on and becomes the cells
        [:, :, a::t, b::s, c::r]; it begins in row b and column c. ``start`` frames are left out.
        Shapes: (B, t s r C, F, H + s - 1, W + r - 1) -> (B, C, t F - start, s H, r W) for factors (t, s, r).
        """

    # --- control -------------------------------------------------------------------------------

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, compiled once and reused for every dict of weights of the same shapes.

        Tensors, alone or inside plain tuples, lists and dicts, may differ from call to call. Everything else
        in the arguments (numbers, None, names) is part of the program: each new value is compiled anew. What
        the function uses besides its arguments must not change between calls. It returns a tensor, or a tuple
        or list of tensors.
        """

    def grad(self, function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Weights]]:
        """Turn ``function(weights, *args) -> scalar`` into ``(weights, *args) -> (scalar, gradients)``.

        ``weights`` is a flat dict; the gradients have its keys. Other arguments get none.
        """

    def vjp(self, function: Callable[..., Any]) -> Callable[..., Weights]:
        """Turn ``function(leaves, *args) -> tensor or tuple`` into ``(leaves, cotangents, *args) -> gradients``.

        The product of a Jacobian with vectors from the left: ``leaves`` is a flat dict, ``cotangents`` a tuple with
        one for each output, in its shape and type. The gradients have the keys of the leaves, zeros where nothing
        depends on one; other arguments get none. Nothing of the call outlives it.
        """

    def stop_gradient(self, x: Tensor) -> Tensor:
        """x, as a constant."""

    def recompute(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function of tensors; where a gradient is wanted, only its arguments are kept, and it runs again."""

    def adapted_linear(
        self, x: Tensor, weight: Tensor, factors: tuple[Tensor, Tensor], bias: Tensor | None = None
    ) -> Tensor:
        """x @ weight.T + bias, for a weight in which the product of two factors is contained already.

        The gradients of x and of the factors (up, down) are those of ``linear`` with weight = base + up @ down; weight
        and bias get none. The gradient of the weight, as large as itself, is never made.
        Shapes: x (..., I), weight (O, I), up (O, R), down (R, I), bias (O,) -> (..., O). All of one type.
        """

    def make_deterministic(self) -> None:
        """From now on in this process, the same work on the same device gives the same bits, gradients included."""

    def synchronize(self) -> None:
        """Wait until the device has finished everything asked of it."""

    def memory(self) -> dict[str, int]:
        """Bytes on this device: ``free``, ``total``, ``used`` and ``peak`` by this process."""

    def mark(self) -> Callable[[], None]:
        """A function that waits until everything asked of the device before this call is done, and no more."""

    def copy_stream(self) -> Any:
        """A context manager for a thread of its own, in which arrays are copied while the device computes.

        What was made inside is complete when the block is left. Does nothing on a CPU.
        """

    # --- collectives ---------------------------------------------------------------------------

    def rank(self) -> int:
        """This process's number among the processes that work together; 0 alone."""

    def size(self) -> int:
        """How many processes work together; 1 alone."""

    def exchange(self, pieces: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> Callable[[], list[Tensor]]:
        """Send piece i to rank i; the function that comes back waits, and gives what each rank has sent here.

        All ranks call it in the same order. ``shapes[i]`` is what rank i sends here: every rank knows it by arithmetic,
        nothing is asked. Pieces share a type; one without numbers is not sent, and one's own is handed back. Before
        the wait the device may compute.
        Raises: PeerError when another rank has ended or does not answer.
        """
