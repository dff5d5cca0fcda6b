"""The nodes: what each shows, and the one call that it makes. framewake is imported when one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io

from . import local, remote, settings
from .outputs import made, new_clip, png_of
from .settings import Refused, frames_are_possible
from .values import Local, LoraFile, Remote, Wish
from .watch import Watch

CATEGORY = "framewake"
MODEL = io.Custom("FRAMEWAKE_MODEL")
LORAS = io.Custom("FRAMEWAKE_LORAS")
DEMO, TRAILS = "demo", "demo/trails"  # what ships with framewake, as framewake calls it
MARKS = ("model_index.json", "framewake.json")  # a folder with one of them is a checkpoint
CIRCLE = Path(__file__).parent / "red-circle.png"


def checkpoints() -> dict[str, str]:
    """Checkpoint folders by their names in the list, two levels deep; "demo" ships with framewake."""
    found = {DEMO: DEMO}
    for kind in ("framewake", "diffusers"):
        for root in map(Path, folder_paths.get_folder_paths(kind)):
            for depth in ("*", "*/*"):
                folders = sorted(folder for folder in root.glob(depth) if any((folder / m).is_file() for m in MARKS))
                for folder in folders:
                    found.setdefault(folder.relative_to(root).as_posix(), str(folder))
    return found


class FramewakeCheckpoint(io.ComfyNode):
    """A checkpoint that runs here."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the page shows."""
        return io.Schema(
            node_id="FramewakeCheckpoint",
            display_name="framewake Checkpoint",
            category=CATEGORY,
            description="A checkpoint for framewake, which runs in ComfyUI's own process.",
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=list(checkpoints()),
                    tooltip="A folder of models/framewake or models/diffusers; demo ships with framewake.",
                ),
                io.Combo.Input(
                    "engine",
                    options=["auto", "torch:cuda", "torch:cpu"],
                    tooltip="Where it computes; auto is the device that ComfyUI uses.",
                ),
                io.Float.Input(
                    "memory_gib",
                    default=0.0,
                    min=0.0,
                    max=1024.0,
                    step=0.5,
                    tooltip="Memory of the device that a run may take, in GiB; 0 is all that is free.",
                ),
            ],
            outputs=[MODEL.Output("model")],
        )

    @classmethod
    def execute(cls, checkpoint: str, engine: str, memory_gib: float) -> io.NodeOutput:
        """Name the checkpoint; nothing is loaded yet."""
        known = checkpoints()
        if checkpoint not in known:
            raise Refused(f"checkpoint {checkpoint!r} is not there: choose one of {', '.join(known)}.")
        memory = int(memory_gib * local.GIB) or None
        return io.NodeOutput(Local(known[checkpoint], engine, memory))


class FramewakeServer(io.ComfyNode):
    """A server that does the work."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the page shows."""
        return io.Schema(
            node_id="FramewakeServer",
            display_name="framewake Server",
            category=CATEGORY,
            description="A running framewake server makes the clip. Its key comes from FRAMEWAKE_API_KEY.",
            inputs=[
                io.String.Input("url", default="http://127.0.0.1:7860", tooltip="The address of framewake serve."),
            ],
            outputs=[MODEL.Output("model")],
        )

    @classmethod
    def execute(cls, url: str) -> io.NodeOutput:
        """Name the server; nothing is asked yet."""
        remote.Server(url)
        return io.NodeOutput(Remote(url))


class FramewakeLora(io.ComfyNode):
    """One LoRA more."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the page shows."""
        return io.Schema(
            node_id="FramewakeLora",
            display_name="framewake LoRA",
            category=CATEGORY,
            description="Adds a LoRA. Several are chained, one into the next.",
            inputs=[
                io.Combo.Input(
                    "lora",
                    options=[TRAILS, *folder_paths.get_filename_list("loras")],
                    tooltip="A file of models/loras; demo/trails ships with framewake and is for the demonstration.",
                ),
                io.String.Input(
                    "weight",
                    default="1.0",
                    tooltip="A number such as 0.8, or weights by step such as 0-20=1.0,20-50=0.4.",
                ),
                LORAS.Input("loras", optional=True, tooltip="The LoRAs before this one."),
            ],
            outputs=[LORAS.Output("chain", display_name="loras")],
        )

    @classmethod
    def execute(cls, lora: str, weight: str, loras: tuple[LoraFile, ...] = ()) -> io.NodeOutput:
        """The chain with this one."""
        path = TRAILS if lora == TRAILS else folder_paths.get_full_path("loras", lora)
        if path is None:
            raise Refused(f"the LoRA {lora!r} is not in models/loras any more.")
        return io.NodeOutput((*loras, LoraFile(lora, path, weight.strip())))


