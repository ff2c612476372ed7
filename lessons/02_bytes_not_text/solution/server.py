"""Exercise 02, solved: the answer counts characters and bytes.

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
    data = read_all(connection)
    print(len(data), "bytes:", data)
    connection.sendall(answer(data).encode())


def answer(data):
    """Return the text that answers these bytes."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        # Anybody may send anything. Bytes that are no text must not end the server.
        return "That was not UTF-8.\n"
    # len() counts what there is: characters in a text, bytes in bytes.
    return f"You said: {text}\n{len(text)} characters, {len(data)} bytes\n"


def read_all(connection):
    """Return all bytes that come until the other side has said everything."""
    pieces = []
    while True:
        # At most 5 bytes at a time: so few on purpose. A network cuts where it likes;
        # this cuts every time at the same place, so that you can watch it.
        piece = connection.recv(5)
        if not piece:           # b"": no more will come
            return b"".join(pieces)
        pieces.append(piece)


if __name__ == "__main__":
    main()
