"""Reading pictures: what is accepted is converted and noted, what is broken is refused in one sentence."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from og2.conditioning.images import fit_size, list_images, load_image, preprocess, to_pil
from og2.errors import ImageError, RequestError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(source: object) -> str:
    """The sentence a picture is refused with: an ImageError on one line."""
    with pytest.raises(ImageError) as caught:
        load_image(source)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_an_upright_rgb_picture_comes_back_unchanged_and_without_a_note(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), PIXELS):
        picture, notes = load_image(source)
        np.testing.assert_array_equal(np.asarray(picture), PIXELS)
        assert picture.mode == "RGB"
        assert notes == []


def test_an_exif_rotated_picture_is_turned_upright_and_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "r.png", exif=exif)
    picture, notes = load_image(tmp_path / "r.png")
    np.testing.assert_array_equal(np.asarray(picture), np.rot90(PIXELS, -1))
    assert len(notes) == 1
    assert "EXIF" in notes[0]
    assert "r.png" in notes[0]


def test_a_half_turn_keeps_the_size_and_is_noted_all_the_same():
    exif = Image.Exif()
    exif[0x0112] = 3
    picture, notes = load_image(encoded(Image.fromarray(PIXELS), "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(picture), PIXELS[::-1, ::-1])
    assert "EXIF" in notes[0]


def test_a_whole_picture_with_a_malformed_exif_header_is_taken_as_it_is_and_noted():
    whole = Image.fromarray(PIXELS)
    picture, notes = load_image(encoded(whole, "JPEG", exif=b"Exif\0\0garbagegarbage"))
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(load_image(encoded(whole, "JPEG"))[0]))
    assert notes == ["the given bytes: taken as it is, its EXIF header being malformed"]


def test_transparent_pixels_are_laid_on_white():
    rgba = np.dstack([PIXELS, np.where(PIXELS[..., 0] > 127, 255, 0).astype(np.uint8)])
    picture, notes = load_image(encoded(Image.fromarray(rgba), "PNG"))
    expected = np.where(rgba[..., 3:] == 255, PIXELS, 255)
    np.testing.assert_array_equal(np.asarray(picture), expected)
    assert "white" in notes[0]


def test_half_transparent_black_becomes_middle_grey():
    picture, _ = load_image(Image.new("RGBA", (20, 20), (0, 0, 0, 128)))
    assert picture.getpixel((3, 3)) == (127, 127, 127)


@pytest.mark.parametrize(
    ("mode", "kind", "word"),
    [
        ("L", "PNG", "greyscale"), ("LA", "PNG", "white"), ("P", "PNG", "palette"), ("P", "GIF", "palette"),
        ("CMYK", "JPEG", "CMYK"), ("CMYK", "TIFF", "CMYK"), ("YCbCr", "TIFF", "YCbCr"),
        ("I;16", "PNG", "16-bit"), ("RGBA", "WEBP", "white"), ("1", "PNG", "black and white"),
    ],
)  # fmt: skip
def test_every_other_colour_model_is_converted_to_rgb_and_noted(mode, kind, word):
    if mode == "I;16":
        source = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    else:
        source = Image.fromarray(PIXELS).convert(mode)
    if mode == "RGBA":
        source.putalpha(100)
    picture, notes = load_image(encoded(source, kind))
    assert (picture.mode, picture.size) == ("RGB", (60, 40))
    assert word in " ".join(notes)


def test_16_bit_greyscale_keeps_its_brightness():
    grey = PIXELS[..., 0]
    picture, notes = load_image(encoded(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"))
    np.testing.assert_array_equal(np.asarray(picture)[..., 1], grey)
    assert any("16-bit" in note for note in notes)


def test_a_16_bit_rgb_png_is_noted_although_the_library_reduces_it_silently():
    rows = b"".join(b"\0" + (PIXELS[y].astype(">u2") * 257).tobytes() for y in range(40))
    picture, notes = load_image(raw_png(60, 40, 16, 2, rows))
    np.testing.assert_array_equal(np.asarray(picture), PIXELS)
    assert "16-bit" in notes[0]


def test_a_palette_png_with_a_transparent_colour_is_laid_on_white():
    paletted = Image.fromarray((PIXELS[..., 0] > 127).astype(np.uint8), "L").convert("P")
    paletted.putpalette([255, 0, 0, 0, 0, 255])
    picture, _ = load_image(encoded(paletted, "PNG", transparency=0))
    assert set(picture.get_flattened_data()) == {(255, 255, 255), (0, 0, 255)}


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animated_or_many_page_picture_is_refused(kind):
    frames = [Image.fromarray(np.roll(PIXELS, 9 * k, 1)) for k in range(3)]
    assert "3 frames" in refused(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))


def test_the_first_picture_of_a_phone_jpeg_holding_two_is_taken_and_noted():
    frames = [Image.fromarray(np.full((40, 60, 3), level, np.uint8)) for level in (200, 20)]
    picture, notes = load_image(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]))
    assert abs(np.asarray(picture).mean() - 200) < 2
    assert "first" in notes[0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused(kind, share, tmp_path):
    whole = encoded(Image.fromarray(PIXELS), kind)
    path = tmp_path / "cut"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert str(path) in refused(path)


def test_a_missing_file_a_folder_and_text_are_refused_by_name(tmp_path):
    (tmp_path / "words.png").write_text("not a picture")
    assert "does not exist" in refused(tmp_path / "gone.png")
    assert "folder" in refused(tmp_path)
    assert "known format" in refused(tmp_path / "words.png")
    assert "int" in refused(3)


@pytest.mark.parametrize("size", [(50_000, 20), (20, 50_000), (60_000, 60_000), (20_000, 20_000)])
def test_a_huge_picture_is_refused_from_its_header_alone(size):
    text = refused(raw_png(*size, 8, 2, b""))
    assert "shrink it" in text


def test_a_zero_sized_picture_is_refused():
    refused(raw_png(0, 5, 8, 2, b""))
    assert "no pixels" in refused(np.zeros((0, 5, 3), np.uint8))
    assert "no pixels" in refused(Image.new("RGB", (0, 4)))


@pytest.mark.filterwarnings("ignore::UserWarning")  # the library's own remarks on broken tags
@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"]),
    st.lists(st.tuples(st.integers(0, 3999), st.integers(0, 255)), min_size=1, max_size=12),
    st.integers(0, 4000),
)
def test_damaged_bytes_give_a_picture_or_an_image_error_and_nothing_else(kind, changes, cut):
    data = bytearray(encoded(Image.fromarray(PIXELS[:16, :24]), kind))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        picture, _ = load_image(bytes(data[: max(1, cut)]))
    except ImageError:
        return
    assert picture.mode == "RGB"


def test_a_picture_with_32_bit_samples_is_refused_with_a_way_out():
    wide = Image.fromarray(np.full((20, 20), 1.5, np.float32))
    assert "8 or 16 bits" in refused(encoded(wide, "TIFF"))


def test_float_and_uint16_arrays_and_tensors_mean_the_same_picture():
    unit = PIXELS.astype(np.float32) / 255
    sources = [unit, PIXELS.astype(np.uint16) * 257, torch.from_numpy(unit).permute(2, 0, 1)]
    sources += [
        torch.from_numpy(PIXELS).permute(2, 0, 1)[None],
        torch.from_numpy(unit).double().permute(2, 0, 1),
    ]
    for source in sources:
        np.testing.assert_array_equal(np.asarray(load_image(source)[0]), PIXELS)


@pytest.mark.parametrize(
    "source",
    [
        np.full((20, 20, 3), 1.01), np.full((20, 20, 3), np.nan), -np.ones((20, 20)),
        np.zeros((20, 20, 2), np.uint8), np.zeros((20, 20), np.int64),
        torch.zeros(2, 3, 20, 20), torch.zeros(20, 20, 3), torch.full((3, 20, 20), -0.1),
    ],
    ids=["above 1", "nan", "below 0", "two channels", "int64", "a batch", "channels last", "negative"],
)  # fmt: skip
def test_arrays_of_unclear_meaning_are_refused(source):
    refused(source)


def test_a_folder_is_listed_by_name_without_hidden_files_and_says_what_it_left_out(tmp_path):
    for name in ("b.png", "a.JPG", "10.webp", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    paths, notes = list_images(tmp_path)
    assert [path.name for path in paths] == ["10.webp", "a.JPG", "b.png"]
    assert "notes.txt" in notes[0]
    with pytest.raises(ImageError, match="holds no picture"):
        list_images(Path(tmp_path, "empty").mkdir() or tmp_path / "empty")


sides = st.integers(16, 6000)


@given(sides, sides, st.integers(256, 4_000_000), st.none() | st.integers(16, 4096))
def test_fitted_sizes_never_grow_are_multiples_of_16_and_stay_within_the_limits(height, width, pixels, side):
    try:
        fitted = fit_size(height, width, pixels, side)
    except ImageError:
        return
    assert fitted[0] <= height
    assert fitted[1] <= width
    assert all(value % 16 == 0 and value >= 16 for value in fitted)
    assert fitted[0] * fitted[1] <= pixels
    assert side is None or max(fitted) <= side


@given(sides, sides, st.integers(65_536, 4_000_000), st.none() | st.integers(256, 4096))
def test_proportions_move_by_less_than_one_step_a_side(height, width, pixels, side):
    try:
        fitted = fit_size(height, width, pixels, side)
    except ImageError:
        return
    ratio = min((pixels / (height * width)) ** 0.5, 1.0, (side or 10**9) / max(height, width))
    assert all(0 <= exact * ratio - value < 17 for exact, value in zip((height, width), fitted, strict=True))


@given(sides, sides, st.integers(65_536, 4_000_000), st.integers(256, 4096))
def test_fitting_twice_changes_nothing_more(height, width, pixels, side):
    try:
        once = fit_size(height, width, pixels, side)
    except ImageError:
        return
    assert fit_size(*once, pixels, side) == once


@pytest.mark.parametrize(("height", "width"), [(15, 400), (400, 15), (20, 3000), (1, 1), (0, 50)])
def test_a_side_below_16_px_is_refused(height, width):
    with pytest.raises(ImageError):
        fit_size(height, width, 1024**2, 1024)


@pytest.mark.parametrize(("pixels", "side"), [(0, None), (-5, 100), (1000, 0), (float("nan"), None)])
def test_limits_that_are_not_positive_are_refused(pixels, side):
    with pytest.raises(RequestError):
        fit_size(100, 100, pixels, side)


def test_only_rgb_pictures_are_preprocessed():
    with pytest.raises(ImageError, match="load_image"):
        preprocess(Image.new("L", (64, 64)), 1024**2)


def test_pixels_survive_the_way_into_the_model_and_out_again():
    picture = Image.fromarray(RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    back = to_pil(preprocess(picture, 1024**2) / 2 + 0.5)[0]
    np.testing.assert_array_equal(np.asarray(back), np.asarray(picture))
