"""Sessions of the page: a cookie that proves a key without holding it, and ends by itself."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence

COOKIE = "framewake_session"
LANGUAGE_COOKIE = "framewake_language"
LIFE_SECONDS = 30 * 24 * 3600


def issue(key: str, *, now: float | None = None) -> str:
    """The cookie's value for a key. It needs no memory here: it lives on over restarts, and ends with its key."""
    ends = int((time.time() if now is None else now) + LIFE_SECONDS)
    return f"{ends}.{_proof(key.encode(), ends)}"


def key_of(cookies: str, keys: Sequence[bytes], *, now: float | None = None) -> str | None:
    """The key that a Cookie header proves, None for an unknown or an old one."""
    pairs = (part.strip().partition("=") for part in cookies.split(";"))
    ends, _, proof = next((value for name, _, value in pairs if name == COOKIE), "").partition(".")
    if not ends.isdecimal() or not proof.isascii() or int(ends[:20]) < (time.time() if now is None else now):
        return None
    # All are compared, each in constant time, as with keys themselves.
    matches = [key for key in keys if hmac.compare_digest(_proof(key, int(ends[:20])), proof)]
    return matches[0].decode() if matches else None


def _proof(key: bytes, ends: int) -> str:
    return hmac.new(key, f"framewake page until {ends}".encode(), hashlib.sha256).hexdigest()
