"""A process that has imported what `ecad` needs, and does each command in a copy of itself.

Somebody who follows a document starts `ecad` a dozen times, and imports take most of the time of a command.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from typing import NoReturn

# The program `ecad` of the shell: it hands its arguments, folder and streams over, and ends as the command does.
CLIENT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps({{"arguments": sys.argv[1:], "folder": os.getcwd()}}).encode()
    socket.send_fds(server, [request], [0, 1, 2])
    sys.exit(server.recv(1)[0])
"""


def serve(address: str) -> None:
    """Do what clients ask for, one after the other, until this process is ended."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        _import_all()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                message, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
                child = os.fork() or _command(json.loads(message), streams)
                for stream in streams:
                    os.close(stream)
                connection.send(bytes([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255]))


def _import_all() -> None:
    import ecad
    from ecad.quality import Judge

    ecad.get_image_generator("EmojiImageGenerator")
    Judge()


def _command(request: dict[str, object], streams: list[int]) -> NoReturn:
    """Be `ecad` with these arguments."""
    code: object = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(str(request["folder"]))
        sys.argv = ["ecad", *request["arguments"]]  # type: ignore[misc]
        from ecad.cli import main

        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    serve(sys.argv[1])
