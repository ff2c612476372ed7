"""Files in the window: the cards, their buttons, the dialogs, and pictures in the chat.

Who is on the other side speaks the protocol by hand (parcels.py). Whether a file is
whole, whatever the server sends, test_hostile_files.py asks; here somebody sits before
the screen, and clicks.
"""
import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import ChattyCat_Client as client
from bad_network import BadNetwork
from parcels import digest, fetch, offer_line, send_file, some_bytes, tree
from people import COMINGS, Person
from screen import wait_until, why_no_screen, xdotool
from test_window import (click, close_well, colour_pairs, contrast, minou, open_client,
                         open_window, stopped)
from test_window_pictures import lateness, png

FIXTURES = (minou, open_client, open_window)
KIB, MIB = 2**10, 2**20
BEFORE = (*COMINGS, "chat")
from_outside = pytest.mark.skipif(bool(why_no_screen()), reason=why_no_screen())
posix = pytest.mark.skipif(os.name == "nt", reason="Windows cannot stop a process")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The home of who sits before the window. Nothing half is left there, or anywhere.
    """
    folder, temporary = tmp_path / "home", tmp_path / "tmp"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))   # not ours
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder))
    # Where pictures are kept that are only shown. (Python remembers which it is.)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    yield folder
    assert [name for name in tree(folder) if name.endswith(".part")] == []


@pytest.fixture
def enter(open_window):
    """A function that opens the window in this process, and waits until one is in."""
    def come(server, *options):
        desk = open_window("--port", server.port, "--name", "Minou", *options)
        desk.until(desk.inside)
        return desk
    return come


@contextlib.contextmanager
def slow(server, delay=60):
    """A network that lets some 64 KiB pass every `delay` ms, in each direction."""
    with BadNetwork((server.host, server.port), delay=delay, seed=7) as network:
        yield network


# ----------------------------------------------------------------------- what is to see

def cards(desk):
    """{name of the file: its card} of what is in sight; the newest, if there are two.
    """
    view = desk.window.views[desk.chat.current]
    return {line.file.name: view.cards[line] for line in view.drawn
            if line in view.cards}


class Seen:
    """What somebody sees of a file's card, and what they do with it.

    When a receipt comes, a card may be drawn anew further down: so it is looked for by
    its name, again and again.
    """

    def __init__(self, desk, name):
        self.desk, self.file_name = desk, name
        desk.until(lambda: name in cards(desk))

    @property
    def card(self):
        self.desk.until(lambda: self.file_name in cards(self.desk))
        return cards(self.desk)[self.file_name]

    @property
    def text(self):
        return self.card.about.cget("text")

    @property
    def colour(self):
        return self.card.about.cget("fg")

    @property
    def words(self):
        """Those on its buttons."""
        card = self.card
        return [button.cget("text") for button, _ in card.doors
                if button.winfo_manager() and card.buttons.winfo_manager()]

    @property
    def percent(self):
        """How far it is; None if there is no bar."""
        found = re.search(r"(\d+) %", self.text)
        return int(found[1]) if found and self.is_moving else None

    @property
    def is_moving(self):
        return bool(self.card.bar.winfo_manager())

    @property
    def has_picture(self):
        return bool(self.card.picture.winfo_manager())

    def button(self, text):
        def found():
            return next(button for button, _ in self.card.doors
                        if button.cget("text") == text)

        self.desk.until(lambda: found().winfo_ismapped())
        return found()

    def press(self, text):
        """A click with the mouse."""
        click(self.desk, self.button(text))


def expect(desk, person, kind, **fields):
    """What comes to somebody, while the window lives."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(person.expect, kind, skip=BEFORE, limit=10, **fields)
        desk.until(coming.done, limit=12)
        return coming.result()


def sent(desk, path):
    """Send a file by its command; return its card."""
    desk.say(f"/file {path}")
    return Seen(desk, os.path.basename(path))


def make(folder, name, data=b"Meow!"):
    path = folder / name
    path.write_bytes(data)
    return path


def size_in(folder):
    return sum(tree(folder).values())


# ----------------------------------------------------------------------------- its card

def test_a_file_of_somebody_is_saved_by_a_click(minou, home, join):
    tigrou = join("Tigrou")
    send_file(tigrou, b"Woof!" * 1000, "essay.txt")
    card = Seen(minou, "essay.txt")
    assert "4.9 KiB" in card.text and card.words == ["Save", "Save as…"]
    assert card.percent is None and "●\tTigrou" in minou.shown()
    card.press("Save")
    minou.until(lambda: "saved as essay.txt" in card.text)
    assert (home / "Downloads" / "essay.txt").read_bytes() == b"Woof!" * 1000
    assert card.words == ["Open folder"] and card.percent is None
    minou.types_into(minou.box)


