#!/usr/bin/env python3
"""ChattyCat, the server: one room, one reading thread a person, one postman.

Run it:
    python3 ChattyCat_Server.py               for this computer alone
    python3 ChattyCat_Server.py --clients 2   and two chat windows with it
    python3 ChattyCat_Server.py --lan         for the whole classroom
    python3 ChattyCat_Server.py --help        everything it can be told

How a message gets from one person to all the others:

    reading thread (one a person)              the postman (one thread)
    recv -> lines -> JSON -> on_chat           takes all that is pending,
                               |               writes it into the history,
                               v               joins it to one piece of bytes,
            the room, under its one lock       one send() a person
                               +---- bell ---->  ^

The regions, in reading order (what a region uses stands above it):
   1  Settings — the command line, and one way to print
   2  The wire — bytes to messages and back; names, text and times
   3  One person's connection — a socket, and what waits to be sent
   4  Sessions — who somebody is, through all their connections
   5  What is pending — lines for everybody or for one, until the postman takes them
   6  The room — who is here, ids, receipts; under one lock
   7  History — what was said, in memory, for who comes or comes back
   8  History in a file — the same in SQLite, which survives the server
   9  One file — its name, its pieces, how far it has come
  10  Files — what people have sent, on the disk
  11  The door — the certificate for TLS, the password, who has tried too many
  12  What each message does — on_hello, on_chat, … found by name
  13  What a message about a file does — on_upload, on_chunk, …
  14  The postman — the one thread that sends
  15  The reading threads — one for each connection
  16  The server — accept, threads, shutdown
  17  The operator's console — console_kick, … found by name
  18  Main — from the command line to a running server

To add a kind of message, write one method on_<type> in region 12. To add a word
for the operator, write one method console_<word> in region 17. Or leave this
file alone: `class MyServer(ChatServer)` in a file of your own, and `main(MyServer)`.
"""
import argparse
import binascii
import collections
import contextlib
import dataclasses
import errno
import hashlib
import getpass
import hmac
import importlib.util
import ipaddress
import itertools
import json
import logging.handlers
import math
import os
import queue
import re
import secrets
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unicodedata
import warnings
from datetime import datetime, timezone

try:
    # Both come with Python. One that was built without SQLite can still run a server,
    # only without --history, and one without OpenSSL, only without --tls.
    import sqlite3
except ImportError:
    sqlite3 = None
try:
    import ssl
except ImportError:
    ssl = None

VERSION = "1.0"

# region 1. Settings  (lesson 00)
# The folder of this script. Whoever starts it from another folder, as VS Code may do,
# must still find the client beside it.
HERE = os.path.dirname(os.path.abspath(__file__))

# Limits that nobody has needed to change yet; those that somebody has are options.
PEOPLE_LISTED = 500         # names in one `welcome` or `people`: they fit in one line
BURST = 100                 # lines that may come at once before --rate slows them
TURN_LINES = 64             # lines of one person in one batch
COUNTED_ERRORS = 20         # the twentieth broken line ends a connection
HELLO_SECONDS = 60          # long enough to type a hello by hand
LONG_HELLO = 8192           # bytes; a usual one has 200
STRANGERS = 64              # connections without a hello; past that the oldest goes…
STRANGER_SECONDS = 5        # …when it has had this long
TRACED = 1_000              # characters of a line that --trace shows
# Larger receive buffers are not faster (measured), and 5,000 people with 64 KiB each
# would be 320 MB.
RECEIVE_BYTES = 4096
# How often a reading thread looks up from its socket: only to see that it was told to
# end, where shutting the socket down did not wake it.
LOOK_UP_SECONDS = 10
UNREAD_BYTES = 128 * 1024   # of one person, that the kernel keeps until we read them
WAITING_BYTES = 2 * 2**20   # what may wait for one person who does not read
FAREWELL_SECONDS = 10       # how long a goodbye may wait for a slow reader
PARTING_SECONDS = 1         # how long we read on after it has left
NAME_SECONDS = 60           # a name waits so long for who has lost the connection…
SESSION_SECONDS = 86_400    # …and the session 24 h
AWAY_LIMIT = 10_000         # but not more sessions than these: who comes and goes all
                            # the time must not fill our memory with names
RECEIPTS = 1_000            # so many labels of a session are known when they come again
MEMORY_LINES = 2_000        # without --history so many lines are kept…
# …of so many bytes together. While long lines fill this, somebody who does not read
# costs WAITING_BYTES too: both were 1.07 times that, and with 1 MiB 1.45 (measured).
MEMORY_BYTES = 384 * 1024
MEMORY_SESSIONS = 2_000     # and the sessions of so many who have gone
PIECE_LINES = 500           # of history that the postman looks through at a time…
PIECE_BYTES = 256 * 1024    # …and hands out: far less than WAITING_BYTES

# How many may be slow readers at once: select() on Windows takes 512 sockets.
STALLED_PEOPLE = 500 if os.name == "nt" else math.inf
LINES_TO_PRINT = 20_000     # on the operator's terminal; what is over that is left out

# Two kinds of the reasons for which somebody goes. BREAKS: they did not want to, so the
# name is kept. UNSEEN: nobody reads a `left`; at a shutdown all leave, and who was
# replaced by a connection of their own has not left.
BREAKS = ("lost", "too_slow", "shutdown", "replaced")
UNSEEN = ("shutdown", "replaced")


def user_folder() -> str:
    """Return the folder for this user's files, where each system keeps such things.

    Windows: Known Folders; macOS: File System Programming Guide; else: the XDG Base
    Directory Specification. CHATTYCAT_HOME puts them elsewhere. (As the client has it.)
    """
    if os.environ.get("CHATTYCAT_HOME"):
        return os.environ["CHATTYCAT_HOME"]
    if os.name == "nt":
        return os.path.join(os.environ.get("APPDATA", HERE), "ChattyCat")
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support", "ChattyCat")
    return os.path.join(os.environ.get("XDG_CONFIG_HOME")
                        or os.path.join(home, ".config"), "chattycat")


class Options(argparse.ArgumentParser):
    """The command line. A mistake in it is one sentence, not a page of usage."""

    def error(self, message):
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
            if any("\0" in line for line in lines):    # no name can have it in it
                raise ValueError("it is not text")
        except (OSError, ValueError) as problem:    # ValueError: not text at all
            self.error(f"cannot read the options in {path} ({problem})")
        # Split once, at the first space: a path may have spaces in it.
        return [word.strip() for line in lines if line and line[0] != "#"
                for word in line.split(None, 1)]


def number(low, high):
    """Return an argparse type: a whole number from `low` to `high`.

    A type is a function from a word to a value. int() alone would not do: it takes
    "-1", " 7 ", "1_000" and "٣" as well, and a hundred digits.
    """
    def convert(word):
        if not re.fullmatch(r"[0-9]{1,9}", word) or not low <= int(word) <= high:
            raise argparse.ArgumentTypeError(
                f"it wants a whole number from {low} to {high}, not “{word}”")
        return int(word)
    return convert


def read_options(words=None):
    """Return the options in `words`, or in the command line that started us."""
    # allow_abbrev=False: with it, "--po 9000" would work today, and mean something
    # else on the day when there is a second option that begins so.
    options = Options(prog="ChattyCat_Server.py", allow_abbrev=False,
                      description="The ChattyCat chat server. Ctrl+C stops it.",
                      epilog="@FILE reads options from a file, one a line.")
    # Both together make no sense, and argparse says so for us.
    where = options.add_mutually_exclusive_group()
    # Not "localhost": Windows tries that as ::1 first and loses 2 s when the other
    # side listens on 127.0.0.1 alone.
    where.add_argument("--host", default="127.0.0.1", help="the address to listen on "
                       "(default: 127.0.0.1, this computer alone)")
    where.add_argument("--lan", dest="host", action="store_const", const="0.0.0.0",
                       help="listen on all addresses, and show the one that the "
                       "other computers must type in")
    options.add_argument("--port", type=number(0, 65535), default=PORT, metavar="N",
                         help=f"the TCP port (default: {PORT}; 0: any free one)")
    options.add_argument("--max-clients", type=number(1, 100_000), default=200,
                         metavar="N", help="how many people may be in (default: 200)")
    options.add_argument("--history", metavar="FILE", help="keep what is said in this "
                         "file, so that nothing is lost when the server ends or is "
                         "killed (default: the newest lines, in memory)")
    options.add_argument("--recent", type=number(0, 10_000), default=50, metavar="N",
                         help="how many lines somebody new gets to see (default: 50)")
    options.add_argument("--files", metavar="DIR", help="keep what people send in "
                         "this folder (default: a private one, gone at the end)")
    options.add_argument("--max-file", type=number(0, 100_000), default=10,
                         metavar="MIB", help="how large a file may be (default: 10; "
                         "0: nobody can send any)")
    options.add_argument("--all-files", type=number(0, 100_000_000), default=1024,
                         metavar="MIB", help="how large all of them may be together "
                         "(default: 1024)")
    options.add_argument("--password", action="store_true", help="let in only who "
                         "knows it: asks for it, or takes CHATTYCAT_PASSWORD from the "
                         "environment")
    options.add_argument("--tls", action="store_true", help="encrypt all that travels")
    options.add_argument("--cert", metavar="FILE", help="the certificate for --tls, "
                         "PEM (default: made once, by the command openssl)")
    options.add_argument("--key", metavar="FILE", help="its key, if it is not in there")
    options.add_argument("--rate", type=number(0, 1_000_000), default=50, metavar="N",
                         help="messages a second that one person may send before "
                         "being slowed, but 100 at once (default: 50; 0: no limit)")
    options.add_argument("--clients", type=number(0, 12), default=0, metavar="N",
                         help="open N chat windows as well")
    options.add_argument("--log", metavar="FILE", help="write what stands in this "
                         "terminal into a file as well; at 1 MiB it is renamed and a "
                         "new one begun, six are kept")
    options.add_argument("--trace", action="store_true", help="show each line as it "
                         "travels, with its thread; private messages too")
    options.add_argument("--no-console", action="store_true",
                         help="do not read the operator's commands")
    options.add_argument("--version", action="version", version=f"ChattyCat {VERSION}")
    chosen = options.parse(sys.argv[1:] if words is None else words)
    if (chosen.cert and not chosen.tls) or (chosen.key and not chosen.cert):
        options.error("--cert needs --tls, and --key needs --cert")
    return chosen


# A Queue hands things from thread to thread, in order, without a lock of our own.
TERMINAL = queue.SimpleQueue()


def say(text, accuracy="seconds"):
    """Print lines with date and time on the operator's terminal."""
    # Not print() itself: it waits while the terminal is held up (Ctrl+S, or a click
    # into a Windows console), and whoever waits in a room's lock stops the room.
    stamp = datetime.now().isoformat(" ", accuracy)
    for line in text.split("\n"):
        # A terminal that stays held up must not fill the memory.
        waiting = TERMINAL.qsize()
        if waiting == LINES_TO_PRINT:
            line = "… What comes now is left out: this terminal is too slow for it."
        if waiting <= LINES_TO_PRINT:
            TERMINAL.put(f"{stamp}  {harmless(line)}")


def harmless(line: str) -> str:
    """Return the line with \\x1b and the like for what a terminal would obey.

    It can come from a client, within a traceback for example: colours, “clear the
    screen”, or a line that looks like one of ours.
    """
    if line.isprintable():
        return line
    return "".join(character if character.isprintable() else ascii(character)[1:-1]
                   for character in line)


class PrivateLog(logging.handlers.RotatingFileHandler):
    """A log that its owner alone can read; with --trace, private lines stand in it."""

    def _open(self):                    # logging calls it for each new file
        os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT, 0o600))
        return super()._open()


def open_log(path):
    """Return a Logger that writes lines into a file, for --log. Raises OSError.

    What stands in the terminal is gone when it is closed. The log tells the next day
    who came from where and what went wrong. No word of the chat is in either of them,
    but with --trace: an operator keeps the server, and is no party to what people say.
    """
    # "Rotating": when the file is full it becomes FILE.1, FILE.1 becomes FILE.2, and
    # so on. A log that only grows fills the disk in the end.
    handler = PrivateLog(
        path, maxBytes=2**20, backupCount=5, encoding="utf-8", errors="replace")
    log = logging.Logger("ChattyCat")
    log.addHandler(handler)
    logging.raiseExceptions = False     # a full disk ends the log, and not the chat
    return log


def print_lines(log=None):
    """Print what say() leaves in the queue. A thread of its own; None ends it."""
    for line in iter(TERMINAL.get, None):
        if log is not None:
            log.info(line)
        try:
            # flush: into a pipe or a file Python collects 8 KiB first, and whoever
            # waits for a line of ours would wait for a long time.
            print(line, flush=True)
        except OSError:
            # The terminal was closed: no reason to end anybody's chat. What still
            # comes goes nowhere; else Python would fail once more at its own end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if log is not None:
        # Here, and not when Python ends: it would complain of a full disk once more.
        with contextlib.suppress(OSError):
            log.handlers[0].close()
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


# region 3. One person's connection  (lesson 05)
# Some words of this region. A descriptor is the number by which a program names an open
# socket to the kernel. TCP ends a connection politely, each direction for itself (to
# end only one is to half-close), or at once for both, with a packet called RST (reset).

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


class Connection:
    """The socket of one person, and what waits to be sent to them.

    Two threads use it, each its own half: the person's reading thread calls receive()
    and keep_pace(), the postman calls send() and those below it. So no lock is needed
    here: what both look at are flags that change once, and whoever sees that a moment
    late does no harm (and `wishes`, see on_cancel).
    """
    # These belong to the class: an object has its own only where it is set. So most
    # have fewer than 30 attributes; with 30 and more, each needs a dict in addition,
    # 1.3 to 1.6 KB a person (measured, from Python 3.11 on).
    goodbye = b""                       # the last line, which comes after all others
    waited = False                      # at the door, see Readers.wait_at_the_door()
    name_refused = False                # then the next hello may bring another one

    def __init__(self, sock: socket.socket, address, tls=None):
        """`sock` is connected; `address` is where from: (ip, port), IPv6 with more;
        `tls`: the filter on its bytes, or None."""
        self.ip = address[0]
        self.address = f"{address[0]}:{address[1]}"
        self.sock, self.tls = sock, tls
        # Two threads use one connection, and want opposite things: recv() should wait
        # until something comes, send() should never wait. dup() gives a second
        # descriptor of the same connection, so each thread has a socket of its own.
        # But whether the kernel waits is a property of the connection, not of the
        # descriptor. settimeout(10) means: the kernel never waits, Python does, up to
        # 10 s. So both can have their way; with settimeout(None) both would wait.
        sock.settimeout(LOOK_UP_SECONDS)
        self.out = sock.dup()
        self.out.setblocking(False)
        self.buffer = bytearray(RECEIVE_BYTES)
        self.waiting = bytearray()      # what the kernel did not take yet
        self.name = self.color = None   # until hello; the color is 0 to 11
        self.session = None             # who this is; it outlives this connection
        self.behind = False             # (see Postman) has not read all history yet…
        self.position = None            # …but what stands up to this id
        self.newest, self.until = 0, None   # the newest id when they came, and left
        self.wishes = []                # what was asked for: files, receipts; no deque,
                                        # which takes 0.7 KB a person even when empty
        self.since = time.monotonic()
        self.errors = 0                 # broken lines so far
        self.wrong_passwords = 0
        self.paid_until = 0.0           # see keep_pace()
        self.round, self.said = None, 0     # see Room.wait_for_turn()
        self.leaving = False            # a goodbye is on its way: no more is obeyed
        self.half_closed = False        # …and has left
        self.gone = False               # nothing can be sent any more
        self.dead = False               # the reading thread must end
        self.ended = False              # …and has
        self.reason = "lost"            # what the others will read in `left`
        self.entry = None               # in a list of people, as JSON

    def receive(self) -> bytes:
        """Wait for bytes and return them, or b"" when the connection is over.

        With TLS they are not yet decrypted: see TLS.read().
        """
        while not self.dead:
            try:
                # Into the same buffer each time. With recv(), which makes a new one, a
                # server where 700 people came and left grew by 1.6 MB, and not by 1.2.
                size = self.sock.recv_into(self.buffer)
                return self.buffer[:size]
            except socket.timeout as pause:
                # From Python 3.10 a line that keepalive found dead raises this very
                # class. Only the number tells it from our own looking up.
                if pause.errno == errno.ETIMEDOUT:
                    break
            except OSError:             # reset by the other side, or closed by ours
                break
        return b""

    def has_hung_up(self) -> bool:
        """Whether the other side has closed; seen only if all else has been read."""
        try:
            return not self.out.recv(1, socket.MSG_PEEK)    # PEEK: look, take nothing
        except BlockingIOError:
            return False
        except OSError:
            return True

    def keep_pace(self, rate: int, wanted: int) -> int:
        """Return how many of `wanted` lines may be obeyed now, at least one.

        Sleeps first while this person is ahead of `rate` lines a second (0: no limit).
        Whoever is not read is slowed by TCP itself: our buffer fills, then theirs,
        then their send() waits. Nothing is lost and nobody else notices.
        """
        if not rate:
            return wanted
        now = time.monotonic()
        # Each line costs 1/rate s. Who was quiet has saved up at most a burst.
        self.paid_until = max(self.paid_until, now - BURST / rate)
        allowed = min(wanted, max(1, int((now - self.paid_until) * rate)))
        self.paid_until += allowed / rate
        if self.paid_until > now:
            time.sleep(self.paid_until - now)
        return allowed

    def send(self, data: bytes):
        """Hand `data` to the kernel; what it does not take waits here.

        That send() returns says nothing of the other side: the bytes lie in a buffer
        of our own kernel. Only an answer of theirs proves that they have arrived, and
        so every chat line comes back to its sender: that is its receipt.
        """
        if self.dead or self.gone:
            return
        tls = self.tls                  # (see Readers.receive, which may take it away)
        try:
            if tls is not None:
                data = tls.encrypt(data)
            # send() takes what fits into the kernel's buffer and says how much that
            # was. sendall() would wait for the rest, and everybody with it.
            sent = 0 if self.waiting else self.out.send(data)   # first what came first
        except BlockingIOError:         # the kernel's buffer is full
            sent = 0
        except OSError:                 # (ssl.SSLError is one of these)
            self.gone = True            # the reading thread will see it, too
            return
        if sent < len(data):
            self.waiting += data[sent:]

    def send_waiting(self):
        """Try again what waits: the selector says that the kernel has room."""
        try:
            # One send, not a loop: whoever reads fast must not keep the postman.
            del self.waiting[:self.out.send(self.waiting)]
        except BlockingIOError:
            pass
        except OSError:
            self.gone = True
            self.waiting.clear()

    def say_no_more(self):
        """Half-close: the other side reads to the end of what we sent, then b""."""
        self.half_closed = True
        if self.tls is not None:
            self.send(None)             # TLS has a goodbye of its own
        shutdown(self.out, socket.SHUT_WR)

    def stop_reading(self):
        """Wake the reading thread out of recv(), for good.

        close() from here would not do: the thread sleeps in the kernel on this socket,
        and would go on sleeping. A shutdown of the reading side ends its recv().
        """
        self.dead = True
        shutdown(self.out, socket.SHUT_RD)

    def reset(self):
        """Throw out somebody who does not read, with an RST.

        A polite close would wait in the kernel, with our 2 MiB, for a reader who does
        not read. SO_LINGER with 0 seconds means: forget the bytes, send RST. It goes
        out with the last close of the two descriptors.
        """
        # struct linger is two ints, on Windows two shorts.
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        with contextlib.suppress(OSError):      # it may have gone by itself just now
            self.out.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.waiting.clear()
        self.gone, self.reason = True, "too_slow"
        self.stop_reading()


