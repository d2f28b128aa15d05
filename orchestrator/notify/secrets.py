"""Secrets out of the system's keyring, for ${keyring:SERVICE/USER} in a URL. The only file that imports keyring.

It is asked at the moment of sending, in the thread that sends: a keyring may be locked, and may ask a person.
"""

from __future__ import annotations

import re

from jobs.model.errors import SecretMissing

_REFERENCE = re.compile(r"\$\{keyring:([^{}]+)/([^{}/]+)\}")


def filled(url: str) -> str:
    """Return a URL with what the keyring has put in for its references; one without any is returned as it is.

    Args:
        url: from settings.yaml, its ${NAME} of the environment already put in.

    Raises:
        SecretMissing: the keyring cannot be asked, or does not have it.
    """
    return _REFERENCE.sub(lambda found: _password(found[1], found[2]), url)


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
