# SPDX-License-Identifier: GPL-2.0-or-later
"""The spec as Fedora, CentOS Stream and openSUSE would read it, and what tools/rpm builds of it."""

import hashlib
import hmac
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernel.build import SERIES
from kernel.releases import RELEASES, Release
from kernel.tree import find_series
from tests.rpm import repository
from tests.rpm.distributions import RPM as DISTRIBUTIONS
from tinykdump import __version__

CHECKOUT = Path(__file__).parents[2]
SPEC = CHECKOUT / "tinykdump.spec"
MACROS = Path(__file__).parent / "macros"


def rpmspec(distribution: str, *words: str, target: str = "x86_64") -> list[str]:
    """Its output; what it complains about is an error."""
    macros = (
        f"/usr/lib/rpm/macros:/usr/lib/rpm/platform/{target}-linux/macros:{MACROS / distribution}"
    )
    command = ["rpmspec", f"--macros={macros}", f"--target={target}", *words, str(SPEC)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("kernel", ["--with=kernel", "--without=kernel"])
def test_every_macro_is_known(name: str, kernel: str) -> None:
    """Nothing stays unexpanded but what is left out on purpose: a comment."""
    code = [line for line in rpmspec(name, "-P", kernel) if not line.lstrip().startswith("#")]
    assert [line for line in code if re.search(r"%\{?[?!]?[_a-z]{3}", line)] == [
        line for line in code if line.split(" ")[0] in SECTIONS
    ]


SECTIONS = {
    "%build", "%changelog", "%check", "%config(noreplace)", "%description", "%dir", "%doc",
    "%files", "%generate_buildrequires", "%ghost", "%install", "%license", "%package", "%post",
    "%posttrans", "%postun", "%pre", "%prep", "%preun", "%transfiletriggerin",
    "%transfiletriggerpostun",
}  # fmt: skip


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_tinykdump_alone(name: str) -> None:
    dist = DISTRIBUTIONS[name].dist
    alone = ("-q", "--without=kernel")
    names = ["tinykdump", *["tinykdump-selinux"] * (name != "opensuse")]
    assert rpmspec(name, *alone, "--qf=%{nevra}\n") == [
        f"{each}-{__version__}-1{dist}.noarch" for each in names
    ]
    assert rpmspec(name, *alone, "--srpm", "--qf=%{name}\n") == ["tinykdump"]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_patches_apply_in_the_order_of_the_kernel_tests(tmp_path: Path, locale: str) -> None:
    """The loop of %prep itself, with a patch(1) that only shows what it is given."""
    prep = "\n".join(rpmspec("fedora", "-P", "--with=kernel"))
    ((loop, release),) = re.findall(
        r"^(for series in \S*/series/(\S+?)/.*?^done)$", prep, re.M | re.S
    )
    (tmp_path / "kernel").symlink_to(CHECKOUT / "kernel")
    (tmp_path / "linux").mkdir()
    shown = subprocess.run(
        ["sh", "-eu", "-c", f"patch() {{ cat; }}\n{loop}"],
        cwd=tmp_path / "linux", env={**os.environ, "LC_ALL": locale},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    patches = [one for series in find_series(SERIES / release, None) for one in series.patches]
    assert shown.stdout == "".join(patch.read_text() for patch in patches)


@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.name)
def test_another_kernel_can_be_chosen(release: Release) -> None:
    chosen = f"--define=kernel_series {release.name}"
    text = "\n".join(rpmspec("fedora", "-P", "--with=kernel", chosen))
    assert re.findall(r"^Version:\s+(\S+)$", text, re.M)[0] == release.tested
    assert re.findall(r"^for series in \S*/series/(\S+)/", text, re.M) == [release.name]
    assert re.findall(r"/linux/kernel/v(\d+)\.x/linux-(\S+)\.tar", text) == [
        (release.name.split(".")[0], release.tested)
    ]
    assert re.findall(r"^ExclusiveArch:\s+(.+)$", text, re.M) == ["x86_64 aarch64"]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_with_the_kernel(name: str) -> None:
    dist = DISTRIBUTIONS[name].dist
    built = rpmspec(
        name, "-q", "--with=kernel", "--define=kernel_version 7.2.99", "--qf=%{nevra}\n"
    )
    assert sorted(built) == [
        f"kernel-tinykdump-7.2.99-1{dist}.x86_64",
        f"kernel-tinykdump-crash-7.2.99-1{dist}.x86_64",
        f"kernel-tinykdump-debuginfo-7.2.99-1{dist}.x86_64",
        f"kernel-tinykdump-devel-7.2.99-1{dist}.x86_64",
        f"tinykdump-{__version__}-1{dist}.noarch",
        *[f"tinykdump-selinux-{__version__}-1{dist}.noarch"] * (name != "opensuse"),
    ]
    provided = rpmspec(name, "-q", "--with=kernel", "--provides")
    kver = next(line for line in provided if line.startswith("kernel-uname-r = ")).split()[-1]
    assert kver.endswith(f"-1{dist}.x86_64+tinykdump")
    assert "installonlypkg(kernel)" in provided
    assert ("multiversion(kernel)" in provided) == (name == "opensuse")
    tags = rpmspec(name, "-P", "--with=kernel")
    wanted = "kernel-default-devel" if name == "opensuse" else "kernel-devel"
    assert f"BuildRequires:  {wanted}" in tags
    assert "BuildRequires:  dwarves" in tags
    ours = rpmspec(name, "-P", "--with=kernel", "--define=kernel_config /tmp/config")
    assert f"BuildRequires:  {wanted}" not in ours


def test_the_sum_that_fips_mode_checks(tmp_path: Path) -> None:
    """By the lines of %install themselves: HMAC-SHA512 with the key of libkcapi's sha512hmac."""
    install = "\n".join(rpmspec("fedora", "-P", "--with=kernel"))
    ((lines, kver),) = re.findall(
        r"^(\(cd \S+ && openssl .*?vmlinuz-(\S+)/' >\S+)$", install, re.M | re.S
    )
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    environment = {**os.environ, "modules": str(tmp_path)}
    subprocess.run(["sh", "-eu", "-c", lines], env=environment, check=True)
    digest = hmac.digest(b"FIPS-FTW-RHT2009", b"kernel", "sha512").hex()
    assert (tmp_path / ".vmlinuz.hmac").read_text() == f"{digest}  vmlinuz-{kver}\n"


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_it_needs_no_other_dumper(name: str) -> None:
    for tag in ("--requires", "--conflicts", "--obsoletes"):
        text = "\n".join(rpmspec(name, "-q", "--with=kernel", tag))
        assert not re.search("dracut|kdump-utils|grubby", text), tag


def scriptlets(distribution: str) -> list[str]:
    """Their text, of all packages."""
    text = "\n".join(rpmspec(distribution, "-P", "--with=kernel"))
    kinds = "post|pre|preun|postun|posttrans|transfiletriggerin|transfiletriggerpostun"
    pattern = rf"^%(?:{kinds})\b[^\n]*\n(.*?)(?=^%)"
    return re.findall(pattern, text, re.MULTILINE | re.DOTALL)


def test_who_hears_of_kernels() -> None:
    """A file trigger where kernels do not call kernel-install, and else its plugin."""
    for name in DISTRIBUTIONS:
        text = "\n".join(scriptlets(name))
        assert ("scriptlets kernels-added" in text) == (name == "opensuse")
        assert ("scriptlets kernels-removed" in text) == (name == "opensuse")
        assert ("kernel-install add" in text) == (name != "opensuse")
        required = rpmspec(name, "-q", "--with=kernel", "--requires")
        assert ("/usr/bin/kernel-install" in required) == (name != "opensuse")


def test_scriptlets_can_not_fail() -> None:
    """Each command of ours ends in what makes it true; the distributions' are theirs."""
    found = scriptlets("fedora")
    assert len(found) == 12
    for script in found:
        commands = [line for line in script.splitlines() if line and not line.startswith("#")]
        commands = [
            line
            for line in commands
            if not line.startswith(
                ("systemd-update-helper", "selinux-", '[ "$1" -gt 0 ] || selinux-')
            )
        ]
        assert not commands or all(line.endswith("|| :") for line in commands) or (
            commands[-1] == "exit 0"
        ), script  # fmt: skip


def test_a_distribution_decides_what_is_enabled() -> None:
    """No preset of ours but where it is asked for."""
    for option, wanted in (("--without=preset", False), ("--with=preset", True)):
        text = "\n".join(rpmspec("fedora", "-P", "--without=kernel", option))
        assert ("90-tinykdump.preset" in text) == wanted
    assert "90-tinykdump.preset" not in "\n".join(rpmspec("fedora", "-P", "--without=kernel"))


@pytest.mark.parametrize("target", ["x86_64", "aarch64"])
def test_for_the_architectures_of_the_images(target: str) -> None:
    """koji builds noarch packages wherever it likes, and composes them for all architectures."""
    text = "\n".join(rpmspec("fedora", "-P", "--without=kernel", target=target))
    assert re.search(r"^ExclusiveArch: +x86_64 aarch64 noarch$", text, re.MULTILINE)
    names = rpmspec("fedora", "-q", "--without=kernel", "--qf=%{arch}\n", target=target)
    assert set(names) == {"noarch"}


@pytest.mark.parametrize(
    ("target", "image", "crash"),
    [("x86_64", "arch/x86/boot/bzImage", True), ("aarch64", "arch/arm64/boot/Image", False)],
)
def test_kernel_package_of_an_architecture(target: str, image: str, crash: bool) -> None:
    """The image that kexec loads; the small crash kernel is for x86-64."""
    text = "\n".join(rpmspec("fedora", "-P", "--with=kernel", target=target))
    (place,) = re.findall(r'^install -m 755 \S+/objects/(\S+) "\$modules/vmlinuz"$', text, re.M)
    assert place == image
    (built,) = re.findall(r"\bLOCALVERSION=\S+?\+tinykdump (\S+) modules$", text, re.M)
    assert built == Path(image).name
    query = ("-q", "--with=kernel", "--qf=%{name} %{arch}\n")
    names = dict(line.split(" ") for line in rpmspec("fedora", *query, target=target))
    assert ("kernel-tinykdump-crash" in names) == crash
    assert names["kernel-tinykdump"] == target
    assert {names["tinykdump"], names["tinykdump-selinux"]} == {"noarch"}


def test_no_scriptlet_deletes_a_directory() -> None:
    for script in scriptlets("fedora"):
        assert not re.search(r"\brm\b", script)


def test_tests_of_check() -> None:
    """Run unless they are left out, and without those that need root or git."""
    text = "\n".join(rpmspec("fedora", "-P", "--without=kernel"))
    assert '-m "not checkout" tests/unit tests/man' in text
    assert "BuildRequires:  python3-pytest\n" in text
    without = "\n".join(rpmspec("fedora", "-P", "--without=kernel", "--without=tests"))
    assert "pytest" not in without


# What the environment of the tests has, and a build of the package has not (pyproject.toml).
FOREIGN = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ansible", "drgn", "qemu", "rich", "xdist", "yaml"):
            raise ModuleNotFoundError(f"{name} is not required", name=name)

sys.meta_path.insert(0, Missing())
"""


def test_check_imports_only_what_is_required(tmp_path: Path) -> None:
    text = "\n".join(rpmspec("fedora", "-P", "--without=kernel"))
    (command,) = re.findall(r"^pytest ((?:.*\\\n)*.*)", text, re.MULTILINE)
    (tmp_path / "foreign.py").write_text(FOREIGN)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    words = ["-p", "foreign", "-p", "pytest_timeout", "--collect-only", "--quiet",
             *shlex.split(command.replace("\\\n", ""))]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=CHECKOUT, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


def digests(built: tuple[Path, ...]) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built}


def test_two_builds_are_equal(tmp_path: Path, short_path: Path) -> None:
    """In other directories, by another user, elsewhere in the world."""
    checkout = repository.clone(short_path / "clone")
    first = digests(repository.build(checkout, "HEAD", tmp_path / "first"))
    assert set(first) == {
        f"tinykdump-{__version__}-1.noarch.rpm", f"tinykdump-{__version__}-1.src.rpm",
    }  # fmt: skip
    user = os.getuid() or 65534  # nobody, when this is root
    if user != os.getuid():
        short_path.chmod(0o755)
        subprocess.run(["chown", "-R", str(user), checkout], check=True)
    output = checkout / "somewhere/else"
    command = ["setpriv", f"--reuid={user}", "--clear-groups", "tools/rpm", f"--output={output}"]
    if user == os.getuid():
        command = command[3:]
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "TZ": "Asia/Tokyo"}
    done = subprocess.run(command, cwd=checkout, env=environment, check=True,
                          stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert digests(tuple(Path(line) for line in done.stdout.splitlines())) == first


def test_rpmlint(tmp_path: Path) -> None:
    """Clean, but for what tools/rpmlint.toml gives reasons for."""
    if not shutil.which("rpmlint"):
        pytest.fail("rpmlint is not installed (run tools/deps)")
    built = repository.build(CHECKOUT, repository.work_tree(), tmp_path / "rpm")
    command = [
        "rpmlint",
        "--config",
        str(CHECKOUT / "tools/rpmlint.toml"),
        *map(str, built),
        str(SPEC),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "checked; 0 errors, 0 warnings" in done.stdout, done.stdout
    assert done.returncode == 0


def test_the_crash_kernels_first_program_keeps_its_interpreter() -> None:
    """Fedora would make it /usr/bin/sh, which the image does not have."""
    text = "\n".join(rpmspec("fedora", "-P", "--without=kernel"))
    assert "head -n 1" in text
    assert "__brp_mangle_shebangs_exclude_from ^/usr/share/tinykdump/crash/" in (
        SPEC.read_text().replace("%{_datadir}", "/usr/share")
    )


def test_as_a_distribution_builds_it(short_path: Path) -> None:
    """Its tests pass for a user who is not root and has no home; Python knows what was built."""
    checkout = repository.clone(short_path / "clone")
    short_path.chmod(0o755)
    report = checkout / "report.xml"
    pytest_ = f"{sys.executable} -m pytest --junitxml={report}"
    command = ["tools/rpm", "--distribution", "--binary", f"--define=__pytest {pytest_}"]
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", "nobody", checkout], check=True)
        command = ["setpriv", "--reuid=nobody", "--clear-groups", *command]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(command, cwd=checkout, env=environment, check=True,
                          stdout=subprocess.PIPE, text=True)  # fmt: skip
    (number,) = re.findall(r' tests="(\d+)"', report.read_text())
    assert int(number) > 500
    package = done.stdout.splitlines()[-1]
    listed = subprocess.run(["rpm", "-qlp", package], check=True, stdout=subprocess.PIPE, text=True)
    names = listed.stdout.splitlines()
    assert any(name.endswith(f"/tinykdump-{__version__}.dist-info/METADATA") for name in names)
    assert not [name for name in names if name.endswith((".preset", "/RECORD"))]


def test_every_module_is_installed(tmp_path: Path) -> None:
    """Those of sub-packages, too."""
    command = ["make", "--silent", "install", f"DESTDIR={tmp_path}", "SITE=/site"]
    subprocess.run(command, check=True, cwd=CHECKOUT)
    there = {path.relative_to(CHECKOUT / "src") for path in CHECKOUT.glob("src/tinykdump/**/*.py")}
    assert {path.relative_to(tmp_path / "site") for path in tmp_path.glob("site/**/*.py")} == there