def shutdown(sock, how):
    """End one direction of a connection; never mind if it is over already."""
    with contextlib.suppress(OSError):
        sock.shutdown(how)
# endregion


# region 4. Sessions  (lesson 16)
# A connection breaks whenever a laptop sleeps or the Wi-Fi drops, and nobody is to lose
# their name or a message by that. So who somebody is does not hang on their connection:
# it is a session, which they can take up again on the next one.
@dataclasses.dataclass(eq=False)
class Session:
    """Who somebody is, through all their connections: those break, a session lasts.

    The client holds a secret, "NUMBER.LETTERS", and whoever comes with it is that
    person again. We keep its hash: who reads the history file cannot become anybody.
    (One round of SHA-256 is enough for 256 random bits, which nobody can try out; for
    a password, which people can guess, it would not be.)
    """
    number: int                         # by which it is found; no secret
    digest: bytes                       # by which it is proven
    name: str
    color: int = 0                      # 0 to 11
    left_at: float = None               # time.time(); None: here
    kept: bool = False                  # whether the name waits for them
    receipts: collections.OrderedDict = None    # ref -> id; None: the history has them
    person: object = None               # the connection, while there is one
    # Held by the one of its connections that sends a file: see FileHandlers.alone().
    sending: object = dataclasses.field(default_factory=threading.Lock)

    @property
    def key(self):
        return name_key(self.name)

    def remember(self, ref, number):
        """Keep the id of a line that had this label; the oldest labels go."""
        self.receipts[ref] = number
        if len(self.receipts) > RECEIPTS:
            # An OrderedDict knows its oldest key. A dict has to look for it, past all
            # the places at its start that are empty by now: 0.4 to 0.8 µs (measured).
            self.receipts.popitem(last=False)


def digest(secret: str) -> bytes:
    """Return the SHA-256 hash of a session's secret, 32 bytes."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def new_session(name: str):
    """Return (a new Session, its secret)."""
    number = secrets.randbits(56)       # never the same, so that nobody inherits a line
    # Made by `secrets` and not by `random`, whose numbers can be foretold.
    secret = f"{number}.{secrets.token_urlsafe(32)}"
    return Session(number, digest(secret), name,
                   receipts=collections.OrderedDict()), secret


def is_ref(ref) -> bool:
    """Whether this can be a label; it goes back out, so UTF-8 must be able to."""
    return isinstance(ref, str) and len(ref) <= REF_LIMIT and is_unicode(ref)


def check_ref(ref):
    """Raise WireError `bad_message` if this can be no label."""
    if not is_ref(ref):
        raise WireError("bad_message",
                        f"A “ref” is a string of at most {REF_LIMIT} characters.")


class Sessions:
    """Whose name is whose, and who may come back. Used under the room's lock."""

    def __init__(self, history):
        """`history` has the sessions of those who have been away for longer."""
        self.history = history
        self.names = {}                 # name_key -> Session: here, or kept for it
        self.numbers = {}               # number -> Session: here, or away a minute
        self.away = collections.deque()     # (when, Session), in order of leaving
        for session in history.interrupted:
            self.send_away(session, True)

    def add(self, session, person):
        """Somebody has come, or come back."""
        session.person, session.left_at = person, None
        if session.receipts is None:
            session.receipts = self.history.receipts(session)
        self.numbers[session.number] = self.names[session.key] = session

    def send_away(self, session, kept: bool):
        """Somebody has gone. Their session stays at hand, and maybe their name."""
        session.person, session.left_at, session.kept = None, time.time(), kept
        session.receipts = session.receipts or None     # an empty one takes memory, too
        self.away.append((session.left_at, session))
        self.numbers[session.number] = session
        if kept:
            self.names[session.key] = session
        else:
            self.names.pop(session.key, None)

    def forget(self):
        """Let go of those who have been away for a minute: their names are free."""
        end = time.time() - NAME_SECONDS
        while self.away and (self.away[0][0] < end or len(self.away) > AWAY_LIMIT):
            when, session = self.away.popleft()
            if session.left_at == when:     # else they came back meanwhile
                self.numbers.pop(session.number, None)
                if self.names.get(session.key) is session:
                    del self.names[session.key]

    def named(self, name: str):
        """Return the Session that has this name, or for which it is kept, or None."""
        self.forget()
        return self.names.get(name_key(name))

    def check_free(self, name: str):
        """Raise WireError `name_taken` if it is somebody's."""
        owner = self.named(name)
        if owner is not None:
            why = "taken. Choose another one." if owner.person else (
                "kept for somebody whose connection broke. Choose another one, or try "
                "again in a minute.")
            raise WireError("name_taken", f"The name “{name}” is {why}")

    def of_secret(self, secret: str):
        """Return the Session that this secret proves, or None."""
        number = secret.partition(".")[0]
        if not re.fullmatch("[0-9]{1,18}", number):
            return None
        self.forget()
        session = (self.numbers.get(int(number))
                   or self.history.find_session(int(number)))
        # compare_digest() takes as long wherever the first difference is. With == one
        # could find the right bytes one by one, with a good clock.
        if session is None or not hmac.compare_digest(session.digest, digest(secret)):
            return None
        over = session.left_at and time.time() - session.left_at > SESSION_SECONDS
        return None if over else session
# endregion


