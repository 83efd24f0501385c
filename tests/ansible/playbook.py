# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the role in a guest, with ansible-playbook on this machine."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm import service
from tests.vmtest.errors import GuestFailed
from tests.vmtest.vm import VM

CONTRIB = service.REPOSITORY / "contrib/ansible"
PROGRAMS = Path(sys.executable).parent  # of the virtual environment
HERE = Path(__file__).parent

# Of a whole run, under TCG on a busy host.
SECONDS = 1800.0


@dataclass(frozen=True)
class Played:
    """What a run of ansible-playbook did."""

    status: int
    text: str

    @property
    def changed(self) -> tuple[str, ...]:
        """The names of the tasks that changed something, or would."""
        return tuple(
            re.sub(r"^.* : ", "", name)
            for name, result in re.findall(r"^TASK \[(.*)\].*\n((?:(?!TASK|PLAY).*\n)*)",
                                           self.text, re.MULTILINE)
            if re.search(r"^changed: ", result, re.MULTILINE)
        )  # fmt: skip

    @property
    def count(self) -> int:
        """How many tasks changed something, as Ansible counts them."""
        (count,) = re.findall(r"^guest +: .*changed=(\d+)", self.text, re.MULTILINE)
        return int(count)


def environment(**more: str) -> dict[str, str]:
    """Ansible's settings."""
    return {
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8",
        "ANSIBLE_NOCOLOR": "1", "NO_COLOR": "1",
        "ANSIBLE_ROLES_PATH": str(CONTRIB / "roles"), "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "0", **more,
    }  # fmt: skip


def play(vm: VM, variables: Mapping[str, Any], *options: str, tasks_from: str = "main") -> Played:
    """Run the role in a guest."""
    with tempfile.TemporaryDirectory(prefix="tk-") as name, socket.socket(socket.AF_UNIX) as server:
        place = Path(name)
        role = {"name": "tinykdump", "tasks_from": tasks_from}
        book = [{"hosts": "all", "tasks": [{"ansible.builtin.include_role": role}]}]
        (place / "play.yml").write_text(json.dumps(book))
        (place / "variables.json").write_text(json.dumps(dict(variables)))
        (place / "ansible.cfg").write_text("")  # and no other one is read
        server.bind(str(place / "socket"))
        server.listen()
        server.settimeout(0.5)
        command = [str(PROGRAMS / "ansible-playbook"), "--inventory", "guest,",
                   "--extra-vars", "ansible_connection=guest",
                   "--extra-vars", "ansible_python_interpreter=/usr/bin/python3",
                   "--extra-vars", f"@{place}/variables.json", *options,
                   str(place / "play.yml")]  # fmt: skip
        settings = environment(
            ANSIBLE_CONNECTION_PLUGINS=str(HERE / "connection"), HOME=name,
            ANSIBLE_CONFIG=str(place / "ansible.cfg"), ANSIBLE_LOCAL_TEMP=str(place / "local"),
            TINYKDUMP_GUEST=str(place / "socket"),
        )  # fmt: skip
        with (place / "log").open("w") as log:
            process = subprocess.Popen(command, env=settings, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=subprocess.STDOUT)  # fmt: skip
            try:
                while process.poll() is None:
                    _serve(vm, server)
            finally:
                process.kill()
                process.wait()
        played = Played(process.returncode, (place / "log").read_text())
    print(played.text)
    return played


def _serve(vm: VM, server: socket.socket) -> None:
    """Answer one request, if one comes soon. A VM belongs to its thread, so this is not another."""
    try:
        there, _ = server.accept()
    except TimeoutError:
        return
    with there, there.makefile("rb") as file:
        there.settimeout(10)
        request = json.loads(file.read())
        try:
            answer = _answer(vm, request)
        except GuestFailed as error:
            answer = {"error": str(error)}
        there.sendall(json.dumps(answer).encode())


def _answer(vm: VM, request: Mapping[str, str]) -> dict[str, Any]:
    match request["op"]:
        case "put":
            vm.put(Path(request["from"]), request["to"])
            return {}
        case "get":
            return {"data": b64encode(vm.get(request["from"])).decode()}
    done = vm.run(["/bin/sh", "-c", request["command"]], stdin=b64decode(request["stdin"]),
                  check=False, timeout=SECONDS)  # fmt: skip
    return {
        "status": done.status,
        "stdout": b64encode(done.stdout).decode(),
        "stderr": b64encode(done.stderr).decode(),
    }
