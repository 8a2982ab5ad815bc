"""`tests/lab/up`, `down` and `status`."""

import subprocess
import sys

import control_plane

COMMANDS = {"up": control_plane.up, "down": control_plane.down, "status": control_plane.status}

if __name__ == "__main__":
    try:
        result = COMMANDS[sys.argv[1]]()
    except subprocess.CalledProcessError as failed:
        raise SystemExit(f"lab: {' '.join(map(str, failed.cmd))} failed ({failed.returncode}) {failed.stderr or ''}")
    sys.exit(1 if result is False else 0)
