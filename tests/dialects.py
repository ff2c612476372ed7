"""Two languages of chat servers that tests/crowd.py speaks, and what can go wrong.

A class for a third one needs the same methods; what they are for stands at the first.
"""
import contextlib
import json

DECODER = json.JSONDecoder()    # json.loads() looks for UTF-16 first, in each line


class NoStart(Exception):
    """It could not even begin: nobody there, or not let in."""


class Trouble(Exception):
    """The server has lost, doubled or changed something, or cut somebody off."""


def shorten(line):
    text = line if isinstance(line, str) else bytes(line).decode("utf-8", "replace")
    return f"“{' '.join(text.split())[:150]}”"


class ChattyCat:
    """How to speak to a ChattyCat server (PROTOCOL.md): one JSON object a line."""
    longest = 4000              # characters of a text
    at_once = 20_000            # so many people may wait for the first answer
    joined = b'"joined"'        # stands once in each line that says so, and only there
    echo = True                 # whoever says something gets it too
    bye = b'{"type":"bye"}\n'

    def hello(self, name):
        return b'{"type":"hello","version":1,"name":"%s"}\n' % name.encode()

    def enter(self, person, line):
        """Look at a line that came to a newcomer; return what is to be answered."""
        message = self.parse(line)
        if message.get("type") == "welcome":
            person.present = whole_number(message, "count")
        elif message.get("type") in ("error", "goodbye"):
            why = str(message.get("text")).rstrip(".")
            raise NoStart(f"{person.name} was not let in: {why}")
        return b""

    def say(self, text):
        """A message as our client sends it: with a ref, which comes back."""
        return b'{"type":"chat","text":"%s","ref":"%s"}\n' % (
            text.encode(), text.split(" ", 1)[0].encode())

    def read(self, line):
        """Return (name, text, id) of a message; None for what is beside the talk."""
        message = self.parse(line)
        kind = message.get("type")
        if kind in ("error", "goodbye"):
            raise Trouble(f"the server says: {message.get('text')}")
        if kind != "chat":
            return None             # who comes and goes, and the operator's notices
        text = str(message.get("text"))
        if message.get("ref") != text.split(" ", 1)[0]:
            raise Trouble(f"the ref {message.get('ref')} with {shorten(text)}")
        return str(message.get("from")), text, whole_number(message, "id")

    def answer(self, line):
        return b""

    def parse(self, line):
        with contextlib.suppress(ValueError):
            message = DECODER.decode(line.decode())
            if isinstance(message, dict):
                return message
        raise Trouble(f"a line is no JSON object: {shorten(line)}")


def whole_number(message, name):
    if type(message.get(name)) is not int:
        raise Trouble(f"a “{message['type']}” without the number “{name}”")
    return message[name]


class Irc:
    """The same for an IRC server (RFC 1459), so that others can be measured too."""
    longest = 350               # a line has 512 bytes, with the sender's address
    at_once = 8                 # some keep only few ready for accept(), and drop others
    joined = b" JOIN "
    echo = False                # until the server says that it can (IRCv3)
    bye = b"QUIT\r\n"

    def hello(self, name):
        return (b"CAP REQ :echo-message\r\nNICK %(n)s\r\nUSER %(n)s 0 * :%(n)s\r\n"
                b"CAP END\r\n" % {b"n": name.encode()})

    def enter(self, person, line):
        words = line.decode("utf-8", "replace").split()
        kind = words[1] if len(words) > 1 and line[:1] == b":" else ""
        if kind == "CAP" and "ACK" in words:
            self.echo = True
        elif kind == "001":                 # welcome
            return b"JOIN #room\r\n"
        elif kind == "353":                 # some of the names of those who are there
            person.names += line.split(b" :", 1)[-1].split()
        elif kind == "366":                 # …and that was all of them
            person.present, person.names = len(person.names), []
        elif words[:1] == ["ERROR"] or kind in ("432", "433", "465", "471"):
            raise NoStart(f"{person.name} was not let in: {shorten(line)}")
        return self.answer(line)

    def say(self, text):
        return b"PRIVMSG #room :%s\r\n" % text.encode()

    def read(self, line):
        head, _, text = line.decode("utf-8", "replace").rstrip("\r\n").partition(" :")
        words = head.split()
        name = words[0][1:].split("!")[0] if words else ""
        if words[1:] == ["PRIVMSG", "#room"]:
            return name, text, None
        if words[:1] == ["ERROR"] or words[1:2] == ["404"]:
            raise Trouble(f"the server says: {shorten(line)}")
        return None

    def answer(self, line):
        return b"PONG " + line[5:] if line.startswith(b"PING ") else b""
