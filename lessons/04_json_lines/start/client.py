"""Lesson 03, the client: a conversation, line by line. An empty line ends it.

    python3 client.py           knocks at port 9999
    python3 client.py 5000      …or at the port that you name
"""
import socket
import sys

HOST = "127.0.0.1"
PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 9999


def main():
    with socket.create_connection((HOST, PORT), timeout=5) as connection:
        answers = lines(connection)
        while True:
            text = input("> ")
            if not text:
                break
            connection.sendall(text.encode() + b"\n")
            # next() runs the generator to its next `yield`; None: it has ended.
            answer = next(answers, None)
            if answer is None:
                print("The server has hung up.")
                break
            print(answer.decode())


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
