"""The pack as ComfyUI registers it."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io

from .nodes import NODES

KIND = "framewake"  # of model folders, as extra_model_paths.yaml names it


class FramewakeExtension(ComfyExtension):
    """A folder for checkpoints, and the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node. The folder is registered here, since ComfyUI 0.3.64 calls no ``on_load``.

        It always is: were it left out where the kind is known already, the default folder would be lost.
        """
        folder_paths.add_model_folder_path(KIND, str(Path(folder_paths.models_dir) / KIND))
        return NODES
