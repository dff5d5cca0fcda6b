"""``framewake checkpoints``: what it prints, and its exit codes."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import socket
import threading

import numpy as np
import pytest
from toy_layouts import MODEL, save_comfy, save_torch, write_tencent, write_wide_toy

from framewake.weights.checkpoint import download as hub
from framewake.weights.reading.files import open_tensors
from framewake.weights.writing.files import write_tensors


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    return write_wide_toy(tmp_path_factory.mktemp("source"))


@pytest.fixture
def tree(source, tmp_path):
    return write_tencent(tmp_path / "ckpts", source)


def test_verify(call, tree):
    answer = call("checkpoints", "verify", tree)
    assert answer.code == 0, answer.err
    assert "tencent layout, pictures to video" in answer.out
    assert [line.split()[0] for line in answer.out.splitlines()[1:]] == ["ok"] * 4


def test_verify_reads_everything_when_asked(call, tree):
    path = tree / MODEL / "transformers" / "mp_rank_00_model_states.pt"
    answer = call("checkpoints", "verify", tree, "--full", "--json")
    found = json.loads(answer.out)
    assert answer.code == 0 and found["layout"] == "tencent"
    hashes = {name: value for part in found["parts"] for name, value in part["hashes"].items()}
    assert hashes[path.name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(part["problem"] is None and part["tensors"] > 0 for part in found["parts"])


def test_verify_finds_nan_only_when_everything_is_read(call, tree):
    path = tree / MODEL / "transformers" / "mp_rank_00_model_states.pt"
    tensors = {name: open_tensors(path).read(name) for name in open_tensors(path).names()}
    tensors["final_layer.linear.bias"][1] = np.nan
    save_torch(path, tensors, "module")
    assert call("checkpoints", "verify", tree).code == 0
    answer = call("checkpoints", "verify", tree, "--full")
    assert answer.code == 3 and "BAD  transformer" in answer.out and "'final_layer.linear.bias'" in answer.out
    assert answer.out.count("ok   ") == 3


def test_verify_finds_a_flipped_bit(call, tree):
    path = tree / MODEL / "transformers" / "mp_rank_00_model_states.pt"
    data = bytearray(path.read_bytes())
    name = "single_blocks.0.linear1.bias"
    data[data.index(open_tensors(path).read(name).tobytes())] ^= 1
    path.write_bytes(data)
    assert call("checkpoints", "verify", tree).code == 0
    answer = call("checkpoints", "verify", tree, "--full")
    assert answer.code == 3 and "check sum" in answer.out


def test_verify_tells_of_every_bad_part(call, source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "copy")
    write_tensors(next((folder / "vae").glob("*.safetensors")), {"x": np.zeros(2, np.float32)})
    next((folder / "text_encoder_2").glob("*.safetensors")).unlink()
    answer = call("checkpoints", "verify", folder)
    assert answer.code == 3 and answer.out.count("BAD") == 2 and answer.out.count("ok   ") == 2


def test_verify_refuses_a_pickle_that_wants_to_run(call, tree):
    import os
    import pickle
    import zipfile

    class Hostile:
        def __reduce__(self):
            return os.system, ("touch was_here",)

    path = tree / MODEL / "transformers" / "mp_rank_00_model_states.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", pickle.dumps({"module": Hostile()}, 2))
    answer = call("checkpoints", "verify", tree)
    assert answer.code == 3 and "posix.system" in answer.err and "nothing in it was run" in answer.err
    assert not list(tree.parent.rglob("was_here"))


def test_convert_and_use(call, tree, picture, tmp_path):
    answer = call("checkpoints", "convert", tree, tmp_path / "new", "--dtype", "bf16")
    assert answer.code == 0 and answer.out.count(" tensors, ") == 4, answer.err
    answer = call("animate", picture, "x", "--checkpoint", tmp_path / "new", "-q", "-o", "clip.gif")
    assert answer.code == 0 and (tmp_path / "clip.gif").stat().st_size > 1000, answer.err


def test_single_files(call, source, picture, tmp_path):
    files = save_comfy(tmp_path / "files", source)
    small = shutil.copytree(source, tmp_path / "small", ignore=shutil.ignore_patterns("*.safetensors"))
    flat = [text for name, path in files.items() for text in ("--part", f"{name}={path}")]
    assert call("checkpoints", "verify", small, *flat).code == 0
    animated = call("animate", picture, "x", "--checkpoint", small, *flat, "-q", "-o", "clip.gif")
    assert animated.code == 0 and (tmp_path / "clip.gif").stat().st_size > 1000, animated.err
    answer = call("checkpoints", "convert", small, tmp_path / "whole", *flat, "--dtype", "fp16")
    assert answer.code == 0, answer.err
    assert call("checkpoints", "verify", tmp_path / "whole").code == 0


@pytest.mark.parametrize("part", ["dit", "dit=", "div=x", "=x"])
def test_parts_that_mean_nothing(call, source, part):
    answer = call("checkpoints", "verify", source, "--part", part)
    assert answer.code == 2 and "NAME=FILE" in answer.err
    twice = call("checkpoints", "verify", source, "--part", "vae=a", "--part", "vae=b")
    assert twice.code == 2 and "twice" in twice.err


@pytest.mark.parametrize("dtype", ["fp8", "int8", "fp61"])
def test_convert_refuses_types(call, source, tmp_path, dtype):
    answer = call("checkpoints", "convert", source, tmp_path / "new", "--dtype", dtype)
    assert answer.code == 2 and dtype in answer.err and not (tmp_path / "new").exists()


def test_list(call, source, tree, tmp_path):
    shutil.copytree(source, tmp_path / "mine")
    answer = call("checkpoints", "list", tmp_path)
    assert answer.code == 0
    for text in ("ckpts  toy in the tencent layout", "mine  toy in the diffusers layout", "demo", "hunyuan", "GB"):
        assert text.lower() in answer.out.lower(), answer.out
    answer = call("checkpoints", "list", tmp_path / "gone")
    assert answer.code == 2 and "gone is no folder" in answer.err and answer.out == ""


def test_what_to_fetch_by_hand(call):
    answer = call("checkpoints", "download", "ckpts", "--name", "tencent", "--by-hand", "--revision", "abc")
    assert answer.code == 0 and "not valid in the European Union" in answer.err
    for text in ("tencent/HunyuanVideo-I2V/tree/abc -> ckpts", "-> ckpts/text_encoder_i2v", "hf download", "verify"):
        assert text in answer.out
    assert call("checkpoints", "download", "ckpts", "--name", "tencnet", "--by-hand").code == 2


V15 = ("--model", "hunyuanvideo-1.5", "--variant", "480p-i2v-step-distilled")


def test_what_to_fetch_of_1_5_by_hand(call):
    answer = call("checkpoints", "download", "ckpts", *V15, "--by-hand")
    assert answer.code == 0, answer.err
    assert "not valid in the European Union" in answer.err and "its own full legal name" in answer.err
    for text in (
        "tencent/HunyuanVideo-1.5/tree/main -> ckpts\n    files: transformer/480p_i2v_step_distilled/*, ",
        "Qwen/Qwen2.5-VL-7B-Instruct/tree/main -> ckpts/text_encoder/llm\n",
        "modelscope.cn/models/AI-ModelScope/Glyph-SDXL-v2/files -> ckpts/text_encoder/Glyph-SDXL-v2\n",
        "-> ckpts/vision_encoder/siglip\n",
        "curl -fL --create-dirs -o ckpts/text_encoder/Glyph-SDXL-v2/checkpoints/byt5_model.pt https://modelscope.cn/models/",
        "set HF_TOKEN",
    ):
        assert text in answer.out
    larger = call("checkpoints", "download", "ckpts", *V15, "--super-resolution", "--by-hand")
    assert "README.md, transformer/720p_sr_distilled/*, upsampler/720p_sr_distilled/*\n" in larger.out
    assert "Fetch about 91 GB" in larger.out and "Fetch about 57 GB" in answer.out
    text_only = call("checkpoints", "download", "ckpts", *V15[:3], "720p_t2v", "--by-hand")
    assert text_only.code == 0 and "siglip" not in text_only.out
    for more, told in (
        (V15[:2], "hunyuanvideo-1.5 has several variants: choose 480p-i2v-step-distilled, "),
        ((*V15[:3], "480p-i2v-step"), "no published checkpoint '480p-i2v-step'"),
        ((*V15, "--name", "tencent"), "hunyuanvideo-1.5 has no other layouts"),
        (V15[2:], "hunyuanvideo-i2v has no variants"),
        (("--super-resolution",), "hunyuanvideo-i2v has no super-resolution"),
        (("--model", "hunyuanvideo-2"), "no published model 'hunyuanvideo-2'"),
    ):
        refused = call("checkpoints", "download", "ckpts", *more, "--by-hand")
        assert refused.code == 2 and told in refused.err


def test_without_a_network_it_says_what_to_do(call, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's own attempts
    answer = call("checkpoints", "download", "ckpts", "--mirror", "http://127.0.0.1:9")
    assert answer.code == 3 and "cannot be fetched" in answer.err
    assert "http://127.0.0.1:9/hunyuanvideo-community/HunyuanVideo-I2V/tree/main -> ckpts" in answer.err


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of a hub's interface that a download asks for; ``files`` are served, ``hashes`` are told.

    ``sent`` is how many bytes of a body go out before the line is cut; ``begun`` are the places where bodies began.
    """

    files: dict[str, bytes]
    hashes: dict[str, str]
    sent: int | None = None
    begun: list[tuple[str, int]]

    def do_HEAD(self):
        self.do_GET(has_body=False)

    def do_GET(self, has_body=True):
        path = self.path.partition("?")[0]
        if "/tree/" in path:
            listed = []
            for name, data in self.files.items():
                entry = {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                if name in self.hashes:
                    entry["lfs"] = {"oid": self.hashes[name], "size": len(data), "pointerSize": 100}
                listed.append(entry)
            self.answer(json.dumps(listed).encode(), has_body)
        elif "/api/v1/models/" in path:  # ModelScope's
            listed = [{"Path": n, "Size": len(d), "Sha256": self.hashes.get(n, "")} for n, d in self.files.items()]
            self.answer(json.dumps({"Code": 200, "Data": {"Files": listed}}).encode(), has_body)
        elif "/api/models/" in path:
            siblings = [{"rfilename": name} for name in self.files]
            self.answer(json.dumps({"id": "x/y", "sha": "0" * 40, "siblings": siblings}).encode(), has_body)
        elif "/resolve/" in path:
            name = path.partition("/resolve/")[2].partition("/")[2]
            self.answer_file(name, has_body)
        else:
            self.send_error(404)

    def answer_file(self, name, has_body):
        data, more = self.files[name], {"ETag": f'"{self.hashes.get(name, "1" * 40)}"', "Accept-Ranges": "bytes"}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if has_body:
            self.begun.append((name, start))
        if has_body and self.sent is not None and name.endswith(".safetensors"):
            rest = self.sent if start == 0 else 0
            self.answer(data[start:], True, more, code=206 if start else 200, most=rest)
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if start:
            more["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.answer(data[start:], has_body, more, code=206 if start else 200)

    def answer(self, data, has_body, more=None, *, code=200, most=None):
        self.send_response(code)
        headers = {"Content-Length": str(len(data)), "X-Repo-Commit": "0" * 40, "Content-Type": "application/json"}
        for name, value in (headers | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if has_body:
            self.wfile.write(data[:most])
            self.wfile.flush()

    def log_message(self, format, *arguments):
        """Tests are quiet."""


@pytest.fixture
def mirror():
    pytest.importorskip("huggingface_hub")
    Hub.files = {"model_index.json": b"{}", "vae/x.safetensors": b"weights", "demo.mp4": b"not wanted"}
    Hub.hashes = {"vae/x.safetensors": hashlib.sha256(b"weights").hexdigest()}
    Hub.sent, Hub.begun = None, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_mirror(call, mirror, tmp_path):
    answer = call("checkpoints", "download", "new", "--mirror", mirror)
    assert answer.code == 0, answer.err
    assert (tmp_path / "new" / "vae" / "x.safetensors").read_bytes() == b"weights"
    assert "2 files are as the hub has them" in answer.out and not (tmp_path / "new" / "demo.mp4").exists()


def test_1_5_comes_from_where_it_lies(call, mirror, tmp_path, monkeypatch):
    wanted = {
        "transformer/480p_i2v_step_distilled/x.safetensors": "transformer/480p_i2v_step_distilled/x.safetensors",
        "model.safetensors": "text_encoder/llm/model.safetensors",
        "checkpoints/byt5_model.pt": "text_encoder/Glyph-SDXL-v2/checkpoints/byt5_model.pt",
        "image_encoder/model.safetensors": "vision_encoder/siglip/image_encoder/model.safetensors",
    }
    Hub.files = {name: name.encode() for name in (*wanted, "transformer/480p_i2v/x.safetensors", "assets/x.json")}
    Hub.hashes = {name: hashlib.sha256(data).hexdigest() for name, data in Hub.files.items()}
    monkeypatch.setattr(hub, "MODELSCOPE", mirror)
    answer = call("checkpoints", "download", "new", *V15, "--mirror", mirror)
    assert answer.code == 0, answer.err
    for name, place in wanted.items():
        assert (tmp_path / "new" / place).read_bytes() == name.encode()
    assert not (tmp_path / "new" / "transformer" / "480p_i2v").exists()
    assert not (tmp_path / "new" / "text_encoder" / "Glyph-SDXL-v2" / "assets").exists()
    (tmp_path / "new" / wanted["checkpoints/byt5_model.pt"]).unlink()
    Hub.hashes["checkpoints/byt5_model.pt"] = "2" * 64
    damaged = call("checkpoints", "download", "new", *V15, "--mirror", mirror)
    assert damaged.code == 3 and "byt5_model.pt is not the file that the hub has" in damaged.err
    del Hub.files["checkpoints/byt5_model.pt"]
    none = call("checkpoints", "download", "new", *V15, "--mirror", mirror)
    assert none.code == 3 and "does not list checkpoints/byt5_model.pt: fetch it by hand" in none.err


def test_a_file_that_was_damaged_on_the_way(call, mirror, tmp_path):
    Hub.hashes = {"vae/x.safetensors": "2" * 64}
    answer = call("checkpoints", "download", "new", "--mirror", mirror)
    assert answer.code == 3 and "x.safetensors is not the file that the hub has" in answer.err


def test_a_download_that_was_cut_goes_on_where_it_stopped(call, mirror, tmp_path, monkeypatch):
    data = bytes(range(256)) * (1 << 16)  # 16 MiB: more than the client takes at a time
    Hub.files = {"model_index.json": b"{}", "vae/x.safetensors": data}
    Hub.hashes = {"vae/x.safetensors": hashlib.sha256(data).hexdigest()}
    Hub.sent = 12 << 20
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's own attempts
    answer = call("checkpoints", "download", "new", "--mirror", mirror)
    assert answer.code == 3 and "cannot be fetched" in answer.err
    assert not (tmp_path / "new" / "vae" / "x.safetensors").exists(), "half a file under its name"
    Hub.sent, Hub.begun = None, []
    answer = call("checkpoints", "download", "new", "--mirror", mirror)
    assert answer.code == 0, answer.err
    assert (tmp_path / "new" / "vae" / "x.safetensors").read_bytes() == data
    starts = [start for name, start in Hub.begun if name == "vae/x.safetensors"]
    assert len(starts) == 1 and 0 < starts[0] <= 12 << 20, starts


def test_every_published_name_is_said_once():
    names = [published.name for published in hub.PUBLISHED]
    assert len(set(names)) == len(names) and all(published.repositories for published in hub.PUBLISHED)