@pytest.mark.long
def test_saved_beside_what_is_there(minou, home, join):
    tigrou = join("Tigrou")
    (home / "Downloads").mkdir()
    old = make(home / "Downloads", "a.txt", b"old")
    send_file(tigrou, b"new", "a.txt")
    card = Seen(minou, "a.txt")
    card.press("Save")
    minou.until(lambda: "saved as a (1).txt" in card.text)
    assert old.read_bytes() == b"old"
    assert (home / "Downloads" / "a (1).txt").read_bytes() == b"new"


def test_by_keyboard(minou, home, join):
    send_file(join("Tigrou"), b"Woof!", "essay.txt")
    card = Seen(minou, "essay.txt")
    minou.press(card.button("Save"), "<Return>")
    minou.until(lambda: "saved as essay.txt" in card.text)


def test_a_file_of_ours(minou, home, join):
    tigrou = join("Tigrou")
    minou.until(lambda: minou.chat.count == 2)
    card = sent(minou, make(home, "mine.txt", b"Meow!" * 99))
    line = expect(minou, tigrou, "file", name="mine.txt", from_="Minou")
    assert fetch(tigrou, line) == b"Meow!" * 99
    minou.until(lambda: card.percent is None)
    minou.until(lambda: not minou.chat.unconfirmed)
    assert "495 bytes" in card.text and "Cancel" not in card.words
    assert "Try again" not in card.words and minou.shown().count("●\tMinou") == 1


@pytest.mark.long
def test_to_one_alone(minou, home, join):
    tigrou, felix = join("Tigrou"), join("Félix")
    minou.until(lambda: minou.chat.count == 3)
    minou.click_on("Tigrou")
    sent(minou, make(home, "secret.txt"))
    expect(minou, tigrou, "file", name="secret.txt", to="Tigrou")
    send_file(tigrou, b"Woof!", "answer.txt", to="Minou")
    Seen(minou, "answer.txt")
    minou.click_on(None)
    assert cards(minou) == {}
    felix.send({"type": "list"})
    felix.expect("people", skip=COMINGS)        # and no file


NAMES = ["a" * 251 + ".txt", "w" * 60, "…", "😀🐈.txt", "a\u0301b.txt", "مرحبا.txt",
         "%s {x} $y", "[exit]", "-text", "}{"]


@pytest.mark.long
def test_names(minou, home, join):
    tigrou = join("Tigrou")
    for number, name in enumerate(NAMES, 1):
        send_file(tigrou, b"Woof!", name)
        card = Seen(minou, name)
        assert card.card.frame.winfo_width() < minou.window.look.px(460)
        card.press("Save")
        minou.until(lambda: card.words == ["Open folder"])
        assert list(tree(home / "Downloads").values()) == [5] * number


def test_what_is_gone_from_the_server(start_server, enter, home, join):
    server = start_server("--rate", 0, console=True)
    tigrou = join("Tigrou", server)
    minou = enter(server)
    send_file(tigrou, b"Woof!", "gone.txt")
    card = Seen(minou, "gone.txt")
    server.type_line("/remove 1")
    server.wait_for_line("(?i)removed|gone")
    card.press("Save")
    minou.until(lambda: "\n" in card.text)
    assert card.colour == minou.colour("danger")
    assert not tree(home) and "Save" in card.words


@pytest.mark.long
def test_a_place_where_nothing_can_be_saved(minou, home, join):
    make(home, "Downloads", b"this is a file, and no folder")
    send_file(join("Tigrou"), b"Woof!", "essay.txt")
    card = Seen(minou, "essay.txt")
    card.press("Save")
    minou.until(lambda: "\n" in card.text)
    (home / "Downloads").unlink()
    card.press("Save")
    minou.until(lambda: card.words == ["Open folder"])
    assert "\n" not in card.text and card.colour == minou.colour("muted")


def test_the_folder_is_opened_and_not_the_file(minou, home, join, monkeypatch):
    """Its program gets the folder's name and nothing else; if there is one."""
    send_file(join("Tigrou"), b"Woof!", "essay.sh")
    card = Seen(minou, "essay.sh")
    card.press("Save")
    minou.until(lambda: card.words == ["Open folder"])
    programs, told = home / "bin", home / "told"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    card.press("Open folder")
    minou.until(lambda: str(home / "Downloads") in minou.shown())   # says where it is
    if not sys.platform.startswith("linux"):
        return
    opener = make(programs, "xdg-open", b'#!/bin/sh\necho "$@" > "$HOME/told"\n')
    opener.chmod(0o755)
    card.press("Open folder")
    minou.until(lambda: told.exists() and told.read_text())
    assert told.read_text() == f"{home / 'Downloads'}\n"


