"""Published checkpoints: where they are, and how huggingface_hub, which is optional, downloads them.

One part of HunyuanVideo-1.5 lies at ModelScope alone: listed there, and fetched by the same client without its token.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from framewake.errors import CheckpointError, InputError, nearest
from framewake.network import forget_proxies, proxy_for, through
from framewake.packages import need
from framewake.weights.checkpoint.upsampler15 import larger_variant
from framewake.weights.checkpoint.verify import sha256

HUB = "https://huggingface.co"
MODELSCOPE = "https://modelscope.cn"
MODEL_I2V, MODEL_15 = "hunyuanvideo-i2v", "hunyuanvideo-1.5"
MODELS = (MODEL_I2V, MODEL_15)
LICENCE = (
    "The weights are under the Tencent Hunyuan Community License, which is not valid in the European Union, the "
    "United Kingdom and South Korea. Read it before you download them."
)
SERVICES = (
    " Whoever offers a service or product with it has to show its own full legal name to users, and that Tencent "
    "neither is affiliated with it nor sponsors or endorses it."
)
LARGER_GIGABYTES = 34  # 33.3 for the transformer
_TEXTS = ("*.json", "*.txt", "*.model", "LICENSE*", "NOTICE*", "README.md")


class Repository(NamedTuple):
    """A repository and the folder of the checkpoint that it goes into; only files like ``patterns`` are wanted.

    ``note`` is what a person should know beforehand. At ModelScope, the patterns are files.
    """

    name: str
    folder: str
    patterns: tuple[str, ...]
    note: str = ""
    is_at_modelscope: bool = False


class HubFile(NamedTuple):
    """A file that a hub has; "" in place of a hash for a small one. Units: ``size`` in bytes."""

    path: str
    size: int
    sha256: str


class Published(NamedTuple):
    """A published checkpoint; ``flags`` ask for it. Units: ``gigabytes`` of 1e9 bytes, about."""

    name: str
    what: str
    gigabytes: int
    repositories: tuple[Repository, ...]
    flags: str
    licence: str = LICENCE


_ENCODERS_15 = (
    Repository("Qwen/Qwen2.5-VL-7B-Instruct", "text_encoder/llm", ("*.safetensors", *_TEXTS)),
    Repository(
        "AI-ModelScope/Glyph-SDXL-v2",
        "text_encoder/Glyph-SDXL-v2",
        ("checkpoints/byt5_model.pt",),
        note="a pickle, of which framewake reads the numbers and runs nothing",
        is_at_modelscope=True,
    ),
)
_TOWER_15 = Repository(
    "black-forest-labs/FLUX.1-Redux-dev",
    "vision_encoder/siglip",
    ("image_encoder/*", "feature_extractor/*", "LICENSE*", "README.md"),
    note="under a non-commercial licence of its own: accept it on that page, and set HF_TOKEN; or take ComfyUI's "
    "sigclip_vision_patch14_384 with --part siglip=FILE",
)
_PUBLISHED_15 = (
    *("480p_i2v_step_distilled", "480p_i2v_distilled", "480p_i2v", "720p_i2v_distilled", "720p_i2v"),
    *("720p_i2v_distilled_sparse", "480p_t2v_distilled", "480p_t2v", "720p_t2v"),
)


def _published15(variant: str) -> Published:
    """A variant of HunyuanVideo-1.5 as Tencent publishes it, with its encoders from where they lie."""
    name, towers = variant.replace("_", "-"), (_TOWER_15,) if "i2v" in variant else ()
    own = (f"transformer/{variant}/*", "vae/*", "LICENSE*", "NOTICE*", "README.md")
    return Published(
        name,
        f"HunyuanVideo-1.5, {variant}, as Tencent publishes it, with its encoders",
        57 if towers else 56,
        (Repository("tencent/HunyuanVideo-1.5", ".", own), *_ENCODERS_15, *towers),
        f"--model {MODEL_15} --variant {name}",
        LICENCE + SERVICES,
    )


PUBLISHED = (
    Published(
        "diffusers",
        "HunyuanVideo-I2V, token replace, in the diffusers layout",
        43,
        (Repository("hunyuanvideo-community/HunyuanVideo-I2V", ".", ("*.safetensors", *_TEXTS)),),
        "--name diffusers",
    ),
    Published(
        "tencent",
        "HunyuanVideo-I2V, token replace, as Tencent publishes it, with its text encoders",
        44,
        (
            Repository(
                "tencent/HunyuanVideo-I2V",
                ".",
                ("hunyuan-video-i2v-720p/transformers/*", "hunyuan-video-i2v-720p/vae/*", *_TEXTS),
            ),
            Repository("xtuner/llava-llama-3-8b-v1_1-transformers", "text_encoder_i2v", ("*.safetensors", *_TEXTS)),
            Repository("openai/clip-vit-large-patch14", "text_encoder_2", ("model.safetensors", *_TEXTS)),
        ),
        "--name tencent",
    ),
    *map(_published15, _PUBLISHED_15),
)


def find_published(model: str, name: str | None, variant: str | None, *, enlarges: bool = False) -> Published:
    """A published checkpoint: of the first model by the name of its layout, of 1.5 by its variant.

    ``enlarges``: with the parts for super-resolution.
    Raises: InputError when there is none of that name, or there are no such parts.
    """
    if model not in MODELS:
        raise InputError(f"no published model {model!r}: choose {', '.join(MODELS)}.{nearest(model, MODELS)}")
    is_first = model == MODEL_I2V
    if (variant if is_first else name) is not None:
        raise InputError(f"{model} has no {'variants' if is_first else 'other layouts'}: leave that option out.")
    names = [each.name for each in PUBLISHED if (each.name in ("diffusers", "tencent")) == is_first]
    asked = (name or "diffusers") if is_first else (variant or "").replace("_", "-")
    if asked not in names:
        what = f"no published checkpoint {asked!r}" if asked else f"{model} has several variants"
        raise InputError(f"{what}: choose {', '.join(names)}.{nearest(asked, names)}")
    found = next(each for each in PUBLISHED if each.name == asked)
    if not enlarges:
        return found
    if is_first:
        raise InputError(f"{model} has no super-resolution: leave that option out.")
    return _with_larger(found)


def _with_larger(published: Published) -> Published:
    """The same with what makes its clips larger; the upsamplers take 0.2 GB at the most."""
    own, *others = published.repositories
    larger = larger_variant(published.name)
    own = own._replace(patterns=(*own.patterns, f"transformer/{larger}/*", f"upsampler/{larger}/*"))
    return published._replace(
        what=f"{published.what}, and {larger}",
        gigabytes=published.gigabytes + LARGER_GIGABYTES,
        repositories=(own, *others),
        flags=f"{published.flags} --super-resolution",
    )


def check_places(folder: Path, mirror: str | None) -> None:
    """Refuse what nothing can be fetched from or put into.

    Raises: InputError for a file in place of a folder, and for a mirror that is no address.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the checkpoint, which is made if need be.")
    if mirror is not None and not re.match(r"https?://[^/]", mirror):
        raise InputError(f"--mirror is {mirror!r}: expected an address such as https://hf-mirror.com.")


