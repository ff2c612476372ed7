"""Two windows, from login to goodbye, through all that they can do.

Real processes and real keys: nobody reaches into them. The mouse is used only by who
wants to read what stands there.
"""
import json
import os
import pathlib
import subprocess
import sys

import pytest

from people import COMINGS, Person, ServerProcess
from screen import (READ_SELECTION, ClientWindow, RemoteWindow, visible_windows,
                    wait_until, why_no_screen, xdotool)
from test_window import close_well, free_port

pytestmark = pytest.mark.skipif(bool(why_no_screen()), reason=why_no_screen())
# Entries of the menu, counted from above.
LOG, DARK, ABOUT, LOG_OUT = 1, 6, 9, 10


class User(ClientWindow):
    """Somebody before a window, with a home of their own."""

    def __init__(self, folder, place, *options):
        self.folder = folder
        folder.mkdir()
        # What opens links for this user: it writes down what it is told.
        opener = folder / "xdg-open"
        opener.write_text(f'#!/bin/sh\necho "$#" "$@" > "{folder}/told"\n')
        opener.chmod(0o755)
        super().__init__(*options, HOME=str(folder), CHATTYCAT_PLACE=place,
                         PATH=f"{folder}:{os.environ['PATH']}")

    def has_title(self, name, unread=0):
        self.wait_for_title(f"({unread}) ChattyCat — {name}" if unread else
                            f"ChattyCat — {name}")

    def choices(self):
        """What is kept for the next time."""
        path = pathlib.Path(self.home.name, "window.json")
        return json.loads(path.read_text()) if path.exists() else {}

    def log(self, of):
        """The chat log of a conversation."""
        found = list(pathlib.Path(self.home.name, "chats").glob(f"* {of} (*).txt"))
        return "".join(path.read_text() for path in found)

    def read_wire(self):
        """What stands in the pane at the bottom."""
        self.click(-60, -150)
        self.key("ctrl+slash")
        return subprocess.run([sys.executable, "-c", READ_SELECTION], timeout=20,
                              stdout=subprocess.PIPE).stdout.decode()


def log_in(minou, tigrou):
    minou.type("Minou\n")
    minou.has_title("Minou")
    tigrou.type("Tigrou")               # and by Tab to the button
    tigrou.key("Tab", "Tab", "Tab", "Tab", "space")
    tigrou.has_title("Tigrou")


def talk(minou, tigrou, felix):
    """Completion, unread lines in the title, history, several lines, a slash."""
    minou.type("hello ti")
    minou.key("Tab")
    minou.type("and all\n")
    felix.expect("chat", skip=COMINGS, from_="Minou", text="hello Tigrou and all")
    felix.say("Welcome")
    tigrou.has_title("Tigrou", unread=2)    # he looks at another window
    tigrou.focus()
    tigrou.has_title("Tigrou")
    tigrou.type("mi")
    tigrou.key("Tab")
    tigrou.type("hello!\n")
    felix.expect("chat", from_="Tigrou", text="Minou, hello!")
    tigrou.type("a draft")
    tigrou.key("Up", "Return")
    felix.expect("chat", from_="Tigrou", text="Minou, hello!")
    tigrou.type("one")
    tigrou.key("shift+Return")
    tigrou.type("two\n//help\n/nonsense\n")
    felix.expect("chat", from_="Tigrou", text="one\ntwo")
    felix.expect("chat", from_="Tigrou", text="/help")
    felix.silence()                     # what is no command is never sent
    tigrou.key("ctrl+a", "BackSpace")
    assert "New messages" in tigrou.read()
    tigrou.key("alt+1")                 # to read, one has clicked into the messages


def talk_privately(minou, tigrou, felix):
    """A conversation of two, drafts, and from one conversation to the other."""
    tigrou.type("/msg Minou Psst\n")
    minou.has_title("Minou", unread=5)      # four were for all
    minou.focus()
    minou.has_title("Minou", unread=1)
    minou.type("for all")
    minou.key("alt+Down")
    minou.has_title("Minou")
    minou.type("What?\n")
    minou.type("for you")
    minou.key("alt+1", "Return")
    felix.expect("chat", from_="Minou", text="for all")
    minou.key("alt+2", "Return", "alt+Up")
    felix.silence()
    text = tigrou.wait_for_text("for you")
    assert "Psst" in text and "What?" in text and "for all" not in text
    tigrou.key("alt+1")
    felix.silence()


