"""`tests/lab/up`, `down`, `status`, `restart NAME` and `peers`."""

import subprocess
import sys

import control_plane
import peers
import process

COMMANDS = {
    "up": control_plane.up,
    "down": control_plane.down,
    "status": control_plane.status,
    "restart": lambda: process.restart(sys.argv[2]),
    "peers": peers.main,
}

if __name__ == "__main__":
    try:
        result = COMMANDS[sys.argv[1]]()
    except subprocess.CalledProcessError as failed:
        raise SystemExit(f"lab: {' '.join(map(str, failed.cmd))} failed ({failed.returncode}) {failed.stderr or ''}")
    sys.exit(1 if result is False else 0)
