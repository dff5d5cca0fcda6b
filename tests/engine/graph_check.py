"""Check the Ascend branch on a machine without one: run as ``python graph_check.py CASE:DTYPE ...``.

ms.jit infers every type and shape of a graph before it looks for kernels. On a CPU a graph for Ascend that is right
therefore ends in one of two ways: "Unsupported op [X] on CPU", or with a kernel that lacks the type. Anything else is a
mistake in the Ascend branch.

Two ways: ``compiles`` takes a whole function (a block, a decoder); ``Checking`` is an engine that lets a whole model
run on the CPU branch and compiles every call of it, with the shapes of that call, on the Ascend branch.
What this cannot see: numbers, memory, speed, and types that only Ascend's kernels refuse.
Wrong ones have a process of their own, because a graph may end it; failed graphs leave files behind.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import numpy as np

from framewake.engine import mindspore as backend
from framewake.engine.mindspore.ascend import DTYPES
from framewake.engine.mindspore.graph import take_apart

CPU = backend.make("cpu", "graph check")
ASCEND = backend.make("cpu", "graph check", branch="ascend")
UNSUPPORTED = re.compile(r"(?:Unsupported op |Select CPU operator)\[(\w+)\](?: on CPU| fail! Unsupported data type)")
# These are not part of a graph: they make tensors from host values or do not compute.
HOST = {"asarray", "numpy", "dtype", "to_device", "synchronize", "mark", "memory", "compile", "rank", "size"}

# Operations whose result has a type of its own.
HAS_A_TYPE = {"zeros", "full", "arange", "cast", "moments"}


class NotAscend(Exception):
    """The graph ended in another way than it may."""


def compiles(function, *arguments, **named) -> str:
    """Compile for Ascend: the name of the first operation that a CPU lacks, or "" when it has them all."""
    try:
        ASCEND.compile(function)(*arguments, **named)
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError, IndexError) as error:
        found = UNSUPPORTED.search(str(error))
        if found is None:
            raise NotAscend(f"{getattr(function, '__name__', function)}: {error}") from error
        return found[1]
    return ""


class Checking:
    """An engine that computes with the CPU branch and compiles every call once on the Ascend branch."""

    kind = "mindspore"
    name = "mindspore:checking"
    device = "cpu"
    reason = "graph check"

    def __init__(self) -> None:
        self.seen: dict = {}

    def __getattr__(self, name):
        computed = getattr(CPU, name)
        if name in HOST or not callable(computed):
            return computed

        def call(*arguments, **named):
            tensors = []
            key, _ = take_apart((arguments, named), tensors)
            key = (name, key, tuple((tuple(x.shape), str(x.dtype)) for x in tensors))
            if key not in self.seen:
                self.seen[key] = compiles(getattr(ASCEND, name), *arguments, **named)
            return computed(*arguments, **named)

        return call


def tensor(shape, dtype):
    from framewake.golden import rule

    return CPU.asarray(rule.input("x", shape, 1), dtype)


def weights(shapes, dtype):
    from framewake.golden import rule

    return {name: CPU.asarray(rule.weight(name, shape, 1), dtype) for name, shape in shapes.items()}


# --- toy functions


def toy_right(dtype):
    def function(w, x):
        y = ASCEND.linear(ASCEND.layer_norm(x), w["weight"])
        y = ASCEND.reshape(y, (1, 6, 2, 16))
        return ASCEND.attention(y, y, y, scale=0.25)

    return [compiles(function, {"weight": tensor((32, 32), dtype)}, tensor((1, 6, 32), dtype))]


def toy_norm(dtype):
    def function(w, x):
        return ASCEND.rms_norm(x, w)

    kinds = (dtype, "float32")  # another type than x's goes the long way, which a CPU has
    return [compiles(function, tensor((32,), kind), tensor((4, 32), dtype)) for kind in kinds]


def toy_wrong(dtype):
    def function(w, x):
        return ASCEND.linear(ASCEND.layer_norm(x), w["weight"])

    return [compiles(function, {"weight": tensor((32, 47), dtype)}, tensor((1, 6, 32), dtype))]


# --- every operation, with the shape and type of what it gives


def calls_of_operations(x, wide, whole):
    """Operation -> arguments, made by functions of a shape: of the type that is checked, in float32, of whole numbers.

    Where there are two calls, there are two ways through the engine.
    """
    one, clip = x((2, 6, 32)), x((1, 8, 3, 4, 5))
    heads, norm = x((2, 6, 2, 16)), x((32,))
    mask = CPU.asarray(np.ones((2, 1, 6, 6), bool))
    same = {name: [(one,)] for name in ["exp", "cos", "sin", "sqrt", "rsqrt", "tanh", "sigmoid", "silu", "softmax"]}
    return same | {
        "zeros": [((2, 3), "float16")],
        "full": [((2, 3), 1.5, "bfloat16")],
        "arange": [(5,)],
        "cast": [(one, "float32"), (one, "bfloat16")],
        "reshape": [(one, (4, 3, 32))],
        "permute": [(one, (2, 0, 1))],
        "concat": [([one, one], 1)],
        "stack": [([one, one], 1)],
        "split": [(one, (2, 4), 1)],
        "pad": [(one, ((1, 2), (0, 3))), (clip, ((1, 0), (1, 1), (1, 1)), "replicate")],
        "broadcast_to": [(x((1, 6, 1)), (2, 6, 5))],
        "take": [(one, whole((3,)), 1)],
        "clip": [(one, -1.0, 1.0)],
        "where": [(CPU.asarray(np.ones((2, 6, 32), bool)), one, one)],
        "sum": [(one, (0, 2)), (one, (1,), True)],
        "mean": [(one, (0, 2)), (one, (1,), True)],
        "max": [(one, (0, 2)), (one, (1,), True)],
        "matmul": [(one, x((2, 32, 7)))],
        "linear": [(one, x((48, 32))), (one, x((48, 32)), x((48,)), "silu"), (one, x((48, 32)), x((48,)), "gelu_tanh")],
        "conv2d": [(x((1, 3, 8, 8)), x((4, 3, 2, 2)), x((4,)), (2, 2))],
        "conv3d": [(clip, x((4, 8, 3, 3, 3)), x((4,))), (clip, x((4, 8, 3, 3, 3)), None, (1, 1, 2))],
        "embedding": [(x((9, 32)), whole((2, 5)))],
        "layer_norm": [(one,), (one, norm, norm)],
        "rms_norm": [(one, norm)],
        "group_norm": [(clip, 4, x((8,)), x((8,)))],
        "moments": [(clip,)],
        "window": [
            (clip, wide((1, 8)), wide((1, 8)), None, "silu"),
            (clip, wide((1, 8)), wide((1, 8)), x((1, 8, 2, 6, 7))),
        ],
        "gelu": [(one,), (one, "tanh")],
        "attention": [
            (heads, heads, heads, {"scale": 0.25}),
            (heads, heads, heads, {"scale": 0.25, "mask": mask}),
            (heads, heads, heads, {"scale": 0.25, "lengths": (6, 4)}),
            (*(x((2, 6, 2, 20)),) * 3, {"scale": 0.25, "mask": mask}),  # a width that the fused one does not take
        ],
        "rotate": [(heads, wide((6, 16)), wide((6, 16)))],
        "interleave": [(clip, (2, 2, 2)), (x((1, 8, 3, 4, 5)), (2, 2, 2), 1)],
    }


def operations(dtype):
    """Every operation, with the shape that the CPU branch gives in float32."""
    found = []
    kinds = [lambda shape, kind=kind: tensor(shape, kind) for kind in (dtype, "float32")]
    given, plain = (
        calls_of_operations(*each, lambda shape: CPU.asarray(np.zeros(shape, np.int64)))
        for each in (kinds, [kinds[1]] * 2)
    )
    for name, calls in given.items():
        for call, other in zip(calls, plain[name], strict=True):
            computed = _called(CPU, name, other)
            first = computed[0] if isinstance(computed, tuple) else computed
            found.append(_ends_with(name, call, tuple(first.shape), None if name in HAS_A_TYPE else dtype))
    return found, sorted(given)


def another_shape(_dtype):
    return [_ends_with("softmax", (tensor((2, 3), "float32"),), (3, 2), None)]


def another_type(dtype):
    return [_ends_with("rms_norm", (tensor((2, 3), dtype), tensor((3,), dtype)), (2, 3), "float32")]


def _parts(call):
    return (call[:-1], call[-1]) if isinstance(call[-1], dict) else (call, {})


def _called(engine, name, call):
    arguments, named = _parts(call)
    return getattr(engine, name)(*arguments, **named)


def _ends_with(name, call, shape, kind):
    """Compile one call for Ascend, and with it that its (first) result has a shape and a type."""
    arguments, named = _parts(call)
    method = getattr(ASCEND, name)
    expected = None if kind is None else DTYPES[kind]
    is_tuple = name in ("split", "moments")

    def function(*arguments, **named):
        y = method(*arguments, **named)
        if is_tuple:
            y = y[0]
        if y.shape != shape:
            raise ValueError("the shape is another one")
        if expected is not None and y.dtype != expected:
            raise ValueError("the type is another one")
        return y

    function.__name__ = name
    return compiles(function, *arguments, **named)


# --- blocks and autoencoder, compiled whole


def dit_blocks(dtype):
    from dit_toy import CONFIG

    from framewake.models.dit_blocks import DoubleBlock, SingleBlock, TokenCounts
    from framewake.models.manner import PLAIN
    from framewake.weights.stores.store import Resident

    dit, width, head = _toy_dit(ASCEND, 1)
    store = Resident(weights(dit.shapes(), dtype))
    rope = (tensor((12, head), "float32"), tensor((12, head), "float32"))
    longer = (tensor((17, head), "float32"), tensor((17, head), "float32"))
    # Both take their attention from one place: one of them with texts of two lengths.
    double = DoubleBlock(ASCEND, CONFIG, TokenCounts((4, 8), 5, None), PLAIN)
    single = SingleBlock(ASCEND, CONFIG, TokenCounts((4, 8), 5, (17, 15)), PLAIN)
    image, text, both = (tensor(shape, dtype) for shape in ((1, 12, width), (1, 5, width), (2, 17, width)))
    one, two = ((tensor((batch, width), dtype),) * 2 for batch in (1, 2))
    return [
        compiles(double, next(store.blocks("double_blocks")), image, text, one, rope),
        compiles(single, next(store.blocks("single_blocks")), both, two, longer),
    ]


def vae(dtype):
    from toy_checkpoint import VAE

    from framewake.models.vae import CausalVAE

    # Two levels have every kind of part: both resnets, strided and enlarging convolutions, attention.
    small = {"block_out_channels": (8, 16), "spatial_compression": 2, "temporal_compression": 2}
    model = CausalVAE(ASCEND, replace(VAE, **small))
    w = weights(model.shapes(), dtype)
    return [
        compiles(model.decode, w, tensor((1, 4, 2, 2, 3), dtype)),
        compiles(model.encode, w, tensor((1, 3, 3, 4, 6), dtype)),
        compiles(model.encode, w, tensor((1, 3, 1, 4, 6), dtype)),
    ]


# --- whole models, operation by operation


def dit(dtype):
    from dit_toy import CONFIG

    from framewake.models.dit import TextStates
    from framewake.nn.rope import rope_table
    from framewake.weights.stores.store import Resident

    engine = Checking()
    model, *_ = _toy_dit(engine, 0)  # its blocks are compiled whole, above
    store = Resident(weights(model.shapes(), dtype))
    rope = tuple(CPU.asarray(table) for table in rope_table((3, 2, 3), CONFIG.rope_dims, CONFIG.rope_theta))
    states = tensor((2, 7, CONFIG.text_width), dtype)
    model(
        store,
        tensor((2, CONFIG.in_channels, 3, 4, 6), dtype),
        timestep=CPU.full((2,), 500.0),
        text=TextStates(states, (7, 4), tensor((2, CONFIG.pooled_width), dtype)),
        guidance=CPU.full((2,), 6016.0),
        rope=rope,
    )
    return list(engine.seen.values())


def llava(dtype):
    from framewake.config import ClipVisionConfig, LlamaConfig, LlavaConfig
    from framewake.models.llava import Llava
    from framewake.weights.stores.store import Resident

    engine = Checking()
    text = LlamaConfig(32, 48, 3, 2, 1, 16, 20, 1e-5, 500000.0)
    vision = ClipVisionConfig(32, 48, 2, 2, 28, 14, "quick_gelu", 1e-5)
    model = Llava(engine, LlavaConfig(text, vision, "gelu", 18, 19, -2, True))
    store = Resident(weights(model.shapes(), dtype))
    ids = np.array([[1, 2, 18, 4, 5, 19], [1, 7, 18, 4, 19, 19]])
    mask = (ids != 19).astype(np.int64)
    model(store, ids, mask, tensor((1, 3, 28, 28), dtype))
    return list(engine.seen.values())


def clip_text(dtype):
    from framewake.config import ClipTextConfig
    from framewake.models.clip_text import ClipText
    from framewake.weights.stores.store import Resident

    engine = Checking()
    model = ClipText(engine, ClipTextConfig(32, 48, 2, 2, 20, 77, "quick_gelu", 1e-5, 19))
    ids = np.array([[1, 2, 3, 19, 19]])
    model(Resident(weights(model.shapes(), dtype)), ids, np.array([[1, 1, 1, 1, 0]]))
    return list(engine.seen.values())


def _toy_dit(engine, blocks):
    from dit_toy import CONFIG

    from framewake.models.dit import DiT

    counts = {"double_blocks": blocks, "single_blocks": blocks, "refiner_blocks": 1}
    return DiT(engine, replace(CONFIG, **counts)), CONFIG.hidden_size, CONFIG.head_dim


CASES = {
    f.__name__: f
    for f in (
        toy_right,
        toy_norm,
        toy_wrong,
        operations,
        another_shape,
        another_type,
        dit_blocks,
        vae,
        dit,
        llava,
        clip_text,
    )
}


def main(*words: str) -> int:
    for word in words:
        case, _, dtype = word.partition(":")
        found = CASES[case](dtype)
        found, checked = found if isinstance(found, tuple) else (found, [])
        sys.stdout.write(json.dumps({"case": word, "unsupported": sorted(set(found)), "checked": checked}) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
