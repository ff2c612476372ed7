#!/usr/bin/env python3
"""ChattyCat, the client: a chat window, or a chat in the terminal.

Run it (a server must be running: python3 ChattyCat_Server.py):
    python3 ChattyCat_Client.py                 the window, with a login card
    python3 ChattyCat_Client.py --name Minou    connects at once
    python3 ChattyCat_Client.py --terminal      no window: drawn in this terminal
    python3 ChattyCat_Client.py --plain         the same as plain lines
    python3 ChattyCat_Client.py --help          everything it can be told

How a message gets from your keyboard to the others, and back:

    main thread                    send thread
    composer -> Chat.typed() --->  queue -> sendall() ---> server
                                   receive thread             |
    window <- Chat.drain() <-----  queue <- lines <- recv() <-+

Only the main thread touches the window. The two daemon threads touch the socket and
the queues, and nothing else. That is the one rule that keeps a window alive while the
network is slow: whoever breaks it gets a program that freezes now and then, and nobody
knows why (lesson 11 breaks it on purpose). Files have a third thread, which touches the
disk: it can be slow as well.

Three layers, and each knows only the one below it:
    Connection, Files     a socket, a disk, three threads; know no chat and no screen
    Chat                  people, conversations, commands; knows no screen
    Window, PlainLines    two faces of the same chat (lesson 21 has a third one)

If you read only one thing, read region 4. If two, then Window.drain() in region 29 as
well: there the network meets the window.

The regions, in reading order (what a region uses stands above it):
   1  Settings and the last login — the command line, and small files
   2  The wire — bytes to messages and back; names, text, times, TLS
   3  Reaching a server — starting one, knowing one again, why there is none
   4  The connection — two threads, two queues, and trying again
   5  Files on the disk — names that are safe and free, and nothing half
   6  A file on its way — up or down, piece by piece
   7  The file thread — a third queue; one file after the other
   8  The wire, watched — the newest lines, as they travelled
   9  Lines — what is shown, and that it harms nobody
  10  The notebook — conversations, what is unread, and the log
  11  Conversations — people, messages, receipts: what the server tells us
  12  Sent and saved — the files in the conversations
  13  Logging in — and out, and trusting a server
  14  Commands — command_msg, … found by name
  15  Typing — what was sent before, names that complete themselves
  16  The window: emoji — pictures in the text, on every Tk
  17  The window: look — colours, fonts, sizes
  18  The window: login — the card in the middle
  19  The window: people — the list on the left
  20  The window: pictures — which are shown, and how large
  21  The window: files — a card for each
  22  The window: text to read — scrolling, links, copying
  23  The window: messages — one Text for each conversation
  24  The window: composer and menus — what stands above and below the messages
  25  The window: the wire — F12: every line as it travels
  26  The window: toasts — what comes while one looks elsewhere
  27  The window: help — F1: keys and commands; and what this is
  28  The window: its parts — made, and bound to keys
  29  The window: all together — where the network meets the screen
  30  Plain lines: printed — the same chat without a window
  31  Plain lines: typed — what a keyboard or a pipe brings
  32  Main — which face to show

To add a command, write one method command_<word> in region 14; its docstring is its
line in /help. To understand a new kind of message, one method on_<type> in region 11.
"""
import argparse
import binascii
import collections
import contextlib
import dataclasses
import functools
import gc
import getpass
import hashlib
import html
import importlib.util
import io
import itertools
import json
import logging.handlers
import math
import os
import queue
import random
import re
import shlex
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unicodedata
import warnings
from datetime import datetime

try:
    # Tk comes with Python on Windows and from python.org; on Debian it is a package of
    # its own. Without it the chat goes on in plain lines, so this is not the end.
    import tkinter as tk
    from tkinter import filedialog
    from tkinter import font as tkfont
    from tkinter import ttk
except ImportError:
    tk = None
try:
    # A Python that was built without OpenSSL can chat too, only not by TLS.
    import ssl
except ImportError:
    ssl = None

VERSION = "1.0"

# region 1. Settings and the last login  (lesson 00)
# The folder of this script, wherever it is started from: the server may lie beside it.
HERE = os.path.dirname(os.path.abspath(__file__))
SERVER_SCRIPT = os.path.join(HERE, "ChattyCat_Server.py")
# The program log, see open_log(); without --log it keeps nothing.
LOG = logging.Logger("ChattyCat")
LOG.addHandler(logging.NullHandler())
# A server is started from here only for these: nobody can start one elsewhere.
THIS_COMPUTER = ("127.0.0.1", "localhost", "::1")


def report_mistake(*_):
    """Show where a mistake in the program is, in the terminal and in the log."""
    traceback.print_exc()
    LOG.exception("a mistake in the program")


class Options(argparse.ArgumentParser):
    """The command line. A mistake in it is one sentence, not a page of usage.

    The server has this class too, since each script must work alone.
    """

    def error(self, message):
        """Called by argparse. 2 is what programs return for a wrong command line."""
        self.exit(2, f"{self.prog}: {message}. Type --help to see the options.\n")

    def parse(self, words):
        """Read the options; a word @FILE stands for the options in that file.

        A class keeps its settings in a file so: 20 computers, one line to type.
        """
        # argparse can read files too (fromfile_prefix_chars), but takes a whole line
        # for one word, so that "--port 9000" would be an option with a space in it.
        expanded = []
        for word in words:
            expanded += self.words_of_file(word[1:]) if word[:1] == "@" else [word]
        return self.parse_args(expanded)

    def words_of_file(self, path):
        """Return the words of an options file: "--port 9000" in a line is two."""
        try:
            # utf-8-sig: Notepad on Windows writes a mark in front of the first word.
            with open(path, encoding="utf-8-sig") as file:
                lines = [line.strip() for line in file]
        except (OSError, ValueError) as problem:    # ValueError: not text at all
            self.error(f"cannot read the options in {path} ({problem})")
        # Split once, at the first space: a path may have spaces in it.
        return [word.strip() for line in lines if line and line[0] != "#"
                for word in line.split(None, 1)]


def port_number(word) -> int:
    """Return a TCP port, 1 to 65535; ValueError with a sentence if it is none.

    int() alone would not do: it takes "-1", "1_000" and "٩٩٩٩" as well.
    """
    if not re.fullmatch(r"[0-9]{1,5}", word.strip()) or not 0 < int(word) < 65536:
        raise ValueError(f"A port is a number from 1 to 65535, not “{word[:20]}”.")
    return int(word)


def read_fingerprint(word) -> str:
    """Return a fingerprint as the servers print it, however it was typed."""
    digits = re.sub(r"[\s:-]", "", word).upper()
    if not re.fullmatch("[0-9A-F]{64}", digits):
        raise ValueError("A fingerprint has 64 digits, 0 to 9 and A to F; the server's "
                         "terminal shows it.")
    return "-".join(digits[at:at + 4] for at in range(0, 64, 4))


def option(convert):
    """The same for argparse, which wants an error of its own kind, without a dot."""
    def convert_option(word):
        try:
            return convert(word)
        except ValueError as problem:
            raise argparse.ArgumentTypeError(str(problem).rstrip(".")) from None
    return convert_option


def read_password(wanted: bool) -> str:
    """Return the password from the environment, or ask for it if it is `wanted`.

    Never from the command line: that stands in the list of processes, for all users of
    this computer.
    """
    password = os.environ.get("CHATTYCAT_PASSWORD", "")
    if wanted and not password:
        # getpass() reads without showing what is typed. Where it cannot hide it, it
        # would warn and go on; here it asks nobody then, and the server will say so.
        with contextlib.suppress(Exception):
            with warnings.catch_warnings():
                warnings.simplefilter("error", getpass.GetPassWarning)
                password = getpass.getpass("The server's password: ")
    return password


def read_options(words=None):
    """Return the options in `words`, or in the command line that started us.

    None for a server, port or name that was not given: then the last login counts. A
    default here would hide the difference between "--port 9999" and nothing.
    """
    # allow_abbrev=False: with it, "--po 9000" would work today, and mean something
    # else on the day when there is a second option that begins so.
    options = Options(prog="ChattyCat_Client.py", allow_abbrev=False,
                      description="The ChattyCat chat window.",
                      epilog="@FILE reads options from a file, one a line.")
    add_options(options.add_argument)
    return options.parse(sys.argv[1:] if words is None else words)


def add_options(add):
    """Say which options there are; `add` is argparse's own add_argument()."""
    # 127.0.0.1 and not "localhost": Windows tries that as ::1 first and loses 2 s when
    # the server listens on 127.0.0.1 alone.
    add("--host", help="the server's address (default: the one of your last login, or "
        "127.0.0.1)")
    add("--port", type=option(port_number), metavar="N", help="the server's TCP port "
        f"(default: the one of your last login, or {PORT})")
    add("--name", help="your name; connects at once")
    add("--password", action="store_true", help="ask for the server's password here "
        "(CHATTYCAT_PASSWORD in the environment is taken without asking)")
    add("--tls", action="store_true", help="encrypt all that travels")
    add("--fingerprint", type=option(read_fingerprint), metavar="HEX", help="TLS, and "
        "with the server of this fingerprint only: its terminal shows it")
    add("--plain", action="store_true", help="no window: type and read lines in this "
        "terminal")
    add("--terminal", action="store_true", help="no window: draw the chat on this "
        "terminal, with colours and a list of people")
    add("--theme", choices=("auto", "light", "dark"), help="the window's colours "
        "(default: what you chose in its menu, at first auto: as the system)")
    add("--log-chat", metavar="DIR", help="write what is said into this folder, a text "
        "file for each conversation and day")
    add("--log", metavar="FILE", help="write what the program does, and its mistakes, "
        "into this file; no word of the chat")
    add("--version", action="version", version=f"ChattyCat {VERSION}")


def user_folder() -> str:
    """Return the folder for this user's files, where each system keeps such things.

    Not beside the script: that may be a folder on a USB stick, or one that all share.

    Windows: Known Folders; macOS: File System Programming Guide; else: the XDG Base
    Directory Specification. CHATTYCAT_HOME puts them elsewhere, for tests and for a
    classroom where everybody has the same account.
    """
    # get() and not []: a variable that is not set is None, and not an error. An empty
    # one counts as not set; the XDG specification says so too.
    if os.environ.get("CHATTYCAT_HOME"):
        return os.environ["CHATTYCAT_HOME"]
    if os.name == "nt":
        return os.path.join(os.environ.get("APPDATA", HERE), "ChattyCat")
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support", "ChattyCat")
    return os.path.join(os.environ.get("XDG_CONFIG_HOME")
                        or os.path.join(home, ".config"), "chattycat")


class UserFile:
    """A small file of JSON that is kept for this user, and that nobody else can read.

    One can look into it, and mend it, with any editor. So it may be cut short, or hold
    a list where an object should be: each of these is one sentence, and the chat goes
    on. A chat without its files is a chat.
    """

    def __init__(self, name, what):
        """`what` it holds, for a sentence."""
        self.path, self.what = os.path.join(user_folder(), name), what
        self.trouble = ""               # one sentence, if something is wrong with it

    def read(self, take):
        """Call take() with what stands in it; if that raises, the file is broken."""
        self.trouble = ""
        try:
            with open(self.path, encoding="utf-8") as file:
                take(json.load(file))
        except (FileNotFoundError, NotADirectoryError):
            pass                        # the first time on this computer
        except (OSError, ValueError, AttributeError, TypeError, WireError,
                RecursionError) as problem:
            self.put_aside(problem)

    def put_aside(self, problem):
        """Keep a file that cannot be read, under another name: it may be repaired.

        Left where it is, the next write() would go over it.
        """
        self.trouble = f"{self.what} could not be read ({problem})."
        try:
            os.replace(self.path, self.path + ".broken")
            self.trouble += f" It is kept as {self.path}.broken."
        except OSError:
            pass                        # a folder that we may not write into

    def write(self, value):
        """Write a new file and rename it, which is one step of the file system: a crash
        at any moment leaves the old file or the new one, and never half of one."""
        self.trouble = ""
        try:
            # 0o700: a folder that only this user may look into.
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            # 0o600: readable by this user alone, from the first byte on. With open()
            # and a chmod() after it, there would be a moment for anybody to read it.
            # The process id in its name: of two windows that save at once, each has a
            # new file of its own, and the one that is later wins.
            new = f"{self.path}.{os.getpid()}"
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(value, file)
            os.replace(new, self.path)
        except OSError as problem:      # a full disk must not cost anybody the chat
            self.trouble = f"{self.what} could not be remembered ({problem})."


class LastLogin(UserFile):
    """The server, port and name of the last login; never a password.

    Who closes the window by mistake is back with one press of Enter.
    """

    def __init__(self):
        """The values of somebody who was never here before."""
        super().__init__("last_login.json", "Your last login")
        self.host, self.port, self.name, self.tls = THIS_COMPUTER[0], PORT, "", False

    def load(self):
        """Read the file, if there is one, and return this object."""
        self.read(self.take)
        return self

    def take(self, login):
        # The wire's own check of fields: a number where a name should be would come up
        # only later, deep inside Tk.
        values = (field(login, "host"), port_number(str(field(login, "port", int))),
                  field(login, "name"), field(login, "tls", bool, default=False))
        # All or none: half of a login would be somebody else's.
        self.host, self.port, self.name, self.tls = values

    def save(self, host, port, name, tls=False):
        """Remember a login that has worked."""
        self.host, self.port, self.name, self.tls = host, port, name, tls
        self.write({"host": host, "port": port, "name": name, **({"tls": True} if tls
                                                                 else {})})
# endregion


# region 2. The wire  (lesson 04)
# This region stands in both scripts, the same to the letter (a test compares), so
# that the client works when it is copied alone to another computer.
# A socket is a program's end of a connection. What goes into one end comes out of the
# other, byte for byte and in order: that is TCP. The work is done by the kernel, the
# heart of the system, which a program asks: connect, send these bytes, receive some.
PORT = 9999
PROTOCOL = 1
LINE_LIMIT = 65_536         # bytes of a line, its "\n" included, in both directions
TEXT_LIMIT = 4_000          # characters
NAME_LIMIT = 20             # characters
REF_LIMIT = 64              # characters
FILE_LIMIT = 10 * 2**20     # bytes
COLORS = 12                 # the server gives out an index from 0 to 11


class WireError(Exception):
    """A line that breaks the protocol: `code` for programs, `text` for people. It is
    worded where the mistake is found: there it is known what was wrong."""

    def __init__(self, code: str, text: str):
        super().__init__(text)
        self.code, self.text = code, text


# "Framing" is the question where a message ends. Ours is JSON Lines: each message is
# one line, and a newline inside a text travels as the two characters \n, which JSON
# writes for it. So a person can speak this protocol too, with nothing but `nc`.
def lines(receive):
    """Yield the lines that `receive()` brings in: a list for each time it brings some.

    `receive` returns some bytes, or b"" at the end. TCP knows nothing of lines: what
    was sent in one piece may arrive in two, and two pieces as one (lesson 03). What
    stands behind the last "\\n" is kept until the rest of it comes:
        recv() -> b'{"type":"li'         no whole line yet
        recv() -> b'st"}\\nhello\\n{"ty'  yields [b'{"type":"list"}', b'hello'],
                                         keeps b'{"ty'
    The lines are bytes, without their end. Raises WireError `line_too_long` past 65,536
    bytes, whether or not the "\\n" ever comes: or one endless line fills our memory."""
    rest = b""
    while data := receive():            # at the end what is left in `rest` is no line
        data = rest + data
        # split() cuts at each "\n". The last piece has none behind it yet.
        pieces = data.split(b"\n")
        rest = pieces.pop()
        # None is too long (with its "\n") where all of them together are not.
        too_long = len(data) >= LINE_LIMIT and any(
            len(piece) >= LINE_LIMIT for piece in pieces + [rest])
        if too_long:                    # what stands in front of it is good
            pieces = [*itertools.takewhile(lambda p: len(p) < LINE_LIMIT, pieces)]
        if b"\r" in data:               # telnet and Windows tools send "\r\n"
            pieces = [line.removesuffix(b"\r") for line in pieces]
        if pieces:
            yield pieces
        if too_long:
            raise WireError("line_too_long",
                            f"A line may have {LINE_LIMIT} bytes; send less at once.")


# ensure_ascii=False: an é travels as itself and not as \u00e9, so a student who watches
# the wire can read it. Made once: json.dumps() makes one for each message, 1 µs more.
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(message: dict) -> bytes:
    """Turn a message into its line: compact JSON in UTF-8, ended by one newline."""
    # "replace": half an emoji (a lone surrogate) cannot be written in UTF-8, and must
    # not end the thread that tries to.
    return (ENCODER.encode(message) + "\n").encode("utf-8", "replace")


# Python's json takes NaN and Infinity, which RFC 8259 (section 6) does not know. Nor
# does int(), which raises ValueError.
DECODER = json.JSONDecoder(parse_constant=int)


def decode(line: bytes) -> dict:
    """Turn a line into its message: a dict with a string under "type".

    Raises WireError `bad_message` for everything else.
    """
    try:
        # DECODER.decode() takes twice as long: it skips spaces by regular expressions.
        text = line.decode("utf-8").strip(" \t\r\n")
        message, end = DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        # ValueError: not UTF-8, not JSON, a number of 10,000 digits. RecursionError:
        # "[" 60,000 times is no more than a line, but deeper than Python can go.
        raise WireError("bad_message", "That line is not JSON in UTF-8.") from None
    if (end < len(text) or not isinstance(message, dict)
            or not isinstance(message.get("type"), str)):
        raise WireError("bad_message", "A line must be one JSON object with a “type”.")
    return message


# Stands for "there is no default". Not None: that is a good default for some fields.
REQUIRED = object()


def field(message: dict, name: str, kind=str, default=REQUIRED):
    """Return the field `name` if it is of this kind; else WireError `bad_message`.
    With a `default` the field may be left out."""
    if name not in message and default is not REQUIRED:
        return default
    value = message.get(name)
    # type() and not isinstance(): to Python True is an int too, to JSON it is not.
    if type(value) is not kind:
        word = {str: "a string", int: "a whole number", list: "a list",
                bool: "true or false"}[kind]
        raise WireError("bad_message", f"The field “{name}” must be {word}.")
    return value


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can write it. JSON's \\ud83d, half an emoji alone, it cannot."""
    try:
        text.encode()                   # quicker than to look at each character
        return True
    except UnicodeEncodeError:
        return False


def clean_name(name: str) -> str:
    """Return the name as it will be shown, or raise WireError `bad_name`.

    NFKC first (as in RFC 8265): Unicode can write the same letter in several ways, and
    this makes one of them: "Ｔｏｍ" in full-width letters becomes "Tom". Then letters
    and digits only: with spaces it could look like a name and the words "is a thief".
    """
    name = normal(name)
    # Python's isalnum() knows the letters and digits of every script. It takes these
    # four, fillers of Korean and Egyptian, for letters too, but nobody can see them.
    good = 1 <= len(name) <= NAME_LIMIT and name[0].isalnum() and all(
        character.isalnum() and character not in "\u115f\u1160\U00013441\U00013442"
        or character in "_-." for character in name)
    if not good:
        raise WireError("bad_name", f"A name has 1 to {NAME_LIMIT} letters, digits, "
                        "“_”, “-” or “.”, and begins with a letter or digit.")
    if name_key(name) == "server":
        raise WireError("bad_name", "The name “Server” belongs to nobody.")
    return name


def name_key(name: str) -> str:
    """Return what names are compared by: "TOM", "tom" and "ｔｏｍ" are one person.

    Otherwise somebody could sit beside Tom as tom, and answer in his place. casefold()
    and not lower(): "STRASSE" and "straße" are the same too. NFKC again after it,
    because casefold can take a letter apart."""
    return normal(normal(name).casefold())


def normal(name: str) -> str:
    """Return the NFKC form; what is too long to be anybody's name stays as it is: a
    line full of accents takes 3 s (measured: they are sorted one by one), and nobody
    else runs meanwhile. NFKC makes one character of four at most."""
    if len(name) > 4 * NAME_LIMIT:
        return name
    return unicodedata.normalize("NFKC", name)


def clean_text(text: str) -> str:
    """Return the text without the space around it, or raise WireError `bad_text`: what
    is bad is refused, and not mended in silence, so that the sender knows of it."""
    text = text.strip()
    if not 1 <= len(text) <= TEXT_LIMIT:
        raise WireError("bad_text", f"A message has 1 to {TEXT_LIMIT} characters; "
                        f"this one has {len(text)}.")
    # Control characters move the cursor, clear the screen or cut the text, wherever
    # somebody prints it. "Cc" is Unicode's word for them. isprintable() is false for
    # all of them and fast, so the slow look is only for what it leaves.
    if not text.isprintable() and (not is_unicode(text) or any(
            unicodedata.category(character) == "Cc" and character not in "\n\t"
            for character in text)):
        raise WireError("bad_text", "That text has control characters or half an "
                        "emoji in it; take them out and send it again.")
    return text


def local_time(stamp: str) -> datetime:
    """Return a time from the wire in this computer's zone; ValueError if it is none."""
    # Before Python 3.11 fromisoformat() does not know the "Z".
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).astimezone()


class TLS:
    """A filter for the bytes of one connection: encrypts what leaves, decrypts what
    has come, and raises ssl.SSLError where somebody has changed it on the way.

    OpenSSL does that, and here it knows no socket. It takes what has arrived from one
    buffer (a BIO) and leaves in another what is to be sent, bytes of its own included:
    first of all the two sides agree on keys, in a handshake. (With ssl.SSLSocket, in
    some Pythons, a recv() that waits holds up the send().) Two threads use it, hence
    the lock. But only one may call encrypt() and send what it returns: two would
    overtake each other, and the other side reads BAD_RECORD_MAC.
    """

    def __init__(self, context, server_side, agreed=lambda: None):
        """`agreed()` is called after the handshake, before anything is decrypted."""
        self.arrived, self.leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.arrived, self.leaving, server_side)
        self.lock, self.agreed = threading.Lock(), agreed
        self.ready = self.over = False

    def read(self, receive, flush) -> bytes:
        """Return some of what receive() brings, decrypted; b"" at the end.

        Calls flush() when TLS itself has something to say: encrypt(b"") returns it.
        """
        plain = b""
        while not (plain or self.over) and (data := receive()):
            try:
                plain = self.decrypt(data)
            finally:                    # its complaint too, before we hang up
                if self.leaving.pending:
                    flush()
        return plain

    def decrypt(self, data) -> bytes:
        plain = bytearray()
        with self.lock:
            self.arrived.write(data)
            try:
                if not self.ready:
                    self.tls.do_handshake()
                    self.agreed()
                    self.ready = True
                while piece := self.tls.read(16_384):
                    plain += piece
                self.over = True        # b"": they have ended it in good order…
            except ssl.SSLWantReadError:
                pass                    # no whole record is left, more will come
            except ssl.SSLZeroReturnError:
                self.over = True        # …and so have we
        return plain

    def encrypt(self, data) -> bytes:
        """Return what is to be sent; None is TLS's own goodbye (RFC 8446, 6.1). Before
        the handshake is done `data` is lost: there is no key for it yet."""
        pieces = []
        with self.lock:
            if data is None:
                with contextlib.suppress(ssl.SSLError):     # it wants theirs, too
                    self.tls.unwrap()
            elif self.ready:
                # In small records: none can be read before its end has come. And a BIO
                # stays as large as the most that it ever held.
                for start in range(0, len(data), 4096):
                    self.tls.write(data[start:start + 4096])
                    pieces.append(self.leaving.read())
            return b"".join(pieces) + self.leaving.read()
# endregion


# region 3. Reaching a server  (lesson 19)
# What stands between "there is an address" and "somebody reads what I say": a socket
# that is set up well, a server that runs, and the certainty that it is the right one.
# The names of computers and the cables between them belong to others. Who owns the
# Wi-Fi can let any address lead to his own computer. TLS makes what travels unreadable
# for him; the fingerprint below finds out whether it travels to him.

def tune(sock: socket.socket):
    """Set what every chat connection wants, on both sides.

    setsockopt(level, option, value) tells the kernel how to treat one socket. The
    names of the options are in the man pages socket(7) and tcp(7).
    """
    # Without this the kernel keeps a small piece back while an earlier one is not yet
    # acknowledged (Nagle, RFC 896), up to 40 ms a line. Measured: worth 7 times the
    # deliveries a second.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A pulled cable says nothing. Keepalive asks after 30 s of silence, six times,
    # 10 s apart, and only then is the connection dead. The kernel answers it, so a
    # program that stands at a breakpoint is not taken for dead.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for names, value in ((("TCP_KEEPIDLE", "TCP_KEEPALIVE"), 30),
                         (("TCP_KEEPINTVL",), 10), (("TCP_KEEPCNT",), 6)):
        for option in names:            # macOS calls the first one by another name
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
                break


def source(sock, outbox, tls):
    """Return the function that brings lines() its bytes, decrypted if there is TLS.

    The lines do not know of TLS, and TLS does not know of lines: each can be read, and
    tested, without the other.
    """
    if tls is None:
        return lambda: receive(sock)
    # Only the send thread sends. An empty piece in its queue makes it ask the filter,
    # and what TLS itself has to say goes out with it.
    return lambda: tls.read(lambda: receive(sock), lambda: outbox.put(b""))


def receive(sock) -> bytes:
    """Wait for bytes, at most 64 KiB; b"" when the connection is over."""
    try:
        return sock.recv(65_536)
    except OSError:                     # reset, found dead by keepalive, or cut by us
        return b""


def send_all(sock, outbox, tls, tap=None):
    """The send thread: what the main thread leaves in the outbox goes out.

    One for each connection, so that none ever sends into the next one. sendall()
    waits when the other side does not read. Here that harms nobody; in the main
    thread it would freeze the window.
    """
    try:
        for data in iter(outbox.get, None):
            if callable(data):          # no bytes: somebody wants to know that all in
                data()                  # front of it has left (see Upload.send_piece)
            else:
                if data and tap:        # before it leaves, or its answer is there first
                    tap.line("→", data)
                sock.sendall(data if tls is None else tls.encrypt(data))
        if tls is not None:
            sock.sendall(tls.encrypt(None))     # TLS has a goodbye of its own
        # Half-close after our bye: we have no more to say, but still read the goodbye.
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass                            # the receive thread finds out, and says so


def cut(sock):
    """End both directions. close() would not wake a thread that stands in recv()."""
    with contextlib.suppress(OSError, AttributeError):  # over already, or not begun
        sock.shutdown(socket.SHUT_RDWR)


