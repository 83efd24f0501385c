# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests for selinux: the denials in a log."""

from tests.vmtest.selinux import Denial, denials

LOG = """
[   67.01] audit: type=1400 audit(17.617:29): avc:  denied  { create } for  pid=169 comm="x" \
name=".pwd.lock" scontext=system_u:system_r:a_t:s0 tcontext=system_u:object_r:b_t:s0 tclass=file \
permissive=0
AVC avc:  denied  { read write } for  pid=170 comm="y" dev="vda" ino=432 \
scontext=user_u:user_r:c_t:s0-s0:c0.c1023 tcontext=system_u:object_r:d_t:s0 tclass=dir permissive=1
AVC avc:  granted  { load_policy } for  pid=1 scontext=system_u:system_r:e_t:s0 \
tcontext=system_u:object_r:f_t:s0 tclass=security
"""


def test_denials_of_the_kernels_log_and_of_the_journal() -> None:
    assert denials(LOG) == {
        Denial("a_t", "b_t", "file", "create"),
        Denial("c_t", "d_t", "dir", "read write"),
    }
    assert denials(LOG + LOG) == denials(LOG)
