"""Tokens and passwords in files, read for each request, so that they may be replaced."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from ..host import read_file, unavailable
from ..records import Unavailable

_MAX_BYTES = 8192


class Login(NamedTuple):
    """A user and a password, which is in no text that is made of it."""

    user: str
    password: str

    def __repr__(self) -> str:
        return "Login(…)"


def secret(path: str) -> str:
    """The first line of a file of a token or password. Raises `Unavailable`."""
    try:
        first = read_file(path, _MAX_BYTES).decode("ascii").splitlines()[:1]
    except UnicodeDecodeError:
        first = []
    if not first or not first[0].strip().isprintable() or not first[0].strip():
        raise Unavailable("implausible", f"{path}: its first line is not a token", "write the token into it")
    return first[0].strip()


def private_login(path: str) -> Login:
    """USER:PASSWORD from the first line of a file that others cannot read. Raises `Unavailable`."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise unavailable(error, path) from None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        fix = f"chmod o= {path}; of a Kubernetes Secret: defaultMode: 0400"
        raise Unavailable("permission", f"{path}: all users can read this password: it is not used", fix)
    try:
        user, colon, password = secret(path).partition(":")
    except Unavailable as error:
        raise Unavailable(error.reason, error.message, "write USER:PASSWORD into it") from None
    if not (user and colon and password):
        message = f"{path}: its first line is not USER:PASSWORD"
        raise Unavailable("implausible", message, "write USER:PASSWORD into it")
    return Login(user, password)
