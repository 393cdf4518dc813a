"""Whatever a file is made of, its image comes out as one sees it, or it is refused by name."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from gclip.errors import UsageError
from gclip.training import images

SIZE = 32
CHANCE = np.random.RandomState(0)
GREY = CHANCE.randint(0, 256, (SIZE, SIZE), dtype=np.uint8)
COLOUR = CHANCE.randint(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
DEEP = (np.arange(SIZE * SIZE, dtype=np.uint16) * 64).reshape(SIZE, SIZE)
# As a picture is turned for each of Exif's orientations, from the way it is stored.
TURNS = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x.swapaxes(0, 1), 2),
    8: np.rot90,
}


def decoded(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, notes = images.decode([path])
    assert found.shape == (1, SIZE, SIZE, 3)
    return found[0], notes


def grey(values):
    return np.repeat(values[:, :, None], 3, axis=2)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".pgm", ".jp2"])
def test_of_sixteen_bits_the_upper_eight_are_the_image(tmp_path, suffix):
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(DEEP).save(path)
    found, notes = decoded(path)
    assert np.array_equal(found, grey(DEEP >> 8))
    assert notes == {}


def test_sixteen_bits_with_the_other_byte_first(tmp_path):
    path = tmp_path / "deep.tif"
    Image.frombytes("I;16B", (SIZE, SIZE), DEEP.astype(">u2").tobytes()).save(path)
    assert np.array_equal(decoded(path)[0], grey(DEEP >> 8))


@pytest.mark.parametrize("values", [DEEP, (DEEP >> 8).astype(np.uint8)])
def test_where_zero_is_white_it_stays_white(tmp_path, values):
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    path = tmp_path / "film.tif"
    tags = ImageFileDirectory_v2()
    tags[262] = 0
    Image.fromarray(values).save(path, tiffinfo=tags)
    stored = path.read_bytes()
    # Whether a writer turned the values round is seen in the bytes: the first pixel is the lowest.
    written = values if stored.count(values.tobytes()) else values.max() - values
    assert stored.count(written.tobytes())
    white = 255 if values.dtype == np.uint8 else 65535
    expected = (white - written.astype(np.int64)) >> (0 if white == 255 else 8)
    assert np.array_equal(decoded(path)[0], grey(expected))


def test_sixteen_bits_of_other_sizes_are_resized_like_eight(tmp_path):
    deep, shallow = tmp_path / "deep.png", tmp_path / "shallow.png"
    values = CHANCE.randint(0, 1 << 16, (50, 70)).astype(np.uint16)
    Image.fromarray(values).save(deep)
    Image.fromarray((values >> 8).astype(np.uint8)).save(shallow)
    assert np.array_equal(decoded(deep)[0], decoded(shallow)[0])


def test_twelve_bits_in_sixteen_are_read_and_said(tmp_path):
    path = tmp_path / "microscope.tif"
    Image.fromarray(DEEP // 16).save(path)
    found, notes = decoded(path)
    assert np.array_equal(found, grey(DEEP // 16 >> 8))
    assert notes == {images.DARK: 1}
    Image.fromarray(np.zeros_like(DEEP)).save(path)
    assert decoded(path)[1] == {}


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_thirty_two_bits_have_no_scale_and_are_refused(tmp_path, kind):
    path = tmp_path / "measured.tif"
    Image.fromarray(DEEP.astype(kind)).save(path)
    with pytest.raises(UsageError, match=r"measured\.tif does not read: .*black.*8 or 16 bits"):
        decoded(path)


def test_grey_colour_and_one_bit(tmp_path):
    for name, values in (("grey", grey(GREY)), ("colour", COLOUR)):
        Image.fromarray(values if name == "colour" else GREY).save(tmp_path / "image.png")
        assert np.array_equal(decoded(tmp_path / "image.png")[0], values)
    for suffix in (".png", ".tif", ".pbm", ".bmp"):
        bits = GREY > 127
        Image.fromarray(bits).save(tmp_path / f"bits{suffix}")
        assert np.array_equal(decoded(tmp_path / f"bits{suffix}")[0], grey(255 * bits))


def test_a_palette_gives_its_colours(tmp_path):
    image = Image.fromarray(COLOUR).quantize(16)
    image.save(tmp_path / "palette.gif")
    image.save(tmp_path / "palette.png")
    expected = np.asarray(image.convert("RGB"))
    for suffix in (".gif", ".png"):
        found, notes = decoded(tmp_path / f"palette{suffix}")
        assert np.array_equal(found, expected)
        assert notes == {}


def test_cmyk(tmp_path):
    ink = Image.fromarray(COLOUR).convert("CMYK")
    ink.save(tmp_path / "ink.tif")
    assert np.array_equal(decoded(tmp_path / "ink.tif")[0], COLOUR)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_transparency_is_said(tmp_path, mode):
    path = tmp_path / "clear.png"
    colours = COLOUR if mode.startswith("RGB") else grey(GREY)
    if mode in ("RGBA", "LA"):
        alpha = np.full((SIZE, SIZE), 255, np.uint8)
        parts = [*np.moveaxis(COLOUR, 2, 0), alpha] if mode == "RGBA" else [GREY, alpha]
        Image.fromarray(np.stack(parts, 2)).save(path)
        found, notes = decoded(path)
        assert np.array_equal(found, colours)
        assert notes == {}
        alpha[0, 0] = 200
        parts[-1] = alpha
        Image.fromarray(np.stack(parts, 2)).save(path)
    elif mode == "P":
        shades = Image.frombytes("P", (SIZE, SIZE), GREY.tobytes())
        shades.putpalette([value for shade in range(256) for value in (shade,) * 3])
        shades.save(path, transparency=bytes(range(256)))
    else:
        clear = int(GREY[3, 3]) if mode == "L" else tuple(int(v) for v in COLOUR[3, 3])
        Image.fromarray(GREY if mode == "L" else COLOUR).save(path, transparency=clear)
    found, notes = decoded(path)
    assert np.array_equal(found, colours)
    assert notes == {images.TRANSPARENT: 1}


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_of_several_frames_the_first_is_read_and_it_is_said(tmp_path, suffix):
    path = tmp_path / f"film{suffix}"
    frames = [Image.new("RGB", (SIZE, SIZE), (shade,) * 3) for shade in (255, 0, 0)]
    more = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **more)
    found, notes = decoded(path)
    assert (found == 255).all()
    assert notes == {images.FRAMES: 1}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_exif_turns_the_image(tmp_path, orientation, suffix):
    path = tmp_path / f"phone{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    more = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(COLOUR).save(path, exif=exif, **more)
    assert np.array_equal(decoded(path)[0], TURNS[orientation](COLOUR))


def test_sizes_that_are_not_square_are_turned_before_they_are_resized(tmp_path):
    tall, turned = tmp_path / "tall.png", tmp_path / "turned.png"
    values = CHANCE.randint(0, 256, (64, 32, 3), dtype=np.uint8)
    Image.fromarray(values).save(tall)
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(np.rot90(values, -1).copy()).save(turned, exif=exif)
    assert np.array_equal(decoded(turned)[0], decoded(tall)[0])


def test_a_wrong_suffix_does_not_matter_but_other_formats_are_refused(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "image.png")
    os.rename(tmp_path / "image.png", tmp_path / "image.jpg")
    assert np.array_equal(decoded(tmp_path / "image.jpg")[0], COLOUR)
    Image.fromarray(COLOUR).save(tmp_path / "page.eps")
    os.rename(tmp_path / "page.eps", tmp_path / "page.png")
    with pytest.raises(UsageError, match=r"page\.png does not read: it is empty, damaged, or none"):
        decoded(tmp_path / "page.png")


def saved(path, **more):
    Image.fromarray(COLOUR).save(path, **more)
    return path.read_bytes()


def test_what_does_not_read_is_named_in_one_sentence(tmp_path, monkeypatch):
    def refused(name, content, sentence):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UsageError, match=sentence) as caught:
            decoded(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    refused("empty.png", b"", "empty")
    refused("text.png", b"no image", "none of PNG, JPEG")
    for suffix in (".png", ".jpg", ".bmp", ".webp", ".tif", ".gif", ".ppm"):
        whole = saved(tmp_path / f"whole{suffix}")
        refused(f"cut{suffix}", whole[: len(whole) // 2], "does not read")
    header = bytearray(saved(tmp_path / "whole.bmp"))
    header[21] = 127
    refused("header.bmp", bytes(header), "pixels")
    Image.new("1", (14000, 14000)).save(tmp_path / "huge.png")
    refused("huge.png", (tmp_path / "huge.png").read_bytes(), "196000000 pixels")
    # Between once and twice the limit Pillow only warns, and names no file.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused("large.png", saved(tmp_path / "large.png"), "claims 32 × 32 pixels, and beyond 1000")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert np.array_equal(decoded(tmp_path / "large.png")[0], COLOUR)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".gif", ".webp"])
def test_damaged_bytes_never_end_in_another_error(tmp_path, suffix):
    whole = saved(tmp_path / f"whole{suffix}")
    chance = np.random.RandomState(1)
    paths = []
    for number in range(60):
        content = bytearray(whole)
        for place in chance.randint(0, min(200, len(whole)), 3):
            content[place] = chance.randint(256)
        paths.append(tmp_path / f"{number}{suffix}")
        paths[-1].write_bytes(content)
    refused = []
    for path in paths:
        try:
            decoded(path)
        except UsageError as error:
            refused.append((str(path), str(error)))
    assert refused
    assert all(path in sentence for path, sentence in refused)


def test_all_that_do_not_read_are_counted(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path in paths:
        saved(path)
    for number in (1, 3, 4):
        paths[number].write_bytes(b"")
    with pytest.raises(UsageError, match=r"1\.png does not read: .* \(and 2 more do not\)"):
        images.decode(paths)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "locked.png"

    def locked(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", locked)
    with pytest.raises(UsageError, match=r"locked\.png does not read: Permission denied"):
        decoded(path)


def test_what_pillow_warns_about_is_counted(tmp_path, monkeypatch):
    path = tmp_path / "odd.png"
    saved(path)
    load = images._decode

    def warning(path, form):
        warnings.warn_explicit("odd tags", UserWarning, "x.py", 1, module="PIL.TiffImagePlugin")
        return load(path, form)

    monkeypatch.setattr(images, "_decode", warning)
    _, notes = images.decode([path, path])
    assert notes == {"images that Pillow warns about (odd tags)": 2}


def test_names_that_are_no_text_are_shown():
    assert images.shown(os.fsdecode(b"/a/\xff.png")) == r"/a/\udcff.png"
    assert images.shown("/é.png") == "/é.png"
