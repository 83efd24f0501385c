# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows about what others may try: odd names, prepared sticks, and secrets in the open."""

import json
import os
import subprocess
from pathlib import Path

from tests.faults.bench import Bench
from tests.faults.scenario import Scenario
from tests.vm import service
from tests.vmtest import stick

JUNK = 5000
ODD = "/root/a 'script' \"with\" $(touch /pwned) `touch /pwned`; touch /pwned"


def odd_names(bench: Bench) -> str:
    """What cannot be a label, or is more than one line, is refused; a path may be anything."""
    vm = bench.vm
    for text in ("[dump]\ntarget = LABEL=$(reboot)\n", "[crashkernel]\nappend = a\n  init=/b\n"):
        vm.put(text.encode(), service.DROP_IN)
        refused = vm.run(["tinykdump", "-l"], check=False)
        said = refused.stderr.decode()
        assert refused.status == 2, f"{text!r}: status {refused.status}: {said}"
        assert len(said.splitlines()) == 1 and service.DROP_IN in said, said
    vm.put(b'#!/bin/sh\nls / >"$1/ran"\n', ODD, mode=0o755)
    vm.put(f'[dump]\nscript = {ODD}\n[crashkernel]\nappend = a"b\n'.encode(), service.DROP_IN)
    vm.run(["tinykdump", "-l"])
    assert vm.run(["ls", "/pwned"], check=False).status != 0
    assert '"' not in service.manifest(vm, bench.kver)["cmdline"], "a quote has no end"
    bench.crash()
    gets = bench.saved()
    assert b"pwned" not in stick.read(bench.image, "ran")
    return f"two are refused with one line each, the script runs; {gets}"


def swap_for(bench: Bench, tree: Path) -> stick.Image:
    """Plug in a stick with ext4 that has the files of ``tree``, in place of the usual one."""
    image = stick.Image(bench.workdir / "prepared.img", "ext4")
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "TINYKDUMP", "-d", str(tree),
               str(image.path), "512M"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    bench.swap(image)
    return image


def prepared_stick(bench: Bench) -> str:
    """Links where dumps are removed, fake dumps with a later date, thousands of names."""
    name = bench.vm.run(
        ["python3", "-c", "from tinykdump import hardware; from tinykdump.host import Host;"
         "print(hardware.machine_name(Host()))"]
    ).text.strip()  # fmt: skip
    tree = bench.workdir / "tree"
    mine = tree / "tinykdump" / name
    mine.mkdir(parents=True)
    (tree / "precious").mkdir()
    (tree / "precious/SHA256SUMS").write_text("")
    (tree / "precious/vmcore.flat.gpg.000").write_text("precious")
    (mine / "20250101T000000Z").symlink_to("../../precious")
    (mine / "20250102T000000Z.partial").symlink_to("../../precious")
    for number in range(3):
        fake = mine / f"9999010{number}T000000Z"
        fake.mkdir()
        digest = "0" * 64
        (fake / "SHA256SUMS").write_text(f"{digest}  ../../../precious/vmcore.flat.gpg.000\n"
                                         f"{digest}  vmcore.flat.gpg.000\n")  # fmt: skip
        (fake / "vmcore.flat.gpg.000").write_bytes(os.urandom(1000))
    for number in range(JUNK):
        (mine / f"{number:08}T$(reboot) Z").touch()
    image = swap_for(bench, tree)
    service.reconfigure(bench.vm, "[dump]\nfilesystems = ext4\nkeep = 2\n")
    bench.crash()
    bench.says("dump saved; final action: ")
    stick.extract(image, bench.workdir / "after")
    after = bench.workdir / "after"
    assert (after / "precious/vmcore.flat.gpg.000").read_text() == "precious"
    found = sorted(path for path in (after / "tinykdump" / name).iterdir() if path.is_dir())
    (new,) = (path for path in found if path.name.startswith("20") and not path.is_symlink())
    bench.whole(service.Dump(new, complete=True))
    return f"a complete dump; {refuses(bench, found)}"


def refuses(bench: Bench, found: list[Path]) -> str:
    """A fake dump is not taken for one."""
    fake = next(path for path in found if path.name.startswith("9999"))
    target, status, said = bench.restore(service.Dump(fake, complete=True))
    assert status == 1 and "Traceback" not in said, said
    assert not (target / "vmcore").exists()
    return f"a fake one: {said.splitlines()[-1].replace(f'{fake.parent}/', '')}"


