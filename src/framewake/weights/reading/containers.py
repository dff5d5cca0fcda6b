"""What a file is, by its first bytes: checked before any reader of weights or LoRAs opens it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal, NamedTuple

from framewake.errors import CheckpointError
from framewake.weights.reading.gguf_blocks import READ

Handling = Literal["read", "converted", "refused"]

HEAD_BYTES = 1024
TAIL_BYTES = 1 << 20
AGAIN = "Download it again, with `curl -fL` or a browser that is logged in where the site asks for it."


class Container(NamedTuple):
    """A kind of file. ``key`` names it to readers, ``name`` to people; ``advice`` is the way out of a refusal."""

    key: str
    name: str
    handling: Handling
    advice: str
    fits: Callable[[bytes], bool]


def _at(place: int, *beginnings: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[place:].startswith(beginnings)


def _like(pattern: bytes) -> Callable[[bytes], bool]:
    found = re.compile(pattern, re.DOTALL | re.IGNORECASE)
    return lambda head: found.match(head) is not None


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes that give the length of a header of at most some hundred megabytes, and the header's brace."""
    return head[8:9] == b"{" and head[5:8] == bytes(3)


def _is_mindspore(head: bytes) -> bool:
    """A message of one tensor: its length, then a name and its length."""
    found = re.match(rb"\n[\x80-\xff]{0,9}[\x01-\x7f]\n([\x80-\xff]?)([\x01-\x7f])", head)
    if found is None:
        return False
    low, high = found[1], found[2][0]
    length = low[0] - 128 + (high << 7) if low else high
    name, following = head[found.end() :][:length], head[found.end() :][length : length + 1]
    return name.isascii() and name.decode("ascii").isprintable() and following in (b"\x12", b"\x1a")


def _is_zeros(head: bytes) -> bool:
    return len(head) >= 16 and not any(head)


def _is_text(head: bytes) -> bool:
    """Letters and nothing but; a cut character at the end does not count."""
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(head) < HEAD_BYTES or error.start < HEAD_BYTES - 4:
            return False
        text = head[: error.start].decode("utf-8-sig")
    return bool(text) and all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)


_UNPACK = "Unpack it and name the weight file inside."
_EXPORTED = "It is a program made of a model, not its weights: take the .safetensors or .pt file that it was made from."

_OLD_MAGIC = b"\x80\x02\x8a\x0a"  # a pickled number
_OLD_MEMBERS = (b"sys_info\0", b"pickle\0", b"storages\0", b"tensors\0")  # of the tar archives of torch 0.1

