"""Lesson 01, the client: it connects, and prints what the server says.

    python3 client.py           knocks at port 9999
    python3 client.py 5000      …or at the port that you name
"""
import socket
import sys

HOST = "127.0.0.1"
PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 9999


def main():
    # create_connection() makes a socket and connects it. Without a timeout it would
    # wait two minutes for a computer that does not answer at all.
    with socket.create_connection((HOST, PORT), timeout=5) as connection:
        print("my end:   ", connection.getsockname())
        print("their end:", connection.getpeername())
        while True:
            data = connection.recv(4096)
            if not data:        # b"", no bytes at all: the other side has hung up
                break
            print(data.decode(), end="")


if __name__ == "__main__":
    main()