# region 5. What is pending  (lesson 09)
# A reading thread never sends: it only lines up here what is to leave, and goes on
# reading. Sending it is the work of another thread (region 14), which takes all that
# has come together meanwhile in one go.
def utc_now() -> str:
    """Return the time as it travels: UTC, ISO 8601, "2026-11-20T17:01:02.345Z".

    UTC is the same everywhere and knows no summer time. Only the screens show local
    time: two people in two countries read two clocks, and mean one moment.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return now.replace("+00:00", "Z")


def chat_line(number: int, person, text: str, when: str, ref=None) -> bytes:
    """Return the line of a `chat` to everybody as encode() would, put together by hand.

    One of three places where we make JSON ourselves. This line is made all day, and
    json takes 2.5 µs for it, these few lines 0.5: with that, and with one time for a
    whole batch (see Room.pending), 10 people who all talk get 1.7 times as many
    deliveries a second (measured). A name needs no escapes: see clean_name().
    """
    # A string as JSON, with its quotes: what ENCODER calls itself for one. (Python's
    # manual does not name it; a test would tell if it were gone.)
    quote = json.encoder.encode_basestring
    end = "}\n" if ref is None else f',"ref":{quote(ref)}}}\n'
    return (f'{{"type":"chat","id":{number},"from":"{person.name}",'
            f'"color":{person.color},"text":{quote(text)},'
            f'"time":"{when}"{end}').encode()


class Receipt:
    """A wish: the receipt of a line, for who asks for it again.

    Wishes wait with their person until nothing else does (see Postman.next_piece). What
    is kept, the line or the next piece of a file, is read only then.
    """

    def __init__(self, history, number: int, line: bytes):
        """`line` stands in if the history has forgotten the one with this id."""
        self.history, self.number, self.line = history, number, line
        self.file, self.done = None, False

    def next_piece(self) -> bytes:
        self.done = True
        return self.history.line(self.number) or self.line


class Batch:
    """All that is pending: lined up by the room, delivered by the postman at once.

    An example: Ann says A, then P to Bob alone, then B. Cat comes in and gets her
    welcome W. Dan is there, too. What has an id comes back to who said it:

        public  = [A, B, "Cat joined"]       Dan: A B "Cat joined"
        private = {Ann: [(1, P, True)],      Ann: A P B "Cat joined"
                   Bob: [(1, P, True)],      Bob: A P B "Cat joined"
                   Cat: [(3, W, False)]}     Cat: W, since she came in behind 3
        first   = {Cat: 3}
    """

    def __init__(self):
        self.time = None                # when the first of it came
        self.public = []                # lines (bytes) for everybody who is here
        self.numbered = []              # the places in it of lines with an id
        # What goes to one person alone, with its place among the public lines and
        # whether it has an id: person -> [(lines before it, line, True/False), …]
        self.private = {}
        # Who came or left among them: person -> how many public lines stand before.
        self.first, self.last = {}, {}
        self.welcomed = {}              # who came: how many of their own lines by then
        self.parting = {}               # person -> their goodbye, the last line
        # For the history: (id, sender's and receiver's session numbers, ref, line).
        self.rows = []
        self.sessions = {}              # number -> Session, of those that changed
        self.files = []                 # (file, id of its line), for the history
        self.wishes = []                # (person, what they ask for, see Receipt)

    def mail(self, people, committed=True):
        """Yield (person, their bytes), …; `people`: who was here at its end. One by
        one: of 5,000 who leave in one batch the bytes are 0.8 GB together (measured).

        Who is behind (see Postman) reads lines with an id from the history, and gets
        only the others from here: of those above, "Cat joined". If nothing could be
        committed, nobody may see an id of this batch.
        """
        everybody = b"".join(self.public)   # one piece of bytes for nearly all
        quiet = list(self.public)
        for place in self.numbered:
            quiet[place] = b""
        late = {person: None for person in [*people, *self.private, *self.last]
                if person.behind or not committed}
        for person in people:
            if everybody and person not in late and person not in self.private:
                yield person, everybody
        here = set(people)
        for person in {**self.private, **self.last, **late}:
            # Their own lines, each at its place among the public ones, from where
            # they came in to where they left. (Nothing public for who is not in.)
            shared = quiet if person in late else self.public
            at, pieces = self.first.get(person, 0), []
            end = len(shared) if person in here else self.last.get(person, 0)
            for place, line, numbered in self.private.get(person, ()):
                pieces += shared[at:min(place, end)]
                if not (numbered and person in late):
                    pieces.append(line)
                at = max(at, place)
            data = b"".join(pieces + shared[at:end])
            if data:
                yield person, data
# endregion


# region 6. The room  (lesson 06)
class Room:
    """Who is here, and what is pending for whom. There is no socket in it.

    A person is any object that can have attributes, so that the room can be tested
    alone. One lock guards all that is in it: ids are given out and lines are lined up
    in the same step, so everybody gets them in the same order.
    """

    def __init__(self, history, max_people=200, bell=lambda: None):
        """`bell()` is called when something is pending that was not before."""
        self.history, self.max_people = history, max_people
        # A lock lets one thread at a time into a `with` block. An RLock lets the one
        # that has it in again, such as say(), which calls post(), which wants it too.
        self.lock, self.bell = threading.RLock(), bell
        self.round = 0                  # how many batches the postman has taken
        # A condition: on it threads wait until another one says notify_all(). It has a
        # lock of its own, under which nothing else is done.
        self.taken = threading.Condition()
        self.people = {}                # name_key -> person, the oldest first
        self.sessions = Sessions(history)
        self.used = [0] * COLORS        # how many people have each color
        self.last_id = history.last_id
        self.batch = Batch()

    def pending(self) -> Batch:
        """Return the batch to add to; for the first one who does so the bell rings."""
        if self.batch.time is None:
            # One time for all lines of a batch: they leave together, and utc_now() for
            # each takes 1.7 µs, three times as long as to make its line.
            self.batch.time = utc_now()
            # The postman wakes, and waits for the lock a moment. Where threads run on
            # several processors, to ring only when it is free got 100 people who all
            # talk 1.2 times the deliveries; on one, the same as this (measured).
            self.bell()
        return self.batch

    def post(self, message: dict, to=None):
        """Line a message up for everybody, or for the people in `to`."""
        line = encode(message)
        with self.lock:
            self.line_up(line, to, "id" in message)

    def line_up(self, line: bytes, to=None, numbered=False):
        """Put a line in what is pending; under the lock. `numbered`: it has an id.

        All new lines go through here, so that a subclass can send them somewhere else
        as well (lesson 24), if it calls this once for each. What is read again from the
        history or a file does not, nor what those hear who are turned away. Nobody's
        socket is touched, so that the lock is held for millionths of a second, however
        slow anybody reads.
        """
        batch = self.pending()
        place = len(batch.public)
        if to is None:
            batch.public.append(line)
            if numbered:
                batch.numbered.append(place)
        else:
            for person in to:
                batch.private.setdefault(person, []).append((place, line, numbered))

    @contextlib.contextmanager
    def stepped_out(self):
        """In this `with` the lock, which must be held once, is free: for a disk, on
        which nobody else waits."""
        self.lock.release()
        try:
            yield
        finally:
            self.lock.acquire()

    def take(self):
        """Return (all that was pending, who is here). Only the postman calls this."""
        with self.lock:
            batch, self.batch = self.batch, Batch()
            people = list(self.people.values())
        with self.taken:
            self.round += 1
            self.taken.notify_all()
        return batch, people

    def wait_for_turn(self, person, wanted: int):
        """Wait until `wanted` more lines of this person's fit in; without the lock.

        Otherwise who floods fills each batch with thousands of lines, and the others,
        whose one line is in there too, wait until all of it has been handed out: 44 to
        149 ms at p99, and with this about 1 (measured, --rate 0). A look at the batch
        without the lock may be a moment late: that is a round more or less.
        """
        if person.round == self.round and person.said + wanted > TURN_LINES:
            with self.taken:
                while person.round == self.round and self.batch.time is not None:
                    self.taken.wait()   # this lets go of the condition meanwhile
        if person.round != self.round:
            person.round, person.said = self.round, 0
        person.said += wanted

    def enter(self, person, name: str, welcome: dict):
        """Let somebody new in under a clean name; they get `welcome` and what was said.

        Raises WireError `server_full` or `name_taken`.
        """
        with self.lock:
            if len(self.people) >= self.max_people:
                raise WireError("server_full", f"{len(self.people)} people are here, "
                                "and no more fit in. Try again later.")
            self.sessions.check_free(name)
            session, secret = new_session(name)
            # The color that the fewest have, so that people can be told apart.
            session.color = self.used.index(min(self.used))
            welcome.update(session=secret, resumed=False, gap=False)
            self.let_in(person, session, welcome)

    def come_back(self, person, session, name: str, since, welcome: dict,
                  unseen=False):
        """Let somebody in who has a session, with all lines after the id `since`
        (None: with all that is kept).

        They get their own name. If somebody else has it by now, the first hello brings
        WireError `name_taken`, and the next one may have another `name`. `unseen`: the
        others have not seen them leave.
        """
        with self.lock:
            if self.sessions.named(session.name) not in (None, session):
                name = clean_name(name) if person.name_refused else session.name
                person.name_refused = True
                self.sessions.check_free(name)
                session.name = name
            forgotten = self.history.forgotten
            # An id that was never given out would be no place to go on from.
            since = -1 if since is None else max(0, min(since, self.last_id))
            # -1: from the oldest line that is kept when the postman comes to it.
            person.position = since if since >= forgotten else -1
            welcome.update(resumed=True, gap=0 <= since < forgotten)
            self.let_in(person, session, welcome, unseen)

    def let_in(self, person, session, welcome, unseen=False):
        """The common end of both ways in. All in one step, or a line could be missed:
        the others read `joined`, and this person begins right behind it."""
        person.session, person.name = session, session.name
        person.color = session.color
        entry = {"name": session.name, "color": session.color}
        person.entry = encode(entry)[:-1]       # all but its newline
        self.used[session.color] += 1
        self.sessions.add(session, person)
        if not unseen:
            self.post({"type": "joined", **entry, "time": utc_now()})
        batch = self.pending()
        batch.first[person] = len(batch.public)
        batch.sessions[session.number] = session
        # Until the postman has brought them all of the history that they may see.
        person.behind, person.newest = True, self.last_id
        self.people[session.key] = person
        self.list_people({**welcome, **entry, "last_id": self.last_id}, person)
        batch.welcomed[person] = len(batch.private[person])

    def leave(self, person, reason: str) -> bool:
        """Take somebody out and tell the others; False when they are out already.

        A kick and a lost connection can come in the same moment, from two threads;
        the others must read one `left` and not two.
        """
        with self.lock:
            session = person.session
            if session is None or session.person is not person:
                return False
            del self.people[session.key]
            self.used[session.color] -= 1
            self.sessions.send_away(session, reason in BREAKS)
            batch = self.pending()
            batch.sessions[session.number] = session
            batch.last[person], person.until = len(batch.public), self.last_id
            if reason not in UNSEEN:
                self.post({"type": "left", "name": person.name, "reason": reason,
                           "time": utc_now()})
            return True

    def part(self, person, goodbye: dict):
        """Send a goodbye, behind all that they may still read."""
        with self.lock:
            # Through line_up(), as every new line; then taken out again, as the last.
            self.post(goodbye, [person])
            self.batch.parting[person] = self.batch.private[person].pop()[1]

    def find(self, name: str):
        """Return the Session of this name, in whatever way it is written, or None."""
        with self.lock:
            return self.sessions.named(name)

    def say(self, person, text: str, to=None, ref=None):
        """Post what `person` says, to everybody or to the session `to` alone."""
        self.post_from(person, "chat", {"text": text}, to, ref)

    def post_from(self, person, kind: str, fields: dict, to=None, ref=None):
        """Post a line with an id: a `chat`, or a `file` that has arrived.

        A `ref` that was there already is somebody asking again: their connection broke
        before the receipt came. They get that receipt, and nobody reads it twice.
        """
        with self.lock:
            session, batch = person.session, self.pending()
            known = session.receipts.get(ref)
            number = known or self.last_id + 1
            # A private line is made by encode(): few are, and a name in `to` more or
            # less would make two templates out of one.
            if kind == "chat" and to is None:
                line = chat_line(number, person, fields["text"], batch.time, ref)
            else:
                message = {"type": kind, "id": number, "from": person.name,
                           "color": person.color, **fields, "time": batch.time}
                if ref is not None:
                    message["ref"] = ref
                if to is not None:
                    message["to"] = to.name
                line = encode(message)
            if known:
                kept = number > self.history.forgotten
                batch.wishes.append((person, Receipt(self.history, number,
                                                     b"" if kept else line)))
                return
            self.last_id = number
            # A set: what one says to oneself comes once. Who is away reads it later,
            # from the history.
            self.line_up(line, None if to is None else {
                other.person for other in (session, to) if other.person}, numbered=True)
            batch.rows.append((number, session.number,
                               None if to is None else to.number, ref, line))
            if kind == "file":
                batch.files.append((fields["file"], number))
            if ref is not None:
                session.remember(ref, number)

    def list_people(self, message: dict, person):
        """Post a message to `person` with the fields `people` (at most 500 of those who
        are here, they themselves first) and `count`."""
        with self.lock:
            # Without the lock somebody may enter meanwhile, and the loop ends with
            # "dictionary changed size during iteration" (lesson 07 makes it happen).
            others = [other.entry for other in self.people.values()
                      if other is not person]
            # This is the one long list, so each person's entry is encoded once, when
            # they come: 1,000 people come in 1.3 times as fast. And json would make the
            # list piece by piece, and malloc() keep these pieces for the thread which
            # freed them: a room of 200 where people came and left grew by 9 % (Python
            # 3.13), and with this by 2.4 (measured).
            people = b",".join([person.entry, *others][:PEOPLE_LISTED])
            self.line_up(b'%s,"people":[%s],"count":%d}\n' % (
                encode(message)[:-2], people, len(self.people)), [person])
# endregion


# region 7. History  (lesson 17)
class HistoryError(Exception):
    """The history cannot be had. Its text is one sentence for the operator."""


class History:
    """What was said, and who may come back: in memory, gone when the server ends.

    The lines belong to the postman alone, who writes them just before they are sent and
    reads them for those who are behind. So there is no lock. Sessions are looked up by
    the reading threads as well.
    """

    def __init__(self, recent: int):
        self.recent = recent            # how many lines somebody new gets to see
        # Who came with an id of another history knows by this that ids began anew.
        self.id = secrets.token_hex(8)
        self.last_id = 0                # the newest line that was written
        self.forgotten = 0              # lines up to this id are no longer kept
        # All in one dict would be 1.7 MB for 5,000 short lines, and so it is 0.9.
        self.lines = collections.deque()    # all that are kept, in the order of the ids
        self.private, self.bytes = {}, 0    # id -> (sender, receiver) of private ones
        self.sessions = {}              # number -> Session, who left last at the end
        self.interrupted = []           # sessions that the last server's end cut off

    def write(self, rows, sessions, files=()):
        """Keep these lines and sessions; when this returns, they may be sent.
        `files`: which of the lines are about a file, (file, line id)."""
        for number, sender, receiver, _, line in rows:
            self.lines.append(line)
            if receiver is not None:
                self.private[number] = sender, receiver
            self.bytes += len(line)
            self.last_id = number
        while len(self.lines) > MEMORY_LINES or self.bytes > MEMORY_BYTES:
            self.forgotten += 1
            self.bytes -= len(self.lines.popleft())
            self.private.pop(self.forgotten, None)
        for session in sessions:
            self.sessions.pop(session.number, None)     # so that it comes to the end
            self.sessions[session.number] = session
        while len(self.sessions) > MEMORY_SESSIONS:
            del self.sessions[next(iter(self.sessions))]

    def after(self, position: int, last: int, reader: int):
        """Return (lines in one piece, the id that they go up to), for one session.

        Only what is for everybody, from it, or to it. Not by name: somebody else may
        have had that name before. And nothing behind the id `last`.
        """
        piece = bytearray()
        rows, end = self.rows_after(position, last, reader)
        for number, line in rows:
            piece += line
            if len(piece) > PIECE_BYTES:
                end = number
                break
        return bytes(piece), end

    def rows_after(self, position, last, reader):
        """Return (at most PIECE_LINES pairs (id, line), the id that they go up to)."""
        end = max(position, min(last, position + PIECE_LINES))
        return [(number, self.line(number)) for number in range(position + 1, end + 1)
                if reader in self.private.get(number, (reader,))], end

    def recent_start(self, newest: int) -> int:
        """Return the id behind which somebody new begins, who came at `newest`."""
        wanted = self.recent
        while wanted and newest > self.forgotten:
            wanted -= newest not in self.private        # True counts as 1
            newest -= 1
        return newest

    def line(self, number: int):
        """Return one line by its id, or None if it is no longer kept."""
        place = number - self.forgotten - 1
        return self.lines[place] if 0 <= place < len(self.lines) else None

    def find_session(self, number: int):
        """Return the session of this number, or None."""
        return self.sessions.get(number)

    def receipts(self, session):
        """Return the labels of a session that does not have them at hand."""
        return collections.OrderedDict()

    def files(self) -> list:
        """Return [(file, line id, sender, receiver, line), …]: the files of old."""
        return []

    def close(self):
        """The end; nothing is written any more."""
# endregion


# region 8. History in a file  (lesson 17)
# SQLite keeps a place for these in each file: so no database of another program is
# taken for a history, and no history of a later version for one of ours.
HISTORY_FILE, HISTORY_VERSION = b"ChCa", 1
# A session's `digest` proves it. A line has the numbers of the sessions that it went
# from and to (NULL: to everybody), and is kept as it travels: what comes out of the
# history is byte for byte what the others got.
TABLES = (
    "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT)",
    "CREATE TABLE sessions (number INTEGER PRIMARY KEY, digest BLOB, name TEXT,"
    " color INTEGER, left_at REAL, kept INTEGER)",
    "CREATE TABLE lines (id INTEGER PRIMARY KEY, sender INTEGER, receiver INTEGER,"
    " ref TEXT, line BLOB)",
    # An index finds the newest public lines, or one session's, without reading all.
    "CREATE INDEX public ON lines (id) WHERE receiver IS NULL",
    "CREATE INDEX receipts ON lines (sender, id) WHERE ref IS NOT NULL",
    "CREATE INDEX sent ON lines (sender, id) WHERE receiver IS NOT NULL",
    "CREATE INDEX received ON lines (receiver, id) WHERE receiver IS NOT NULL",
)
# Which line speaks of which file. Histories from before there were files get it, too.
FILES_TABLE = "CREATE TABLE IF NOT EXISTS files (file TEXT PRIMARY KEY, id INTEGER)"
# What one session may see, each kind by its own index. With one condition for all three
# SQLite reads every line: 300,000 private ones of others took it 0.3 s, and this 1 ms.
SEEN = " UNION ALL ".join(
    f"SELECT id, line FROM lines WHERE {which} AND id > ?1 AND id <= ?2" for which in (
        "receiver IS NULL", "receiver = ?3", "sender = ?3 AND receiver <> ?3")
    ) + " ORDER BY id LIMIT ?4"


class SQLiteHistory(History):
    """The same in a file that survives the server, and `kill -9` too.

    SQLite is a database in one file, and comes with Python. A transaction (BEGIN …
    COMMIT) is in the file as a whole or not at all, wherever the process is killed.
    """

    def __init__(self, recent: int, path: str):
        """Raises HistoryError; a file that is not ours is left as it is."""
        super().__init__(recent)
        self.path = path
        # One thread at a time: the postman writes, reading threads look up sessions.
        self.lock = threading.Lock()
        if sqlite3 is None:
            raise HistoryError("this Python has no SQLite, which --history needs")
        with self.sentences():
            # 0o600: readable by the operator alone. Private messages stand in it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self.check_owner()
            # isolation_level=None: we say BEGIN ourselves, Python does not guess.
            self.db = sqlite3.connect(os.path.abspath(path), timeout=1,
                                      isolation_level=None, check_same_thread=False)
            self.open()

    @contextlib.contextmanager
    def sentences(self):
        """Turn what SQLite and the system complain of into a HistoryError."""
        try:
            yield
        except (sqlite3.Error, OSError) as problem:
            why = getattr(problem, "strerror", None) or str(problem)
            why = "another server uses it" if "locked" in why else why
            text = (f"the history in {self.path} cannot be used: {why}. What stands "
                    "in it stays; --history names another file")
            raise HistoryError(text) from None

    def check_owner(self):
        """Raise an error if this is a file of something else.

        SQLite itself must not be asked: it tidies up behind the program that had the
        file before, and that is a change too. But its first bytes are documented.
        """
        if not os.path.isfile(self.path):
            raise sqlite3.Error("it is not a file on a disk")
        with open(self.path, "rb") as file:
            start = file.read(72)
        if start and (start[:15] != b"SQLite format 3" or start[68:] != HISTORY_FILE):
            raise sqlite3.Error("it belongs to another program")
        if int.from_bytes(start[60:64], "big") > HISTORY_VERSION:
            raise sqlite3.Error("a newer ChattyCat has written it")

    def open(self):
        """Make the tables of a new file, or read where an old one goes on."""
        # No second server: both would give out the same ids.
        self.db.execute("PRAGMA locking_mode=EXCLUSIVE")
        with self.transaction():
            if not self.value("SELECT count(*) FROM sqlite_master"):
                self.db.execute(f"PRAGMA application_id=0x{HISTORY_FILE.hex()}")
                self.db.execute(f"PRAGMA user_version={HISTORY_VERSION}")
                for sql in TABLES:
                    self.db.execute(sql)
                self.db.execute("INSERT INTO about VALUES ('history', ?)", [self.id])
            self.db.execute(FILES_TABLE)
            self.id = self.value("SELECT value FROM about WHERE key = 'history'")
            self.last_id = self.value("SELECT max(id) FROM lines") or 0
            self.end_sessions(time.time())
        # WAL: a commit is appended to a second file, FILE-wal. NORMAL: it does not wait
        # for the disk, so it survives the end of the process, maybe not a power cut.
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")

    def end_sessions(self, now):
        """Forget the old ones. Who was in at the end of the last server, or had lost
        the connection in its last minute, has that minute from now on."""
        self.db.execute("DELETE FROM sessions WHERE left_at < ?",
                        [now - SESSION_SECONDS])
        self.db.execute("UPDATE sessions SET left_at = ?1, kept = 1 WHERE left_at IS "
                        "NULL OR kept AND left_at > ?2", [now, now - NAME_SECONDS])
        self.interrupted = [Session(*row) for row in self.db.execute(
            "SELECT * FROM sessions WHERE left_at = ?", [now])]

    def value(self, sql):
        """Return the one value that is the answer."""
        for row in self.db.execute(sql):
            return row[0]
        raise sqlite3.Error("a part of it is missing")

    @contextlib.contextmanager
    def transaction(self):
        """All that happens in this `with` is committed together, or not at all."""
        # `with self.db` commits at its end, and takes all back after an exception.
        with self.lock, self.sentences(), self.db:
            self.db.execute("BEGIN IMMEDIATE")
            yield

    def rows(self, sql, *values) -> list:
        """Ask the database; return all rows of the answer."""
        with self.lock, self.sentences():
            return self.db.execute(sql, values).fetchall()

    def write(self, rows, sessions, files=()):
        """In one transaction: 0.5 ms for 100 lines, 0.025 for one alone (measured)."""
        if not rows and not sessions:
            return
        people = [(session.number, session.digest, session.name, session.color,
                   session.left_at, session.kept) for session in sessions]
        with self.transaction():
            self.db.executemany("INSERT INTO lines VALUES (?,?,?,?,?)", rows)
            self.db.executemany("REPLACE INTO sessions VALUES (?,?,?,?,?,?)", people)
            self.db.executemany("INSERT INTO files VALUES (?,?)", files)
        self.last_id = rows[-1][0] if rows else self.last_id

    def rows_after(self, position, last, reader):
        rows = self.rows(SEEN, position, last, reader, PIECE_LINES)
        return rows, rows[-1][0] if len(rows) == PIECE_LINES else last

    def recent_start(self, newest):
        found = self.rows("SELECT id FROM lines WHERE receiver IS NULL AND id <= ? "
                          "ORDER BY id DESC LIMIT ?", newest, self.recent)
        return found[-1][0] - 1 if found else newest

    def line(self, number):
        found = self.rows("SELECT line FROM lines WHERE id = ?", number)
        return found[0][0] if found else None

    def find_session(self, number):
        found = self.rows("SELECT * FROM sessions WHERE number = ?", number)
        return Session(*found[0]) if found else None

    def receipts(self, session):
        newest = self.rows("SELECT ref, id FROM lines WHERE sender = ? AND ref IS NOT "
                           "NULL ORDER BY id DESC LIMIT ?", session.number, RECEIPTS)
        return collections.OrderedDict(reversed(newest))

    def files(self):
        return self.rows("SELECT file, id, sender, receiver, line FROM files "
                         "JOIN lines USING (id)")

    def close(self):
        with self.lock:
            self.db.close()
# endregion


# region 9. One file  (lesson 18)
# A file travels as many lines with a piece of it in each, and only as fast as who gets
# it asks for more. So the lines of the chat always find a gap between two pieces. Other
# programs open a second connection for a file. That one has to get through firewalls,
# to prove whose it is, and to be encrypted, all once more.
#
# What others send us lies on our disk, and they decide how much of it, how fast and by
# which names. So each of these is bounded here, and none of it is taken at its word: a
# size that was promised, a hash, a name.
CHUNK = 32_768              # bytes of a file in one line, before base64
WISH = 8                    # so many pieces a `download` brings…
READY = 8                   # …and after so many who uploads is told to go on
# They turn the text round: with U+202E in front of it "gnp.exe" reads as “exe.png”.
BIDI_OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def file_name(name: str) -> str:
    """Return a file's name as all will see it, or raise WireError `bad_file`.

    On our own disk we never use it. It is for those who save the file: “../../x” would
    leave their folder, and “.bashrc” would become a part of their system. Our client
    looks at it once more, since its server may be another one than this.
    """
    # Both kinds of slash: what is a name on one system is a path on the other.
    name = re.split(r"[/\\]", name)[-1].lstrip(". ").rstrip(". ")
    if not 1 <= len(name) <= 255 or not is_unicode(name) or any(
            unicodedata.category(character) == "Cc" or character in BIDI_OVERRIDES
            for character in name):
        raise WireError("bad_file", "A file's name has 1 to 255 characters, and none "
                        "of them is a control character.")
    return name


def from_base64(text: str) -> bytes:
    """Return the bytes of a piece, or raise WireError `bad_file`.

    JSON knows text alone, and base64 (RFC 4648) writes any three bytes as four letters.
    So a third more travels. To send the bytes as they are, between the lines, would
    save that, and nobody could read along any more.
    """
    try:
        data = binascii.a2b_base64(text)
    except ValueError:
        data = b""
    # It passes over what is no base64. Then fewer bytes come out than should have.
    # (The check of its elder brother, b64decode(), takes twice as long on 3.9.)
    if not 0 < len(data) <= CHUNK or len(text) != (len(data) + 2) // 3 * 4:
        raise WireError("bad_file", f"A piece has 1 to {CHUNK:,} bytes, as base64.")
    return data


@dataclasses.dataclass(eq=False)
class Upload:
    """A file of which not all has arrived.

    file        its id, by which all speak of it from here on
    path        where we have its beginning
    size        bytes, as it was offered
    sha256      the hash that it must have, 64 digits in lower case
    person      the connection on which it comes…
    session     …and the number of the session, whose it is on the next one too
    ref         the sender's own label for it
    to          the session that it is for; None: everybody
    arrived     bytes that are here, without a gap
    pieces      in how many they came
    touched     when the last one came, by time.monotonic()
    hash        of what is here, so that in the end nothing has to be read once more
    """
    file: str
    path: str
    size: int
    sha256: str
    person: object
    session: int
    ref: str = ""
    name: str = ""
    to: Session = None
    arrived: int = 0
    pieces: int = 0
    touched: float = 0.0
    # hashlib takes a file in pieces as well: update() with each, then one hexdigest().
    hash: object = dataclasses.field(default_factory=hashlib.sha256)


@dataclasses.dataclass(eq=False)
class Kept:
    """A file that is here as a whole, and was announced.

    id          of the line that has announced it
    sender      the number of the session that has sent it
    receiver    of the one that it is for; None: it is for everybody
    author      the sender's name, which somebody else may have by now
    """
    file: str
    path: str
    id: int
    sender: int
    receiver: int
    name: str
    author: str
    size: int

    def may_see(self, session: int) -> bool:
        """Whether it is for this session. (A name would prove nothing: whoever comes
        when its owner has left can have it.)"""
        return self.receiver is None or session in (self.sender, self.receiver)

    def piece(self, offset: int) -> bytes:
        """Return at most CHUNK bytes from there on. Raises OSError.

        Less at the end of the file, and nothing behind it.
        """
        # Opened anew for each piece: it takes 8 µs (measured), and who asks for a
        # hundred files and then for nothing more holds no descriptor.
        with open(self.path, "rb") as disk:
            disk.seek(offset)
            return disk.read(CHUNK)


class Pieces:
    """A wish (see Receipt): some pieces of a file.

    A `download` brings 8 of them and not the whole file. So what is on its way to
    somebody is never more than they can take in soon, and needs no memory of ours: the
    next piece is read when the one before has left.
    """

    def __init__(self, kept: Kept, offset: int):
        self.kept, self.file, self.offset = kept, kept.file, offset
        self.left, self.done = WISH, False

    def next_piece(self) -> bytes:
        """Return the next line for who wants it: a `chunk`, or an `error`."""
        if self.done:                   # it was cancelled
            return b""
        try:
            data = self.kept.piece(self.offset)
            if not data and self.offset < self.kept.size:
                raise OSError("it has become shorter")
        except OSError:                 # somebody has tidied up in the folder
            self.done = True
            return encode({"type": "error", "code": "no_such_file", "text": "That file "
                           "is not kept any more.", "file": self.file})
        # By hand, as only chat_line() besides: 49 µs, and by encode() 125. While ten
        # download at once, half of what others say arrives within 0.7 ms, and not 2.3
        # (measured). In our ids and in base64 nothing has to be escaped.
        line = b'{"type":"chunk","file":"%s","offset":%d,"data":"%s"}\n' % (
            self.file.encode(), self.offset, binascii.b2a_base64(data, newline=False))
        self.offset += len(data)
        self.left -= 1
        # Of an empty file one empty piece comes: who asks gets an answer.
        self.done = self.done or not self.left or self.offset >= self.kept.size
        return line


class FilesError(Exception):
    """There is no place for files. Its text is one sentence for the operator.

    Found out at the start: better no server than one that loses what is sent to it.
    """


def take_away(path):
    """Remove a file; never mind if somebody else has done so, or if it cannot be done:
    one file too many harms nobody."""
    with contextlib.suppress(OSError):
        os.remove(path)


def disk_trouble(problem: OSError) -> WireError:
    """Return what to tell somebody whose file our disk does not take: most of the time
    it is full. What they have sent before stays, so that they can go on."""
    # strerror() and not the problem's own text, in which names of folders can stand.
    why = os.strerror(problem.errno or errno.EIO)
    return WireError("files_full", f"The server's disk does not take it ({why}). Try "
                     "again later.")
# endregion


# region 10. Files  (lesson 18)
HALF_SECONDS = 3600         # what has broken off is kept so long for its session
HALF_FILES = 16             # but not more than these of one session…
ALL_HALF_FILES = 1_000      # …and of all
FILES_KEPT = 10_000         # or empty ones, which need no bytes, could fill our memory


class Files:
    """What people have sent: on the disk, under names that we have made up.

    `kept` are the whole ones. Of `uploads` we have the beginning, in a file NAME.part:
    if its connection breaks, the next one of the same session goes on where it stopped.

    The methods are called without the room's lock: while the disk works, the chat goes
    on. So this has a lock of its own. (Only `kept` is used without it. Python changes a
    dict in one step, and a Kept is never changed.)
    """

    def __init__(self, options, history):
        """Raises FilesError, HistoryError. `history` knows the files of old."""
        self.limit = options.max_file * 2**20       # bytes; 0: nobody can send any
        self.all = options.all_files * 2**20
        self.folder, self.temporary = options.files, None
        # Their names begin so: in a folder that two servers use each knows its own.
        self.prefix = history.id
        # An RLock, for drop(), which is called with the lock and without.
        self.lock = threading.RLock()
        self.uploads = {}               # file -> Upload, the quietest first
        self.kept = {}                  # file -> Kept
        self.bytes = 0                  # of all of these
        try:
            if self.folder is not None:
                os.makedirs(self.folder, mode=0o700, exist_ok=True)
                # Better now than when the first one comes: can it be written into?
                with tempfile.TemporaryFile(dir=self.folder):
                    pass
                self.take_stock({row[0]: row for row in history.files()})
        except OSError as problem:
            raise FilesError(f"files cannot be kept in {self.folder} "
                             f"({problem.strerror}); --files wants a folder that can "
                             "be written into") from None

    def take_stock(self, known):
        """Find what an earlier server has kept here. `known`: file -> row of history.

        What is of this history, but not in it, was on its way when that server was
        killed, and nobody has heard of it. What is of others is left alone. But it
        counts: --all-files is how much of the disk we may have.
        """
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            # Somebody may keep other things there: they are not touched, nor counted.
            if not re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]{16}(\.part)?", name):
                continue
            if name.startswith(self.prefix) and name not in known:
                os.remove(path)
                continue
            if name not in known:
                self.bytes += os.path.getsize(path)
            else:
                _, number, sender, receiver, line = known[name]
                said = decode(line)
                self.bytes += said["size"]
                self.kept[name] = Kept(name, path, number, sender, receiver,
                                       said["name"], said["from"], said["size"])

    def begin(self, person, size: int, sha256: str, **more) -> Upload:
        """Return a new upload, or the one that has broken off. Raises WireError.

        Known again by its hash, and not by its name or ref: only if it has the same
        bytes can it go on in the middle. `more`: its ref, name and to, which may be
        others than the first time.
        """
        with self.lock:
            session = person.session.number
            mine = [upload for upload in self.uploads.values()
                    if upload.session == session]
            for upload in mine:
                # It came on another connection; or they ask how far it has come.
                again = upload.person is not person or upload.ref == more["ref"]
                if again and (upload.size, upload.sha256) == (size, sha256):
                    break
            else:
                self.make_room(person, size, mine)
                upload = self.create(person, size, sha256, session)
            vars(upload).update(more, person=person)
            self.touch(upload)
            return upload

    def make_room(self, person, size, mine):
        """Raise WireError `files_full` if one more is too much; forget half ones.

        What counts are the bytes that are here. To reserve those that were promised
        would let anybody fill the server with promises. And who is not here any more
        makes room for who is: the quietest first.
        """
        given_up = [upload for upload in mine if upload.person is not person]
        if len(mine) >= HALF_FILES and not given_up:
            raise WireError("files_full", f"{HALF_FILES} files of yours are on their "
                            "way; send this one when one of them is here.")
        if len(mine) >= HALF_FILES:
            self.drop(given_up[0])
        left = [upload for upload in self.uploads.values()
                if upload.person.session.person is not upload.person]
        # How much too much it would be, of bytes and of uploads; negative: there is
        # room.
        data = self.bytes + size - self.all
        count = len(self.uploads) + 1 - ALL_HALF_FILES
        if (len(self.kept) >= FILES_KEPT or count > len(left)
                or data > sum(upload.arrived for upload in left)):
            raise WireError("files_full", "This server can keep no more files. Ask "
                            "the operator to remove some.")
        for upload in left:
            if data > 0 or count > 0:
                data, count = data - upload.arrived, count - 1
                self.drop(upload)

    def create(self, person, size, sha256, session) -> Upload:
        """Make the file for a new upload. Raises WireError.

        Its name is random: nothing that a stranger has typed gets near our file system,
        and who guesses ids to download has 2^64 to try.
        """
        try:
            if self.folder is None:
                # Made only now, since most servers never need it. For this user alone.
                self.folder = self.temporary = tempfile.mkdtemp(
                    prefix="chattycat-files-")
            file = f"{self.prefix}-{secrets.token_hex(8)}"
            path = os.path.join(self.folder, file + ".part")
            # O_EXCL: it must not be there. 0o600: private ones are among them.
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as problem:
            raise disk_trouble(problem) from None
        return Upload(file, path, size, sha256, person, session)

    def touch(self, upload):
        """It is used: put it behind all that have been quiet for longer."""
        upload.touched = time.monotonic()
        self.uploads[upload.file] = self.uploads.pop(upload.file, upload)

    def write(self, person, file, offset: int, data: bytes) -> Upload:
        """Add a piece to an upload. Raises WireError, and then nothing has changed.

        In one order only, from the first byte to the last. TCP keeps it anyway, and
        whoever mixes it up has a mistake in their program. So there are no gaps to keep
        book of, and the hash can be computed on the way.
        """
        with self.lock:
            upload = self.find_upload(person, file)
            if upload.person is not person:
                raise WireError("no_such_file", "It broke off; offer it again first.")
            if offset != upload.arrived:
                raise WireError("bad_file", f"The piece from byte {upload.arrived} on "
                                f"is due, and not the one from {offset} on.")
            if offset + len(data) > upload.size:
                raise WireError("bad_file", "That would be more than the "
                                f"{upload.size} bytes that the file was to have.")
            if self.bytes + len(data) > self.all:
                raise WireError("files_full", "This server can keep no more files.")
            try:
                # seek(), and not to append: what a full disk has taken of a piece is
                # written over when it comes again.
                with open(upload.path, "r+b") as disk:
                    disk.seek(offset)
                    disk.write(data)
            except OSError as problem:
                raise disk_trouble(problem) from None
            upload.hash.update(data)
            upload.arrived += len(data)
            upload.pieces += 1
            self.bytes += len(data)
            self.touch(upload)
            return upload

    def find_upload(self, person, file) -> Upload:
        """Return somebody's own upload, or raise WireError `no_such_file`."""
        upload = self.uploads.get(file)
        if upload is None or upload.session != person.session.number:
            raise WireError("no_such_file", "No such file is on its way from you.")
        return upload

    def complete(self, upload):
        """All has arrived: no upload any more, but a whole file. Raises WireError.

        If we are killed behind this, and before its line is in the history, the next
        server finds a file that nobody has heard of, and removes it: see take_stock().
        """
        with self.lock:
            if upload.hash.hexdigest() != upload.sha256:
                self.drop(upload)
                raise WireError("bad_file", "What has arrived has another SHA-256 than "
                                "what was offered; has the file changed meanwhile? "
                                "Send it again.")
            try:
                # One step of the file system: a name without “.part” is whole.
                os.replace(upload.path, upload.path[:-len(".part")])
            except OSError as problem:
                raise disk_trouble(problem) from None
            upload.path = upload.path[:-len(".part")]
            self.uploads.pop(upload.file, None)

    def find(self, file, session: int) -> Kept:
        """Return a file that this session may see, or raise WireError `no_such_file`:
        the same for what is not theirs, or one could find out that it is there."""
        kept = self.kept.get(file)
        if kept is None or not kept.may_see(session):
            raise WireError("no_such_file", "There is no such file, or not any more.")
        return kept

    def drop(self, upload):
        """Forget an upload, and what has come of it."""
        with self.lock:
            self.uploads.pop(upload.file, None)
            self.bytes -= upload.arrived
            upload.arrived = 0
            take_away(upload.path)

    def drop_mine(self, person, file):
        """The same, for its owner. Raises WireError `no_such_file`."""
        with self.lock:
            self.drop(self.find_upload(person, file))

    def drop_old(self):
        """Let go of what has broken off an hour ago; the first one is the quietest."""
        with self.lock:
            end = time.monotonic() - HALF_SECONDS
            while self.uploads:
                quietest = next(iter(self.uploads.values()))
                if quietest.touched > end:
                    break
                self.drop(quietest)

    def remove(self, kept):
        """Forget a whole file, for the operator."""
        with self.lock:
            if self.kept.pop(kept.file, None):
                self.bytes -= kept.size
                take_away(kept.path)

    def close(self):
        """The end of the server: nothing half stays, and nothing in our own folder.

        (The next server would know neither whose the half ones are, nor their hash.)
        """
        with self.lock:
            for upload in list(self.uploads.values()):
                self.drop(upload)
            if self.temporary:
                shutil.rmtree(self.temporary, ignore_errors=True)