# The first that fits counts. What is read stands first.
CONTAINERS: tuple[Container, ...] = (
    Container("safetensors", "safetensors", "read", "The usual form of weights; sharded ones by their index.",
              _is_safetensors),
    Container("torch", ".pt, .pth, .bin, .ckpt of torch 1.6 or newer", "read",
              "Without torch, and nothing in it is run.",
              lambda head: head.startswith(b"PK\x03\x04") and _first_member(head).endswith("data.pkl")),
    # Told by its members, which its first bytes do not name.
    Container("torchscript", "a TorchScript or exported program", "refused", _EXPORTED, lambda head: False),
    Container("gguf", "GGUF", "converted",
              "Transformers as ComfyUI-GGUF writes them, text encoders and vision towers as llama.cpp does, in "
              f"{', '.join(READ)}; blocks become numbers a few rows at a time, in memory and streamed.",
              _at(0, b"GGUF")),
    Container("mindspore", "MindSpore's .ckpt", "read",
              "As data, without MindSpore; names of its own layers (gamma, embedding_table) are known. Not encrypted "
              "ones.", _is_mindspore),
    Container("old torch", "a .pt file from before torch 1.6", "refused",
              "Load it with torch.load(..., weights_only=True) and save it again with torch.save.",
              lambda head: head.startswith(_OLD_MAGIC)
              or (head[257:262] == b"ustar" and head.startswith(_OLD_MEMBERS))),
    Container("old ggml", "a GGML file from before GGUF", "refused",
              "Take the .safetensors file, or a GGUF file, of the same model.",
              _at(0, b"lmgg", b"fmgg", b"tjgg", b"algg")),
    Container("pointer", "a Git LFS pointer, which stands for a file that was not fetched", "refused",
              "Run `git lfs install` and `git lfs pull` in its folder, or download the file itself.",
              _like(rb"\s*version https://(git-lfs|hawser)\.github\.com")),
    Container("annex", "a git-annex pointer, which stands for a file that was not fetched", "refused",
              "Run `git annex get` on it.", _like(rb"/annex/objects/")),
    Container("html", "a web page (HTML), such as an error or a login in place of a download", "refused", AGAIN,
              _like(rb"(\xef\xbb\xbf)?\s*(<!doctype html|<html|<head|<body|<!--|<script)")),
    Container("xml", "XML, such as the error page of a storage service or a model's description", "refused", AGAIN,
              _like(rb"(\xef\xbb\xbf)?\s*<(\?xml|error>|net )")),
    Container("json", "JSON without tensors: a server's error, or a model's description", "refused",
              "An index has to end in .index.json; else name the weight file, and where there is none, download it "
              "again.", _like(rb"(\xef\xbb\xbf)?\s*[{\[]\s*[\"\]}{\[0-9]")),
    Container("hdf5", "HDF5 (Keras' .h5)", "refused", "Take the .safetensors or .pt file of the same model.",
              _at(0, b"\x89HDF\r\n\x1a\n")),
    Container("numpy", "a numpy array (.npy)", "refused", "Take the .safetensors file of the same model.",
              _at(0, b"\x93NUMPY")),
    Container("tensorrt", "a TensorRT engine", "refused", _EXPORTED, _at(0, b"ptrt", b"ftrt")),
    Container("ascend", "an offline model for Ascend (.om)", "refused", _EXPORTED, _at(0, b"IMOD")),
    Container("lite", "a MindSpore Lite or TFLite model", "refused", _EXPORTED, _at(4, b"MSL1", b"MSL2", b"TFL3")),
    Container("mindir", "MindIR, a program of MindSpore", "refused", _EXPORTED, _like(rb"\n[\x05-\x08]\d\.\d\.\d")),
    Container("onnx", "ONNX", "refused", _EXPORTED,
              _like(rb"\x08[\x01-\x20](\x12[\x01-\x40][\w .:-]{2}|:)")),
    Container("pickle", "a bare pickle, which can run code when it is opened", "refused",
              "Only files that torch.save wrote are read, as data: load it where you trust it and save it with "
              "safetensors.", _like(rb"\x80[\x02-\x05].")),
    Container("gzip", "a gzip archive", "refused", _UNPACK, _at(0, b"\x1f\x8b")),
    Container("7z", "a 7-Zip archive", "refused", _UNPACK, _at(0, b"7z\xbc\xaf\x27\x1c")),
    Container("rar", "a RAR archive", "refused", _UNPACK, _at(0, b"Rar!\x1a\x07")),
    Container("xz", "an xz archive", "refused", _UNPACK, _at(0, b"\xfd7zXZ\0")),
    Container("bzip2", "a bzip2 archive", "refused", _UNPACK, _like(rb"BZh[1-9]1AY&SY")),
    Container("zstd", "a Zstandard archive", "refused", _UNPACK, _at(0, b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")),
    Container("tar", "a tar archive", "refused", _UNPACK, _at(257, b"ustar")),
    Container("npz", "several numpy arrays (.npz)", "refused", "Take the .safetensors file of the same model.",
              lambda head: head.startswith(b"PK\x03\x04") and _first_member(head).endswith(".npy")),
    Container("zip", "a zip archive that torch did not write", "refused", _UNPACK,
              _at(0, b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")),
    Container("picture", "a picture", "refused", "Name the weight file: the picture is the first argument of animate.",
              _like(rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|BM....\0\0\0\0|II\*\0|MM\0\*|....ftyp(hei|mif1|avif)")),
    Container("clip", "a clip", "refused", "Name the weight file.", _like(rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ")),
    Container("pdf", "a PDF document", "refused", "Name the weight file.", _at(0, b"%PDF")),
    Container("program", "a program", "refused", "Name the weight file.", _at(0, b"\x7fELF", b"MZ")),
    Container("torrent", "a torrent, which says where a file can be fetched", "refused",
              "Let a BitTorrent client fetch it, and name the file.", _like(rb"d\d+:(announce|info|comment|created)")),
    Container("zeros", "nothing but zeros at its beginning: a download that took its place on the disk and stopped",
              "refused", "Let the program that fetched it finish, or download it again.", _is_zeros),
    Container("text", "plain text", "refused", AGAIN, _is_text),
)  # fmt: skip
# What is no kind of content, but of a name or a place.
_UNFINISHED = (".part", ".partial", ".incomplete", ".crdownload", ".download", ".opdownload", ".aria2", ".!ut", ".!qb")
_BY_NAME = {".safetensors": "safetensors", ".sft": "safetensors"} | dict.fromkeys(
    (".pt", ".pth", ".bin", ".ckpt"), "torch"
)
UNFINISHED = Container(
    "unfinished",
    f"an unfinished download ({', '.join(_UNFINISHED[:4])}, or with aria2's .aria2 beside it)",
    "refused",
    "Let the program that began it finish: its own command again goes on where it stopped (aria2c needs -c).",
    lambda head: False,
)
EMPTY = Container(
    "empty",
    "an empty file",
    "refused",
    "Download or copy it again; the disk may have been full.",
    lambda head: not head,
)
UNKNOWN = Container(
    "unknown",
    "anything else",
    "refused",
    "Read are safetensors, .pt files of torch 1.6 or newer, GGUF, and MindSpore's .ckpt.",
    lambda head: False,
)
_KINDS = {container.key: container for container in CONTAINERS}


def container_of(path: Path) -> Container:
    """What a file is by its content; what no content tells is taken as its name says.

    One answer for every door: parts of a checkpoint, whole checkpoints, LoRAs. At most a megabyte is read.
    Raises: CheckpointError for what is no file, cannot be read, is empty or unfinished, or is nothing known.
    """
    _check_finished(path)
    head, size = _head(path)
    if not size:
        raise CheckpointError(f"{path} is {EMPTY.name}. {EMPTY.advice}")
    if head.startswith(b"PK\x03\x04"):
        members = _directory(path, size)
        if b"/constants.pkl" in members or b"/archive_format" in members:
            return _KINDS["torchscript"]
        if b"data.pkl" in members:
            return _KINDS["torch"]
    found = next((container for container in CONTAINERS if container.fits(head)), None)
    key = _BY_NAME.get(path.suffix.lower())
    # A damaged file is best told of by the reader of what its name says it is.
    if found is None and key is not None:
        return _KINDS[key]
    if found is None:
        raise CheckpointError(f"{path} is of no known kind (it begins with {head[:8].hex(' ')}). {UNKNOWN.advice}")
    return found


def expect(path: Path, reads: Collection[str]) -> Container:
    """What a file is, where only some kinds can be read: ``reads`` has their keys, such as "safetensors".

    Raises: CheckpointError that names what it is and the way out, and as ``container_of``.
    """
    found = container_of(path)
    if found.key in reads:
        return found
    advice = found.advice if found.handling == "refused" else f"Expected: {' or '.join(reads)}."
    said = f" It says: {_said(path)!r}." if found.key in ("json", "xml", "text") else ""
    raise CheckpointError(f"{path} is {found.name}.{said} {advice}")


def foreign(path: Path) -> str:
    """What stands in place of a small text file, with the way out: a pointer, a page; "" for anything else."""
    head, _ = _head(path)
    found = next((each for each in CONTAINERS if each.key in ("pointer", "annex", "html") and each.fits(head)), None)
    return "" if found is None else f"{found.name}. {found.advice}"


def unfinished_downloads(folder: Path) -> list[Path]:
    """What a folder holds of downloads that did not come to their end."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _UNFINISHED)


def _check_finished(path: Path) -> None:
    control = path.with_name(path.name + ".aria2")
    if path.suffix.lower() in _UNFINISHED or control.exists():
        raise CheckpointError(f"{path} is {UNFINISHED.name}. {UNFINISHED.advice}")


def _head(path: Path) -> tuple[bytes, int]:
    """The first bytes and the size of a file."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):  # a pipe would wait for ever
            what = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
            raise CheckpointError(f"{path} is {what}, not a file. Name a weight file.")
        with open(path, "rb") as file:
            return file.read(HEAD_BYTES), about.st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            raise CheckpointError(
                f"{path} is a link to {os.readlink(path)}, which is not there. Copy what links mean (cp -rL), or "
                "download it again."
            ) from error
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}. Check the path.") from error


def _first_member(head: bytes) -> str:
    """The name of a zip archive's first member."""
    return head[30 : 30 + int.from_bytes(head[26:28], "little")].decode("utf-8", errors="replace")


def _directory(path: Path, size: int) -> bytes:
    """The end of a zip archive, where the names of its members stand."""
    with open(path, "rb") as file:
        file.seek(max(0, size - TAIL_BYTES))
        return file.read(TAIL_BYTES)


def _said(path: Path) -> str:
    head, _ = _head(path)
    text = " ".join(head.decode("utf-8", errors="replace").split())
    return text if len(text) <= 80 else text[:77] + "..."
