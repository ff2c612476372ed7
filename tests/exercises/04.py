"""Exercise 04 solved in another way: a thread each, a table of functions, makefile."""
import json
import socket
import sys
import threading


def mistake(code):
    return dict(text="No: " + code, code=code, type="error")


def chat(text=None, **others):
    if type(text) is not str:
        return mistake("bad_message")
    return {"text": "You said: " + text, "type": "chat"}


def ping(n=None, **others):
    good = isinstance(n, int) and not isinstance(n, bool)
    return {"n": n, "type": "pong"} if good else mistake("bad_message")


TYPES = {"chat": chat, "ping": ping}


def answer(line):
    try:
        message = json.loads(str(line, "utf-8"))
        kind = message.pop("type")
        if type(kind) is not str:
            raise TypeError
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return mistake("bad_message")
    if kind not in TYPES:
        return mistake("unknown_type")
    return TYPES[kind](**{key: message[key] for key in message if key.isidentifier()})


def serve(connection):
    try:
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    connection.sendall(json.dumps(answer(line)).encode() + b"\r\n")
    except OSError:
        pass


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    guest = listener.accept()[0]
    threading.Thread(target=serve, args=(guest,), daemon=True).start()