# ------------------------------------------------------------------------ on its way

def test_progress_cancel_and_once_more(start_server, enter, home, join):
    server = start_server("--rate", 0)
    tigrou = join("Tigrou", server)
    data = some_bytes(2 * MIB)
    send_file(tigrou, data, "big.bin")
    with slow(server) as network:
        minou = enter(network)
        card = Seen(minou, "big.bin")
        card.press("Save")
        minou.until(lambda: (card.percent or 0) >= 10)
        assert card.words == ["Cancel"]
        assert " of 2.0 MiB" in card.text and "/s" in card.text and "left" in card.text
        seen = [card.percent]
        while seen[-1] < 20:
            minou.until(lambda: card.percent != seen[-1])
            seen.append(card.percent)
        assert seen == sorted(seen)
        bar, share = card.card.bar, card.card.share     # and so far is the bar, too
        minou.until(lambda: abs(100 * share.winfo_width() / bar.winfo_width()
                                - card.percent) < 2)
        card.press("Cancel")
        minou.until(lambda: card.words == ["Save", "Save as…"])
        assert card.percent is None and "Cancelled" in card.text
        assert not tree(home), "the half of it is not left behind"
        network.delay = 0
        card.press("Save")
        minou.until(lambda: card.words == ["Open folder"])
    assert (home / "Downloads" / "big.bin").read_bytes() == data


@pytest.mark.long
def test_an_upload_is_cancelled_and_sent_again(start_server, enter, home, join,
                                               tmp_path):
    server = start_server("--rate", 0, "--files", tmp_path / "files")
    tigrou = join("Tigrou", server)
    data = some_bytes(2 * MIB)
    with slow(server) as network:
        minou = enter(network)
        card = sent(minou, make(home, "big.bin", data))
        minou.until(lambda: (card.percent or 0) >= 10)
        card.press("Cancel")
        minou.until(lambda: "Try again" in card.words)
        assert card.percent is None and "Cancelled" in card.text
        network.delay = 0
        wait_until(lambda: size_in(tmp_path / "files") == 0)
        card.press("Try again")
        line = expect(minou, tigrou, "file", size=len(data))
        assert line["sha256"] == digest(data)
        minou.until(lambda: "Try again" not in card.words and card.percent is None)
        assert "Cancelled" not in card.text
    assert len(cards(minou)) == 1


def test_refused_and_tried_again(start_server, enter, home, join):
    server = start_server(console=True)
    tigrou = join("Tigrou", server)
    minou = enter(server)
    server.type_line("/mute Minou")
    server.wait_for_line("can only read")
    one, two = (sent(minou, make(home, name)) for name in ("one.txt", "two.txt"))
    for card in (one, two):
        minou.until(lambda: "Try again" in card.words)
        assert "\n" in card.text and card.colour == minou.colour("danger")
    server.type_line("/mute Minou 0")
    server.wait_for_line("can write again")
    one.press("Try again")
    expect(minou, tigrou, "file", name="one.txt")
    minou.until(lambda: "Try again" not in one.words)
    minou.until(lambda: "\n" not in one.text)


@pytest.mark.long
def test_only_the_one_that_was_clicked_is_tried_again(start_server, enter, home, join):
    """Two have failed; who clicks on the second does not send the first."""
    server = start_server(console=True)
    tigrou = join("Tigrou", server)
    minou = enter(server)
    server.type_line("/mute Minou")
    server.wait_for_line("can only read")
    one, two = (sent(minou, make(home, name)) for name in ("one.txt", "two.txt"))
    minou.until(lambda: "Try again" in one.words and "Try again" in two.words)
    server.type_line("/mute Minou 0")
    server.wait_for_line("can write again")
    two.press("Try again")
    expect(minou, tigrou, "file", name="two.txt")
    tigrou.send({"type": "list"})
    tigrou.expect("people", skip=COMINGS)
    assert "Try again" in one.words