class LocalServer:
    """A server on this computer, started from here because none answered.

    The error that beginners meet most is a server that is not running. It is a child
    of this program and in its process group: Ctrl+C in the terminal, or VS Code's Stop,
    end both. Only who kills this one process leaves it behind, with the port.
    """

    def __init__(self):
        self.process = None

    def is_possible(self, host: str) -> bool:
        """Whether a server for this address could be started here, and is not yet."""
        return (host in THIS_COMPUTER and os.path.exists(SERVER_SCRIPT)
                and (self.process is None or self.process.poll() is not None))

    def start(self, port: int):
        """Start it; it needs a moment until it can be talked to.

        Whether it could start is not asked: if it could, the next attempt to connect
        will tell, and if not, it says why in the terminal.
        """
        # stdout into nothing: into a pipe that nobody reads, the server's lines would
        # fill 64 KiB one day, and then its print() would wait for ever.
        self.process = subprocess.Popen(
            [sys.executable, SERVER_SCRIPT, "--no-console", "--port", str(port)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def has_failed(self) -> bool:
        """Whether it has ended by itself: seconds ago somebody else took the port, for
        example. True once."""
        failed = self.process is not None and self.process.poll() is not None
        if failed:
            self.process = None
        return failed

    def stop(self):
        """End it, if it was started from here.

        terminate() sends SIGTERM, which our server takes as Ctrl+C: whoever else has
        come in gets a goodbye. On Windows it ends at once, and they see it break.
        """
        if self.process is not None:
            self.process.terminate()


class KnownServers(UserFile):
    """The fingerprints of the servers that were trusted once: "trust on first use".

    Encryption alone is worth little: one can talk in secret with the wrong one, who
    stands in between, reads all and passes it on (a “man in the middle”). Browsers ask
    authorities who somebody is. ssh does what we do: it shows a fingerprint once, lets
    the user compare it, and from then on insists on it.
    """

    def __init__(self):
        super().__init__("known_servers.json", "The list of known servers")
        self.servers = {}               # "host:port" -> fingerprint
        self.given = {}                 # the same, by --fingerprint

    def take(self, servers):
        # Each is looked at, as in the last login: a line that was mended by hand with
        # a digit too few would lock its owner out without a word.
        self.servers = {where: read_fingerprint(field(servers, where))
                        for where in servers}

    def give(self, host: str, port: int, fingerprint):
        """Let --fingerprint, if there is one, go before what stands in the file."""
        if fingerprint:
            self.given[f"{host.lower()}:{port}"] = fingerprint

    def find(self, host: str, port: int) -> str:
        """Return the fingerprint that this server must have, or "": not known.

        By host and port, as it was typed: what a name stands for is what somebody in
        between could have changed.
        """
        self.read(self.take)            # each time: another window may have changed it
        where = f"{host.lower()}:{port}"
        return self.given.get(where) or self.servers.get(where, "")

    def remember(self, host: str, port: int, fingerprint: str):
        """Keep one; from now on this server must have it."""
        self.read(self.take)
        where = f"{host.lower()}:{port}"
        if self.servers.get(where) != fingerprint:
            self.servers[where] = fingerprint
            self.write(self.servers)


class StrangeServer(Exception):
    """The server is not one that we know. Its text is for the user.

    An exception, since it must end the attempt wherever that stands; not a WireError,
    since no line was wrong.
    """

    def __init__(self, text, fingerprint, known):
        """`known`: the one that it should have, or ""; then it can be accepted."""
        super().__init__(text)
        self.fingerprint, self.known = fingerprint, known


def new_tls(agreed) -> TLS:
    """Return the filter for a new connection; for `agreed` see check_fingerprint()."""
    # A context holds what all connections of a kind have in common: versions, ciphers,
    # certificates. Python's own choice of ciphers is good, so we make none.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2    # older ones are broken
    context.options |= ssl.OP_NO_RENEGOTIATION  # encrypt() could take no part in it
    # No authority is asked who this is: nobody would vouch for a server in a classroom,
    # which has no name in the internet. check_fingerprint() takes its place; without
    # it these two lines would be a hole as large as the whole of TLS.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return TLS(context, server_side=False, agreed=agreed)


def check_fingerprint(tls: TLS, known: str, where: str):
    """Raise StrangeServer unless the other side has the certificate that we know.

    A certificate is no secret: anybody can copy it and show it. But the handshake has
    proven that the other side has the private key that belongs to it. And nobody can
    make another certificate with the same SHA-256 hash.
    """
    certificate = tls.tls.getpeercert(binary_form=True)
    shown = read_fingerprint(hashlib.sha256(certificate).hexdigest())
    if not known:
        raise StrangeServer(
            f"{where} is a server that you do not know yet. Its fingerprint is\n{shown}"
            "\nTrust it only if the server’s terminal shows the same.", shown, known)
    if shown != known:
        raise StrangeServer(
            f"Careful: {where} is not the server that you know. Either it has a new "
            "certificate, or somebody stands between you and it, to read along. It "
            f"should have the fingerprint\n{known}\nand has\n{shown}\nAsk who runs it. "
            "If the new one is right, start once with --fingerprint and the new one.",
            shown, known)


def connect_sentence(problem, host, port, known=None):
    """Return (why nobody was reached and what to do, whether trying on is idle).

    The system's own words would be "[Errno 111] Connection refused": true, and no help
    to somebody who sees them for the first time.
    """
    where = f"{host}:{port}"
    if ssl is not None and isinstance(problem, ssl.SSLError):
        # What OpenSSL says if the first bytes are plain text.
        if problem.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            how = f"take its line out of {KnownServers().path}" if known else "do so"
            return (f"{where} speaks no TLS. Ask who runs it, before you talk to it "
                    f"without; then {how}."), True
        return f"TLS with {where} has failed ({problem.reason}).", True
    if isinstance(problem, ConnectionRefusedError):
        # The computer is there, and says that no program listens on that port.
        return f"No server answers at {where}. Is ChattyCat_Server.py running?", False
    if isinstance(problem, (socket.gaierror, ValueError)):
        # ValueError: a name that no computer can have, such as "a..b".
        return f"No computer called “{host}” was found; look at the address.", True
    if isinstance(problem, socket.timeout):
        # Nobody even refuses. A firewall that drops packets looks like this, and so
        # does an address that no computer has.
        return (f"{where} gives no answer at all: it is switched off, in another "
                "network, or a firewall keeps us out."), False
    return f"{where} cannot be reached: {problem.strerror or problem}.", False
# endregion


# region 4. The connection  (lesson 11)
# How many events may wait for the main thread. When it is full the receive thread
# waits, so its socket is not read, so TCP makes the server wait: a server that floods
# us cannot fill our memory.
EVENTS = 10_000
FIRST_PAUSE = 1             # seconds before the first new attempt to connect


class Connection:
    """One login to one server. Knows no screen: whatever happens becomes an event.

    An event is a pair (kind, data):
        "status"   state, text (a sentence); when waiting: until (a time), attempt;
                   of a server that we do not know: fingerprint, known; where it is
                   the password that was wrong: password
        "message"  what the server sent, as the wire region decoded it
        "nonsense" a sentence: a line came that could not be decoded
    The states: connecting; greeting (hello is said); online; waiting (tries again
    after so many seconds); offline (for good).

    Three threads, and each thing belongs to one of them: the socket's reading end to
    the receive thread, its sending end to the send thread, everything else to the main
    thread. Between them stand two queues. That is why there is no lock here.
    """

    def __init__(self, host: str, port: int, name: str, password="", known=None,
                 session="", since=0, files=None, tap=None):
        """`known`: the fingerprint that the server must have, "" if it is not known
        yet; None: without TLS. `session` and `since` are of an earlier login. `files`:
        the file thread, if there is one (see Files.take); `tap`: who keeps the lines
        for the wire view."""
        self.host, self.port, self.name, self.password = host, port, name, password
        self.known, self.more = known, {}       # more for the last event, see run()
        self.files, self.tap = files, tap
        # The secret by which the server knows us again, and the highest id that came.
        self.session, self.since = session, since
        # A Queue hands things from thread to thread, in order. This one is bounded:
        # put() waits while it is full. A SimpleQueue is not, so it never waits.
        self.events = queue.Queue(EVENTS)
        self.outbox = self.next_outbox = queue.SimpleQueue()
        # An Event is a flag that a thread can wait for. Here: cut the pause short.
        self.wake = threading.Event()
        # Whether the user does not want it any more; for the rest see close().
        self.closing = False
        self.sock = self.limit = None
        # Whether we were ever welcome; which attempt this is; the server's last line.
        self.was_online, self.attempt, self.goodbye = False, 0, None
        # The main thread neither connects nor reads nor sends: each can take long, and
        # the window would stand still. daemon=True: such a thread does not keep the
        # program alive when the window closes.
        self.thread = threading.Thread(target=self.run, daemon=True, name="receive")
        self.thread.start()

    # The next four are for the main thread, and return at once.

    def drain(self, take, most: int, seconds: float) -> bool:
        """Call take(kind, data) for what waits; return whether more is there.

        Bounded in number and in time, so that the window stays awake in any flood.
        """
        end = time.monotonic() + seconds
        for _ in range(most):
            try:
                # get_nowait() raises Empty where get() would wait.
                take(*self.events.get_nowait())
            except queue.Empty:
                return False
            if time.monotonic() > end or self.closing:
                break
        return not self.events.empty()

    def send(self, message: dict):
        """Leave a message for the send thread. Never waits."""
        self.outbox.put(encode(message))

    def hello(self, name: str, password=""):
        """Try again on the same connection, because the first try was refused."""
        self.name, self.password = name, password
        self.next_outbox.put(encode(self.greeting()))

    def greeting(self) -> dict:
        """Return our hello; with a session the server knows us again by it."""
        message = {"type": "hello", "name": self.name, "version": PROTOCOL}
        if self.password:
            message["password"] = self.password
        if self.session:
            message.update(session=self.session, since=self.since)
        return message

    def close(self):
        """Leave in good order: the bye goes out, the threads end by themselves.

        A Timer is a thread that calls a function later: who has not answered in 2 s
        never will, and would keep our threads for ever.
        """
        self.closing = True
        self.wake.set()
        self.limit = threading.Timer(2, cut, (self.sock,))
        self.limit.daemon = True
        self.limit.start()
        self.outbox = self.next_outbox
        self.send({"type": "bye"})
        self.outbox.put(None)

    def put(self, kind, data):
        """Hand over an event. Waits while there are too many, until close()."""
        while not self.closing:
            with contextlib.suppress(queue.Full):
                return self.events.put((kind, data), timeout=1)

    def tell(self, state, text, **more):
        """Hand over how the connection is, and write it into the program log."""
        LOG.info("%s: %r", state, text)     # %r: no newline of a server's makes a line
        if self.tap:
            self.tap.note(text)
        self.put("status", dict(state=state, text=text, **more))

    def run(self):
        """Connect, talk until it ends, wait, connect again; until it ends for good."""
        while not self.closing:
            trouble, for_good = self.one_attempt()
            if for_good:
                self.tell("offline", trouble, **self.more)
                return
            self.attempt += 1
            # 1, 2, 4 … 30 s, so that a server that comes back is not overrun; a tenth
            # more or less, so that not all clients come in the same moment. Before the
            # first welcome at most 3 s: somebody is about to start that server.
            pause = FIRST_PAUSE * 2 ** min(self.attempt - 1, 5)
            pause = min(pause, 30 if self.was_online else 3) * random.uniform(0.9, 1.1)
            # A “Retry now” that came while we were getting in by ourselves is not meant
            # for this pause.
            self.wake.clear()
            self.tell("waiting", trouble, attempt=self.attempt,
                      until=time.monotonic() + pause)
            if not self.closing:        # close() could have come before clear()
                self.wake.wait(pause)   # close() and “Retry now” end it sooner

    def one_attempt(self):
        """Be connected once. Returns (a sentence: what ended it, whether for good)."""
        # Nobody was reached; or a goodbye said why; or it broke in the middle.
        where = f"{self.host}:{self.port}"
        self.tell("connecting", f"Connecting to {where} …")
        self.goodbye = None
        try:
            self.talk()
        except WireError:
            return f"What answers at {where} is not a ChattyCat server.", True
        except StrangeServer as problem:
            self.more = vars(problem)   # its fields, for the user's choice
            return str(problem), True
        except (OSError, ValueError) as problem:
            text, hopeless = connect_sentence(problem, self.host, self.port,
                                              self.known)
            # (A laptop that wakes up has no network for a moment.)
            return text, hopeless and not self.was_online
        if self.goodbye:
            self.more = {"password": self.goodbye.get("reason") == "bad_password"}
            # After a shutdown a server may be back soon, and who waited at its door in
            # vain may have better luck. To try on after other goodbyes would be rude.
            return (str(self.goodbye.get("text", "The server hung up.")),
                    self.goodbye.get("reason")
                    not in ("shutdown", "hello_timeout"))
        return f"The connection to {where} was lost.", False

    def talk(self):
        """Say hello, then turn what comes into events, until the connection ends."""
        # create_connection() looks the name up and tries each address it has, IPv6
        # and IPv4. Without a limit, a firewall that swallows packets costs minutes.
        with socket.create_connection((self.host, self.port), timeout=10) as sock:
            sock.settimeout(None)       # from here on recv() may wait for ever
            tune(sock)
            self.sock = sock            # for close()
            # A new outbox. send() uses it from the welcome on. What it leaves in the
            # old one until then goes nowhere, but comes again, for lack of a receipt:
            # here it would overtake what was said before it.
            outbox = self.next_outbox = queue.SimpleQueue()
            if self.closing:            # close() came while we were connecting
                return
            self.tell("greeting", f"Connected to {self.host}:{self.port}; "
                      "waiting for its welcome …")
            tls = self.greet(outbox)
            threading.Thread(target=send_all, args=(sock, outbox, tls, self.tap),
                             daemon=True, name="send").start()
            try:
                for came in lines(source(sock, outbox, tls)):
                    for line in filter(None, came):     # not the blank ones
                        self.take_in(line)
            finally:
                outbox.put(None)        # ends the send thread
                cut(sock)
                if self.limit is not None:
                    self.limit.cancel()

    def greet(self, outbox):
        """Say hello; with TLS as soon as it is safe. Returns the filter, or None."""
        if self.known is None:
            outbox.put(encode(self.greeting()))
            return None

        def agreed():
            # Before anything of ours leaves, and before anything of theirs is read: no
            # name, password or session for somebody else than who was meant.
            check_fingerprint(tls, self.known, f"{self.host}:{self.port}")
            outbox.put(encode(self.greeting()))

        tls = new_tls(agreed)
        tls.decrypt(b"")                # the first bytes of the handshake; see source()
        outbox.put(b"")
        return tls

    def take_in(self, line: bytes):
        """Turn one line into an event. Raises WireError if this is no ChattyCat."""
        if self.tap:
            self.tap.line("←", line)
        try:
            message = decode(line)
        except WireError as problem:
            # Before the welcome: a web server, a mail server, … Later: a ChattyCat
            # server that somebody is working on; one bad line must not end the chat.
            if not self.was_online:
                raise
            self.put("nonsense", problem.text)
            return
        self.take_note(message)
        if self.files is None or not self.files.take(message):
            self.put("message", message)

    def take_note(self, message: dict):
        """Keep what our next hello has to say; only of the kinds that it should be."""
        number, last_id = message.get("id"), message.get("last_id")
        if message["type"] == "goodbye":
            self.goodbye = message
        elif message["type"] == "welcome":
            self.was_online, self.attempt, self.outbox = True, 0, self.next_outbox
            self.session = str(message.get("session", ""))
            last_id = last_id if type(last_id) is int else 0
            # Somebody new gets the newest 50 or so (--recent). If it breaks before they
            # have come, we ask for these, and not for a million. And who comes back may
            # find less than before: the ids that a power cut took are given again.
            self.since = (min(self.since, last_id) if message.get("resumed") is True
                          else max(0, last_id - 50))
        if type(number) is int:
            self.since = max(self.since, number)
# endregion


# region 5. Files on the disk  (lesson 18)
# Who receives a file lets others write on this disk. What they send is theirs; where it
# lies, and under which name, is ours to say. Two rules make that safe. A name of theirs
# is never used as it came. And under its name there is the whole file, or nothing: half
# of one, which looks like all of it, is worse than none.
#
# File systems take names of 255 bytes; “.part” and “ (12)” must fit in as well.
NAME_BYTES = 200
# On Windows these are no files but devices, whatever stands behind a dot: who saves
# something as CON.txt writes it on the terminal.
DEVICES = {"CON", "PRN", "AUX", "NUL", *(
    kind + digit for kind in ("COM", "LPT") for digit in "0123456789¹²³")}


def safe_name(name: str) -> str:
    """Return a name under which a file can be saved, on any system, in its folder.

    It comes from somebody else. “../../x” and “C:\\x” would leave the folder, “.bashrc”
    would become a part of the system, and with U+202E, which turns text round,
    "gnp.exe" would read as “exe.png”.
    """
    name = re.split(r"[/\\]", name)[-1]
    # What Windows has no place for in a name, and what nobody can see; but for the two
    # that join letters in Persian and people in emoji.
    name = "".join("_" if character in '<>:"|?*' or not (
        character.isprintable() or character in "\u200c\u200d") else character
        for character in name).strip(". ")
    stem, ending = os.path.splitext(name)
    if len(ending.encode()) > 20:       # then it is no ending, but a long sentence
        stem, ending = name, ""
    # Cut by bytes, as file systems count. "ignore" drops a letter that was cut in two.
    room = NAME_BYTES - len(ending.encode())
    name = stem.encode()[:room].decode(errors="ignore").rstrip(". ") + ending
    if name.partition(".")[0].strip().upper() in DEVICES:
        name = "_" + name
    return name or "file"


def size_in_words(size) -> str:
    """Return "1.2 MiB" and the like: 1 KiB is 1,024 bytes, 1 MiB 1,024 KiB.

    (A MB has 1,000,000 bytes. The two differ by 5 %, and so have names of their own.)
    """
    if size < 1024:
        return f"{size} bytes" if size != 1 else "1 byte"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        # Not 1024: "1,003.2 KiB" says less than "1.0 MiB".
        if size < 1000 or unit == "GiB":
            return f"{size:,.1f} {unit}"


def downloads_folder() -> str:
    """Return where this user's browser puts what it saves: people look there first.

    On Linux that folder has another name in each language, and a small file knows it
    (freedesktop.org, xdg-user-dirs): XDG_DOWNLOAD_DIR="$HOME/Téléchargements"
    """
    home = os.path.expanduser("~")
    settings = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    with contextlib.suppress(OSError, ValueError):
        with open(os.path.join(settings, "user-dirs.dirs"), encoding="utf-8") as file:
            found = re.search(r'^\s*XDG_DOWNLOAD_DIR="(\$HOME/|/)(.+)"$', file.read(),
                              re.MULTILINE)
        if found:
            return os.path.join(found[1].replace("$HOME", home), found[2])
    return os.path.join(home, "Downloads")


def path_as_typed(path):
    """Return the path that is meant. What is dragged into a terminal comes as a shell
    wants it: in quotes, or with a backslash in front of each space. And people who
    know shells type it so.
    """
    if os.path.exists(os.path.expanduser(path)):
        return path
    if os.name == "nt":
        return path.strip('"')
    with contextlib.suppress(ValueError):       # an apostrophe alone: “Tom's cat”
        # shlex takes a line apart as a shell does.
        words = shlex.split(path)
        path = words[0] if len(words) == 1 else path
    return path


def look_at(path, limit):
    """Return (name, size) of a file that can be sent; else OSError or ValueError.

    `limit`: how many bytes the server takes. What it would refuse is not even read. And
    nothing is opened here: who opens a FIFO waits for somebody to write into it.
    """
    about = os.stat(path)
    if stat.S_ISDIR(about.st_mode):
        raise ValueError(f"{path} is a folder; make a ZIP file of it first.")
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{path} is a device or the like, and no file.")
    if not limit:
        raise ValueError(f"{path} was not sent: this server takes no files.")
    if about.st_size > limit:
        raise ValueError(f"{path} has {size_in_words(about.st_size)} "
                         f"({about.st_size:,} bytes); this server takes files of at "
                         f"most {size_in_words(limit)} ({limit:,} bytes).")
    return safe_name(os.path.basename(path)), about.st_size


def free_names(path):
    """Yield a path, then the same with (1), (2), … in front of its ending: there it
    still opens with the same program."""
    yield path
    stem, ending = os.path.splitext(path)
    # A bound, or a folder in which nothing can be made would keep us here for ever.
    for number in range(1, 1_000):
        yield f"{stem} ({number}){ending}"
    raise OSError("too many files of that name are there")


def open_part(path):
    """Return (a new file NAME.part, open for writing, its path). Raises OSError.

    Under its own name there is never half of a file. Whoever looks into the folder, or
    a program that waits there, takes for whole what has its name.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    for free in free_names(path):
        # lexists() and not exists(): a link that leads nowhere is there, too.
        if not os.path.lexists(free):
            # "x": raises FileExistsError if it is there. Not to look first and open
            # then: in between somebody else, or a link of theirs, may have come.
            with contextlib.suppress(FileExistsError):
                return open(free + ".part", "xb"), free + ".part"


def give_name(part, path) -> str:
    """Let a whole file have its name, or the next one that is free; return which.

    The name was free when we began. Since then another window may have saved something.
    A rename would take the place of what is there, in silence. A link never does; so
    the file gets a second name, and then the first one is taken away.
    """
    for free in free_names(path):
        try:
            os.link(part, free)
            os.remove(part)
            return free
        except FileExistsError:
            continue
        except OSError:                 # a USB stick (FAT) knows no links
            if not os.path.lexists(free):
                os.rename(part, free)
                return free


def open_at_once(path, flags) -> int:
    """Open a file for open(), without waiting.

    If it has become a FIFO meanwhile, the file thread would stand there until somebody
    writes into it. For a file on a disk the flag changes nothing; Windows has none.
    """
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def clear_away(path):
    """Remove a file that is not wanted any more, if it can be.

    What is left behind harms nobody, so it is no reason to bother anybody.
    """
    with contextlib.suppress(OSError):
        os.remove(path)


# A dataclass: from the list of fields Python writes the __init__ for us. eq=False: two
# are only equal if they are the very same one.
@dataclasses.dataclass(eq=False)
class SharedFile:
    """A file that a line is about.

    number      by which one speaks of it here: /save 3
    id          by which the server knows it; "" before it has arrived there
    path        where it lies on this computer: what we sent, or have saved
    picture     where it lies only to be shown
    transfer    the newest Transfer, if it was ever moved
    """
    name: str
    size: int
    sha256: str = ""
    id: str = ""
    path: str = ""
    picture: str = ""
    transfer: object = None
    number: int = 0

    def __str__(self):
        return f"{self.name} ({size_in_words(self.size)})"


def open_outside(what):
    """Show a saved file in its folder, or open a link; OSError if no program here does.

    The file itself is never opened by us: it comes from somebody else, and may be a
    program. And no shell is used, which could obey what stands in its name.
    """
    link = re.match("https?://", what, re.IGNORECASE)
    if os.name == "nt":
        if link:
            os.startfile(what)          # as a double click; explorer trips over a "="
            return
        # Its whole path: Windows would look into the current folder first.
        command = [os.path.join(os.environ.get("SystemRoot", r"C:\Windows"),
                                "explorer.exe"), "/select,", what]
    elif sys.platform == "darwin":
        command = ["open", what] if link else ["open", "-R", what]
    else:
        command = ["xdg-open", what if link else os.path.dirname(what)]
    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL)
# endregion


# region 6. A file on its way  (lesson 18)
# How much is on the way at a time is the one question of this region. Too little, and
# each piece waits for an answer; too much, and what somebody says stands behind it.
CHUNK = 32_768              # bytes of a file in one line, before base64
AHEAD = 16 * CHUNK          # so many bytes may be on their way up…
WISH = 8 * CHUNK            # …and so many come down for each time that we ask
HASH_AT_ONCE = 2**20        # bytes that are read before others have their turn
TELL_SECONDS = 0.1          # between two looks at a progress bar


class Transfer:
    """A file on its way. Only the file thread changes it, all others look at it.

        waiting    for its turn
        reading    to be hashed, before it goes up
        running    pieces travel, or will when the connection is back
        done       up: all may have it; down: it lies at `path`
        failed     `trouble` says why, and what had come of it is removed
    """

    def __init__(self, files, path: str, name: str, size: int):
        """`path`: where from, or where to; `name`: as others see it; `size`: bytes."""
        self.files, self.path, self.name, self.size = files, path, name, size
        # The server's id for it, and our own label; the one or the other is known.
        self.file = self.ref = self.sha256 = self.trouble = ""
        # The open file; the path of NAME.part; how many bytes have arrived.
        self.state, self.disk, self.part, self.done = "waiting", None, "", 0
        # When the main thread was told of it; (done, when) at its last start.
        self.told, self.mark = 0.0, (0, 0.0)

    def speed(self) -> float:
        """Return bytes a second since the last start, so that a break between the two
        does not count."""
        done, since = self.mark
        return (self.done - done) / max(0.001, time.monotonic() - since)

    def progress(self) -> str:
        """Return how far it is: "40 %, 4.0 MiB of 10.0 MiB, 1.6 MiB/s, 4 s left"."""
        words = (f"{100 * self.done // max(1, self.size)} %, "
                 f"{size_in_words(self.done)} of {size_in_words(self.size)}")
        speed = self.speed()
        if self.state == "running" and speed >= 1:
            words += (f", {size_in_words(round(speed))}/s, "
                      f"{math.ceil((self.size - self.done) / speed):,} s left")
        return words if self.state == "running" else f"{self.state}: {words}"

    def is_over(self) -> bool:
        """Whether nothing more will happen to it. To try again is another Transfer."""
        return self.state in ("done", "failed")

    def is_about(self, message) -> bool:
        """Whether a message is about this file: by the server's id, or our label.
        (a == b != "" is short for a == b and b != "".)"""
        return (message.get("file") == self.file != ""
                or message.get("ref") == self.ref != "")

    def change(self, state):
        """Tell the main thread: each new state, and ten times a second the rest."""
        now = time.monotonic()
        if state != self.state or now - self.told > TELL_SECONDS:
            self.state, self.told = state, now
            self.files.news.put(self)

    def run_on(self):
        """Pieces travel from here on, and the speed counts from here: what was there
        before a break has not come by this connection."""
        self.mark = self.done, time.monotonic()
        self.change("running")

    def fail(self, why):
        """The end, without success: leave nothing half behind."""
        self.trouble = why
        self.over("failed")

    def on_error(self, message):
        """The server has refused it."""
        self.fail(field(message, "text"))

    def over(self, state):
        """The end: close the file, and let the next one begin. A NAME.part is removed:
        to go on with it after all, somebody would have to remember what it is."""
        if self.disk is not None:
            with contextlib.suppress(OSError):      # what it still had to write
                self.disk.close()
        if self.part:
            clear_away(self.part)
        self.disk, self.part = None, ""
        self.change(state)
        self.files.begin_next(self)


class Upload(Transfer):
    """A file that goes to the server: hashed, then offered, then sent."""
    ready = offered = sending = False
    sent = may = 0                      # bytes that have left; and up to where they may

    def begin(self):
        """Read it once, for its hash: by that the server knows it again."""
        self.disk = open(self.path, "rb", opener=open_at_once)
        if not stat.S_ISREG(os.fstat(self.disk.fileno()).st_mode):
            raise OSError("it is no file any more")
        self.hash = hashlib.sha256()
        self.ready, self.done, self.file = False, 0, ""
        self.change("reading")
        self.read_on()

    def read_on(self):
        """Hash the next MiB. Then others have their turn, pieces of a download above
        all; of a large file it would be too long until its end."""
        if self.state != "reading":     # it was cancelled
            return
        data = self.disk.read(HASH_AT_ONCE)
        self.hash.update(data)
        self.done += len(data)
        if data and self.done <= self.size:
            self.change("reading")
            self.files.order(self.files.attempt, self, self.read_on)
        elif self.done != self.size:
            self.fail("It has changed while it was read; send it again.")
        else:
            self.ready, self.done, self.sha256 = True, 0, self.hash.hexdigest()
            self.change("waiting")
            self.go_on()

    def go_on(self):
        """Offer it, for the first time or after a break. The server answers with the
        byte from which it wants it: 0, or what it has of it already."""
        if self.ready:
            self.offered, self.sending = True, False
            offer = {"type": "upload", "ref": self.ref, "name": self.name,
                     "size": self.size, "sha256": self.sha256}
            self.files.send({**offer, "to": self.to} if self.to else offer)

    def is_about(self, message) -> bool:
        """As above; but a go-ahead that comes before we have offered it is for another
        one: it was cancelled, and sent again with the same label."""
        return super().is_about(message) and (
            self.ready or message["type"] != "upload_ready")

    def on_upload_ready(self, message):
        """The server has all up to a byte, and may be sent 16 pieces from there on."""
        offset = field(message, "offset", int)
        if not (0 if self.offered else self.done) <= offset <= self.size:
            raise WireError("bad_file", "The server asked for a piece that is none.")
        self.file = field(message, "file")
        self.done, self.may = offset, min(self.size, offset + AHEAD)
        if self.offered:
            self.offered, self.sent = False, offset
            self.run_on()
        self.change("running")
        if not self.sending:
            self.send_piece(self.files.connection.outbox)

    def send_piece(self, outbox):
        """Send one piece. When it has left, the send thread lets the next one be sent.

        All 16 at once would stand in the outbox before the next chat line.
        """
        self.sending = False
        if (self.state != "running" or self.offered or self.sent >= self.may
                or outbox is not self.files.connection.outbox):
            return                      # enough for now; or of a connection before this
        self.disk.seek(self.sent)
        data = self.disk.read(min(CHUNK, self.may - self.sent))
        if not data:
            raise OSError("the file has become shorter")
        outbox.put(encode({"type": "chunk", "file": self.file, "offset": self.sent,
                           "data": binascii.b2a_base64(data, newline=False).decode()}))
        outbox.put(lambda: self.files.order(
            self.files.attempt, self, self.send_piece, outbox))
        self.sent, self.sending = self.sent + len(data), True

    def on_file(self, message):
        """It is announced, to all who may see it: that is the receipt, as for a chat
        line. Until then nobody knows whether it has arrived whole."""
        self.done = self.size
        self.over("done")


class Download(Transfer):
    """A file that comes from the server: asked for, written, looked at as a whole."""
    source = ""                         # it lies here already, and is only copied
    asked = 0                           # up to this byte it was asked for

    def begin(self):
        """Make a place for it."""
        self.disk, self.part = open_part(self.path)
        self.hash, self.done = hashlib.sha256(), 0
        if self.source:
            with open(self.source, "rb") as disk:
                self.write(disk.read())
        self.go_on()

    def go_on(self):
        """Ask for what is not here yet; after a break too, from where it broke. The
        server keeps no account of it."""
        if self.disk is not None:
            self.asked = self.done
            self.run_on()
            self.ask()

    def ask(self):
        """Ask for 8 more pieces when half of the last 8 are here: so the server always
        has something to send, and there are never more than 12 on the way."""
        if self.done == self.size:
            self.finish()
        elif self.asked < self.size and self.asked - self.done <= WISH // 2:
            self.files.send({"type": "download", "file": self.file,
                             "offset": self.asked})
            self.asked = min(self.size, self.asked + WISH)

    def on_chunk(self, message):
        """A piece has come. One that is not due is of a download that was stopped."""
        if field(message, "offset", int) != self.done:
            return
        try:
            data = binascii.a2b_base64(field(message, "data"))
        except ValueError:
            data = b""
        if not 0 < len(data) <= min(CHUNK, self.asked - self.done):
            raise WireError("bad_file", "The server sent a piece that is none.")
        self.write(data)
        self.change("running")
        self.ask()

    def write(self, data):
        """Take in the next bytes. The hash goes along, so that in the end nothing has
        to be read once more."""
        self.disk.write(data)
        self.hash.update(data)
        self.done += len(data)

    def finish(self):
        """All of it is here: only now it gets its name."""
        if self.hash.hexdigest() != self.sha256:
            # A disk, a server, or a student's server can have made a mistake.
            raise WireError("bad_file", "What came has another SHA-256 than what was "
                            "sent. It was thrown away.")
        # Somebody may have cleared NAME.part away, and another one have made theirs.
        if not os.path.samestat(os.fstat(self.disk.fileno()), os.stat(self.part)):
            self.part = ""              # it is not ours to remove
            raise OSError("somebody has taken it away")
        self.disk.close()               # the last bytes go to the disk, or raise here
        self.path, self.part = give_name(self.part, self.path), ""
        self.over("done")
# endregion


# region 7. The file thread  (lesson 18)
# Files are read, hashed and written by a thread of their own. In the main thread a slow
# disk, a USB stick for example, would freeze the window; in the receive thread it would
# hold up the chat.
NOT_TAKEN_YET = 32          # pieces that may wait for the file thread
CANCELLED = "Cancelled."    # the trouble of what the user has stopped


class Files:
    """The file thread. Others order() something of it, and it answers by `news`.

    All that it has to know comes by one queue: what the user wants, what the server has
    sent, that a piece has left. So these happen one after the other, and there is no
    lock. (Programs that are made of such threads alone are made of “actors”.)

    One file goes up at a time, and one comes down; the others wait for their turn. Ten
    at once would not be faster, and ten times as much would stand before a chat line.
    """

    def __init__(self):
        self.inbox, self.news = queue.SimpleQueue(), queue.SimpleQueue()
        # A semaphore counts down, and acquire() waits at 0. So a server that sends more
        # than we can write waits in our receive thread, and does not fill our memory.
        # For pieces alone: of those there are never more than 12 if nobody cheats. A
        # disk that hangs must not stop the chat, by what others send to all.
        self.places = threading.Semaphore(NOT_TAKEN_YET)
        self.connection = None          # the one that was welcomed last
        self.over = False
        self.up, self.down = collections.deque(), collections.deque()
        # The ids of uploads that were stopped: answers about them are on the way yet.
        # And the labels of those that had no id then: the server still has to be told.
        self.cancelled = collections.deque(maxlen=100)
        self.nameless = collections.deque(maxlen=100)
        threading.Thread(target=self.run, daemon=True, name="files").start()

    # These two can be called by any thread.

    def order(self, method, *what):
        """Let the file thread call this. Returns at once."""
        self.inbox.put((method, what))

    def take(self, message) -> bool:
        """Called with each message of the server; whether it is for nobody else.

        It is called by the receive thread, and not by the main one as for all others.
        That one comes to look 20 times a second, and 8 pieces each time are 5 MB/s.
        """
        kind = message["type"]
        if kind == "chunk" and not self.over:
            self.places.acquire()
        if kind in ("chunk", "upload_ready", "file", "error"):
            self.order(self.received, message)
        return kind in ("chunk", "upload_ready")

    # All others belong to the file thread.

    def run(self):
        """The file thread: do what was ordered, one thing after the other. (iter() with
        two arguments calls the first, again and again, until it returns the second.)"""
        for method, what in iter(self.inbox.get, None):
            try:
                method(*what)
            except Exception:           # a mistake costs a file, and not the thread
                report_mistake()
        self.over = True                # and nobody has to wait for us any more
        self.places.release(NOT_TAKEN_YET)

    def attempt(self, transfer, method, *what):
        """Go on with a transfer; what goes wrong ends it, and it alone.

        OSError: the disk; WireError: the server sent what makes no sense. Whatever it
        is, the user needs a sentence, and the next file its turn.
        """
        try:
            method(*what)
        except OSError as problem:
            transfer.fail(f"{transfer.path} cannot be used: "
                          f"{problem.strerror or problem}.")
        except (WireError, ValueError) as problem:
            transfer.fail(str(problem))     # ValueError: no path, with a NUL in it
        except Exception:
            report_mistake()
            transfer.fail("The program has stumbled over it; its log shows where.")

    def received(self, message):
        """Give a message to the transfer that it is about, if there is one.

        There may be none any more: what was cancelled had pieces on the way.
        """
        if message["type"] == "chunk":
            self.places.release()       # the receive thread may bring the next one
        for transfer in [*list(self.up)[:1], *list(self.down)[:1]]:
            method = getattr(transfer, "on_" + message["type"], None)
            if (method and transfer.is_about(message)
                    and message.get("file") not in self.cancelled):
                self.attempt(transfer, method, message)
                return
        if message["type"] == "upload_ready" and message.get("ref") in self.nameless:
            self.nameless.remove(message["ref"])
            self.send({"type": "cancel", "file": message.get("file")})

    def send(self, message):
        """Send to the server. Without one nothing is lost: online() asks again."""
        if self.connection is not None:
            self.connection.send(message)

    def start(self, transfer):
        """Line a transfer up, for the first time or once more."""
        transfer.state, transfer.trouble = "waiting", ""
        self.queue_of(transfer).append(transfer)
        self.begin_first(self.queue_of(transfer))

    def queue_of(self, transfer):
        """Return the queue where it waits; the first one in it is on its way.

        Two queues, and not one: what goes up does not hold up what comes down.
        """
        return self.up if isinstance(transfer, Upload) else self.down

    def begin_first(self, transfers):
        """Begin with the first one in the queue, if it has not begun."""
        if transfers and transfers[0].disk is None:
            self.attempt(transfers[0], transfers[0].begin)

    def begin_next(self, transfer):
        """One is over. By an order, or a hundred that fail would call each other."""
        transfers = self.queue_of(transfer)
        with contextlib.suppress(ValueError):
            transfers.remove(transfer)
        self.order(self.begin_first, transfers)

    def online(self, connection, resumed):
        """There is a connection (again): go on where it broke.

        `resumed`: whether the server knows us. A new one does not know either what had
        arrived at the last one; what had left as a whole may have been announced there.
        """
        self.connection = connection
        for transfer in [*list(self.up)[:1], *list(self.down)[:1]]:
            if self.is_unknown(transfer) and not resumed:
                transfer.fail("It is not known whether it arrived.")
            else:
                self.attempt(transfer, transfer.go_on)

    def is_unknown(self, transfer):
        """Whether all of it has left, and only the receipt is missing.

        To send it once more might show it twice. That is for the user to decide.
        """
        return (isinstance(transfer, Upload) and transfer.ready
                and transfer.state == "running" and transfer.sent == transfer.size)

    def cancel(self, transfer):
        """Stop a transfer, wherever it stands. The server is told: else it would keep
        half of an upload for an hour."""
        if not transfer.is_over():
            if transfer.file:
                self.send({"type": "cancel", "file": transfer.file})
                if isinstance(transfer, Upload):
                    self.cancelled.append(transfer.file)
            elif transfer.ref:
                self.nameless.append(transfer.ref)
            transfer.fail(CANCELLED)

    def cancel_all(self, done):
        """Stop everything, the last one first, so that none begins.

        `done`: an Event. The end of the program waits for it, but not for long.
        """
        for transfer in [*self.down, *self.up][::-1]:
            self.cancel(transfer)
        done.set()
# endregion


# region 8. The wire, watched  (lesson 04)
# A tap on a line hears what goes over it, and changes nothing. Ours keeps the newest
# lines for the one who wants to see what really travels: the wire view, F12.
TAPPED_LINES = 2_000
# Of each line only so much. A piece of a file is 44 KB in its line, and 2,000 of those,
# whole, would take 87 MB.
TAPPED_BYTES = 1_000
# A session of our server is a number and this, which nobody can guess.
SESSION = re.compile(rb"\.[\w-]{43}")
# Only in such a line can there be a secret. “pass” and “sess” are how the names of the
# two secret fields begin. JSON could also write them without any of these letters, each
# as \u and its number: hence “\u”. The last is a session, wherever it stands.
SUSPICIOUS = re.compile(rb"pass|sess|\\u|" + SESSION.pattern)
DOTS = "•••"


def without_secrets(line: bytes) -> bytes:
    """Return a line with dots for every password and session, and else as it is.

    Not by searching the text for "password": JSON can write it "pass\\u0077ord" too. So
    the line is decoded, and encoded again without them (as the server's --trace does).
    """
    hidden = []

    def hide(pairs):
        # json calls this for each object, however deep inside, with its fields.
        keys = [key for key, _ in pairs if re.search("pass|sess", key)]
        hidden.extend(keys)
        return {**dict(pairs), **dict.fromkeys(keys, DOTS)}

    try:
        # (Without the newline that encode() puts behind it.)
        safe = encode(json.loads(line, object_pairs_hook=hide))[:-1]
    except (ValueError, RecursionError):
        # No JSON, so nobody can say where in it the secret would be.
        return b"(this is no message, and perhaps there is a secret in it)"
    # Only if there was one: what is encoded again may differ in its spaces.
    shown = safe if hidden or SESSION.search(safe) else line
    return SESSION.sub(DOTS.encode(), shown)


class Tap:
    """The newest lines of the wire, in both directions, as they travelled.

    It belongs to the chat and not to a connection, so it knows those of before a break
    too. With TLS the lines are those inside of it. A line is (time, way, bytes, thread,
    text); a note on the connection has None for its bytes.
    """

    def __init__(self):
        # The send thread and the receive thread append, the main thread takes away.
        # Each of these is one step for a deque, which no other thread can see half
        # done; so there is no lock, and nobody waits. To go through one while a thread
        # appends is no single step, and raises: hence the second one, which the main
        # thread has for itself.
        self.fresh = collections.deque(maxlen=TAPPED_LINES)
        self.lines = collections.deque(maxlen=TAPPED_LINES)

    def line(self, way: str, line: bytes):
        """Keep a line that goes out ("→") or has come in ("←").

        Secrets are not kept at all, so no picture and no copy of the view can have one.
        2 µs a line, about as long as decode() takes.
        """
        # The newline counts, wherever it was taken off.
        line = line.rstrip(b"\n")
        size = len(line) + 1
        # A little further than what is kept: a session could begin at the end of that.
        if SUSPICIOUS.search(line, 0, TAPPED_BYTES + 100):
            line = without_secrets(line)
        if len(line) > TAPPED_BYTES:
            more = f" … {len(line) - TAPPED_BYTES:,} more"
            line = line[:TAPPED_BYTES] + more.encode()
        self.keep(way, size, line)

    def note(self, text: str):
        """Keep what happened to the connection, between its lines."""
        self.keep("·", None, text.encode("utf-8", "replace")[:TAPPED_BYTES])

    def keep(self, way, size, text):
        self.fresh.append((datetime.now(), way, size, threading.current_thread().name,
                           text))

    def latest(self) -> list:
        """Return what is new since the last time; for the main thread alone."""
        new = [self.fresh.popleft() for _ in range(len(self.fresh))]
        self.lines.extend(new)
        return new


def row(time, way, size, thread, text) -> tuple:
    """Return a line of the wire as it is shown: time, way, size and thread, text."""
    clock = f"{time:%H:%M:%S}.{time.microsecond // 1000:03} "
    about = " " if size is None else f"{size:>7,} bytes  {thread:<8} "
    # Whatever a server sends is one row, and all of it can be seen: what is no UTF-8,
    # and what would drive a screen, as \x1b and the like.
    text = text.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(character if character.isprintable() else ascii(character)[1:-1]
                       for character in text)
    return clock, way, about, text
# endregion


# region 9. Lines  (lesson 15)
# The life of a line that is typed here, by its `state`. What never arrives is never
# hidden: the user must be able to see it.
#
#     typed while we are in        waiting --receipt--> "" (it has arrived)
#     typed while we are cut off   kept --we are back--> waiting --receipt--> ""
#     the server refuses it        waiting --error--> failed
#     the server has forgotten us  waiting --a welcome that says so--> unknown
#     … and the user wants it      failed or unknown --/again--> waiting --receipt--> ""
#
# A break in between changes nothing: what waits is sent again, with the same ref, until
# its receipt is here. The server keeps one line for one ref, so nobody reads it twice.
KEPT_LINES = 5_000          # of one conversation; older ones are forgotten

BIDI_OVERRIDES = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def clean(text: str) -> str:
    """Return text of others so that no screen can be harmed by it.

    Our server lets no such text through, but who says that it is ours? Half an emoji
    makes Tk raise, a NUL cuts the text, control characters drive a terminal, and the
    bidi overrides (U+202A–E, U+2066–9) turn a whole line round, so that it reads as
    something else than was sent.
    """
    if text.isprintable():              # nearly always, and 15 times as fast
        return text
    return "".join(
        character if character.isprintable() or character in "\n\t"
        # Unicode's own ends of a line: made ours, so that what follows is indented.
        else "\n" if character in "\u2028\u2029"
        else "\ufffd" if unicodedata.category(character) in ("Cc", "Cs")
        else "" if unicodedata.bidirectional(character) in BIDI_OVERRIDES
        else character for character in text)


# Only what a browser opens. A click on "file:" would open a program on our own disk,
# and other words in front of the ":" start other programs.
LINK = r"https?://[\w\[][^\s<>\"“”«»]*"
# Pictures in the font. Most have a block of their own; of the older signs some are one
# by themselves (Unicode's Emoji_Presentation), the others when U+FE0F follows: ❤️.
ALONE = ("⌚⌛⏩-⏬⏰⏳◽◾☔☕♈-♓♿⚓⚡⚪⚫⚽⚾⛄⛅⛎⛔⛪⛲⛳⛵⛺⛽"
         "✅✊✋✨❌❎❓-❕❗➕-➗➰➿⬛⬜⭐⭕")
PICTURE = f"(?:[\U0001f000-\U0001faff{ALONE}]|[\u203c-\u3299]\ufe0f)"
# A run of them, with the invisible characters that join two to one.
EMOJI = f"{PICTURE}(?:{PICTURE}|[\u200d\ufe0f])*"
# Tk gets slow by many pieces in one line: 200 messages of 360 links each took it 20 s.
MOST_SPANS = 10
SPANS = re.compile(f"(?P<link>{LINK})|(?P<emoji>{EMOJI})", re.IGNORECASE)


def spans(text: str) -> list:
    """Cut a text into pairs (piece, kind): kind is "link", "emoji", or "" for words.

    Joined, the pieces are the text again. Every face shows a link as one, and
    command_open() finds it.
    """
    pieces, done, counted = [], 0, {"link": 0, "emoji": 0}
    for found in SPANS.finditer(text):
        counted[found.lastgroup] += 1
        if counted[found.lastgroup] > MOST_SPANS:
            continue                    # further ones are words
        piece = found[0]
        if found.lastgroup == "link":
            # The full stop behind a link ends the sentence, and so does a bracket,
            # unless the link has one itself: Wikipedia's do.
            piece = piece.rstrip(".,;:!?'*_" + ("" if "(" in piece else ")]}"))
        if found.start() > done:
            pieces.append((text[done:found.start()], ""))
        pieces.append((piece, found.lastgroup))
        done = found.start() + len(piece)
    return pieces + [(text[done:], "")] if text[done:] else pieces


@dataclasses.dataclass(eq=False)
class Line:
    """One line of a conversation.

    kind: "chat", "file", "notice" (the operator), "system" or "error" (our own words).
    state: see above; "" for all that comes from the server.
    """
    kind: str
    text: str
    author: str = ""
    color: int = 0                      # 0 to 11
    # A default that is computed anew for each line, and not once at the start.
    time: datetime = dataclasses.field(
        default_factory=lambda: datetime.now().astimezone())
    state: str = ""
    ref: str = ""
    sent: float = 0.0                   # when it went out, by time.monotonic()
    file: SharedFile = None             # if it is about one
    mention: bool = False               # whether somebody has named us in it
    old: bool = False                   # said before we came: nobody need be told

    @property
    def spoken(self) -> bool:
        """Whether somebody said it: it counts as unread, and our own words do not."""
        return self.kind in ("chat", "file", "notice")


class Conversation:
    """The public room (its name is None), or what is said between one other and us.

    It lives on when the other one leaves: what was read once must not vanish.
    """

    def __init__(self, name=None, color=0):
        self.name, self.color = name, color
        # A deque with `maxlen` forgets the oldest by itself when a new one comes.
        self.lines = collections.deque(maxlen=KEPT_LINES)
        # How many lines nobody has looked at, how many of these name us, and the first
        # of them: above it stands “New messages”, also while they are being read.
        self.unread, self.mentions, self.first_new = 0, 0, None
        self.draft = ""                 # typed and not sent yet
        # What was sent from here, for History. Of each conversation its own: with one
        # for all, a private line would be two keys away from being said to everybody.
        self.typed = collections.deque(maxlen=200)
        self.gone_at = None             # when to go back to everyone, see tick()

    def settle(self, line, receipt):
        """Show a line of ours, whose receipt has come, as all the others have it: with
        the server's clock and colour, and where they have it.

        It has the newest id of all, so that is the end. What others said while it was
        on its way stands above it then, on every screen.
        """
        line.author, line.color = receipt.author, receipt.color
        line.time = receipt.time
        if self.lines[-1] is not line:
            with contextlib.suppress(ValueError):   # so old that it is forgotten
                self.lines.remove(line)
            self.lines.append(line)


def read_name(message, key="name") -> str:
    """Return somebody's name as the server wrote it; WireError if it can be nobody's.

    The server's Python may know letters that are newer than ours ("Cn": not assigned,
    as far as we know). Who has one in the name must not keep all of us out.
    """
    name = normal(field(message, key))
    clean_name("".join("x" if unicodedata.category(character) == "Cn" else character
                       for character in name))
    return name


def read_person(item, key="name"):
    """Return (name, color) of somebody as the server describes them."""
    if not isinstance(item, dict):
        raise WireError("bad_message", "A person must be an object.")
    return read_name(item, key), field(item, "color", int) % COLORS
# endregion


# region 10. The notebook  (lesson 15)
class ChatLog:
    """The chat in text files, one for each conversation and day. Only if asked for.

    In "2026-11-21 # Everyone (Minou).txt": the day, with whom (the # because somebody
    may call himself Everyone), and who we are, since two windows may write into one
    folder. A line of it, and a message of two lines:

        2026-11-21 17:01:02  Tigrou: Hello everyone!
        2026-11-21 17:01:09  Félix: It goes on
            like this.

    A line of our own is written when its receipt comes: then it is sure what the
    others have read, and when.
    """

    def __init__(self, folder=None):
        """`folder`: where to; without one it is off, and /log writes to the user's."""
        self.folder = folder or os.path.join(user_folder(), "chats")
        self.on = folder is not None

    def write(self, conversation, line, me: str) -> str:
        """Add a line to its file, if the log is on; return what went wrong, or "".

        The file is opened for each line and closed behind it: so the line is in it
        whatever happens to us next, a new day needs no thought, and anybody may move
        the file meanwhile.
        """
        if not self.on:
            return ""
        name = f"{line.time:%Y-%m-%d} {conversation.name or '# Everyone'} ({me}).txt"
        author = f"{line.author}: " if line.author else "* "
        if line.kind == "notice":
            # The operator. In brackets, which no name can have: “Sеrver” with a
            # Cyrillic е is a name.
            author = "[Server]: "
        # Further lines are indented: no text can look like a line of somebody else.
        sent = "sent a file: " if line.kind == "file" else ""
        text = (author + sent + line.text).replace("\n", "\n    ")
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            with open(os.path.join(self.folder, name), "a", encoding="utf-8",
                      errors="replace", opener=open_private) as file:
                file.write(f"{line.time:%Y-%m-%d %H:%M:%S}  {text}\n")
        except OSError as problem:      # a full disk must not cost anybody the chat
            self.on = False
            return f"The chat log cannot be written ({problem}); it is off now."
        return ""


def open_private(path, flags) -> int:
    """Open a file that, if it is new, this user alone may read."""
    return os.open(path, flags, 0o600)


class Notebook:
    """All conversations, and the lines in them: what every face shows.

    It knows nothing of a network, and the next region, which inherits it, nothing of
    widgets. So each can be read alone.

    A face (the window, plain lines, lesson 21's terminal) is any object with these
    methods; the chat calls them and knows nothing else of any screen:
        line_added(conversation, line)      line_changed(conversation, line)
        file_changed(conversation, line)    shown(conversation)     quit()
        people_changed()   status_changed()
    """

    def __init__(self, face, log):
        self.face, self.log = face, log
        # Whether somebody looks at the face; one that has a window says so by looks().
        self.looking = True
        # How the connection is; see Connection for the states. Two more are ours: a
        # name that was taken makes it "choose_name", and without any it is "offline".
        self.status = {"state": "offline", "text": ""}
        self.start_afresh()

    def trying(self) -> bool:
        """Whether we are on the way in, or waiting for a server to come (back)."""
        return self.status["state"] in ("connecting", "greeting", "waiting")

    def countdown(self) -> str:
        """Return when the next attempt comes, as a sentence, or nothing."""
        if self.status["state"] != "waiting":
            return ""
        left = max(0, round(self.status["until"] - time.monotonic()))
        return f" Trying again in {left} s (attempt {self.status['attempt']})."

    def start_afresh(self):
        """Forget everything about the last server: another one is another room."""
        self.me = None                  # our name as the server wrote it
        self.people = {}                # name_key -> (name, color), ourselves included
        self.everyone = Conversation()
        self.conversations = {None: self.everyone}      # name_key -> Conversation
        self.current = self.everyone

    def conversation_with(self, name, color=0) -> Conversation:
        """Return the conversation with this person (None: the public room)."""
        key = None if name is None else name_key(name)
        if key not in self.conversations:
            name, color = self.people.get(key, (name, color))
            self.conversations[key] = Conversation(name, color)
            self.face.people_changed()
        return self.conversations[key]

    def add(self, conversation, line):
        """Add a line; unread if it is somebody else's and nobody looks.

        What is unread, and where it begins, belongs here and not into a face: so all
        faces agree, and a window that is made anew forgets nothing.
        """
        conversation.lines.append(line)
        mine = name_key(line.author) == name_key(self.me or "")
        if line.spoken and not mine:
            line.mention = self.names_me(line.text)
            if not line.old and (conversation is not self.current or not self.looking):
                if not conversation.unread:
                    conversation.first_new = line
                conversation.unread += 1
                conversation.mentions += line.mention
                self.face.people_changed()
        self.face.line_added(conversation, line)

    def names_me(self, text) -> bool:
        """Whether our name stands in a text, as a word: “Tom” is not in “tomorrow”."""
        return self.me is not None and re.search(
            rf"(?<!\w){re.escape(self.me)}(?!\w)", text, re.IGNORECASE) is not None

    def change(self, conversation, line, state):
        """A line's receipt has come, or never will."""
        line.state = state
        self.face.line_changed(conversation, line)

    def note(self, text, kind="system", where=None):
        """Add a line of our own: an answer, or what went wrong."""
        self.add(where or self.current, Line(kind, clean(text)))

    def happened(self, text):
        """Say what happened to the connection, where all read it and where one looks:
        between which lines it broke is worth knowing."""
        for where in dict.fromkeys((self.everyone, self.current)):
            self.note(text, where=where)
            self.write_log(where, where.lines[-1])

    def write_log(self, conversation, line):
        """Write a line into the chat log, if there is one."""
        trouble = self.log.write(conversation, line, self.me)
        if trouble:
            self.note(trouble, "error")

    def show(self, conversation):
        """Make a conversation the one that is shown and typed into."""
        if conversation is not self.current:
            self.current.first_new = None       # read, as far as it was
        self.current = conversation
        conversation.unread = conversation.mentions = 0
        self.face.shown(conversation)
        self.face.people_changed()

    def looks(self, looking: bool):
        """Take note of whether somebody looks: what comes while nobody does is unread.

        A window that is open on a screen is not being read: its user may be in the
        editor beside it, and wants to find the place where they left off.
        """
        self.looking = looking
        if looking and self.current.unread:
            self.current.unread = self.current.mentions = 0
            self.face.people_changed()

    def nothing_yet(self, conversation) -> str:
        """Return what to say where nothing was said."""
        name = conversation.name
        if name is None:
            return "Nobody has said anything yet."
        if name == self.me:
            return "This is you. Nobody else can read what you write here."
        return (f"Nothing yet between you and {name}. Nobody else can read what you "
                "say here.")

    def talks(self) -> list:
        """Return the conversations in the order in which the people are listed.

        Everyone first, then ourselves, the others by the alphabet (a list that jumps
        with each message would be more clever, and one would click on the wrong
        person), and who has gone last; these only while there is something to read.
        """
        # sorted() compares the first of each four; only if these are equal the next.
        # False comes before True.
        me = name_key(self.me or "")
        keys = sorted((key for key, talk in self.conversations.items()
                       if key is None or key in self.people or talk.lines
                       or talk is self.current),
                      key=lambda key: (key is not None, key not in self.people,
                                       key != me, key))
        return [self.conversations[key] for key in keys]

    def step(self, by):
        """Show the next conversation (1) or the previous one (-1), if there is one.

        Not round and round: at the end one press too many would lead to everyone, and
        what was meant for one person would be said to all.
        """
        talks = self.talks()
        at = talks.index(self.current) + by
        if 0 <= at < len(talks):
            self.show(talks[at])

    def show_nth(self, number):
        """Show the first, second … conversation, if there are so many."""
        if 1 <= number <= len(self.talks()):
            self.show(self.talks()[number - 1])

    def command_open(self, number):
        """/open [N]: open the newest link here, or the N-th newest, in the browser"""
        # Of what people have said: our own “Opening …” has a link in it, too.
        links = [piece for line in reversed(self.current.lines) if line.author
                 for piece, kind in reversed(spans(line.text)) if kind == "link"]
        at = int(number or 1) if re.fullmatch("[0-9]{0,4}", number) else 0
        if not 1 <= at <= len(links):
            self.note("There is no such link here.", "error")
            return False
        self.open_link(links[at - 1])

    def open_link(self, link):
        """Open a link of somebody else: one that spans() has found, and no other."""
        try:
            open_outside(link)
            self.note(f"Opening {link}")
        except OSError as problem:
            self.note(f"No program here opens links ({problem.filename}).", "error")
# endregion


# region 11. Conversations  (lesson 15)
AWAY_SECONDS = 60           # who was lost this long is gone, and not on the way back


class Conversations(Notebook):
    """What each message of the server does to the conversations.

    One method on_<type> for each type of message that the server may send. They run in
    the main thread. What they find wrong they raise as WireError.
    """

    def __init__(self, face, options):
        super().__init__(face, ChatLog(options.log_chat))
        self.connection, self.tap = None, Tap()
        self.login, self.known, self.remember = LastLogin().load(), KnownServers(), True

    def start_afresh(self):
        """Forget the server too: where it was, and what it knew of us."""
        super().start_afresh()
        self.server = None              # (host, port) of the room that is shown
        # How many are here. `people` may have fewer: 500 fit into one line.
        self.count = 0
        # What we have said without a receipt yet: ref -> (conversation, line).
        self.unconfirmed = {}
        # The secret by which the server knows us again; the newest id that we have
        # shown, and the history in which it counts.
        self.session, self.last_id, self.history = "", 0, ""
        # Who was lost a moment ago, and may be on the way back: as `people`.
        self.lost = {}
        # Up to this id nothing goes into the chat log: it was said before we came.
        self.logged = 0
        # Whether a /list is not answered yet, and whether a receipt is long overdue.
        self.list_wanted = self.slow = False

    def take(self, kind: str, data):
        """Take one event in. Types that we do not know are ignored, as agreed."""
        try:
            if kind == "status":
                self.take_status(data)
            elif kind == "nonsense":
                raise WireError("bad_message", data)
            elif hasattr(self, "on_" + data["type"]):
                getattr(self, "on_" + data["type"])(data)
        except Exception as problem:
            # Whatever a server writes into the fields costs one line, not the chat. A
            # mistake in an on_<type> of coursework too; the terminal shows where.
            if isinstance(problem, (AttributeError, LookupError, NameError, TypeError)):
                report_mistake()
            if self.status["state"] == "online":
                self.note(f"The server sent a line that makes no sense: {problem}",
                          "error")
            else:                       # without a proper welcome there is no chat
                self.hang_up()
                self.take_status({"state": "offline", "text":
                                  f"What answers is no ChattyCat server: {problem}"})

    def take_status(self, status: dict):
        """The connection has changed: keep how, and say so."""
        status["text"] = clean(status["text"])[:1_000]     # as one label X11 draws it
        was, self.status = self.status, status
        if was["state"] == "online":
            self.happened(status["text"])
            self.list_wanted = False
        self.face.status_changed()

    def on_welcome(self, message):
        """We are in, for the first time or again."""
        again = self.me is not None
        # All fields first: a welcome that has a wrong one must not leave us half in.
        name, history = read_name(message), field(message, "history")
        session, last_id = field(message, "session"), field(message, "last_id", int)
        resumed, gap = (field(message, key, bool) for key in ("resumed", "gap"))
        before = self.people
        self.take_people(message)
        # Nothing was wrong with it, so from here on it counts.
        self.me, self.server = name, (self.connection.host, self.connection.port)
        # In another history ids began anew. One that a power cut took its newest lines
        # from will give their ids again.
        self.last_id = min(self.last_id, last_id) if history == self.history else 0
        # The newest lines are older than we are. But what was said while we were away
        # is written into the chat log; and all that is said in another history.
        self.logged = (last_id if not again else
                       min(self.logged, last_id) if history == self.history else 0)
        self.session, self.history = session, history
        if again:
            self.happened("Connected again." if resumed else "Connected again, but the "
                          "server remembers nothing of you. What was said meanwhile "
                          "may be missing here.")
        if gap:
            self.happened("More was said meanwhile than the server keeps; some of it "
                          "is missing here.")
        # Of these nobody has told us that they left; they may be on the way back too.
        for key in set(before).difference(self.people):
            self.lost[key] = before[key]
            if key in self.conversations:
                self.conversations[key].gone_at = time.monotonic() + AWAY_SECONDS
        self.remember_login()
        self.take_status({"state": "online", "text": "Connected"})
        self.send_again(resumed)

    def remember_login(self):
        """It has worked: keep it for the next time."""
        fingerprint = self.connection.known
        if fingerprint:
            self.known.remember(*self.server, fingerprint)
        if self.remember:
            self.login.save(*self.server, self.me, tls=bool(fingerprint))
        # A full disk, perhaps. The chat goes on, and its user knows of it.
        for trouble in filter(None, (self.login.trouble, self.known.trouble)):
            self.note(trouble, "error")

    def send_again(self, resumed: bool):
        """Send what has no receipt, with the same ref: so nobody can read it twice.

        The server keeps one line for one ref of a session. If it knows our session no
        more, a line that went out may have arrived or not, and only the user can tell
        what is worse, to lack it or to have it twice. What never went out can go now.
        """
        unknown = 0
        for ref, (conversation, line) in list(self.unconfirmed.items()):
            if resumed or line.state == "kept" or line.file:    # (see Files.online)
                self.transmit(conversation, line)
            else:
                unknown += 1
                del self.unconfirmed[ref]
                self.change(conversation, line, "unknown")
        if unknown:
            self.note(f"It is not known whether {unknown} of your lines arrived. "
                      "/again sends them once more.")

    def transmit(self, conversation, line):
        """Send a line of ours; it stays in `unconfirmed` until its receipt comes."""
        if line.state != "waiting":
            self.change(conversation, line, "waiting")
        line.sent = time.monotonic()
        self.unconfirmed[line.ref] = (conversation, line)
        message = {"type": "chat", "text": line.text, "ref": line.ref}
        if conversation.name is not None:
            message["to"] = conversation.name
        self.connection.send(message)

    def on_people(self, message):
        """The answer to /list, by which our own list is right again, too."""
        self.take_people(message)
        self.list_wanted = False
        names = sorted((name for name, _ in self.people.values()), key=str.casefold)
        self.note(f"{self.count} here: " + ", ".join(names))

    def take_people(self, message):
        """Keep who is here; a list with a mistake in it leaves the old one standing."""
        people = [read_person(item) for item in field(message, "people", list)]
        self.people = {name_key(name): (name, color) for name, color in people}
        self.count = max(0, min(field(message, "count", int), 10**9))
        self.face.people_changed()

    def on_joined(self, message):
        """Somebody has come. Never ourselves: the server tells only the others."""
        name, color = read_person(message)
        self.people[name_key(name)] = (name, color)
        self.count += 1
        self.note_about(name, f"{name} joined", None)

    def on_left(self, message):
        """Somebody has gone, in whatever way."""
        name, reason = read_name(message), field(message, "reason")
        person = self.people.pop(name_key(name), (name, 0))
        if reason in ("lost", "too_slow"):
            self.lost[name_key(name)] = person
        self.count -= 1
        how = {"lost": "lost the connection", "kicked": "was kicked",
               "too_slow": "read too slowly"}.get(reason, "left")
        # Who was lost is often back in a moment; who left is not.
        wait = AWAY_SECONDS if reason == "lost" else 0
        self.note_about(name, f"{name} {how}", time.monotonic() + wait)

    def note_about(self, name, text, gone_at):
        """Say what somebody did: in the room, and in our private conversation."""
        self.note(text, where=self.everyone)
        conversation = self.conversations.get(name_key(name))
        if conversation is not None:
            self.note(text, where=conversation)
            conversation.gone_at = gone_at
        self.face.people_changed()

    def on_chat(self, message):
        """A line for everybody or for us; our own comes too, and is the receipt."""
        self.take_line(message, Line(
            "chat", clean(field(message, "text"))[:TEXT_LIMIT],
            *read_person(message, "from"), local_time(field(message, "time"))))

    def take_line(self, message, line):
        """Put a line with an id where it belongs; a receipt to the line that waits.

        What has an id is a `chat` or a `file`, and for both all of this is the same.
        """
        number = field(message, "id", int)
        to, ref = (field(message, name, default="") for name in ("to", "ref"))
        new, self.last_id = number > self.last_id, max(number, self.last_id)
        mine = name_key(line.author) == name_key(self.me or "")
        conversation, waiting = self.unconfirmed.get(ref, (None, line))
        # (We may have sent it under another name, and that was taken meanwhile.)
        if waiting is not line and (mine or line.author == waiting.author):
            del self.unconfirmed[ref]
            if line.file and waiting.file:
                waiting.file.id, waiting.file.sha256 = line.file.id, line.file.sha256
            conversation.settle(waiting, line)
            self.change(conversation, waiting, "")
        elif new:                       # else we have it from before the break
            # A private line belongs to the conversation with the other one of the two.
            other = (read_name(message, "to") if mine else line.author) if to else None
            conversation = self.conversation_with(other, line.color)
            line.old = number <= self.logged
            self.add(conversation, line)
        if new and number > self.logged:
            self.write_log(conversation, line)

    def on_notice(self, message):
        """The operator speaks."""
        line = Line("notice", clean(field(message, "text"))[:TEXT_LIMIT], "Server",
                    time=local_time(field(message, "time")))
        self.add(self.everyone, line)
        self.write_log(self.everyone, line)

    def on_error(self, message):
        """The server refused something: a line (it has our ref), or our hello."""
        text, code = clean(field(message, "text"))[:1_000], field(message, "code")
        where = self.current
        ref = field(message, "ref", default="")
        # A line that met a connection whose hello was refused goes out again later.
        if ref in self.unconfirmed and code != "hello_first":
            where, line = self.unconfirmed.pop(ref)
            self.change(where, line, "failed")
        if self.status["state"] == "online":
            self.note(text, "error", where)
        elif code in ("name_taken", "bad_name", "bad_password"):
            # Not the end: another hello on this connection may do.
            self.take_status({"state": "choose_name", "text": text,
                              "password": code == "bad_password"})
        else:                           # our hello was refused, and will be again
            self.hang_up()
            self.take_status({"state": "offline", "text": text})
# endregion


# region 12. Sent and saved  (lesson 18)
# What one sees of a file is a line like all others: it has an author, a time and a
# receipt, and counts as unread. What it has besides is a SharedFile, and while that is
# on its way a Transfer. Here is the main thread's side of the file thread.
PICTURES_BYTES = 100_000_000    # of those that come without being asked for


class Exchange(Conversations):
    """The files in the conversations: each has a line, and each such line a number.

    By the number one says in a terminal which of them is meant: /save 3. What the file
    thread does comes here as news, and from here the faces have it.
    """

    def __init__(self, face, options):
        self.files = Files()
        self.moving = {}                # Transfer -> (conversation, line)
        self.pictures, self.shown_bytes = "", 0     # see fetch_picture()
        super().__init__(face, options)

    def start_afresh(self):
        """Forget the files of the last server, too."""
        super().start_afresh()
        self.shared, self.counted = {}, 0       # number of a file -> its line
        self.file_limit = FILE_LIMIT
        for transfer in self.moving:
            self.files.order(self.files.cancel, transfer)
        self.moving.clear()             # what they have to say yet is not for us

    def on_welcome(self, message):
        """We are in (again): transfers go on where they broke."""
        super().on_welcome(message)
        limits = message.get("limits")
        if isinstance(limits, dict) and type(limits.get("file")) is int:
            self.file_limit = limits["file"]
        self.files.order(self.files.online, self.connection,
                         field(message, "resumed", bool))

    def on_file(self, message):
        """A file that can be fetched; our own comes too, and is the receipt."""
        size, sha256 = field(message, "size", int), field(message, "sha256")
        if not 0 <= size < 2**50 or not re.fullmatch("[0-9a-f]{64}", sha256):
            raise WireError("bad_file", "A file has a size and a SHA-256.")
        name = re.sub(r"\s", " ", clean(field(message, "name")))[:255]
        shared = SharedFile(name, size, sha256, field(message, "file"))
        self.take_line(message, Line(
            "file", str(shared), *read_person(message, "from"),
            local_time(field(message, "time")), file=shared))

    def on_error(self, message):
        """What is about a file the file thread has too, and it knows what to do."""
        ref = field(message, "ref", default="")
        if "file" not in message and not any(line.ref == ref != ""
                                             for line in self.shared.values()):
            super().on_error(message)

    def add(self, conversation, line):
        """Give a file its number before any face sees it.

        Counted here and not by the server: its ids grow with each line of the chat, and
        nobody wants to type /save 48213.
        """
        if line.file is not None:
            self.counted += 1
            self.shared[self.counted], line.file.number = line, self.counted
            self.shared.pop(self.counted - 2 * KEPT_LINES, None)
        super().add(conversation, line)

    def send_file(self, path, conversation) -> bool:
        """Send a file to the people of a conversation; whether that can be tried.

        While we are cut off, too: it is kept then, as what is typed.
        """
        online, back = self.status["state"] == "online", self.me and self.trying()
        try:
            if not (online or back):
                raise ValueError("You are not connected; the file was not sent.")
            name, size = look_at(path, self.file_limit)
        except (OSError, ValueError) as problem:
            why = getattr(problem, "strerror", None)
            self.note(f"{path}: {why}." if why else str(problem), "error", conversation)
            return False
        _, color = self.people.get(name_key(self.me), ("", 0))
        shared = SharedFile(name, size, path=path)
        line = Line("file", str(shared), self.me, color, file=shared,
                    ref=f"{random.getrandbits(64):016x}",
                    state="waiting" if online else "kept")
        self.add(conversation, line)
        self.transmit(conversation, line)
        return True

    def transmit(self, conversation, line):
        """Send a line. If it is a file, the file thread does, or is at it already."""
        if line.file is None:
            super().transmit(conversation, line)
            return
        shared = line.file
        self.unconfirmed[line.ref] = (conversation, line)
        if shared.transfer is None or shared.transfer.is_over():
            transfer = Upload(self.files, shared.path, shared.name, shared.size)
            transfer.ref, transfer.to = line.ref, conversation.name
            self.move(conversation, line, transfer)
        if self.status["state"] == "online" and line.state != "waiting":
            self.change(conversation, line, "waiting")

    def move(self, conversation, line, transfer):
        """Hand a transfer over to the file thread; from here on only that changes it.
        """
        line.file.transfer = transfer
        self.moving[transfer] = conversation, line
        self.files.order(self.files.start, transfer)

    def save(self, line, path=""):
        """Save a file: into this folder, or under this name; else where browsers do.

        A name that the user has typed is taken as it is: it is theirs to choose.
        """
        path = os.path.expanduser(path) or downloads_folder() + os.sep
        if os.path.isdir(path) or path.endswith(("/", os.sep)):
            path = os.path.join(path, safe_name(line.file.name))
        self.fetch(line, os.path.abspath(path))

    def fetch_picture(self, line):
        """Bring a small picture here, only to be shown.

        Into a folder that nobody else can look into and that goes when we go: who only
        looks on must not find their disk full of what others have sent.
        """
        if self.shared.get(line.file.number) is not line:
            return                      # of a server that we have left meanwhile
        self.shown_bytes += line.file.size
        if self.shown_bytes > PICTURES_BYTES:       # “Save” brings it, if it is wanted
            return
        with contextlib.suppress(OSError):          # no room there: the same
            self.pictures = self.pictures or tempfile.mkdtemp(
                prefix="chattycat-pictures-")
            self.fetch(line, os.path.join(self.pictures, str(line.file.number)))

    def fetch(self, line, path):
        """Bring a file to this place, or to the next one that is free: whoever saves it
        twice has it twice, as with browsers."""
        shared = line.file
        if not shared.id:
            self.note(f"{shared.name} is not at the server yet.", "error")
        elif shared.transfer is not None and not shared.transfer.is_over():
            self.note(f"{shared.name} is on its way already.", "error")
        else:
            transfer = Download(self.files, path, shared.name, shared.size)
            transfer.file, transfer.sha256 = shared.id, shared.sha256
            transfer.source = shared.picture
            self.move(self.where(line), line, transfer)

    def where(self, line):
        """Return the conversation in which a line stands."""
        return next((talk for talk in self.conversations.values()
                     if line in talk.lines), self.everyone)

    def try_again(self, line):
        """Send a file again that has failed: this one, where /again sends all."""
        if self.status["state"] == "online" and line.state != "waiting":
            self.transmit(self.where(line), line)

    def cancel(self, line):
        """Stop a file that is on its way, up or down. When it has stopped, take_news()
        hears of it."""
        transfer = line.file.transfer
        if transfer is None or transfer.is_over():
            self.note(f"{line.file.name} is not on its way.", "error")
        else:
            self.files.order(self.files.cancel, transfer)

    def take_news(self):
        """Take in what the file thread has told, and let the face show it.

        Nearly as drain() does it with the connection's events. But these live longer
        than a connection: a file goes on after a break, and so does its news.
        """
        while not self.files.news.empty():
            transfer = self.files.news.get()
            conversation, line = self.moving.get(transfer, (None, None))
            if line is None:            # of a server that we have left
                continue
            if transfer.is_over():
                del self.moving[transfer]
            if transfer.state == "done" and isinstance(transfer, Download):
                shown = os.path.dirname(transfer.path) == self.pictures
                setattr(line.file, "picture" if shown else "path", transfer.path)
            self.face.file_changed(conversation, line)
            if transfer.state == "failed" and line.ref in self.unconfirmed:
                del self.unconfirmed[line.ref]
                # What was stopped on purpose /again leaves alone.
                stopped = transfer.trouble == CANCELLED
                self.change(conversation, line, "cancelled" if stopped else "failed")

    def progress(self, transfer) -> str:
        """Return how far a file is, or that it waits until we are back."""
        if self.status["state"] != "online":
            return f"waits for the connection at {size_in_words(transfer.done)}"
        return transfer.progress()

    def take_status(self, status):
        """The connection has changed: what was on its way waits, or goes on."""
        super().take_status(status)
        for conversation, line in list(self.moving.values()):
            self.face.file_changed(conversation, line)

    def leave_files(self):
        """At the end: nothing half is left behind, and no pictures. (Of who is killed
        they stay: nobody is there then who could remove them.)"""
        done = threading.Event()
        self.files.order(self.files.cancel_all, done)
        self.files.inbox.put(None)      # and the thread ends
        done.wait(1)                    # a disk that hangs must not keep us
        if self.pictures:
            shutil.rmtree(self.pictures, ignore_errors=True)

    def command_file(self, path):
        """/file PATH: send a file or a picture"""
        path = path_as_typed(path)
        if not path:
            self.note("Say which: /file PATH", "error")
            return False
        return self.send_file(os.path.abspath(os.path.expanduser(path)), self.current)

    def command_save(self, rest):
        """/save N [PATH]: save file number N, where downloads go or as PATH"""
        number, _, path = rest.partition(" ")
        line = self.numbered(number)
        if line is None:
            return False
        self.note(f"Saving {line.file.name} …")
        self.save(line, path_as_typed(path.strip()))

    def command_cancel(self, number):
        """/cancel N: stop file number N, which is on its way"""
        line = self.numbered(number)
        if line is None:
            return False
        self.cancel(line)

    def numbered(self, word):
        """Return the line with the file of this number, or None, and say why."""
        if re.fullmatch("[0-9]{1,9}", word) and int(word) in self.shared:
            return self.shared[int(word)]
        self.note(f"There is no file number “{word}”; each one shows its own." if word
                  else "Say which: behind the command, the number that it shows.",
                  "error")
        return None
# endregion


# region 13. Logging in  (lesson 19)
class Logins(Exchange):
    """How the user gets in, and out again; while there is no server, too.

    What can stand between the user and the room, and what is done about it:

        nobody answers              try again and again, or start_server()
        nobody knows this server    connect() ends “offline” with its fingerprint;
                                    trust() accepts it, and connects once more
        it is another one now       “offline”, and no trust(): see can_trust()
        the name is taken           "choose_name": connect() on the same connection
        it wants a password         the same, with "password" in the status
    """

    def __init__(self, face, options):
        super().__init__(face, options)
        self.before = None              # the thread of the connection before this one
        self.told = ""                  # see connect()
        self.local_server = LocalServer()
        login = self.login
        last = login.host, login.port
        if options.host:                # another computer: its port is another, too
            login.host, login.port = options.host, PORT
        login.port = options.port or login.port
        login.name = options.name or login.name
        # It was switched on for that one. (Who was known by TLS gets it in any case.)
        login.tls = login.tls and last == (login.host, login.port)
        # Each for its own server: who can make somebody type /connect must not get the
        # one of another. Kept as long as the program runs, since each new connection
        # needs it, and nowhere else: no file, no log. (In the memory of a program its
        # owner can find everything; against that nothing helps.)
        self.passwords = {(login.host, login.port): options.password or ""}
        if options.tls or options.fingerprint:
            login.tls = True
            self.known.give(login.host, login.port, options.fingerprint)

    def connect(self, host: str, port: int, name: str):
        """Log in; ValueError with a sentence if something in it cannot be right."""
        host = host.strip()
        if not host:
            raise ValueError("Type the server's address: 127.0.0.1 is this computer.")
        try:
            name = clean_name(name.strip())
        except WireError as problem:
            raise ValueError(problem.text) from None
        # Who was known by TLS once is never again spoken to in clear. Else who stands
        # in between only had to wait until somebody forgets to switch it on.
        known = self.known.find(host, port)
        if not (known or self.login.tls):
            known = None
        # A list that cannot be read knows nobody. Before anything is said in clear for
        # that reason the user should know of it; the next attempt goes on.
        if self.known.trouble not in ("", self.told):
            self.told = self.known.trouble
            self.hang_up()
            self.take_status({"state": "offline", "text": self.told})
            return
        here, password = self.connection, self.passwords.get((host, port), "")
        if (self.status["state"] == "choose_name"
                and (here.host, here.port, here.known) == (host, port, known)):
            here.hello(name, password)  # another try on the same connection
            self.take_status({"state": "greeting", "text": f"Asking for “{name}” …"})
            return
        self.hang_up()
        # At once, and not when the thread says so: what is typed meanwhile is kept.
        self.take_status({"state": "connecting",
                          "text": f"Connecting to {host}:{port} …"})
        if (host, port) != self.server or name_key(name) != name_key(self.me or ""):
            self.leave_room()
        # With the session of before, if any: so we get what was said meanwhile, and
        # not all that was ever said.
        self.connection = Connection(host, port, name, password, known, self.session,
                                     max(self.last_id, self.logged - 50), self.files,
                                     self.tap)

    def leave_room(self):
        """Forget the room that was shown, and say what it costs.

        Another server is another room. And another name is another person, who need
        not see what was said to the last one.
        """
        lost, was = len(self.unconfirmed), self.me
        self.start_afresh()
        self.show(self.everyone)
        if lost:
            self.note(f"{lost} of your lines as {was} have not arrived, as far as is "
                      "known.", "error")

    def can_trust(self) -> bool:
        """Whether a server waits to be accepted.

        Not one that had another fingerprint before: that is the very thing to be warned
        of, and must cost more than a click. People click away whatever stands between
        them and their friends.
        """
        return "fingerprint" in self.status and not self.status["known"]

    def trust(self):
        """Accept the fingerprint that the status shows, and connect again.

        On a new connection, and the fingerprint is looked at once more: what is
        accepted is a fingerprint, and not whoever is on the line in this moment. The
        old one was cut before we asked. A user needs minutes to compare 64 digits, and
        the server would have ended it as one that never says hello.
        """
        here = self.connection
        self.known.remember(here.host, here.port, self.status["fingerprint"])
        self.login.tls = True
        self.connect(here.host, here.port, here.name)

    def hang_up(self):
        """Leave the connection we have, if any; whatever still comes is not for us.

        Its events lie in its own queue, and that is forgotten with it: no late message
        of the old server can get into the room of the new one.
        """
        if self.connection is not None:
            self.connection.close()
            self.before = self.connection.thread
            self.connection = None

    def leave(self):
        """Say bye at the end of the program, and give it half a second to go out.

        The threads are daemons: the end of the program ends them wherever they are, and
        that could be before the bye was sent. Then the others read that we were lost.
        """
        for conversation, line in self.unconfirmed.values():
            # Its receipt cannot come any more, so it is written as what it is.
            self.write_log(conversation, dataclasses.replace(
                line, text=line.text + "  (no receipt)"))
        self.leave_files()
        heard = not self.trying()       # while we only try to get in, nobody hears it
        self.hang_up()
        if self.before is not None and heard:
            self.before.join(0.5)
        self.local_server.stop()

    def retry_now(self):
        """Do not wait for the countdown: somebody knows that the server is back."""
        if self.connection is not None:
            self.connection.wake.set()

    def can_start_server(self) -> bool:
        """Whether nobody answers on this very computer, and we could change that: it is
        what beginners forget most often."""
        # Not one with TLS: what it shows in its terminal goes nowhere (see there), and
        # so nobody could compare its fingerprint.
        return (self.status["state"] == "waiting" and self.connection.known is None
                and self.local_server.is_possible(self.connection.host))

    def start_server(self):
        """Start a server that lives as long as this program.

        So nobody is left with a server that they know nothing of; and who wants one for
        longer starts it in a terminal, where it shows what happens.
        """
        self.local_server.start(self.connection.port)
        self.note("A server was started here. It runs as long as this window is open.",
                  where=self.everyone)
        self.connection.attempt = 0     # it needs a moment: try again in 1 s, not 30
        self.retry_now()
        self.face.status_changed()
# endregion


# region 14. Commands  (lesson 14)
SLOW_SECONDS = 10           # a line without a receipt for so long is worth a word


class Chat(Logins):
    """What the user does: typed text and commands.

    It inherits all of Logins, and so of Conversations: a Chat is the conversations and
    what one can do in them. A face has one, calls typed() with each line, drain() again
    and again and tick() once a second, and leave() at the end. More it need not know.

    A command is a method command_<word>. It gets what stands behind the word, and the
    first line of its docstring is its line in /help. It returns False when the text
    should stay in the box, so that the user can mend it. So a command of your own is
    four lines:

        def command_shout(self, rest):
            \"\"\"/shout TEXT: say it in capitals\"\"\"
            return self.say(rest.upper(), self.current)
    """

    def typed(self, text: str) -> bool:
        """Obey what the user has typed; return whether it is done with.

        Done with: a face may clear its box. Else the text stays there to be mended.
        """
        text = text.strip()
        if text and [text] != list(self.current.typed)[-1:]:
            self.current.typed.append(text)     # for History
        if self.status["state"] != "online" and text.lower() in ("connect", "exit"):
            text = "/" + text           # as one of the older chats had it
        if text.startswith("/") and not text.startswith("//"):
            word, _, rest = text[1:].partition(" ")
            method = getattr(self, "command_" + word.lower(), None)
            if method is None:
                # Never sent: it may be a mistyped /msg, meant for one person alone.
                self.note(f"There is no command /{word}. /help lists what there is, "
                          "and // at the start sends a slash.", "error")
                return False
            try:
                return method(rest.strip()) is not False
            except Exception as problem:    # a mistake in a command of coursework
                report_mistake()
                self.note(f"/{word} has a mistake in it: {problem!r}", "error")
                return False
        if text.startswith("//"):       # the way to say something that begins with /
            text = text[1:]
        return not text or self.say(text, self.current)

    def say(self, text: str, conversation) -> bool:
        """Send a line. It stands there grey until its receipt comes."""
        online, back = self.status["state"] == "online", self.me and self.trying()
        if not (online or back):
            self.note("You are not connected; your text was not sent.", "error")
            return False
        try:
            # The server would refuse it as well. Asked here, it costs no round trip,
            # and the text is still in the box.
            text = clean_text(text)
        except WireError as problem:
            self.note(problem.text, "error")
            return False
        # The label by which we know our own line when it comes back. Random: a second
        # program of ours may count from 1 too.
        ref = f"{random.getrandbits(64):016x}"
        _, color = self.people.get(name_key(self.me), ("", 0))
        line = Line("chat", text, self.me, color, ref=ref,
                    state="waiting" if online else "kept")
        first = not any(other.state == "kept" for other in conversation.lines)
        self.unconfirmed[ref] = (conversation, line)
        self.add(conversation, line)
        if online:
            self.transmit(conversation, line)
        elif first:                     # send_again() takes it from here
            self.note("What you type now is sent when you are back.",
                      where=conversation)
        return True

    def drain(self, most: int, seconds: float) -> bool:
        """Take in what the threads have left for us; return whether more is there."""
        self.take_news()
        return (self.connection is not None
                and self.connection.drain(self.take, most, seconds))

    def tick(self):
        """Once a second: leave conversations whose other side has gone.

        Never over a draft: who is typing must not find the text in another window.
        And say when a receipt is overdue. A pulled cable says nothing, and with a line
        of ours on its way TCP tries for 15 minutes (on Linux) before it gives up. We
        cut nothing ourselves: the server may stand at somebody's breakpoint.
        """
        was, limit = self.slow, time.monotonic() - SLOW_SECONDS
        self.slow = self.status["state"] == "online" and any(
            line.state == "waiting" and line.sent < limit and not line.file
            for _, line in self.unconfirmed.values())
        if self.slow and not was:
            self.note(f"No receipt for {SLOW_SECONDS} s: the server is busy, or the "
                      "connection is dead. /connect makes a new one; nothing is lost.")
        if self.local_server.has_failed():
            self.note("The server that was started here has ended. Another program may "
                      "have its port.", where=self.everyone)
        for conversation in list(self.conversations.values()):
            gone_at = conversation.gone_at
            if gone_at is not None and time.monotonic() >= gone_at:
                conversation.gone_at = None
                if conversation is self.current and not conversation.draft.strip():
                    self.note(f"{conversation.name} is gone; you are back with "
                              "everyone.", where=self.everyone)
                    self.show(self.everyone)

    def commands(self) -> list:
        """Return a line for each command: the first one of its docstring."""
        # dir() lists the names of all that an object has, in alphabetical order: so a
        # new command stands in /help by being there.
        methods = [getattr(self, name) for name in dir(self)
                   if name.startswith("command_")]
        return [(method.__doc__ or method.__name__.replace("command_", "/"))
                .split("\n")[0] for method in methods]

    # --- the commands

    def command_again(self, _):
        """/again: send again what was refused, or is not known to have arrived

        With the same ref: if it has arrived after all, nobody gets it twice.
        """
        again = [(conversation, line) for conversation in self.conversations.values()
                 for line in conversation.lines if line.state in ("unknown", "failed")]
        if self.status["state"] != "online":
            self.note("You are not connected.", "error")
        elif not again:
            self.note("There is nothing to send again.")
        for conversation, line in again if self.status["state"] == "online" else ():
            self.transmit(conversation, line)

    def command_connect(self, rest):
        """/connect [HOST [PORT]]: log in, here or at another server"""
        # "host:port" as well as "host port"; an IPv6 address has more than one colon.
        host, _, port = rest.replace(":", " ", rest.count(":") == 1).partition(" ")
        login = self.login
        try:
            self.connect(host or login.host, port_number(port) if port else login.port,
                         self.me or login.name)
        except ValueError as problem:
            self.note(str(problem), "error")
            return False

    def command_disconnect(self, _):
        """/disconnect: log out; /connect comes back

        And no reconnecting by itself meanwhile: who logs out means it.
        """
        if self.connection is None:
            self.note("You are not connected.", "error")
            return
        # We do not wait for the server's goodbye: it may never come.
        self.hang_up()
        self.take_status({"state": "offline", "wanted": True, "text":
                          "You have logged out." if self.me else "Stopped."})

    def command_everyone(self, _):
        """/everyone: back to the public room

        (A name that nobody can have is not needed for it: /msg takes names, this none.)
        """
        self.show(self.everyone)

    def command_exit(self, _):
        """/exit: the same as /quit"""
        # Two words for one thing: people try the one that they know from elsewhere.
        self.face.quit()

    def command_help(self, _):
        """/help: this list"""
        self.note("\n".join(self.commands()))

    def command_list(self, _):
        """/list: who is here"""
        # Asked of the server, and not of `people`: that may have 500 of 5,000.
        if self.status["state"] != "online":
            self.note("You are not connected.", "error")
            return
        self.list_wanted = True
        self.connection.send({"type": "list"})     # the answer comes to on_people()

    def command_log(self, folder):
        """/log [FOLDER]: start to write the chat into files, or stop it

        From here on. What was said before stands on the screen, and can be copied.
        """
        self.log.folder = os.path.expanduser(folder) or self.log.folder
        self.log.on = bool(folder) or not self.log.on
        self.note(f"What is said is written into {self.log.folder} from now on."
                  if self.log.on else "The chat log is off.")

    def command_msg(self, rest):
        """/msg NAME [TEXT]: talk to one person alone"""
        # A name has no spaces, so what stands behind the first one is the text.
        name, _, text = rest.partition(" ")
        key = name_key(name)
        if not name:
            self.note("Say to whom: /msg NAME TEXT", "error")
            return False
        # Who has left a moment ago may be on the way back: the server knows better.
        if not (key in self.people or key in self.conversations or key in self.lost):
            self.note(f"Nobody called “{name}” is here; /list says who is.", "error")
            return False
        conversation = self.conversation_with(*self.lost.get(key, (name,)))
        if text.strip() and not self.say(text, conversation):
            return False
        self.show(conversation)         # where the line stands, and the answer will
        return True

    def command_tls(self, _):
        """/tls: switch TLS on or off, for the next /connect

        Not for this one: a connection begins with TLS or never has it.
        """
        self.login.tls = not self.login.tls
        self.note("The next /connect is encrypted." if self.login.tls else
                  "The next /connect is not encrypted, unless that server was known "
                  "by TLS before.")

    def command_trust(self, _):
        """/trust: accept the fingerprint that a server has shown

        For plain lines; in the window it is a button.
        """
        if not self.can_trust():
            self.note("There is no server that waits for your trust.", "error")
            return
        self.trust()

    def command_quit(self, _):
        """/quit: log out and close

        How, only the face knows: it has a window, or a terminal.
        """
        self.face.quit()
# endregion


# region 15. Typing  (lesson 14)
# What fingers know from other chat programs, in the window and in the terminal alike.
# Neither of the two is told when something was sent, or another conversation is shown:
# they see that the text is not the one that they gave, and begin anew.

class History:
    """What was sent in this conversation before: Up and Down."""

    def __init__(self, chat):
        # For each conversation: where we are, what we gave there, and its draft.
        self.chat, self.places = chat, {}

    def step(self, by, text):
        """Return what comes before (-1) or after (1) `text`; None: nothing does.

        Behind the newest stands what was in the box before the first Up.
        """
        talk, lines = self.chat.current, self.chat.current.typed
        at, given, draft = self.places.get(talk, (0, None, ""))
        if given != text:               # something else was typed, or sent
            at, draft = len(lines), text
        at += by
        if not 0 <= at <= len(lines):
            return None
        if at == len(lines):            # back at the draft: as if nothing had been
            self.places.pop(talk, None)
            return draft
        self.places[talk] = at, lines[at], draft
        return lines[at]


class Completion:
    """A name or a command of which the beginning is typed: Tab."""

    def __init__(self, chat):
        self.chat, self.given, self.head, self.found, self.at = chat, None, "", [], 0

    def step(self, text, by=1):
        """Return `text`, what stands before the cursor, with its last word completed.

        None if nothing begins so. Once more: the next that does, or with by=-1 the
        previous one.
        """
        if text != self.given:
            start = max(text.rfind(" "), text.rfind("\n")) + 1
            self.head, word = text[:start], text[start:]
            if start:
                self.found = self.names(word, " ")
            elif text[:1] == "/":
                self.found = self.commands(word)
            else:
                self.found = self.names(word, ", ")
            self.at = -1 if by > 0 else 0
        if not self.found:
            return None
        self.at = (self.at + by) % len(self.found)
        self.given = self.head + self.found[self.at]
        return self.given

    def commands(self, word):
        """Return the commands that begin so; by their methods, as /help finds them."""
        return [f"/{name[len('command_'):]} " for name in dir(self.chat)
                if name.startswith("command_" + word[1:].lower())]

    def names(self, word, after):
        """Return who begins so. Behind the first word of a text stands a comma: it
        speaks to somebody, and is read as one does."""
        at, word = ("@", word[1:]) if word[:1] == "@" else ("", word)
        me, people = name_key(self.chat.me or ""), self.chat.people
        return [at + people[key][0] + after for key in sorted(people)
                if word and key != me and key.startswith(name_key(word))]
# endregion


# region 16. The window: emoji  (lesson 10)
# Emoji are pictures in a font. On X11 (Linux and the like) Tk draws all text by libXft,
# a library that takes fonts in colour since 2.3.5, of 2022.
XFT_WITH_COLOUR = 20305
COLOUR_FONTS = ("Noto Color Emoji", "Twitter Color Emoji", "JoyPixels")
# A rule for fontconfig, which finds the fonts for libXft: none in colour.
NO_COLOUR = b"""<fontconfig><selectfont><rejectfont><pattern><patelt name="color">
<bool>true</bool></patelt></pattern></rejectfont></selectfont></fontconfig>"""


class Emoji:
    """How emoji are shown here: in colour, as the system does it, or by their names.

    Made before Tk draws its first letter, since only then can libXft be told anything.
    """

    def __init__(self, root):
        self.x11 = root.tk.call("tk", "windowingsystem") == "x11"
        self.safe = not self.x11 or self.are_safe()
        self.family = None              # of the font for them, if they need their own
        if self.x11 and self.safe:
            keep_pictures(root)
            # Without it 😀 is black and white and 🦆 is not: Tk goes to another font
            # only for what the first one lacks.
            there = tkfont.families(root)
            self.family = next((name for name in COLOUR_FONTS if name in there), None)

    def are_safe(self) -> bool:
        """Whether this libXft can draw them; if not, hide all fonts in colour from it.

        Before 2.3.5 the first one can end the process, wherever it stands: in what
        others say, in what the user pastes, in a file dialog. No `except` helps. (2.3.2
        lived through 🦆 in letters of 11 points, and crashed with those of 9.)
        """
        try:
            # ctypes calls functions of libraries that are written in C.
            import ctypes
            xft, fonts = ctypes.CDLL("libXft.so.2"), ctypes.CDLL("libfontconfig.so.1")
        except (ImportError, OSError):
            return True                 # a Tk that draws without them
        if xft.XftGetVersion() >= XFT_WITH_COLOUR:
            return True
        # ctypes takes all that comes back for an int; an address is longer.
        fonts.FcInitLoadConfig.restype = ctypes.c_void_p
        config = ctypes.c_void_p(fonts.FcInitLoadConfig())
        with contextlib.suppress(AttributeError):       # one of 2016 takes no rules
            fonts.FcConfigParseAndLoadFromMemory(config, NO_COLOUR, True)
            fonts.FcConfigBuildFonts(config)
            fonts.FcConfigSetCurrent(config)            # 5 ms, all of it
        return False

    def spans(self, text) -> list:
        """Cut a text as spans() does, with its emoji as they can be shown here."""
        return [(self.shown(piece) if kind == "emoji" else piece, kind)
                for piece, kind in spans(text)]

    def shown(self, run) -> str:
        """Return a run of emoji as it can be shown here: as it is, or by names.

        On X11 no Tk makes one picture of several: a family of its people, a thumb of
        its colour. So what would join them goes, and a colour would be a square.
        """
        if self.x11:
            # (?<=..): but a colour alone stays, with nothing before it.
            run = re.sub("[\u200d\ufe0f\U0001f3fb-\U0001f3ff](?<=..)", "", run)
        if self.safe:
            return run
        # Not thousands of them: as one word of 68,000 letters they took 0.3 s.
        names = [unicodedata.name(sign, "emoji").lower() for sign in run[:MOST_SPANS]]
        return "".join(f":{name.replace(' ', '_')}:" for name in names
                       ) + "▫" * len(run[MOST_SPANS:])


def keep_pictures(root):
    """Let libXft keep the pictures that it has drawn.

    It takes them for much larger than they are, and throws the first one out for the
    third: a message of 4,000 emoji took 2.9 s. How much it may keep, it asks X's own
    settings (“resources”), and those may stand in a file. It asks once, at the start.
    """
    if "XENVIRONMENT" in os.environ:    # the user has such a file already
        return
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile("w") as file:
        file.write("Xft.maxglyphmemory: 1000000000\n")
        file.flush()
        os.environ["XENVIRONMENT"] = file.name
        root.tk.call("font", "metrics", "TkDefaultFont")    # any font: it reads it now
        del os.environ["XENVIRONMENT"]
# endregion


# region 17. The window: look  (lesson 10)
# A colour for each role, light and dark. Whatever stands on something has a contrast of
# at least 4.5 with it (WCAG 2.1, 1.4.3), so that everybody can read it.
COLOURS = {
    "window": ("#EDF0F4", "#14171C"), "sidebar": ("#F4F6F9", "#191D23"),
    "surface": ("#FFFFFF", "#1F242B"), "text": ("#1A1F27", "#E7EAEE"),
    "muted": ("#586273", "#A3ADBB"), "border": ("#D5DBE4", "#343C48"),
    "edge": ("#848D9A", "#7A8494"), "selected": ("#DCE7FB", "#2B3C5A"),
    "hover": ("#E6EBF2", "#2A313B"), "accent": ("#1F5FD6", "#3A6FD4"),
    "pressed": ("#184DB0", "#2F62C2"), "link": ("#1A56C4", "#8AB4FF"),
    "danger": ("#B3261E", "#FF9A93"), "danger ground": ("#FCE9E8", "#3F2224"),
    "warning": ("#7A4B00", "#F2C063"), "warning ground": ("#FFF1D6", "#3A2F1A"),
    "ok": ("#17703A", "#6FD08C"), "badge": ("#C62828", "#D93A3A"),
    "on accent": ("#FFFFFF", "#FFFFFF"), "on disc": ("#FFFFFF", "#14171C"),
    "mention": ("#FFF4D9", "#3A3320"), "new": ("#C62828", "#FF8A80"),
}
# The server gives each person an index from 0 to 11. Each theme has its own colour for
# it, so a name can be read on every ground, and is the same person's everywhere.
NAME_COLOURS = (
    "#B3261E #A34700 #7D5700 #4F6A00 #17703A #00736B "
    "#006A91 #1F5FD6 #5548C8 #8239B8 #A82A86 #6B5348".split(),
    "#FF9A93 #FFA869 #E9BE55 #B5CF5B #6FD08C #4FD1C5 "
    "#62C4EC #8AB4FF #B0A6FF #D59BFF #FF93D0 #CDB2A4".split())

# A PNG of 64×64. Drawn by our own code it would cost 354 ms at every start (measured).
LOGO = """
iVBORw0KGgoAAAANSUhEUgAAAEAAAABABAMAAABYR2ztAAAAMFBMVEUtZtktZtktZtktZtktZtktZtkt
ZtktZtktZtktZtktZtktZtktZtktZtktZtktZtmy54MZAAAAEHRSTlMAESIzRFVmd4iZqrvM3e7/dpUB
FQAAAaZJREFUeNrtlb1KA0EQx8d8EBNFfAHheoukFRXS2KqFhYLoK1jamUYELQyIdVJKLBRtxMaA2AVC
8AFioXUgGDTxcuPdze3d7N5cl8LCaW5n/7/b252b2QGYhJWShHTwvLZkPfUYDG6+ZOBopAB8lvQVjACs
xPVp5MC4bOqZrgbgcF7Xp2qoA/ihA3toAnjH9UWMA85BpOd6AoB2GNF0GyUAvxVwjjKAr+SvYhKAl4eN
xskOJgOG/QN/FhieKuGqJgGOBfs0P4CUlHIDgDwBVQhQBRD+5lYrAW4tz9GiQQ2F74GfrDaEa1G95cip
qI+NqDA9o0ooJAN1H5iNgCdv8BMBTQ7cqu16W5sRgD5AlkabAEUBcFdeoFEn+JYB4L13Z3g2Li8jBwqY
aHUeB8koDmk2M261uswt8X+hfg/LDse4DvwjZpmjLowim+trTgDwY9jt2CHCNIibBcImhC1EsTSsGTWG
nqQ7rI1sSMAnv9olQGsA63H9XW9PbVO3jUaWN4FqvENpJnSxXa6/SF1uKYyGcyH3ycwZpf1DObFJp9a2
j7csmKz9AkeQaZznjDPjAAAAAElFTkSuQmCC
"""


def system_theme() -> str:
    """Ask the system whether its windows are dark; "light" where it cannot say.

    Each system has its own place for it, and Tk asks none of them.
    """
    try:
        if os.name == "nt":
            # Imported here: elsewhere there is no such module.
            import winreg
            with winreg.OpenKey(winreg.HKEY_CURRENT_USER, r"Software\Microsoft\Windows"
                                r"\CurrentVersion\Themes\Personalize") as key:
                light, _ = winreg.QueryValueEx(key, "AppsUseLightTheme")
            return "light" if light else "dark"
        ask = (["defaults", "read", "-g", "AppleInterfaceStyle"]
               if sys.platform == "darwin" else
               ["gsettings", "get", "org.gnome.desktop.interface", "color-scheme"])
        # A program of the system's, with a limit: a desktop that hangs must not keep
        # our window from opening. On macOS the setting exists only when it is dark.
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=1).stdout
        return "dark" if "dark" in answer.lower() else "light"
    except (OSError, subprocess.SubprocessError):
        return "light"


class Choices(UserFile):
    """What the user has chosen in the menu, for the next time as well.

    Of two windows the one in which something was chosen last wins. That a second one
    has looked different until then harms nobody.
    """

    def __init__(self):
        """The choices of somebody who has made none."""
        super().__init__("window.json", "What you chose for the window")
        self.theme, self.toasts, self.bell = "auto", True, False

    def load(self):
        """Read the file, if there is one, and return this object."""
        self.read(self.take)
        return self

    def take(self, values):
        """Take all values over, or none: ValueError."""
        theme, toasts = field(values, "theme"), field(values, "toasts", bool)
        bell = field(values, "bell", bool)
        if theme not in ("auto", "light", "dark"):
            raise ValueError("there is no such theme")
        self.theme, self.toasts, self.bell = theme, toasts, bell

    def set(self, name, value):
        """Change one of them, and keep all."""
        setattr(self, name, value)
        self.write({"theme": self.theme, "toasts": self.toasts, "bell": self.bell})


class Look:
    """Colours, fonts and sizes: everything that two widgets must agree on."""

    def __init__(self, root, theme: str):
        """`theme`: "light", "dark", or "auto": as the system has it."""
        self.root = root
        dark = (system_theme() if theme == "auto" else theme) == "dark"
        # As an index False is 0, and True is 1.
        self.colours = {role: pair[dark] for role, pair in COLOURS.items()}
        self.names = NAME_COLOURS[dark]
        # Pixels an inch: 96 on an ordinary screen, twice that on a dense one, where a
        # line of one pixel would be a hair. Rounded: Tk says 95.98 for 96.
        self.scale = round(root.winfo_fpixels("1i") / 96, 2)
        self.emoji = Emoji(root)        # first: see there
        system = root.tk.call("tk", "windowingsystem")
        self.aqua = system == "aqua"    # macOS, where Command is what Ctrl is elsewhere
        # The system's own font; X11 has none, so the first good one that is there.
        default = tkfont.Font(root, name="TkDefaultFont", exists=True)
        family = default.actual("family")
        if system == "x11":
            there, good = tkfont.families(root), ("Inter", "Cantarell", "Ubuntu",
                                                  "Noto Sans", "DejaVu Sans")
            family = next((name for name in good if name in there), family)
        self.fonts = {
            name: tkfont.Font(root, family=family, size=size, weight=weight)
            for name, size, weight in (
                ("body", 11, "normal"), ("name", 11, "bold"), ("label", 10, "normal"),
                ("small", 9, "normal"), ("small bold", 9, "bold"),
                ("title", 13, "bold"), ("brand", 20, "bold"))}
        self.fonts["emoji"] = tkfont.Font(root, family=self.emoji.family or family,
                                          size=11)
        # Tk shows an image only while Python holds it: a local variable would leave
        # an empty spot as soon as this function returns.
        self.images = {}                # for disc(), in region 19
        self.logo = tk.PhotoImage(master=root, data=LOGO)
        if self.scale >= 1.5:
            self.logo = self.logo.zoom(2)
        self.small_logo = self.logo.subsample(2)
        # One menu for all texts, see Reader.show_menu(): only one can be open.
        self.popup = self.menu(root)
        self.style()

    def px(self, size) -> int:
        """Return a size in pixels of this screen; `size` is in 96ths of an inch.

        Each size in this file goes through it. One that does not is half as large as
        all others on a screen that is twice as dense.
        """
        return round(size * self.scale)

    def __getitem__(self, role) -> str:
        """look["text"]: the colour of a role, as "#RRGGBB".

        Roles and not colours: what is red for a mistake on white is pink on black.
        """
        return self.colours[role]

    def style(self):
        """Make a ttk theme of our own, so that it looks the same on every system.

        ttk draws by styles: configure() says how a kind of widget looks at rest, map()
        what is different in a state (under the pointer: "active"; with the keyboard:
        "focus"). "Link.TButton" is a TButton with what is said here on top.
        """
        style, px, fonts = ttk.Style(self.root), self.px, self.fonts
        surface, accent, edge = self["surface"], self["accent"], self["edge"]
        white = self["on accent"]
        # "clam" is the one theme that is on every system and lets each colour be set.
        if "chattycat" not in style.theme_names():      # it is there since the start
            style.theme_create("chattycat", parent="clam")
        style.theme_use("chattycat")
        # ".": every widget. focuscolor is the rim by which one sees where Tab has gone.
        style.configure(".", background=surface, foreground=self["text"], borderwidth=0,
                        font=fonts["body"], focuscolor=accent)
        # clam draws a light and a dark line inside each border, for a look of depth;
        # in the colour of the ground they cannot be seen.
        style.configure("TEntry", fieldbackground=surface, bordercolor=edge,
                        lightcolor=surface, darkcolor=surface, insertcolor=self["text"],
                        selectbackground=accent, selectforeground=white, padding=px(7))
        style.map("TEntry", bordercolor=[("focus", accent)])
        style.configure("TButton", background=accent, foreground=white, anchor="center",
                        focuscolor=white, font=fonts["name"], padding=(px(16), px(9)))
        style.map("TButton", background=[("active", self["pressed"])])
        # Buttons that look like a link, for what is pressed less often.
        for name in ("Link.TButton", "Link.TMenubutton"):
            style.configure(name, background=surface, foreground=self["link"],
                            focuscolor=accent, arrowcolor=self["link"], arrowsize=px(4),
                            font=fonts["label"], padding=(px(6), px(5)))
            style.map(name, background=[("active", self["hover"])])
        style.configure("Plus.Link.TButton", font=fonts["title"], padding=px(5))
        style.configure("Jump.TButton", font=fonts["small bold"],
                        padding=(px(12), px(6)))
        # A layout says of which parts a widget is made. This is a check button without
        # its box (see LoginCard.ticked).
        style.configure("TCheckbutton", font=fonts["label"])
        style.map("TCheckbutton", background=[("active", surface)])
        style.layout("TCheckbutton", [("Checkbutton.focus", {"children": [
            ("Checkbutton.label", {})]})])

    def text(self, parent, **more):
        """Return a box for text of many lines, with tags (see Messages)."""
        return tk.Text(parent, wrap="word", width=20, bd=0, highlightthickness=0,
                       font=self.fonts["body"], bg=self["surface"], fg=self["text"],
                       insertbackground=self["text"], selectbackground=self["accent"],
                       inactiveselectbackground=self["accent"],
                       selectforeground=self["on accent"], **more)

    def menu(self, parent, **more):
        """Return an empty menu. It is no ttk widget, so it has to be told its colours.

        tearoff: a dashed line by which menus could be torn off, thirty years ago.
        """
        return tk.Menu(parent, tearoff=False, font=self.fonts["label"],
                       bg=self["window"], fg=self["text"], relief="flat",
                       activebackground=self["selected"], selectcolor=self["text"],
                       activeforeground=self["text"], disabledforeground=self["edge"],
                       **more)

    def label(self, parent, font="body", colour="text", ground="surface", **more):
        """Return a line of text. A Label shows text or a picture, and does nothing.

        Not of ttk: that one has its colours by styles, and each pair of them would want
        a style of its own.
        """
        return tk.Label(parent, font=self.fonts[font], fg=self[colour],
                        bg=self[ground], **more)

    def focus(self, widget):
        """Give the keyboard to a widget; but not while a dialog has it, when something
        happens behind that: the rest of a file's name would go nowhere."""
        if not self.root.tk.call("grab", "current"):
            widget.focus_set()


def bind_wheel(widget, scroll):
    """Let scroll(-1) or scroll(1) be called when the wheel turns over a widget.

    Windows and macOS send MouseWheel, X11 with Tk 8.6 two buttons, 4 for up and 5 for
    down. Tk 9 has an event of its own for two fingers on a touchpad; that comes far
    more often, and delta holds two numbers: how far down is in 16 bits of it, and 0
    there is a move to the side.
    """
    def turned(event):
        down = event.num == 5 or event.num != 4 and (
            (event.delta & 0xFFFF ^ 0x8000) < 0x8000)
        scroll(1 if down else -1)

    for name in ("<MouseWheel>", "<Button-4>", "<Button-5>"):
        widget.bind(name, turned, add=True)
    with contextlib.suppress(tk.TclError):      # Tk 8.6 does not know the word
        widget.bind("<TouchpadScroll>", lambda event:
                    event.serial % 5 or not event.delta & 0xFFFF or turned(event),
                    add=True)
# endregion


# region 18. The window: login  (lesson 10)
class LoginCard:
    """The card in the middle of the window: server, port, name, password, Connect.

    None of our classes inherits from a widget: each *has* a frame. So this file can be
    read in by a Python that has no Tk at all.
    """

    def __init__(self, parent, look, chat):
        self.look, self.chat = look, chat
        px = look.px
        # A Frame is a box for other widgets. Its border is its "highlight".
        self.frame = tk.Frame(parent, bg=look["window"])
        card = tk.Frame(self.frame, bg=look["surface"], padx=px(32), pady=px(20),
                        highlightthickness=1, highlightbackground=look["border"],
                        highlightcolor=look["border"])
        # Three ways to give a widget its place: place() at a spot (0.5 is the middle,
        # whatever the window's size), grid() in rows and columns, pack() along a side.
        # (Not grid() and pack() in one frame: they would wait for each other for ever.)
        card.place(relx=0.5, rely=0.5, anchor="center")
        top = tk.Frame(card, bg=look["surface"])
        look.label(top, image=look.logo).pack()
        look.label(top, "brand", text="ChattyCat").pack()
        look.label(top, "label", "muted", text="Sign in to start chatting").pack(
            pady=(0, px(12)))
        # In a frame of their own, so that all of them can make place at once for a
        # question: see show_status().
        self.fields = tk.Frame(card, bg=look["surface"])
        self.make_fields()
        self.sentence = look.label(card, "label", justify="left", anchor="w",
                                   padx=px(10), pady=px(8))
        self.make_buttons(card)
        self.hint = look.label(card, "small", "muted")
        # In a low window the entries and the buttons are worth more than the cat.
        self.frame.bind("<Configure>", lambda event: (
            show(top, event.height > px(600), row=0),
            show(self.hint, event.height > px(600), row=7, pady=px(10))))

    def make_fields(self):
        """Make what is filled in: rows of two columns, each with its label above.

        What stood there the last time stands there again, except for the password.
        """
        chat, px = self.chat, self.look.px
        # Column 0 takes what room there is; none gets narrower than its minsize.
        self.fields.columnconfigure(0, weight=1, minsize=px(205))
        self.fields.columnconfigure(1, minsize=px(90))
        host, port = chat.server or (chat.login.host, chat.login.port)
        self.host = self.entry("Server", host, 0, 0)
        self.port = self.entry("Port", port, 0, 1)
        self.name = self.entry("Your name", chat.me or chat.login.name, 2, 0,
                               columnspan=2)
        # show: a letter that stands for each one typed, for who looks over a shoulder.
        known = chat.passwords.get((host, port), "")     # no other server may get it
        self.password = self.entry("Password, if there is one", known, 4, 0, show="•")
        self.shown_tls = chat.login.tls
        self.tls = Tick(self.fields, "TLS", self.shown_tls)
        self.tls.button.grid(row=5, column=1, sticky="w", padx=(px(10), 0))
        self.remember = Tick(self.fields, "Remember me on this computer",
                             chat.remember)
        self.remember.button.grid(row=6, columnspan=2, sticky="w", pady=(px(8), 0))
        for widget in (self.host, self.port, self.name, self.password, self.tls.button,
                       self.remember.button):
            widget.bind("<Return>", lambda event: self.connect())

    def make_buttons(self, card):
        """Make the buttons; show_status() puts there which of them make sense."""
        chat = self.chat
        self.button = ttk.Button(card, text="Connect", command=self.press)
        self.trust = ttk.Button(card, text="Trust this server", command=chat.trust)
        self.back = ttk.Button(card, text="Back", style="Link.TButton",
                               command=self.go_back)
        self.offer = ttk.Button(card, text="Start a server here", style="Link.TButton",
                                command=chat.start_server)

    def entry(self, text, value, row, column, columnspan=1, show=""):
        """Put a label and an entry, a box for one line of text, into the grid."""
        look, px = self.look, self.look.px
        look.label(self.fields, "label", text=text).grid(
            row=row, column=column, sticky="w", pady=(px(6), px(3)),
            padx=(px(10) * column, 0))
        entry = ttk.Entry(self.fields, validate="key", width=8, font=look.fonts["body"],
                          show=show,
                          # On Tk 8.6 an Entry shows bytes from elsewhere in memory
                          # when an emoji in it is deleted; so it takes none.
                          validatecommand=(self.fields.register(has_no_emoji), "%P"))
        entry.insert(0, value)
        entry.grid(row=row + 1, column=column, columnspan=columnspan, sticky="ew",
                   padx=(px(10) * column, 0))
        return entry

    def press(self):
        """The button: connect, or stop trying."""
        if self.chat.trying():
            self.chat.command_disconnect("")
        else:
            self.connect()

    def connect(self):
        """Log in with what stands in the entries, or say what is wrong with it."""
        try:
            port = port_number(self.port.get())
            self.chat.remember = self.remember.get()
            self.chat.login.tls = self.shown_tls = self.tls.get()
            host = self.host.get().strip()
            self.chat.passwords[host, port] = self.password.get()
            self.chat.connect(host, port, self.name.get())
        except ValueError as problem:
            self.say(str(problem), "danger")

    def say(self, text, colour):
        """Show a sentence between the entries and the button; "" takes it away."""
        ground = "surface" if colour == "muted" else f"{colour} ground"
        self.sentence.config(text=text, fg=self.look[colour], bg=self.look[ground])
        show(self.sentence, bool(text), row=2, sticky="ew", pady=(self.look.px(10), 0))

    def show_status(self, status):
        """Say what the connection does; show what the user can do about it.

        Red is for what has failed, yellow for what may be all right yet: a server that
        is not there yet, or one whose fingerprint has to be compared.
        """
        state, text = status["state"], status["text"]
        colour = {"connecting": "muted", "greeting": "muted", "waiting": "warning"}
        colour = colour.get(state, "danger")
        if status.get("wanted"):
            colour = "muted"
        if self.chat.can_trust():
            colour = "warning"
        if state == "waiting":
            text += " This window waits for it."
        # To read a fingerprint is work enough: nothing else stands beside it, and each
        # half of one has a line.
        asks = "fingerprint" in status
        for found in (status["fingerprint"], status["known"]) if asks else ():
            if found:
                text = text.replace(found, f"{found[:39]}\n{found[40:]}")
        self.sentence.config(wraplength=self.look.px(380 if asks else 280))
        self.say(text, colour)
        self.show_doors(asks)
        # Only if /tls or “Trust this server” has changed it since: else the tick may be
        # one for the next time, and whoever has set it would be sent on in plain text.
        if self.chat.login.tls != self.shown_tls:
            self.shown_tls = self.chat.login.tls
            self.tls.set(self.shown_tls)
        if asks:
            self.look.focus(self.back)  # an Enter too many must not trust anybody
        elif state in ("choose_name", "offline"):
            self.show_where()
            # Who types the password once more must not find it in the name.
            entry = self.password if status.get("password") else self.name
            # All of it selected: what is typed next takes its place.
            self.look.focus(entry)
            entry.selection_range(0, "end")

    def show_doors(self, asks):
        """Show the entries and the buttons that make sense now; `asks`: whether a
        fingerprint has to be compared."""
        self.hint.config(text="" if asks else "F1 help" if self.chat.trying() else
                         "Enter connects · F1 help")
        self.button.config(text="Stop trying" if self.chat.trying() else "Connect")
        px = self.look.px
        show(self.fields, not asks, row=1, sticky="ew")
        show(self.button, not asks, row=3, sticky="ew", pady=(px(10), 0))
        show(self.trust, self.chat.can_trust(), row=4, sticky="ew", pady=(px(10), 0))
        show(self.back, asks, row=5, sticky="ew", pady=(px(6), 0))
        show(self.offer, self.chat.can_start_server(), row=6, sticky="ew",
             pady=(px(6), 0))

    def show_where(self):
        """Let the entries name the server that has answered.

        After a /connect it is another one than stood there, and who was asked for its
        password would send that to the old one.
        """
        here = self.chat.connection
        if here is None:
            return
        password = self.chat.passwords.get((here.host, here.port), "")
        for entry, text in ((self.host, here.host), (self.port, str(here.port)),
                            (self.password, password)):
            if entry.get() != text:
                entry.delete(0, "end")
                entry.insert(0, text)

    def go_back(self):
        """From the question to the entries: nobody has been trusted.

        The connection is cut already, so there is nothing to undo but what is shown.
        """
        self.chat.take_status({"state": "offline", "text": ""})


class Tick:
    """A box to be ticked, drawn as a letter of the font.

    ttk's theme clam, on which ours stands, shows a cross for “yes”, which many people
    read as “no”.
    """

    def __init__(self, parent, text, value):
        self.text = text
        # A BooleanVar lives in Tk; the check button switches it, we read it.
        self.value = tk.BooleanVar(parent, value)
        self.button = ttk.Checkbutton(parent, variable=self.value, command=self.draw)
        self.draw()

    def draw(self):
        """Show the value. Tk calls this after a click, when it has changed it.

        Box and word are one text, so a click on either of them does it.
        """
        self.button.config(text=f"{'☑' if self.value.get() else '☐'} {self.text}")

    def get(self) -> bool:
        """Whether it is ticked."""
        return self.value.get()

    def set(self, value):
        """Change it from here. Tk would draw a box of its own then; ours is a letter in
        the text, and has to be changed with it."""
        self.value.set(value)
        self.draw()


def has_no_emoji(text) -> bool:
    """Whether Tk 8.6 can hold each character as one (it counts in 16 bits)."""
    return all(character <= "\uffff" for character in text)


def show(widget, wanted: bool, **where):
    """Put a widget into its place in the grid, or take it out."""
    if wanted:
        widget.grid(**where)
    else:
        widget.grid_remove()
# endregion


# region 19. The window: people  (lesson 10)
def disc(look, colour, ground, size, longer=0):
    """Return a round picture, `size` in 96ths of an inch, for this ground.

    `longer` makes a pill of it: so many pixels between its two round ends. Outside of
    it nothing is painted: what lies beneath is seen.

    A Canvas draws ovals with steps at the rim, since a pixel is either in or out. Here
    each pixel at the rim is mixed of both colours, by how far the rim cuts into it
    (anti-aliasing): with the rim in its middle, half of each. Hence `ground`, the
    colour of what is behind it.

    3 ms a disc, so each is painted only once and kept.
    """
    if (colour, ground, size, longer) not in look.images:
        high = look.px(size)
        middle = (high - 1) / 2
        # "#1F5FD6" -> [31, 95, 214]: red, green, blue, from 0 to 255. Base 16, so two
        # digits hold just that.
        inside, outside = ([int(c[at:at + 2], 16) for at in (1, 3, 5)]
                           for c in (colour, ground))
        rows, outer = [], []
        for y in range(high):
            row = []
            for x in range(high + longer):
                # How far from the line between the two ends' middles (Pythagoras).
                beside = max(middle - x, x - middle - longer, 0)
                share = min(1, max(0, high / 2 - math.hypot(beside, y - middle)))
                if not share:
                    outer.append((x, y))
                row.append("#%02x%02x%02x" % tuple(
                    round(a * share + b * (1 - share))
                    for a, b in zip(inside, outside)))
            rows.append("{" + " ".join(row) + "}")
        image = tk.PhotoImage(master=look.root, width=high + longer, height=high)
        # put() wants "{#112233 #112234 …} {…} …", a list of lists as Tcl writes it.
        image.put(" ".join(rows))
        for x, y in outer:
            image.transparency_set(x, y, True)
        look.images[colour, ground, size, longer] = image
    return look.images[colour, ground, size, longer]


# The sidebar keeps nothing of its own: when something has changed, it draws anew what
# the chat knows now. So it can never show a person who has gone.
class Sidebar:
    """The left side: who I am, Everyone, then each person: disc, name, unread lines.

    Drawn on a Canvas, a surface for lines, pictures and text: a list widget cannot
    show a disc and a badge in one row. A row's colour is the person's own, the same
    as in the messages; the letter tells those who cannot tell colours apart.
    """
    ROW = 40                            # 96ths of an inch

    def __init__(self, parent, look, chat):
        self.look, self.chat = look, chat
        px = look.px
        self.frame = tk.Frame(parent, bg=look["sidebar"])
        # fill="x": as wide as the sidebar. anchor="w" (west): at the left of its place.
        mine = tk.Frame(self.frame, bg=look["sidebar"])
        # A pair is the room before and behind: above and below, or left and right.
        mine.pack(fill="x", padx=px(14), pady=(px(12), px(6)))
        look.label(mine, ground="sidebar", image=look.small_logo).pack(side="left")
        self.me = look.label(mine, "name", ground="sidebar")
        self.me.pack(anchor="w", padx=px(8))
        # compound: a picture, the dot, and a text in one label.
        self.state = look.label(mine, "small", "muted", "sidebar", compound="left")
        self.state.pack(anchor="w", padx=px(8))
        # takefocus: the Tab key stops here too, and the rim shows it.
        self.canvas = tk.Canvas(self.frame, width=px(244), bg=look["sidebar"],
                                takefocus=1, highlightthickness=px(2),
                                highlightbackground=look["sidebar"],
                                highlightcolor=look["accent"])
        # expand: this one gets all the room that the others have left.
        self.canvas.pack(fill="both", expand=True)
        self.rows = []                  # (y, name) of what can be chosen
        # bind() gives Tk a function to call when something happens to the widget. It
        # is called with an event: which key, where the pointer was, and so on. A
        # lambda throws that away where only the fact counts.
        bind = self.canvas.bind
        bind("<Button-1>", self.click)
        bind("<Up>", lambda event: self.step(-1))
        bind("<Down>", lambda event: self.step(1))
        bind("<Configure>", lambda event: self.draw())      # another size
        bind_wheel(self.canvas, self.scroll)

    def show_status(self, state):
        """Show how the connection is, under our name."""
        here = self.chat.connection
        words = {"online": "Connected by TLS" if here and here.known else "Connected",
                 "waiting": "Reconnecting…"}
        ok = "ok" if state == "online" else "warning"
        # config() changes what was given when the widget was made.
        self.state.config(text=" " + words.get(state, "Connecting…"),
                          image=disc(self.look, self.look[ok], self.look["sidebar"], 9))

    def scroll(self, steps):
        """Move the list by some rows."""
        # A canvas scrolls past its end when everything fits; so ask first.
        if self.canvas.yview() != (0.0, 1.0):
            self.canvas.yview_scroll(steps, "units")

    def click(self, event):
        """Open the conversation in whose row the click was."""
        self.canvas.focus_set()
        # The event counts from the top of what is seen; the rows stand where they do
        # in the whole list. canvasy() knows how far it is scrolled.
        y = self.canvas.canvasy(event.y)
        for top, name in self.rows:
            if top <= y < top + self.look.px(self.ROW):
                self.chat.show(self.chat.conversation_with(name))
                return

    def step(self, by):
        """Up and Down: the conversation above or below the current one. Not everybody
        has a mouse, or a hand that can aim with it."""
        names = [name for _, name in self.rows]
        if self.chat.current.name in names:
            at = names.index(self.chat.current.name) + by
            if 0 <= at < len(names):
                self.chat.show(self.chat.conversation_with(names[at]))
                # To show a conversation puts the keyboard into its composer. Back
                # here, or a second Down would move the cursor there.
                self.canvas.focus_set()

    def draw(self, follow=False):
        """Draw all rows anew; `follow`: scroll to the one of the current conversation.

        To change only what has changed would take much more code; all anew, with
        200 people, takes 10 ms (measured), four times a second at most.
        """
        chat, me = self.chat, name_key(self.chat.me or "")
        online = chat.status["state"] == "online"   # else nobody knows who is there
        self.me.config(text=chat.me or "")
        # What a Canvas shows are items: they stay until they are deleted.
        self.canvas.delete("all")
        self.rows = []
        # The order is that of talks(). Who has left stays, in grey, while there is
        # something to read: to be told "2 unread" and not find them would be worse
        # than a longer list.
        here = sorted(chat.people.items(), key=lambda item: (item[0] != me, item[0]))
        gone = [talk for talk in chat.talks() if talk is not chat.everyone
                and name_key(talk.name) not in chat.people]
        y = self.row(self.look.px(6), None, 0, chat.everyone, True, "Everyone")
        y = self.header(y, f"PEOPLE{' ONLINE' if online else ''} — {chat.count}")
        for key, (name, color) in here:
            shown = name + " (you)" if key == me else name
            y = self.row(y, name, color, chat.conversations.get(key), online, shown)
        if online and chat.count == 1:
            y = self.header(y, "Nobody else is here yet.")
        if gone:
            y = self.header(y, f"OFFLINE — {len(gone)}")
        for talk in gone:
            y = self.row(y, talk.name, talk.color, talk, False, talk.name)
        # How far one can scroll. At least what is seen, or a short list could be
        # moved about in its window.
        end, height = max(y, self.canvas.winfo_height()), self.canvas.winfo_height()
        self.canvas.config(scrollregion=(0, 0, 1, end))
        for top, name in self.rows if follow else ():
            above = self.canvas.canvasy(0)
            if name == chat.current.name and not (
                    above <= top <= above + height - self.look.px(self.ROW)):
                self.canvas.yview_moveto((top - height / 2) / end)

    def header(self, y, text):
        """Draw a small title between rows; return where the next row begins."""
        px, look = self.look.px, self.look
        self.canvas.create_text(px(18), y + px(20), text=text, anchor="w",
                                font=look.fonts["small bold"], fill=look["muted"])
        return y + px(36)

    def row(self, y, name, color, conversation, present, shown):
        """Draw a row (name None: Everyone); return where the next one begins."""
        # create_…() draws an item at (x, y). Later items lie on top of earlier ones,
        # so the order here is: ground, disc, letter, dot, name, badge.
        look, px, canvas = self.look, self.look.px, self.canvas
        # winfo_…() asks for what is on the screen; before it is there, 1 comes back.
        height, width = px(self.ROW), max(canvas.winfo_width(), px(120))
        middle = y + height // 2
        ground = look["sidebar"]
        if conversation is self.chat.current:
            ground = look["selected"]
            canvas.create_rectangle(px(6), y, width - px(6), y + height, width=0,
                                    fill=ground)
        if name is None:
            self.picture(middle, "#", look["accent"], look["on accent"], ground)
        else:
            colour = look.names[color] if present else look["muted"]
            self.picture(middle, name[0].title(), colour, look["on disc"], ground)
            if present:
                # A dot: online. First a larger one in the ground's colour, as a rim,
                # so that the green one stands apart from a green disc too.
                for size, role in ((13, ground), (9, look["ok"])):
                    canvas.create_image(px(42), middle + px(9),
                                        image=disc(look, role, ground, size))
        # Bold while something is unread: a red badge alone would tell nothing to
        # those who cannot tell red from green.
        unread = conversation.unread if conversation is not None else 0
        font = look.fonts["name" if unread or name is None else "body"]
        room = width - px(58) - px(60 if unread else 14)
        canvas.create_text(px(58), middle, anchor="w", font=font,
                           text=shorten(shown, font, room),
                           fill=look["text" if present else "muted"])
        if unread:
            self.badge(width - px(34), middle, conversation, ground)
        self.rows.append((y, name))
        return y + height

    def picture(self, y, letter, colour, ink, ground):
        """Draw somebody's disc with their initial: a face, for lack of a better."""
        x, look = self.look.px(32), self.look
        self.canvas.create_image(x, y, image=disc(look, colour, ground, 28))
        self.canvas.create_text(x, y, text=letter, fill=ink, font=look.fonts["name"])

    def badge(self, x, y, talk, ground):
        """Draw how much is unread: a pill as long as its number.

        Red for what is said to us: what somebody wrote to us alone, or with our name
        in it. The chatter of the room is grey; else one would have to look each time.
        """
        look, font = self.look, self.look.fonts["small bold"]
        # More than 99 nobody counts, and the row has no room for it.
        number = "99+" if talk.unread > 99 else str(talk.unread)
        colour, ink = look["badge"], look["on accent"]
        if talk.name is None and not talk.mentions:
            colour, ink = look["muted"], look["on disc"]
        elif talk.mentions:
            number = "@" + number       # for those who see no colours
        pill = disc(look, colour, ground, 20, max(0, font.measure(number) - look.px(8)))
        self.canvas.create_image(x, y, image=pill)
        self.canvas.create_text(x, y, text=number, fill=ink, font=font)


# Long names are shown as far as they go: a row that wraps would push all others down,
# and one that runs out of the sidebar would hide its own badge.
def shorten(text, font, room):
    """Cut a text to `room` pixels, with an ellipsis at its end.

    Measured and not counted: twenty "i" are narrower than six "W".
    """
    if font.measure(text) <= room:
        return text
    while text and font.measure(text + "…") > room:
        text = text[:-1]
    return text + "…"
# endregion


# region 20. The window: pictures  (lesson 18)
# A picture of somebody else is read by a process of its own. Tk's readers believe what
# they read: a GIF of 71 bytes can end the program that reads it, and a PNG of 2 KB with
# a pattern of holes in it takes 7 s, in which no window moves (both measured, Tk 8.6).
# That process may crash, and may be killed; this one goes on.
PICTURE_BYTES = 5_000_000
PICTURE_PIXELS = 2_000_000  # reading one of 4000×3000 takes 0.7 s
PICTURE_SECONDS = 5         # then the process is killed
# As wide and as high as one is shown, in 96ths of an inch.
PICTURE_SIDE = 360


def may_be_picture(path) -> bool:
    """Whether a file begins as a picture does, and is small enough to be shown.

    Each kind begins with letters of its own, so that programs need not trust its name.
    This one is only to spare us a process for all that is no picture.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(12)
        return (os.path.getsize(path) <= PICTURE_BYTES and (start[8:] == b"WEBP" or
                start.startswith((b"\x89PNG", b"GIF8", b"\xff\xd8", b"BM"))))
    except OSError:
        return False


def picture_size(path):
    """Return (width, height) of a PNG or GIF, None if it is neither. Raises OSError.

    By what stands in it, and not by its name: a name says what its sender wants.
    Read from its first bytes, before Tk sees it. A file of 100 bytes can promise
    50,000×50,000 points, and whoever believes it asks the system for 10 GB.
    """
    with open(path, "rb") as file:
        start = file.read(2**16)
    if len(start) < 24:                 # the smallest of both have more
        return None
    if start[:8] == b"\x89PNG\r\n\x1a\n" and start[12:16] == b"IHDR":
        return struct.unpack(">II", start[16:24])
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return gif_size(start)
    return None


def gif_size(start):
    """Return the larger of what a GIF says of itself and of its first picture.

    They stand in two places and need not agree, and Tk makes room for the second one.
    Between the two are colours and blocks of other things, each with its length in
    front (GIF89a specification, 18 to 26).
    """
    sides = [struct.unpack("<HH", start[6:10])]
    at = 13 + (3 * 2 ** (start[10] % 8 + 1) if start[10] & 0x80 else 0)
    while start[at:at + 1] == b"!":     # an extension: skip it, block by block
        # Where its first block is empty Tk reads on, and finds another size than we.
        # One of 32,000×32,000 in there ended the whole program (measured).
        if start[at + 1:at + 2] == b"\xf9" and start[at + 2:at + 3] != b"\4":
            return None
        at += 2
        while start[at:at + 1] not in (b"", b"\0"):
            at += 1 + start[at]
        at += 1
    if start[at:at + 1] != b"," or len(start) < at + 9:
        return None                     # no picture near its beginning
    sides.append(struct.unpack("<HH", start[at + 5:at + 9]))
    return max(width for width, _ in sides), max(height for _, height in sides)


def load_picture(root, path, side):
    """Return a PhotoImage of at most `side` pixels each way; None if it is none to be
    shown. Raises TclError for what begins as a picture and is none."""
    if os.path.getsize(path) > PICTURE_BYTES:
        return None
    size = picture_size(path)
    if size is None:                    # neither of the two that Tk can read
        return load_by_pillow(root, path, side)
    # 0 × 0 is no mistake for Tk; it makes an image of nothing.
    if not 0 < size[0] * size[1] <= PICTURE_PIXELS:
        return None
    image = tk.PhotoImage(master=root, file=path)
    # subsample() takes each second point, or each third, … Not pretty, but it needs
    # nothing that is not there. -(-a // b) is a / b, rounded up.
    longest = max(image.width(), image.height())
    return image.subsample(max(1, -(-longest // side)))


def load_by_pillow(root, path, side):
    """The same for JPEG, WebP and BMP, which Tk cannot read, if Pillow is installed."""
    try:
        # pip install pillow. Imported only here: nothing else needs it.
        from PIL import Image, ImageOps
        with open(path, "rb") as file:
            # A JPEG can come in several passes ("scans", FF DA), each finer than the
            # last. Usual are 10 at most; with 10,000 it takes 2 s (measured).
            if file.read().count(b"\xff\xda") > 100:
                return None
        # Only these: others of its formats start programs, to draw PostScript.
        with Image.open(path, formats=("JPEG", "WEBP", "BMP")) as picture:
            if picture.width * picture.height > PICTURE_PIXELS:
                return None
            picture.thumbnail((side, side))
            # Telephones take all pictures lying, and write down how they were held.
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            # Tk can read PPM, which is nothing but the points, one after the other.
            data = io.BytesIO()
            upright.save(data, "PPM")
        return tk.PhotoImage(master=root, data=data.getvalue())
    except Exception:                   # not there, too old, or it is no picture
        return None


def paint(path, side, ground) -> int:
    """What the other process does: read a picture, and write it to standard output as
    PPM. Returns the exit status.

    `side`: how wide and how high it may be; `ground`: the colour that stands where one
    could see through it. Both are words, as all that comes by a command line.
    """
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource                 # Windows has none
        # Whatever becomes of our parent: no file when it crashes, 10 s of a processor
        # and 1 GiB of memory (the last one, since macOS may refuse it).
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    root = tk.Tk()
    root.withdraw()                     # no window of it is ever seen
    image = load_picture(root, path, int(side))
    if image is None:
        return 1
    sys.stdout.buffer.write(root.tk.call(
        image, "data", "-format", "ppm", "-background", ground))
    return 0


class Painter:
    """Has pictures read by processes of their own, one at a time, the newest first.

    To start one takes some tenths of a second, but not of ours: it runs beside us. We
    come and look whether it is done, as we do with the network. What it says is a
    picture again, but of a kind with which nothing can go wrong: a size, which is not
    more than we have asked for, and three bytes for each point.
    """

    def __init__(self, root, ground):
        self.root, self.ground = root, ground
        self.waiting = []               # (card, path)
        self.process = self.timer = self.card = None

    def read(self, card, path):
        """Call card.show_picture(image) when it is read; with None if it is none."""
        self.waiting.append((card, path))
        if self.process is None:
            self.begin()

    def begin(self):
        """Start the process for the newest one that waits: it is most likely in sight.
        """
        while self.waiting and self.process is None:
            self.card, path = self.waiting.pop()
            if not self.card.frame.winfo_exists():
                continue                # its line is gone meanwhile
            self.side = self.card.room()
            try:
                self.start(path)
            except OSError:             # no room on the disk, too many processes, …
                self.root.after_idle(self.card.show_picture, None)

    def start(self, path):
        """Start the process. Raises OSError."""
        # What it writes goes into a file, and not into a pipe: that takes 64 KiB, and
        # then it would wait until somebody reads.
        self.out = tempfile.TemporaryFile()
        self.end = time.monotonic() + PICTURE_SECONDS
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--paint", path, str(self.side),
             self.ground], stdin=subprocess.DEVNULL, stdout=self.out,
            stderr=subprocess.DEVNULL)
        self.timer = self.root.after(50, self.look)

    def look(self):
        """Look whether it is done, or has taken too long. (A thread could wait for it
        instead; but a picture belongs to Tk, and Tk to the main thread.)"""
        if self.process.poll() is None and time.monotonic() < self.end:
            self.timer = self.root.after(50, self.look)
            return
        well = self.process.poll() == 0
        self.stop()
        with self.out:
            self.out.seek(0)
            data = self.out.read(3 * self.side * self.side + 100)
        card, image = self.card, None
        with contextlib.suppress(tk.TclError):
            if well and self.is_picture(data):
                image = tk.PhotoImage(master=self.root, data=data, format="ppm")
        self.begin()
        card.show_picture(image)

    def is_picture(self, data) -> bool:
        """Whether it is as many points as its size says, and no larger than asked for.

        Looked at before Tk does: who has taken over that process could write anything.
        """
        size = re.match(rb"P6\n([1-9]\d{0,3}) ([1-9]\d{0,3})\n255\n", data)
        if size is None:
            return False
        width, height = int(size[1]), int(size[2])
        return (max(width, height) <= self.side
                and len(data) == size.end() + 3 * width * height)

    def stop(self):
        """End the process, if there is one; also when the window closes.

        kill() may come too late, when it has ended by itself; that is no error. wait()
        takes its exit status, or the system would keep it for us as a “zombie”.
        """
        if self.process is not None:
            self.root.after_cancel(self.timer)
            self.process.kill()
            self.process.wait()
            self.process = None


# endregion


# region 21. The window: files  (lesson 18)
class Card:
    """A file in a conversation: what it is, how far it has come, what one can do.

        photo.png                   the picture above it, if it is one
        1.2 MiB · no. 3             or how far it is, with a bar below
        Save   Save as…             or Cancel, Open folder, Try again

    draw() shows what is true now, and is called whenever that has changed. So a card
    remembers nothing, but what has come of its picture.
    """

    def __init__(self, view, look, chat, line):
        """`view`: the Messages in which it stands."""
        self.view, self.look, self.chat, self.line = view, look, chat, line
        px = look.px
        # The path of the picture that was tried, what came of it, whether it is none.
        self.tried, self.image, self.broken = "", None, False
        self.frame = tk.Frame(view.text, bg=look["surface"], padx=px(12), pady=px(8),
                              highlightthickness=1, highlightbackground=look["border"])
        self.picture = tk.Label(self.frame, bg=look["surface"], bd=0)
        self.name = look.label(self.frame, "name")
        self.name.grid(row=1, sticky="w")
        self.about = look.label(self.frame, "small", justify="left")
        self.about.grid(row=2, sticky="w")
        # A frame within a frame: as wide as the share that is here already.
        self.bar = tk.Frame(self.frame, bg=look["border"], height=px(6))
        self.share = tk.Frame(self.bar, bg=look["accent"])
        self.buttons = tk.Frame(self.frame, bg=look["surface"])
        # Each button with the question whether it makes sense now.
        self.doors = [(self.button(text, press), wanted) for text, press, wanted in (
            ("Cancel", self.cancel, self.is_moving),
            ("Try again", self.again, self.has_failed),
            ("Save", self.save, self.can_save),
            ("Save as…", self.save_as, self.can_save),
            ("Open folder", self.show_folder, self.is_saved))]
        self.listen()
        self.draw()
        if self.wants_picture():
            look.root.after_idle(chat.fetch_picture, line)

    def button(self, text, command):
        """Make a button; draw() shows it while it makes sense."""
        return ttk.Button(self.buttons, text=text, style="Link.TButton",
                          command=command)

    def listen(self):
        """Bind what happens to it."""
        self.frame.bind("<Destroy>", self.forget)
        # It has become higher, by a picture.
        self.frame.bind("<Configure>", lambda event:
                        self.look.root.after_idle(self.view.follow))
        # Over a card, too, the wheel scrolls the conversation.
        for widget in (self.frame, *self.frame.winfo_children(),
                       *self.buttons.winfo_children()):
            bind_wheel(widget, self.wheel)

    def forget(self, event):
        """The Text has taken it away, with its line."""
        if event.widget is self.frame:
            self.frame.destroy()
            # Here, in the main thread: whichever throws an image away asks Tk.
            self.image = None
            if self.view.cards.get(self.line) is self:
                del self.view.cards[self.line]

    def wheel(self, by):
        """The wheel was turned over it: scroll as Tk does, by three lines."""
        self.view.text.yview_scroll(3 * by, "units")
        self.view.look_where()

    # What makes sense now:

    def is_moving(self):
        """It is on its way, or waits for its turn."""
        transfer = self.line.file.transfer
        return transfer is not None and not transfer.is_over()

    def has_failed(self):
        """We have sent it, and nobody has got it."""
        return self.line.state in ("failed", "unknown", "cancelled")

    def can_save(self):
        """It lies at the server, and not here."""
        shared = self.line.file
        return bool(shared.id and not shared.path) and not self.is_moving()

    def is_saved(self):
        """Saved from here; what we have sent ourselves lies where it always lay."""
        return bool(self.line.file.path) and not self.line.ref

    def wants_picture(self):
        """Whether this comes without being asked for: small, and Tk can show it.

        By its name, for lack of anything else: of what is in it nothing is here yet.
        """
        shared = self.line.file
        return (shared.id and not (shared.path or shared.picture or shared.transfer)
                and 0 < shared.size <= PICTURE_BYTES
                and shared.name.lower().endswith((".png", ".gif")))

    def room(self):
        """Return how wide a card can be here, in pixels."""
        px, there = self.look.px, self.view.text.winfo_width()
        return max(px(120), min(px(PICTURE_SIDE), there - px(90)))

    def draw(self):
        """Show how it is now."""
        shared, look, transfer = self.line.file, self.look, self.line.file.transfer
        room = self.room()
        self.bar.config(width=room)
        self.name.config(text=shorten(shared.name, look.fonts["name"], room))
        here = f"no. {shared.number}"       # others have another one: they count, too
        text = f"{size_in_words(shared.size)} · {here}"
        if self.is_moving():
            self.share.place(relwidth=transfer.done / max(1, shared.size), relheight=1)
            text = f"{self.chat.progress(transfer)} · {here}"
        elif transfer is not None and transfer.state == "failed":
            text = f"{text}\n{clean(transfer.trouble)}"
        elif self.is_saved():
            text = f"{text} · saved as {os.path.basename(shared.path)}"
        elif self.broken:
            text = f"{text} · no picture that can be shown"
        failed = transfer is not None and transfer.state == "failed"
        self.about.config(text=text, fg=look["danger" if failed else "muted"],
                          wraplength=room)
        show(self.bar, self.is_moving(), row=3, sticky="ew", pady=look.px(4))
        for column, (button, wanted) in enumerate(self.doors):
            show(button, wanted(), row=0, column=column)
        # An empty frame would keep the height that it had.
        show(self.buttons, any(wanted() for _, wanted in self.doors), row=4, sticky="w",
             pady=(look.px(2), 0))
        self.draw_picture(shared.picture or shared.path)

    def draw_picture(self, path):
        """Let the picture be read, once it is here; but try it only once. (Ours too, to
        see what others see.)"""
        if path and path != self.tried and not self.is_moving():
            self.tried = path
            if may_be_picture(path):
                self.look.painter.read(self, path)

    def show_picture(self, image):
        """The picture has been read, or is none."""
        if not self.frame.winfo_exists():
            return                      # its line is gone meanwhile
        self.image, self.broken = image, image is None
        if image is not None:
            self.picture.config(image=image)
            self.picture.grid(row=0, sticky="w", pady=(0, self.look.px(6)))
        self.draw()

    # What the buttons do.

    def cancel(self):
        """Stop it, and remove what has come of it."""
        self.chat.cancel(self.line)

    def again(self):
        """As /again does it, but for this one alone."""
        self.chat.try_again(self.line)

    def save(self):
        """One click, no questions: where browsers put it."""
        self.chat.save(self.line)
        self.draw()

    def save_as(self):
        """Ask where to. What stands there already stays: see give_name()."""
        # (The window may be closed meanwhile. "": they have changed their mind.)
        with contextlib.suppress(tk.TclError):
            path = filedialog.asksaveasfilename(
                parent=self.frame, confirmoverwrite=False,
                initialdir=downloads_folder(),
                initialfile=safe_name(self.line.file.name))
            if path:
                self.chat.save(self.line, path)
                self.draw()

    def show_folder(self):
        """Show it, by the program with which one looks at folders here."""
        try:
            open_outside(self.line.file.path)
        except OSError as problem:
            self.chat.note(f"No program here shows folders ({problem.filename}). It is "
                           f"saved as {self.line.file.path}", "error")


class Places:
    """Where cards stand in a conversation: a line of text each, until it is in sight.

    So 10,000 files are 10,000 lines, and some ten cards; and of pictures only those
    come that somebody looks at. Tk can call us when it needs a widget, too (create=…).
    But it measures all lines in the background, and for that it needs all of them: with
    500 a timer was late by 82 to 209 ms, and so by 9 (measured; p99: of 100 times 99
    were better).
    """

    def __init__(self, view):
        """`view`: the Messages in whose Text they are, and which has the `cards`."""
        self.view, self.text = view, view.text
        self.lines = {}                 # number of the file -> its line
        self.looking = None             # whether a look is due already
        # "Map": it has come into sight.
        self.text.bind("<Map>", lambda event: self.look_soon())

    def add(self, line):
        """Leave a place at the end. Two tags mark it: as one of all, and as its own."""
        number, mine = str(line.file.number), (f"line {line.ref}",) if line.ref else ()
        self.lines[number] = line
        self.text.insert("end", f"{line.file}\n", ("body", *mine))
        for tag in ("place", f"place {number}"):
            self.text.tag_add(tag, "end-2l linestart", "end-2l lineend")
        if len(self.lines) > 3 * KEPT_LINES:    # its place is no longer in the Text
            oldest = next(iter(self.lines))
            del self.lines[oldest]
            self.text.tag_delete(f"place {oldest}")
        self.look_soon()

    def look_soon(self):
        """What is in sight may be something else now: look, when Tk has drawn it."""
        if self.looking is None:
            # Of the root, not of this Text: that may be gone by then, and Tk complain.
            self.looking = self.view.look.root.after_idle(self.look)

    def look(self):
        """Put a card into the lowest place that is in sight, and look once more: all
        that stands above has moved by that."""
        self.looking = None
        # (The Text may be gone, since we went to another server.)
        if not (self.text.winfo_exists() and self.text.winfo_viewable()):
            return
        bottom = self.text.index(f"@0,{self.text.winfo_height()}")
        spot = self.text.tag_prevrange("place", f"{bottom} lineend", "@0,0 linestart")
        if not spot:
            return
        view, tags = self.view, self.text.tag_names(spot[0])
        own = next(tag for tag in tags if tag.startswith("place "))
        line = self.lines.pop(own.split()[1])
        self.text.tag_delete(own)
        # A Text holds other widgets, too, as if they were very large letters.
        card = view.cards[line] = Card(view, view.look, view.chat, line)
        self.text.config(state="normal")
        self.text.delete(*spot)
        self.text.window_create(spot[0], window=card.frame, pady=view.look.px(4))
        for tag in tags:
            if not tag.startswith("place"):
                self.text.tag_add(tag, spot[0])
        self.text.config(state="disabled")
        view.follow()
        self.look_soon()
# endregion


# region 22. The window: text to read  (lesson 10)
def style_bar(look):
    """Make the scroll bars slim: no arrows, unseen where there is nothing to scroll.

    Mice have wheels today; a bar says where one is, and for that it may be narrow.
    """
    style, name = ttk.Style(look.root), "Vertical.TScrollbar"
    surface, border = look["surface"], look["border"]
    style.configure(name, background=border, troughcolor=surface, width=look.px(8),
                    bordercolor=surface, lightcolor=border, darkcolor=border,
                    gripcount=0)
    style.map(name, background=[("disabled", surface), ("active", look["edge"])],
              lightcolor=[("disabled", surface)], darkcolor=[("disabled", surface)])
    # A bar is made of a trough and a thumb in it; what is left out are the arrows.
    thumb = ("Vertical.Scrollbar.thumb", {"expand": 1, "sticky": "nswe"})
    style.layout(name, [("Vertical.Scrollbar.trough",
                         {"sticky": "ns", "children": [thumb]})])


MENU_EVENTS = "<<ContextMenu>>", "<Shift-F10>", "<Menu>"


class Reader:
    """A text to be read and copied from, with a scroll bar; it follows its own end.

    A Text holds many lines; a tag is a name for a part of it, and for how it looks.
    Nothing can be typed into this one. The messages, the help and the wire are Readers.
    """

    def __init__(self, parent, look, chat, **more):
        """`more`: for the Text, where it is to be different."""
        self.look, self.chat = look, chat
        self.frame = tk.Frame(parent, bg=look["surface"])
        # state="disabled": nobody types into it; who writes switches it on for a
        # moment. height and width are the least it wants, in characters; pack() gives
        # it all there is. The highlight is the rim by which one sees that Tab is here.
        self.text = look.text(self.frame, **{
            "state": "disabled", "height": 4, "cursor": "arrow", "takefocus": 1,
            **more})
        self.text.config(highlightthickness=1, highlightbackground=look["surface"],
                         highlightcolor=look["accent"])
        bar = ttk.Scrollbar(self.frame, command=self.bar_moved)
        bar.pack(side="right", fill="y")
        # The two tell each other where they are: the bar moves the text, and the text
        # says which part of it is seen (from 0.0, the top, to 1.0, the end).
        self.text.config(yscrollcommand=lambda *where: (bar.set(*where), self.moved()))
        self.text.pack(side="left", fill="both", expand=True)
        # Whether to follow the newest line. Only the user's scrolling changes it: a
        # window that shrinks moves the end out of sight too, and nobody wanted that.
        self.stick = True
        # Tk scrolls only after these; when it is idle again, it has. add=True: a second
        # binding beside Tk's own, not in its place.
        bind_wheel(self.text, lambda by: look.root.after_idle(self.look_where))
        self.text.bind("<Key>", lambda event: look.root.after_idle(self.look_where),
                       add=True)
        # Who selects beyond the upper edge scrolls too, and who drags with the middle
        # button. Outside of it Tk scrolls by a clock, and without events: so while one
        # is there the next line does not tear the text away from under the selection.
        for name in ("<B1-Motion>", "<B2-Motion>", "<ButtonRelease>"):
            self.text.bind(name, lambda event: look.root.after_idle(self.look_where),
                           add=True)
        self.text.bind("<B1-Leave>", lambda event: setattr(self, "stick", False),
                       add=True)
        # A disabled Text takes no focus by itself, and without it Ctrl+C does nothing.
        self.text.bind("<Button-1>", lambda event: self.text.focus_set(), add=True)
        self.bind_links()

    def moved(self):
        """Something else is in sight; Messages wants to know."""

    # --- scrolling

    def bar_moved(self, *where):
        """The user has moved the scroll bar; `where` is for yview() to understand: by
        how much, or to which part of the whole."""
        self.text.yview(*where)
        self.look_where()

    def scroll(self, pages):
        """PgUp (-1) and PgDn (1)."""
        self.text.yview_scroll(pages, "pages")
        self.look_where()

    def look_where(self):
        """Take note of where the user has scrolled to."""
        if self.text.winfo_exists():
            self.stick = self.text.yview()[1] >= 1.0

    def to_the_end(self):
        """Go to the newest line, and follow it from now on."""
        self.stick = True
        self.follow()

    def follow(self):
        """Show the newest line, if the user is there. Whoever has scrolled up reads
        something, and must not be torn away from it by each new line."""
        if self.stick and self.text.winfo_exists():
            self.text.see("end")

    # --- links, and what one can do with a text

    def bind_links(self):
        """Make links look and act as links, and open a menu at the right button.

        tag_bind() is bind() for what has a tag. All links have the same one: with a tag
        and a function for each, 5,000 links would be 5,000 functions that nobody frees.
        """
        text, tag = self.text, self.text.tag_configure
        tag("link", foreground=self.look["link"], underline=True)
        # When the button is let go, and not pressed: else no link could be selected.
        text.tag_bind("link", "<ButtonRelease-1>", self.click_link)
        text.tag_bind("link", "<Enter>", lambda event: text.config(cursor="hand2"))
        text.tag_bind("link", "<Leave>", lambda event: text.config(cursor="arrow"))
        # <<ContextMenu>> is the right button, which on macOS has another number. And
        # who has no mouse has a key for it, or Shift+F10.
        for event in MENU_EVENTS:
            text.bind(event, self.show_menu)

    def link_at(self, event) -> str:
        """Return the link under the pointer, or "".

        Read from the text itself, where it stands as one piece with its own tag: so
        what is opened is what one sees.
        """
        at = self.text.index(f"@{event.x},{event.y}")
        spot = self.text.tag_prevrange("link", f"{at} +1c")
        inside = spot and self.text.compare(at, "<", spot[1])
        return self.text.get(*spot) if inside else ""

    def click_link(self, event):
        """Open a link; but not when it was only selected, to be copied."""
        link = self.link_at(event)
        if link and not self.text.tag_ranges("sel"):
            self.chat.open_link(link)

    def show_menu(self, event):
        """Open a menu with what one can do here."""
        menu, link = self.look.popup, self.link_at(event)
        x, y, text = event.x_root, event.y_root, self.text
        if not (0 <= event.x < text.winfo_width()
                and 0 <= event.y < text.winfo_height()):
            # Opened by a key, while the pointer lies somewhere: they look here.
            x, y, link = text.winfo_rootx(), text.winfo_rooty(), ""
        menu.delete(0, "end")
        if link:
            menu.add_command(label="Open link",
                             command=lambda: self.chat.open_link(link))
            menu.add_command(label="Copy link", command=lambda: self.copy(link))
        chosen = self.text.tag_ranges("sel")
        menu.add_command(label="Copy", state="normal" if chosen else "disabled",
                         command=lambda: text.event_generate("<<Copy>>"))
        menu.add_command(label="Select all", command=lambda: (
            self.text.focus_set(), self.text.tag_add("sel", "1.0", "end")))
        # tk_popup() puts the menu there, and it has the keyboard until something is
        # chosen or Esc is pressed.
        menu.tk_popup(x, y)
        return "break"

    def copy(self, text):
        """Put a text where Ctrl+V takes it from.

        On X11 it stays with us, and programs ask for it when they paste: so it is gone
        when we end, unless the desktop keeps such things.
        """
        self.text.clipboard_clear()
        self.text.clipboard_append(text)
# endregion


# region 23. The window: messages  (lesson 12)
class Messages(Reader):
    """One conversation on the screen.

    Each has its own Text: to show another one is to pack another widget, with its
    scrolling and selection as they were. 50 of them cost 3 MB.

    What stands in it, with the tags of each part:

        ● Tigrou  14:02         "head" and "name3"; "head" and "time"
          Hello everyone!       "body" and "arrived" (or "waiting": grey)
        Félix joined · 14:03    "system"
    """
    SAME_AUTHOR = 300                   # seconds without a second header

    def __init__(self, parent, look, chat, conversation):
        px = look.px
        super().__init__(parent, look, chat, padx=px(18), pady=px(8), spacing2=px(4),
                         tabs=(px(22),))
        self.conversation = conversation
        self.cards = {}                 # line -> Card, of those that were seen
        self.places = Places(self)
        self.make_tags()
        # The Lines that stand in it, the oldest first.
        self.drawn = collections.deque(maxlen=2 * KEPT_LINES)
        # How many came below what is in sight: the button says so, and leads there.
        self.below = 0
        self.jump = ttk.Button(self.frame, style="Jump.TButton",
                               command=self.to_the_end)
        # In front of an empty page, so that nobody thinks that something is broken.
        self.empty = look.label(self.frame, "label", "muted",
                                text=chat.nothing_yet(conversation))
        self.empty.place(relx=0.5, rely=0.4, anchor="center")
        self.text.bind("<Configure>", lambda event: self.resized())

    def moved(self):
        """Something else is in sight: perhaps a card that is not made yet."""
        self.places.look_soon()

    def make_tags(self):
        """Define how each kind of text looks. Later tags win over earlier ones.

        lmargin1 indents a line, lmargin2 its continuation: a long text stays under its
        author's name. spacing1 is the room above a line, spacing3 below, spacing2
        between the pieces of one that is wrapped.
        """
        tag, look, px = self.text.tag_configure, self.look, self.look.px
        fonts, indent = look.fonts, {"lmargin1": px(22), "lmargin2": px(22)}
        tag("head", font=fonts["name"], spacing1=px(10))
        # tabs: where the first one leads to, and the second; further on in such steps.
        tag("body", spacing1=px(2), spacing3=px(2), tabs=(px(54), px(86)), **indent)
        tag("time", font=fonts["small"], foreground=look["muted"])
        # name0 to name11: the server's twelve indexes, in this theme's colours.
        for index, colour in enumerate(look.names):
            tag(f"name{index}", foreground=colour)
        for kind, colour in (("system", "muted"), ("error", "danger")):
            tag(kind, foreground=look[colour], font=fonts["label"], spacing1=px(6),
                **indent)
        tag("notice", foreground=look["link"])
        for line, colour in (("day", "muted"), ("new", "new")):
            tag(line, foreground=look[colour], font=fonts["small bold"],
                justify="center", spacing1=px(14), spacing3=px(4))
        # A band: the margins have the colour of the ground too.
        tag("mention", background=look["mention"], lmargincolor=look["mention"],
            rmargincolor=look["mention"], spacing3=px(3))
        tag("emoji", font=fonts["emoji"])
        for state, colour in (("waiting", "muted"), ("kept", "muted"),
                              ("unknown", "warning"), ("failed", "danger")):
            tag(state, foreground=look[colour])
        self.text.tag_raise("sel")      # what is selected must be seen to be

    # --- scrolling: what a Reader does, and the button

    def look_where(self):
        """Who has scrolled down to the end has seen what came."""
        super().look_where()
        self.show_jump()

    def to_the_end(self):
        """Esc, the button, and each line sent."""
        super().to_the_end()
        self.show_jump()

    def place(self):
        """Return where the user reads, for go_to(): so many lines above the end."""
        top, end = (int(self.text.index(at).split(".")[0]) for at in ("@0,0", "end"))
        return self.stick, self.below, end - top

    def go_to(self, place):
        """Go where the user was. (At the top, some lines may have been forgotten.)"""
        self.stick, self.below, lines = place
        if not self.stick:
            self.text.yview(f"end -{lines} lines")
        self.show_jump()

    def show_jump(self):
        """Show the button “↓ 3 new messages” while there are some below."""
        self.below = 0 if self.stick else self.below
        if self.below:
            # Over the lowest line, where the eye is when something comes; a strip of
            # its own would move the text that is being read.
            more = "s" if self.below > 1 else ""
            self.jump.config(text=f"↓ {self.below} new message{more}")
            self.jump.place(in_=self.text, relx=0.5, rely=1.0, y=-self.look.px(10),
                            anchor="s")
        elif self.jump.winfo_exists():
            self.jump.place_forget()

    # --- lines

    def add(self, lines):
        """Add lines, all in one insert. 10,000 take 0.5 s so, and one by one 24 s."""
        # Each insert makes Tk lay the text out anew; so all lines of a batch go into
        # one list first.
        if not lines:
            return
        pieces = []
        self.empty.place_forget()
        if self.conversation.first_new in lines:
            self.remove_new()           # there is only one such line
        self.text.config(state="normal")
        for line in lines:
            # True counts as 1. “Félix joined” is nothing to go down for.
            self.below += line.spoken
            pieces += self.pieces(line)
            self.drawn.append(line)
            if line.file:               # a card is no text: what is above it goes first
                self.text.insert("end", *pieces or [""])
                self.places.add(line)
                pieces = []
        self.text.insert("end", *pieces or [""])
        self.forget_oldest()
        self.text.config(state="disabled")
        self.follow()
        self.show_jump()

    def remove_new(self):
        """Take the line “New messages” away."""
        spot = self.text.tag_ranges("new")
        if spot:
            self.text.config(state="normal")
            self.text.delete(*spot)
            self.text.config(state="disabled")

    def resized(self):
        """The window has another size: the newest line stays in sight, and a card is
        never wider than what is there."""
        self.follow()
        self.empty.config(wraplength=self.text.winfo_width() - self.look.px(40))
        for card in self.cards.values():
            card.draw()

    def pieces(self, line):
        """Return what insert() wants for a line: text, tags, text, tags, …

        Tags go in with their text. Positions that we counted ourselves would be wrong:
        Tk 8.6 counts an emoji as two, Python and Tk 9 as one.
        """
        # The day stands above, the clock here; both in this computer's own zone.
        out, clock = [], f"{line.time:%H:%M}"
        last = self.drawn[-1] if self.drawn else None
        # Lines of our own have two tags by which they are found again: "ref …" is the
        # text, which changes its colour, and "line …" all that was drawn for it.
        mine = (f"line {line.ref}",) if line.state or line.file and line.ref else ()
        if last is None or last.time.date() != line.time.date():
            # The first line of a day, by this computer's clock: its midnight counts.
            # Not "%d": it would write "07". "%-d" is not known on Windows.
            day = f"{line.time:%A} {line.time.day} {line.time:%B %Y}"
            out += [day + "\n", ("day", *mine)]
            last = None
        if line is self.conversation.first_new:
            out += ["─────── New messages ───────\n", ("new",)]
            last = None
        if line.kind in ("system", "error"):
            # \u00a0: a space where no line is broken, so that no clock stands alone.
            return out + [f"{line.text}\u00a0·\u00a0{clock}\n", (line.kind,)]
        # Who goes on talking needs no new header; after five minutes the time does.
        same = (last is not None and last.author == line.author
                and "notice" not in (last.kind, line.kind)
                and (line.time - last.time).total_seconds() < self.SAME_AUTHOR)
        mine += ("mention",) if line.mention else ()
        if not same:
            name = "notice" if line.kind == "notice" else f"name{line.color}"
            out += [f"●\t{line.author}", ("head", name, *mine),
                    f"  {clock}\n", ("head", "time", *mine)]
        if line.file:                   # Places.add() does the rest
            return out
        # The newline goes with the last piece; else each line would be two inserts.
        tags = ("body", line.state or "arrived", *mine)
        tags += (f"ref {line.ref}",) if line.state else ()
        for piece, kind in self.look.emoji.spans(line.text + "\n"):
            out += [piece, (*tags, kind) if kind else tags]
        return out

    def change(self, line):
        """Show a line's new state in its colour; of a file, all of its card.

        tag_ranges() gives the start and the end of what has a tag; nothing if the line
        was among the oldest and is forgotten.
        """
        if line in self.cards:
            self.cards[line].draw()
        spot = self.text.tag_ranges(f"ref {line.ref}")
        if spot and not line.file:
            for state in ("waiting", "kept", "unknown", "failed"):
                self.text.tag_remove(state, *spot)
            if line.state:
                self.text.tag_add(line.state, *spot)
            else:                       # nobody looks for it again; Tk keeps all tags
                self.text.tag_delete(f"ref {line.ref}", f"line {line.ref}")

    def settle(self, settled, lines):
        """Show that receipts have come; `settled` are the lines, `lines` all there are.

        Each belongs to where the others have it (see Conversation.settle). Mostly it is
        there already. If somebody else was quicker, all from the topmost of them on is
        drawn anew; once for many receipts, as they come after a break.
        """
        # Take lines off the end until all that have settled are among them: what they
        # stand in now is `below`, and how it should be is the same number of lines at
        # the end of the conversation.
        below, waited_for = [], set(settled)
        while waited_for and self.drawn:
            below.append(self.drawn.pop())
            waited_for.discard(below[-1])
        below.reverse()
        right = list(lines)[-len(below):]
        spot = self.text.tag_ranges(f"line {below[0].ref}") if below else ()
        # Lines have no == of their own (eq=False), so this asks: the very same ones?
        if below == right or not spot:
            self.drawn.extend(below)
            for line in settled:
                self.change(line)
        else:
            self.text.config(state="normal")
            self.text.delete(spot[0], "end-1c")     # Tk keeps a newline at the end
            counted = self.below        # these are no new ones
            self.add(right)
            self.below = counted
            self.show_jump()

    def forget_oldest(self):
        """Keep the newest lines.

        In lots, since each cut at the top costs time; and while the user reads further
        up, only when there is three times too much: it may take away what they read.
        """
        # index() gives "line.column", the lines counted from 1.
        count = int(self.text.index("end").split(".")[0])
        if count > KEPT_LINES * (1.1 if self.stick else 3):
            self.text.delete("1.0", f"{count - KEPT_LINES}.0")
# endregion


# region 24. The window: composer and menus  (lesson 10)
class Header:
    """The line above the messages: which conversation, the buttons; and the banner.

    The banner says what is wrong with the connection, and what one can do. It is a
    strip and not a message box: one can go on reading, and nothing has to be clicked
    away when the trouble is over.
    """

    def __init__(self, parent, look, chat, window):
        self.look, self.chat = look, chat
        px = look.px
        self.frame = tk.Frame(parent, bg=look["surface"])
        self.frame.pack(fill="x")
        # What has to stay in sight is packed first: when the window gets narrow, pack()
        # takes the space away from what came last.
        for text, command, right in (("Help", window.show_help, px(8)),
                                     ("Wire", window.toggle_wire, 0)):
            ttk.Button(self.frame, text=text, style="Link.TButton",
                       command=command).pack(side="right", padx=(0, right))
        self.make_menu(window).pack(side="right")
        # Empty for now: show() fills them, at the start and whenever it changes.
        # anchor="w": where there is no room, the end is cut off and not both sides.
        self.title = look.label(self.frame, "title", anchor="w")
        self.title.pack(side="left", padx=(px(18), px(12)), pady=px(12))
        self.where = ""                 # what the subtitle says, if there is room
        self.subtitle = look.label(self.frame, "small", "muted")
        self.subtitle.pack(side="left")
        self.frame.bind("<Configure>", lambda event: self.fit_title())
        self.rule = tk.Frame(parent, bg=look["border"], height=1)
        self.rule.pack(fill="x")
        self.banner = tk.Frame(parent, bg=look["warning ground"])
        self.doors = tk.Frame(self.banner, bg=look["warning ground"])
        self.doors.pack()               # fit() says on which side
        self.retry = ttk.Button(self.doors, text="Retry now", style="Link.TButton",
                                command=chat.retry_now)
        self.retry.pack(side="right", padx=px(12), pady=px(5))
        self.offer = ttk.Button(self.doors, text="Start a server here",
                                style="Link.TButton", command=chat.start_server)
        self.sentence = look.label(self.banner, "label", "warning", "warning ground",
                                   justify="left")
        # The banner itself is not packed: show() does that when there is trouble.
        self.sentence.pack(side="left", padx=px(18), pady=px(7))
        self.banner.bind("<Configure>", lambda event: self.fit(event.width))

    def make_menu(self, window):
        """Return the button with the menu: what one needs less often."""
        chat, choices = self.chat, window.choices
        button = ttk.Menubutton(self.frame, text="Menu", style="Link.TMenubutton")
        # Check and radio entries switch variables by themselves. The truth is not in
        # these, so each time before the menu opens (postcommand) they are set to it.
        truths = {"log": lambda: chat.log.on, "wire": lambda: window.wire is not None,
                  "toasts": lambda: choices.toasts, "bell": lambda: choices.bell,
                  "theme": lambda: window.theme}
        values = {name: tk.Variable(self.frame) for name in truths}
        self.menu = menu = self.look.menu(button, postcommand=lambda: [
            values[name].set(truth()) for name, truth in truths.items()])

        def check(name, label, command):
            menu.add_checkbutton(label=label, variable=values[name], command=command)

        def switch(name):
            window.choose(name, not getattr(choices, name))

        check("log", "Write the chat into files", lambda: chat.command_log(""))
        check("toasts", "Tell me what comes while I look elsewhere",
              lambda: switch("toasts"))
        check("bell", "Ring the bell with it", lambda: switch("bell"))
        check("wire", "Show the wire (F12)", window.toggle_wire)
        menu.add_separator()
        for theme, label in (("light", "Light"), ("dark", "Dark"),
                             ("auto", "Light or dark, as the system")):
            # Not at once: another theme makes all widgets anew, this menu too, and Tk
            # is still at work in it.
            menu.add_radiobutton(
                label=label, variable=values["theme"], value=theme,
                command=lambda theme=theme: self.look.root.after_idle(
                    window.choose_theme, theme))
        menu.add_separator()
        menu.add_command(label="Hide the window", command=lambda: hide(window.root))
        menu.add_command(label="About ChattyCat", command=window.show_about)
        menu.add_command(label="Log out", command=lambda: chat.command_disconnect(""))
        button.config(menu=menu)
        return button

    def fit_title(self):
        """Show the subtitle, or its first word, as there is room: “3 onl” tells nobody.
        """
        taken = sum(widget.winfo_reqwidth() for widget in self.frame.winfo_children()
                    if widget is not self.subtitle)
        room = self.frame.winfo_width() - taken - self.look.px(40)
        measure = self.look.fonts["small"].measure
        texts = self.where, self.where.partition(" · ")[0], ""
        self.subtitle.config(text=next(text for text in texts if not text
                                       or measure(text) <= room))

    def fit(self, width):
        """The buttons stand beside the sentence, in a narrow window under it."""
        wide = width > self.look.px(560)
        self.doors.pack_configure(side="right" if wide else "bottom", anchor="e")
        self.sentence.config(wraplength=width - self.look.px(290 if wide else 36))

    def show(self):
        """Show the current conversation's title, and the banner if there is trouble."""
        chat, name = self.chat, self.chat.current.name
        self.title.config(text="# Everyone" if name is None else name)
        # Short: beside the buttons there is little room. And nothing while we are cut
        # off: then nobody knows who is there.
        where = f"{chat.count} online" if chat.status["state"] == "online" else ""
        if name is not None:
            away = "" if name_key(name) in chat.people else " · offline"
            where = f"Private · only you{'' if name == chat.me else ' two'}{away}"
        self.where = where
        self.fit_title()
        if not chat.trying():
            self.banner.pack_forget()
            return
        self.sentence.config(text=chat.status["text"] + chat.countdown())
        self.offer.pack_forget()
        if chat.can_start_server():
            self.offer.pack(side="right")
        self.banner.pack(fill="x", after=self.rule)


class Composer:
    """The box where one types, of one to six lines, and the Send button."""

    def __init__(self, parent, look, chat, sent, choose):
        """`sent()` is called after each line, `choose()` when a file is to be sent."""
        self.look, self.chat, self.sent = look, chat, sent
        px = look.px
        self.frame = tk.Frame(parent, bg=look["surface"])
        # highlightcolor: the rim while the focus is inside, so that one sees where
        # one types.
        box = tk.Frame(self.frame, bg=look["surface"], highlightthickness=1,
                       highlightbackground=look["edge"], highlightcolor=look["accent"])
        box.pack(fill="x", padx=px(18), pady=(px(4), 0))
        # Enter does the same; but who has never chatted looks for a button.
        ttk.Button(box, text="Send", command=self.send).pack(
            side="right", padx=px(5), pady=px(5))
        # A Text and not an Entry: it takes more than one line, and every emoji (see
        # LoginCard.entry).
        self.text = look.text(box, height=1, undo=True, padx=px(14), pady=px(12))
        self.text.pack(side="left", fill="both", expand=True)
        # It stands in front of the text, but comes behind it when one goes by Tab: that
        # follows the order in which widgets were made.
        ttk.Button(box, text="+", width=2, style="Plus.Link.TButton",
                   command=choose).pack(side="left", before=self.text,
                                        padx=(px(5), 0), pady=px(5))
        self.hint = look.label(self.text, colour="muted", cursor="xterm", bd=0, padx=0,
                               pady=0)
        look.label(self.frame, "small", "muted", anchor="w", text="Enter sends · "
                   "Shift+Enter new line · F1 help").pack(
            fill="x", padx=px(18), pady=(px(4), px(8)))
        self.hint.bind("<Button-1>", lambda event: self.text.focus_set())
        self.text.bind("<Return>", self.on_return)
        self.history, self.completion = History(chat), Completion(chat)
        self.text.bind("<Up>", lambda event: self.on_arrow(event, -1))
        self.text.bind("<Down>", lambda event: self.on_arrow(event, 1))
        # <<PrevWindow>> is Shift+Tab, which X11 calls by another name than the others.
        self.text.bind("<Tab>", lambda event: self.on_tab(1))
        self.text.bind("<<PrevWindow>>", lambda event: self.on_tab(-1))
        # Tk's own End goes to the end of what is seen of a wrapped line, and on Tk 8.6
        # that can be the middle of an emoji. (mark_set() returns None, so `or` goes on
        # to "break", see on_return(): a lambda can do no more than one thing.)
        self.text.bind("<<LineEnd>>", lambda event: self.text.mark_set(
            "insert", "insert lineend") or "break")
        # Tk calls this at the first change, and not again until on_change() has taken
        # the mark "modified" back.
        self.text.bind("<<Modified>>", self.on_change)
        # In a narrower window the same text has more lines.
        self.text.bind("<Configure>", self.on_change)

    def on_return(self, event):
        """Enter sends. A binding of ours runs before Tk's own for the same key."""
        # state is a number in which each key that can be held has its bit: 1 is Shift,
        # 4 Ctrl. `& 1` leaves that bit and no other.
        if event.state & 1:             # Shift: Tk's own way, a new line
            return None
        self.send()
        return "break"                  # and nothing more: no new line

    def on_arrow(self, event, by):
        """Up in the first line and Down in the last: what was sent before."""
        # In a longer text, or a line that is wrapped ("display"), they move the cursor
        # as always; with Shift or Ctrl held (1 + 4) they select, or go further.
        # Compared and not counted: to count 20,000 characters' rows takes Tk 0.6 s.
        compare = self.text.compare
        there = (compare("insert display linestart", "==", "1.0") if by < 0 else
                 compare("insert display lineend", ">=", "end-1c"))
        if not there or event.state & 5:
            return None
        text = self.history.step(by, self.text.get("1.0", "end-1c"))
        if text is not None:
            self.set(text)
        return "break"

    def on_tab(self, by):
        """Tab completes the word before the cursor, and with no word goes on to the
        next widget, as everywhere else: nobody is caught in this box."""
        before = self.text.get("1.0", "insert")
        text = self.completion.step(before, by)
        if text is not None:
            # In one step: of two, the first Ctrl+Z would bring back an empty box.
            self.text.replace("1.0", "insert", text)
        elif by < 0:
            self.text.tk_focusPrev().focus_set()
        elif not before.strip() or before[-1].isspace():
            self.text.tk_focusNext().focus_set()
        return "break"

    def send(self):
        """Let the chat obey what stands in the box; put it back if it was wrong."""
        talk = self.chat.current
        # On Tk 8.6 some keys can cut an emoji in half, and half of one cannot be sent.
        text = self.text.get("1.0", "end-1c").encode("utf-8", "replace").decode()
        self.set("")
        if not self.chat.typed(text):
            talk.draft = text
            self.set(self.chat.current.draft)
            # Selected: who types on begins anew, who wants to mend it goes into it.
            self.text.tag_add("sel", "1.0", "end-1c")
        self.sent()

    def set(self, text):
        """Put a text into the box in place of what is there: nothing, when a line was
        sent; a draft, when another conversation is shown."""
        self.text.delete("1.0", "end")
        self.text.insert("1.0", text)
        self.text.edit_reset()          # or Ctrl+Z would bring a sent line back
        self.on_change()

    def on_change(self, event=None):
        """Keep the draft, and make the box as high as its text."""
        self.text.edit_modified(False)
        draft = self.chat.current.draft = self.text.get("1.0", "end-1c")
        # Display lines: a long line that is wrapped counts as several. Some Pythons
        # return a number, others a tuple of one, or None for none.
        rows = self.text.count("1.0", "end", "displaylines") or 1
        rows = rows[0] if isinstance(rows, tuple) else rows
        self.text.config(height=min(6, max(1, rows)))
        self.text.see("insert")
        name = self.chat.current.name
        self.hint.config(text="Message everyone…" if name is None
                         else f"Message {name}, privately…")
        if draft:
            self.hint.place_forget()
        else:
            self.hint.place(x=self.look.px(2), y=0)
# endregion


# region 25. The window: the wire  (lesson 04)
class WireView(Reader):
    """The pane under the messages that shows every line as it travels: F12.

        14:02:11.345 →     58 bytes  send     {"type":"chat","text":"Hello",…}
        14:02:11.347 ←    151 bytes  receive  {"type":"chat","id":1,"from":…}

    A line of ours leaves with what we know, and comes back with what the server has
    put to it. The tap keeps the lines all the time, so hello and welcome are there too,
    whenever it is opened. The pane is made then, and closed it is gone: nothing has to
    be kept up to date that nobody sees.
    """

    def __init__(self, parent, look, chat, close):
        """`close()` takes it away again."""
        self.parent, self.tap, self.paused = parent, chat.tap, False
        # pack_propagate(False): as high as we say, whatever its text would like to be.
        self.pane = tk.Frame(parent, bg=look["border"])
        self.pane.pack_propagate(False)
        self.pane.bind("<Configure>", lambda event: self.resize())
        strip = tk.Frame(self.pane, bg=look["surface"], padx=look.px(4))
        strip.pack(fill="x", pady=(1, 0))       # what is left free is a line of border
        self.buttons = [ttk.Button(strip, text=text, style="Link.TButton",
                                   command=command)
                        for text, command in (("Pause", self.pause),
                                              ("Copy", self.copy_shown),
                                              ("Clear", self.clear), ("Close", close))]
        for button in reversed(self.buttons):
            button.pack(side="right")
        self.title = look.label(strip, "small bold", text="The wire", anchor="w",
                                padx=0, bd=0)
        # Packed last, so in a narrow window it gives way, and the buttons do not.
        self.title.pack(side="left", padx=(look.px(14), 0))
        super().__init__(self.pane, look, chat, padx=look.px(18), pady=look.px(4))
        self.frame.pack(fill="both", expand=True)
        # In a smaller window the same rows are longer, and the end is further down.
        self.text.bind("<Configure>", lambda event: self.follow())
        for widget in (self.text, *self.buttons):
            # "break", or the window's own Esc would scroll the messages as well.
            widget.bind("<Escape>", lambda event: close() or "break")
        self.dress()
        self.tap.latest()               # into tap.lines, where the older ones are
        self.add(self.tap.lines)

    def dress(self):
        """Say how it looks. All characters are of one width, so columns are columns."""
        look, text = self.look, self.text
        # Tk knows the system's font of this kind by that name. Only its family, for the
        # size is to be that of other small text.
        fixed = tkfont.Font(look.root, name="TkFixedFont", exists=True)
        # wrap="char": JSON has few spaces at which one could wrap words.
        text.config(wrap="char", bg=look["sidebar"], font=(fixed.actual("family"), 9),
                    takefocus=1, highlightbackground=look["sidebar"])
        # A direction has a colour; who sees no colours has the arrow, which would be a
        # faint one in some of these fonts.
        for way, colour in (("→", "link"), ("←", "ok"), ("·", "muted")):
            text.tag_configure(way, foreground=look[colour])
        text.tag_configure("arrow", font=look.fonts["name"])
        # What is wrapped goes on further right, so one sees where the next one begins.
        text.tag_configure("row", lmargin2=look.px(22))
        text.tag_raise("sel")

    def resize(self):
        """Take a third of the height that there is; in a low window less, or banner
        and box would leave the messages nothing.

        <Configure> comes when the pane is moved, too, and it stands at the bottom: so
        it hears of every change of the window.
        """
        height = self.parent.winfo_height()
        self.pane.config(height=min(height // 3, height - self.look.px(300)))

    # --- lines

    def show_new(self):
        """Show what travelled since the last time; the window's drain() calls it."""
        if not self.paused:
            self.add(self.tap.latest())

    def add(self, lines):
        """Add lines, all in one insert, and forget the oldest."""
        if not lines:
            return
        # A newline in front of each row but the first: behind the last one it would be
        # an empty row, where there is room for a dozen.
        newline = "\n" if self.text.compare("end-1c", ">", "1.0") else ""
        pieces = []
        for line in lines:
            clock, way, about, text = row(*line)
            pieces += [newline + clock, ("row", way), way, ("row", way, "arrow"),
                       about, ("row", way), text, ("row",)]
            newline = "\n"
        self.text.config(state="normal")
        self.text.insert("end", *pieces)
        # index() says "line.column"; "end" is the line behind the last one. delete()
        # with the same place twice deletes nothing.
        count = int(self.text.index("end").split(".")[0]) - 1
        self.text.delete("1.0", f"{max(0, count - TAPPED_LINES) + 1}.0")
        self.text.config(state="disabled")
        self.follow()

    # --- the buttons

    def pause(self):
        """Stand still, to be read. The tap goes on, and “Go on” shows what came."""
        self.paused = not self.paused
        self.buttons[0].config(text="Go on" if self.paused else "Pause")
        self.title.config(text="Paused" if self.paused else "The wire")

    def copy_shown(self):
        """Copy what is selected; if nothing is, all that stands here."""
        spot = self.text.tag_ranges("sel") or ("1.0", "end-1c")
        self.copy(self.text.get(*spot))

    def clear(self):
        """Forget all lines, to see which ones the next thing makes that one does.

        For good, and not only from sight: a teacher may have typed something here that
        was not for the class.
        """
        self.tap.latest()
        self.tap.lines.clear()
        self.stick = True               # whoever had scrolled up has no place any more
        self.text.config(state="normal")
        self.text.delete("1.0", "end")
        self.text.config(state="disabled")
# endregion


# region 26. The window: toasts  (lesson 10)
# A toast is the notice that slides out at the edge of the screen. Each system has its
# own way to make one: Tk's (Tk 9, on Windows and macOS), else a program, and where that
# does not work a small window of ours. What stands in it was written by others. So it
# goes to the program as an argument or in the environment, never as part of a script.
MAC_TOAST = ("on run argv\ndisplay notification (item 3 of argv) with title "
             "(item 1 of argv) subtitle (item 2 of argv)\nend run")
# Windows shows toasts only of programs that it knows, so we borrow PowerShell's name.
WINDOWS_TOAST = r"""$ErrorActionPreference = 'Stop'
$all = [UI.ToastNotificationManager, UI, ContentType = WindowsRuntime]
$page = $all::GetTemplateContent([UI.ToastTemplateType]::ToastText02)
$page.SelectSingleNode('//text[@id=1]').InnerText = $env:CHATTYCAT_TITLE
$page.SelectSingleNode('//text[@id=2]').InnerText = $env:CHATTYCAT_BODY
$name = '{1AC14E77-02E7-4E5D-B744-2EB1AE5198B7}\WindowsPowerShell\v1.0\powershell.exe'
$all::CreateToastNotifier($name).Show([UI.ToastNotification]::new($page))
""".replace("UI", "Windows.UI.Notifications")


def toast_command(title, body):
    """Return the command by which this system is told to show a toast."""
    if os.name == "nt":
        # Its whole path: Windows would look into the current folder first. The text it
        # reads from the environment.
        shell = r"System32\WindowsPowerShell\v1.0\powershell.exe"
        return [os.path.join(os.environ["SystemRoot"], shell), "-NoProfile",
                "-NonInteractive", "-Command", WINDOWS_TOAST]
    if sys.platform == "darwin":
        # A text may begin with "-". But behind a word that is no option, such as our
        # name, osascript takes no other word for one.
        return ["osascript", "-e", MAC_TOAST, "ChattyCat", title, body]
    # Behind "--" no word is an option here. The body is read twice: first for
    # backslashes, by which "\074" would become "<", and then as HTML, where "<b>" would
    # make it bold.
    return ["notify-send", "-a", "ChattyCat", "--", title,
            html.escape(body.replace("\\", "\\\\"))]


def cut_to(text, most):
    """Return text of others as one line of at most `most` characters.

    split() takes all line ends out as well: a toast of forty lines would fill a screen.
    """
    text = " ".join(clean(text[:10 * most]).split())
    return text if len(text) <= most else text[:most - 1] + "…"


def has_tray(root) -> bool:
    """Whether our icon is in the system's tray; it is put there at the first time.

    Only by Tk 9, and not on X11: there Tk says that it worked where no tray is, and a
    window that has gone into it could not be brought back.
    """
    if root.tk.call("tk", "windowingsystem") == "x11":
        return False
    try:
        if not root.tk.getboolean(root.tk.call("tk", "systray", "exists")):
            # An image of Tk's own: one of Python's would go with its object. And what
            # Tk is to call needs a name, which register() gives it.
            root.tk.call("image", "create", "photo", "tray", "-data", LOGO)
            root.tk.call("tk", "systray", "create", "-image", "tray", "-text",
                         "ChattyCat", "-button1", root.register(lambda: back(root)))
        return True
    except tk.TclError:                 # Tk 8.6 does not know the word
        return False


def hide(root):
    """Take the window out of the way, but not out of the chat.

    withdraw() leaves nothing of it on the screen, so there must be an icon that brings
    it back. iconify() leaves it in the system's list of windows.
    """
    root.withdraw() if has_tray(root) else root.iconify()


def back(root):
    """Bring the window back, to the front, and the keyboard with it."""
    # It may be hidden; or behind others; or in front, but without the keyboard.
    root.deiconify()
    root.lift()
    # To where it was in this window; the window itself would swallow the keys.
    (root.focus_lastfor() or root).focus_force()


class Toasts:
    """Tells what happens while the window is not looked at.

    One toast in PAUSE seconds: a room where all talk must not bury somebody's screen.
    What comes meanwhile is counted, and the newest of it told when the time is over.
    """
    # The second: as long as the system's program may take, and as our window stays.
    PAUSE, SECONDS = 3, 5

    def __init__(self, root, look, choices, open):
        """`open(conversation)` is called after a click on our own small window; of the
        others nobody tells us."""
        self.root, self.look, self.choices, self.open = root, look, choices, open
        self.held, self.more = None, 0  # what waits for the pause to be over
        self.shown = self.timer = self.process = self.window = None
        self.next = self.end = 0        # when one may come, and when this one must go
        # On X11 not even Tk 9: what it shows there takes the keyboard away, or lets us
        # wait for a desktop that hangs (both read in its source).
        self.way = "tk" if look.aqua or os.name == "nt" else "program"

    def tell(self, title, body, conversation, important=False):
        """Show a toast; or if there was one a moment ago, keep it for later.

        `important`: names us. That, and what is private, is not pushed out by chatter.
        """
        if not self.choices.toasts:
            return
        important = important or conversation.name is not None
        self.more += self.held is not None
        if self.held is None or important >= self.held[-1]:
            self.held = title, body, conversation, important
        if self.timer is None:
            self.watch()

    def watch(self):
        """See to what is going on, every 100 ms while there is something.

        The system's program runs beside us, like the Painter's, and we look whether it
        is done. So it can't make us wait.
        """
        self.timer, now = None, time.monotonic()
        if self.process and (self.process.poll() is not None or now > self.end):
            if self.process.poll() != 0:
                self.way = "window"
                self.show_window()
            self.end_process()
        # Who is back at the window sees it all, see Window.drain().
        if self.root.tk.call("focus", "-displayof", self.root):
            self.forget()
        if now > self.end:
            self.close_window()
        if self.held and self.process is None and now > self.next:
            self.show()
        if self.process or self.window or now < self.next:
            self.timer = self.root.after(100, self.watch)

    def show(self):
        """Show what is held, and begin the pause."""
        title, body, conversation, _ = self.held
        more = f", and {self.more} more" if self.more else ""
        self.shown = cut_to(title, 60) + more, cut_to(body, 200), conversation
        self.held, self.more = None, 0
        self.next = time.monotonic() + self.PAUSE
        self.end = time.monotonic() + self.SECONDS
        if self.choices.bell:
            self.root.bell()            # the sound that the system has for it
        self.show_somehow(*self.shown[:2])

    def show_somehow(self, title, body):
        """Show it in the first way that works.

        What has failed once is not tried again for each toast.
        """
        if self.way == "tk":
            try:
                if os.name == "nt":     # there it comes out of the icon in the tray
                    has_tray(self.root)
                self.root.tk.call("tk", "sysnotify", title, body)
                return
            except tk.TclError:         # Tk 8.6 does not know the word
                self.way = "program"
        if self.way == "program":
            try:
                # (Without the flag, Windows opens a black window for it.)
                self.process = subprocess.Popen(
                    toast_command(title, body), stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    env=dict(os.environ, CHATTYCAT_TITLE=title, CHATTYCAT_BODY=body),
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0))
                return
            # It is not there. Or this system cannot hand such letters to a program: by
            # LC_ALL=C it knows no 小猫.
            except (OSError, ValueError):
                self.way = "window"
        self.show_window()

    def show_window(self):
        """Show it in a small window of ours, in the corner of the screen.

        It is what Linux has where no desktop runs, and the one that knows of a click.
        """
        self.close_window()             # that of the toast before
        look, px = self.look, self.look.px
        self.end = time.monotonic() + self.SECONDS
        # A Toplevel is a window beside the root.
        self.window = window = tk.Toplevel(
            self.root, class_="Toast", bg=look["surface"], padx=px(14), pady=px(12),
            highlightthickness=1, highlightbackground=look["edge"])
        # The window manager leaves it alone: no title, and above all not the keyboard,
        # or what somebody types elsewhere would end in here.
        window.overrideredirect(True)
        # macOS has no window manager, and a word of its own for it (found in IDLE).
        with contextlib.suppress(tk.TclError):
            window.tk.call("::tk::unsupported::MacWindowStyle", "style", window, "help",
                           "noActivates")
        window.attributes("-topmost", True)         # nor behind other windows
        # "-": counted from the right and from below, where a task bar may be.
        window.geometry(f"-{px(16)}-{px(56)}")
        look.label(window, image=look.small_logo).pack(side="left", anchor="n",
                                                       padx=(0, px(12)))
        # As wide as a text can be, so that all toasts are of one width.
        tk.Frame(window, width=px(280), bg=look["surface"]).pack()
        for text, font in zip(self.shown, ("name", "label")):
            # About four lines: two hundred "W" would be ten.
            look.label(window, font, text=shorten(text, look.fonts[font], px(1040)),
                       wraplength=px(280), justify="left").pack(anchor="w")
        # What is bound to a window is bound to all that is in it.
        window.bind("<Button-1>", self.clicked)

    def clicked(self, event):
        """Go where the toast points to. (It is gone then, but self.shown is not.)"""
        self.close_window()
        back(self.root)
        self.open(self.shown[2])

    def close_window(self):
        """Take our small window away, if there is one: by a click, or by the time."""
        if self.window is not None:
            self.window.destroy()
            self.window = None

    def end_process(self):
        """End the program, if there is one (or take its exit status, if it has ended,
        which is the usual case); see Painter.stop()."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def forget(self):
        """Show nothing more of what was: somebody is looking."""
        self.held, self.more = None, 0
        self.close_window()

    def stop(self):
        """Leave nothing behind: a timer would call us when there is no Tk any more, and
        a program that hangs would outlive us."""
        if self.timer is not None:
            self.root.after_cancel(self.timer)
        self.end_process()
        self.forget()
# endregion


# region 27. The window: help  (lesson 10)
# What is pressed; what it does; what Tk calls it; the method of Window that does it.
# The window binds the third column, and the help shows the first two. (Those without a
# method are bound where they belong, as in Composer; some Tk knows by itself.)
KEYS = (
    ("Enter", "send", (), ""),
    ("Shift+Enter", "begin a new line", (), ""),
    ("Up, Down", "in the first and the last line: what you sent before", (), ""),
    ("Tab", "complete a name or a command; once more: the next one", (), ""),
    ("Shift+Tab", "from where you type to the buttons above", (), ""),
    ("PgUp, PgDn", "scroll the messages while you type", (), ""),
    ("Esc, Ctrl+End", "go to the newest message", ("Escape", "Control-End"),
     "to_the_end"),
    ("Alt+Up", "the one above of your conversations", ("Alt-Up",), "talk_above"),
    ("Alt+Down", "the one below", ("Alt-Down",), "talk_below"),
    ("Alt+1 to Alt+9", "everyone, and your next eight conversations", (), ""),
    ("Ctrl+O", "send files", ("Control-o",), "choose_files"),
    ("Shift+F10", "in a text: copy, open a link", (), ""),
    ("F1", "this help", ("F1",), "show_help"),
    ("F12", "the wire: each line as it travels", ("F12",), "toggle_wire"),
    ("Ctrl+Q", "quit", ("Control-q",), "quit"),
)
NOTES = (
    ("A line of yours is grey", "until the server's receipt is here: from then on all "
     "others have it."),
    ("A red number", "is what somebody wrote to you alone. With an @, somebody has "
     "named you; grey is the rest of the room."),
    ("A click on a person", "opens a private conversation: nobody else can read it."),
    ("Without seeing", "No window of this kind can be read by a screen reader. Start "
     "python3 ChattyCat_Client.py --plain in a terminal: the same chat, line by line."),
)


class Page(Reader):
    """A window of its own with something to read: the help, or what this program is.

    No box that has to be clicked away: one can leave it open beside the chat, and type
    what it says. It is made of text and tags, like the messages.
    """

    def __init__(self, look, chat, title, height=560):
        px = look.px
        # A Toplevel is one more window. class_ says whose it is, for the system's list
        # of windows; transient: it stays in front of the first one.
        self.window = tk.Toplevel(look.root, class_="ChattyCat", bg=look["surface"])
        self.window.title(title)
        self.window.transient(look.root)
        self.window.geometry(f"{px(680)}x{px(height)}")
        close = ttk.Button(self.window, text="Close", command=self.window.destroy)
        close.pack(side="bottom", pady=px(12))
        super().__init__(self.window, look, chat, padx=px(24), pady=px(12),
                         spacing3=px(4))
        self.frame.pack(fill="both", expand=True)
        self.text.config(highlightthickness=0)      # a page is no box to type into
        # What a text looks like is said once for each kind of it, and not where it is
        # written: so all titles are alike, and one place changes them.
        self.text.tag_configure("brand", font=look.fonts["brand"], justify="center")
        self.text.tag_configure("middle", justify="center", foreground=look["muted"])
        self.text.tag_configure("title", font=look.fonts["title"], spacing1=px(14))
        # Two columns: a tab goes to the second one, and there a long text stays.
        self.text.tag_configure("row", tabs=(px(215),), lmargin2=px(215))
        self.text.tag_configure("left", font=look.fonts["name"])
        # (It reaches all that is in the window: to be bound to the button as well would
        # be once too often, when the first has destroyed both.)
        self.window.bind("<Escape>", lambda event: self.window.destroy())
        # What is bound to the first window is not bound to this one.
        self.window.bind("<Control-q>", lambda event: chat.face.quit())
        self.text.focus_set()           # the arrow keys scroll

    def write(self, *pieces):
        """Add text, tags, text, tags, …"""
        self.text.config(state="normal")
        self.text.insert("end", *pieces)
        self.text.config(state="disabled")

    def table(self, title, rows):
        """Add a title and rows of two columns, as text: so it can be copied."""
        self.write(title + "\n", ("title",))
        for left, right in rows:
            self.write(left, ("row", "left"), f"\t{right}\n", ("row",))


def help_page(look, chat) -> Page:
    """Open the help: keys, commands, and what is not to be guessed."""
    page = Page(look, chat, "ChattyCat — help")
    # On a Mac's keyboard another key does what Ctrl does elsewhere. Parts.bind_keys()
    # says the same to Tk.
    words = [(shown, does) for shown, does, _, _ in KEYS]
    if look.aqua:
        words = [(shown.replace("Ctrl", "Command"), does) for shown, does in words]
    page.table("Keys", words)
    # By their docstrings, as /help has them: so a command of your own is here too.
    page.table("Commands", [line.partition(": ")[::2] for line in chat.commands()])
    page.table("Good to know", NOTES)
    return page


def about_page(look, chat) -> Page:
    """Open the page that says what this program is, and where its files are.

    The versions, since that is the first question to whom it does not work.
    """
    page = Page(look, chat, "About ChattyCat", 440)
    # A picture in a Text is a very large letter; what has its tag is in the middle.
    page.text.image_create("1.0", image=look.logo)
    page.text.tag_add("middle", "1.0")
    page.write("\nChattyCat\n", ("brand",),
               f"version {VERSION} · Python {sys.version.split()[0]} · "
               f"Tk {look.root.tk.call('info', 'patchlevel')}\n", ("middle",))
    page.write(
        "\nA chat from which one learns how a chat works: two Python scripts, to be "
        "read from top to bottom, and lessons that build them up from the first "
        "socket. F12 shows what they say to each other.\n"
        "\nMIT licence: use it, change it, pass it on.\n\n"
        f"Your last login and your choices are kept in {user_folder()}; passwords are "
        "kept nowhere.\n")
    return page
# endregion


# region 28. The window: its parts  (lesson 10)
# A window is made from the outside in: each widget is told in which other one it is,
# and how it finds its place there. What comes later in the code stands further right or
# further below, or, where a place is given from two sides, in the middle.
class Parts:
    """All the parts of the window, the keys, and what opens beside it.

    Window, below, inherits it. Here stands what the user does with the window, there
    what the network does with it. Each part has a class of its own, and none of them
    knows another one: what concerns two goes through here, or through the chat.

        login                        instead of everything else, until we are in
        room: sidebar | main: header, banner
                              views: a Messages for each conversation, one of them shown
                              wire, if it is open
                              composer
        page, toasts                 windows of their own
    """

    def __init__(self, root, options, chat_class=Chat):
        self.root, self.choices = root, Choices().load()
        self.chat = chat = chat_class(self, options)
        self.look = self.page = None
        # Whether people or unread marks have changed, and are not drawn yet.
        self.changed = False
        self.wire = None                # the WireView, while it is open
        self.next_draw = 0              # when they may be, see show_batch()
        # Set by a signal; and by the first quit() that would cost a line, see there.
        self.quit_wanted = self.warned = False
        # Without this the close button would destroy the window under our feet.
        root.protocol("WM_DELETE_WINDOW", self.quit)
        self.fit_in()
        # A click on a button takes the keyboard along; back with it to where one types.
        # So too when a button goes away that has it.
        for event in ("<ButtonRelease-1>", "<Unmap>"):
            root.bind_class("TButton", event, self.take_focus_back, add=True)
        # Tk presses a button with the space bar only; people try Enter as well.
        # bind_class(): for all widgets of a kind; what is bound to one of them runs
        # before it, and to all of them (bind_all()) after it.
        # (By name: the widgets of Tk's own dialogs Python does not know otherwise.)
        root.bind_class("TButton", "<Return>",
                        lambda event: root.tk.call(event.widget, "invoke"))
        for event in MENU_EVENTS:
            root.bind_class("TEntry", event, self.show_edit_menu)
        root.bind_class("TMenubutton", "<Return>", lambda event: root.tk.call(
            "event", "generate", event.widget, "<space>"))
        # The Enter of the number block is a key of its own: let it be the other one.
        root.bind_all("<KP_Enter>", lambda event: root.tk.call(
            "event", "generate", event.widget, "<Return>"))
        self.build(options.theme or self.choices.theme)
        # Once, as the root lives as long as we: what is bound anew, tkinter keeps.
        self.bind_keys(root)
        self.login.name.focus_set()
        self.login.say(chat.login.trouble or self.choices.trouble, "warning")
        # after() calls a function once, so many ms from now; see drain() and tick().
        self.timers = {"drain": root.after(0, self.drain),
                       "tick": root.after(1000, self.tick)}
        if options.name:
            self.login.connect()
            chat.remember = False       # what was not typed here is no login of yours

    def fit_in(self):
        """Do what people expect of a program on their system, where Tk does not."""
        root, system = self.root, self.root.tk.call("tk", "windowingsystem")
        if system == "x11":
            # Tk has the Ctrl+A of the editor Emacs, to the begin of the line. The hands
            # of people today select all with it.
            root.event_delete("<<LineStart>>", "<Control-a>")
            root.event_add("<<SelectAll>>", "<Control-a>")
        elif system == "aqua":
            # macOS tells a program by these names what was chosen in the menu at the
            # top of the screen; without ours, Quit there would end us without a bye.
            for name, function in (("Quit", self.quit), ("ReopenApplication",
                                                         root.deiconify)):
                root.createcommand("::tk::mac::" + name, function)
            root.createcommand("tkAboutDialog", self.show_about)

    def build(self, theme):
        """Make all widgets: at the start, and when another theme was chosen.

        Each gets its colours when it is made. To make all of them anew is a few lines;
        to have each able to change its colours would be some in every class. And it
        costs nothing: what they show, the chat knows.
        """
        root, chat, self.theme = self.root, self.chat, theme
        if self.look is not None:
            self.leave_look()
        self.look = look = Look(root, theme)
        style_bar(look)
        look.painter = Painter(root, look["surface"])
        self.toasts = Toasts(root, look, self.choices, self.open_talk)
        # A conversation gets a view when it is first shown, so a room with 200 people
        # begins with one Text and not with 200. Its new lines wait for show_batch().
        self.views, self.batch = {}, {}     # conversation -> Messages, -> new lines
        # The same for receipts, which change lines that are there already.
        self.settled = {}               # conversation -> lines
        # The root's own ground is seen for a moment while a window is made larger.
        root.iconphoto(True, look.logo)
        root.config(bg=look["window"])
        self.login = LoginCard(root, look, chat)
        # The room: people on the left; header, banner, messages, composer on the right.
        self.room = tk.Frame(root, bg=look["border"])
        self.sidebar = Sidebar(self.room, look, chat)
        self.sidebar.frame.pack(side="left", fill="y", padx=(0, 1))
        self.main = tk.Frame(self.room, bg=look["surface"])
        self.main.pack(side="left", fill="both", expand=True)
        self.header = Header(self.main, look, chat, self)
        self.composer = Composer(self.main, look, chat, self.to_the_end,
                                 self.choose_files)
        self.composer.frame.pack(side="bottom", fill="x")
        if self.wire:                   # it was open: it is again
            self.open_wire()
        text, people = self.composer.text, self.sidebar.canvas
        self.bind_keys(text, people)
        for event in MENU_EVENTS:
            text.bind(event, self.show_edit_menu)
        text.bind("<Prior>", lambda event: self.page_by(-1))    # PgUp, while typing
        text.bind("<Next>", lambda event: self.page_by(1))
        people.bind("<Return>", lambda event: text.focus_set())
        # What no other binding takes. (The messages have it from shown().)
        people.bind("<Key>", self.type_on)
        self.login.frame.pack(fill="both", expand=True)
        self.status_changed()

    def leave_look(self):
        """Take down what build() has made, and what only the look keeps.

        destroy() takes a widget's children with it. The root stays: it is the window
        itself, with its place on the screen, and our timers hang on it.
        """
        self.toasts.stop()
        self.look.painter.stop()
        self.look.images.clear()
        for widget in self.root.winfo_children():
            widget.destroy()

    def bind_keys(self, *widgets):
        """Bind the keys of KEYS, and Alt+1 to Alt+9, in these widgets.

        What is bound to the root is for the whole window, and comes last. Before it
        Tk's own for a Text would act, and Ctrl+O there opens a new line. So some have
        them first of all; "break" keeps those who come later from acting.
        """
        # getattr(self, "quit") is self.quit: the method whose name stands in the table.
        does = [(key, getattr(self, method)) for _, _, keys, method in KEYS
                for key in keys]
        for number in range(1, 10):
            does.append((f"Alt-Key-{number}", functools.partial(self.talk, number)))
        for key, function in does:
            if self.look.aqua:
                key = key.replace("Control", "Command")
            for widget in widgets:
                # function=function: a default is computed now, and the name each time
                # it is used; then it would be the last function for all keys.
                widget.bind(f"<{key}>",
                            lambda event, function=function: function() or "break")

    def show_edit_menu(self, event):
        """The right button where one types: what hands do by Ctrl+X, C, V and A."""
        # By Tk's own words: the entries of its dialogs are no widgets to Python.
        menu, call = self.look.popup, self.root.tk.call
        menu.delete(0, "end")
        for label, what in (("Cut", "<<Cut>>"), ("Copy", "<<Copy>>"),
                            ("Paste", "<<Paste>>"), ("Select all", "<<SelectAll>>")):
            menu.add_command(label=label, command=lambda what=what:
                             call("event", "generate", event.widget, what))
        menu.tk_popup(event.x_root, event.y_root)
        return "break"

    def type_on(self, event):
        """Let letters that are typed where nothing can be typed go to the composer:
        who has clicked on a message, to copy it, goes on talking."""
        # With Ctrl (4), Alt (8) or Super (64) it is a command, and no letter.
        held = event.state & (4 | 0x20000 if os.name == "nt" else 4 | 8 | 64)
        if event.char and event.char.isprintable() and not held:
            self.composer.text.focus_set()
            self.composer.text.insert("insert", event.char)

    def take_focus_back(self, event):
        """After a click on a button in the room one can type on.

        And when the button that has the keyboard goes away, as “Retry now” does: Tk
        would leave it there, where nobody sees it, and all keys go nowhere.
        """
        if self.root is None or not self.room.winfo_exists():
            return                      # we are at the end, or in the middle of build()
        if self.root.tk.call("grab", "current"):
            return                      # a dialog is open: the keyboard belongs to it
        button, there = str(event.widget), bool(self.room.winfo_manager())
        gone = event.type == tk.EventType.Unmap
        if gone and button != str(self.root.tk.call("focus")):
            return
        if there and button.startswith(str(self.room)):
            self.composer.text.focus_set()
        elif gone and not there:
            self.login.name.focus_set()

    # --- conversations, and windows of their own. The keys work while one logs in, too,
    # and then there is no conversation to go to.

    def talk(self, number):
        """Alt+1 to Alt+9."""
        if self.room.winfo_manager():
            self.chat.show_nth(number)

    def talk_above(self):
        """Alt+Up. Over who is in the list of people but was never talked to it goes
        on: 200 people are not 200 conversations."""
        if self.room.winfo_manager():
            self.chat.step(-1)

    def talk_below(self):
        """Alt+Down."""
        if self.room.winfo_manager():
            self.chat.step(1)

    def open_talk(self, conversation):
        """A toast was clicked: show what it was about, if that is still there."""
        if conversation in self.chat.conversations.values():
            self.chat.show(conversation)

    def show_help(self):
        """F1: the page with keys and commands."""
        self.open_page(help_page)

    def show_about(self):
        """What this is."""
        self.open_page(about_page)

    def toggle_wire(self):
        """F12: the pane that shows each line as it travels."""
        if not self.room.winfo_manager():
            return                      # and not under the login card
        if self.wire is None:
            self.open_wire()
        else:
            self.wire.pane.destroy()
            self.wire = None
            self.composer.text.focus_set()

    def open_wire(self):
        """Make the pane of the wire; in another theme it is a new one."""
        self.wire = WireView(self.main, self.look, self.chat, self.toggle_wire)
        # For pack() in front of the messages: they get what the others leave.
        self.wire.pane.pack(side="bottom", fill="x", after=self.composer.frame)

    def open_page(self, make):
        """Open a page in the place of the last one, which may lie behind others."""
        if self.page is not None:
            self.page.window.destroy()
        self.page = make(self.look, self.chat)
# endregion


# region 29. The window: all together  (lesson 10)
class Window(Parts):
    """All the parts put together: the face of the chat for those who have a screen.

    Two things happen to it, both in the main thread and never at once: Tk calls what is
    bound to keys and widgets, and drain() brings what the other threads have left. So
    there is no lock in any of the regions of the window.
    """

    def drain(self):
        """Every 50 ms take in what came; sooner when there is more.

        This is where the network meets the window. The receive thread cannot simply
        call a method of ours: Tk belongs to the main thread, and called from another
        one it waits, raises or aborts, depending on the moment. So the thread puts
        what it read into a queue, and the main thread comes and looks.
        Polling costs 0.6 % of a processor. The other way, event_generate() from the
        receive thread, waits while the window is busy and hangs when it closes.
        """
        more = True
        try:
            if self.quit_wanted:
                return self.close()
            # Nothing has the focus while another program's window has it. Asked here:
            # <FocusIn> and <FocusOut> come for each widget, and when the keyboard only
            # goes from one to the next, the one is lost before the other is found.
            looking = bool(self.root.tk.call("focus", "-displayof", self.root))
            if looking != self.chat.looking:
                self.chat.looks(looking)
            more = self.chat.drain(200, 0.015)
            self.show_batch()
            if self.wire:
                self.wire.show_new()
        finally:                        # one bad message must not end the loop
            if self.root is not None:
                self.timers["drain"] = self.root.after(10 if more else 50, self.drain)

    def show_batch(self):
        """Show what came since the last time: one insert for each conversation."""
        batch, self.batch = self.batch, {}
        settled, self.settled = self.settled, {}
        for conversation, view in self.views.items():
            # One that was never looked at has no view; it is drawn from its lines when
            # it is first shown. What stands in these two for it can be forgotten.
            view.add(batch.get(conversation, ()))
            if conversation in settled:
                view.settle(settled[conversation], conversation.lines)
        if self.changed and time.monotonic() > self.next_draw:
            # Not with each batch: in a loud room of 200 that alone made a 10 ms timer
            # late by 46 ms (p99), and nobody reads a number 20 times a second.
            self.changed, self.next_draw = False, time.monotonic() + 0.25
            self.sidebar.draw()
            self.show_titles()

    def tick(self):
        """Once a second: the countdown, and who has been away for long."""
        # First of all: an error below must not end the clock.
        self.timers["tick"] = self.root.after(1000, self.tick)
        self.chat.tick()
        self.header.show()
        # (A dialog has ended, and who had the keyboard before it is out of sight.)
        if (not self.room.winfo_manager()
                and str(self.root.tk.call("focus")).startswith(str(self.room))):
            self.look.focus(self.login.frame)

    # --- what the chat tells its face

    def line_added(self, conversation, line):
        """Only keep it: show_batch() shows all lines of a batch at once."""
        self.batch.setdefault(conversation, []).append(line)
        if (not self.chat.looking and line.spoken and not line.old
                and line.author != self.chat.me):
            # Private words stay out of it: a toast can be read from behind us, and on
            # Linux and macOS while it comes also in the list of processes, by `ps`.
            said = line.text if conversation.name is None else "has written to you."
            self.toasts.tell(line.author, said, conversation, line.mention)

    def line_changed(self, conversation, line):
        """A receipt waits for show_batch(), as one of many; all else is shown now."""
        if not line.state:
            self.settled.setdefault(conversation, []).append(line)
            return
        self.show_batch()               # the line may be in this very batch
        if conversation in self.views:
            self.views[conversation].change(line)

    def file_changed(self, conversation, line):
        """A file has come further, ten times a second at most: its card shows it."""
        if conversation in self.views:
            self.views[conversation].change(line)

    def people_changed(self):
        """Noted, as above: 200 people who come at once are drawn once."""
        self.changed = True

    def status_changed(self):
        """Show the login card or the room, and how the connection is."""
        state = self.chat.status["state"]
        self.warned = self.warned and state != "online"
        # Who was in once stays in the room while we reconnect: there is much to read.
        inside = self.chat.me is not None and state not in ("offline", "choose_name")
        sent_away = (self.room.winfo_manager() and not inside
                     and not self.chat.status.get("wanted"))
        if inside != bool(self.room.winfo_manager()):
            # An open menu has all keys and clicks; it must not outlive what it is for.
            self.root.tk.call("tk::MenuUnpost", "")
            (self.login.frame if inside else self.room).pack_forget()
            (self.room if inside else self.login.frame).pack(fill="both", expand=True)
            if inside:
                self.shown(self.chat.current)
                self.say_trouble()
        self.sidebar.show_status(state)
        self.login.show_status(self.chat.status)
        if sent_away:
            # Perhaps in the middle of a sentence, and the rest must not become a name.
            self.look.focus(self.login.frame)
        self.changed = True             # the sidebar shows who is online
        self.show_titles()

    def shown(self, conversation):
        """Bring a conversation to the front, with its messages and its draft."""
        # What has come belongs to the views as they are now.
        self.show_batch()
        known = self.chat.conversations.values()
        for old in [talk for talk in self.views if talk not in known]:
            self.views.pop(old).frame.destroy()         # of a server that we left
        for talk, view in self.views.items():
            view.frame.pack_forget()
            if talk.first_new is None:  # what was new there is read
                view.remove_new()
        if conversation not in self.views:
            self.views[conversation] = Messages(self.main, self.look, self.chat,
                                                conversation)
            self.views[conversation].add(conversation.lines)
            self.views[conversation].text.bind("<Key>", self.type_on, add=True)
        self.views[conversation].frame.pack(fill="both", expand=True)
        self.composer.set(conversation.draft)
        self.sidebar.draw(follow=True)  # a click wants its answer at once
        # Unless the keyboard belongs to the login card. Or to a dialog or a page: they
        # type there, the other one leaves, and the rest of it would be said to all.
        focus = str(self.root.tk.call("focus")) or "."
        if (self.room.winfo_manager()
                and str(self.root.tk.call("winfo", "toplevel", focus)) == "."):
            self.composer.text.focus_set()
        self.show_titles()

    def show_titles(self):
        """The title counts what is unread: it is seen when the window is not."""
        self.header.show()
        unread = sum(talk.unread for talk in self.chat.conversations.values())
        title = "ChattyCat"
        if self.room.winfo_manager():
            title += f" — {self.chat.me}"
            title = f"({unread}) {title}" if unread else title
        self.root.title(title)

    # --- what the menu, the keys and the close button want

    def choose(self, name, value):
        """The menu: keep a choice, or say why it holds only until we end."""
        self.choices.set(name, value)
        self.say_trouble()

    def say_trouble(self):
        """Say what is wrong with the file of the choices, once."""
        if self.choices.trouble:
            self.chat.note(self.choices.trouble, "error")
            self.choices.trouble = ""

    def choose_theme(self, theme):
        """The menu: light, dark, or as the system has it; also the next time."""
        self.choose("theme", theme)
        view = self.views.get(self.chat.current)    # (None: logged out in this moment)
        place = view and view.place()
        self.build(theme)
        if place and self.chat.current in self.views:
            self.views[self.chat.current].go_to(place)
        # What was thrown away still knows each other, in circles, and so waits for
        # Python's collector. That can run in any thread, and a font or an image that
        # ends in another one than this waits for Tk, or fails. So it runs here, now.
        gc.collect()

    def choose_files(self):
        """Ctrl+O and “+”: ask for files and send them.

        Until the dialog is closed this does not return. But Tk goes on inside of it, so
        that what is said meanwhile is shown; and somebody may close the window.
        """
        talk = self.chat.current
        if not self.room.winfo_manager():
            return
        with contextlib.suppress(tk.TclError):
            paths = filedialog.askopenfilenames(parent=self.root, title="Send files")
            for path in self.root.tk.splitlist(paths) if self.root else ():
                self.chat.send_file(path, talk)
            self.to_the_end()

    def page_by(self, pages):
        """PgUp and PgDn in the composer scroll the messages: to read what was said, one
        need not leave what one is about to say."""
        self.views[self.chat.current].scroll(pages)
        return "break"                  # or the cursor in the box would move as well

    def to_the_end(self):
        """Esc, and after each line sent: who speaks wants to see the answer."""
        if self.root is None:           # it was /quit
            return
        # First what is not drawn yet: else this would be an end that is none.
        self.show_batch()
        if self.chat.current in self.views:
            self.views[self.chat.current].to_the_end()

    def want_to_quit(self, *_):
        """The handler of signals. One may come in the middle of anything."""
        self.quit_wanted = True         # a signal came; the next drain() sees it

    def quit(self):
        """Close; but not at the first time, if lines would be lost that wait for us to
        be back. No box that asks: who is in a hurry just closes it once more."""
        kept = [line for _, line in self.chat.unconfirmed.values()
                if line.state == "kept" or line.file]
        if kept and not self.warned:
            self.warned = True
            text = (f"Not sent yet: {len(kept)} of your lines. Close the window once "
                    "more to leave all the same.")
            self.chat.note(text, "error")
            if self.wire:               # in a low window there is room for one of them
                self.toggle_wire()
            self.to_the_end()
            self.login.say(text, "danger")      # one of the two is to be seen
        else:
            self.close()

    def close(self):
        """Stop the timers, say bye, take the window down."""
        root, self.root = self.root, None
        if root is None:                # a second click, while the first one works
            return
        for timer in self.timers.values():
            root.after_cancel(timer)    # or Tk complains of a command that is gone
        root.withdraw()                 # out of sight at once; the bye takes a moment
        self.toasts.stop()
        self.look.painter.stop()
        self.chat.leave()
        # An image that Python throws away later, in whatever thread it does so, would
        # ask a Tk that is no more.
        self.look.images.clear()
        # Tk's file dialog waits for this variable. At the second time that one is open
        # destroy() does not end that wait, and this process would never end.
        root.setvar("::tk::Priv(selectFilePath)", "")
        root.destroy()                  # and mainloop() returns
# endregion


# region 30. Plain lines: printed  (lesson 14)
class Printed:
    """What plain lines print: the half of this face that the chat talks to.

    A terminal cannot go back to a line and change it, and a screen reader would not
    notice. So each thing is printed once: a line of ours when its receipt is here, an
    attempt to connect only the first time, a file every two seconds.
    """

    def print(self, text, when=None):
        """Print with date and time, the oldest form of a log that there is.

        Further lines of a message are indented: nobody can send text that looks like a
        line of somebody else. (What could drive the terminal, clean() took out.)
        """
        # The server's time for what it sent, so that two people who compare their
        # screens see the same; our own for our own words.
        stamp = f"{when or datetime.now():%Y-%m-%d %H:%M:%S}"
        try:
            # flush: into a pipe Python collects 8 KiB before anything is seen.
            print(f"{stamp}  " + text.replace("\n", "\n    "), flush=True)
        except OSError:
            # Whoever read our output has gone (`… --plain | head`). What still comes
            # goes nowhere; else Python would fail once more at its own end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.over = 1

    def line_added(self, conversation, line):
        """Print a line, with an arrow when it is private."""
        if line.kind in ("system", "error"):
            # Here there is one stream of lines, and nothing must be printed twice: why
            # we went offline comes by status_changed() as well, and what somebody did
            # stands in the room already when it comes to a private conversation.
            room = self.chat.everyone
            again = (line.kind == "system" and conversation is not room
                     and room.lines and room.lines[-1].text == line.text)
            if not again and line.text != self.chat.status["text"]:
                self.print(f"* {line.text}", line.time)
        elif line.state not in ("waiting", "kept"):
            # Our own are printed when the receipt comes: then they stand where the
            # others see them, and it is sure that they do.
            to = ""
            if conversation.name is not None:
                mine = line.author == self.chat.me
                to = f" → {conversation.name if mine else 'you'}"
            who = "[Server]" if line.kind == "notice" else line.author  # see ChatLog
            more = ""
            if line.file and not line.ref:
                more = f" — /save {line.file.number} saves it"
            self.print(f"{who}{to}: {line.text}{more}", line.time)
        elif line.file:
            self.print(f"* {line.file.number}: Sending {line.text} …")

    def line_changed(self, conversation, line):
        """A receipt: our line stands where everybody has it, among the others'.

        Or the other end: none will come, or nobody knows whether one would have.
        """
        if not line.state:
            self.line_added(conversation, line)
            self.give_up = max(self.give_up, time.monotonic() + 30)     # it goes on
        elif line.state == "unknown":
            self.print(f"* Not known whether it arrived: {line.text}")
        elif line.state == "failed":
            self.refused = True
            if not line.file:           # file_changed() has said why
                self.print(f"* Not sent: {line.text}")

    def file_changed(self, conversation, line):
        """Say how far a file has come, every two seconds, and how it has ended.

        A bar that grows would need a terminal that can go back in its line. And each
        change of it would be read out, to who cannot see it.
        """
        shared, transfer, now = line.file, line.file.transfer, time.monotonic()
        self.give_up = max(self.give_up, now + 30)      # it goes on
        if transfer.state == "failed":
            self.refused = True
            self.print(f"* {shared.number}: {shared.name}: {clean(transfer.trouble)}")
        elif transfer.state == "done" and transfer.path == shared.path and shared.id:
            if isinstance(transfer, Download):
                self.print(f"* {shared.number}: {shared.name} is saved as "
                           f"{transfer.path}")
        elif now >= self.progress.setdefault(transfer, now + 2):
            self.progress[transfer] = now + 2
            self.print(f"* {shared.number}: {shared.name}: "
                       f"{self.chat.progress(transfer)}")
        if transfer.is_over():
            self.progress.pop(transfer, None)

    def status_changed(self):
        """Say what happened to the connection; of many attempts only the first.

        A line for each would push everything else out of the terminal overnight.
        """
        status = self.chat.status
        # Whatever has happened, a question for the name is over by it. Else the next
        # line, typed for everybody, would be taken for a name.
        self.asking = False
        if status["state"] == "online":
            self.print(f"* You are in as {self.chat.me}; {self.chat.count} here. "
                       "/help lists the commands.")
        elif status.get("password"):    # typed here it could be read on the screen
            self.print(f"* {status['text']} Start again with --password.")
            self.over = 1
        elif status["state"] == "choose_name":
            if self.is_person or not (self.held or self.input_over or self.chat.me):
                self.ask_name(status["text"])
            else:
                # What a pipe has written already is something to say, and no name.
                self.print(f"* {status['text']}")
                self.over = 1
        elif status["state"] == "offline":
            # Not the end: whoever sits at a terminal may mend it, and try again.
            again = "“connect” tries again, “exit” ends."
            if self.chat.can_trust():
                again = "“/trust” accepts it, “exit” ends."
                if not self.is_person:      # a script has nothing to compare
                    again, self.over = "--fingerprint accepts it.", 1
            self.print(f"* {status['text']} {again}")
        elif status["state"] == "waiting" and status["attempt"] == 1:
            self.print(f"* {status['text']} Waiting for it; Ctrl+C ends.")

    def people_changed(self):
        """Nothing to do here: who came and went is printed as a line.

        (A face must have all of these methods, also those that it makes no use of.)
        """

    def shown(self, conversation):
        """Say where the next line goes: there is no title to look at.

        Only while we are in. What is typed before that stays with who it was typed for.
        """
        # What is being typed the terminal tells us only at Enter. So there may always
        # be a draft, and tick() must not lead back to everyone when the other one has
        # gone: the other half of a secret would be said to all.
        conversation.draft = "?"
        if self.chat.status["state"] == "online":
            who = (f"{conversation.name} alone; /everyone goes back"
                   if conversation.name else "everyone")
            self.print(f"* What you type now goes to {who}.")

    def quit(self):
        """/quit: run() ends at its next look.

        (sys.exit() here would end us in the middle of a command, and say no bye.)
        """
        self.over = 0
# endregion


# region 31. Plain lines: typed  (lesson 14)
class PlainLines(Printed):
    """The chat without a window: what you type is sent, what comes is printed.

    For a terminal, a pipe (`echo hi | … --plain --name Bot`), or a screen reader: it
    says each line as it comes, and can say nothing of a drawing on a Canvas.

    It is also the smallest face there is, for who wants to write one: the same chat as
    the window's, the same commands, and only the methods at the end are its own. A bot
    is a face too: line_added() gets each line, chat.say() answers.

    Two threads: one waits for the keyboard, the main thread for everything else. They
    meet in a queue, as those of the connection do.
    """

    def __init__(self, options, chat_class=Chat):
        self.chat = chat_class(self, options)
        self.name = options.name
        # From the keyboard's thread. Unbounded: nobody types faster than we read, and
        # what a pipe brings has to be kept somewhere.
        self.typed = queue.SimpleQueue()
        # What was typed before we were in, and will be said then.
        self.held = collections.deque()
        # Whether the next line typed is a name; and which one, if that line is empty.
        self.asking, self.default = False, ""
        # A person sees what has happened and reacts; a pipe has written all its lines
        # before anything has. In two places that makes a difference.
        self.is_person = sys.stdin is not None and sys.stdin.isatty()
        # Ctrl+D, or the end of the pipe; and until when to wait for receipts then.
        self.input_over, self.give_up = False, math.inf
        # Whether a line or file of ours was: a script wants to know, by our status.
        self.refused = False
        # Transfer -> when to say again how far it is, see file_changed().
        self.progress = {}
        # The exit status. That it is not None any more ends run().
        self.over = None
        if self.chat.login.trouble:
            self.print(f"* {self.chat.login.trouble}")

    def run(self) -> int:
        """Print what comes and send what is typed, until one of them ends."""
        # Reading the keyboard waits, and no thread can wait for two things at once.
        threading.Thread(target=self.read, daemon=True, name="keyboard").start()
        if self.name:
            self.connect(self.name)
        else:
            self.ask_name("Hello.", self.chat.login.name)
        # The main thread's loop, as the window's drain(): look at both queues, then
        # sleep a little. Waiting in one of them would make it deaf to the other.
        next_tick = 0.0
        while self.over is None:
            self.chat.drain(200, 1)
            self.obey_typed()
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + 1
                self.chat.tick()
            # 50 looks a second: for a person at once, for a processor next to nothing.
            time.sleep(0.02)
        self.leave()
        return self.over

    def leave(self):
        """Say what has not arrived, and bye. At Ctrl+C too.

        Who goes at once must know what did not. "As far as is known": of those whose
        receipt was lost nobody can tell.
        """
        lost = len(self.held) + len(self.chat.unconfirmed)
        if lost:
            self.print(f"* {lost} of your lines have not arrived, as far as is known.")
        self.chat.leave()

    def read(self):
        """The keyboard's thread. It only hands over what was typed.

        A daemon: at the end of the program it stands in readline(), and nothing in the
        world but a key could bring it out of there.
        """
        # readline() and not input(): that one makes Ctrl+C end with an abort here.
        if sys.stdin is not None:       # None: started without any input (`<&-`)
            for line in iter(sys.stdin.readline, ""):
                self.typed.put(line.rstrip("\n"))
        self.typed.put(None)            # Ctrl+D, or the end of a pipe

    def obey_typed(self):
        """Do what was typed since the last look: a command, a name, or a message.

        What comes before we are in is kept: a pipe has written all its lines before
        the first packet is back, and they must not be lost.
        """
        # One at a time: the first may be /connect, or the connection be lost, and then
        # the others must not be thrown after it. And not more than 500 without their
        # receipts: of those that have to be sent again, the server knows 1,000.
        while (self.held and not self.asking and not self.chat.trying()
               and len(self.chat.unconfirmed) < 500 and self.over is None):
            # A pipe says /quit when all is said; when it has arrived is not its matter.
            if self.held[0].strip() in ("/quit", "/exit") and (
                    self.chat.unconfirmed or self.chat.moving):
                break
            line = self.held.popleft()
            if not self.chat.typed(line):
                self.refused = True
                # What follows was for one person alone, and would go to everybody.
                if line.lstrip().startswith("/msg") and not self.is_person:
                    self.over = 1
        while not self.typed.empty() and self.over is None:
            text = self.typed.get()
            if text is None:
                self.input_over = True
                self.give_up = time.monotonic() + 30    # on a server that hangs
            elif self.asking and not text.startswith("/"):
                self.asking = False
                self.connect(text.strip() or self.default)
            elif self.is_urgent(text):
                self.chat.typed(text)
            else:
                self.held.append(text)
        if self.input_over and self.over is None:
            self.end_of_input()

    def is_urgent(self, text) -> bool:
        """Whether a line must not wait until we are in: whoever types /quit means now.

        And who was in before is in a conversation: there each line has its place, also
        while we are cut off. Held until later it would go to whom one writes then.

        But from a pipe each line has its turn. /quit, obeyed at once, would leave
        before what stands above it was ever said.
        """
        there = self.chat.me is not None and len(self.chat.unconfirmed) < 500
        return self.is_person and (
            there and not self.held or text.startswith("/")
            or text.strip().lower() in ("connect", "exit"))

    def end_of_input(self):
        """Nothing more will be typed: go when all has arrived, or when it never will.

        The exit status tells a script which of the two it was: 0, or 1. Going at once
        would be wrong: the last line may still lie in the outbox.
        """
        state = self.chat.status["state"]
        waits = (self.held or self.chat.unconfirmed or self.chat.list_wanted
                 or self.chat.moving)
        if state == "online" and not waits:
            self.over = 1 if self.refused else 0
        elif state in ("offline", "choose_name") or time.monotonic() > self.give_up \
                or (state == "waiting" and self.chat.me is None):
            self.over = 1               # (who was in before waits to come back)

    def connect(self, name):
        """Log in under this name, or ask for a better one.

        Chat.connect() checks everything before it touches the network.
        """
        login = self.chat.login
        try:
            self.chat.connect(login.host, login.port, name)
        except ValueError as problem:
            self.ask_name(str(problem))

    def ask_name(self, why, default=""):
        """Ask for a name; the next line that is typed is the answer.

        Nobody waits for it here: meanwhile there may be other things to print.
        """
        # Offered only at the start: a name that was refused is none to offer again.
        self.asking, self.default = True, default
        hint = f" (Enter: {default})" if default else ""
        self.print(f"* {why} Type your name{hint}.")
# endregion


# region 32. Main  (lesson 00)
def open_root():
    """Return (Tk's window, ""), or (None, one sentence that says why there is none).

    Both are common: Debian has Tk in a package of its own, and a server has no screen.
    For each the chat has an answer, so neither is an error.
    """
    if tk is None:
        return None, ("This Python has no Tk, so there is no window (Debian and "
                      "Ubuntu: sudo apt install python3-tk).")
    try:
        if os.name == "nt":
            # We do our own sizes (Look.px). Windows must know it before the first
            # window, or it enlarges us like a photograph: all letters blurred.
            import ctypes
            ctypes.windll.shcore.SetProcessDpiAwareness(1)
    except (OSError, AttributeError):
        pass                            # Windows 7 and older do not know it
    try:
        # Tk() starts Tk and makes the main window, the root that all others hang from.
        # From here on only this thread may touch it. className: what the system calls
        # this program, in its list of windows.
        return tk.Tk(className="ChattyCat"), ""
    except tk.TclError as problem:
        return None, f"No window can be opened here ({problem})."


def open_log(path):
    """Let the program log write into a file. Raises OSError.

    What the threads do, with the time and the thread's name, and where a mistake was:
    to read afterwards what nobody saw happen. No word of what people say.
    """
    # "Rotating": at 1 MiB the file is renamed FILE.1, FILE.1 to FILE.2, and so on.
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=2**20, backupCount=5, encoding="utf-8", errors="replace")
    handler.setFormatter(logging.Formatter(
        "%(asctime)s  %(threadName)s  %(levelname)s  %(message)s"))
    LOG.addHandler(handler)
    # A full disk ends the log, and not the chat. (By default it would be said in the
    # terminal, at each line again.)
    logging.raiseExceptions = False
    LOG.info("ChattyCat %s, Python %s", VERSION, sys.version.split()[0])


# Windows that open on top of each other look like one; so `--clients 2` puts them side
# by side.
def place(root, px, spot):
    """Size the window; `spot` "1/3" means: the second of three that share the screen.

    ChattyCat_Server.py --clients 3 says so in CHATTYCAT_PLACE. In an environment
    variable and not an option, since no person would ever type it.
    """
    root.minsize(px(560), px(400))      # smaller, and the parts would cover each other
    found = re.fullmatch(r"(\d{1,2})/([1-9]\d?)", spot)
    if not found:                       # nearly always: one window, where it likes
        root.geometry(f"{px(1040)}x{px(720)}")
        return
    count, screen = int(found[2]), root.winfo_screenwidth()
    index = min(int(found[1]), count - 1)
    # 8 pixels for the frame that the window manager draws around us.
    width = max(px(560), min(px(1040), screen // count - px(8)))
    # The first at the left edge, the last at the right one, the others evenly between:
    # where the screen is too narrow for all, they overlap, but each can be seen.
    step = min(width + px(8), (screen - width) // max(1, count - 1))
    # Tk's way to say it: WIDTHxHEIGHT+X+Y.
    height = min(px(720), root.winfo_screenheight() - px(60))
    root.geometry(f"{width}x{height}+{max(0, index * step)}+0")


# The same in both scripts, as each must work alone.
def make_printable():
    """Let any name be printed on any terminal: 小猫 as \\u5c0f\\u732b where it must be.

    Without this, a terminal that knows no Chinese ends the thread that prints.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # pythonw on Windows has no streams at all, IDLE has some of its own.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


# The third face is a program of its own, since it is a lesson. (A face is found here by
# its file and not by `import`: the client must work where it was copied to alone.)
def load_terminal():
    """Return (the class Terminal, ""), or (None, one sentence that says why not)."""
    path = os.path.join(HERE, "lessons", "21_another_face", "ChattyCat_Terminal.py")
    if not all(stream and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        return None, "This is no terminal that can be drawn on."
    # It imports the client. Run as a program we are "__main__", and under our own name
    # Python would load us once more: then there were two classes Chat.
    sys.modules.setdefault("ChattyCat_Client", sys.modules[__name__])
    try:
        # What `import` does, with a path: a plan, an empty module, and its text run.
        spec = importlib.util.spec_from_file_location("ChattyCat_Terminal", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as problem:      # curses, which Windows does not have
        return None, f"This Python cannot draw on a terminal ({problem})."
    except OSError:
        return None, f"That face is not here: {path} is missing."
    return module.Terminal, module.why_not()


def prepare(options):
    """Do what all faces need; return an exit status if it must end here, else None."""
    if options.log:
        # Before any face: what goes wrong from here on should stand in it.
        try:
            open_log(options.log)
        except OSError as problem:
            print(f"ChattyCat_Client.py: the log cannot be written ({problem}).",
                  file=sys.stderr)
            return 2
    # Before anything is opened: who wants TLS must not get a chat without it.
    if ssl is None and (options.tls or options.fingerprint):
        print("ChattyCat_Client.py: this Python has no OpenSSL, which --tls needs.",
              file=sys.stderr)
        return 2
    # Here, while the terminal is still ours alone; a window could not ask there.
    try:
        options.password = read_password(options.password)
    except KeyboardInterrupt:
        return 1                        # Ctrl+C at the question: no chat at all
    # Python calls this when a mistake has ended a thread. Without it that stands in the
    # terminal only, and a window may have none.
    threading.excepthook = report_mistake
    return None


def run_in_terminal(options, chat_class, why) -> int:
    """Chat in this terminal: drawn, or in plain lines where that is not possible.

    `why`: why there is no window, if one was wanted. No screen (a server, ssh) and no
    Tk are no reason not to chat.
    """
    face, trouble = (None, "") if options.plain else load_terminal()
    if trouble:
        face = None
    if why:
        print(f"{why} The chat goes on in this terminal.", flush=True)
    elif trouble:                       # that is what was asked for
        print(f"{trouble} The chat goes on in plain lines.", flush=True)
    # A shell starts a job behind "&" with Ctrl+C ignored; here it counts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    face = (face or PlainLines)(options, chat_class)
    face.warning = why                  # (for the one that draws over what is printed)
    try:
        return face.run()
    except KeyboardInterrupt:
        # Ctrl+C, the way out that everybody knows. Without the bye the server would
        # take us for lost, and keep our name for a minute.
        face.leave()
        return 0


def run_window(root, options, chat_class) -> int:
    """Chat in a window.

    A window program does not run from top to bottom. It prepares everything, gives the
    thread away to Tk's main loop, and from then on is called: by a key, by a click, by
    a timer. Whatever it does then it must do quickly, since until it returns no key is
    read and nothing is drawn.
    """
    # As threading.excepthook, for what Tk calls: it would print the mistake and go on.
    root.report_callback_exception = report_mistake
    window = Window(root, options, chat_class)
    place(root, window.look.px, os.environ.get("CHATTYCAT_PLACE", ""))
    # Ctrl+C in the terminal that started us, and what `kill` and our server send. A
    # signal may strike between any two lines, in the middle of an insert too; so its
    # handler only sets a flag, and the next drain() closes in good order.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, window.want_to_quit)
    # mainloop() waits for keys, clicks and timers, and calls what is bound to them. It
    # returns when the window is destroyed, by Window.quit().
    root.mainloop()
    return 0


# To extend the client in a file of your own: a class MyChat(Chat) with command_… and
# on_… methods, then `main(MyChat)`. All faces will have them.
def main(chat_class=Chat):
    """Show a window, or chat in the terminal; return the exit status when it is over.

    0 for a chat that has ended as it should, 1 when a pipe could not say all it had to
    say, 2 for a wrong command line. A window that was opened always ends with 0.
    """
    # We may be the process of a Painter. Not an option, as no person ever types it; and
    # it has a picture to read, and nothing to chat about.
    if sys.argv[1:2] == ["--paint"]:
        return paint(*sys.argv[2:])
    options = read_options()
    make_printable()
    status = prepare(options)
    if status is not None:
        return status
    no_window = options.plain or options.terminal
    root, why = (None, "") if no_window else open_root()
    if root is None:
        return run_in_terminal(options, chat_class, why)
    return run_window(root, options, chat_class)


if __name__ == "__main__":
    sys.exit(main())
# endregion