# endregion


# region 11. The door  (lesson 19)
# TLS hides what travels, and a certificate proves that one talks to the owner of its
# key: the public half is in it, and only who has the private half can finish the
# handshake. Who that is nobody can see from it. So it has a fingerprint: the operator
# reads it to the others, or they keep it from the first time on (as ssh does).
WRONG_PASSWORDS = 3         # end a connection, and slow its address from then on…
SLOWED_SECONDS = 60         # …by 1, 2, 4 … seconds, and at most by this

# What our certificate says. Our clients look at its fingerprint alone; the names are
# for programs that compare them with the address.
CERTIFICATE = """[req]
distinguished_name = name
x509_extensions = more
[name]
[more]
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
"""

# What OpenSSL says when the first bytes are no TLS.
NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST")


class CertificateError(Exception):
    """There can be no TLS. Its text is one sentence for the operator.

    Then there is no server: who asks for --tls must not get one that talks in clear.
    """


def tls_context(options):
    """Return (the SSLContext for all connections, the certificate's fingerprint).

    Raises CertificateError.
    """
    if ssl is None:
        raise CertificateError("this Python has no OpenSSL, which --tls needs")
    path = options.cert or make_certificate()
    # A context holds what all connections have in common: versions, ciphers, our
    # certificate. Python's own choice of ciphers is good, so we make none.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Older ones are broken (RFC 8996).
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Nobody may ask for one handshake after the other on the same connection. And no
    # tickets, by which one could come back faster: our client makes no use of them.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0

    def ask():
        # OpenSSL itself would ask on the terminal, and no signal could end that.
        raise ValueError("its key has a password; there must be none on it")

    try:
        context.load_cert_chain(path, options.key, password=ask)
        with open(path, encoding="ascii", errors="replace") as file:
            found = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----",
                              file.read(), re.DOTALL)
        return context, fingerprint(ssl.PEM_cert_to_DER_cert(found[0]))
    except (OSError, ValueError, TypeError) as problem:
        why = getattr(problem, "reason", None) or problem
        raise CertificateError(
            f"the certificate in {path} cannot be used ({why}); --cert wants a "
            "certificate and its key, as PEM text, in one file or with --key") from None


