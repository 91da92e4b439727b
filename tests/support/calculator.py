"""What a worker of a crew holds in the tests; beside it nothing is imported, so that a worker starts in a moment."""

from __future__ import annotations

import os


class Calculator:
    """What a worker holds in these tests; it remembers what it was asked, in a folder."""

    def __init__(self, folder, broken=""):
        if broken:
            raise FileNotFoundError(broken)
        self.folder = folder

    def double(self, number):
        with open(self.folder / str(os.getpid()), "a") as file:
            file.write(f"{number} ")
        return 2 * number, os.environ["OMP_NUM_THREADS"]

    def die_once(self, number):
        marker = self.folder / f"died-{number}"
        if not marker.exists():
            marker.touch()
            os._exit(9)
        return number, ""

    def die(self, number):
        os._exit(9)

    def fail(self, number):
        raise ValueError(f"{number} is not to be had")

    def fill(self, number):
        from langsamp.core.files import DiskFullError

        raise DiskFullError(f"/disk/{number}")

    def where(self):
        return os.getpid()
