"""Exercise 03 solved in another way: asyncio, a bytearray, find() for split()."""
import asyncio
import sys

LIMIT = 2**16


async def serve(reader, writer):
    buffer = bytearray()
    try:
        while True:
            end = buffer.find(b"\n")
            if end >= LIMIT or (end < 0 and len(buffer) >= LIMIT):
                writer.write(b"! That line is too long.\n")
                await writer.drain()
                break
            if end < 0:
                data = await reader.read(1000)
                if not data:
                    break
                buffer += data
                continue
            line = bytes(buffer[:end])
            del buffer[:end + 1]
            try:
                writer.write(b"You said: " + line.decode().encode() + b"\n")
            except ValueError:
                writer.write(b"That was not UTF-8.\n")
            await writer.drain()
        writer.close()
    except OSError:
        pass


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