def make_certificate() -> str:
    """Return the file with this user's certificate and key; make it the first time.

    Once and for all servers of this user: a new one would be a new fingerprint, and
    all who know the old one would have to ask. Both are in one file, or two servers
    that start in the same moment could mix theirs.
    """
    path = os.path.join(user_folder(), "server_certificate.pem")
    if os.path.exists(path):
        return path
    try:
        os.makedirs(user_folder(), mode=0o700, exist_ok=True)
        # The folder of a TemporaryDirectory nobody else can enter.
        with tempfile.TemporaryDirectory(dir=user_folder()) as folder:
            config, new = (os.path.join(folder, name) for name in ("config", "new"))
            with open(config, "w", encoding="ascii") as file:
                file.write(CERTIFICATE)
            # EC P-256: as safe as RSA with 3,072 bits, and with keys of 32 bytes.
            # -nodes: no password on the key, or somebody had to type it at each start.
            subprocess.run(
                [find_openssl(), "req", "-config", config, "-x509", "-newkey", "ec",
                 "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256",
                 "-days", "3650", "-subj", "/CN=ChattyCat", "-keyout", new,
                 "-out", new], check=True, capture_output=True, timeout=30,
                stdin=subprocess.DEVNULL)
            os.chmod(new, 0o600)        # the key is for this user's eyes alone
            put_first(new, path)
    except (OSError, subprocess.SubprocessError) as problem:
        why = str(problem)
        if isinstance(problem, subprocess.TimeoutExpired):
            why = "openssl gave no answer within 30 s"
        elif isinstance(problem, subprocess.CalledProcessError):
            why = problem.stderr.decode(errors="replace").strip().split("\n")[-1]
        raise CertificateError(f"no certificate could be made ({why}); name one of "
                               "your own with --cert and --key") from None
    return path


def put_first(new, path):
    """Rename a file, but not over one that is there.

    Of two servers that start in the same moment the first one wins, and both show its
    fingerprint. A rename would put one over the other; a link is never put over a file.
    """
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    except OSError:                     # a file system that has no links
        os.replace(new, path)


def find_openssl() -> str:
    """Return where the command openssl is; raises CertificateError if nowhere.

    Python's ssl can use certificates, and make none.
    """
    places = [shutil.which("openssl")]
    git = shutil.which("git")
    if os.name == "nt" and git:
        # Git for Windows has one, in a folder that is not searched for commands. Its
        # own git.exe stands in …\\Git\\cmd.
        places += [os.path.join(os.path.dirname(os.path.dirname(git)), part, "bin",
                                "openssl.exe") for part in ("mingw64", "usr")]
    for place in places:
        if place and os.path.exists(place):
            return place
    raise CertificateError("the command openssl, which makes a certificate, is not "
                           "here. Type: sudo apt install openssl (Windows: install Git "
                           "from git-scm.com), or name your own with --cert and --key")


def fingerprint(certificate: bytes) -> str:
    """Return the SHA-256 hash of a certificate (DER) in groups that one can read to
    somebody: 3F2A-91C0-… The client has this too."""
    digits = hashlib.sha256(certificate).hexdigest().upper()
    return "-".join(digits[at:at + 4] for at in range(0, 64, 4))


def read_password(wanted: bool) -> str:
    """Return the password from the environment, or ask for it if it is `wanted`.

    Never from the command line: that stands in the list of processes, for all users of
    this computer. Raises ValueError with a sentence.
    """
    password = os.environ.get("CHATTYCAT_PASSWORD", "")
    if wanted and not password:
        # getpass() reads without showing what is typed. Where it cannot hide it, it
        # would warn and go on; here it is an error like all others: nobody to ask.
        with contextlib.suppress(Exception, KeyboardInterrupt):
            with warnings.catch_warnings():
                warnings.simplefilter("error", getpass.GetPassWarning)
                password = getpass.getpass("The password of this server: ")
    if wanted and not password:
        raise ValueError("--password wants one, typed in or in CHATTYCAT_PASSWORD")
    return password


class Handshakes(TLS):
    """The filter of a server: of all its connections one shakes hands at a time.

    That takes a processor for 1 ms. While 200 shook hands at once, those who talked
    waited up to 38 ms longer (p99), and one by one 1.5 ms; it takes no longer for all.
    It need not be the processor of those who talk (see stay_on_one_processor): there,
    one by one too, they waited 50 to 80 ms longer.
    """
    turn = threading.Lock()             # of the class, and so of all of them
    processors = None                   # on which they may run; None: wherever we are

    def decrypt(self, data) -> bytes:
        if self.ready:
            return super().decrypt(data)
        with self.turn, on_processors(self.processors):
            return super().decrypt(data)


class Door:
    """Lets in who knows the password; slows addresses that try out too many.

    A program can try thousands of words a second, and people choose passwords out of a
    few thousand. So from the third wrong one on an address waits 1, 2, 4 … 60 s. Many
    connections at once do not help: of those that have not come in, only the newest
    STRANGERS may stay, and each waits that minute: so 64 words a minute can be tried.

    Used under the room's lock, but for until().
    """

    def __init__(self, password: str):
        """`password`: "" for a door that stands open."""
        self.digest = digest(password) if password else None
        # Network -> (wrong ones, until when it waits, by time.monotonic()).
        self.wrong = collections.OrderedDict()

    def check(self, person, password):
        """Raise WireError `bad_password` unless it is right; None: not given."""
        if self.digest is None:
            return
        if password is None:
            raise WireError("bad_password", "This server wants a password; who runs it "
                            "can tell you.")
        network = network_of(person.ip)
        # compare_digest() takes as long wherever the first difference is; with == the
        # time would tell how much of it was right. But longer texts take it longer; so
        # hashes are compared, which all have 32 bytes.
        if hmac.compare_digest(digest(password), self.digest):
            self.wrong.pop(network, None)
            return
        person.wrong_passwords += 1
        # Taken out and put in again, it comes to the end: so the one that popitem()
        # throws away is the one that has been quiet for longest.
        wrong = self.wrong.pop(network, (0, 0))[0] + 1
        over = min(wrong - WRONG_PASSWORDS, 10)
        pause = min(2 ** over, SLOWED_SECONDS) if over >= 0 else 0
        self.wrong[network] = wrong, time.monotonic() + pause
        if len(self.wrong) > AWAY_LIMIT:
            self.wrong.popitem(last=False)
        raise WireError("bad_password", "That is not the password.")

    def until(self, person) -> float:
        """Return until when this person's next try has to wait.

        They wait outside of the lock, in their own reading thread, which costs the
        others nothing: see Readers.wait_at_the_door(). And they wait before their
        try is looked at. An answer that comes late only slows who waits for it, and
        who guesses would try the next one on another connection meanwhile.
        """
        # Only where there is a need: the calls in the module ipaddress are nested deep,
        # and each thread keeps 4 KiB more of memory for its stack (measured).
        return self.wrong.get(network_of(person.ip), (0, 0))[1] if self.wrong else 0


def network_of(ip: str) -> str:
    """Return what counts as one address, for the door and for bans.

    Of IPv6 everybody gets 2^64 addresses at once (RFC 6177), and could come from
    another one each time, alike in the first half alone. On one cable or Wi-Fi
    ("link-local") all have the same first half, so there each one counts.
    """
    address = ipaddress.ip_address(ip.partition("%")[0])
    if address.version == 4 or address.is_link_local:
        return ip
    # An IPv4 address as a listener on all of IPv6 shows it: ::ffff:192.0.2.7
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
# endregion


# region 12. What each message does  (lesson 14)
# What the others read in `left` when a goodbye of this kind went out; the goodbyes that
# are not here are not followed by a `left`, or go to somebody who has no name yet.
LEFT_REASONS = {"bye": "bye", "kicked": "kicked", "banned": "kicked",
                "too_many_errors": "error", "line_too_long": "error"}


class MessageHandlers:
    """One method on_<type> for each type of message that a client may send.

    Region 16 makes a server of this: it adds `room`, `options` and the threads. The
    methods run in the reading thread of the person who sent the message, with the
    room's lock: so they must not wait for anything. A WireError that they raise goes
    back to that person as an `error`, and the chat goes on.
    """

    def __init__(self):
        # What the operator has forbidden, until the server ends: name_key -> their
        # network_of(), or None; name_key -> until when (time.monotonic()).
        self.banned, self.muted = {}, {}
        # name_key -> IP address, also of those who have left: for a ban after a kick.
        self.came_from = collections.OrderedDict()

    def obey(self, person, lines: list):
        """Obey the lines that came in one piece. They are one step: nobody else comes,
        leaves or is kicked meanwhile, and who has been kicked is obeyed no more.

        One step, too, because taking the lock for each line alone is slow. Where our
        threads run on several processors, two readers who want it hand it on at each
        line, and the kernel wakes a thread each time (a “lock convoy”): 10 people who
        all talk then got half as many deliveries a second, and on one processor 0.94
        times as many (measured).
        """
        self.room.wait_for_turn(person, len(lines))
        with self.room.lock:
            for line in lines:
                if line and not person.leaving:
                    self.handle(person, line)

    def handle(self, person, line: bytes):
        """Obey one line. Whatever is in it, this returns and the chat goes on."""
        message = {}                    # for refuse(), if not even decode() works
        try:
            message = decode(line)
            kind = message["type"]
            if person.name is None and kind != "hello":
                raise WireError("hello_first", 'Say {"type":"hello","name":"…",'
                                '"version":1} before anything else.')
            # The method's name is made of what a stranger sent. That is safe because
            # of the "on_": nothing else of this object can be reached so.
            method = getattr(self, "on_" + kind, None)
            if method is None:
                raise WireError("unknown_type", "This server knows no such “type”.")
            method(person, message)
        except WireError as problem:
            self.refuse(person, problem, message)
        except (Exception, SystemExit):
            # A mistake in a method of ours, or of coursework: the operator sees
            # where, the one who met it is told, and nobody is thrown out.
            say(traceback.format_exc().rstrip())
            self.refuse(person, WireError("bad_message", "The server stumbled over "
                        "that line; its terminal shows where."), message, ours=True)

    def refuse(self, person, problem: WireError, message: dict, ours=False):
        """Tell somebody what was wrong with their line, and end it with the 20th.

        Only what no proper program sends is counted. A taken name, a person who has
        left, or a mistake of `ours`, anybody can meet any number of times.
        """
        answer = {"type": "error", "code": problem.code, "text": problem.text}
        for name in ("ref", "file"):    # so the sender knows what was refused
            if is_ref(message.get(name)):
                answer[name] = message[name]
        with self.room.lock:
            if person.leaving:          # nothing comes after a goodbye
                return
            self.room.post(answer, [person])
        if not ours and problem.code in (
                "bad_message", "unknown_type", "bad_text", "hello_first"):
            person.errors += 1
            if person.errors == COUNTED_ERRORS:
                self.part(person, "too_many_errors", "Too many lines that nobody "
                          "understands; look at the errors above.")
        elif (problem.code in ("server_full", "line_too_long")
              or person.wrong_passwords == WRONG_PASSWORDS):
            if problem.code == "server_full":
                self.say_seldom("Newcomers are turned away", "(see --max-clients)")
            self.part(person, problem.code, problem.text)

    def part(self, person, reason: str, text: str):
        """Say goodbye to somebody and close the connection behind it.

        This only lines the goodbye up and takes them out of the room. The postman
        sends it, half-closes, and in the end cuts the line (see Postman.see_off).
        """
        with self.room.lock:            # or two threads could part the same person
            if person.leaving:
                return
            person.leaving = True
            self.room.part(person, {"type": "goodbye", "reason": reason, "text": text})
            self.leave(person, LEFT_REASONS.get(reason, reason))

    def leave(self, person, reason: str):
        """Out of the room, with a line for the operator; harmless when out already."""
        if self.room.leave(person, reason) and reason not in UNSEEN:
            say(f"{person.name} left ({reason}), {len(self.room.people)} here")

    def on_hello(self, person, message):
        """{"name", "version", "password"?, "session"?, "since"?}: come (back) in."""
        if person.name is not None:
            raise WireError("bad_message", "You are in already; hello is said once.")
        if field(message, "version", int) != PROTOCOL:
            raise WireError("bad_version", f"This server speaks version {PROTOCOL} of "
                            "the protocol; your program is older or newer.")
        self.door.check(person, field(message, "password", default=None))
        # A session that we do not know is no mistake: this server may be a new one
        # without a history. Then they come in as somebody new; `resumed` tells them.
        secret = field(message, "session", default="")
        since = field(message, "since", int, default=None)
        session = self.room.sessions.of_secret(secret) if secret else None
        why = self.why_banned(person, message, session)
        if why:
            self.say_seldom("Somebody who is banned wants to come in", f"({person.ip})")
            return self.part(person, "banned", why)
        welcome = {                     # the room adds what it knows, under its lock
            "type": "welcome", "session": secret, "history": self.room.history.id,
            "limits": {"line": LINE_LIMIT, "text": TEXT_LIMIT,
                       "file": self.files.limit},
            "server": f"ChattyCat {VERSION}", "time": utc_now()}
        if session is None:
            self.room.enter(person, clean_name(field(message, "name")), welcome)
            how = "joined"
        else:
            # The old connection may stand yet: a laptop that has slept comes on a new
            # one, and the end of the old one has never reached us.
            old, text = session.person, "You have come back on a new connection."
            if old is not None and old.since > person.since:
                # A hello that was long on its way: this is the older of the two.
                return self.part(person, "replaced", text)
            if old is not None:
                self.part(old, "replaced", text)
            name = field(message, "name", default="")
            self.room.come_back(person, session, name, since, welcome,
                                unseen=old is not None)
            how = "is back"
        self.take_note(person)
        say(f"{person.name} {how} from {person.address}, {len(self.room.people)} here")

    def take_note(self, person):
        """Somebody is in: no stranger any more, and known by name."""
        self.strangers.pop(person, None)
        self.came_from[name_key(person.name)] = person.ip
        if len(self.came_from) > AWAY_LIMIT:
            self.came_from.popitem(last=False)
        threading.current_thread().name = f"reader of {person.name}"    # for a debugger

    def why_banned(self, person, message, session):
        """Return why the operator's bans keep this hello out, or None.

        By name, and by address: another name is chosen in a second. But the address
        counts only for who has no session. A whole class may share one behind its
        router, and those who were in when one of them was banned can come back.
        """
        names = [name_key(field(message, "name", default=""))]
        names += [session.key] if session else []
        if any(name in self.banned for name in names):
            return "The operator has banned you."
        if (session is None and self.banned     # see Door.until()
                and network_of(person.ip) in self.banned.values()):
            return ("The operator has banned somebody at your address, and lets in "
                    "nobody new from there. Ask the operator.")
        return None

    def check_muted(self, person):
        """Raise WireError `muted` if the operator has muted this person."""
        left = self.muted.get(name_key(person.name), 0) - time.monotonic()
        if left > 0:
            end = "" if math.isinf(left) else f" for {seconds_in_words(left)}"
            raise WireError("muted", f"The operator has muted you{end}; you can read.")

    def on_chat(self, person, message):
        """{"text", "to"?, "ref"?}: say something, to everybody or to one."""
        ref = field(message, "ref", default=None)
        if ref is not None:
            check_ref(ref)
        name = field(message, "to", default=None)
        text = clean_text(field(message, "text"))
        to = None if name is None else self.room.find(name)
        # Who asks for a receipt again gets it, whatever has happened since then.
        if ref not in person.session.receipts:
            if self.muted:
                self.check_muted(person)
            # Who lost the connection a moment ago is found: it waits for them.
            if name is not None and to is None:
                raise WireError("no_such_person", "Nobody of that name is here.")
        self.room.say(person, text, to, ref)

    def on_list(self, person, message):
        """{}: who is here?"""
        self.room.list_people({"type": "people"}, person)

    def on_bye(self, person, message):
        """{}: a goodbye in good order."""
        self.part(person, "bye", "Goodbye.")


