"""A data set as musubi-tuner's TOML file describes it: its clips and captions, and how they are used.

What such a file means: specification of LoRA training, section 10.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from framewake.errors import InputError, nearest, parsing
from framewake.media.clips import is_clip, is_picture
from framewake.train.cache import Cache
from framewake.train.data import (
    ENDING,
    NOTHING_TO_LEARN,
    Example,
    Listed,
    Mistakes,
    existing,
    found_in,
    looked_at,
    read_folder,
    read_list,
)
from framewake.train.use import EXTRACTIONS, SizeOf, Use

STEP_PX = 16  # sides are multiples of it
MODEL_FPS = 24.0
SOURCES = ("video_directory", "video_jsonl_file", "image_directory", "image_jsonl_file")
# Keys of other models and methods, which say nothing about clips and captions.
MEANINGLESS = (
    "control_directory", "control_resolution", "no_resize_control", "multiple_target", "reference_directory",
    "flux_kontext_no_resize_control", "qwen_image_edit_no_resize_control", "qwen_image_edit_control_resolution",
    "fp_latent_window_size", "fp_1f_clean_indices", "fp_1f_target_index", "fp_1f_no_post", "debug_dataset",
)  # fmt: skip


def _is_count(x: Any) -> bool:
    return type(x) is int and x >= 1


def _is_size(x: Any) -> bool:
    sides = x if isinstance(x, list) else [x]
    return len(sides) in (1, 2) and all(_is_count(side) and side >= STEP_PX for side in sides)


_COUNT, _SWITCH = (_is_count, "a whole number from 1"), (lambda x: isinstance(x, bool), "true or false")
_TEXT = (lambda x: isinstance(x, str) and x != "", "a text")
# Each key that has a meaning: whether a value is one, and what is expected.
KEYS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys((*SOURCES, "cache_directory", "caption_extension"), _TEXT),
    **dict.fromkeys(("batch_size", "num_repeats", "frame_stride", "frame_sample", "max_frames"), _COUNT),
    **dict.fromkeys(("enable_bucket", "bucket_no_upscale"), _SWITCH),
    "resolution": (_is_size, f"[width, height] in pixels, {STEP_PX} at the least"),
    "target_frames": (lambda x: isinstance(x, list) and bool(x) and all(map(_is_count, x)), "a list such as [25, 45]"),
    "frame_extraction": (lambda x: x in EXTRACTIONS, f"one of {', '.join(EXTRACTIONS)}"),
    "source_fps": (lambda x: type(x) in (int, float) and 0 < x < math.inf, "a number above 0"),
}


class Gathered(NamedTuple):
    """What is trained on, where its encoded clips are kept, and what a person should know of it."""

    examples: list[Example]
    cache: Cache
    notes: list[str]


def gathered(place: Path, use: Use, cache: Path | None, *, takes_pictures: bool) -> Gathered:
    """The examples of a folder, used as told, or of a file that describes a data set.

    Raises: InputError that tells everything that is wrong.
    """
    mistakes = Mistakes(place)
    if place.suffix.lower() == ".toml" and place.is_file():
        found = read_described(place, mistakes, takes_pictures=takes_pictures)
    else:
        found = Described(read_folder(place, use, mistakes), None, [])
    kept = Cache(cache or found.cache or (place if place.is_dir() else place.parent) / ".framewake")
    kept.prepare()
    examples = looked_at(found.listed, mistakes, kept)
    mistakes.check()
    return Gathered(examples, kept, found.notes)


class Described(NamedTuple):
    """What a file describes: its clips, where encoded clips go (None: not told), what a person should know."""

    listed: list[Listed]
    cache: Path | None
    notes: list[str]


def read_described(path: Path, mistakes: Mistakes, *, takes_pictures: bool) -> Described:
    """The clips of all data sets in a file.

    ``takes_pictures``: the model can learn from a frame that stands alone.
    Raises: InputError for a file that is no TOML.
    """
    content = _parsed(path)
    tables, general = content.get("datasets", []), content.get("general", {})
    if not isinstance(tables, list) or not tables or not all(isinstance(x, dict) for x in [general, *tables]):
        raise InputError(f"{path} describes no data set: expected [[datasets]] with a {SOURCES[0]} each.")
    for name in sorted(set(content) - {"general", "datasets"}):
        mistakes.add(f"{name!r} is unknown.{nearest(name, ('general', 'datasets'))}")
    reader = _Reader(path.parent, mistakes, takes_pictures=takes_pictures)
    shared = reader.checked("[general]", general)
    found = [
        each for number, table in enumerate(tables, 1) for each in reader.listed(f"data set {number}", shared, table)
    ]
    told = [f"{', '.join(reader.ignored)} mean nothing here and are left out."] if reader.ignored else []
    told += reader.changes
    return Described(found, next(iter(reader.caches), None), [f"{path.name}: {' '.join(told)}"] if told else [])


class _Reader:
    """What the tables of a file say."""

    def __init__(self, folder: Path, mistakes: Mistakes, *, takes_pictures: bool) -> None:
        self.folder, self.mistakes, self.takes_pictures = folder, mistakes, takes_pictures
        self.ignored: dict[str, None] = {}
        self.changes: list[str] = []
        self.caches: list[Path] = []

    def checked(self, where: str, table: Mapping[str, Any]) -> dict[str, Any]:
        """The keys of a table that have a meaning and a value that is one."""
        found = {}
        for key, value in table.items():
            if key in MEANINGLESS:
                self.ignored[key] = None
            elif key not in KEYS:
                self.mistakes.add(f"{where}: {key!r} is unknown.{nearest(key, KEYS)}")
            elif not KEYS[key][0](value):
                self.mistakes.add(f"{where}: {key} is {value!r}", f"expected {KEYS[key][1]}")
            else:
                found[key] = value
        return found

    def listed(self, where: str, shared: Mapping[str, Any], table: Mapping[str, Any]) -> list[Listed]:
        """The clips of a data set."""
        told = {**shared, **self.checked(where, table)}
        sources = [key for key in SOURCES if key in table]
        if len(sources) != 1:
            named = " and ".join(sources) or "nothing"
            self.mistakes.add(f"{where} names {named}", f"name one of {', '.join(SOURCES)} in each")
            return []
        source = sources[0]
        if source not in told:
            return []  # its value is a mistake that is told already
        if source.startswith("image") and not self.takes_pictures:
            self.mistakes.add(f"{where} has pictures", NOTHING_TO_LEARN)
            return []
        lengths = self._lengths(where, told, is_picture_set=source.startswith("image"))
        if not lengths:
            asked = told.get("target_frames", [1])
            self.mistakes.add(f"{where} has target_frames of {asked}", "name 5 or more, as the first frame is given")
            lengths = (5,)  # so that what else is wrong is found
        if "cache_directory" in told:
            self.caches.append(existing(Path(told["cache_directory"]), self.folder))
        use = _use(told, lengths, is_picture_set=source.startswith("image"))
        return _listed(existing(Path(told[source]), self.folder), source, told, use, self.mistakes)

    def _lengths(self, where: str, told: Mapping[str, Any], *, is_picture_set: bool) -> tuple[int, ...]:
        """How many frames cuts have; of whole clips, the least and the most."""
        if is_picture_set:
            return (1,)
        least = 1 if self.takes_pictures else 5
        if told.get("frame_extraction") == "full":
            return (least, max(told.get("max_frames", 129), least))
        asked = told.get("target_frames", [1])
        lengths = sorted({(length - 1) // 4 * 4 + 1 for length in asked} - set(range(1, least)))
        if lengths and sorted(set(asked)) != lengths:
            self.changes.append(
                f"{where.capitalize()}: of target_frames {asked}, {lengths} are used: 4 n + 1, and more than the "
                "given first one."
            )
        return tuple(lengths)


def _parsed(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 ({error}).") from error
    with parsing(InputError, f"{path} is no TOML", "Mend it there."):
        return tomllib.loads(text)


def _use(told: Mapping[str, Any], lengths: tuple[int, ...], *, is_picture_set: bool) -> Use:
    fps = told.get("source_fps")
    return Use(
        lengths,
        _sized(told),
        extraction="head" if is_picture_set else told.get("frame_extraction", "head"),
        stride=told.get("frame_stride", 1),
        samples=told.get("frame_sample", 1),
        rate=1.0 if fps is None else max(fps / MODEL_FPS, 1.0),  # slower clips are not made longer
        batch=told.get("batch_size", 1),
        repeats=told.get("num_repeats", 1),
        takes_pictures=is_picture_set,
    )


def _sized(told: Mapping[str, Any]) -> SizeOf:
    """The size of each clip: one for all, or that of its shape in the same area."""
    asked = told.get("resolution", [960, 544])
    width, height = (asked * 2)[:2] if isinstance(asked, list) else (asked, asked)
    if not told.get("enable_bucket", False):
        return lambda _height, _width: (_whole(height), _whole(width))
    area, keeps_small = width * height, told.get("bucket_no_upscale", False)
    side = int(math.sqrt(area))
    widths = range(_whole(side // 2), side + STEP_PX, STEP_PX)
    pairs = {pair for w in widths for pair in ((_whole(area // w), w), (w, _whole(area // w)))}

    def size(height: int, width: int) -> tuple[int, int]:
        if keeps_small:
            shrunk = min(math.sqrt(area / (width * height)), 1.0)
            return _whole(int(height * shrunk + 0.5)), _whole(int(width * shrunk + 0.5))
        return min(sorted(pairs), key=lambda pair: abs(pair[1] / pair[0] - width / height))

    return size


def _whole(side: float) -> int:
    return max(int(side) // STEP_PX * STEP_PX, STEP_PX)


def _listed(path: Path, source: str, told: Mapping[str, Any], use: Use, mistakes: Mistakes) -> list[Listed]:
    """The clips of a folder or of a list."""
    advice = f"put a caption into a file of its name with {told.get('caption_extension', ENDING)}"
    is_folder = source.endswith("directory")
    if not (path.is_dir() if is_folder else path.is_file()):
        mistakes.add(f"{source} {path} is no {'folder' if is_folder else 'file'}", "correct the path")
        return []
    if not is_folder:
        return read_list(path, source.partition("_")[0] + "_path", use, mistakes, advice='give it a "caption"')
    ending, kinds = told.get("caption_extension", ENDING), is_picture if use.takes_pictures else is_clip
    advice = f"put a caption into a file of its name with {ending}"
    found = found_in(path, use, mistakes, ending=ending, advice=advice, is_fit=kinds)
    if not found:
        mistakes.add(f"{source} {path} holds no clip with a caption", "correct the path")
    return found
