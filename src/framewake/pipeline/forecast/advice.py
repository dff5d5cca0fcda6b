"""Settings that do fit, for a clip that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from framewake.media.framing import FRAMES
from framewake.pipeline.jobs import Plan, resized
from framewake.weights.checkpoint.load import Checkpoint

Fits = Callable[[Plan], bool]


def advice(checkpoint: Checkpoint, plan: Plan, fits: Fits) -> str:
    """The largest settings that fit, as options: the longest clip of this size, and of each smaller one."""
    found = []
    for resolution, sized in sizes(checkpoint, plan):
        longest = longest_fitting(checkpoint, sized, fits)
        if longest:
            here = resolution == plan.request.resolution
            found.append(f"--frames {longest}" if here else f"--resolution {resolution} --frames {longest}")
        if longest == plan.shape.frames:
            break  # all that was asked for, but for the size
    if found:
        return f"The largest that fits: {', or '.join(found)}."
    narrower = "" if plan.request.precision == "bfloat16" else "--precision bfloat16, "
    return f"Not even one frame of the smallest size fits: take {narrower}another device, or more memory."


def sizes(checkpoint: Checkpoint, plan: Plan) -> Iterator[tuple[str, Plan]]:
    """The plan as it is, then at each smaller resolution."""
    yield plan.request.resolution, plan
    known = checkpoint.settings.resolutions
    base = known[plan.request.resolution]
    for resolution, side in sorted(known.items(), key=lambda item: -item[1]):
        if side < base:
            yield resolution, sized(checkpoint, plan, (plan.shape.frames, side))


def sized(checkpoint: Checkpoint, plan: Plan, frames_and_base: tuple[int, int]) -> Plan:
    """The plan with another number of frames and the bucket of another base size."""
    frames, base = frames_and_base
    height, width = FRAMES[checkpoint.dit.framing].bucket(base, plan.shape.height, plan.shape.width)
    shape = plan.shape._replace(frames=frames, height=height, width=width)
    return resized(plan, shape, checkpoint)


def longest_fitting(checkpoint: Checkpoint, plan: Plan, fits: Fits) -> int | None:
    """The most frames that fit, as many as the plan has at the most."""
    for frames in range(plan.shape.frames, 0, -checkpoint.vae.temporal_compression):
        shape = plan.shape._replace(frames=frames)
        if fits(resized(plan, shape, checkpoint)):
            return frames
    return None
