r"""A real screen for the tests: windows of other processes, real keys, real clicks.

    with ClientWindow("--port", server.port, "--name", "Minou") as minou:
        minou.type("Hello\n")
        minou.wait_for_text("Hello")

Nobody reaches into these windows: `xdotool` moves the mouse and presses the keys, and
what stands in a window is read as a person would take it, by selecting it.
"""
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from people import as_module

CLIENT = pathlib.Path(__file__).resolve().parent.parent / "ChattyCat_Client.py"

# Prints what is selected in any window (X calls that the primary selection). Then it
# owns the selection itself, and ends: nothing is selected any more, so that the next
# reader cannot get what was selected for this one.
READ_SELECTION = """
import sys, tkinter
root = tkinter.Tk()
root.withdraw()
try:
    text = root.selection_get(selection="PRIMARY", type="UTF8_STRING")
except tkinter.TclError:
    text = ""
root.selection_own(selection="PRIMARY")
sys.stdout.buffer.write(text.encode())
"""


def why_no_screen() -> str:
    """Say why no window can be driven from outside here; "" if it can."""
    if not importlib.util.find_spec("_tkinter"):
        return "this Python has no Tk, so it opens no window"
    if not sys.platform.startswith("linux"):
        return "driving windows from outside needs X11 and xdotool"
    if not os.environ.get("DISPLAY"):
        return "there is no screen (DISPLAY is not set); python3 -m tests starts one"
    if not shutil.which("xdotool"):
        return "xdotool is not installed"
    done = subprocess.run(["xdotool", "getdisplaygeometry"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return f"the screen {os.environ['DISPLAY']} is not there" if done.returncode else ""


def xdotool(*words):
    """Run xdotool; return what it printed."""
    # A time limit: with --sync it waits for ever for a window that has just closed.
    done = subprocess.run(["xdotool", *map(str, words)], timeout=20, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f"xdotool {words} failed: {done.stdout}"
    return done.stdout.strip()


def wait_until(condition, limit=10, what=""):
    """Wait until condition() is true, and return what it returned."""
    end = time.monotonic() + limit
    while not (result := condition()):
        assert time.monotonic() < end, f"waited {limit} s in vain {what}"
        time.sleep(0.05)        # to ask for all windows takes 12 ms of both processors
    return result


def visible_windows(kind="Chattycat") -> set:
    """Return the numbers of all client windows that are on the screen.

    An open menu is a window too, of the kind "Menu".
    """
    # Not xdotool(): it "fails" when there is none.
    done = subprocess.run(
        ["xdotool", "search", "--onlyvisible", "--class", f"^{kind}$"], timeout=20,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return set(done.stdout.split())


class RemoteWindow:
    """A window of another process, as somebody before the screen has it."""

    def __init__(self, number):
        self.number = number

    @classmethod
    def named(cls, title):
        """Wait for the window with this title."""
        def look():
            windows = [cls(number) for number in visible_windows()]
            return [window for window in windows if window.title == title]

        (found,) = wait_until(look, what=f"for “{title}”")
        return found

    @property
    def title(self):
        return xdotool("getwindowname", self.number)

    @property
    def box(self):
        """(x, y, width, height) in pixels of the screen."""
        words = xdotool("getwindowgeometry", "--shell", self.number)
        values = dict(line.split("=") for line in words.split())
        return tuple(int(values[key]) for key in ("X", "Y", "WIDTH", "HEIGHT"))

    def gone(self):
        return self.number not in visible_windows()

    def wait_for_title(self, title):
        wait_until(lambda: self.title == title, what=f"for “{title}”: “{self.title}”")

    def focus(self):
        xdotool("windowactivate", "--sync", self.number)

    def type(self, text):
        r"""Type it; each "\n" is the Enter key."""
        self.focus()
        for piece in re.findall("\n|[ -~]+|.", text):
            if piece == "\n":
                # Not by `type`: that would press Linefeed, another key.
                xdotool("key", "Return")
            else:
                # What is on no key, such as 😀, xdotool puts on one for half of the
                # delay. A busy program that looks too late finds nothing there.
                delay = 15 if piece.isascii() else 300
                xdotool("type", "--delay", delay, piece)

    def key(self, *keys):
        self.focus()
        xdotool("key", *keys)

    def choose(self, entry):
        """Open the menu by the keyboard, and choose an entry; the first is 1."""
        self.click(-240, -70)               # into the composer, at 192 dpi too
        self.key("shift+Tab", "shift+Tab", "space")
        wait_until(lambda: visible_windows("Menu"), what="for the menu")
        xdotool("key", *["Down"] * entry, "Return")
        wait_until(lambda: not visible_windows("Menu"), what="for the menu to close")

    def click(self, x, y):
        """Click there; less than 0 counts from the right or from the bottom."""
        _, _, width, height = self.box
        self.focus()
        xdotool("mousemove", "--window", self.number, x % width, y % height, "click", 1)

    def resize(self, width, height):
        xdotool("windowsize", self.number, width, height)

    def read(self):
        """Return the messages that the window shows: click, select all, take it."""
        _, _, width, height = self.box
        self.click(width - 60, height // 2)
        self.key("ctrl+slash")              # "select all" in a Text on X11
        return subprocess.run([sys.executable, "-c", READ_SELECTION], timeout=20,
                              stdout=subprocess.PIPE).stdout.decode()

    def wait_for_text(self, text):
        """Wait until these words are among the messages; return all of them."""
        def look():
            nonlocal shown
            shown = self.read()
            return text in shown

        shown = ""
        try:
            wait_until(look)
        except AssertionError:
            raise AssertionError(f"{text!r} is not in the window: {shown!r}") from None
        return shown


class ClientWindow(RemoteWindow):
    """A client in a process of its own, from its first window to its last word."""

    def __init__(self, *options, **environment):
        words, folder = as_module(CLIENT)
        self.command = [sys.executable, *words, *map(str, options)]
        self.environment = {"PYTHONPATH": folder, **environment}

    def __enter__(self):
        self.home = tempfile.TemporaryDirectory(prefix="chattycat-")
        self.errors = tempfile.TemporaryFile()
        before = visible_windows()
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stderr=self.errors,
            env={**os.environ, "CHATTYCAT_HOME": self.home.name, **self.environment})
        try:
            wait_until(lambda: visible_windows() - before or self.ended(),
                       what=f"for the window of {self.command}")
            assert not self.ended(), f"no window: {self.said()}"
        except BaseException:
            self.end()
            raise
        (self.number,) = visible_windows() - before
        return self

    def ended(self):
        return self.process.poll() is not None

    def said(self):
        """Return what stands on its stderr."""
        self.errors.seek(0)
        return self.errors.read().decode("utf-8", "replace")

    def close(self):
        """Close it as its user does, and return how many seconds it took to end."""
        self.focus()
        start = time.monotonic()
        xdotool("key", "alt+F4")
        self.process.wait(10)
        return time.monotonic() - start

    def end(self):
        if not self.ended():
            self.process.kill()
        self.process.wait(10)
        self.errors.close()
        self.home.cleanup()

    def __exit__(self, kind, error, trace):
        try:
            assert kind or not self.said(), f"on the client's stderr:\n{self.said()}"
        finally:
            self.end()
