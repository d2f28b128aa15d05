"""Reads secrets from the system's keyring for ${keyring:SERVICE/USER} in a URL. The only file that imports keyring.

lq reads a secret in the thread that sends, right before it sends: a keyring may be locked and ask the user.
"""

from __future__ import annotations

import re

from jobs.model.errors import SecretMissing

_REFERENCE = re.compile(r"\$\{keyring:([^{}]+)/([^{}/]+)\}")


def fill_in(url: str) -> str:
    """Return a URL with the keyring's secrets in place of its references.

    Raises:
        SecretMissing: the keyring cannot be opened, or has no such secret.
    """
    return _REFERENCE.sub(lambda match: _password(match[1], match[2]), url)


def _password(service: str, user: str) -> str:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise SecretMissing("needs the package keyring (pip install 'lq[keyring]')") from None
    try:
        password = keyring.get_password(service, user)
    except KeyringError:
        raise SecretMissing("the keyring cannot be opened") from None
    if password is None:
        raise SecretMissing("its secret is not in the keyring")
    return password
