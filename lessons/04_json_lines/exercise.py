"""What check.py looks at in lesson 04. Read check.py first: it is the theatre."""
import json

from check import WAYS, shown

FILES = ["server.py"]
LEFT_OUT = object()             # stands for a field that is left out


def line_of(message):
    return json.dumps(message, ensure_ascii=False).encode() + b"\n"


def hear(guest, expected, *causes):
    """Expect a message: a dict, compared as such, so that spaces do not matter.

    A function as a value is a test of what stands there.
    """
    line = guest.line()
    message = understood(line)
    good = (isinstance(message, dict) and message.keys() == expected.keys() and all(
        wanted(message[key]) if callable(wanted) else same(message[key], wanted)
        for key, wanted in expected.items()))
    wanted = json.dumps({key: "…" if callable(value) else value
                         for key, value in expected.items()}, ensure_ascii=False)
    # As it was expected, in this order of the fields: so the ^ stands where it differs.
    got = line if not isinstance(message, dict) else json.dumps(
        {key: message[key] for key in [*expected, *message] if key in message},
        ensure_ascii=False)
    guest.stage.expect(f"{guest.name} gets {shown(wanted)}", good, wanted, got,
                       why(guest, line, message, expected, causes),
                       instead=guest.silence())


def why(guest, line, message, expected, causes):
    if line is None:
        return guest.find_cause(None, causes)
    if not isinstance(message, dict):
        return guest.find_cause(line, [(True, "That line is no JSON object {…}: look "
                                              "at what encode() makes.")])
    return guest.find_cause(message, [*causes, (
        message.get("type") == expected["type"] and message.keys() != expected.keys(),
        "The fields are not those of the exercise: " + ", ".join(expected) + ".")])


def understood(line):
    try:
        return json.loads(line)
    except (TypeError, ValueError):     # TypeError: None, no line at all
        return None


def same(one, other):
    return type(one) is type(other) and one == other      # to Python True == 1


def talk(stage, texts, way="whole"):
    """One connection: each text in a chat message. "glued": all at once."""
    with stage.guest() as guest:
        data = [line_of({"type": "chat", "text": text}) for text in texts]
        if way == "glued":
            guest.send(b"".join(data))
        for text, line in zip(texts, data):
            if way != "glued":
                guest.send(line, way)
            hear(guest, {"type": "chat", "text": f"You said: {text}"})
        guest.hears_no_more()


talk.no_text = None             # here that is an error like others


def chat(stage, talk):
    """a chat message in JSON gets an answer in JSON"""
    talk(stage, [stage.text(), "two\nlines and a \"quote\"", stage.text()])


def what_is_no_message(stage, talk):
    """what is no message gets an error, and the connection goes on"""
    bad = [b"meow\n", b"\n", b"[1,2]\n", b"7\n", b'{"text":"no type"}\n',
           b'{"type":7}\n', b'{"type":"chat"}\n', b'{"type":"chat","text":7}\n',
           b'{"type":"chat","text":"caf\xe9"}\n', b"[" * 60_000 + b"\n"]
    with stage.guest() as guest:
        for line in bad:
            guest.send(line)
            hear(guest, {"type": "error", "code": "bad_message", "text": is_sentence})
        guest.send(line_of({"type": "chat", "text": "still here"}))
        hear(guest, {"type": "chat", "text": "You said: still here"})


def half_an_emoji(stage, talk):
    """half an emoji does not end the server"""
    with stage.guest() as guest:
        guest.send(b'{"type":"chat","text":"\\ud83d"}\n')
        guest.line()
    talk(stage, [stage.text()])


def is_sentence(text):
    return isinstance(text, str) and bool(text.strip())


WORKS = [chat, what_is_no_message, half_an_emoji]


def ping(stage):
    """ping is answered by pong, with the same number"""
    with stage.guest() as guest:
        for way in WAYS:
            number = stage.random.randrange(2, 10**6)
            guest.send(line_of({"type": "ping", "n": number}), way)
            pong(guest, number)
        for number in (0, -1, 10**30):
            guest.send(line_of({"type": "ping", "n": number}))
            pong(guest, number)
        guest.hears_no_more()


