"""What check.py looks at in lesson 03. Read check.py first: it is the theatre."""
import os
import time

from check import WAYS

FILES = ["server.py"]
LIMIT = 65_536                  # bytes of a line, its newline included
# What is sent behind a line that is too long already. On Windows nothing: a server that
# hangs up before it has read the newline resets the connection, and there its answer
# can be lost with that. (The real one reads on for a moment: see its `see_off`.)
END = b"" if os.name == "nt" else b"\n"


def talk(stage, texts, way="whole"):
    """One connection for all: a text, its answer, the next. "glued": all at once."""
    with stage.guest() as guest:
        if way == "glued":
            guest.send("".join(text + "\n" for text in texts).encode())
        for text in texts:
            if way != "glued":
                guest.send(text.encode() + b"\n", way)
            hear(guest, text, texts)
        guest.hears_no_more()


talk.no_text = "That was not UTF-8."    # what this lesson's program answers to it


def hear(guest, text, texts):
    guest.hears(
        f"You said: {text}",
        (lambda got: got[10:] in texts and got.startswith("You said: "),
         "The lines must be answered in the order in which they came."),
        (lambda got: got.startswith("You said: ") and got[10:] == text.strip(),
         "Spaces belong to the text: only the newline is cut off."),
        (lambda got: got.startswith("You said: ") and (
            text.startswith(got[10:]) or text.endswith(got[10:])),
         "That is a piece of the line. A piece is no line before its newline has come: "
         "keep it, and put the next piece behind it."),
        (lambda got: got.startswith("You said: " + text) and text, "Two messages came "
         "in one recv(), and were taken for one: a newline ends a message."))


def a_conversation(stage, talk):
    """one connection, many messages: each has its answer before the next is sent"""
    talk(stage, [stage.text() for _ in range(3)])
    talk(stage, ["  " + stage.text() + "  ", "a\rb\x0bc", "", stage.text()])


def in_pieces(stage, talk):
    """…however the network cuts them"""
    for way in WAYS:
        talk(stage, [stage.text()], way)


def glued(stage, talk):
    """…and when several come in one piece"""
    talk(stage, [stage.text() for _ in range(4)], "glued")


WORKS = [a_conversation, in_pieces, glued]


def long_but_allowed(stage):
    """a line of 65,536 bytes is still answered, however it is cut"""
    for letter in ("a", "é"):
        text = fill(stage, letter, LIMIT - 1)
        allowed(stage, [text], "whole")
        allowed(stage, [text], "in two halves")
        # Short ones before and behind it: it begins and ends anywhere in a piece.
        allowed(stage, ["hi", text, "ho"], "whole")
    with stage.guest() as guest:
        text = fill(stage, "a", LIMIT - 1)
        guest.send(text.encode())
        time.sleep(0.1)                 # all of it has come, but its newline
        guest.send(b"\n")
        hear_allowed(guest, text)


def allowed(stage, texts, way):
    with stage.guest() as guest:
        guest.send("".join(text + "\n" for text in texts).encode(), way)
        for text in texts:
            hear_allowed(guest, text)


def hear_allowed(guest, text):
    guest.hears(f"You said: {text}", *(
        (got, "This one has exactly 65,536 bytes with its newline: that is allowed. "
         "One byte more is too long.") for got in ("! That line is too long.", None)))


def too_long(stage):
    """a line of 65,537 bytes is refused, and that connection ended"""
    for way in ("whole", "in two halves"):
        with stage.guest() as guest:
            guest.send(fill(stage, "a", LIMIT).encode() + END, way)
            refused(guest)
    others_go_on(stage)


def bytes_count(stage):
    """…bytes are counted, and not characters"""
    with stage.guest() as guest:
        guest.send(b"hi\n" + fill(stage, "é", LIMIT).encode() + END)
        guest.hears("You said: hi", *ALL_LOST)
        refused(guest, "The limit is in bytes: an é has two, an emoji four. Look at "
                "the length before decode(), not after it.")
    others_go_on(stage)


def without_a_newline(stage):
    """…also when its newline never comes"""
    with stage.guest() as guest:
        guest.send(fill(stage, "a", LIMIT).encode())    # with a newline: 65,537
        refused(guest, "The server waits for the newline of a line that is too long "
                "already. One that never ends would fill the memory: look at what is "
                "kept for later, too, and not only at whole lines.")
    others_go_on(stage)


def good_lines_before_it(stage):
    """…but the good lines in front of it are answered first"""
    with stage.guest() as guest:
        first, second = stage.text(), stage.text()
        guest.send(f"{first}\n{second}\n".encode() + b"a" * LIMIT + END)
        for text in (first, second):
            guest.hears(f"You said: {text}", *ALL_LOST)
        refused(guest)
    others_go_on(stage)


ALL_LOST = [("! That line is too long.",
             "A good line came first, in the same piece, and has been lost: each line "
             "is looked at by itself, in its order.")]


def many_short_ones(stage):
    """…and many short lines together are not too long"""
    with stage.guest() as guest:
        texts = [fill(stage, "a", 30_000) for _ in range(4)]
        guest.send("".join(text + "\n" for text in texts).encode())
        for text in texts:
            guest.hears(f"You said: {text}", *(
                (got, "The limit is for one line. What has been answered does not "
                 "count any more.") for got in (None, "! That line is too long.")))


def after_a_reset(stage):
    """…and who is cut off in the middle of a line harms nobody"""
    with stage.guest() as guest:
        guest.send(fill(stage, "a", LIMIT // 2).encode())
        guest.resets()
    others_go_on(stage)


def fill(stage, letter, size):
    """A text of so many bytes that begins with a word."""
    word = stage.word() + "!" * (size % 2)
    return word + letter * ((size - len(word)) // len(letter.encode()))


def refused(guest, why_silent="The limit is not looked at here."):
    guest.hears(
        "! That line is too long.",
        (None, why_silent),
        (lambda got: got.startswith("You said: "),
         why_silent if "bytes" in why_silent else
         "The line was taken. Look at its length before you answer it: 65,536 bytes "
         "with the newline are the most."),
        (lambda got: "too long" in got, "The words must be those of the exercise, to "
         "the letter: ! That line is too long."))
    guest.hears_end("After a line that is too long the server hangs up: who knows what "
                    "comes behind it, and whether it ever ends.")


def others_go_on(stage):
    talk(stage, [stage.text()])


EXERCISE = [too_long, bytes_count, without_a_newline, good_lines_before_it]
STILL = [many_short_ones, long_but_allowed, after_a_reset]
