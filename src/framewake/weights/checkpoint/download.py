"""Published checkpoints: where they are, and how huggingface_hub, which is optional, downloads them."""

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
from framewake.weights.checkpoint.verify import sha256

HUB = "https://huggingface.co"
LICENCE = (
    "The weights are under the Tencent Hunyuan Community License, which is not valid in the European Union, the "
    "United Kingdom and South Korea. Read it before you download them."
)
_TEXTS = ("*.json", "*.txt", "*.model", "LICENSE*", "NOTICE*", "README.md")


class Repository(NamedTuple):
    """A repository and the folder of the checkpoint that it goes into; only files like ``patterns`` are wanted."""

    name: str
    folder: str
    patterns: tuple[str, ...]


class Published(NamedTuple):
    """A published checkpoint. Units: ``gigabytes`` of 1e9 bytes, about."""

    name: str
    what: str
    gigabytes: int
    repositories: tuple[Repository, ...]


PUBLISHED = (
    Published(
        "diffusers",
        "HunyuanVideo-I2V, token replace, in the diffusers layout",
        43,
        (Repository("hunyuanvideo-community/HunyuanVideo-I2V", ".", ("*.safetensors", *_TEXTS)),),
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
    ),
)


def find_published(name: str) -> Published:
    """A published checkpoint by its name.

    Raises: InputError when there is none of that name.
    """
    names = [published.name for published in PUBLISHED]
    for published in PUBLISHED:
        if published.name == name:
            return published
    raise InputError(f"no published checkpoint {name!r}: choose {', '.join(names)}.{nearest(name, names)}")


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
    for repository in published.repositories:
        wanted = ", ".join(repository.patterns)
        lines.append(f"  {mirror}/{repository.name}/tree/{revision} -> {folder / repository.folder}")
        lines.append(f"    files: {wanted}")
    lines.append("With huggingface_hub on a machine that has a network:")
    for repository in published.repositories:
        flags = " ".join(f"--include '{pattern}'" for pattern in repository.patterns)
        lines.append(
            f"  hf download {repository.name} --revision {revision} --local-dir {folder / repository.folder} {flags}"
        )
    lines.append(f"Then: framewake checkpoints verify {folder} --full")
    return lines


def download(
    published: Published, folder: Path, *, mirror: str | None = None, revision: str | None = None
) -> Iterator[str]:
    """Fetch a checkpoint, told repository by repository; what is there already is not fetched again.

    Every large file is compared with the hash that the hub has for it.
    Raises: EngineError without huggingface_hub, CheckpointError when a file cannot be had or is damaged.
    """
    need("framewake checkpoints download", "huggingface_hub")
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    place = mirror or os.environ.get("HF_ENDPOINT") or HUB
    proxy = proxy_for(place)
    if proxy is None:  # the hub's client would make one for every proxy that is named, also of those it does not use
        forget_proxies()
    for repository in published.repositories:
        target = folder / repository.folder
        yield f"{repository.name} -> {target}"
        try:
            api = huggingface_hub.HfApi(endpoint=mirror)
            found = list(api.list_repo_tree(repository.name, revision=revision, recursive=True))
            files = [file for file in found if isinstance(file, huggingface_hub.hf_api.RepoFile)]
            wanted = filter_repo_objects(files, allow_patterns=list(repository.patterns), key=lambda file: file.path)
            for file in wanted:
                if file.lfs is not None:
                    url = huggingface_hub.hf_hub_url(repository.name, file.path, revision=revision, endpoint=mirror)
                    _fetch(url, target / file.path, file.size, file.lfs.sha256)
            api.snapshot_download(
                repository.name, revision=revision, local_dir=target, allow_patterns=list(repository.patterns)
            )
        except (OSError, _network_error()) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{repository.name} cannot be fetched{through(proxy)}: {reason}") from error
        yield _compared(target, [(file.path, file.size, file.lfs) for file in files])


def _network_error() -> type[Exception]:
    """What the hub's client raises for a lost line: which library it talks through depends on its version."""
    from huggingface_hub.utils import get_session

    library = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    return library.HTTPError


def _fetch(url: str, path: Path, size: int, digest: str) -> None:
    """A large file, from where an earlier attempt was cut; it gets its name when it is complete.

    The hub's own client begins such a file anew in every process since its second version.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{digest[:12]}.part")
    with part.open("ab") as file:
        if file.tell() > size:
            file.truncate(0)
        if file.tell() < size:
            http_get(url, file, resume_size=file.tell(), headers=build_hf_headers(), expected_size=size)
    part.replace(path)


def _compared(folder: Path, listed: list[tuple[str, int, object]]) -> str:
    """Compare what is there with sizes and hashes of the hub.

    Raises: CheckpointError for the first file that differs.
    """
    count = 0
    for name, size, large in listed:
        path = folder / name
        if not path.is_file():
            continue  # not wanted
        expected = getattr(large, "sha256", None)
        if path.stat().st_size != size or (expected is not None and sha256(path) != expected):
            raise CheckpointError(f"{path} is not the file that the hub has: remove it and download again.")
        count += 1
    return f"{count} files are as the hub has them"