def test_chosen_while_cut_off_and_sent_after_it(start_server, enter, home, join):
    server = start_server("--rate", 0)
    tigrou = join("Tigrou", server)
    minou = enter(server)
    minou.chat.connection.sock.shutdown(2)
    minou.until(minou.banner)
    card = sent(minou, make(home, "late.txt"))
    assert "Cancel" in card.words
    minou.window.header.retry.invoke()
    expect(minou, tigrou, "file", name="late.txt")
    minou.until(lambda: card.percent is None)


@pytest.mark.parametrize("way", [
    "up", pytest.param("down", marks=pytest.mark.long)])
def test_it_goes_on_where_it_broke(start_server, enter, home, join, way):
    server = start_server("--rate", 0)
    tigrou = join("Tigrou", server)
    data = some_bytes(2 * MIB)
    with slow(server) as network:
        minou = enter(network)
        if way == "up":
            card = sent(minou, make(home, "big.bin", data))
        else:
            send_file(tigrou, data, "big.bin")
            card = Seen(minou, "big.bin")
            card.press("Save")
        minou.until(lambda: (card.percent or 0) >= 40)
        minou.chat.connection.sock.shutdown(2)
        minou.until(minou.banner)
        before = card.percent
        assert card.words == ["Cancel"]
        minou.window.header.retry.invoke()
        network.delay, after = 10, [before]
        while card.is_moving:
            minou.until(lambda: card.percent != after[-1])
            after.append(card.percent)
    # Of what was on its way some has to come again, but not all of it.
    assert min(share for share in after if share is not None) >= 25, after
    if way == "up":
        assert expect(minou, tigrou, "file", size=len(data))["sha256"] == digest(data)
    else:
        assert (home / "Downloads" / "big.bin").read_bytes() == data


@pytest.mark.long
@posix
def test_the_server_is_gone_for_good_in_the_middle(start_server, enter, home, join):
    server = start_server("--rate", 0)
    tigrou = join("Tigrou", server)
    send_file(tigrou, some_bytes(2 * MIB), "big.bin")
    with slow(server) as network:
        minou = enter(network)
        down = Seen(minou, "big.bin")
        down.press("Save")
        up = sent(minou, make(home, "mine.bin", some_bytes(2 * MIB)))
        minou.until(lambda: up.percent and down.percent)
        server.kill()
        minou.until(minou.banner)
        other = start_server("--rate", 0)       # which knows nothing of all this
        network.target, network.delay = (other.host, other.port), 0
        felix = join("Félix", other)
        minou.window.header.retry.invoke()
        minou.until(lambda: not minou.banner())
        expect(minou, felix, "file", name="mine.bin")
        minou.until(lambda: down.percent is None)
        assert "\n" in down.text, "why it could not be saved"
    assert tree(home) == {"mine.bin": 2 * MIB}


@pytest.mark.long
def test_another_server_in_the_middle(start_server, enter, home, join):
    server, other = start_server("--rate", 0), start_server("--rate", 0)
    tigrou, felix = join("Tigrou", server), join("Félix", other)
    send_file(tigrou, some_bytes(2 * MIB), "big.bin")
    with slow(server) as network:
        minou = enter(network)
        Seen(minou, "big.bin").press("Save")
        sent(minou, make(home, "mine.bin", some_bytes(2 * MIB)))
        minou.until(lambda: Seen(minou, "mine.bin").percent)
        minou.say(f"/connect 127.0.0.1:{other.port}")
        minou.until(lambda: minou.chat.server == ("127.0.0.1", other.port))
        minou.until(lambda: not list(home.rglob("*.part")))
        felix.expect("joined")
        sent(minou, make(home, "other.txt"))
        expect(minou, felix, "file", name="other.txt")
    assert [name for name in cards(minou)] == ["other.txt"]


# ----------------------------------------------------------------------------- pictures

def red(width, height):
    """A red PNG."""
    return png(width, height, rows=(b"\0" + b"\xff\x00\x00" * width) * height)


def pixel(x, y):
    """The colour of a point of the screen, as a person would see it.

    By a program that is rarely there: who asks this is a test only for --long.
    """
    if not shutil.which("import"):
        pytest.skip("ImageMagick's `import` is not installed")
    return tuple(subprocess.run(
        ["import", "-silent", "-window", "root", "-crop", f"1x1+{x}+{y}", "-depth", "8",
         "rgb:-"], stdout=subprocess.PIPE, check=True, timeout=20).stdout)


