"""Decoding, resizing and augmenting against Pillow, torchvision and timm, pixel by pixel.

STROBE_CLIP_IMAGE_TOOL names the program built from image_tool.cpp. The images are made here from seeds.
"""

import io
import json
import math
import os
import random
import struct
import subprocess
import sys
import warnings
import zlib

import numpy
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor

TOOL = os.environ["STROBE_CLIP_IMAGE_TOOL"]
SIDE = 224
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def ask(requests):
    done = subprocess.run([TOOL], input=json.dumps(requests).encode(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def picture(width, height, channels, seed=0):
    """Waves, edges and noise: smooth and hard parts in all channels."""
    rng = numpy.random.default_rng(seed)
    y, x = numpy.mgrid[0:height, 0:width]
    planes = []
    for c in range(channels):
        wave = 127 + 90 * numpy.sin(x / (5 + 3 * c) + c) * numpy.cos(y / (7 + c))
        wave += 60 * (((x // 13) + (y // 17 + c)) % 2) + rng.normal(0, 20, (height, width))
        planes.append(numpy.clip(wave, 0, 255).astype(numpy.uint8))
    return numpy.stack(planes, -1).squeeze()


def saved(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, color, rows, interlace=0, extra=b""):
    """A PNG of our own, for what Pillow does not write; rows are packed bytes without filters."""
    raw = b"".join(b"\0" + row for row in rows)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlace)) +
            extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def random_rows(width, height, bits_per_pixel, seed):
    rng = numpy.random.default_rng(seed)
    return [rng.integers(0, 256, (width * bits_per_pixel + 7) // 8, dtype=numpy.uint8).tobytes() for _ in range(height)]


def interlaced(width, height, bits_per_pixel, seed):
    """Adam7: the rows of the seven passes one after another."""
    rows = []
    for i, (x0, y0, dx, dy) in enumerate([(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4),
                                          (1, 0, 2, 2), (0, 1, 1, 2)]):
        columns, lines = math.ceil((width - x0) / dx), math.ceil((height - y0) / dy)
        if columns > 0 and lines > 0:
            rows += random_rows(columns, lines, bits_per_pixel, seed + i)
    return rows


def corpus():
    rgb = Image.fromarray(picture(301, 200, 3, 1))
    gray = Image.fromarray(picture(301, 200, 1, 2))
    rgba = Image.fromarray(picture(301, 200, 4, 3))
    la = Image.fromarray(picture(301, 200, 2, 4), "LA")
    cmyk = Image.fromarray(picture(301, 200, 4, 5), "CMYK")
    images = {}
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        images[f"jpeg {name}"] = saved(rgb, "JPEG", subsampling=subsampling, quality=80)
        images[f"jpeg {name} progressive"] = saved(rgb, "JPEG", subsampling=subsampling, quality=60, progressive=True)
    images["jpeg odd"] = saved(Image.fromarray(picture(37, 53, 3, 6)), "JPEG", quality=30)
    images["jpeg restart"] = saved(rgb, "JPEG", restart_marker_blocks=3)
    images["jpeg gray"] = saved(gray, "JPEG")
    images["jpeg cmyk"] = saved(cmyk, "JPEG")
    images["jpeg as rgb"] = saved(rgb, "JPEG", keep_rgb=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    images["jpeg exif rotated"] = saved(rgb, "JPEG", exif=exif)
    images["jpeg junk after"] = saved(rgb, "JPEG") + b"more"
    images["png rgb"] = saved(rgb, "PNG")
    images["png gray"] = saved(gray, "PNG")
    images["png rgba"] = saved(rgba, "PNG")
    images["png la"] = saved(la, "PNG")
    images["png 1 bit"] = saved(gray.convert("1"), "PNG")
    images["png rgb, colour key"] = saved(rgb, "PNG", transparency=(10, 20, 30))
    images["png gray, colour key"] = saved(gray, "PNG", transparency=77)
    quantized = rgb.quantize(200)
    images["png palette"] = saved(quantized, "PNG")
    images["png palette, one clear"] = saved(quantized, "PNG", transparency=3)
    images["png palette, alphas"] = saved(quantized, "PNG", transparency=bytes(range(0, 200)))
    for bits in (1, 2, 4):
        images[f"png palette {bits} bits"] = saved(rgb.quantize(2 ** bits), "PNG", bits=bits)
    for bits in (1, 2, 4, 8, 16):
        images[f"png gray {bits} bits raw"] = png(61, 45, bits, 0, random_rows(61, 45, bits, bits))
        images[f"png gray {bits} bits interlaced"] = png(61, 45, bits, 0, interlaced(61, 45, bits, bits), 1)
        if bits <= 8:
            palette = chunk(b"PLTE", picture(1, 2 ** bits, 3, 9).tobytes())
            images[f"png palette {bits} bits interlaced"] = png(61, 45, bits, 3, interlaced(61, 45, bits, bits), 1, palette)
        else:
            for color, channels in ((2, 3), (4, 2), (6, 4)):
                images[f"png 16 bits, type {color}"] = png(61, 45, 16, color, random_rows(61, 45, 16 * channels, color))
    images["png rgb interlaced"] = png(61, 45, 8, 2, interlaced(61, 45, 24, 1), 1)
    images["png rgba interlaced"] = png(61, 45, 8, 6, interlaced(61, 45, 32, 2), 1)
    images["png la interlaced"] = png(61, 45, 8, 4, interlaced(61, 45, 16, 3), 1)
    images["png palette too short"] = png(9, 9, 8, 3, random_rows(9, 9, 8, 1), 0, chunk(b"PLTE", b"\x0a\x14\x1e" * 3))
    dark = numpy.random.default_rng(8).integers(0, 300, (60, 80)).astype(numpy.uint16)
    images["png 16 bits dark"] = saved(Image.fromarray(dark), "PNG")
    images["png 16 bits overshoot"] = saved(Image.fromarray((numpy.indices((70, 90)).sum(0) % 2 * 65535).astype(numpy.uint16)),
                                            "PNG")
    for name, image in (("rgb", rgb), ("rgba", rgba)):
        images[f"webp {name} lossy"] = saved(image, "WEBP", quality=70)
        images[f"webp {name} lossless"] = saved(image, "WEBP", lossless=True, exact=True)
    other = Image.fromarray(picture(301, 200, 4, 11))
    images["webp animated"] = saved(rgba, "WEBP", save_all=True, append_images=[other], duration=50)
    for width, height in ((1, 1), (1, 5000), (5000, 1), (SIDE, SIDE), (SIDE, 100), (100, SIDE), (2, 3), (1000, 700), (223, 225)):
        images[f"png {width}x{height}"] = saved(Image.fromarray(picture(width, height, 3, 7).reshape(height, width, 3)), "PNG")
        images[f"png alpha {width}x{height}"] = saved(Image.fromarray(picture(width, height, 4, 7).reshape(height, width, 4)),
                                                      "PNG")
    images["png palette 1000x700"] = saved(Image.fromarray(picture(1000, 700, 3, 7)).quantize(64), "PNG")
    images["png palette 50x70"] = saved(Image.fromarray(picture(50, 70, 3, 7)).quantize(64), "PNG")
    images["png 1 bit 1000x333"] = saved(Image.fromarray(picture(1000, 333, 1, 7)).convert("1"), "PNG")
    return images


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = {}
    for i, (name, data) in enumerate(corpus().items()):
        paths[name] = folder / f"{i}.bin"
        paths[name].write_bytes(data)
    return paths


def open_image(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(path.read_bytes()))
        image.load()
    return image


def original_transform(image):
    """As cn_clip's: resized in the image's own mode, then RGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return numpy.asarray(Resize((SIDE, SIDE), interpolation=InterpolationMode.BICUBIC)(image).convert("RGB"))


def test_decoded_pixels(files):
    answers = ask([{"op": "decode", "file": str(path), "out": f"{path}.out"} for path in files.values()])
    wrong = []
    for (name, path), answer in zip(files.items(), answers):
        image = open_image(path)
        # Pillow has no LA of 16 bits and puts it into RGBA.
        mode = {"png 16 bits, type 4": "LA"}.get(name, image.mode)
        expected = numpy.asarray(image.convert("LA") if mode == "LA" and image.mode == "RGBA" else image)
        if image.mode == "1":
            expected = expected * numpy.uint8(255)
        found = open(f"{path}.out", "rb").read()
        if answer.get("mode") != mode or (answer["width"], answer["height"]) != image.size or found != expected.tobytes():
            wrong.append((name, answer, image.mode, image.size))
    assert not wrong


def test_resized_pixels(files):
    answers = ask([{"op": "transform", "file": str(path), "out": f"{path}.out", "resolution": SIDE} for path in files.values()])
    wrong = {}
    for (name, path), answer in zip(files.items(), answers):
        expected = original_transform(open_image(path))
        found = numpy.fromfile(f"{path}.out", numpy.uint8).reshape(SIDE, SIDE, 3)
        if "error" in answer or (found != expected).any():
            wrong[name] = (answer, int(numpy.abs(found.astype(int) - expected).max()))
    assert not wrong


def test_sizes(tmp_path):
    """Every pair of small sizes, and other resolutions of the result."""
    requests, expected = [], []
    rng = random.Random(1)
    for i in range(60):
        width, height, side = rng.randint(1, 400), rng.randint(1, 400), rng.choice([1, 7, 32, 336])
        image = Image.fromarray(picture(width, height, 3, i).reshape(height, width, 3))
        path = tmp_path / f"{i}.png"
        image.save(path)
        requests.append({"op": "transform", "file": str(path), "out": f"{path}.out", "resolution": side})
        expected.append(numpy.asarray(image.resize((side, side), Image.BICUBIC)).tobytes())
    assert all("error" not in answer for answer in ask(requests))
    assert all(open(request["out"], "rb").read() == pixels for request, pixels in zip(requests, expected))


def test_refused(tmp_path):
    good = saved(Image.fromarray(picture(301, 200, 3)), "JPEG")
    progressive = saved(Image.fromarray(picture(301, 200, 3)), "JPEG", progressive=True)
    lossless = saved(Image.fromarray(picture(301, 200, 3)), "PNG")
    webp = saved(Image.fromarray(picture(301, 200, 3)), "WEBP")
    rgb = Image.fromarray(picture(30, 20, 3))
    cases = {
        "no bytes": b"",
        "JPEG image: the file is cut short": good[:len(good) // 2],
        "JPEG image: the file is cut short ": progressive[:len(progressive) // 2],
        "JPEG image: the file is cut short  ": good[:300],
        "JPEG image": b"\xff\xd8\xff\xe0",
        "PNG image: the file is cut short": lossless[:len(lossless) // 2],
        "PNG image: the file is cut short ": lossless[:20],
        "WebP image: it is damaged or cut short": webp[:len(webp) // 2],
        "WebP image: no header": webp[:14],
        "PNG image: expected 1 to 178956970 pixels, found 100000 x 2000": png(100000, 2000, 8, 2, [b""]),
        "PNG image: Invalid IHDR data": png(2000000, 1, 8, 2, [b""]),
        "unknown format (it starts with 6e 6f 20 69 6d 61 67 65)": b"no image at all",
        "GIF is not supported": saved(rgb, "GIF"),
        "BMP is not supported": saved(rgb, "BMP"),
        "TIFF is not supported": saved(rgb, "TIFF"),
        "AVIF is not supported": saved(rgb, "AVIF"),
        "JPEG 2000 is not supported": saved(rgb, "JPEG2000"),
        "ICO is not supported": saved(rgb, "ICO"),
    }
    requests = []
    for i, data in enumerate(cases.values()):
        path = tmp_path / f"{i}.bin"
        path.write_bytes(data)
        requests.append({"op": "transform", "file": str(path), "out": f"{path}.out", "resolution": 8})
    for expected, answer in zip(cases, ask(requests)):
        assert expected.strip() in answer.get("error", ""), (expected, answer)


def test_truncation_agrees_with_pillow(tmp_path):
    """Cut anywhere, a file is read by both or by neither, and to the same pixels; but a PNG cut within the checksums behind
    its last pixel is read by Pillow alone."""
    rng = random.Random(3)
    requests, expected = [], []
    image = Image.fromarray(picture(90, 70, 3, 2))
    sources = [saved(image, "JPEG"), saved(image, "JPEG", progressive=True), saved(image, "PNG")]
    for i in range(120):
        data = sources[i % 3]
        cut = i // 3 if i < 60 else rng.randrange(len(data))
        if i % 3 == 2 and 13 < cut <= 20:  # after IEND's 12 bytes IDAT's checksum and zlib's, four bytes each
            continue
        data = data[:len(data) - cut]
        path = tmp_path / f"{i}.bin"
        path.write_bytes(data)
        requests.append({"op": "transform", "file": str(path), "out": f"{path}.out", "resolution": SIDE})
        try:
            expected.append(original_transform(open_image(path)).tobytes())
        except Exception:
            expected.append(None)
    for i, (request, answer, pixels) in enumerate(zip(requests, ask(requests), expected)):
        assert ("error" in answer) == (pixels is None), (i, answer)
        if pixels is not None:
            assert open(request["out"], "rb").read() == pixels, i


def test_damaged_files_do_not_crash(tmp_path):
    rng = random.Random(4)
    image = Image.fromarray(picture(60, 50, 4, 2))
    rgb = image.convert("RGB")
    sources = [saved(rgb, "JPEG"), saved(rgb, "JPEG", progressive=True), saved(image, "PNG"), saved(rgb.quantize(9), "PNG"),
               saved(image, "WEBP"), saved(image, "WEBP", lossless=True)]
    requests = []
    for i in range(300):
        data = bytearray(sources[i % len(sources)])
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path = tmp_path / f"{i}.bin"
        path.write_bytes(data)
        requests.append({"op": "transform", "file": str(path), "out": f"{path}.out", "resolution": 16})
    assert len(ask(requests)) == len(requests)


# Draws of timm's transform, in the order in which it makes them, are taken from `Replay`, and told to the tool.


class Replay(random.Random):
    """Records what timm draws."""

    def __init__(self, seed):
        super().__init__(seed)
        self.values = []

    def random(self):
        value = super().random()
        self.values.append(value)
        return value


def timm_transform():
    transform = create_transform(input_size=SIDE, scale=(0.9, 1.0), is_training=True, color_jitter=None, auto_augment="original",
                                 interpolation="bicubic", mean=MEAN, std=STD)
    crop, flip, augment = transform.transforms[:3]
    assert len(transform.transforms) == 5
    return crop, flip, augment


def policy_draws(rng, augment, policy):
    """Draws for one policy, and a patched `random` that makes timm take them."""
    ops = []
    for op in augment.policy[policy]:
        ops.append([op.prob == 1.0 or (op.prob > 0.0 and rng.random() < 0.8), rng.random() < 0.5])
    return ops


class Scripted:
    """Stands in for the module random in timm: the next answers are known."""

    def __init__(self, augment, policy, ops):
        self.policy = augment.policy[policy]
        self.answers = []
        for op, (apply, negate) in zip(self.policy, ops):
            if op.prob < 1.0:
                self.answers.append(op.prob / 2 if apply else (op.prob + 1) / 2)
            if apply and op.name in ("Rotate", "ShearX"):
                self.answers.append(0.9 if negate else 0.1)

    def choice(self, _):
        return self.policy

    def random(self):
        return self.answers.pop(0)


def test_augmentation(files, tmp_path, monkeypatch):
    import timm.data.auto_augment as auto_augment

    crop, _, augment = timm_transform()
    rng = random.Random(5)
    names = ["jpeg 420", "png rgba", "png palette", "jpeg gray", "jpeg cmyk", "png la", "png 1 bit", "png 1000x700", "png 1x5000",
             "png 2x3", "png 16 bits dark", "png 224x224"]
    requests, expected, about = [], [], []
    for i in range(150):
        policy, name = i % 25, rng.choice(names)
        image = open_image(files[name])
        random.seed(i)
        top, left, height, width = crop.get_params(image, crop.scale, crop.ratio)
        ops, flip = policy_draws(rng, augment, policy), rng.random() < 0.5
        requests.append({"op": "augment", "file": str(files[name]), "out": str(tmp_path / f"{i}.out"), "resolution": SIDE,
                         "crop": [left, top, width, height], "flip": flip, "policy": policy, "ops": ops})
        image = image.crop((left, top, left + width, top + height)).resize((SIDE, SIDE), Image.BICUBIC)
        if flip:
            image = image.transpose(Image.FLIP_LEFT_RIGHT)
        scripted = Scripted(augment, policy, ops)
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.setattr(auto_augment, "random", scripted)
            expected.append(numpy.asarray(augment(image.convert("RGB"))))
        assert not scripted.answers
        about.append((name, [op.name for op in augment.policy[policy]], ops))
    for request, answer, pixels, what in zip(requests, ask(requests), expected, about):
        assert "error" not in answer, what
        found = numpy.fromfile(request["out"], numpy.uint8).reshape(SIDE, SIDE, 3)
        assert (found == pixels).all(), (what, numpy.abs(found.astype(int) - pixels).max(), (found != pixels).mean())


def test_draws():
    """The same whatever is drawn beside them, all within the image, with timm's frequencies."""
    sizes = [(500, 375), (375, 500), (1, 1), (1, 5000), (5000, 1), (3, 2), (224, 224)]
    requests = [{"op": "draw", "seed": 7, "epoch": e, "index": i, "width": w, "height": h}
                for w, h in sizes for e in (0, 3) for i in range(40)]
    draws = ask(requests)
    assert draws[::-1] == ask(requests[::-1])
    for request, draw in zip(requests, draws):
        left, top, width, height = draw["crop"]
        assert 0 <= left and 0 <= top and 1 <= width and 1 <= height, (request, draw)
        assert left + width <= request["width"] and top + height <= request["height"], (request, draw)

    count = 4000
    requests = [{"op": "draw", "seed": 1, "epoch": 0, "index": i, "width": 500, "height": 375} for i in range(count)]
    draws = ask(requests)
    crop, _, augment = timm_transform()
    sd = 0.5 / math.sqrt(count)  # of a share, at most
    assert abs(numpy.mean([draw["flip"] for draw in draws]) - 0.5) < 5 * sd
    for policy in range(25):
        of_policy = [draw for draw in draws if draw["policy"] == policy]
        assert abs(len(of_policy) / count - 1 / 25) < 5 * math.sqrt(0.04 / count)
        for i, op in enumerate(augment.policy[policy]):
            share = numpy.mean([draw["ops"][i][0] for draw in of_policy])
            assert abs(share - op.prob) <= 5 * math.sqrt(op.prob * (1 - op.prob) / len(of_policy)), (policy, op.name)
    random.seed(2)
    image = Image.new("RGB", (500, 375))
    theirs = numpy.array([crop.get_params(image, crop.scale, crop.ratio) for _ in range(count)])[:, [1, 0, 3, 2]]
    ours = numpy.array([draw["crop"] for draw in draws])
    for column in range(4):
        difference = abs(ours[:, column].mean() - theirs[:, column].mean())
        assert difference < 5 * (ours[:, column].std() + theirs[:, column].std()) / math.sqrt(count), column


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalize(tmp_path, channels_last):
    side = 48  # 2 * 48 * 48 pixels: each value of each channel is there
    pixels = numpy.stack([numpy.arange(2 * side * side) * (1 + 2 * c) + c for c in range(3)], -1).astype(numpy.uint8)
    pixels = pixels.reshape(2, side, side, 3)
    assert all(len(numpy.unique(pixels[..., c])) == 256 for c in range(3))
    pixels.tofile(tmp_path / "in")
    answer, = ask([{"op": "normalize", "file": str(tmp_path / "in"), "out": str(tmp_path / "out"), "resolution": side,
                    "channels_last": channels_last}])
    assert answer == {}
    original = Compose([ToTensor(), Normalize(MEAN, STD)])
    expected = torch.stack([original(Image.fromarray(image)) for image in pixels]).numpy()
    assert (numpy.fromfile(tmp_path / "out", numpy.float32).reshape(expected.shape) == expected).all()


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", __file__]))
