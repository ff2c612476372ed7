"""Lesson 02, the client: it sends one text, and prints the answer.

    python3 client.py           knocks at port 9999
    python3 client.py 5000      …or at the port that you name
"""
import socket
import sys

HOST = "127.0.0.1"
PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 9999


def main():
    text = input("> ")
    with socket.create_connection((HOST, PORT), timeout=5) as connection:
        connection.sendall(text.encode())
        # “I have said everything.” We can still listen; their recv() returns b"" now.
        connection.shutdown(socket.SHUT_WR)
        pieces = []
        while True:
            piece = connection.recv(4096)
            if not piece:
                break
            pieces.append(piece)
        print(b"".join(pieces).decode(), end="")


if __name__ == "__main__":
    main()