def test_a_picture_comes_by_itself(minou, home, join):
    send_file(join("Tigrou"), red(200, 100), "photo.png")
    card = Seen(minou, "photo.png")
    minou.until(lambda: card.has_picture)
    assert card.card.image.get(190, 90) == (255, 0, 0)
    assert not tree(home), "nobody has saved it"
    assert card.words == ["Save", "Save as…"]
    card.press("Save")
    minou.until(lambda: card.words == ["Open folder"])
    assert (home / "Downloads" / "photo.png").read_bytes() == red(200, 100)
    assert card.has_picture


@from_outside
@pytest.mark.long
def test_a_picture_is_seen(minou, home, join):
    send_file(join("Tigrou"), red(200, 100), "photo.png")
    minou.root.lift()
    card = Seen(minou, "photo.png")
    minou.until(lambda: card.has_picture and card.card.picture.winfo_ismapped())
    minou.root.update()
    picture = card.card.picture
    x, y = picture.winfo_rootx(), picture.winfo_rooty()
    wait_until(lambda: minou.root.update() or pixel(x + 190, y + 90) == (255, 0, 0))
    assert pixel(x + 5, y + 5) == (255, 0, 0) != pixel(x + 5, y - 4)


@pytest.mark.long
def test_pictures_go_with_the_window(minou, home, tmp_path, join):
    send_file(join("Tigrou"), red(20, 10), "photo.png")
    minou.until(lambda: Seen(minou, "photo.png").has_picture)
    [path] = tree(tmp_path / "tmp")
    assert path.startswith("chattycat-pictures-")
    if os.name != "nt":
        assert (tmp_path / "tmp" / path).parent.stat().st_mode & 0o077 == 0
    minou.close()
    assert not os.listdir(tmp_path / "tmp")


NO_PICTURES = {
    "cut off.png": red(20, 10)[:60], "text.gif": b"Hello", "empty.png": b"",
    "huge.png": png(50_000, 50_000, rows=b""), "its first bytes.png": red(20, 10)[:20],
    "six bytes.gif": b"GIF89a", "something else.gif": red(20, 10)[1:]}


@pytest.mark.long
def test_what_only_says_that_it_is_a_picture(minou, home, join):
    tigrou = join("Tigrou")
    for name, data in NO_PICTURES.items():
        send_file(tigrou, data, name)
        card = Seen(minou, name)
        tigrou.say(f"Have you seen {name}?")
        minou.until(lambda: f"Have you seen {name}?" in minou.shown())
        minou.until(lambda: card.words == ["Save", "Save as…"])
        # What does not begin as a picture is not even tried.
        tried = data.startswith((b"\x89PNG", b"GIF8"))
        minou.until(lambda: ("no picture that can be shown" in card.text) == tried)
        assert not card.has_picture
        card.press("Save")
        minou.until(lambda: card.words == ["Open folder"])
        assert (home / "Downloads" / name).read_bytes() == data


def test_what_nobody_looks_at_is_not_fetched(minou, tmp_path, home, join):
    tigrou = join("Tigrou")
    minou.until(lambda: minou.chat.count == 2)
    send_file(tigrou, red(20, 10), "private.png", to="Minou")
    minou.until(lambda: minou.row("Tigrou") == ["T", "Tigrou", "1"])
    # What is for all comes later, and is here: the first one was not asked for.
    send_file(tigrou, red(10, 20), "public.png")
    minou.until(lambda: Seen(minou, "public.png").has_picture)
    assert list(tree(tmp_path / "tmp").values()) == [len(red(10, 20))]
    minou.click_on("Tigrou")
    minou.until(lambda: Seen(minou, "private.png").has_picture)


@pytest.mark.long
def test_pictures_too_large_to_come_by_themselves(minou, tmp_path, home, join):
    big = red(20, 10) + b"x" * client.PICTURE_BYTES     # what is behind its end is free
    tigrou = join("Tigrou")
    send_file(tigrou, big, "big.png", limit=20)
    send_file(tigrou, red(10, 20), "small.png")
    minou.until(lambda: Seen(minou, "small.png").has_picture)
    assert not Seen(minou, "big.png").has_picture
    assert list(tree(tmp_path / "tmp").values()) == [len(red(10, 20))]


def test_ours_is_shown_as_well(minou, home, join):
    """From where it lies here: nothing is fetched for that."""
    card = sent(minou, make(home, "mine.png", red(30, 20)))
    minou.until(lambda: card.has_picture)
    minou.until(lambda: not minou.chat.unconfirmed)


