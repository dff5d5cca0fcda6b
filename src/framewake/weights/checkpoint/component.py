"""One component of a checkpoint: a row that says all that files and folders have to do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from framewake.config import CLIP_MEAN, CLIP_STD, Condition
from framewake.weights.checkpoint.settings import Enlargement, Settings
from framewake.weights.reading.mapped import Shapes
from framewake.weights.reading.names import NameRule, same
from framewake.weights.reading.storage import Tensors

C = TypeVar("C")
Content = dict[str, Any]
# What enlarges clips, where a family has it: a transformer beside "dit", and what makes its first latents.
LARGER_DIT, UPSAMPLER = "larger_dit", "upsampler"
FILES = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}


class Hints(NamedTuple):
    """What is known of a component besides the shapes of its tensors.

    ``condition`` is what the place of a transformer says about it, ``like`` what a ``config.json`` says.
    ``is_tower``: the file has nothing but the tower.
    """

    condition: Condition
    like: Any = None
    is_tower: bool = False


@dataclass(frozen=True)
class Tower:
    """A vision tower inside a text encoder, which may be missing or come in a file of its own.

    ``starts`` are the beginnings of its names, its own and its projector's, ``rest`` is that of all others. ``is_in``
    and ``side_px`` ask the encoder's configuration whether there is one, and for the size of its picture.
    ``advice``: what to do without one.
    """

    word: str
    flag: str
    marks: tuple[str, ...]
    starts: tuple[str, ...]
    rest: str
    is_in: Callable[[Any], bool]
    side_px: Callable[[Any], int]
    advice: str

    def is_held(self, names: Iterable[str]) -> bool:
        """Whether it is among tensors under our names."""
        return any(name.startswith(self.starts[0]) for name in names)


def _same(held: Iterable[str], config: Any) -> list[NameRule]:
    return same(held)


@dataclass(frozen=True)
class Component(Generic[C]):
    """A row of the table: everything that reading, checking and writing ask about one component.

    ``name`` is its key everywhere, ``word`` what a person reads, ``role`` the same by what it does; ``flag`` stands
    with ``--part``. ``folder`` is its place in the diffusers layout, whose index names ``library`` and ``kind``,
    where it has one; ``tencent`` its file in the original's tree.

    ``read``, ``infer`` and ``write`` make a configuration from a ``config.json`` and from tensors, and a file from
    it; ``write_tencent`` where the original's class reads another one, and has to. ``is_told``: a file's tensors tell
    all of it, so that they count before the folder's ``config.json``, and Tencent's tree needs none.
    ``rules`` is the table of names of a file, with the configuration where that is known; ``diffusers`` that of the
    diffusers layout, ``published`` that of Tencent's files, where those are not ours. ``told`` are the configuration's
    numbers that tensors tell too, and ``diffusers_sizes`` those that they tell under diffusers' names. ``meets`` are
    numbers that other components must have as well, each with what it is.

    ``marks`` tell its files by the ends of names; ``prefixes`` are known in front of all names, the first that is
    there counts; ``gguf`` is what GGUF files say of themselves. ``unused`` are tensors that may be there or not.
    ``stack``: the names of layers of which nobody reads the last, and the number of them in the configuration.
    ``narrow``: the type of what is not in eight bits. ``torch_key``: below which a ``.pt`` file has the tensors.
    ``picture_px``: the side of the picture that it sees, where it is a vision tower itself.
    ``scales_flag`` is that of a file with the scales of its eight-bit weights. ``tokenizer``: folder and class.
    ``is_own``: of files with its marks, whether one is this part. ``is_measured``: its sizes are those of its tensors,
    whatever a ``config.json`` says.
    """

    name: str
    word: str
    role: str
    flag: str
    folder: str
    library: str
    kind: str
    tencent: str
    read: Callable[[Mapping[str, Any]], C]
    infer: Callable[[Shapes, Hints], C]
    write: Callable[[C], Content]
    marks: tuple[str, ...]
    write_tencent: Callable[[C], Content] | None = None
    is_told: bool = False
    rules: Callable[[Iterable[str], C | None], list[NameRule]] = _same
    diffusers: Callable[[C], list[NameRule]] | None = None
    published: Callable[[C], list[NameRule]] | None = None
    diffusers_sizes: Callable[[Shapes], dict[str, Any]] = lambda theirs: {}
    told: tuple[str, ...] = ()
    meets: Callable[[C], dict[str, tuple[str, int]]] = lambda config: {}
    prefixes: tuple[str, ...] = ()
    gguf: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    stack: tuple[str, str] | None = None
    narrow: str = "F16"
    torch_key: str | None = None
    scales_flag: str | None = None
    tokenizer: tuple[str, str] | None = None
    tower: Tower | None = None
    picture_px: Callable[[C], int] | None = None
    is_own: Callable[[Tensors], bool] = lambda file: True
    is_measured: bool = False

    @property
    def sees(self) -> bool:
        """Whether pictures may reach it."""
        return self.tower is not None or self.picture_px is not None

    @property
    def file(self) -> str:
        """The name of its file in the diffusers layout."""
        return FILES[self.library]

    @property
    def flags(self) -> tuple[str, ...]:
        """What ``--part`` calls files of its weights."""
        return (self.flag,) if self.tower is None else (self.flag, self.tower.flag)

    @property
    def all_flags(self) -> tuple[str, ...]:
        """What ``--part`` calls files of it."""
        return self.flags if self.scales_flag is None else (*self.flags, self.scales_flag)

    def sizes(self, config: C) -> dict[str, Any]:
        """The numbers of a configuration that tensors tell too."""
        return {name.replace(".", " "): attrgetter(name)(config) for name in self.told}


class Whereabouts(NamedTuple):
    """Where a checkpoint's transformer and what is said of it lie.

    ``is_single``: it was given as a file of its own; ``variant``: what a person says that it is.
    """

    root: Path
    transformer: Path
    config: Path
    is_single: bool
    variant: str | None = None


def _first_model(config: Any, settings: Settings) -> str:
    return f"hunyuan-video-{'i2v' if config.needs_picture else 't2v'}-720p"


def _first_settings(configs: dict[str, Any], places: Whereabouts) -> Settings:
    return Settings() if configs["dit"].needs_picture else Settings(name="HunyuanVideo")


@dataclass(frozen=True)
class Facts:
    """What the checkpoints of a family have in common beside their components.

    ``tree`` is how Tencent's is built: a folder for each model, or for each variant of the transformer; ``model`` is
    that folder, from the transformer's configuration and the settings, ``processor`` the one of picture settings, ""
    where they lie beside the vision tower. ``described``: what the transformer's ``config.json`` says of the settings,
    in each layout. ``pipelines``
    are diffusers' classes, with and without a picture; ``image_processor`` a folder and a class there, ``colours`` mean
    and deviation of pictures. ``settings`` are those of a checkpoint that says none of its own. ``optional`` components
    may be missing. ``variants`` are names of transformers that their tensors do not tell. ``advice``: what to do where
    there is no vision tower. ``check_enlarging``: whether configurations, the file of the transformer that enlarges
    clips and the settings fit together.
    """

    name: str = "HunyuanVideo"
    tree: Literal["models", "variants"] = "models"
    model: Callable[[Any, Settings], str] = _first_model
    processor: str = ""
    described: Callable[[Settings, str], Content] = lambda settings, layout: {}
    pipelines: tuple[str, str] = ("HunyuanVideoImageToVideoPipeline", "HunyuanVideoImageToVideoPipeline")
    image_processor: tuple[str, str] = ("image_processor", "CLIPImageProcessor")
    colours: tuple[tuple[float, float, float], tuple[float, float, float]] = (CLIP_MEAN, CLIP_STD)
    settings: Callable[[dict[str, Any], Whereabouts], Settings] = _first_settings
    optional: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    has_guider: bool = False
    advice: str = ""
    check_enlarging: Callable[[Mapping[str, Any], Path | None, Enlargement], None] = lambda *parts: None


class Components(dict[str, Component[Any]]):
    """Rows by their names, in the order in which a person is told of them, and what they have in common."""

    facts: Facts = Facts()


def table(*rows: Component[Any], facts: Facts = Facts()) -> Components:
    """The table of a family; without facts of its own, it has those of the first."""
    made = Components({row.name: row for row in rows})
    made.facts = facts
    return made
