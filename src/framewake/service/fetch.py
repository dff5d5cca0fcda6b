"""Addresses from users: fetched from public machines only, whatever names and redirects say."""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import socket
import ssl
import urllib.parse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from framewake.errors import InputError
from framewake.service.addresses import is_public
from framewake.service.refusals import TooLarge
from framewake.setting import shown

MOST_REDIRECTS = 5
SECONDS = 20.0
PIECE = 2**20
LOOKUP_SECONDS = 5.0
PORTS = {"http": 80, "https": 443}
_LOOKUPS = ThreadPoolExecutor(32, thread_name_prefix="names")


async def resolve(host: str, port: int) -> Sequence[str]:
    """Every address of a name.

    Raises: OSError when there is none, UnicodeError for what cannot be one.
    """
    # Threads of its own: a name server that is silent holds them, and nobody else's work may wait for that.
    look = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, look)
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
        # ValueError: what a server answers is taken apart by others, who do not promise more.
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise InputError("the picture's address could not be fetched: send the picture itself.") from error

    async def check(self, url: str) -> None:
        """Whether an address may be used at all, told early; it is judged again at each use.

        Raises: InputError.
        """
        parsed = split_url(url)
        try:
            await self._address(parsed)
        except (OSError, asyncio.TimeoutError) as error:
            raise InputError(f"the host {shown(parsed.hostname)} is not known.") from error

    async def _get(self, url: str, most_bytes: int) -> bytes:
        async with self._client() as client:
            for _ in range(MOST_REDIRECTS + 1):
                request = await self._request(client, "GET", url, None)
                response = await client.send(request, stream=True)
                try:
                    if response.is_redirect:
                        url = _redirected(url, response)
                        continue
                    if response.status_code != 200:
                        raise InputError(f"the picture's address answered with status {response.status_code}.")
                    return await _limited(response, most_bytes)
                finally:
                    await response.aclose()
        raise InputError(f"the picture's address redirects more than {MOST_REDIRECTS} times.")

    async def post(self, url: str, content: bytes, headers: dict[str, str]) -> int:
        """Send a body and return the status; redirects are not followed.

        Raises: InputError when it may not or cannot be sent.
        """
        try:
            return await asyncio.wait_for(self._post(url, content, headers), self.seconds)
        except (asyncio.TimeoutError, httpx.TimeoutException) as error:
            raise InputError(f"no answer within {self.seconds:g} s.") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise InputError(f"it cannot be reached ({str(error) or type(error).__name__}).") from error

    async def _post(self, url: str, content: bytes, headers: dict[str, str]) -> int:
        async with self._client() as client:
            request = await self._request(client, "POST", url, content)
            request.headers.update(headers)
            response = await client.send(request, stream=True)
            await response.aclose()
            return response.status_code

    async def _address(self, parsed: urllib.parse.SplitResult) -> str:
        """The address that is connected to, when all of a host's addresses are allowed."""
        try:
            looking = resolve(str(parsed.hostname), parsed.port or PORTS[parsed.scheme])
            addresses = await asyncio.wait_for(looking, LOOKUP_SECONDS)
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


def _redirected(url: str, response: httpx.Response) -> str:
    """Where a redirect leads, which is judged like any other address.

    Raises: InputError when it leads nowhere.
    """
    try:
        return urllib.parse.urljoin(url, response.headers["location"])
    except (KeyError, ValueError) as error:
        status = response.status_code
        raise InputError(f"the picture's address answered with status {status}, which leads nowhere.") from error


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
    body = _bare_base64(body)
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


def _bare_base64(text: str) -> str:
    """Base64 as it is decoded: addresses may write its signs with %, some programs break lines or leave out the end."""
    for written, sign in (("%2B", "+"), ("%2F", "/"), ("%3D", "="), ("%0A", ""), ("%0D", "")):
        text = text.replace(written, sign).replace(written.lower(), sign)
    text = "".join(text.split())
    return text + "=" * (-len(text) % 4)


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