def test_a_picture_moves_nobody_away_from_where_they_read(minou, home, join):
    tigrou = join("Tigrou")
    for number in range(60):
        tigrou.say(f"Line {number}")
    minou.until(lambda: "Line 59" in minou.shown())
    send_file(tigrou, red(200, 300), "one.png")
    minou.until(lambda: Seen(minou, "one.png").has_picture)
    minou.until(lambda: minou.view().yview()[1] == 1.0)
    minou.press(minou.box, "<Prior>", "<Prior>")
    top = minou.view().index("@0,0")
    send_file(tigrou, red(200, 300), "two.png")
    tigrou.say("And a line")
    minou.until(lambda: "And a line" in minou.shown())
    assert minou.view().index("@0,0") == top
    minou.press(minou.box, "<Escape>")
    minou.until(lambda: Seen(minou, "two.png").has_picture)
    minou.until(lambda: minou.view().yview()[1] == 1.0)


def test_the_wheel_turns_over_a_card_too(minou, home, join):
    tigrou = join("Tigrou")
    for number in range(20):
        tigrou.say(f"Line {number}\n" * 5)
    send_file(tigrou, red(200, 200), "photo.png")
    card = Seen(minou, "photo.png")
    minou.until(lambda: card.has_picture and minou.view().yview()[1] == 1.0)
    card = card.card
    for widget in (card.frame, card.picture, card.name, card.about):
        before = minou.view().yview()
        widget.event_generate("<Button-4>")
        widget.event_generate("<MouseWheel>", delta=120)
        minou.until(lambda: minou.view().yview()[0] < before[0])


# -------------------------------------------------------------------- in their order

def order(view):
    """What stands in a conversation: its lines, and of each card which file it is."""
    names = {str(card.frame): str(line.file) for line, card in view.cards.items()}
    return "".join(
        value if kind == "text" else names.get(value, value) for kind, value, _ in
        view.text.dump("1.0", "end-1c", text=True, window=True)).splitlines()


@posix
def test_our_files_stand_where_the_others_have_them(minou, server, home, join):
    tigrou = join("Tigrou")
    for number in range(6):
        with stopped(server):           # so many lines wait, and meet in any order
            for line in range(number % 3):
                tigrou.send({"type": "chat", "text": f"Tigrou {number}.{line}"})
            minou.say(f"Minou {number}")
            sent(minou, make(home, f"{number}.txt", b"x" * number))
            tigrou.send(offer_line(b"", f"empty {number}.txt"))
            tigrou.send({"type": "chat", "text": f"The end of {number}"})
        minou.until(lambda: f"The end of {number}" in minou.shown())
        minou.until(lambda: not minou.chat.unconfirmed)
        minou.until(lambda: not minou.chat.moving)
    tigrou.send({"type": "list"})
    came = []
    while (message := tigrou.read())["type"] != "people":
        came.append(message.get("name") or message.get("text"))
    told = [line.file.name if line.file else line.text
            for line in minou.chat.everyone.lines if line.kind in ("chat", "file")]
    assert told == [word for word in came if word in told] and len(told) > 20
    fresh = client.Messages(minou.window.main, minou.window.look, minou.chat,
                            minou.chat.everyone)
    fresh.add(minou.chat.everyone.lines)
    view = minou.window.views[minou.chat.everyone]
    assert list(view.drawn) == list(minou.chat.everyone.lines)
    view.frame.pack_forget()
    fresh.frame.pack(fill="both", expand=True)
    minou.until(lambda: order(view) == order(fresh))
    assert [line for line in order(view) if line.endswith(" bytes)")]


@pytest.mark.parametrize("name, data", [
    ("{}.png", red(64, 48)), pytest.param("{}.txt", b"x", marks=pytest.mark.long)],
    ids=["pictures", "texts"])
def test_five_hundred_files_at_once(start_server, enter, home, join, name, data):
    server = start_server("--rate", 0)
    tigrou = join("Tigrou", server)
    minou = enter(server)
    tries = []
    for attempt in range(3):                # others use this computer too
        minou.chat.connection.sock.shutdown(2)
        minou.until(minou.banner)
        for number in range(500):
            send_file(tigrou, data, name.format(f"{attempt}.{number}"))
        last = name.format(f"{attempt}.499")
        minou.window.header.retry.invoke()
        tries.append(lateness(minou, lambda: last in cards(minou)
                              and not minou.chat.moving))
        if tries[-1] <= 50:
            break
    print("\n500 files at once: a 10 ms timer is late by "
          + ", ".join(f"{late:.0f} ms" for late in tries) + " (p99)")
    assert min(tries) <= 50
    assert len(minou.chat.shared) == 500 * len(tries)
    assert len(cards(minou)) < 100, "only what is seen is a card"
    minou.window.views[minou.chat.current].bar_moved("moveto", 0)
    Seen(minou, name.format("0.0"))


