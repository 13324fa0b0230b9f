"""Where a medium's bytes come from: base64 in the request, or a fetch that can't be misled.

A fetch connects only to the address that was checked: names are resolved by a resolver that refuses
addresses which aren't public, and every redirect goes through the same check.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from pipeline.errors import InvalidMedia, MediaTooLarge, Overloaded

from .settings import FetchSettings

_REDIRECTS = (301, 302, 303, 307, 308)


def decode_base64(text: str, max_bytes: int) -> bytes:
    """Raises InvalidMedia, MediaTooLarge."""
    if len(text) * 3 // 4 > max_bytes + 3:
        raise MediaTooLarge(f"the medium is larger than the {max_bytes:,} bytes that are allowed")
    try:
        data = base64.b64decode("".join(text.split()), validate=True)  # MIME's line breaks are common
    except (binascii.Error, ValueError):
        raise InvalidMedia("the data is not valid base64") from None
    return _checked(data, max_bytes)


def decode_data_url(url: str, max_bytes: int) -> bytes:
    """`data:image/png;base64,…`. The media type is not believed; the bytes are looked at later."""
    head, comma, payload = url[len("data:") :].partition(",")
    if not comma:
        raise InvalidMedia("the data: URL has no comma between its type and its data")
    if head.lower().endswith(";base64"):
        return decode_base64(payload, max_bytes)
    if len(payload) > 3 * max_bytes:
        raise MediaTooLarge(f"the medium is larger than the {max_bytes:,} bytes that are allowed")
    try:
        return _checked(unquote_to_bytes(payload), max_bytes)
    except UnicodeError:
        raise InvalidMedia("the data: URL holds characters that no URL can hold") from None


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet, addresses wrapped in IPv6 included."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip.ipv4_mapped:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour or ip.teredo or ip.is_site_local:
            return False
    if any(ip in network for network in _SPECIAL):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SPECIAL = (  # global by the registry, but clouds answer there with a machine's secrets
    ipaddress.IPv4Network("192.0.0.0/24"),
    ipaddress.IPv4Network("168.63.129.16/32"),
)
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)


_LOOKUPS = ThreadPoolExecutor(32, thread_name_prefix="lookup")
"""uvloop has two threads for all names, and goes on when nobody waits any more: a few names whose servers never answer
would hold up everybody's. Here those in line leave it with who asked."""


async def look_up(host: str, port: int) -> list[Any]:
    """socket.getaddrinfo's addresses. Raises OSError, UnicodeError."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return await asyncio.get_running_loop().run_in_executor(_LOOKUPS, ask)


class PublicResolver(AbstractResolver):
    """Resolves a name and refuses it if any of its addresses isn't public.

    aiohttp connects to exactly the addresses that this returns, so a name can't answer one thing
    to the check and another to the connection.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await look_up(host, port)
        addresses = [(family, info[0]) for family, _, _, _, info in found]
        if not addresses or not all(is_public(str(address)) for _, address in addresses):
            raise InvalidMedia(f"{host} is not a public address; this server doesn't fetch from it")
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=family,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for family, address in addresses
        ]

    async def close(self) -> None:
        """Holds nothing."""


@dataclass
class Account:
    """What one request has fetched."""

    nbytes: int = 0


class Fetcher:
    def __init__(self, settings: FetchSettings) -> None:
        self.settings = settings
        self.held = 0  # bytes that requests under way have fetched

    @contextmanager
    def account(self) -> Iterator[Account]:
        """What is fetched on it counts as held until the block ends."""
        account = Account()
        try:
            yield account
        finally:
            self.held -= account.nbytes

    async def fetch(self, url: str, account: Account) -> bytes:
        """The bytes behind an http(s) URL. Raises InvalidMedia, MediaTooLarge, Overloaded."""
        settings = self.settings
        if not settings.enabled:
            raise InvalidMedia("this server doesn't fetch media by URL; send the bytes as a data: URL")
        resolver = None if settings.allow_private else PublicResolver()
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
        timeout = aiohttp.ClientTimeout(total=settings.max_seconds)
        try:
            async with (
                asyncio.timeout(settings.max_seconds),  # over all redirects together
                aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session,
            ):
                return await self._follow(session, url, account)
        except TimeoutError:
            raise InvalidMedia(f"the URL gave no answer within {settings.max_seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: no host's name, no user's
            raise InvalidMedia(f"the URL can't be fetched: {type(error).__name__}") from None

    async def _follow(self, session: aiohttp.ClientSession, url: str, account: Account) -> bytes:
        target = self._target(url)
        for _ in range(self.settings.max_redirects + 1):
            headers = {"Accept-Encoding": "identity"}
            async with session.get(target, allow_redirects=False, headers=headers) as response:
                if response.status in _REDIRECTS and (location := response.headers.get("Location")):
                    target = self._target(location, base=target)
                    continue
                if response.status != 200:
                    raise InvalidMedia(f"the URL answered with status {response.status}")
                return await self._read(response, account)
        raise InvalidMedia(f"the URL redirects more than {self.settings.max_redirects} times")

    def _target(self, url: str, base: URL | None = None) -> URL:
        try:
            target = base.join(URL(url)) if base else URL(url)
        except ValueError:  # UnicodeError is one
            raise InvalidMedia("the URL can't be parsed") from None
        if target.scheme not in ("http", "https") or not target.host:
            raise InvalidMedia("only http, https and data URLs are supported")
        if not _is_ip(target.host) and all(_NUMBER.fullmatch(part) for part in target.host.rstrip(".").split(".")):
            raise InvalidMedia(f"{target.host} is an address in disguise; write it as four decimal numbers")
        literal = target.host if _is_ip(target.host) else None  # aiohttp resolves names only
        if literal and not self.settings.allow_private and not is_public(literal):
            raise InvalidMedia(f"{literal} is not a public address; this server doesn't fetch from it")
        return target

    async def _read(self, response: aiohttp.ClientResponse, account: Account) -> bytes:
        limit = self.settings.max_bytes
        message = f"the medium behind the URL is larger than the {limit:,} bytes that are allowed"
        if (response.content_length or 0) > limit:
            raise MediaTooLarge(message)
        parts, size = [], 0
        async for part in response.content.iter_chunked(1 << 16):
            size += len(part)
            account.nbytes += len(part)
            self.held += len(part)
            if size > limit:
                raise MediaTooLarge(message)
            if self.held > self.settings.max_bytes_in_flight:
                raise Overloaded("too many media are being fetched")
            parts.append(part)
        return _checked(b"".join(parts), limit)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _checked(data: bytes, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise MediaTooLarge(f"the medium has {len(data):,} bytes; at most {max_bytes:,} are allowed")
    if not data:
        raise InvalidMedia("the medium is empty")
    return data
