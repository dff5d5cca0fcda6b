"""A server's place on the web: the names and the path it is reached by, and the pages that may use it."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from framewake.errors import InputError
from framewake.service.refusals import BadRequest, Forbidden
from framewake.setting import shown

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True)
class Site:
    """How a server is reached. ``root`` is "" or a path such as "/framewake".

    ``is_open`` lets any host name in: a server that asks for keys, or that everybody may use, need not fear that a name
    was made to point to it.
    """

    is_open: bool = False
    hosts: frozenset[str] = frozenset()
    origins: tuple[str, ...] = ()
    root: str = ""
    proxies: tuple[str, ...] = ("127.0.0.1", "::1")

    def check_host(self, host: str | None) -> None:
        """Whether the server answers to a name. None: the client speaks HTTP/1.0 and named none, as no browser does.

        Raises: BadRequest, Forbidden.
        """
        if host is None:
            return
        name = hostname(host)
        if self.is_open or name in LOOPBACK_NAMES or name in self.hosts:
            return
        raise Forbidden(
            f"this server answers to localhost only, and was asked as {shown(name)}: behind a proxy, start it with "
            f"--allow-host {name or 'NAME'}, or with keys (--api-key-file FILE)."
        )

    def check_origin(self, method: str, headers: Mapping[str, str]) -> None:
        """Whether a page may send this: one of this server's own, or one that was allowed.

        Raises: Forbidden.
        """
        origin = headers.get("origin")
        if origin is None or method in SAFE_METHODS or origin in self.origins or "*" in self.origins:
            return
        # Browsers say where a page comes from, and no page can say otherwise; older ones are compared by name.
        if headers.get("sec-fetch-site") == "same-origin":
            return
        # Whoever can send X-Forwarded-Host is no page, or asked before it sent it and was refused then.
        own = (headers.get("host", ""), headers.get("x-forwarded-host", "").partition(",")[0].strip())
        if "sec-fetch-site" not in headers and any(_is_same(origin, host) for host in own):
            return
        raise Forbidden(
            f"this request comes from a page of another site, {shown(origin)}: if that is yours, start the server with "
            "--allow-origin and its address."
        )

    def inner(self, path: str) -> str:
        """A path as the application knows it: without the root, whether the proxy took that away or not."""
        if path.startswith(("http://", "https://")):  # a whole address, which some gateways send
            path = "/" + path.split("/", 3)[3] if path.count("/") > 2 else "/"
        if "//" in path:
            path = re.sub("/{2,}", "/", path)
        if self.root and (path == self.root or path.startswith(f"{self.root}/")):
            path = path[len(self.root) :] or "/"
        is_api = path.startswith(("/v1/", "/page/")) or path[1:-1] in ("health", "metrics", "login", "logout")
        return path.rstrip("/") if is_api else path


def site_of(
    hosts: Sequence[str],
    origins: Sequence[str],
    *,
    root: str,
    proxies: Sequence[str],
    has_keys: bool,
    is_public: bool = False,
) -> Site:
    """A site as the command line describes it.

    Raises: InputError.
    """
    for host in hosts:
        if _HOST.fullmatch(host) is None or re.search(r":\d+$", host.rpartition("]")[2]):
            raise InputError(f"--allow-host is {shown(host)}: expected a name such as video.example.com, and no more.")
    for origin in origins:
        if origin in ("*", "null") and not has_keys:
            raise InputError(
                f"--allow-origin {origin} lets every page use this server, which needs --api-key-file FILE."
            )
        if origin not in ("*", "null") and _ORIGIN.fullmatch(origin) is None:
            raise InputError(f"--allow-origin is {shown(origin)}: expected an address such as https://app.example.com.")
    root = "" if root.strip("/") == "" else "/" + root.strip("/")
    if re.fullmatch(r"(?:/[A-Za-z0-9._~-]+)*", root) is None:
        raise InputError(f"--root-path is {shown(root)}: expected a path such as /framewake.")
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            raise InputError(f"--trust-proxy is {shown(proxy)}: expected an address or a network.") from error
    names = frozenset(hostname(host) for host in hosts)
    return Site(has_keys or is_public, names, tuple(origins), root, (*Site.proxies, *proxies))


def hostname(host: str) -> str:
    """The name in a Host header, in small letters, "" for an empty one.

    Raises: BadRequest for what is no name and port.
    """
    found = _HOST.fullmatch(host)
    if found is None and host:
        raise BadRequest("the Host header is no host name.")
    return "" if found is None else (found[1] or found[2]).lower().rstrip(".")


def _is_same(origin: str, host: str) -> bool:
    """Whether an origin's address is that of a Host header; a port that the scheme implies may be left out."""
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        return False
    name, port = found[2].lower(), found[3] or _PORTS[found[1]]
    given = urllib.parse.urlsplit(f"//{host}") if _HOST.fullmatch(host) else None
    if given is None:
        return False
    try:
        return (host.rpartition(":")[0] if given.port else host).lower() == name and str(given.port or port) == port
    except ValueError:  # a port above 65535
        return False
