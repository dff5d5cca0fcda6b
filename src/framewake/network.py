"""Proxies from the environment: used as it says, never for this machine, refused in our own words.

A server asks for nothing through a proxy: it connects to the very addresses that it has judged.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import urllib.parse
import urllib.request

from framewake.errors import EngineError, InputError
from framewake.setting import shown

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_SCHEMES = ("http", "https", "socks5", "socks5h")
_HOST = re.compile(r"(?:[^@/\s]*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?/?")


def is_this_machine(host: str) -> bool:
    """Whether a name or an address of a URL means this machine."""
    name = host.lower().strip("[]").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def forget_proxies() -> None:
    """For the rest of this process, no library finds a proxy in the environment."""
    for name in [name for name in os.environ if name.lower() in VARIABLES]:
        del os.environ[name]


def proxy_for(url: str) -> str | None:
    """The proxy to reach an address through, None for a direct way.

    Raises: InputError for one that is no address, EngineError for one that needs a package that is missing.
    """
    parsed = _split(url)
    host = parsed.hostname or ""
    if is_this_machine(host) or urllib.request.proxy_bypass(host):
        return None
    found = urllib.request.getproxies()
    scheme = next((name for name in (parsed.scheme, "all") if found.get(name)), None)
    return None if scheme is None else _checked(found[scheme], f"{scheme}_proxy", host)


def through(proxy: str | None) -> str:
    """Words for a message about an address that does not answer: a proxy on the way may be the cause."""
    return "" if proxy is None else f" through the proxy {without_password(proxy)}, which the environment names"


def without_password(proxy: str) -> str:
    """A proxy's address for people."""
    return re.sub(r"//[^@/]*@", "//...@", proxy)


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        parsed = urllib.parse.urlsplit(url)
        _ = parsed.port
    except ValueError as error:
        raise InputError(f"{shown(url)} is no address: expected one such as http://127.0.0.1:7860.") from error
    if parsed.scheme not in ("http", "https") or not parsed.hostname:
        raise InputError(f"{shown(url)} is no address: expected one such as http://127.0.0.1:7860.")
    return parsed


def _checked(given: str, variable: str, host: str) -> str:
    proxy = given.strip() if "://" in given else f"http://{given.strip()}"
    scheme, _, rest = proxy.partition("://")
    advice = f"Unset it, or add {host} to NO_PROXY"
    if scheme.lower() not in _SCHEMES or not _HOST.fullmatch(rest):
        text = f"{variable.upper()} is {shown(without_password(given))}: expected a proxy's address such as "
        raise InputError(f"{text}http://proxy.example.com:3128. {advice}.")
    if scheme.lower().startswith("socks") and importlib.util.find_spec("socksio") is None:
        text = f"{variable.upper()} names a SOCKS proxy, {without_password(proxy)}, which needs the package socksio"
        raise EngineError(f"{text}: `pip install socksio`. {advice} where none is needed.")
    return proxy
