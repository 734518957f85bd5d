"""Decides which addresses an ``https://`` source may reach: public ones, and those that the class allows. Pure.

Sources: the IANA registries of special-purpose addresses (RFC 6890) as ``ipaddress`` has them, RFC 4291 section 2.4
(2000::/3 is all of IPv6 that is assigned for global unicast) and RFC 6052 (the well-known prefix of NAT64).
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_SPECIAL = tuple(
    map(
        ip_network,
        (
            "168.63.129.16/32",  # the host of a virtual machine of Azure, in a public range
            "192.0.0.0/24",  # protocols of the IETF; metadata of Oracle's cloud at 192.0.0.192
            "192.88.99.0/24",  # relays of 6to4, RFC 7526
            "2001::/23",  # protocols of the IETF, Teredo among them
            "2002::/16",  # 6to4: an IPv4 address of whatever kind within
            "3fff::/20",  # documentation, RFC 9637
        ),
    )
)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parse networks such as ``10.0.0.0/8``, separated by spaces."""
    return tuple(map(ip_network, text.split()))


def is_allowed(address: str, networks: Iterable[Network]) -> bool:
    """Return whether a source may reach an address: a public one, or one within the networks.

    Args:
        address: an IPv4 or IPv6 address as the resolver writes it.
        networks: allowed in addition to public addresses.
    """
    found = ip_address(address)
    reached: IPv4Address | IPv6Address = found
    if isinstance(found, IPv6Address):  # NAT64 and mapped addresses lead to the IPv4 address within
        within = IPv4Address(int(found) & 0xFFFFFFFF) if found in _NAT64 else found.ipv4_mapped
        reached = within or found
    return _is_public(reached) or any(one in network for one in (found, reached) for network in networks)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if address.is_multicast or not address.is_global or any(address in network for network in _SPECIAL):
        return False
    return isinstance(address, IPv4Address) or address in _GLOBAL_UNICAST