@pytest.mark.long
def test_all_five_hundred_are_looked_at(start_server, enter, home, join):
    server = start_server("--rate", 0)
    tigrou = join("Tigrou", server)
    minou = enter(server)
    for number in range(500):
        send_file(tigrou, red(640, 480), f"{number}.png")
    minou.until(lambda: "499.png" in cards(minou), limit=30)
    while minou.view().yview()[0] > 0:
        minou.press(minou.box, "<Prior>")
        minou.until(lambda: not minou.chat.moving)
    minou.until(lambda: Seen(minou, "0.png").has_picture)


# ------------------------------------------------------------------------ how it looks

@pytest.fixture
def dense(request, monkeypatch, open_window):
    """A screen with so many dots per inch."""
    real = client.open_root

    def open_root():
        root, why = real()
        if root is not None:
            before = root.tk.call("tk", "scaling")
            root.tk.call("tk", "scaling", request.param / 72)
            # It belongs to the screen, and so to all windows after this one.
            request.addfinalizer(lambda: root.tk.call("tk", "scaling", before))
        return root, why

    monkeypatch.setattr(client, "open_root", open_root)
    return request.param


@pytest.mark.parametrize("theme, dense", [
    ("light", 96), ("dark", 192), pytest.param("light", 192, marks=pytest.mark.long),
    pytest.param("dark", 96, marks=pytest.mark.long)], indirect=["dense"])
def test_light_and_dark_on_any_screen(start_server, enter, home, join, theme, dense):
    server = start_server("--rate", 0)
    tigrou = join("Tigrou", server)
    with slow(server) as network:
        minou = enter(network, "--theme", theme)
        assert minou.window.look.scale == dense / 96
        minou.root.geometry("1x1")          # as small as it lets itself be made
        pairs = set()
        send_file(tigrou, red(2000, 100), "a long name for a photo.png" * 3)
        send_file(tigrou, some_bytes(MIB), "b.bin")
        card = Seen(minou, "b.bin")

        def look():
            minou.window.to_the_end()
            minou.root.update()
            pairs.update(colour_pairs(minou, minou.view()))
            assert [text for text in minou.cut_off() if text in card.words] == []
            assert card.card.frame.winfo_width() <= minou.view().winfo_width()

        look()
        card.press("Save")
        minou.until(lambda: (card.percent or 0) > 10)
        look()
        card.press("Cancel")
        minou.until(lambda: "Cancelled" in card.text)
        look()
        network.delay = 0
        card.press("Save")
        minou.until(lambda: card.words == ["Open folder"])
        look()
    weak = {pair: round(contrast(*pair), 2) for pair in pairs if contrast(*pair) < 4.5}
    assert weak == {}


# -------------------------------------------------------------------------- the dialogs

