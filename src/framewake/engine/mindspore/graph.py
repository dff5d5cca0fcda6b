"""Compiling a function of nested arguments with ms.jit, so that no later change of a weight is lost."""

from __future__ import annotations

import inspect

import mindspore as ms

from framewake.errors import EngineError


def graph(function, build):
    """A compiled function of all tensors in the arguments, one after another, and of nothing else.

    Traps that this avoids: a captured weight is frozen at the first call; a dict of weights that is an argument
    itself is compiled anew for every dict; a number inside a mutable list makes all shapes dynamic; a callable
    object is run without being compiled; a view as the first argument spoils later calls.
    """
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        function = function.__call__

    def flat(*leaves):
        arguments, named = build(leaves)
        out = function(*arguments, **named)
        if isinstance(out, dict):  # it would be put together by the interpreter, with views of a wrong size
            raise TypeError("a compiled function returns a tensor, or a tuple or list of tensors, not a dict")
        return out

    return ms.jit(flat)


def take_apart(value, leaves):
    """Take the tensors out of nested arguments: a hashable key for the rest, and a function that puts them back.

    The functions below become part of the compiled graph; builtins such as dict() would be left to the interpreter.
    """
    if isinstance(value, ms.Tensor):
        index = len(leaves)
        # A graph keeps the memory layout of its first call, offset included: after a view it reads later tensors
        # wrongly, even beyond their end.
        is_whole = value.is_contiguous() and value.storage_offset() == 0
        leaves.append(value if is_whole else value.copy())

        def tensor(leaves):
            return leaves[index]

        return ("tensor", index), tensor
    if not isinstance(value, (dict, list, tuple)):

        def constant(_leaves):
            return value

        return (type(value), value), constant
    kind = type(value)
    if kind not in (dict, list, tuple):
        raise EngineError(f"a compiled function got a {kind.__name__}: hand in its fields, or a plain tuple or dict.")
    forms = [take_apart(item, leaves) for item in (value.values() if kind is dict else value)]
    keys, parts = tuple([key for key, _ in forms]), tuple([part for _, part in forms])
    if kind is dict:
        pairs = tuple(zip(value, parts, strict=True))

        def build(leaves):
            return {name: part(leaves) for name, part in pairs}

        return (kind, tuple(value), keys), build
    if kind is list:

        def build(leaves):
            return [part(leaves) for part in parts]

        return (kind, keys), build

    def build(leaves):
        return tuple([part(leaves) for part in parts])

    return (kind, keys), build
