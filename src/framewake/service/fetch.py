"""Addresses that users name: fetched only from public machines, whatever names and redirects say."""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import ipaddress
import socket
import ssl
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from framewake.errors import InputError
from framewake.service.refusals import TooLarge

MOST_REDIRECTS = 5
SECONDS = 20.0
PIECE = 2**20
PORTS = {"http": 80, "https": 443}


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet, also when it hides inside an IPv6 one."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        hidden = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if hidden is None and found in ipaddress.ip_network("64:ff9b::/96"):
            hidden = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if hidden is None and int(found) >> 32 == 0:  # the old ::1.2.3.4
            hidden = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if hidden:
            return is_public(str(hidden))
    return found.is_global and not found.is_multicast


async def resolve(host: str, port: int) -> Sequence[str]:
    """Every address of a name. Raises: OSError when there is none."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@dataclass(frozen=True)
class Guarded:
    """HTTP to public addresses only: a name is looked up once, judged, and that very address is connected to."""

    allows: Callable[[str], bool] = is_public
    seconds: float = SECONDS

    async def get(self, url: str, *, most_bytes: int) -> bytes:
        """The body behind an address.

        Raises: InputError when it may not or cannot be fetched, TooLarge.
        """
        try:
            return await asyncio.wait_for(self._get(url, most_bytes), self.seconds)
        except (asyncio.TimeoutError, httpx.TimeoutException) as error:
            raise InputError(f"the picture's address did not answer within {self.seconds:g} s.") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise InputError("the picture's address could not be fetched: send the picture itself.") from error

    async def check(self, url: str) -> None:
        """Whether an address may be used at all, told early; it is judged again at each use.

        Raises: InputError.
        """
        parsed = split_url(url)
        try:
            await self._address(parsed)
        except OSError as error:
            raise InputError(f"the host {parsed.hostname!r} is not known.") from error

    async def _get(self, url: str, most_bytes: int) -> bytes:
        async with self._client() as client:
            for _ in range(MOST_REDIRECTS + 1):
                request = await self._request(client, "GET", url, None)
                response = await client.send(request, stream=True)
                try:
                    if response.is_redirect:
                        url = urllib.parse.urljoin(url, response.headers["location"])
                        continue
                    if response.status_code != 200:
                        raise InputError(f"the picture's address answered with status {response.status_code}.")
                    return await _limited(response, most_bytes)
                finally:
                    await response.aclose()
        raise InputError(f"the picture's address redirects more than {MOST_REDIRECTS} times.")

    async def post(self, url: str, content: bytes, headers: dict[str, str]) -> int:
        """Send a body and return the status; redirects are not followed.

        Raises: InputError, httpx.HTTPError, OSError, TimeoutError.
        """
        async with self._client() as client:
            request = await self._request(client, "POST", url, content)
            request.headers.update(headers)
            response = await asyncio.wait_for(client.send(request, stream=True), self.seconds)
            await response.aclose()
            return response.status_code

    async def _address(self, parsed: urllib.parse.SplitResult) -> str:
        """The address that is connected to, when all of a host's addresses are allowed."""
        try:
            addresses = await resolve(str(parsed.hostname), parsed.port or PORTS[parsed.scheme])
        except UnicodeError as error:
            raise InputError("the host's name is not valid.") from error
        if not addresses or not all(self.allows(address) for address in addresses):
            raise InputError("the address leads to a private or local machine, which is not allowed.")
        return f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]

    def _client(self) -> httpx.AsyncClient:
        # A proxy would look names up by itself, after they were judged.
        return httpx.AsyncClient(verify=_trusted(), trust_env=False, follow_redirects=False, timeout=self.seconds)

    async def _request(self, client: httpx.AsyncClient, method: str, url: str, content: bytes | None) -> httpx.Request:
        parsed = split_url(url)
        host, port = str(parsed.hostname), parsed.port or PORTS[parsed.scheme]
        address = await self._address(parsed)
        pinned = parsed._replace(netloc=f"{address}:{port}", fragment="").geturl()
        shown = f"[{host}]" if ":" in host else host
        headers = {
            "Host": shown if port == PORTS[parsed.scheme] else f"{shown}:{port}",
            "Accept-Encoding": "identity",  # a small answer must not unfold into a huge one
            "User-Agent": "framewake",
        }
        return client.build_request(
            method, pinned, headers=headers, content=content, extensions={"sni_hostname": host, **_timeouts(client)}
        )


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The known certificate authorities; reading them takes longer than most requests."""
    return httpx.create_ssl_context(trust_env=False)


def split_url(url: str) -> urllib.parse.SplitResult:
    """The parts of a web address.

    Raises: InputError for anything but plain http and https.
    """
    try:
        parsed = urllib.parse.urlsplit(url)
        port = parsed.port
    except ValueError as error:
        raise InputError("the address is not understood: expected https://HOST/PATH.") from error
    if parsed.scheme not in PORTS or not parsed.hostname or parsed.username is not None or port == 0:
        raise InputError("the address must be http:// or https:// with a host and without a user name.")
    if not url.isascii() or any(ord(character) <= 32 for character in url):
        raise InputError("the address holds spaces or characters that are not ASCII: encode them with %.")
    return parsed


def read_data_url(url: str, *, most_bytes: int) -> bytes:
    """The bytes inside a data URL.

    Raises: InputError, TooLarge.
    """
    head, comma, body = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise InputError("the data URL must be data:image/png;base64,... (or another kind of picture).")
    if len(body) * 3 // 4 > most_bytes + 3:
        raise TooLarge(f"the picture has more than {most_bytes:,} bytes.")
    try:
        # In pieces, so that other threads come in between; each piece but the last is whole groups of four.
        pieces = (body[at : at + PIECE] for at in range(0, len(body), PIECE))
        data = b"".join(base64.b64decode(piece, validate=True) for piece in pieces)
    except (binascii.Error, ValueError) as error:
        raise InputError("the data URL does not hold valid base64.") from error
    if len(data) > most_bytes:
        raise TooLarge(f"the picture has more than {most_bytes:,} bytes.")
    return data


async def _limited(response: httpx.Response, most_bytes: int) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise InputError("the picture's address answers with compressed data, which is not taken.")
    parts, size = [], 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > most_bytes:
            raise TooLarge(f"the picture has more than {most_bytes:,} bytes.")
        parts.append(part)
    return b"".join(parts)


def _timeouts(client: httpx.AsyncClient) -> dict[str, dict[str, float | None]]:
    # Extensions given by hand replace the client's own, timeouts included.
    return {"timeout": client.timeout.as_dict()}