def glued(stage):
    """…also between other messages, in one piece, in their order"""
    with stage.guest() as guest:
        first, second = stage.random.sample(range(10**6), 2)
        text = stage.text()
        guest.send(line_of({"type": "ping", "n": first}) +
                   line_of({"type": "chat", "text": text}) +
                   line_of({"n": second, "type": "ping"}))
        pong(guest, first)
        hear(guest, {"type": "chat", "text": f"You said: {text}"})
        pong(guest, second)


def bad_ping(stage):
    """a ping whose n is missing, or is no whole number, gets the error bad_message"""
    with stage.guest() as guest:
        for n in (stage.word(), "7", "", None, 1.5, float("1e400"), [], [1], {}, False,
                  True, LEFT_OUT):
            guest.send(line_of({"type": "ping"} if n is LEFT_OUT else
                               {"type": "ping", "n": n}).replace(b"Infinity", b"1e999"))
            hear(guest, {"type": "error", "code": "bad_message", "text": is_sentence},
                 (lambda got: type(got.get("n")) is bool,
                  "true is no whole number. To Python it is: isinstance(True, int). "
                  "Ask type(n) is int."),
                 (lambda got: got.get("type") == "pong",
                  "That n is no whole number: the sender should hear of the mistake."))
        guest.send(line_of({"type": "ping", "n": 5}))
        pong(guest, 5)


def unknown(stage):
    """a type that nobody knows gets the error unknown_type"""
    with stage.guest() as guest:
        for kind, more in ((stage.word(), {"text": stage.text(), "n": 3}),
                           (stage.word(), {}), ("Chat", {"text": "Hi"}),
                           ("ping ", {"n": 3}), ("", {}), ("pong", {"n": 3}),
                           ("error", {"text": "!"}), ("猫", {"n": 3})):
            guest.send(line_of({"type": kind, **more}))
            hear(guest, {"type": "error", "code": "unknown_type", "text": is_sentence},
                 (lambda got: got.get("code") == "bad_message",
                  "The message is in good order, only of a type that the server does "
                  "not know: the code for that is unknown_type."),
                 (lambda got: got.get("type") in ("chat", "pong"),
                  f"That was no {kind!r} that you know: a type is compared to the "
                  "letter."))
        guest.hears_no_more()
        guest.send(line_of({"type": "ping", "n": 6}))
        pong(guest, 6)
        # A field that a type does not know is no mistake: newer clients may send it.
        guest.send(line_of({"type": "chat", "text": "Hi", "n": "seven"}))
        hear(guest, {"type": "chat", "text": "You said: Hi"})


def half_an_emoji_for_a_type(stage):
    """…also when that type is half an emoji"""
    with stage.guest() as guest:
        guest.send(b'{"type":"\\ud83d"}\n')
        guest.line()
    talk(stage, [stage.text()])


def what_worked_before(stage):
    """…and all other mistakes are still the error bad_message"""
    what_is_no_message(stage, talk)


def after_a_reset(stage):
    """…also after a connection was reset in the middle of a ping"""
    with stage.guest() as guest:
        guest.send(b'{"type":"pi')
        guest.resets()
    with stage.guest() as guest:
        guest.send(line_of({"type": "ping", "n": 7}))
        pong(guest, 7)


def pong(guest, number):
    hear(guest, {"type": "pong", "n": number},
         (None, "A ping gets no answer. Has on_ping a return?"),
         (lambda got: got.get("code") in ("unknown_type", "bad_message"),
          "The server does not know a ping yet, or takes it for a mistake."),
         (lambda got: got.get("type") == "pong" and "n" not in got,
          "The n is missing: whoever sent two pings could not tell which one this "
          "answers."),
         (lambda got: got.get("type") == "pong" and isinstance(got["n"], str),
          "The n came as a number and must go back as one, without quotes."),
         (lambda got: got.get("type") == "pong" and not same(got["n"], number),
          "That is another n than the one of this ping."),
         (lambda got: got.get("type") == "ping", "A ping is answered by a pong."))


EXERCISE = [ping, glued, bad_ping, unknown]
STILL = [half_an_emoji_for_a_type, what_worked_before, after_a_reset]
