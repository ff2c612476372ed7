"""Exercise 02 solved in another way: socketserver, a file, counting while reading."""
import codecs
import socketserver
import sys


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        decoder = codecs.getincrementaldecoder("utf-8")()
        text, size = "", 0
        try:
            while True:
                data = self.rfile.read1(3)
                size += len(data)
                text += decoder.decode(data, final=not data)
                if not data:
                    break
        except ValueError:
            return self.wfile.write("That was not UTF-8.\n".encode())
        self.wfile.write("You said: {}\n{} characters, {} bytes\n".format(
            text, len(text), size).encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


Server(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
