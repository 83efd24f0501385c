# SPDX-License-Identifier: GPL-2.0-or-later
"""Who an encrypted message is for, by its first bytes. Bytes in, values out; no I/O here."""

# Bytes of a message that show for whom it is encrypted.
HEAD = 32

_SESSION_KEY = 1  # the type of a packet: public-key encrypted session key


def recipient(head: bytes) -> str:
    """The ID of the first key that a message is encrypted to: 16 hexadecimal digits; "": not known.

    ``head`` are the first HEAD bytes. Source: RFC 9580, 4.2 (packet headers) and 5.1 (version 3).
    """
    if not head or not head[0] & 0x80:
        return ""
    if head[0] & 0x40:
        kind = head[0] & 0x3F
        first = head[1] if len(head) > 1 else 255
        length = 1 if first < 192 else 2 if first < 224 else 5 if first == 255 else 0
    else:
        kind = head[0] >> 2 & 0xF
        length = (1, 2, 4, 0)[head[0] & 3]
    body = head[1 + length :]
    if kind != _SESSION_KEY or not length or len(body) < 9 or body[0] != 3:
        return ""
    return body[1:9].hex().upper()
