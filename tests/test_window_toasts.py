"""Toasts: what the window tells while nobody looks at it.

No desktop is needed: a small program called notify-send stands in front of the PATH and
writes down what it is told.
"""
import os
import time
import types

import pytest

import ChattyCat_Client as client
from people import Person
from screen import (ClientWindow, visible_windows, wait_until, why_no_screen,
                    xdotool)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="notify-send is for X11")
from_outside = pytest.mark.skipif(bool(why_no_screen()), reason=why_no_screen())

# Written under another name first: who sees the file sees all of it.
WELL = 'printf "%s\\0" "$@" > "$0.$$.part"; mv "$0.$$.part" "$0.$$.told"'
FAILS = "echo >> $0.tried; exit 1"
HANGS = "echo $$ >> $0.tried; exec sleep 60"
EVERYONE, TIGROU = client.Conversation(), client.Conversation("Tigrou", 1)
# Kept for ever: a window that Python throws away in another thread aborts the process.
ROOTS = []


@pytest.fixture(scope="module")
def root():
    window, why = client.open_root()
    if window is None:
        pytest.skip(why)
    ROOTS.append(window)
    window.errors = []
    window.report_callback_exception = lambda *what: window.errors.append(what)
    yield window
    window.destroy()


@pytest.fixture
def desktop(tmp_path, monkeypatch):
    """A folder in front of the PATH, for a program of ours."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def install(folder, script):
    program = folder / "notify-send"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def told(folder):
    """What notify-send was told, the oldest first: [(time, arguments), …]."""
    return sorted((path.stat().st_mtime, path.read_bytes().decode().split("\0")[:-1])
                  for path in folder.glob("notify-send.*.told"))


class User(client.Toasts):
    """Toasts, and somebody who does not look at the window."""

    def __init__(self, root, **choices):
        root.withdraw()
        self.opened = []
        self.choices = types.SimpleNamespace(toasts=True, bell=False)
        vars(self.choices).update(choices)
        super().__init__(root, client.Look(root, "light"), self.choices,
                         self.opened.append)
        self.until(lambda: not root.tk.call("focus", "-displayof", root))

    def until(self, condition, limit=5):
        end = time.monotonic() + limit
        while not condition():
            assert not self.root.errors, self.root.errors
            assert time.monotonic() < end, f"waited {limit} s in vain"
            self.root.update()
            time.sleep(0.005)
        self.root.update()

    def words(self):
        """What stands in the small window; None while there is none."""
        if self.window is None or not self.window.winfo_viewable():
            return None
        return [label.cget("text") for label in self.window.winfo_children()
                if "text" in label.keys() and label.cget("text")]


@pytest.fixture
def user(root):
    users = []

    def sit_down(**choices):
        users.append(User(root, **choices))
        return users[-1]

    yield sit_down
    for one in users:
        one.stop()
    assert not root.errors, root.errors


HOSTILE = [
    ("<b>bold</b> & \"it's\"", "&lt;b&gt;bold&lt;/b&gt; &amp; &quot;it&#x27;s&quot;"),
    ("$(touch harmed) `id` ; rm *", "$(touch harmed) `id` ; rm *"),
    ("-h", "-h"),
    ("one\n\n\n\ntwo\t three ", "one two three"),
    ("half \ud83d of it", "half \ufffd of it"),
    ("a\0b\x1b[31m", "a\ufffdb\ufffd[31m"),
    ("\u202egpj.exe\u2066", "gpj.exe"),
    ("😀 小猫", "😀 小猫"),
    ("x" * 4000, "x" * 199 + "…"),
    # notify-send would make "<b>" of it, and leave out the last one.
    ("\\074b\\076 C:\\new\\", "\\\\074b\\\\076 C:\\\\new\\\\")]


def test_what_others_write_arrives_as_one_argument_and_harms_nobody(user, desktop):
    install(desktop, WELL)
    minou = user()
    minou.PAUSE = 0
    for count, (text, _) in enumerate(HOSTILE, 1):
        minou.tell(text, text, TIGROU)
        minou.until(lambda: len(told(desktop)) == count and minou.timer is None)
    heads = [arguments[:3] for _, arguments in told(desktop)]
    assert heads == [["-a", "ChattyCat", "--"]] * len(HOSTILE)
    assert [arguments[4:] for _, arguments in told(desktop)] == [
        [wanted] for _, wanted in HOSTILE]
    # A title is no markup. It is shorter.
    titles = [arguments[3] for _, arguments in told(desktop)]
    assert titles[0] == HOSTILE[0][0] and titles[8] == "x" * 59 + "…"
    assert not os.path.exists("harmed")


def test_one_toast_in_a_while_and_then_the_newest_of_what_came(user, desktop):
    install(desktop, WELL)
    minou = user()
    assert minou.PAUSE == 3
    minou.PAUSE, start = 0.3, time.time()
    for number in range(7):
        minou.tell("# Everyone", f"line {number}", EVERYONE)
    minou.until(lambda: minou.timer is None)
    (_, early), (late_time, late) = told(desktop)
    assert early[-2:] == ["# Everyone", "line 0"]
    assert late[-2:] == ["# Everyone, and 5 more", "line 6"]
    assert late_time - start > 0.29


def test_chatter_does_not_push_out_what_is_private_or_names_us(user, desktop):
    install(desktop, WELL)
    minou = user()
    minou.PAUSE = 0.2
    for talk, text, important in (
            (EVERYONE, "at once", False), (EVERYONE, "Minou, look", True),
            (EVERYONE, "chatter", False), (TIGROU, "only for you", False),
            (EVERYONE, "more chatter", False)):
        minou.tell("title", text, talk, important)
    minou.until(lambda: minou.timer is None)
    assert [arguments[-2:] for _, arguments in told(desktop)] == [
        ["title", "at once"], ["title, and 3 more", "only for you"]]


def test_switched_off_is_off_and_the_bell_is_a_choice(user, desktop):
    install(desktop, WELL)
    minou = user(toasts=False, bell=True)
    # Nobody hears the bell of Xvfb.
    minou.root.tk.eval("set rung 0; proc bell args {incr ::rung}")
    minou.tell("Tigrou", "Hello", TIGROU)
    assert (minou.held, minou.timer, minou.process, minou.window) == (None,) * 4
    minou.choices.toasts, minou.PAUSE = True, 0.1
    for rings, bell in enumerate((True, False), 1):
        minou.choices.bell = bell
        minou.tell("Tigrou", "Hello", TIGROU)
        minou.until(lambda: len(told(desktop)) == rings and minou.timer is None)
        assert minou.root.getvar("rung") == 1


@pytest.mark.parametrize("script", [None, FAILS, HANGS])
def test_where_it_does_not_work_a_window_of_ours_shows_it(user, desktop, monkeypatch,
                                                          script):
    if script:
        install(desktop, script)
    else:
        monkeypatch.setenv("PATH", str(desktop))        # and there is none
    minou = user()
    # So long the program may take; and then our window may stay.
    minou.PAUSE, minou.SECONDS = 0.2, 0.2 if script else 60
    minou.tell("Tigrou", "Hello <b> $(x) 😀\n", TIGROU)
    minou.SECONDS = 60
    minou.until(lambda: minou.words() == ["Tigrou", "Hello <b> $(x) 😀"])
    # What has failed once is not tried again.
    minou.tell("Félix", "x" * 4000, EVERYONE)
    minou.until(lambda: (minou.words() or "  ")[1].startswith("xxx"))
    tries = desktop / "notify-send.tried"
    assert minou.process is None
    assert not script or len(tries.read_text().splitlines()) == 1
    minou.SECONDS = 0.2
    minou.tell("Félix", "y", EVERYONE)
    minou.until(lambda: minou.window is None)           # it goes by itself,
    minou.until(lambda: minou.timer is None)            # and nothing goes on for ever
    assert minou.shown[1] == "y"


def test_who_comes_back_needs_no_toast(user, desktop):
    minou = user()
    minou.way = "window"
    minou.tell("Tigrou", "Hello", TIGROU)
    minou.tell("Tigrou", "Are you there?", TIGROU)
    minou.until(lambda: minou.words())
    client.back(minou.root)
    minou.until(lambda: minou.window is None and minou.held is None)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def number_in(path):
    """The number that a program has written into a file; 0 while it has not."""
    text = path.read_text() if path.exists() else ""
    return int(text) if text.endswith("\n") else 0


def test_at_the_end_nothing_is_left(user, desktop):
    install(desktop, HANGS)
    minou = user()
    minou.tell("Tigrou", "Hello", TIGROU)
    minou.tell("Tigrou", "Are you there?", TIGROU)
    pid = wait_until(lambda: number_in(desktop / "notify-send.tried"))
    assert alive(pid)
    start = time.monotonic()
    minou.stop()
    assert time.monotonic() - start < 0.5 and not alive(pid)
    assert (minou.held, minou.process, minou.window) == (None,) * 3
    assert minou.root.tk.call("after", "info") == ""


@from_outside
def test_a_click_brings_the_window_back_and_opens_the_conversation(user):
    minou = user()
    minou.way = "window"
    minou.root.deiconify()
    minou.until(minou.root.winfo_viewable)
    # On X11 there is no tray for us; from the list of windows it can return.
    client.hide(minou.root)
    minou.until(lambda: minou.root.state() == "iconic")
    minou.tell("Tigrou", "Hello", TIGROU)
    minou.until(minou.words)
    (toast,) = visible_windows("Toast")
    xdotool("mousemove", "--window", toast, 40, 20, "click", 1)
    minou.until(lambda: minou.opened == [TIGROU] and minou.root.state() == "normal"
                and minou.root.focus_displayof() is not None)
    assert minou.window is None


@from_outside
def test_a_toast_takes_no_key_from_what_somebody_types_elsewhere(server, desktop):
    # The usual trouble, as on any screen of these tests: no desktop that would answer.
    install(desktop, FAILS)
    options = "--port", server.port, "--name"
    with Person(server, "Tigrou") as tigrou, ClientWindow(*options, "Minou") as minou, \
            ClientWindow(*options, "Felix") as felix:
        minou.wait_for_title("ChattyCat — Minou")
        felix.wait_for_title("ChattyCat — Felix")
        felix.type("I have ")
        tigrou.say("Look!", to="Minou")
        (toast,) = wait_until(lambda: visible_windows("Toast"), what="for the toast")
        xdotool("type", "my eyes ")
        xdotool("mousemove", "--window", toast, 40, 20)     # in the way of the mouse
        xdotool("type", "here")
        xdotool("key", "Return")
        tigrou.expect("chat", text="I have my eyes here")
        assert visible_windows("Toast") == {toast}
        xdotool("click", 1)
        wait_until(lambda: xdotool("getactivewindow") == minou.number)
        assert "Look!" in minou.read() and "my eyes" not in minou.read()
        assert not visible_windows("Toast")


@from_outside
def test_a_desktop_that_hangs_does_not_keep_the_client_from_closing(server, desktop):
    install(desktop, HANGS)
    with Person(server, "Garfield") as garfield, \
            ClientWindow("--port", server.port, "--name", "Duchesse") as minou:
        minou.wait_for_title("ChattyCat — Duchesse")
        xdotool("windowminimize", "--sync", minou.number)
        # More than once: the window may notice a little later that nobody looks at it.
        pid = wait_until(lambda: garfield.say("Hello")
                         and number_in(desktop / "notify-send.tried"))
        # 1 s, or a little more where others work too; the program would take 60.
        assert minou.close() < 3 and minou.process.returncode == 0
        assert not alive(pid)