class FramewakeImageToVideo(io.ComfyNode):
    """A picture becomes a clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the page shows. New inputs come last and are optional: saved graphs keep values by position."""
        return io.Schema(
            node_id="FramewakeImageToVideo",
            display_name="framewake Picture to Clip",
            category=CATEGORY,
            description="A picture and a sentence become a clip.",
            inputs=[
                MODEL.Input("model", tooltip="A checkpoint or a server."),
                io.Image.Input("image", tooltip="The picture that the clip starts from."),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True, tooltip=PROMPT),
                io.Combo.Input("resolution", options=list(settings.RESOLUTIONS), tooltip=RESOLUTION + OWN),
                io.Int.Input("frames", default=129, min=1, max=settings.MOST_FRAMES, step=4, tooltip=FRAMES),
                io.Int.Input("steps", default=0, min=0, max=settings.MOST_STEPS, tooltip=STEPS),
                io.Int.Input(
                    "seed", default=0, min=0, max=settings.MOST_SEED, control_after_generate=True, tooltip=SEED
                ),
                io.Combo.Input("preset", options=list(settings.PRESETS), tooltip=PRESET),
                io.Combo.Input("cache", options=list(settings.CACHES), tooltip=CACHE),
                LORAS.Input("loras", optional=True, tooltip="LoRAs, the last of the chain."),
                io.String.Input("negative_prompt", optional=True, multiline=True, tooltip=NEGATIVE),
                _guidance("guidance_scale", 0.0, GUIDANCE + ZERO),
                _guidance("embedded_guidance", 6.0, EMBEDDED),
                io.String.Input("crop", optional=True, default=settings.CENTRE, tooltip=CROP),
                io.Boolean.Input("super_resolution", optional=True, default=False, tooltip=LARGER),
            ],
            outputs=[io.Image.Output("images"), io.Float.Output("fps"), io.Video.Output("video")],
        )

    @classmethod
    def validate_inputs(cls, frames: int) -> bool | str:
        """ComfyUI's server does not check steps. Of inputs that stand here, it checks no range either."""
        if not 1 <= frames <= settings.MOST_FRAMES:
            return f"frames is {frames}: expected 1 to {settings.MOST_FRAMES}."
        return frames_are_possible(frames)

    @classmethod
    def execute(
        cls, model: Local | Remote, image: torch.Tensor, loras: tuple[LoraFile, ...] = (), **given: Any
    ) -> io.NodeOutput:
        """Make the clip where the model is."""
        wish, png = Wish(**given), png_of(image)
        if isinstance(model, Local):
            return io.NodeOutput(*local.make(model, wish, loras, png))
        watch = Watch()
        video, clip = remote.make_on(remote.Server(model.url), settings.body(wish, loras), png, watch)
        path = new_clip()
        path.write_bytes(clip)
        watch.say(f"seed {video['seed']}")
        return io.NodeOutput(*made(remote.frames_in(clip), video["fps"], path))


class FramewakeExamplePicture(io.ComfyNode):
    """The red circle, so that the example needs no upload."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the page shows."""
        return io.Schema(
            node_id="FramewakeExamplePicture",
            display_name="framewake Example Picture",
            category=CATEGORY,
            description="A red circle, which the demonstration checkpoint knows.",
            inputs=[],
            outputs=[io.Image.Output("image")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """The picture."""
        from PIL import Image

        with Image.open(CIRCLE) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
        return io.NodeOutput(torch.from_numpy(pixels)[None])


def _guidance(name: str, default: float, tooltip: str) -> Any:
    most = settings.MOST_GUIDANCE
    return io.Float.Input(name, optional=True, default=default, min=0.0, max=most, step=0.1, tooltip=tooltip)


# As framewake's Request says it of its settings; a test compares them.
PROMPT = "What happens in the video, in a sentence or two."
RESOLUTION = "Resolution class; the picture's shape decides the exact size."
OWN = " own: the checkpoint's own, which HunyuanVideo-1.5 makes alone."
FRAMES = "Frames of the video, a multiple of 4 plus 1."
STEPS = "Denoising steps: more take longer and show finer detail. 0: the checkpoint's own number."
SEED = "Number that fixes the noise: the same seed gives the same video."
PRESET = "Keep the video calm and close to the picture (stable), or let more happen (dynamic)."
CACHE = "Skip steps that change little: off gives the exact clip."
NEGATIVE = "What to avoid; only used with a guidance scale above 1."
GUIDANCE = (
    "Classic guidance against the negative prompt; above 1 every step takes twice as long, and at 1 there is none."
)
ZERO = " 0: the checkpoint's own."
EMBEDDED = "Guidance that the model was distilled with."
CROP = (
    "Which part of the picture becomes the video: x,y from 0,0 (left, top) to 1,1; 0.5,0.5 is the centre. fit "
    "keeps all of it: its blurred edges fill the rest of the frame, and the model animates these too."
)
LARGER = "Make the clip larger in a second run of few steps: 480p to 720p, 720p to 1080p. HunyuanVideo-1.5 only."

NODES: list[type[io.ComfyNode]] = [
    FramewakeCheckpoint,
    FramewakeServer,
    FramewakeLora,
    FramewakeImageToVideo,
    FramewakeExamplePicture,
]
