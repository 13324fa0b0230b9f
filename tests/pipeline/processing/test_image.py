from __future__ import annotations

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import InvalidMedia, MediaTooLarge
from pipeline.processing.image import decode_image, to_rgb

from .pictures import LIMIT, noise


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes) -> np.ndarray:
    image = decode_image(data, LIMIT)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def gradient(width: int = 64, height: int = 48) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def header_only_png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")
    )


class TestDecode:
    @pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
    def test_lossless_formats_keep_every_pixel(self, kind: str, options: dict[str, Any]) -> None:
        np.testing.assert_array_equal(decode(encode(noise(), kind, **options)), np.asarray(noise()))

    @pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
    def test_lossy_formats_stay_near(self, kind: str) -> None:
        assert np.abs(decode(encode(gradient(), kind)) - np.asarray(gradient())).mean() < 8

    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
    def test_an_animation_is_its_first_frame(self, kind: str) -> None:
        frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "lime")]
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
        assert (decode(data) == [255, 0, 0]).all()

    @pytest.mark.parametrize(
        ("orientation", "upright"),
        [
            (1, lambda a: a),
            (2, lambda a: a[:, ::-1]),
            (3, lambda a: a[::-1, ::-1]),
            (4, lambda a: a[::-1]),
            (5, lambda a: a.transpose(1, 0, 2)),
            (6, lambda a: np.rot90(a, -1)),
            (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
            (8, lambda a: np.rot90(a, 1)),
        ],
    )
    def test_exif_orientation_is_applied(self, orientation: int, upright: Any) -> None:
        # Blocks of 32 px survive JPEG's compression.
        colours = np.array([[[250, 5, 5], [5, 250, 5]], [[5, 5, 250], [250, 250, 250]]], dtype=np.uint8)
        stored = colours.repeat(32, axis=0).repeat(64, axis=1)
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(Image.fromarray(stored), "JPEG", quality=95, subsampling=0, exif=exif)
        seen, wanted = decode(data), upright(stored)
        assert seen.shape == wanted.shape
        assert np.abs(seen - wanted).mean() < 4

    @pytest.mark.parametrize(
        ("tags", "size"),
        [
            ([(0x0112, 3, 6), (0x011A, 2, "abc")], (32, 48)),  # a resolution in letters
            ([(0x0100, 2, "abc"), (0x0112, 3, 6)], (32, 48)),
            ([(0x0112, 2, "abc")], (48, 32)),
            ([(0x0112, 3, 9)], (48, 32)),
        ],
    )
    def test_tags_that_are_wrong_harm_nobody(self, tags: list[tuple[int, int, Any]], size: tuple[int, int]) -> None:
        values = [value.encode() + b"\0" if kind == 2 else struct.pack("<HH", value, 0) for _, kind, value in tags]
        entries = [
            struct.pack("<HHI", tag, kind, 4 if kind == 2 else 1) + value
            for (tag, kind, _), value in zip(tags, values, strict=True)
        ]
        exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4)
        assert decode_image(encode(noise(), "JPEG", exif=exif), LIMIT).size == size

    def test_cmyk(self) -> None:
        red = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
        assert np.abs(decode(encode(red, "JPEG", quality=95)) - [255, 0, 0]).max() < 12

    def test_palette(self) -> None:
        image = gradient().quantize(16)
        np.testing.assert_array_equal(decode(encode(image, "PNG")), np.asarray(image.convert("RGB")))

    def test_a_transparent_palette_entry_is_white(self) -> None:
        image = Image.new("P", (8, 8), 1)
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.paste(0, (0, 0, 4, 8))
        seen = decode(encode(image, "PNG", transparency=0))
        assert (seen[:, :4] == 255).all()
        assert (seen[:, 4:] == [0, 0, 255]).all()

    @pytest.mark.parametrize(
        ("pixel", "wanted"), [((10, 20, 30, 0), (255, 255, 255)), ((0, 0, 0, 128), (127, 127, 127))]
    )
    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    def test_alpha_is_laid_on_white(self, pixel: tuple[int, ...], wanted: tuple[int, ...], kind: str) -> None:
        options = {"lossless": True} if kind == "WEBP" else {}
        assert np.abs(decode(encode(Image.new("RGBA", (16, 16), pixel), kind, **options)) - wanted).max() <= 1

    def test_grey_with_alpha(self) -> None:
        assert (decode(encode(Image.new("LA", (8, 8), (0, 0)), "PNG")) == 255).all()

    def test_16_bit_grey_is_scaled(self) -> None:
        values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16).repeat(3, axis=0)
        seen = decode(encode(Image.fromarray(values), "PNG"))
        np.testing.assert_array_equal(seen[0], [[0] * 3, [100] * 3, [255] * 3])

    def test_a_transparent_16_bit_grey_is_white(self) -> None:
        values = np.array([[300, 257 * 100]], dtype=np.uint16).repeat(2, axis=0)
        seen = decode(encode(Image.fromarray(values), "PNG", transparency=300))
        np.testing.assert_array_equal(seen[0], [[255] * 3, [100] * 3])

    def test_one_bit(self) -> None:
        image = Image.new("1", (8, 8), 1)
        image.putpixel((0, 0), 0)
        seen = decode(encode(image, "PNG"))
        assert (seen[0, 0] == 0).all()
        assert (seen[1:] == 255).all()

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
    def test_truncated_bytes_are_refused(self, kind: str) -> None:
        data = encode(noise(200, 200), kind)
        for part in (0.02, 0.5, 0.9):
            with pytest.raises(InvalidMedia):
                decode_image(data[: int(len(data) * part)], LIMIT)

    @pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "ICO"])
    def test_other_formats_are_refused(self, kind: str) -> None:
        with pytest.raises(InvalidMedia, match="PNG, JPEG, WebP and GIF"):
            decode_image(encode(noise(), kind), LIMIT)

    @given(st.binary(max_size=200))
    def test_garbage_is_refused(self, data: bytes) -> None:
        with pytest.raises(InvalidMedia):
            decode_image(data, LIMIT)

    @given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]), st.data())
    def test_flipped_bytes_give_a_picture_or_a_refusal(self, kind: str, data: Any) -> None:
        good = bytearray(encode(gradient(), kind))
        for _ in range(data.draw(st.integers(1, 8))):
            good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(InvalidMedia):
            assert decode_image(bytes(good), LIMIT).mode == "RGB"

    # Pillow has limits of its own: from 89 M pixels on it warns, from 179 M on it raises.
    @pytest.mark.parametrize("side", [7_000, 12_000, 20_000, 60_000])
    def test_too_many_pixels_are_refused_undecoded(self, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
        loads: list[object] = []
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: loads.append(self))
        with pytest.raises(MediaTooLarge, match="40,000,000"):
            decode_image(header_only_png(side, side), LIMIT)
        assert not loads

    @pytest.mark.parametrize("side", [7_000, 60_000])
    def test_a_canvas_that_is_filled_before_its_size_is_told(self, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """43 bytes, of which Pillow makes a canvas of gigabytes where nothing stops it."""
        screen = b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0" + bytes(6)
        restored = b"\x21\xf9\x04\x08\0\0\0\0"  # disposal: back to the background
        frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x4c\x01\0\x3b"
        filled: list[int] = []
        fill = Image.core.fill
        monkeypatch.setattr(
            Image.core, "fill", lambda mode, size, *rest: (filled.append(size[0] * size[1]), fill(mode, size, *rest))[1]
        )
        with pytest.raises(MediaTooLarge, match="40,000,000"):
            decode_image(screen + restored + frame, LIMIT)
        assert sum(filled) <= 2 * LIMIT

    def test_the_limit_itself_is_allowed(self) -> None:
        data = encode(noise(40, 30), "PNG")
        assert decode_image(data, 1200).size == (40, 30)
        with pytest.raises(MediaTooLarge, match="40 x 30"):
            decode_image(data, 1199)

    @pytest.mark.parametrize("size", [(201, 1), (1, 201), (4001, 20)])
    def test_a_picture_that_is_too_thin_is_refused(self, size: tuple[int, int]) -> None:
        with pytest.raises(InvalidMedia, match="too thin"):
            decode_image(encode(Image.new("RGB", size), "PNG"), LIMIT)

    def test_float_pictures(self) -> None:
        image = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
        np.testing.assert_array_equal(np.asarray(to_rgb(image))[0, :, 0], [0, 128, 255])


def test_what_stands_behind_a_jpeg_is_not_counted() -> None:
    """A film, say, in which two bytes look like a scan's beginning every 65,536."""
    film = np.random.default_rng(0).bytes(8_000_000)
    assert film.count(b"\xff\xda") > 100
    assert decode_image(encode(noise(), "JPEG") + film, LIMIT).size == noise().size


def test_a_jpegs_own_thumbnail_is_not_counted() -> None:
    exif = Image.Exif()
    exif[0x9286] = b"\xff\xda" * 200  # a comment
    assert decode_image(encode(noise(), "JPEG", exif=exif), LIMIT).size == noise().size


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_a_jpeg_of_endless_scans_is_refused(kind: str) -> None:
    """Also one that says that several pictures follow."""
    picture = Image.new("L", (64, 64))
    data = encode(picture, "JPEG", progressive=True)
    if kind == "MPO":
        pair = encode(picture, "MPO", save_all=True, append_images=[picture])
        begin = pair.index(b"\xff\xe2")  # the index of its pictures, a segment of its own
        data = data[:2] + pair[begin : begin + 2 + int.from_bytes(pair[begin + 2 : begin + 4], "big")] + data[2:]
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.format == kind
    last = data.rindex(b"\xff\xda")
    assert decode_image(data, LIMIT).size == (64, 64)
    with pytest.raises(InvalidMedia, match="scans"):
        decode_image(data[:-2] + data[last:-2] * 200 + data[-2:], LIMIT)
