"""Which IP addresses belong to the open internet, the same on every version of Python.

Source: IANA's registries of special-purpose addresses for IPv4 and IPv6, as they stood in 2025.
"""

from __future__ import annotations

import ipaddress

_SPECIAL_4 = (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",  # private
    "100.64.0.0/10",  # shared by a provider's customers
    "127.0.0.0/8",  # this machine
    "169.254.0.0/16",  # link-local; clouds keep their metadata there
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # protocols; a cloud's metadata is at 192.0.0.192
    "192.0.2.0/24",  # documentation
    "192.31.196.0/24",  # AS112: answered by whoever is near
    "192.52.193.0/24",  # AMT: the same
    "192.88.99.0/24",  # relays of 6to4, gone since 2015
    "192.168.0.0/16",  # private
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/3",  # multicast, reserved, broadcast
)
# Everything public lies in here; link-local, private, old site-local (fec0::/10), mapped, 64:ff9b:1::/48 and 5f00::/16
# do not.
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_6 = (
    "2001::/23",  # protocols: Teredo, benchmarks, ORCHID and others
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4: an IPv4 address inside
    "2620:4f:8000::/48",  # AS112
    "3ffe::/16",  # an experiment that ended
    "3fff::/20",  # documentation
)
_CLOSED_4 = tuple(ipaddress.IPv4Network(text) for text in _SPECIAL_4)
_CLOSED_6 = tuple(ipaddress.IPv6Network(text) for text in _SPECIAL_6)
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64: on networks without IPv4, the only way to reach it


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet; what is no address does not."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found not in _TRANSLATED:
            return found in _GLOBAL_6 and not any(found in closed for closed in _CLOSED_6)
        found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return not any(found in closed for closed in _CLOSED_4)
