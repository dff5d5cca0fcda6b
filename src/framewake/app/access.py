"""Who may use a server, and how it is reached: the keys and the addresses of the command line."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framewake.errors import InputError

if TYPE_CHECKING:
    from framewake.service.site import Site

KEY = "FRAMEWAKE_API_KEY"
LEAST_LETTERS = 16


def asked_keys(given: Mapping[str, Any]) -> list[str]:
    """The API keys that were given.

    Raises: InputError when other machines can reach the server and there are none, or nobody is to need one.
    """
    keys = read_keys(given["api_key"] or (), given["api_key_file"])
    if given["public"]:
        if keys or KEY in os.environ:
            raise InputError(f"--public lets everybody in without a key: leave it out, or the keys ({KEY} is one too).")
        return []
    if not keys and KEY in os.environ:  # whoever sets it does not mean to let everybody in
        raise InputError(f"{KEY} is empty: give it a key, or unset it to let everybody on this machine in.")
    if not keys and not is_loopback(given["host"]):
        raise InputError(
            f"--host {given['host']} opens the server to other machines, which needs a key: add --api-key-file FILE, "
            "or leave --host out."
        )
    return keys


def read_keys(given: Sequence[str], file: str | None) -> list[str]:
    """The API keys of the command line and of a file with one key a line.

    Raises: InputError for a key that could be guessed, or a file that cannot be read or has none.
    """
    keys = [*given, *([] if file is None else _keys_in(file))]
    for key in keys:
        if len(key) < LEAST_LETTERS or not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(
                f"an API key must have {LEAST_LETTERS} or more ASCII characters and no spaces: make one with "
                "`openssl rand -hex 24`."
            )
    return keys


def _keys_in(file: str) -> list[str]:
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: the file of keys cannot be read ({error}).") from error
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise InputError(f"{file} holds no key: write one a line.")
    return found


def asked_site(given: Mapping[str, Any], *, has_keys: bool) -> Site:
    """How the server is reached.

    Raises: InputError.
    """
    from framewake.service.site import site_of

    return site_of(
        given["allow_host"] or (),
        given["allow_origin"] or (),
        root=given["root_path"],
        proxies=given["trust_proxy"] or (),
        has_keys=has_keys,
        is_public=given["public"],
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
