"""framewake's nodes for ComfyUI, which asks this module for them."""

from .extension import FramewakeExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> FramewakeExtension:
    """What ComfyUI loads."""
    return FramewakeExtension()
