"""Lesson 03, the server: many messages on one connection, one on each line.

    python3 server.py           listens on port 9999
    python3 server.py 5000      …or on the port that you name
"""
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
        connection.sendall(answer(line).encode())


def answer(data):
    """Return the text that answers these bytes."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "That was not UTF-8.\n"
    return f"You said: {text}\n"


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
