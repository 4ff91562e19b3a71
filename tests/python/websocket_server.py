"""A WebSocket server of the package `websockets`. Prints its port, and how each connection was closed as `closed CODE
REASON`. Ends with its standard input.

By path: `/echo` sends back what it gets, in two fragments what is longer than 10; `/bye` closes with 4002 `enough` after
the first message; `/ping` pings the client and says that the pong came.
"""

import asyncio
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def handle(socket):
    path = socket.request.path
    try:
        if path == "/ping":
            await (await socket.ping(b"are you there"))
            await socket.send("pong came")
        async for message in socket:
            if path == "/bye":
                await socket.close(4002, "enough")
            elif len(message) > 10:
                await socket.send(iter([message[:5], message[5:]]))
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass
    print("closed", socket.close_code, socket.close_reason, flush=True)


async def main():
    async with serve(handle, "127.0.0.1", 0, max_size=1 << 22, subprotocols=["chat"], ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