def seconds_in_words(seconds: float) -> str:
    whole = math.ceil(seconds)
    return f"{whole:,} second" + ("" if whole == 1 else "s")


def trace(way: str, person, data: bytes):
    """Show on the operator's terminal the lines that come from or go to somebody.

    The thread is named as well: so one sees that the reader only reads, and that what
    it has lined up leaves from the postman.
    """
    who = f"[{threading.current_thread().name}] {way} {person.name or person.address}"
    for line in data.rstrip(b"\n").split(b"\n"):
        text = without_secrets(line, person.name is None)
        more = "…" if len(text) > TRACED else ""
        say(f"{who}: {text[:TRACED]}{more}", "milliseconds")


def without_secrets(line: bytes, from_stranger: bool) -> str:
    """Return a line as it is shown: with dots for every password and session.

    Not by searching the text for "password": JSON can also write it "pass\\u0077ord".
    So the line is decoded and encoded again, which may change its spaces.
    """
    def hide(value):
        if isinstance(value, list):
            return [hide(part) for part in value]
        if isinstance(value, dict):
            return {key: "•••" if re.search("(?i)pass|sess", key) else hide(part)
                    for key, part in value.items()}
        return value

    try:
        text = encode(hide(decode(line))).decode().rstrip("\n")
    except (WireError, RecursionError):
        # No JSON that we could look into. What is wrong with it is what a student
        # wants to see; but not if there could be a secret in it, a hello in two halves
        # for example, or one in UTF-16.
        if line and from_stranger or re.search(rb"(?i)pass|sess|\\|\0", line):
            return f"({len(line)} bytes that are no message, perhaps with a secret)"
        text = line.decode("utf-8", "replace")
    # A session wherever else it may stand; see new_session().
    return re.sub(r"[0-9]+\.[\w-]{43}", "•••", text)
# endregion


# region 13. What a message about a file does  (lesson 18)
class FileHandlers(MessageHandlers):
    """How a file comes and goes, piece by piece, with the chat in between.

        Minou                       the server
        upload (name, size, …)  →
                                 ←  upload_ready (from byte 0 on)
        chunk, chunk, … (16)    →
                                 ←  upload_ready after each 8: go on, 16 from there
                                    … until it is whole, and has the right hash:
                                 ←  file, to everybody
        Tigrou
        download (from 0 on)    →
                                 ←  chunk, chunk, … (8)
        download (the next)     →

    Each side has only so much on the way as the other one has asked for, as in TCP
    itself, where this is called a window. So what is said meanwhile stands behind a few
    pieces at most, however large the file is.

    In each of these methods there is a moment without the room's lock, in which the
    disk works. When it is over, the person may have been thrown out.
    """

    def on_upload(self, person, message):
        """{"ref", "name", "size", "sha256", "to"?}: offer a file."""
        ref, size = field(message, "ref"), field(message, "size", int)
        name, sha256 = file_name(field(message, "name")), field(message, "sha256")
        to = field(message, "to", default=None)
        check_ref(ref)
        # A negative size would make room in our books for a larger one.
        if size < 0 or not re.fullmatch("[0-9a-fA-F]{64}", sha256):
            raise WireError("bad_file", "A file has a size in bytes, and a SHA-256 of "
                            "64 digits, 0 to 9 and a to f.")
        offer = {"name": name, "size": size, "sha256": sha256.lower()}
        with self.alone(person):
            if ref in person.session.receipts:
                return self.announce_again(person, ref, offer)
            self.check_may_send(person, size)
            session = self.receiver(to)
            with self.room.stepped_out():
                upload = self.files.begin(person, ref=ref, to=session, **offer)
            self.send_ready(person, upload)
            if upload.arrived == size:  # it is empty; or only its end was not seen
                self.finish(person, upload)

    @contextlib.contextmanager
    def alone(self, person):
        """In this `with` no other connection of the same session sends a file.

        Somebody comes back, and offers a file again whose last piece the old connection
        has just brought: without this both would finish it, and one of them remove what
        the other has announced. (To wait for a lock, too, one has to step out. Who was
        thrown out meanwhile is obeyed no more.)
        """
        with self.room.stepped_out():
            person.session.sending.acquire()
        try:
            if person.leaving:
                raise WireError("no_such_file", "You have left.")
            yield
        finally:
            person.session.sending.release()

    def announce_again(self, person, ref, offer):
        """It arrived, and only the receipt was lost: send that once more."""
        number = person.session.receipts[ref]
        file = next((kept.file for kept in list(self.files.kept.values())
                     if kept.id == number), "")
        self.room.post_from(person, "file", {"file": file, **offer}, ref=ref)

    def check_may_send(self, person, size):
        """Raise WireError if this person may send no file of this size."""
        limit = self.files.limit
        if not limit:
            raise WireError("file_too_big", "This server takes no files.")
        if size > limit:
            raise WireError("file_too_big", "Here a file may have at most "
                            f"{limit // 2**20} MiB ({limit:,} bytes).")
        self.check_muted(person)

    def receiver(self, name):
        """Return the session that a file is for, None: everybody. Raises WireError.

        Who lost the connection a moment ago is found as well: it waits for them.
        """
        session = None if name is None else self.room.find(name)
        if name is not None and session is None:
            raise WireError("no_such_person", "Nobody of that name is here.")
        return session

    def send_ready(self, person, upload):
        """Say how much has arrived: from there on 16 pieces may be on their way."""
        if not person.leaving:          # nothing comes after a goodbye
            self.room.post({"type": "upload_ready", "ref": upload.ref,
                            "file": upload.file, "offset": upload.arrived}, [person])

    def on_chunk(self, person, message):
        """{"file", "offset", "data"}: a piece of a file.

        One that cannot be used is an error, and changes nothing: the upload stands
        where it stood, and goes on with the right one.
        """
        file, offset = file_id(message), field(message, "offset", int)
        text = field(message, "data")
        if not text:
            return                      # some send the empty file an empty piece
        with self.alone(person):
            self.add_piece(person, message, file, offset, text)

    def add_piece(self, person, message, file, offset, text):
        """Put a piece in its place, and look whether it was the last one."""
        with self.room.stepped_out():
            data = from_base64(text)
            upload = self.files.write(person, file, offset, data)
        # It does not count as a message: back goes what keep_pace() has taken for it.
        # For full ones alone, or who sends single bytes could send without a limit.
        if self.options.rate and len(data) == CHUNK:
            person.paid_until -= 1 / self.options.rate
        if upload.pieces % READY == 0:
            self.send_ready(person, upload)
        if upload.arrived == upload.size:
            message["ref"] = upload.ref     # an error is about all of it from here on
            self.finish(person, upload)

    def finish(self, person, upload):
        """All of it is here: look at it as a whole, then tell who may see it.

        Its line goes the way of a chat line: the next id, the history, the postman. So
        it stands between the same two lines on every screen, and its `ref` makes it the
        receipt of the one who has sent it.
        """
        with self.room.stepped_out():
            self.files.complete(upload)
        session, to = person.session, upload.to
        try:
            # Once more what can have changed since it was offered: this is the last
            # moment for it.
            self.check_may_send(person, upload.size)
            if to is not None and self.receiver(to.name).number != to.number:
                raise WireError("no_such_person", "Who it was for has left.")
            # (On another connection by now is no reason; to be here on none is one.)
            if session.person is None or upload.ref in session.receipts:
                raise WireError("no_such_file", "It was sent by somebody who has left.")
        except WireError:
            with self.room.stepped_out():
                self.files.drop(upload)
            raise
        # Before its line is out: who reads that may ask for the file at once.
        self.files.kept[upload.file] = Kept(
            upload.file, upload.path, self.room.last_id + 1, session.number,
            None if to is None else to.number, upload.name, person.name, upload.size)
        self.room.post_from(person, "file", {
            "file": upload.file, "name": upload.name, "size": upload.size,
            "sha256": upload.sha256}, to, upload.ref)
        if to is None:
            say(f"{person.name} sent file {self.room.last_id}, {upload.size:,} bytes")

    def on_download(self, person, message):
        """{"file", "offset"}: I want up to 8 pieces from this byte on.

        Nothing is remembered of who has got how much: to go on after a break, one asks
        from another byte on.
        """
        file, offset = file_id(message), field(message, "offset", int)
        kept = self.files.find(file, person.session.number)
        if not 0 <= offset <= kept.size:
            raise WireError("bad_file", f"That file has {kept.size} bytes.")
        if len(person.wishes) >= 100:
            raise WireError("bad_file", "So much at once is not sent; read what you "
                            "have asked for before.")
        # The postman reads it, and must not wait for a disk. It need not when the
        # kernel has the pieces in memory already: that is all that this is good for.
        with self.room.stepped_out(), contextlib.suppress(OSError):
            for number in range(0 if person.wishes else WISH):  # else there is time yet
                kept.piece(offset + number * CHUNK)
        if not person.leaving:
            self.room.pending().wishes.append((person, Pieces(kept, offset)))

    def on_cancel(self, person, message):
        """{"file"}: stop an upload, or a download.

        What is in the kernel's hands, a few pieces, still comes.
        """
        file = file_id(message)
        kept = self.files.kept.get(file)
        if kept is not None and kept.may_see(person.session.number):
            waiting = [wish for other, wish in self.room.pending().wishes
                       if other is person]
            # list() makes a copy in one step; the postman may take from it meanwhile.
            for wish in list(person.wishes) + waiting:
                wish.done = wish.done or wish.file == file
        else:
            with self.room.stepped_out():
                self.files.drop_mine(person, file)


def file_id(message) -> str:
    """Return the field `file`. A number is no mistake of the kind that counts: another
    server's ids could be numbers. But it is none of ours."""
    if type(message.get("file")) is int:
        raise WireError("no_such_file", "There is no such file.")
    return field(message, "file")
# endregion


# region 14. The postman  (lesson 09)
class Postman:
    """The one thread that sends. It waits for nobody who is slow to read.

    One sending thread and not one a person: while it sends, new lines become pending,
    and the next round takes them all at once. The more there is to do, the larger the
    pieces get. A send() costs 4 to 6 µs even in C, so fewer of them is what counts:
    with 100 people this was over 10 times as fast as a writer thread each (measured).

    It is also the one thread that writes the history, and reads lines from it. Whoever
    comes in is *behind* at first: lines with an id reach them from the history only, in
    pieces, as fast as they read. With lines 1 to 7 committed, and 8 and 9 in the batch:
        Ann (not behind)            gets 8 9
        Cat (behind, position 5)    gets nothing of it, but 6 7 8 9 from the history
    Then Cat's position is the newest committed id, and she is behind no more: from the
    next batch on she gets what Ann gets. No line can slip in between, or come twice,
    because committing, reading and this decision are steps of one thread.
    """

    def __init__(self, give_up=lambda: None, trace=False):
        """`give_up()` is called when this thread cannot go on."""
        self.room = None                # set before the thread starts
        self.give_up, self.trace = give_up, trace
        self.broken = self.ending = False   # set by fail(), and by stop()
        # A selector watches many sockets at once and says which of them can go on,
        # by the best means of this system (epoll, kqueue, or select on Windows).
        self.selector = selectors.DefaultSelector()
        # The bell: whoever has something pending writes a byte into one end, and the
        # selector, which also watches the stalled sockets, wakes from the other.
        self.bell_in, self.bell_out = socket.socketpair()
        self.bell_in.setblocking(False)
        self.bell_out.setblocking(False)
        self.selector.register(self.bell_out, selectors.EVENT_READ)
        self.stalled = set()            # people for whom something waits
        self.behind = {}                # who has something to come: see next_piece()
        self.parting = {}               # person -> when their connection is cut at last
        self.closed = collections.deque()   # whose reading thread has just ended
        self.flushed = collections.deque()  # see flush()
        self.sent_bytes = 0

    def ring(self):
        """Wake the postman. Any thread may; it costs one small send()."""
        try:
            self.bell_in.send(b"!")
        except BlockingIOError:
            pass                        # so many rings unheard: it will wake anyway

    def flush(self, person):
        """TLS itself has something to say (see TLS.read); only the postman sends."""
        self.flushed.append(person)
        self.ring()

    def run(self):
        """The postman's thread: sleep, take all that is pending, send, again."""
        while not self.ending:
            for key, _ in self.selector.select(self.pause()):
                if key.data is None:
                    self.bell_out.recv(4096)
                else:                   # a stalled socket has room again
                    key.data.send_waiting()
                    self.look_after(key.data)
            while self.flushed:
                self.send(self.flushed.popleft(), b"")
            # First who has ended, then what is pending: so the last answers to
            # somebody are in this mail, and are sent before their socket is closed.
            now = time.monotonic()
            while self.closed:
                person = self.closed.popleft()
                person.ended = True
                self.parting.setdefault(person, now + FAREWELL_SECONDS)
            for person in self.deliver():
                self.parting[person] = now + FAREWELL_SECONDS
            self.see_off(now)
        # The last goodbyes; and for the history, whose names the next server keeps.
        self.deliver()

    def stop(self):
        """End the thread when it has done what is pending."""
        self.ending = True
        self.ring()

    def pause(self):
        """Return how many seconds to sleep at most; None: until something happens."""
        if any(not person.waiting for person in self.behind):
            return 0                    # do not sleep: somebody can take more history
        return 0.05 if self.parting else None   # who is parting has a date to keep

    def deliver(self) -> list:
        """One round: commit what is pending, send it, and some history to who wants it.

        The commit comes first: if we are killed between the two, nobody has seen an id
        that the next server will give out again. Returns who is parting.
        """
        batch, people = self.room.take()
        try:
            if not self.broken:
                self.room.history.write(batch.rows, batch.sessions.values(),
                                        batch.files)
        except HistoryError as problem:
            # A full disk. Nobody gets a receipt, so each will send it again later.
            self.fail(problem)
        for person in batch.first:
            self.begin(person, batch)
        for person, data in batch.mail(people, committed=not self.broken):
            self.send(person, data)
        for person, wish in batch.wishes:
            person.wishes.append(wish)
            self.behind[person] = None
        for person, goodbye in batch.parting.items():
            person.goodbye = goodbye
            self.behind[person] = None
        self.catch_up()
        return list(batch.parting)

    def begin(self, person, batch):
        """Put the first piece of the history right behind somebody's welcome, among
        their own lines of this batch.

        For nearly all it is the whole of it, and the rest of this batch follows in its
        own order: whoever says hello, something and bye in one breath reads the
        answers in that order. For who has more to read it is the beginning.
        """
        self.behind[person] = None
        try:
            if not self.broken:
                data = self.next_lines(person, person.newest)
                batch.private[person].insert(batch.welcomed[person], (
                    batch.first[person], data, False))
        except HistoryError as problem:
            self.fail(problem)

    def send(self, person, data):
        """Send to one person, and watch the socket if it does not take all."""
        person.send(data)
        self.sent_bytes += len(data)
        if self.trace and data:
            trace("to", person, data)
        if person.waiting:
            self.look_after(person)

    def fail(self, problem):
        """It cannot go on: say why, and bring all to an end."""
        self.broken = True
        say(str(problem))
        self.give_up()

    def catch_up(self):
        """Give one more piece to each who has something to come, and has read the last.

        Only then: 200 who come back at once would need all of it in our memory, and who
        reads slowly would be taken for somebody who never reads.
        """
        for person in list(self.behind):
            if person.gone:
                del self.behind[person]
            elif not person.waiting:
                try:
                    data = self.next_piece(person)
                    if data:
                        self.send(person, data)
                except HistoryError as problem:
                    self.fail(problem)
            elif len(person.wishes) > RECEIPTS:     # they ask, and do not read
                person.reset()

    def next_piece(self, person) -> bytes:
        """Return what comes next for somebody; take note when that was all.

        First their history. Then what they asked for: receipts, earlier, would overtake
        lines with lower ids, and a client that keeps the highest id it has seen would
        never ask for those again. And pieces of files, one at a time: what is said
        meanwhile goes out in between. The goodbye comes last.
        """
        history = self.room.history
        if person.behind and not self.broken:
            last = history.last_id if person.until is None else person.until
            data = self.next_lines(person, last)
        elif person.wishes and not self.broken:
            data = person.wishes[0].next_piece()
            if person.wishes[0].done:
                del person.wishes[0]
        else:
            data, person.goodbye = person.goodbye, b""
            del self.behind[person]
        return data

    def next_lines(self, person, last) -> bytes:
        """Return the next lines of the history, up to the id `last` at most, and move
        this person's position."""
        history = self.room.history
        if person.position is None:         # somebody new
            person.position = history.recent_start(person.newest)
            person.position = max(person.position, history.forgotten)
        elif person.position < 0:           # all that is kept
            person.position = history.forgotten
        if person.position < history.forgotten:
            # So slow that the memory has forgotten what comes next. To go on behind it
            # would hide that; who comes back is told of the gap.
            person.reset()
            return b""
        data, person.position = history.after(person.position, last,
                                              person.session.number)
        person.behind = person.position < last
        return data

    def look_after(self, person):
        """Watch a stalled socket until all has gone, or it is too much."""
        if len(person.waiting) > WAITING_BYTES:
            person.reset()
        if person.waiting and person not in self.stalled:
            self.stalled.add(person)
            self.selector.register(person.out, selectors.EVENT_WRITE, person)
            if len(self.stalled) > STALLED_PEOPLE:
                fullest = max(self.stalled, key=lambda other: len(other.waiting))
                fullest.reset()
                self.look_after(fullest)
        elif not person.waiting and person in self.stalled:
            self.stalled.remove(person)
            self.selector.unregister(person.out)

    def see_off(self, now):
        """Close behind those who leave: goodbye, half-close, a second, the end.

        TCP closes each direction for itself. Half-closing ours says: no more comes.
        Their program reads our goodbye, then b"", closes, and the reading thread here
        reads b"" too. Only for those who do none of this is there a time limit. In
        the usual order, with the flags that tell how far somebody is:
            part()       leaving        the goodbye is pending
            run()        in `parting`   it was handed out; if it waits, at most 10 s
            see_off()    half_closed    all of it has left; 1 s for their answer
            read()       ended          they have closed, or were cut off
        """
        for person, limit in list(self.parting.items()):
            if now >= limit:
                self.behind.pop(person, None)
                person.waiting.clear()
                self.look_after(person)
                person.stop_reading()
            if person.waiting or person in self.behind:
                continue                # the last lines for a slow reader
            if not person.half_closed:
                person.say_no_more()
                # Closing at once would be a mistake: bytes of theirs that we have not
                # read make the kernel send RST, and an RST overtakes our goodbye.
                self.parting[person] = now + PARTING_SECONDS
            if person.ended:
                # No other thread closes this descriptor. If its number were given to
                # a new connection during a send(), that one would get strange mail.
                person.out.close()
                del self.parting[person]
