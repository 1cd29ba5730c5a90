"""A worker for tests: does what each message says, then echoes the message."""

from __future__ import annotations

import os
import subprocess
import sys

from agent.frames import encode_frame, worker_channel


def main() -> None:
    channel = worker_channel()
    while (message := channel.recv()) is not None:
        answer = dict(message)
        match message["op"]:
            case "print":
                sys.stdout.write(message["text"])
                sys.stdout.flush()
            case "complain":
                sys.stderr.write(message["text"])
                sys.stderr.flush()
            case "exit":
                os._exit(message["status"])
            case "spawn":
                answer["pid"] = subprocess.Popen(["sleep", "300"]).pid
            case "read_stdin":
                answer["text"] = sys.stdin.read()
            case "dribble":
                frame = encode_frame({"op": "dribbled"})
                os.write(channel.fileno(), frame[:-1])
                channel.recv()
                os.write(channel.fileno(), frame[-1:])
            case "spin":
                channel.send({"pid": os.getpid()})
                while True:
                    pass
        channel.send(answer)


if __name__ == "__main__":
    main()
