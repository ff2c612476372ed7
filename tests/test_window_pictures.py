"""Pictures on the cards of the window, and files that only look like pictures.

All files are made here, byte by byte, since no program would write most of them. What
comes from others may be anything: nothing of it may raise, freeze the window, or eat
the memory.
"""
import contextlib
import gc
import importlib.util
import io
import itertools
import struct
import sys
import time
import weakref
import zlib

import pytest

import ChattyCat_Client as client
from test_window import Desk

SECONDS = 0.5               # of processor time, for one picture
MEMORY = 64                 # MiB more than before; a picture of 2 megapixels is 8
CLOCK = itertools.count(1)


# ------------------------------------------------------------------------------ the PNG

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}   # grey, colours, palette; 4, 6: with alpha
SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The seven passes of an interlaced PNG: where each starts, and how large its steps are.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4),
          (1, 0, 2, 2), (0, 1, 1, 2))


def piece(kind, data):
    """A chunk of a PNG. Its length stands in front, and behind it a check sum."""
    return (struct.pack(">I", len(data)) + kind + data
            + struct.pack(">I", zlib.crc32(kind + data)))


def header(width, height, depth=8, kind=2, interlaced=0):
    return SIGNATURE + piece(b"IHDR", struct.pack(
        ">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))


def grey_rows(width, height, bits):
    """The rows of a picture, each with its filter (0: none) in front."""
    return (b"\0" + b"\x80" * -(-width * bits // 8)) * height if width else b""


def png(width, height, depth=8, kind=2, interlaced=0, extra=b"", rows=None):
    """A grey picture; `extra` are chunks between its header and its rows."""
    bits = CHANNELS.get(kind, 1) * depth
    if rows is None and interlaced:
        rows = b"".join(grey_rows(-(-(width - x) // dx), -(-(height - y) // dy), bits)
                        for x, y, dx, dy in PASSES if x < width and y < height)
    elif rows is None:
        rows = grey_rows(width, height, bits)
    return (header(width, height, depth, kind, interlaced) + extra
            + piece(b"IDAT", zlib.compress(rows, 1)) + piece(b"IEND", b""))


def zeros(mebibytes):
    """As many zeros, packed: a thousandth of it."""
    packer = zlib.compressobj()
    once = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return once + once[2:] * (mebibytes - 1)    # (the first two bytes are its header)


PALETTE = piece(b"PLTE", b"cat" * 200)


# ------------------------------------------------------------------------------ the GIF

# The first of four colours, 16 times, as nobody packs it: two codes of 3 bits, and
# before each two the one that empties the table (4), so that codes stay 3 bits long.
SIXTEEN = sum(code << 3 * place for place, code in enumerate([4, 0, 0] * 8)
              ).to_bytes(9, "little")


def blocks(data):
    """Data in blocks of at most 255 bytes, each with its length in front; 0: the end.
    """
    return b"".join(bytes([len(data[at:at + 255])]) + data[at:at + 255]
                    for at in range(0, len(data), 255)) + b"\0"


def frame(width, height, left=0, top=0, data=None):
    """One picture of a GIF. (`data` that ends too early costs us nothing to make.)"""
    if data is None:
        data = SIXTEEN * -(-width * height // 16) + b"\x05"
    return (b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02"
            + blocks(data))


def comment(size):
    return b"!\xfe" + blocks(b"x" * size)


def gif(width, height, *parts):
    """A GIF, whose screen has this size, and four colours."""
    return (b"GIF89a" + struct.pack("<HHBBB", width, height, 0x81, 0, 0)
            + b"\x20\x40\x60" * 4 + b"".join(parts) + b";")


# ------------------------------------------------------------------------- looked at

@pytest.fixture(scope="module")
def desk():
    """A window that is not connected, with a conversation in it."""
    desk = Desk()
    desk.window.login.frame.pack_forget()
    yield desk
    desk.close()


@pytest.fixture
def view(desk):
    """A conversation in it."""
    view = client.Messages(desk.root, desk.window.look, desk.chat)
    view.frame.pack(fill="both", expand=True)
    desk.root.update()
    yield view
    view.frame.destroy()


@contextlib.contextmanager
def cheap():
    """What happens here takes neither long nor much memory."""
    start = time.process_time()
    with bounded_memory():
        yield
    seconds = time.process_time() - start
    assert seconds < SECONDS, f"{seconds:.1f} s, in which nothing else is drawn"


@contextlib.contextmanager
def bounded_memory():
    """The most memory that this process ever has in here is not much more than now."""
    if not sys.platform.startswith("linux"):    # nobody else tells the most of a while
        yield
        return
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")                 # the most so far shall be what it is now
    before = most_memory()
    yield
    grown = most_memory() - before
    assert grown < MEMORY, f"it took {grown:.0f} MiB"


def most_memory():
    """In MiB (Linux: VmHWM, “high water mark”)."""
    with open("/proc/self/status") as file:
        words = next(line for line in file if line.startswith("VmHWM")).split()
    return int(words[1]) / 1024


@pytest.fixture
def look_at(desk, view, tmp_path):
    """A function that puts a file on a card of its own; returns the card.

    As if it had just been saved. The card is drawn on the screen, with all that its
    file costs.
    """
    def look(data, name="photo.png"):
        path = tmp_path / str(next(CLOCK))
        path.write_bytes(data)
        shared = client.SharedFile(name, len(data), "0" * 64, "f1", path=str(path))
        line = client.Line("file", name, "Tigrou", 3, file=shared)
        view.add([line])
        desk.until(lambda: line in view.cards)
        return view.cards[line]

    return look


def shown(card):
    """(width, height) of the picture on a card; None if there is none."""
    label = card.picture
    if not label.winfo_manager():
        return None
    name = label.cget("image")
    return (int(label.tk.call("image", "width", name)),
            int(label.tk.call("image", "height", name)))


def is_usable(card):
    """The card says what the file is, and can do with it what is done with files."""
    words = [button.cget("text") for button, _ in card.doors if button.winfo_manager()]
    return words == ["Open folder"] and "saved as" in card.about.cget("text")


@pytest.mark.parametrize("data, size", [
    (png(40, 30), (40, 30)), (png(1, 1), (1, 1)),
    (png(40, 30, depth=16), (40, 30)), (png(40, 30, kind=6), (40, 30)),
    (png(40, 30, depth=16, kind=6), (40, 30)), (png(40, 30, kind=4), (40, 30)),
    (png(41, 33, interlaced=1), (41, 33)), (png(5, 3, 1, 0, 1), (5, 3)),
    (png(40, 30, depth=1, kind=0), (40, 30)),
    (png(40, 30, kind=3, extra=PALETTE), (40, 30)),
    (png(360, 360), (360, 360)), (png(361, 360), (181, 180)),
    (png(1414, 1414), (354, 354)), (png(1414, 1414, 16, 6, 1), (354, 354)),
    (png(10, 60_000), (1, 360)), (png(60_000, 10), (360, 1)),
    (png(2_000_000, 1), (360, 1)), (png(1, 2_000_000), (1, 360)),
    (gif(40, 30, frame(40, 30)), (40, 30)), (gif(1, 1, frame(1, 1)), (1, 1)),
    (gif(40, 30, *[frame(40, 30)] * 50), (40, 30)),
    (gif(40, 30, comment(40_000), frame(40, 30)), (40, 30)),
    (gif(40, 30, *[comment(0)] * 20_000, frame(40, 30)), (40, 30)),
    (gif(1414, 1414, frame(1414, 1414)), (354, 354)),
], ids=[
    "a PNG", "one point", "16 bits", "alpha", "16 bits and alpha", "grey with alpha",
    "interlaced", "interlaced and tiny", "black and white", "palette", "wide enough",
    "a little wider", "2 megapixels", "2 megapixels of the worst kind", "tall", "wide",
    "one line", "one column", "a GIF", "a GIF of one point", "animated",
    "a long comment", "many comments", "a GIF of 2 megapixels"])
def test_pictures_are_shown_small_enough(look_at, data, size):
    with cheap():
        card = look_at(data)
    assert shown(card) == size
    assert is_usable(card)


HUGE = (50_000, 50_000)
BOMB = zeros(4000)


@pytest.mark.parametrize("data", [
    header(*HUGE), png(*HUGE, rows=b""), png(2**31, 2**31, rows=b""),
    png(2**32 - 1, 1, rows=b""), png(1415, 1415, rows=b""), png(0, 5, rows=b""),
    header(5, 5) + png(*HUGE, rows=b"")[8:],
    header(5, 5) + piece(b"IDAT", BOMB) + piece(b"IEND", b""),
    png(5, 5, extra=piece(b"tEXt", b"x" * client.PICTURE_BYTES)),
    header(5, 5) + struct.pack(">I", 2**31 - 1) + b"IDAT" + b"x" * 99,
    png(40, 30, kind=3), png(40, 30, rows=b"\xff" * 9999),
    gif(*HUGE, frame(*HUGE, data=b"")), gif(10, 10, frame(*HUGE, data=b"")),
    gif(0, 0, frame(*HUGE, data=b"")), gif(0, 0, frame(0, 0)),
    gif(10, 10, b"\0\0", frame(*HUGE, data=b"")), gif(10, 10),
    gif(10, 10, comment(70_000), frame(*HUGE, data=b"")),
    b"", b"Hello, I am a picture.\n", b"P6 50000 50000 255\n", b"\n" * 4_000_000,
    b"#!/bin/sh\n", SIGNATURE, b"GIF89a",
], ids=[
    "only a header", "huge", "negative", "one endless line", "2 megapixels and more",
    "nothing wide", "two headers", "a bomb", "5 MB and more", "a chunk without an end",
    "no palette", "bad rows", "a huge GIF", "huge inside",
    "huge inside of nothing", "a GIF of nothing", "huge behind something unknown",
    "a GIF without a picture", "huge behind a long comment", "empty", "text", "a PPM",
    "newlines", "a program", "only the PNG's signature", "only the GIF's signature"])
def test_what_is_no_picture_to_be_shown_is_a_file_like_any_other(look_at, data):
    with cheap():
        card = look_at(data)
    assert shown(card) is None
    assert is_usable(card)


@pytest.mark.parametrize("data", [
    png(5, 5, extra=piece(b"zTXt", b"x\0\0" + BOMB)),
    png(5, 5, extra=piece(b"tEXt", b"") * 300_000),
    gif(10, 10, frame(10, 10), *[frame(*HUGE, data=b"")] * 1000),
    gif(10, 10, frame(10, 10, *HUGE)), gif(10, 10, frame(1400, 1400)),
    gif(10, 10, frame(0, 0)), gif(1400, 1400, frame(1400, 1400, data=b"\x44")),
    gif(10, 10, frame(10, 10).replace(b"\x02", b"\xff")),
    gif(0, 0, frame(40, 30)), png(40, 30, rows=b"\0"),
], ids=["a bomb that is text", "many chunks", "huge further behind", "far outside",
        "larger than its screen", "nothing inside", "only its begin", "odd codes",
        "no screen", "no rows"])
def test_odd_pictures_are_shown_or_not_but_harm_nobody(look_at, data):
    with cheap():
        card = look_at(data)
    assert shown(card) is None or max(shown(card)) <= 360
    assert is_usable(card)


def test_a_gif_that_is_larger_inside_is_shown_as_large_as_it_becomes(look_at):
    assert shown(look_at(gif(100, 80, frame(1400, 1400)))) == (100, 80)


def test_a_name_says_nothing(look_at):
    """Whether it is a picture stands in its bytes."""
    assert shown(look_at(gif(40, 30, frame(40, 30)), "photo.jpeg")) == (40, 30)
    assert shown(look_at(png(40, 30), "essay.txt")) == (40, 30)


# ---------------------------------------------------------------- one after the other

class Many:
    """Files by the hundred, on one card."""

    def __init__(self, look_at, tmp_path):
        self.card, self.folder = look_at(b""), tmp_path / "many"
        self.folder.mkdir()

    def shows(self, data):
        """Draw the card with this file; return whether it shows a picture."""
        path = self.folder / str(next(CLOCK))
        path.write_bytes(data)
        self.card.picture.grid_forget()
        self.card.line.file.path = str(path)
        self.card.draw()
        path.unlink()
        return shown(self.card) is not None


@pytest.fixture
def many(look_at, tmp_path):
    return Many(look_at, tmp_path)


def test_a_png_that_is_cut_off_anywhere(many):
    whole = png(40, 30, kind=3, extra=PALETTE + piece(b"tRNS", b"\1\2\3"))
    assert [at for at in range(len(whole)) if many.shows(whole[:at])] == []
    assert many.shows(whole) and is_usable(many.card)


def test_a_gif_that_is_cut_off_anywhere(many):
    whole = gif(20, 10, b"!\xf9\4\0\0\0\0\0", comment(30), frame(20, 10), frame(20, 10))
    first = whole.index(b",")
    assert not any([many.shows(whole[:at]) for at in range(first + 9)])
    # From then on Tk shows as much of it as there is; whether it does is its affair.
    for at in range(first + 9, len(whole)):
        many.shows(whole[:at])
    assert many.shows(whole) and is_usable(many.card)


def test_headers_of_every_kind(many):
    """Those that nobody has agreed upon, too."""
    with cheap():
        kinds = [kind for kind in itertools.product(range(18), range(8), (0, 1, 2))
                 if many.shows(png(5, 3, *kind, extra=PALETTE * (kind[1] == 3)))]
    assert {depth for depth, *_ in kinds} == {1, 2, 4, 8, 16}
    assert {kind for _, kind, _ in kinds} == {0, 2, 3, 4, 6}
    assert {interlaced for *_, interlaced in kinds} == {0, 1}


def test_every_byte_of_a_gif_may_be_another_one(many):
    whole = gif(20, 10, b"!\xf9\4\0\0\0\0\0", comment(3), frame(20, 10))
    with bounded_memory():
        for at in range(len(whole)):
            for byte in (0x00, 0x21, 0x2c, 0x80, 0xff):
                many.shows(whole[:at] + bytes([byte]) + whole[at + 1:])
    assert many.shows(whole) and is_usable(many.card)


def test_a_file_that_is_gone_is_no_picture(look_at, tmp_path):
    card = look_at(b"")
    for path in (tmp_path / "gone.png", tmp_path):      # a folder: neither
        card.line.file.path = str(path)
        card.draw()
        assert shown(card) is None
    assert is_usable(card)


# ----------------------------------------------------------------------- what remains

def test_a_picture_goes_with_its_card(look_at, desk, view):
    """At once, and not when Python looks for what is not used any more: that happens
    in any thread, and a picture that another one throws away stalls Tk for 1 s."""
    picture = weakref.ref(look_at(png(40, 30)).image)
    gc.disable()
    try:
        view.text.config(state="normal")
        view.text.delete("1.0", "end")
        desk.root.update()
        assert not view.cards and picture() is None
    finally:
        gc.enable()


# ------------------------------------------------------------------------------- Pillow

def with_pillow(test):
    """A test that wants Pillow, which few have: only with --long, and if it is there.
    """
    there = importlib.util.find_spec("PIL")
    return pytest.mark.long(pytest.mark.skipif(
        not there, reason="Pillow is not installed")(test))


def saved_by_pillow(kind, width=400, height=300, **how):
    """A picture of the kinds that Tk cannot read."""
    from PIL import Image
    data = io.BytesIO()
    Image.new("RGB", (width, height), "#4070A0").save(data, kind, **how)
    return data.getvalue()


def test_without_pillow_a_jpeg_is_a_file_like_any_other(look_at, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)       # `import PIL` does not find it
    card = look_at(b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(1000), "photo.jpeg")
    assert shown(card) is None
    assert is_usable(card)


@with_pillow
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP"])
def test_with_pillow_others_are_shown_too(look_at, kind):
    data = saved_by_pillow(kind)
    with cheap():
        assert shown(look_at(data)) == (360, 270)
    assert shown(look_at(saved_by_pillow(kind, 1500, 1500))) is None


@with_pillow
def test_with_pillow_photos_of_a_telephone_stand_upright(look_at):
    """It takes them lying, and writes down how it was held (EXIF, 6: a quarter turn).
    """
    from PIL import Image
    held = Image.Exif()
    held[0x0112] = 6
    assert shown(look_at(saved_by_pillow("JPEG", exif=held))) == (270, 360)


@with_pillow
@pytest.mark.parametrize("kind", ["TIFF", "PPM", "ICO", "PDF", "EPS"])
def test_with_pillow_what_nobody_needs_is_not_read(look_at, kind):
    assert shown(look_at(saved_by_pillow(kind, 64, 64))) is None


@with_pillow
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP"])
def test_with_pillow_what_is_cut_off_is_not_shown(many, kind):
    whole = saved_by_pillow(kind, 40, 30)
    assert not any([many.shows(whole[:at]) for at in range(len(whole) - 10)])
    assert many.shows(whole)


@with_pillow
def test_with_pillow_a_jpeg_that_never_ends(look_at):
    """Drawn in 20,000 passes over the whole picture, each of which costs 30 bytes."""
    data = saved_by_pillow("JPEG", 1400, 1400, progressive=True)
    passes = [at for at in range(len(data)) if data[at:at + 2] == b"\xff\xda"]
    once = data[passes[1]:passes[2]]
    with cheap():
        card = look_at(data[:passes[2]] + once * 20_000 + data[passes[2]:])
    assert is_usable(card)