# endregion


# region 15. The reading threads  (lesson 05)
class Readers(FileHandlers):
    """What the reading thread of a connection does, from its first byte to its last.

    One thread a person reads well from top to bottom: wait for a line, obey it, wait
    for the next. It may wait, for the network, for a person's pace or at the door: it
    keeps nobody waiting but the one whose thread it is. It never sends: it hands what
    is to be sent to the room, or, if it is TLS's own, to the postman.
    """

    # To decode 64 KiB takes 3 ms, in which nobody else is obeyed. 60 strangers
    # who sent nothing else, on ever new connections, made the lines of people late by
    # 0.4 s (p99, measured). With this all of them together get 50 such lines a second.
    long_line = threading.Lock()

    def read(self, person):
        """The reading thread of one person, from the first byte to the last."""
        try:
            for came in lines(lambda: self.receive(person)):
                if self.options.trace:
                    trace("from", person, b"\n".join(came))
                # Who is leaving is read on, so that their close does not become an
                # RST, but not obeyed.
                while came and not person.leaving:
                    wanted = len(came)
                    if person.name is None:
                        self.wait_at_the_door(person)
                        if len(came[0]) > LONG_HELLO:
                            with self.long_line:
                                time.sleep(0.02)
                        # One by one: each may be a try at the password.
                        wanted = 1
                    allowed = person.keep_pace(self.options.rate, wanted)
                    self.obey(person, came[:allowed])
                    del came[:allowed]
        except WireError as problem:
            # An endless line, or no TLS: where the next line begins nobody can tell.
            # What still comes is thrown away until the postman ends it. (After a line
            # too long refuse() has parted them, and part() does nothing more.)
            self.refuse(person, problem, {})
            self.part(person, "too_many_errors", problem.text)
            while person.receive():
                pass
        finally:
            self.leave(person, person.reason)
            self.strangers.pop(person, None)
            del self.connections[person]
            person.sock.close()
            self.postman.closed.append(person)
            self.postman.ring()

    def receive(self, person) -> bytes:
        """Wait for what somebody sends; return some of it, decrypted, b"" at the end.

        Raises WireError if somebody speaks no TLS where it is wanted.
        """
        if person.tls is None:
            data = person.receive()
            # TLS begins with a byte 22 (RFC 8446, 5.1), and no line in JSON does. It
            # is answered at once: who knows when there will be a newline in it.
            if person.name is None and data[:1] == b"\x16":
                self.say_seldom("Somebody tried TLS, and this server has none",
                                f"({person.address})")
                self.refuse(person, WireError("bad_message", "This server speaks no "
                            "TLS; switch it off, or start the server with --tls."), {})
                return b"\n"            # an empty line in its place
            return data
        try:
            return person.tls.read(person.receive, lambda: self.postman.flush(person))
        except ssl.SSLError as problem:
            # Broken TLS ends here; who speaks none at all is told so below. But never
            # plain text to who has begun with TLS: somebody in between could make us do
            # it, by a few bytes, and read the rest.
            if person.tls.ready or problem.reason not in NOT_TLS:
                who = person.name or person.address
                self.say_seldom("TLS has failed", f"with {who} ({problem.reason})")
                return b""
            person.tls = None           # in plain text the answer can be read
            self.say_seldom("Somebody came without TLS, and this server wants it",
                            f"({person.address})")
            raise WireError("bad_message", "This server speaks TLS only; switch it on "
                            "(--tls, or /tls).") from None

    def wait_at_the_door(self, person):
        """Let a stranger wait who comes from where wrong passwords came from.

        As keep_pace() does it: nothing is lost, and nobody else notices.
        """
        if time.monotonic() >= self.door.until(person):
            return
        if not person.waited:
            person.waited = True
            # Who it is can be anybody behind that address; the operator may know them.
            self.say_seldom("Too many wrong passwords come", f"from {person.ip}")
            # They did say hello in time: their minute for it begins anew, but only
            # once. One second more, or it would be over in the very moment in which
            # the longest wait, also a minute, has its end.
            self.strangers.pop(person, None)
            self.strangers[person], person.since = None, time.monotonic() + 1
        while time.monotonic() < self.door.until(person) and not person.leaving:
            if person.has_hung_up():    # their try must not make the others wait
                person.leaving = True
            time.sleep(0.1)


def stay_on_one_processor():
    """Keep this thread, and those that it starts, on one processor; on Linux alone.
    Return the set of those (their numbers) on which it could run before, or None.

    Python's threads run one at a time (they hand on one lock, the GIL), so a second
    processor helps them only while one of them compresses, encrypts or waits for a
    disk. But Linux wakes a sleeping thread on an idle processor, which has to wake up
    itself and to fetch what the thread needs into its own cache: that takes longer than
    most of our threads then run. On one processor 10 people who all talk get 1.5 times
    the deliveries a second, 100 get 1.7 times, and 1,000 are in after a third of the
    time; with TLS 1.1 to 1.6 times the deliveries (measured). The printer, the console
    and the windows of --clients are started earlier, and stay free.
    """
    # From Python 3.13 on there is one without a GIL, too.
    free_threads = not getattr(sys, "_is_gil_enabled", lambda: True)()
    if not hasattr(os, "SCHED_BATCH") or free_threads:
        return None
    processors = os.sched_getaffinity(0)
    try:
        # Chosen by chance, or two servers on one computer would always share theirs.
        os.sched_setaffinity(0, {secrets.choice(sorted(processors))})
    except OSError:                         # some containers forbid it…
        return None
    with contextlib.suppress(OSError):      # …or this
        # A thread that is woken now interrupts the one that runs: the reader who rings
        # for the postman, and has 15 more lines to obey. SCHED_BATCH asks the system
        # not to do that (man 7 sched): 1.1 to 1.2 times the deliveries (measured). Its
        # price: where others keep this processor busy, we may wait for them longer.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    return processors


@contextlib.contextmanager
def on_processors(processors):
    """In this `with` the thread may run on any of these processors; None: as before."""
    if processors is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
# endregion


# region 16. The server  (lesson 08)
# The threads of a running server, by the names that a debugger shows:
#
#     MainThread        accept(), and in the end the goodbyes (this region)
#     reader of Minou   one for each connection: reads, and obeys (regions 12 to 15)
#     postman           commits and sends (region 14)
#     console           the operator's keyboard (region 17)
#     printer           the operator's screen (region 1)
#
# Between them stand one lock (the room's), one bell (the postman's) and one queue (the
# printer's); smaller locks are explained where they stand. A thread that waits for the
# network never holds the room's. All but the first are daemons: they end with it.
class ChatServer(Readers):
    """Accepts connections, starts a reading thread for each, and ends in good order.

    Subclass it to add messages (on_<type>) or words for the operator (console_<word>).
    """
    room_class, postman_class = Room, Postman   # a subclass can have its own

    def __init__(self, options):
        """Open the listening socket and the history.

        Raises OSError when the address cannot be had, HistoryError for the history,
        FilesError for --files, CertificateError for --tls.
        """
        super().__init__()
        self.options = options
        # Before the history: who types the same command twice has neither, and "the
        # port is in use" says better what has happened than "the file is in use".
        self.listener = listen(options.host, options.port)
        self.door = Door(options.password)
        self.tls, self.fingerprint = None, ""
        if options.tls:
            self.tls, self.fingerprint = tls_context(options)
        history = (History(options.recent) if options.history is None
                   else SQLiteHistory(options.recent, options.history))
        self.files = Files(options, history)
        self.postman = self.postman_class(self.stop, options.trace)
        self.room = self.room_class(history, options.max_clients, self.postman.ring)
        self.postman.room = self.room
        # Port 0 asked the system for a free one: this is the one that we got.
        self.host, self.port = self.listener.getsockname()[:2]
        self.connections = {}           # person -> reading thread
        self.strangers = {}             # person -> None, the oldest first: no hello yet
        self.spare = socket.socket()    # see turn_away()
        self.said_at = {}               # see say_seldom()
        # For /stats, one a second.
        self.samples = collections.deque([self.sample()], maxlen=11)
        # A plain flag, set by a signal handler too. threading.Event has a lock inside,
        # which a handler could find taken by the very thread that it interrupts.
        self.stopping = False

    def serve(self):
        """Accept people until stop() is called; then say goodbye to everybody."""
        Handshakes.processors = stay_on_one_processor()
        # daemon=True: such a thread does not keep the program alive. Readers stand in
        # recv() most of the time; waiting for them could last for ever.
        postman = threading.Thread(target=self.run_postman, name="postman", daemon=True)
        postman.start()
        # accept() wakes up 20 times a second: Ctrl+C cannot wake it (on Windows not at
        # all, elsewhere Python goes on waiting when our handler has run).
        self.listener.settimeout(0.05)
        try:
            while not self.stopping:
                self.accept()
                if len(self.strangers) > STRANGERS:
                    time.sleep(0.001)   # many at once must not hold up those who talk
                now = time.monotonic()
                self.part_with_strangers(now)
                if now - self.samples[-1][0] >= 1:
                    self.samples.append(self.sample())
                    self.files.drop_old()
            if postman.is_alive():      # else there is nobody to tell it
                self.say_goodbye()
        finally:
            # In this order: the last batch says whose names are kept for the next
            # server; and a history that is closed in good order needs no repair.
            self.postman.stop()
            postman.join(1)
            self.room.history.close()
            self.files.close()

    def run_postman(self):
        """The postman's thread. When it stumbles, that is the end of the server: nobody
        would get anything any more, and nobody would know why."""
        try:
            self.postman.run()
        except (Exception, SystemExit):
            self.postman.fail(traceback.format_exc() + "Nothing can be sent any more.")

    def stop(self):
        """Ask serve() to come to its end. Any thread may, and a signal handler."""
        self.stopping = True

    def sample(self):
        """Return (now, how many messages so far, how many bytes have left so far).

        A rate is the difference of two of these. One since the start of the server
        would say nothing about now.
        """
        return time.monotonic(), self.room.last_id, self.postman.sent_bytes

    def accept(self):
        """Let the next one in, if somebody comes within a moment."""
        sock = None
        try:
            sock, address = self.listener.accept()
            self.welcome(sock, address)
        except socket.timeout:
            pass
        except (OSError, RuntimeError) as problem:
            # Who has gone already is none of our troubles. (EINVAL: macOS says so.)
            gone = (errno.ECONNABORTED, errno.ECONNRESET, errno.EINVAL)
            if getattr(problem, "errno", None) not in gone:
                self.turn_away(sock, problem)

    def turn_away(self, sock, problem):
        """Tell somebody that no more fit in; `sock`: theirs, if accept() had one.

        accept() itself needs a descriptor. Without one they would stay in the backlog,
        connected and never answered, and this loop would spin at full speed. So one is
        kept in reserve: an unused socket at first, then that of the last one who was
        turned away. It stays open that long for its owner to read the sentence.
        """
        text = "This server has no room left. Try again later."
        self.spare.close()
        try:
            sock = sock or self.listener.accept()[0]
            sock.setblocking(False)
            # With TLS they read nothing: there is no thread to shake hands with them,
            # and in plain text our client would take us for a server without TLS.
            if self.tls is None:
                sock.send(
                    encode({"type": "error", "code": "server_full", "text": text})
                    + encode({"type": "goodbye", "reason": "server_full",
                              "text": text}))
            shutdown(sock, socket.SHUT_WR)
            self.spare = sock
        except OSError:                 # they have gone
            with contextlib.suppress(OSError):
                self.spare = socket.socket()
        self.say_seldom("Newcomers are turned away", f"({problem})")
        time.sleep(0.05)                # or this loop would spin until somebody leaves

    def say_seldom(self, what, more):
        """Tell the operator; but strangers can make this happen as often as they like,
        and must not fill the terminal and the log."""
        now = time.monotonic()
        if now - self.said_at.get(what, -math.inf) > 60:
            self.said_at[what] = now
            say(f"{what} {more}; said at most once a minute.")

    def welcome(self, sock, address):
        """Give a new connection its reading thread."""
        tune(sock)
        tls = None if self.tls is None else Handshakes(self.tls, server_side=True)
        person = Connection(sock, address, tls)
        # A thread runs a function beside all the others.
        thread = threading.Thread(target=self.read, args=(person,), daemon=True,
                                  name=f"reader of {person.address}")
        self.connections[person] = thread
        self.strangers[person] = None
        try:
            thread.start()
        except RuntimeError:            # the system has no thread left
            del self.connections[person], self.strangers[person]
            person.out.close()
            raise

    def part_with_strangers(self, now):
        """End connections that do not say hello: too old ones, or too many.

        Each costs a thread and two descriptors. Without this anybody could use up all
        of them by connecting 1,000 times and saying nothing.
        """
        # A copy: the reading threads change it. list() makes one in a single step.
        strangers = list(self.strangers)
        for number, person in enumerate(strangers):
            limit = (STRANGER_SECONDS if len(strangers) - number > STRANGERS
                     else HELLO_SECONDS)
            if now - person.since <= limit:
                break                   # and those behind are younger
            self.strangers.pop(person, None)
            self.part(person, "hello_timeout", "You did not say hello in time.")

    def say_goodbye(self):
        """Tell everybody, and wait a moment until they have read it."""
        # A thread that waits for the GIL asks for it every 5 ms. With 5,000 who hang up
        # just now that kept the processor busy for up to 10 s; where they ask every
        # 100 ms, for up to 5 (measured).
        sys.setswitchinterval(0.1)
        self.listener.close()
        say("Shutting down; everybody gets a goodbye.")
        people = list(self.connections.items())
        with self.room.lock:            # all in one batch
            for person, _ in people:
                self.part(person, "shutdown", "The server is shutting down.")
        # join() waits for the end of a thread. Together they get 1.5 s: who does not
        # read must not keep the operator's prompt.
        end = time.monotonic() + 1.5
        for _, thread in people:
            thread.join(max(0, end - time.monotonic()))