def look_around(minou, tigrou, felix):
    """Help, the other theme, the page about us, a link, the wire."""
    minou.key("F1")
    page = RemoteWindow.named("ChattyCat — help")
    assert page.number != minou.number
    xdotool("key", "F1", "Escape")
    wait_until(page.gone)
    minou.choose(DARK)
    wait_until(lambda: minou.choices().get("theme") == "dark")
    minou.choose(ABOUT)
    page = RemoteWindow.named("About ChattyCat")
    page.key("Escape")
    wait_until(page.gone)
    felix.say("See https://a.example/?a=1&b=2.")
    minou.has_title("Minou")
    minou.wait_for_text("b=2.")
    minou.key("alt+1")
    minou.type("/open\n")
    told = minou.folder / "told"
    wait_until(told.exists)
    wait_until(lambda: told.read_text() == "1 https://a.example/?a=1&b=2\n")
    minou.key("F12")
    minou.type("through the wire\n")
    felix.expect("chat", from_="Minou", text="through the wire")
    assert '"text":"through the wire"' in minou.read_wire()
    minou.key("F12")
    minou.type("typed on\n")
    felix.expect("chat", from_="Minou", text="typed on")


def send_a_file(minou, tigrou, felix):
    """By the dialog; and the other one saves it."""
    path = tigrou.folder / "essay.txt"
    path.write_text("Woof! " * 20_000)
    tigrou.key("ctrl+o")
    wait_until(lambda: visible_windows("TkFDialog"), what="for the dialog")
    xdotool("type", "--delay", "15", str(path))
    xdotool("key", "Return")
    felix.expect("file", skip=("chat",), from_="Tigrou", name="essay.txt")
    minou.type("/save 1\n")
    saved = minou.folder / "Downloads" / "essay.txt"
    wait_until(saved.exists)
    assert saved.read_text() == path.read_text()


def log_out_and_in(minou, tigrou, felix):
    """The chat log by the menu; logging out by it, and in by Enter."""
    minou.choose(LOG)
    minou.key("alt+1")                  # the keyboard is still at the menu
    minou.type("write this\n")
    felix.expect("chat", skip=("file",), from_="Minou", text="write this")
    wait_until(lambda: minou.log("# Everyone").endswith("  Minou: write this\n"))
    minou.choose(LOG_OUT)
    minou.wait_for_title("ChattyCat")
    felix.expect("left", name="Minou", reason="bye")
    minou.key("Return")
    minou.has_title("Minou")
    felix.expect("joined", name="Minou")


def say_goodbye(minou, tigrou, felix):
    """By Ctrl+Q, and by the window's close button while a page is open."""
    minou.key("ctrl+q")
    felix.expect("left", name="Minou", reason="bye")
    assert minou.process.wait(5) == 0 and minou.said() == ""
    before = visible_windows()
    tigrou.key("F1")
    page = wait_until(lambda: visible_windows() - before, what="for the help")
    close_well(tigrou)
    felix.expect("left", name="Tigrou", reason="bye")
    assert not visible_windows() & {*page, tigrou.number}


@pytest.fixture
def users(tmp_path):
    """Two windows, side by side, and the port where they look for a server."""
    port = free_port()
    with User(tmp_path / "one", "0/2", "--port", port) as minou, \
            User(tmp_path / "two", "1/2", "--port", port) as tigrou:
        yield port, minou, tigrou


def test_from_login_to_goodbye(users):
    port, *users = users
    with ServerProcess("--port", port) as server, Person(server, "Félix") as felix:
        log_in(*users)
        talk(*users, felix)
        talk_privately(*users, felix)
        say_goodbye(*users, felix)


@pytest.mark.long
def test_through_everything(users):
    port, *users = users
    with ServerProcess("--port", port) as server, Person(server, "Félix") as felix:
        log_in(*users)
        for part in (talk, talk_privately, look_around, send_a_file, log_out_and_in):
            part(*users, felix)
        server.stop()                   # it tells all: goodbye
    minou, _ = users
    minou.type("while nobody is there\n")
    with ServerProcess("--port", port) as server, Person(server, "Félix") as felix:
        came = {"Minou", "Tigrou", "while nobody is there"}
        while came:                     # in whatever order
            message = felix.read()
            came.remove(message.get("text") or message["name"])
        minou.wait_for_text("while nobody is there")
        say_goodbye(*users, felix)