def by_hand(published: Published, folder: Path, *, mirror: str = HUB, revision: str = "main") -> list[str]:
    """What to fetch and where to put it, for a person with another machine."""
    lines = [f"Fetch about {published.gigabytes} GB and put them under {folder}:"]
    fetches = []
    for repository in published.repositories:
        name, target = repository.name, folder / repository.folder
        if repository.is_at_modelscope:
            lines.append(f"  {MODELSCOPE}/models/{name}/files -> {target}")
            fetches += [
                f"  curl -fL --create-dirs -o {target / file} {_at_modelscope(name, file)}"
                for file in repository.patterns
            ]
        else:
            lines.append(f"  {mirror}/{name}/tree/{revision} -> {target}")
            flags = " ".join(f"--include '{pattern}'" for pattern in repository.patterns)
            fetches.append(f"  hf download {name} --revision {revision} --local-dir {target} {flags}")
        lines.append(f"    files: {', '.join(repository.patterns)}")
        if repository.note:
            lines.append(f"    {repository.note}")
    lines += ["With huggingface_hub on a machine that has a network:", *fetches]
    return [*lines, f"Then: framewake checkpoints verify {folder} --full"]


def download(
    published: Published, folder: Path, *, mirror: str | None = None, revision: str | None = None
) -> Iterator[str]:
    """Fetch a checkpoint, told repository by repository; what is there already is not fetched again.

    Every large file is compared with the hash that the hub has for it.
    Raises: EngineError without huggingface_hub, CheckpointError when a file cannot be had or is damaged.
    """
    need("framewake checkpoints download", "huggingface_hub")
    places = {MODELSCOPE if each.is_at_modelscope else mirror or os.environ.get("HF_ENDPOINT") or HUB
              for each in published.repositories}  # fmt: skip
    proxies = {place: proxy_for(place) for place in places}
    if not any(proxies.values()):  # the hub's client would make one for every proxy that is named, also of those it
        forget_proxies()  # does not use
    for repository in published.repositories:
        target = folder / repository.folder
        yield f"{repository.name} -> {target}"
        try:
            if repository.is_at_modelscope:
                files = _from_modelscope(repository, target)
            else:
                files = _from_hub(repository, target, mirror=mirror, revision=revision)
        except (OSError, _network_error()) as error:
            reason = " ".join(str(error).split())[:200]
            proxy = next(filter(None, proxies.values()), None)
            note = f" It is {repository.note}." if repository.note else ""
            raise CheckpointError(f"{repository.name} cannot be fetched{through(proxy)}: {reason}{note}") from error
        yield _compared(target, files)