def listen(host: str, port: int) -> socket.socket:
    """Return a TCP socket that listens on this address. Raises OSError.

    A listening socket carries no data. accept() takes connections off it, and each of
    them is a socket of its own.
    """
    # getaddrinfo() turns names and addresses, IPv4 and IPv6, into what bind() wants.
    family, kind, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, kind)
    try:
        if os.name == "nt":
            # On Windows SO_REUSEADDR would let a second server steal the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # Without it the port of a server that has ended stays taken for a minute
            # (TIME_WAIT) whenever it was the one that closed first.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What people send waits in the kernel until we read it, and by itself Linux
        # lets that grow to megabytes. Who floods and hangs up would go on talking for
        # as long as --rate takes for all of it. But it must be more than one packet:
        # with 32 KiB, half of a packet on loopback, a full buffer was at times not
        # reported as empty again, and its sender stood still for over 10 s (measured).
        # Connections have the size from their listener.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BYTES)
        listener.bind(address)          # this address is ours now
        # The backlog: how many connections the kernel keeps ready until accept()
        # takes them. It cuts this to its own limit, on Linux 4,096. With 1,024 about
        # 1,000 of 5,000 who came at once had to come again (measured).
        listener.listen(4096)
    except OSError:
        listener.close()
        raise
    return listener


def lan_address() -> str:
    """Return this computer's address as the others in the network see it."""
    # connect() on a UDP socket sends nothing: it only looks up which way a packet
    # would leave. 192.0.2.1 is an address for documentation (RFC 5737).
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:                 # no network at all
            return "127.0.0.1"
# endregion


# region 17. The operator's console  (lesson 20)
class Console:
    """Reads the operator's commands: console_<word> of this class or of the server.

    The first line of a method's docstring is its line in /help. A method gets what
    stands behind the word, and returns what is to be printed, or None.

    It runs in a thread of its own, without the room's lock: what it does to people it
    does by the methods that their own threads use, and these take the lock. So a word
    that takes long keeps nobody waiting but the operator.
    """

    def __init__(self, server):
        """`server`: the one to command, a ChatServer or a subclass."""
        self.server, self.room = server, server.room

    def run(self):
        """The console's thread: obey line after line, until there is no more."""
        try:
            # Not input(): waiting there in a thread makes Ctrl+C end with an abort
            # (measured on 3.9 to 3.13).
            for line in iter(sys.stdin.readline, ""):
                if line.strip():
                    say(self.obey(line.strip()))
            # After Ctrl+D. (On Windows Ctrl+C, too, looks like the end of a file.)
            if os.name != "nt" and sys.stdin.isatty():
                say("That was the end of your commands. Ctrl+C stops the server.")
        except (OSError, ValueError):
            pass            # no terminal (any more): the server goes on without

    def obey(self, line) -> str:
        """Carry out a line such as "/kick Tom"; return what to print."""
        word, _, rest = line.partition(" ")
        # With or without the slash: there is nobody here whom "who" could be said to.
        method = self.words().get("/" + word.lower().lstrip("/"))
        if method is None:
            return f"There is no command {word}; /help lists what there is."
        try:
            answer = method(rest.strip())
            return "Done." if answer is None else str(answer)
        except WireError as problem:    # what a client may not send, nor you
            return problem.text
        except (Exception, SystemExit):
            # Coursework with a mistake in it, or with a sys.exit() that would end this
            # thread alone, and with it the operator's commands: show where, go on.
            return traceback.format_exc().rstrip()

    def words(self):
        """Return every command: {"/kick": method, …}."""
        return {"/" + name[len("console_"):]: getattr(owner, name)
                for owner in (self, self.server) for name in dir(owner)
                if name.startswith("console_")}

    def console_help(self, _):
        """/help: this list"""
        first_lines = [method.__doc__ or word for word, method in self.words().items()]
        return "\n".join(line.strip().split("\n")[0] for line in first_lines)

    def console_who(self, _):
        """/who: who is here, and from where"""
        muted, now = self.server.muted, time.monotonic()
        lines = [f"  {person.name} from {person.address}" + (
            ", muted" if muted.get(name_key(person.name), 0) > now else "")
            for person in list(self.room.people.values())]
        return "\n".join([f"{len(lines)} here", *lines])

    def console_say(self, text):
        """/say TEXT: say something to everybody"""
        text = clean_text(text)
        self.room.post({"type": "notice", "text": text, "time": utc_now()})
        return f"You said to everybody: {text}"

    def console_kick(self, name):
        """/kick NAME: throw somebody out; they may come back"""
        session = self.room.find(name)
        # Looked at once: a moment later they may have left, and it would be None.
        person = session and session.person
        if not name:
            return "Say whom: /kick NAME"
        if person is None:
            return f"Nobody called “{name}” is here; /who lists everybody."
        self.server.part(person, "kicked", "The operator has asked you to leave.")
        return f"{person.name} was kicked."

    def console_ban(self, name):
        """/ban NAME: throw out for good; nobody new gets in from their address

        "For good" ends with the server: nothing of it is written down anywhere, since
        addresses go to other people over the days.
        """
        if not name:
            return "Say whom: /ban NAME"
        session, key = self.room.find(name), name_key(name)
        person = session and session.person
        name = person.name if person else name
        # Also of somebody who has been kicked before, or has run away from this.
        ip = person.ip if person else self.server.came_from.get(key)
        self.server.banned[key] = ip and network_of(ip)
        if person:
            self.server.part(person, "banned", "The operator has banned you.")
        return (f"“{name}” is banned until the server ends or you /unban them"
                + (f", and so is everybody new from {ip}." if ip else
                   "; the address is not known: nobody of that name has been here."))

    def console_unban(self, name):
        """/unban [NAME]: let somebody in again; without NAME: who is banned?"""
        banned, key = self.server.banned, name_key(name)
        if key not in banned:
            names = [f"{each} ({ip})" if ip else each for each, ip in banned.items()]
            return (f"“{name}” is not banned. " if name else "") + (
                f"Banned: {', '.join(names) or 'nobody'}")
        ip = banned.pop(key)
        if ip and ip in banned.values():
            return (f"“{name}” may come in again. But nobody new from {ip}: somebody "
                    "else is banned from there, too.")
        return f"“{name}” may come in again."

    def console_mute(self, words):
        """/mute NAME [SECONDS]: they can read, not write; 0 SECONDS ends it

        It hangs on the name, and so holds when they come back on a new connection; but
        who takes another name can write. Against that there is /ban, by address.
        """
        name, _, seconds = words.partition(" ")
        muted, key = self.server.muted, name_key(name)
        if not name:
            return "Say whom: /mute NAME [SECONDS]"
        if self.room.find(name) is None and key not in muted:
            return f"Nobody called “{name}” is here; /who lists everybody."
        try:
            wait = number(0, 999_999_999)(seconds.strip()) if seconds else math.inf
        except argparse.ArgumentTypeError as problem:
            return f"/mute NAME [SECONDS]: {problem}"
        muted[key] = time.monotonic() + wait
        if not wait:
            return f"“{name}” can write again."
        return f"“{name}” can only read" + (
            "." if math.isinf(wait) else f" for {seconds_in_words(wait)}.")

    def console_files(self, word):
        """/files [all]: the newest files that people have sent, by their numbers

        The number is the id of the line that has announced it.
        """
        files = self.server.files
        # A terminal shows the end of what is printed; so that is where the newest are.
        shown = sorted(list(files.kept.values()), key=lambda kept: kept.id)
        shown = shown if word == "all" else shown[-20:]
        # What somebody sends to one other alone is not for the operator to read.
        return "\n".join([
            f"{len(files.kept):,} files, {files.bytes / 2**20:,.1f} of "
            f"{files.all // 2**20:,} MiB"] + [
            f"  {kept.id}: {kept.size:,} bytes from {kept.author}"
            + (", privately" if kept.receiver is not None else f": {kept.name}")
            for kept in shown])

    def console_remove(self, word):
        """/remove NUMBER: remove one of these files

        Its line stays in the history, and who asks for it reads “no such file”.
        """
        for kept in list(self.server.files.kept.values()):
            if str(kept.id) == word:
                self.server.files.remove(kept)
                return f"File {word}, of {kept.author}, is removed."
        return f"There is no file number {word}; /files shows them." if word else (
            "Say which: /remove NUMBER; /files shows the numbers.")

    def console_stats(self, _):
        """/stats: people, threads, messages and bytes a second, what waits for whom

        Threads: one for each connection, and those of the list at the head of region
        16. What waits for somebody who reads slowly is at most 2 MiB, see Postman.
        """
        server, now = self.server, self.server.sample()
        # The rates of the last ten seconds, or since the start.
        before = server.samples[0]
        seconds = max(0.001, now[0] - before[0])
        waiting = [f"  {person.name or person.address}: {len(person.waiting):,} bytes"
                   for person in list(server.connections) if person.waiting]
        return "\n".join([
            f"{len(self.room.people)} people, {len(server.strangers)} without a hello, "
            f"{threading.active_count()} threads",
            f"in: {(now[1] - before[1]) / seconds:,.1f} messages a second, "
            f"{now[1]:,} in all",
            f"out: {(now[2] - before[2]) / seconds:,.0f} bytes a second, "
            f"{now[2]:,} in all",
            "Waiting to be read:" if waiting else "Nothing waits for anybody."]
            + waiting)

    def console_quit(self, _):
        """/quit: stop the server; everybody gets a goodbye"""
        self.server.stop()
        return "Goodbye."
# endregion


# region 18. Main  (lesson 00)
# Names for the windows of --clients: two of the same name could not be in one room.
CATS = ("Minou", "Tigrou", "Félix", "Garfield", "Duchesse", "Salem",
        "Simba", "Luna", "Moustache", "Caramel", "Réglisse", "Grisou")


def can_show_windows() -> bool:
    """Whether this Python has Tk, and this computer a screen to show it on."""
    screen = (os.name == "nt" or sys.platform == "darwin" or os.environ.get("DISPLAY"))
    return bool(screen and importlib.util.find_spec("_tkinter"))


def open_clients(count, host, port, fingerprint="", password=""):
    """Open `count` clients, side by side; return their processes.

    Each gets a name, and so connects at once; CHATTYCAT_PLACE tells it where to stand.
    """
    if count and not can_show_windows():
        say("No screen or no Tk here. Open other terminals and type in each, with a "
            f"name of its own: python3 ChattyCat_Client.py --port {port} --name "
            f"{CATS[0]}")
        return []
    client = os.path.join(HERE, "ChattyCat_Client.py")
    # They are our own children: nobody has to compare fingerprints, or to type the
    # password once more. It goes by the environment, which only this user can read.
    tls = ["--tls", "--fingerprint", fingerprint] if fingerprint else []
    # sys.executable: the Python that runs this, and not whatever "python" is here. A
    # list and no shell: nothing to quote, and a debugger follows into the clients.
    # Without DEVNULL they would snatch from the operator what is typed.
    return [subprocess.Popen(
        [sys.executable, client, "--host", host, "--port", str(port), "--name", name,
         *tls], stdin=subprocess.DEVNULL,
        env={**os.environ, "CHATTYCAT_PLACE": f"{place}/{count}",
             "CHATTYCAT_PASSWORD": password})
        for place, name in enumerate(CATS[:count])]


def raise_descriptor_limit():
    """Let this process have as many open sockets as the system allows.

    A person takes two descriptors, and many systems begin at 1,024, or even 256.
    """
    try:
        import resource                 # Windows has none, and no such limit
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (ImportError, ValueError, OSError):
        pass                            # macOS may refuse: then it stays as it was


def start_sentence(problem, options) -> str:
    """Say in one sentence why the server could not start, and what to do.

    A traceback would say the same, to those who can read it already.
    """
    if isinstance(problem, (HistoryError, FilesError, CertificateError)):
        return str(problem)
    where = f"port {options.port} on {options.host}"
    number = getattr(problem, "errno", None)
    # Windows says “access denied” when a port is in use and not shared.
    if number == errno.EADDRINUSE or number == errno.EACCES and os.name == "nt":
        return (f"{where} is in use, perhaps by a server that is running already; "
                "stop that one, or choose another port with --port")
    if number == errno.EACCES:
        return f"{where} is not for everybody; choose a port above 1023 with --port"
    # (A host such as "a..b" is a UnicodeError.)
    return (f"this computer cannot listen on {where} ({problem}); "
            "--host wants one of its own addresses, or leave it out")


def cannot_start(sentence) -> int:
    """Say why on the terminal; return the exit status."""
    print(f"ChattyCat_Server.py: {sentence}.", file=sys.stderr)
    stay_readable()
    return 2


def stay_readable():
    """After a double click on Windows, keep the window open until a key is pressed."""
    if os.name == "nt":
        import ctypes
        # Only Python itself (and its launcher) in this console: nobody typed us in.
        # From a terminal there would be a shell as well.
        seen = (ctypes.c_uint * 4)()
        if ctypes.windll.kernel32.GetConsoleProcessList(seen, 4) <= 2:
            input("Press Enter to close this window.")


def announce(server):
    """Say where the server can be talked to, and how.

    The socket listens already: whoever waits for this line may connect at once.
    """
    # To the letter, and without a stamp: scripts and VS Code wait for this line.
    TERMINAL.put(f"ChattyCat server is listening on {server.host}:{server.port}")
    if server.host in ("0.0.0.0", "::"):
        say(f"On the other computers type in: {lan_address()}, port {server.port}")
    if server.tls:
        # In a line of its own, so that it can be copied, and read out in one breath.
        say(f"TLS is on. This server's fingerprint:\n{server.fingerprint}")
    if server.options.password:
        say("Who comes in must know the password.")
        # What travels within this computer nobody else can listen to.
        if not server.tls and not ipaddress.ip_address(server.host).is_loopback:
            say("Careful: without --tls the password travels in clear, and whoever "
                "listens in this network can read it.")
    if server.options.history is not None:
        say(f"The history is kept in {server.options.history}; "
            f"{server.room.last_id:,} lines so far.")
    if server.options.files is not None:
        say(f"Files are kept in {server.options.files}; {len(server.files.kept):,} so "
            f"far, {server.files.bytes / 2**20:,.1f} of {server.options.all_files:,} "
            "MiB are used.")
        if server.options.history is None:
            say("Without --history nobody can fetch them any more after this server's "
                "end; they stay there until you remove them.")
    if server.options.trace:
        say("--trace shows each line as it travels, private ones too; passwords and "
            "sessions as •••.")
    say("Ctrl+C stops it." + ("" if server.options.no_console else
                              " /help lists the operator's commands."))


def make_printable():
    """Let any name be printed on any terminal: 小猫 as \\u5c0f\\u732b where it must be.

    Without this, a terminal that knows no Chinese ends the thread that prints.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # pythonw on Windows has no streams at all, IDLE has some of its own.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def end_in_good_order(server):
    """Let Ctrl+C (SIGINT), `kill` (SIGTERM), and on macOS and Linux a terminal that is
    closed (SIGHUP), stop the server, goodbyes and all."""
    # A handler that sets a flag, and not KeyboardInterrupt: that can strike between
    # any two lines, also while this thread holds the room's lock.
    kinds = [signal.SIGINT, signal.SIGTERM]
    # `nohup` has SIGHUP ignored, so that the server outlives its terminal.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        kinds.append(signal.SIGHUP)
    for kind in kinds:
        signal.signal(kind, lambda *_: server.stop())
    if hasattr(signal, "SIGTTIN"):
        # Started with "&", reading the terminal would stop the whole process.
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)


def main(server_class=ChatServer):
    """Run a server until it is stopped; return the exit status.

    0: it ended in good order; 1: nothing could be written to the history, or sent, any
    more; 2: it could not start.
    """
    options = read_options()
    make_printable()
    raise_descriptor_limit()
    # All that can go wrong at the start goes wrong here, before anybody can connect.
    try:
        log = None if options.log is None else open_log(options.log)
    except OSError as problem:
        return cannot_start(f"the log cannot be written ({problem}); "
                            "--log names a file")
    try:
        options.password = read_password(options.password)
    except ValueError as problem:
        return cannot_start(problem)
    try:
        server = server_class(options)
    except (OSError, UnicodeError, HistoryError, FilesError,
            CertificateError) as problem:
        return cannot_start(start_sentence(problem, options))
    # Python calls this when a mistake has ended a thread. Its own way goes around our
    # queue, and is not in the log.
    threading.excepthook = lambda _: say(traceback.format_exc().rstrip())
    end_in_good_order(server)
    printer = threading.Thread(target=print_lines, args=(log,), daemon=True,
                               name="printer")
    printer.start()
    announce(server)
    if not options.no_console and sys.stdin is not None:
        threading.Thread(target=Console(server).run, daemon=True,
                         name="console").start()
    # "All addresses" is one to listen on, and not one to connect to.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
    clients = open_clients(options.clients, host, server.port, server.fingerprint,
                           options.password)
    try:
        server.serve()                  # returns when somebody has stopped it
    finally:
        # Windows without their server would only try to reconnect, for ever.
        for client in clients:
            client.terminate()
        TERMINAL.put(None)
        printer.join(1)                 # the last lines; not for ever, see say()
    return 1 if server.postman.broken else 0


if __name__ == "__main__":
    sys.exit(main())
# endregion
