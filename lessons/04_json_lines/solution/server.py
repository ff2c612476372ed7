"""Exercise 04, solved: ping and pong, and an error for a type nobody knows.

    python3 server.py           listens on port 9999
    python3 server.py 5000      …or on the port that you name
"""
import json
import socket
import sys

HOST = "127.0.0.1"
PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 9999


def main():
    with socket.create_server((HOST, PORT)) as listener:
        print(f"listening on {HOST}:{PORT}")
        while True:
            connection, address = listener.accept()
            with connection:
                try:
                    serve(connection, address)
                except OSError as problem:
                    print("lost", address, problem)


def serve(connection, address):
    """Talk to one client, who came from `address`: (ip, port)."""
    for line in lines(connection):
        print("line:", line)
        connection.sendall(encode(answer(line)))


def answer(line):
    """Return the message that answers this line."""
    try:
        message = decode(line)
    except ValueError as problem:
        return error("bad_message", f"That line is no message: {problem}.")
    if message["type"] == "chat":
        return on_chat(message)
    if message["type"] == "ping":
        return on_ping(message)
    return error("unknown_type", f"I do not know the type “{message['type']}”.")


def on_chat(message):
    text = message.get("text")
    if not isinstance(text, str):
        return error("bad_message", "A chat needs a “text”, which is a string.")
    return {"type": "chat", "text": f"You said: {text}"}


def on_ping(message):
    # type() and not isinstance(): to Python, True is an int too.
    if type(message.get("n")) is not int:
        return error("bad_message", "A ping needs an “n”, which is a whole number.")
    return {"type": "pong", "n": message["n"]}


def error(code, text):
    """A message about a mistake: `code` is for programs, `text` for people."""
    return {"type": "error", "code": code, "text": text}


def encode(message):
    """Turn a dict into its line: JSON in UTF-8, and one newline."""
    # ensure_ascii=False: an é travels as é and not as \u00e9. A newline within a text
    # becomes the two characters \n, so that the line does not break.
    line = json.dumps(message, ensure_ascii=False) + "\n"
    # "replace": JSON can hold half an emoji (\ud83d), which UTF-8 cannot.
    return line.encode("utf-8", "replace")


def decode(line):
    """Turn a line into its dict. Raises ValueError for all that is no message."""
    # Not json.loads(line): given bytes, it guesses, and takes UTF-16 as well.
    try:
        message = json.loads(line.decode())
    except RecursionError:      # "[" 60,000 times is a line too
        raise ValueError("it is nested too deeply") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ValueError("it has to be an object with a “type”")
    return message


def lines(connection):
    """Yield each line that comes, as bytes, without its newline."""
    rest = b""                  # what came behind the last newline: half a line
    while True:
        data = connection.recv(4096)
        if not data:
            return
        pieces = (rest + data).split(b"\n")
        # The last piece has no newline behind it (yet): it may be b"".
        rest = pieces.pop()
        for line in pieces:
            yield line


if __name__ == "__main__":
    main()
