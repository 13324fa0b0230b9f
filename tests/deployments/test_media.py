"""Bytes from the request, and which addresses are public."""

from __future__ import annotations

import base64

import pytest

from deployments.media import decode_base64, decode_data_url, is_public
from pipeline.errors import InvalidMedia, MediaTooLarge


class TestBase64:
    def test_bytes(self) -> None:
        assert decode_base64("aGVsbG8=", 5) == b"hello"
        assert decode_base64("aGVs\r\nbG8=\n", 5) == b"hello"  # as MIME encoders break lines

    @pytest.mark.parametrize("text", ["a", "aGVsbG8", "aGVs-G8_", "日本", "%%%%", "=", "aGVsbG8==="])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(InvalidMedia, match="base64"):
            decode_base64(text, 100)

    def test_nothing(self) -> None:
        with pytest.raises(InvalidMedia, match="empty"):
            decode_base64("", 100)

    @pytest.mark.parametrize("size", [*range(1, 8), 1000])
    def test_limit_is_exact(self, size: int) -> None:
        text = base64.b64encode(b"x" * size).decode()
        assert len(decode_base64(text, size)) == size
        if size > 1:
            with pytest.raises(MediaTooLarge):
                decode_base64(text, size - 1)

    def test_what_is_far_too_large_is_not_decoded(self) -> None:
        with pytest.raises(MediaTooLarge):
            decode_base64("!" * 1000, 100)  # no base64 at all, which nobody noticed


class TestDataUrl:
    @pytest.mark.parametrize(
        "url",
        [
            "data:image/png;base64,aGVsbG8=",
            "data:;base64,aGVsbG8=",
            "data:text/html;charset=utf-8;base64,aGVsbG8=",
            "data:,hello",
            "data:image/png,h%65llo",
        ],
    )
    def test_bytes(self, url: str) -> None:
        assert decode_data_url(url, 5) == b"hello"

    def test_percent_encoding_may_be_three_times_as_long(self) -> None:
        assert decode_data_url("data:," + "%00" * 5, 5) == bytes(5)

    @pytest.mark.parametrize("url", ["data:", "data:image/png;base64", "data:image/png;base64,", "data:,"])
    def test_what_is_none(self, url: str) -> None:
        with pytest.raises(InvalidMedia):
            decode_data_url(url, 100)

    @pytest.mark.parametrize("url", ["data:;base64,aGVsbG8=", "data:,hello", "data:," + "%00" * 5])
    def test_limit(self, url: str) -> None:
        with pytest.raises(MediaTooLarge):
            decode_data_url(url, 4)


PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",  # metadata of most clouds
    "169.254.0.1",
    "100.64.0.1",
    "100.100.100.200",  # metadata of Alibaba's cloud
    "192.0.0.192",  # metadata of Oracle's cloud
    "168.63.129.16",  # Azure's
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001::1",
    "2001:db8::1",
    "100::1",
    "fc00::1",
    "fd00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "localhost",
    "example.com",
    "2130706433",
    "",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450:4001:80b::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)