def _from_hub(repository: Repository, target: Path, *, mirror: str | None, revision: str | None) -> list[HubFile]:
    """What is wanted of a repository, fetched; all that it has."""
    import huggingface_hub
    from huggingface_hub.utils import build_hf_headers, filter_repo_objects

    api = huggingface_hub.HfApi(endpoint=mirror)
    found = list(api.list_repo_tree(repository.name, revision=revision, recursive=True))
    files = [file for file in found if isinstance(file, huggingface_hub.hf_api.RepoFile)]
    for file in filter_repo_objects(files, allow_patterns=list(repository.patterns), key=lambda file: file.path):
        if file.lfs is not None:
            url = huggingface_hub.hf_hub_url(repository.name, file.path, revision=revision, endpoint=mirror)
            _fetch(url, target, HubFile(file.path, file.size, file.lfs.sha256), build_hf_headers())
    api.snapshot_download(
        repository.name, revision=revision, local_dir=target, allow_patterns=list(repository.patterns)
    )
    return [HubFile(file.path, file.size, getattr(file.lfs, "sha256", "")) for file in files]


def _from_modelscope(repository: Repository, target: Path) -> list[HubFile]:
    """The same from ModelScope.

    Raises: CheckpointError for an answer that does not list the files.
    """
    from huggingface_hub.utils import get_session

    place = f"{MODELSCOPE}/api/v1/models/{repository.name}/repo/files?Revision=master&Recursive=true"
    answer = get_session().get(place)
    answer.raise_for_status()
    try:
        held = {str(each["Path"]): each for each in answer.json()["Data"]["Files"]}
        files = [HubFile(name, int(held[name]["Size"]), str(held[name]["Sha256"])) for name in repository.patterns]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{place} does not list {', '.join(repository.patterns)}: fetch it by hand.") from error
    for file in files:
        _fetch(_at_modelscope(repository.name, file.path), target, file, {})
    return files


def _at_modelscope(name: str, file: str) -> str:
    return f"{MODELSCOPE}/models/{name}/resolve/master/{file}"


def _network_error() -> type[Exception]:
    """What the hub's client raises for a lost line: which library it talks through depends on its version."""
    from huggingface_hub.utils import get_session

    library = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    return library.HTTPError


def _fetch(url: str, folder: Path, file: HubFile, headers: dict[str, str]) -> None:
    """A large file, from where an earlier attempt was cut; it gets its name when it is complete.

    The hub's own client begins such a file anew in every process since its second version.
    """
    from huggingface_hub.file_download import http_get

    path = folder / file.path
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{file.sha256[:12]}.part")
    with part.open("ab") as opened:
        if opened.tell() > file.size:
            opened.truncate(0)
        if opened.tell() < file.size:
            http_get(url, opened, resume_size=opened.tell(), headers=headers, expected_size=file.size)
    part.replace(path)


def _compared(folder: Path, listed: list[HubFile]) -> str:
    """Compare what is there with sizes and hashes of the hub.

    Raises: CheckpointError for the first file that differs.
    """
    count = 0
    for file in listed:
        path = folder / file.path
        if not path.is_file():
            continue  # not wanted
        if path.stat().st_size != file.size or (file.sha256 and sha256(path) != file.sha256):
            raise CheckpointError(f"{path} is not the file that the hub has: remove it and download again.")
        count += 1
    return f"{count} files are as the hub has them"