def linked_place(bench: Bench) -> str:
    """The place of the dumps is a link to a directory of others."""
    tree = bench.workdir / "tree"
    (tree / "precious").mkdir(parents=True)
    (tree / "tinykdump").symlink_to("precious")
    image = swap_for(bench, tree)
    service.reconfigure(bench.vm, "[dump]\nfilesystems = ext4\n")
    bench.crash()
    words = bench.last_words()
    assert "the stick has a link where the dumps should be" in words, words
    stick.extract(image, bench.workdir / "after")
    assert not list((bench.workdir / "after/precious").iterdir())
    return f"the final action; {words}"


def secrets_in_the_open(bench: Bench) -> str:
    """With the machine's own key, and a secret in the memory of a process."""
    vm, secret = bench.vm, service.mark()
    vm.put(b"", service.CONFIGURATION)
    vm.run(["tinykdump", "-l"])
    vm.start(["/bin/sh", "-c", f"secret={secret}; while :; do sleep 1; done"])
    image = f"/var/lib/tinykdump/images/{bench.kver}/initramfs-*.img"
    unpacked = vm.shell(f"mkdir /root/image; cd /root/image; for kind in zstd xz gzip; do "
                        f"$kind -dc {image} 2>/dev/null | cpio -id 2>/dev/null && break; done;"
                        "find . -type f | wc -l").text  # fmt: skip
    assert int(unpacked) > 20
    packets = vm.shell("gpg --list-packets /root/image/etc/tinykdump.key").text
    assert ":public key packet:" in packets and "secret" not in packets, packets
    grips = vm.shell("ls /var/lib/tinykdump/keys/private-keys-v1.d").text
    assert grips.count(".key") >= 1, "there is no secret key to look for"
    # As nobody: what is below a private directory is private.
    listed = vm.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "find", "/var/lib/tinykdump",
         "/run/tinykdump", "-mindepth", "1", "-readable"], check=False,
    ).text  # fmt: skip
    assert not listed, f"others can read {listed}"
    held = vm.shell(
        "for key in /var/lib/tinykdump/keys/private-keys-v1.d/*.key; do "
        "sed -n 's/.*(d #\\([0-9A-F]*\\)#.*/\\1/p; s/^Key: //p' $key; done"
    ).text
    assert held
    manifest = json.dumps(service.manifest(vm, bench.kver))
    assert "PRIVATE" not in manifest
    bench.crash()
    assert "saved as " in vm.console
    raw = bench.image.path.read_bytes()
    for each in (secret, bench.mark, "OSRELEASE=", "private-key", "PRIVATE KEY"):
        assert each.encode() not in raw, f"{each} is on the stick in plain text"
    assert secret not in vm.console
    return "none on the raw stick, in the image, on the console, or readable to others"


def writable_files(bench: Bench) -> str:
    """What root reads or runs, and others can write."""
    vm = bench.vm
    vm.put(b"#!/bin/sh\n", "/root/script", mode=0o755)
    vm.put(b"[dump]\nscript = /root/script\n", service.DROP_IN)
    said = []
    for path in (service.DROP_IN, "/root/script", service.KEY):
        vm.shell(f"chmod o+w '{path}'")
        refused = vm.run(["tinykdump", "-b"], check=False)
        said += refused.stderr.decode().splitlines()
        assert refused.status in (1, 2), f"{path}: status {refused.status}: {said}"
        assert path in said[-1], said
        vm.shell(f"chmod o-w '{path}'")
    assert len(said) == 3, said
    vm.run(["tinykdump", "-b"])
    return f"three are refused with one line each: {said[0]}"


ROWS = (
    Scenario("hostile", "writable-files", "configuration, script and key that others can write",
             "an error of one line", writable_files),
    Scenario("hostile", "zip-bomb", "a message that unpacks to more than its parts", "it is cut "
             "off, and restore says so", reason="no guest is needed: tests/unit/test_restore.py"),
    Scenario("hostile", "odd-names", "blanks, quotes, line ends and $() in the label, the "
             "parameters and the path of the script", "an error of one line, or a complete dump; "
             "nothing of it is run", odd_names),
    Scenario("hostile", "prepared-stick", "links, fake complete dumps with later dates, 5000 odd "
             "names", "a complete dump; files of others stay; fake dumps are refused",
             prepared_stick),
    Scenario("hostile", "linked-place", "the place of the dumps is a link", "the final action, "
             "with the reason; nothing is written behind the link", linked_place),
    Scenario("hostile", "secrets", "marks of memory and keys are looked for", "none on the raw "
             "stick, in the image, or readable to others", secrets_in_the_open),
    Scenario("hostile", "unmodelled", "modules and ELF files: truncated, cyclic, lying offsets",
             "an error of one line", reason="no guest is needed: tests/unit/test_bad_input.py"),
)  # fmt: skip
