# SPDX-License-Identifier: GPL-2.0-or-later
import stat

import pytest

from tests import elfwriter, fakehost
from tests.fakehost import FakeHost, busybox_without_final_actions
from tinykdump import config
from tinykdump.errors import TinykdumpError
from tinykdump.image import elf, programs
from tinykdump.image.entries import Entry

LOADER = "/lib64/ld-linux-x86-64.so.2"


@pytest.mark.parametrize(
    ("options", "ocb"),
    [
        (b"\0force-ocb\0force-aead\0", "--force-ocb"),
        (b"\0force-aead\0", "--force-aead"),  # GnuPG 2.3
        (b"\0no-force-ocb\0aead-algo\0", ""),
    ],
)
def test_whether_gpg_encrypts_with_ocb(fake: FakeHost, options: bytes, ocb: str) -> None:
    fake.write("/usr/bin/gpg", elfwriter.program() + options, 0o755)
    assert programs.ocb(userland(fake).values()) == ocb
    assert programs.ocb(userland(fake, encrypt=False).values()) == ""


def userland(fake: FakeHost, *, encrypt: bool = True, **options: str) -> dict[str, Entry]:
    chosen = config.resolve([], options)
    entries = programs.userland(fake.host, chosen, encrypt=encrypt)
    return {entry.path: entry for entry in entries}


def test_programs_in_every_image(fake: FakeHost) -> None:
    found = userland(fake)
    assert {"/init", "/lib/tinykdump.sh", "/bin/busybox", "/bin/makedumpfile", "/bin/gpg",
            "/bin/sh"} <= set(found)  # fmt: skip
    assert found["/bin/sh"].content == b"busybox"
    assert found["/init"].mode == stat.S_IFREG | 0o755
    assert "/bin/gpg" not in userland(fake, encrypt=False)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("busybox", "busybox-static"), ("makedumpfile", "makedumpfile"), ("gpg", "gnupg2")],
)
def test_a_missing_program_is_an_error(fake: FakeHost, name: str, hint: str) -> None:
    fake.remove(f"/usr/bin/{name}")
    with pytest.raises(TinykdumpError, match=rf"^{name} is not installed \(install .*{hint}"):
        userland(fake)


def test_a_dynamic_busybox_is_an_error(fake: FakeHost) -> None:
    fake.write("/usr/bin/busybox", elfwriter.program(interpreter=LOADER, needed=["libc.so.6"]))
    with pytest.raises(TinykdumpError, match=r"/usr/bin/busybox is dynamically linked .*static"):
        userland(fake)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a complete ELF file"),
        (b"#!/bin/sh\n", "not a complete ELF file"),
        (elfwriter.program(), "busybox"),  # no code: it cannot run
    ],
)
def test_a_busybox_that_does_not_run_is_an_error(fake: FakeHost, content: bytes, says: str) -> None:
    fake.write("/usr/bin/busybox", content, 0o755)
    with pytest.raises(TinykdumpError, match=f"busybox.*{says}|{says}.*failed|{says} has no"):
        userland(fake)


def test_the_static_busybox_of_suse_comes_first(fake: FakeHost) -> None:
    """There, the other one is dynamic."""
    fake.write("/usr/bin/busybox-static", fakehost.real("busybox").read_bytes(), 0o755)
    fake.write("/usr/bin/busybox", elfwriter.program(interpreter=LOADER, needed=["libc.so.6"]))
    assert userland(fake)["/bin/busybox"].source == "/usr/bin/busybox-static"


def test_a_busybox_without_the_final_actions(fake: FakeHost) -> None:
    """Which the kernel does then: see end_without_applet in src/crash."""
    assert {"/bin/reboot", "/bin/poweroff", "/bin/halt"} <= set(userland(fake))
    fake.write("/usr/bin/busybox", busybox_without_final_actions(), 0o755)
    assert not {"/bin/reboot", "/bin/poweroff", "/bin/halt"} & set(userland(fake))


def test_a_busybox_that_lacks_an_applet_is_an_error(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "APPLETS", ("sh", "frobnicate", "cat", "quux"))
    with pytest.raises(TinykdumpError, match=r"/usr/bin/busybox has no frobnicate, quux \(inst"):
        userland(fake)


def library(fake: FakeHost, path: str, *needed: str) -> None:
    fake.write(path, elfwriter.program(needed=needed), 0o755)


def test_libraries_of_libraries_are_found(fake: FakeHost) -> None:
    fake.write("/etc/ld.so.conf", "include ld.so.conf.d/*.conf\n/opt/b # mine\n")
    fake.write("/etc/ld.so.conf.d/a.conf", "# multiarch\n/opt/a\n")
    fake.write(LOADER, elfwriter.program(), 0o755)
    library(fake, "/opt/a/liba.so.1", "libb.so.1", "ld-linux-x86-64.so.2")
    library(fake, "/opt/b/libb.so.1", "liba.so.1")  # a cycle
    library(fake, "/opt/b/liba.so.1")  # hidden by that of /opt/a
    library(fake, "/usr/lib/own/libc.so.1")
    tool = elfwriter.program(interpreter=LOADER, needed=["liba.so.1", "libc.so.1"],
                             runpath="/nowhere:$ORIGIN/../lib/own")  # fmt: skip
    fake.write("/usr/bin/makedumpfile", tool, 0o755)
    found = userland(fake, encrypt=False)
    assert {path: entry.source for path, entry in found.items() if ".so" in path} == {
        LOADER: LOADER, "/lib/liba.so.1": "/opt/a/liba.so.1", "/lib/libb.so.1": "/opt/b/libb.so.1",
        "/lib/libc.so.1": "/usr/bin/../lib/own/libc.so.1",
    }  # fmt: skip


