"""What check.py looks at in lesson 02. Read check.py first: it is the theatre."""
import re

from check import WAYS

FILES = ["server.py"]


def talk(stage, texts, way="whole"):
    """One connection for each text: say it, say that this was all, hear the answer."""
    for text in texts:
        with stage.guest() as guest:
            say(guest, text, way)


def say(guest, text, way):
    guest.send(text.encode(), way)
    guest.has_said_all()
    guest.hears(
        f"You said: {text}",
        ("Hello from the cat.", "The server greets, and does not read what comes."),
        (lambda got: got == NO_TEXT or "\ufffd" in got or is_part(got[10:], text),
         "The bytes were cut, and a piece alone is not the whole text: put all pieces "
         "together first, then decode() once."),
        (lambda got: text in got, "The text came back; what stands around it must be "
         "as it was in the lesson."))


def is_part(got, text):
    """Whether it is what is left of the text when some characters are lost."""
    rest = iter(text)
    return got != text and all(character in rest for character in got)


NO_TEXT = "That was not UTF-8."
talk.no_text = NO_TEXT              # what this lesson's program answers to it


def all_letters(stage, talk):
    """letters of one, two, three and four bytes come back as they were"""
    talk(stage, ["é", "🐈", stage.text()])


def all_letters_in_pieces(stage, talk):
    """…however the network cuts them"""
    for way in WAYS:
        talk(stage, [stage.text()], way)


def bytes_that_are_no_text(stage, talk):
    """bytes that are no UTF-8 do not end the server"""
    with stage.guest() as guest:
        guest.send(b"caf\xe9\n")            # as an old Windows writes it
        guest.has_said_all()
        if talk.no_text:
            guest.hears(talk.no_text)
            guest.hears_end("What is no text gets this one line, and nothing else.")
        else:
            guest.line()
    talk(stage, [stage.text()])


WORKS = [all_letters, all_letters_in_pieces, bytes_that_are_no_text]


def counts(stage):
    """the second line says how many characters and how many bytes"""
    for text in ("a", "é", "🐈", "\ufeffa", stage.text(), stage.text() * 20):
        with stage.guest() as guest:
            hear_both(stage, guest, text, "whole")


def counts_in_pieces(stage):
    """…however the network cuts them"""
    for way in WAYS:
        with stage.guest() as guest:
            hear_both(stage, guest, stage.text(), way)


def counts_nothing(stage):
    """…also when there was nothing at all, or a space and a newline"""
    with stage.guest() as guest:
        hear_both(stage, guest, "", "whole")
    with stage.guest() as guest:
        guest.send(b"a\r\nb")
        guest.has_said_all()
        guest.hears("You said: a")
        guest.hears("b", (True, "Here the text goes on, behind a newline of its own."))
        guest.hears("4 characters, 4 bytes", (
            True, "Windows ends a line with two characters. Count both."))
    with stage.guest() as guest:
        guest.send("ü \n".encode())
        guest.has_said_all()
        guest.hears("You said: ü ")
        guest.hears("", (True, "The text has a newline at its end. It comes back "
                         "too."))
        guest.hears("3 characters, 4 bytes",
                    (True, "A space and a newline are characters too: count what came, "
                     "and not what is left after strip()."))


def counts_after_trouble(stage):
    """…also after a connection was reset, and after bytes that are no text"""
    with stage.guest() as guest:
        guest.send("🐈".encode()[:2])
        guest.resets()
    with stage.guest() as guest:
        hear_both(stage, guest, stage.text(), "whole")
    bytes_that_are_no_text(stage, talk)
    with stage.guest() as guest:
        hear_both(stage, guest, stage.text(), "whole")


def hear_both(stage, guest, text, way):
    say(guest, text, way)
    size, length = len(text.encode()), len(text)
    utf_16 = len(text.encode("utf-16-le")) // 2
    guest.hears(
        f"{length} characters, {size} bytes",
        (None, "The text came back, and no second line. That is the exercise."),
        (f"{size} characters, {length} bytes", "The two are swapped."),
        (f"{size} characters, {size} bytes",
         "Both are bytes. len() of bytes counts bytes; decode() first, and len() "
         "counts characters."),
        (f"{length} characters, {length} bytes",
         "Both are characters. len() of a text counts characters; the bytes are what "
         "came, before decode()."),
        (f"{utf_16} characters, {size} bytes",
         "An emoji is one character here. (Some languages count it as two, since "
         "their strings are UTF-16; Python's len() does not.)"),
        (lambda got: numbers(got) == [length, size], "The numbers are right; the words "
         "must be those of the exercise, to the letter: always “characters” "
         "and “bytes”, for one too."),
        (lambda got: numbers(got)[-1:] and numbers(got)[-1] <= 5 < size,
         "Only one piece was counted. A text comes in many pieces: count when all of "
         "them are together."),
        (lambda got: got.split(" ")[0].isdigit(),
         "Count the text that came, without “You said: ” and without a newline of your "
         "own."))
    guest.hears_end("After these two lines the server hangs up, as it did before.")


def numbers(line):
    return [int(word) for word in re.findall(r"[0-9]+", line)]


EXERCISE = [counts, counts_in_pieces, counts_nothing, counts_after_trouble]
STILL = []
