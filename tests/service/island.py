"""Run as a program inside ``unshare --net --mount``: a little internet on this machine, with names that play tricks.

Addresses that count as public lead to the loopback device of this island, and a real DNS server answers for names. What
``framewake`` fetched from which address is printed as JSON. Arguments: a folder, a checkpoint, a picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

OPEN, SECOND, INSIDE = "11.0.0.1", "11.0.0.2", "10.0.0.1"
WEB = 8080
NAMES = {
    "open.example": [OPEN],
    "inside.example": [INSIDE],
    "both.example": [OPEN, INSIDE],
    "here.example": ["127.0.0.1"],
    "mapped.example": [f"::ffff:{INSIDE}"],
    "six.example": ["::1"],
    "rebind.example": [OPEN],  # and inside when it is asked again, as the next one
    "again.example": [OPEN],
    "metadata.example": ["169.254.169.254"],
}
LATER = {"rebind.example": [INSIDE], "again.example": [INSIDE]}
URLS = {
    "plain": "http://open.example:8080/",
    "address": f"http://{OPEN}:8080/",
    "redirected": f"http://open.example:8080/to/http://{SECOND}:8080/",
    "rebind": "http://rebind.example:8080/",
    "large": "http://open.example:8080/large",
    "slow": "http://open.example:8080/slow",
    "dripping": "http://open.example:8080/dripping",
    "zipped": "http://open.example:8080/zipped",
    "missing": "http://open.example:8080/missing",
    "round": "http://open.example:8080/round",
    "inside": "http://inside.example:8080/",
    "both": "http://both.example:8080/",
    "here": "http://here.example:8080/",
    "mapped": "http://mapped.example:8080/",
    "six": "http://six.example:8080/",
    "metadata": "http://metadata.example/latest",
    "unknown": "http://unknown.example:8080/",
    "to inside": "http://open.example:8080/to/http://inside.example:8080/",
    "to address": f"http://open.example:8080/to/http://{INSIDE}:8080/",
    "to metadata": "http://open.example:8080/to/http://169.254.169.254/latest",
    "to file": "http://open.example:8080/to/file:///etc/passwd",
    "to again": "http://again.example:8080/to/http://again.example:8080/",
    "closed": f"http://{OPEN}:9/",
    "number": "http://2130706433:8080/",
    "hexadecimal": "http://0x7f.1:8080/",
}

LONG = {"slow", "dripping"}  # what these take


class Site(http.server.BaseHTTPRequestHandler):
    """A web site on all addresses of the island."""

    def do_GET(self):
        here = self.connection.getsockname()[0].removeprefix("::ffff:")
        self.server.asked.append(here)
        path = self.path
        if path.startswith("/to/") or path == "/round":
            self.send_response(302)
            self.send_header("Location", path[4:] if path != "/round" else "/round")
            self.end_headers()
            return
        self.send_response(404 if path == "/missing" else 200)
        if path == "/zipped":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if path == "/slow":
            time.sleep(5)
        if path == "/dripping":  # no single read is slow
            with contextlib.suppress(OSError):
                for _ in range(50):
                    self.wfile.write(b".")
                    time.sleep(0.1)
        body = self.server.picture if path == "/picture" else f"{here} {self.headers['Host']}".encode()
        self.wfile.write(body * 10_000 if path == "/large" else body)

    def log_message(self, *_):
        pass


class Web(http.server.ThreadingHTTPServer):
    """IPv4 and IPv6 together."""

    address_family = socket.AF_INET6
    daemon_threads = True


def answer_names(server: socket.socket, asked: list[str]) -> None:
    """A DNS server: A and AAAA of the names above, valid for no time at all."""
    seen: dict[tuple[str, int], int] = {}
    while True:
        query, client = server.recvfrom(2000)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        name, kind = ".".join(labels).lower(), struct.unpack(">H", query[at + 1 : at + 3])[0]
        asked.append(name)
        count = seen[name, kind] = seen.get((name, kind), 0) + 1
        places = LATER[name] if count > 1 and name in LATER else NAMES.get(name, [])
        families = {1: socket.AF_INET, 28: socket.AF_INET6}
        found = [place for place in places if (":" in place) == (kind == 28)] if kind in families else []
        packed = [socket.inet_pton(families[kind], place) for place in found]
        records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(data)) + data for data in packed)
        flags = 0x8180 if name in NAMES else 0x8183
        head = query[:2] + struct.pack(">HHHHH", flags, 1, len(packed), 0, 0)
        server.sendto(head + query[12 : at + 5] + records, client)


def build(folder: Path) -> None:
    """The island's addresses, and where it looks names up."""
    addresses = [f"{address}/32" for address in (OPEN, SECOND, INSIDE, "169.254.169.254")]
    commands = [["ip", "link", "set", "lo", "up"], *(["ip", "addr", "add", one, "dev", "lo"] for one in addresses)]
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    commands += [["mount", "--bind", str(folder / name), f"/etc/{name}"] for name in ("resolv.conf", "hosts")]
    for command in commands:
        subprocess.run(command, check=True)


def through_the_api(folder: Path, checkpoint: Path) -> dict[str, tuple[int, str]]:
    """Pictures by their address, handed to the real application."""
    from fastapi.testclient import TestClient

    from framewake.service.api import Access, create_app
    from framewake.service.database import Database, default_url
    from framewake.service.desk import Desk
    from framewake.service.fetch import Guarded
    from framewake.service.guard import Limits
    from framewake.service.storage import Storage
    from framewake.service.store import JobStore
    from framewake.weights.checkpoint.load import open_checkpoint

    storage = Storage(folder / "data")
    desk = Desk(JobStore(Database(default_url(storage.folder))), storage, open_checkpoint(checkpoint), limits=Limits())
    found = {}
    with TestClient(create_app(desk, Access(fetcher=Guarded())), base_url="http://localhost") as client:
        for name, url in {"picture": "http://open.example:8080/picture", "inside": URLS["inside"]}.items():
            body = {"prompt": "x", "resolution": "360p", "input_reference": {"image_url": url}}
            answer = client.post("/v1/videos", json=body)
            found[name] = (answer.status_code, answer.text)
        body["callback_url"] = "http://inside.example:8080/hook"
        found["callback"] = (client.post("/v1/videos", json=body).status_code, "")
    return found


def main() -> None:
    """Fetch everything, tell what came of it."""
    folder, checkpoint, picture = (Path(text) for text in sys.argv[1:4])
    build(folder)
    web = Web(("::", WEB), Site)
    web.asked, web.picture = [], picture.read_bytes()
    threading.Thread(target=web.serve_forever, daemon=True).start()
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("127.0.0.1", 53))
    looked_up: list[str] = []
    threading.Thread(target=answer_names, args=(names, looked_up), daemon=True).start()

    from framewake.errors import FramewakeError
    from framewake.service.fetch import Guarded

    found = {}
    for name, url in URLS.items():
        web.asked.clear()
        looked_up.clear()
        try:
            guard = Guarded(seconds=2.0 if name in LONG else 30.0)
            said = asyncio.run(guard.get(url, most_bytes=100_000)).decode()
        except FramewakeError as error:
            said = f"{type(error).__name__}: {error}"
        found[name] = {"said": said, "asked": list(web.asked), "names": list(looked_up)}
    web.asked.clear()
    found["api"] = through_the_api(folder, checkpoint) | {"asked": list(web.asked)}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