def test_an_ld_so_conf_that_includes_itself_is_an_error(fake: FakeHost) -> None:
    fake.write("/etc/ld.so.conf", "include ld.so.conf\n")
    with pytest.raises(TinykdumpError, match=r"/etc/ld\.so\.conf includes itself"):
        userland(fake)


def test_a_missing_library_is_an_error(fake: FakeHost) -> None:
    library(fake, "/lib/liba.so.1", "libb.so.1")
    fake.write("/usr/bin/gpg", elfwriter.program(needed=["liba.so.1"]), 0o755)
    with pytest.raises(TinykdumpError, match=r"^library libb.so.1 of /lib/liba.so.1 is not inst"):
        userland(fake)


def test_a_library_for_another_architecture_is_skipped(fake: FakeHost) -> None:
    foreign = bytearray(elfwriter.program())
    foreign[18:20] = (183).to_bytes(2, "little")  # EM_AARCH64
    fake.write("/lib/liba.so.1", bytes(foreign))
    library(fake, "/usr/lib/liba.so.1")
    fake.write("/usr/bin/gpg", elfwriter.program(needed=["liba.so.1"]), 0o755)
    assert userland(fake)["/lib/liba.so.1"].source == "/usr/lib/liba.so.1"


# --- the user's script ------------------------------------------------------------------


MERGED = {"/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"}


@pytest.mark.parametrize("line", ["#!/bin/sh", "#! /usr/bin/env sh", "#!/bin/busybox ash"])
def test_a_script_for_sh_needs_no_other_program(fake: FakeHost, line: str) -> None:
    without = set(userland(fake))
    for path in ("/bin/sh", "/usr/bin/sh", "/usr/bin/env", "/bin/busybox"):
        fake.write(path)
    fake.write("/usr/bin/busybox", fakehost.real("busybox").read_bytes(), 0o755)
    fake.write("/root/x", f"{line}\necho\n", 0o755)
    found = userland(fake, script="/root/x")
    assert found["/script"].content == f"{line}\necho\n".encode()
    assert found["/script"].mode == stat.S_IFREG | 0o755
    assert set(found) - without == {"/script", *MERGED}


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("#!/usr/bin/perl -w", "/bin/perl"),
        ("#!/usr/bin/env perl", "/bin/perl"),
        ("#!/opt/perl5/perl", "/opt/perl5/perl"),
    ],
)
def test_another_interpreter_is_added_with_its_libraries(
    fake: FakeHost, line: str, place: str
) -> None:
    for path in ("/usr/bin/perl", "/opt/perl5/perl"):
        fake.write(path, elfwriter.program(needed=["libperl.so.5"]), 0o755)
    library(fake, "/usr/lib/libperl.so.5")
    fake.write("/root/x", f"{line}\n", 0o755)
    found = userland(fake, script="/root/x")
    assert found[place].mode == stat.S_IFREG | 0o755
    assert "/lib/libperl.so.5" in found
    # A script may name any of these; in the image they are links to /bin.
    assert {found[link].content for link in MERGED} == {b"/bin"}


def test_a_script_can_be_an_elf_program(fake: FakeHost) -> None:
    library(fake, "/usr/lib/libx.so.1")
    fake.write("/root/x", elfwriter.program(needed=["libx.so.1"]), 0o755)
    found = userland(fake, script="/root/x")
    assert elf.parse(found["/script"].content, "x").needed == ("libx.so.1",)
    assert "/lib/libx.so.1" in found


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0, "/root/x: No such file or directory (check"),
        ("#!/bin/sh\n", 0o644, "script /root/x is not executable (chmod +x /root/x)"),
        ("#!/bin/tcsh\n", 0o755, "interpreter /bin/tcsh of script /root/x is not installed (in"),
        ("#!\n", 0o755, "interpreter  of script /root/x is not installed"),
        ("#!/usr/bin/env tcsh\n", 0o755, "tcsh is not installed (install the interpreter of scri"),
        ("echo hello\n", 0o755, "script /root/x has no #! line (start it with #!/bin/sh)"),
        ("", 0o755, "script /root/x has no #! line"),
    ],
)
def test_a_script_that_cannot_run_is_an_error(
    fake: FakeHost, content: str | None, mode: int, says: str
) -> None:
    if content is not None:
        fake.write("/root/x", content, mode)
    with pytest.raises(TinykdumpError) as caught:
        userland(fake, script="/root/x")
    assert str(caught.value).startswith(says)


def test_a_missing_src_crash_is_an_error(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "CRASH_SIDE", (fake.path("/none"),))
    with pytest.raises(TinykdumpError, match=r"/none/init is missing \(reinstall tinykdump\)"):
        userland(fake)
