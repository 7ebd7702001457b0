"""Does what a container runtime does: read-only root, the image's user and settings, no capabilities."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

from tests.support.image_builder import Image
from tests.support.patience import patience
from tests.support.program import free_port

STATE_FOLDER = "var/lib/ai-energy-exporter"

_ENTER = """
root=$1 volume=$2; shift 2
mount --bind "$root" "$root"
mount --rbind /proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o "$volume" volume "$root/$0"
mount -o remount,bind,ro "$root"
exec "$@"
"""
"""Runs in a mount namespace of its own. A new volume has the owner and mode of the folder that it covers."""


class Container:
    """The image's entry point at work, in the host's network and listening on loopback only."""

    def __init__(self, image: Image, flags: Sequence[str], user: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._image, self._user = image, user
        self.process = subprocess.Popen(self._entered([*image.config["Entrypoint"], *flags]))

    def end(self) -> None:
        """Kill it, if it still runs."""
        self.process.kill()
        self.process.wait()

    def check_health(self) -> tuple[int, str]:
        """Exit status and output of the image's health check."""
        kind, *command = self._image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        done = subprocess.run(self._entered(command), capture_output=True, text=True, timeout=patience(60), check=False)
        return done.returncode, done.stdout + done.stderr

    def metrics(self) -> str:
        """One scrape, as soon as there is one."""
        deadline = time.monotonic() + patience(30)
        while True:
            try:
                with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=patience()) as answer:
                    return str(answer.read().decode())
            except urllib.error.HTTPError as error:
                error.close()  # no sample yet
            except OSError:
                pass  # nobody listens yet
            assert self.process.poll() is None, f"it ended with {self.process.returncode}"
            assert time.monotonic() < deadline, "no scrape"
            time.sleep(0.1)

    def status(self) -> dict[str, str]:
        """``/proc/PID/status`` of the exporter."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}

    def _entered(self, command: Sequence[str]) -> list[str]:
        root, user = str(self._image.root), self._user
        folder = os.stat(os.path.join(root, STATE_FOLDER))
        volume = f"mode={folder.st_mode & 0o7777:o},uid={folder.st_uid},gid={folder.st_gid}"
        settings = [*self._image.config["Env"], f"AI_ENERGY_WEB_LISTEN_ADDRESS={self.address}"]
        kept = "--bounding-set=-all,+sys_chroot,+setuid,+setgid"  # what chroot itself needs
        entered = ["/usr/bin/setpriv", "--no-new-privs", kept, "/usr/sbin/chroot", "--groups=", f"--userspec={user}"]
        inside = ["/usr/bin/env", "--ignore-environment", *settings, *entered, root, *command]
        return ["unshare", "--mount", "sh", "-eufc", _ENTER, STATE_FOLDER, root, volume, *inside]