def dialogs(title):
    """The numbers of the windows with this title."""
    done = subprocess.run(["xdotool", "search", "--onlyvisible", "--name", title],
                          timeout=20, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout.decode().split()


@contextlib.contextmanager
def at_the_dialog(title, *keys):
    """Somebody who types into a dialog as soon as it is there.

    In a thread: whoever opens a dialog in this process waits until it is closed.
    """
    troubles = []

    def work():
        try:
            [number] = wait_until(lambda: dialogs(title), what=f"for “{title}”")
            xdotool("windowactivate", "--sync", number)
            type_into(*keys)
        except BaseException as trouble:
            troubles.append(trouble)
            xdotool("key", "Escape", "Escape")      # or the test would stand here

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join(30)
    assert not troubles and not thread.is_alive(), troubles


def type_into(*keys):
    """Type texts and press keys; what can be called is done in between."""
    for key in keys:
        if callable(key):
            key()
        elif key in ("Return", "Escape"):
            xdotool("key", key)
        else:
            xdotool("type", "--delay", 5, key)


@from_outside
def test_plus_sends_a_file(minou, home, join):
    tigrou = join("Tigrou")
    minou.until(lambda: minou.chat.count == 2)
    path = make(home, "essay.txt")
    with at_the_dialog("Send files", str(path), "Return"):
        click(minou, minou.buttons()["+"])
    expect(minou, tigrou, "file", name="essay.txt")
    Seen(minou, "essay.txt")
    minou.types_into(minou.box)
    with at_the_dialog("Send files", "Escape"):
        click(minou, minou.buttons()["+"])
    assert len(cards(minou)) == 1


@from_outside
def test_save_as(minou, home, join):
    tigrou = join("Tigrou")
    send_file(tigrou, b"Woof!", "essay.txt")
    card = Seen(minou, "essay.txt")
    with at_the_dialog("Save As", "Escape"):
        card.press("Save as…")
    assert card.words == ["Save", "Save as…"] and not list(home.rglob("*.txt"))
    old = make(home, "other.txt", b"old")
    with at_the_dialog("Save As", str(old), "Return"):
        card.press("Save as…")
    minou.until(lambda: card.words == ["Open folder"])
    assert old.read_bytes() == b"old"
    assert (home / "other (1).txt").read_bytes() == b"Woof!"


@pytest.mark.long
@from_outside
def test_it_is_for_those_who_were_in_sight_when_it_was_chosen(minou, home, join):
    """Somebody goes while the dialog is open, and one is back with everybody."""
    tigrou, felix = join("Tigrou"), join("Félix")
    minou.until(lambda: minou.chat.count == 3)
    minou.click_on("Tigrou")
    path = make(home, "secret.txt")

    with at_the_dialog("Send files", tigrou.leave, str(path), "Return"):
        click(minou, minou.buttons()["+"])
    minou.until(lambda: minou.chat.count == 2)
    minou.until(lambda: not minou.chat.moving)
    felix.send({"type": "list"})
    felix.expect("people", skip=COMINGS)        # and no file


@pytest.mark.long
@from_outside
def test_the_chat_goes_on_behind_the_dialog(open_client, server, home, join):
    tigrou = join("Tigrou")
    path = make(home, "essay.txt")
    window = open_client("--name", "Minou")
    window.wait_for_title("ChattyCat — Minou")
    window.key("ctrl+o")
    [number] = wait_until(lambda: dialogs("Send files"))
    tigrou.say("psst", to="Minou")
    window.wait_for_title("(1) ChattyCat — Minou")
    xdotool("windowactivate", "--sync", number)
    type_into(str(path), "Return")
    line = tigrou.expect("file", skip=BEFORE, name="essay.txt")
    assert fetch(tigrou, line) == b"Meow!" and "to" not in line
    close_well(window)


# ------------------------------------------------------------------------------ closing

@from_outside
def test_closing_in_the_middle_of_an_upload(open_client, start_server, home, tmp_path):
    server = start_server("--rate", 0, "--files", tmp_path / "files")
    path = make(home, "big.bin", some_bytes(2 * MIB))
    with slow(server) as network:
        window = open_client("--name", "Minou", "--port", network.port)
        window.wait_for_title("ChattyCat — Minou")
        window.type(f"/file {path}\n")
        wait_until(lambda: size_in(tmp_path / "files") > 100 * KIB)
        window.focus()
        xdotool("key", "alt+F4")        # the first time it only says what would be lost
        window.wait_for_text("Not sent yet")
        close_well(window)


@pytest.mark.long
@from_outside
def test_closing_in_the_middle_of_a_download(open_client, start_server, home, tmp_path):
    server = start_server("--rate", 0)
    with slow(server) as network, Person(server, "Tigrou") as tigrou:
        window = open_client("--name", "Minou", "--port", network.port)
        window.wait_for_title("ChattyCat — Minou")
        tigrou.expect("joined")
        send_file(tigrou, red(300, 200), "photo.png")
        send_file(tigrou, some_bytes(2 * MIB), "big.bin")
        tigrou.say("Here they are.", to="Minou")
        window.wait_for_title("(1) ChattyCat — Minou")
        window.type("/save 2\n")
        wait_until(lambda: size_in(home) > 100 * KIB)
        close_well(window)
    assert not tree(home) and not list((tmp_path / "tmp").glob("chattycat-pictures-*"))


@from_outside
@pytest.mark.parametrize("how", [
    "alt+F4", pytest.param("SIGTERM", marks=pytest.mark.long)])
def test_closing_with_the_dialog_open(open_client, home, how):
    window = open_client("--name", "Minou")
    window.wait_for_title("ChattyCat — Minou")
    for _ in range(2):                  # for Tk the next time is another thing
        window.key("ctrl+o")
        dialog, = wait_until(lambda: dialogs("Send files"))
        xdotool("windowactivate", "--sync", dialog, "key", "Escape")
        wait_until(lambda: not dialogs("Send files"))
    window.key("ctrl+o")
    wait_until(lambda: dialogs("Send files"))
    if how == "SIGTERM":
        window.process.terminate()
        assert window.process.wait(5) == 0 and window.said() == ""
    else:
        close_well(window)
