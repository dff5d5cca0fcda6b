"""The fixed texts around a prompt, byte for byte as the model was trained with them."""

from __future__ import annotations

from dataclasses import dataclass

from framewake.errors import InputError, nearest

_SYSTEM = "<|start_header_id|>system<|end_header_id|>\n\n"
_USER = "<|start_header_id|>user<|end_header_id|>\n\n"
_ASSISTANT = "<|start_header_id|>assistant<|end_header_id|>\n\n"
# No space after the full stops between the numbered items: the original joined them so.
_VIDEO_ASPECTS = (
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:"
)
_IMAGE_SENTENCE = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:"
)
_VIDEO_SENTENCE = f"Describe the video by detailing the following aspects: {_VIDEO_ASPECTS}"
_REFERENCE_SENTENCE = (
    f"Describe the video by detailing the following aspects according to the reference image: {_VIDEO_ASPECTS}"
)

# The instructions of all templates: the demonstration tokenizer makes each of them one token.
SENTENCES = (_REFERENCE_SENTENCE, _VIDEO_SENTENCE, _IMAGE_SENTENCE)


@dataclass(frozen=True)
class Template:
    """Text before and after the prompt; ``has_image`` says whether a picture's place is in it.

    ``keeps_blanks``: a prompt goes in as it is, an empty one as a blank.

    Source: specification, section 3.1.
    """

    name: str
    before: str
    after: str
    has_image: bool
    keeps_blanks: bool = False

    @property
    def text(self) -> str:
        """The template as one text, with "{}" where the prompt goes."""
        return f"{self.before}{{}}{self.after}"

    def fill(self, prompt: str) -> str:
        """The template with a prompt in it; braces in the prompt are ordinary text."""
        return f"{self.before}{prompt}{self.after}"


# Only this one has two newlines after the system turn.
VIDEO_I2V = Template(
    "dit-llm-encode-video-i2v",
    f"{_SYSTEM}<image>\n{_REFERENCE_SENTENCE}<|eot_id|>\n\n{_USER}",
    f"<|eot_id|>{_ASSISTANT}",
    has_image=True,
)
IMAGE_I2V = Template(
    "dit-llm-encode-i2v",
    f"{_SYSTEM}<image>\n{_IMAGE_SENTENCE}<|eot_id|>{_USER}",
    f"<|eot_id|>{_ASSISTANT}",
    has_image=True,
)
VIDEO = Template("dit-llm-encode-video", f"{_SYSTEM}{_VIDEO_SENTENCE}<|eot_id|>{_USER}", "<|eot_id|>", has_image=False)
IMAGE = Template("dit-llm-encode", f"{_SYSTEM}{_IMAGE_SENTENCE}<|eot_id|>{_USER}", "<|eot_id|>", has_image=False)

# Nine blanks between the items: the original's text is continued over lines. Source: specification of 1.5, 3.1.
_ASPECTS_15 = (" " * 9).join(
    (
        "1. The main content and theme of the video.",
        "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.",
        "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects.",
        "4. background environment, light, style and atmosphere.",
        "5. camera angles, movements, and transitions used in the video.",
    )
)
VIDEO_15 = Template(
    "video-1.5",
    "<|im_start|>system\nYou are a helpful assistant. Describe the video by detailing the following aspects:"
    f"{' ' * 9}{_ASPECTS_15}<|im_end|>\n<|im_start|>user\n",
    "<|im_end|>\n<|im_start|>assistant\n",
    has_image=False,
    keeps_blanks=True,
)

TEMPLATES = {template.name: template for template in (VIDEO_I2V, IMAGE_I2V, VIDEO, IMAGE)}

NEGATIVE_PROMPT_I2V = "deformation, a poor composition and deformed video, bad teeth, bad eyes, bad limbs"
NEGATIVE_PROMPT_T2V = (
    "Aerial view, aerial view, overexposed, low quality, deformation, a poor composition, "
    "bad hands, bad teeth, bad eyes, bad limbs, distortion"
)


def get(name: str) -> Template:
    """The template of a name.

    Raises: InputError when there is none of that name.
    """
    if name not in TEMPLATES:
        raise InputError(
            f"unknown prompt template {name!r}; expected one of {', '.join(TEMPLATES)}.{nearest(name, TEMPLATES)}"
        )
    return TEMPLATES[name]
