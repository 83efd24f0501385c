# SPDX-License-Identifier: GPL-2.0-or-later
"""The functions that build and check the kernel series, without a real kernel."""

import io
import json
import re
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kernel import __main__ as command
from kernel import build, kconfig, source
from kernel.architectures import ARCHITECTURES, ARM64, X86_64, Architecture, native
from kernel.build import HERE, SERIES, Plan, Request, find_source, fragment
from kernel.progress import remaining
from kernel.releases import CHOICE, NEWEST, RELEASES, Release, chosen
from kernel.run import KernelError, explain, output
from kernel.source import (
    NoSourceError,
    Place,
    Source,
    debian_archive,
    get_source,
    newest,
    version_in,
)
from kernel.tree import find_series, git, make_tree, touched
from tests.bench.growth import pick, report, table
from tests.kernel import versions
from tests.kernel.boots import differing, same_memory
from tests.kernel.checks import checkpatch_arguments, compiling, targets
from tests.kernel.scripts import SCRIPTS, Outcome, Scenario, judge
from tests.vmtest.initramfs import load_order
from tinykdump import reservation


@pytest.mark.parametrize(
    ("names", "series", "expected"),
    [
        (["7.2.8-1", "7.2.13-1", "7.1.9-1"], "7.2", ["7.2.13", "7.2.8"]),
        (["linux-7.2.tar.xz", "linux-7.20.1.tar.xz"], "7.2", ["7.2"]),
        (["7.2~rc1-1~exp1", "17.2.1-1"], "7.2", []),
        (["linux_7.2.8.orig"], "7.2", ["7.2.8"]),
    ],
)
def test_newest(names: list[str], series: str, expected: list[str]) -> None:
    assert newest(names, series) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("URIs: http://mirror.example/debian\nSuites: bookworm\n", "http://mirror.example/debian"),
        (
            "deb [signed-by=/k] http://mirror.example/debian/ sid main\n",
            "http://mirror.example/debian",
        ),
        ("URIs: http://mirror.example/debian-security\n", None),
        ("# deb http://mirror.example/debian sid main\n", None),
    ],
)
def test_debian_archive(text: str, expected: str | None) -> None:
    assert debian_archive(["", text]) == expected


LINUX = Release("7.2", "7.2.13", "sid", without=[], objects={})
MAKEFILE = "# SPDX\nVERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = {}\nEXTRAVERSION ={}\nNAME = Baby\n"


@pytest.mark.parametrize(
    ("makefile", "version"),
    [
        (MAKEFILE.format(13, ""), "7.2.13"),
        (MAKEFILE.format(0, ""), "7.2"),
        (MAKEFILE.format(0, " -rc3"), None),
        ("all:\n", None),
    ],
)
def test_version_is_what_the_makefile_says(makefile: str, version: str | None) -> None:
    assert version_in(makefile) == version


def tarball(path: Path, directory: str, sublevel: int = 13) -> Path:
    """The smallest tarball that is a source of Linux."""
    content = MAKEFILE.format(sublevel, "").encode()
    with tarfile.open(path, "w:xz") as tar:
        for name in ("Documentation/Makefile", "Makefile"):
            member = tarfile.TarInfo(f"{directory}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def empty_place(_release: Release, _directory: Path) -> Path:
    raise NoSourceError("the cache does not have it")


def test_source_comes_from_the_first_place_that_has_it(tmp_path: Path) -> None:
    asked: list[str] = []

    def place(name: str, sublevel: int) -> Place:
        def ask(release: Release, directory: Path) -> Path:
            asked.append(name)
            return tarball(directory / f"{name}.tar.xz", f"linux-source-{release.name}", sublevel)

        return ask

    found = get_source(LINUX, tmp_path, None, (empty_place, place("one", 13), place("two", 14)))
    assert (found.version, asked) == ("7.2.13", ["one"])


def test_given_tarball_replaces_the_search(tmp_path: Path) -> None:
    given = tarball(tmp_path / "given.tar.xz", "linux-7.2.9", 9)
    assert get_source(LINUX, tmp_path, given, (empty_place,)).version == "7.2.9"


def test_downloaded_source_is_found_in_the_cache(tmp_path: Path) -> None:
    tarball(tmp_path / "linux-7.2.9.tar.xz", "linux-7.2.9", 9)
    tarball(tmp_path / "linux-source-7.2.13.tar.xz", "linux-source-7.2")
    tarball(tmp_path / "linux_7.2.8.orig.tar.xz", "linux-7.2.8", 8)
    assert get_source(LINUX, tmp_path, None, (source.PLACES[0],)).version == "7.2.13"


def test_processes_that_make_the_same_tree_at_once_share_it(tmp_path: Path) -> None:
    given = get_source(LINUX, tmp_path, tarball(tmp_path / "given.tar.xz", "linux-7.2.13"))
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: make_tree(given, tmp_path / "tree"), range(4)))
    assert len(set(made)) == 1
    assert git(made[0], "log", "--format=%s") == "Linux 7.2.13"
    assert (made[0] / "Makefile").exists()


def test_a_hook_of_another_repository_does_not_lead_git_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under "git rebase --exec": what is done in the tree is not done in the project."""
    other = tmp_path / "other/.git"
    other.mkdir(parents=True)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.setenv(name, str(other))
    given = get_source(LINUX, tmp_path, tarball(tmp_path / "given.tar.xz", "linux-7.2.13"))
    made = make_tree(given, tmp_path / "tree")
    assert git(made, "log", "--format=%s") == "Linux 7.2.13"
    assert not list(other.iterdir())


def test_missing_source_is_one_line_with_all_reasons_and_a_hint(tmp_path: Path) -> None:
    def elsewhere(_release: Release, _directory: Path) -> Path:
        raise NoSourceError("nor has kernel.org")

    with pytest.raises(NoSourceError) as caught:
        get_source(LINUX, tmp_path, None, (empty_place, elsewhere))
    assert str(caught.value) == (
        "cannot find the source of Linux 7.2: the cache does not have it, nor has kernel.org "
        "(set TINYKDUMP_KERNEL_SOURCE to a tarball of it)"
    )


def test_error_is_one_line_after_the_output_of_the_program() -> None:
    with pytest.raises(KernelError) as caught:
        output(["sh", "-c", "echo broken; exit 3"])
    line = "kernel: sh -c echo broken; exit 3 ... failed with status 3 (see its output)"
    assert explain(caught.value, "kernel") == f"broken\n{line}"


def test_file_that_is_no_tarball_of_linux_is_refused(tmp_path: Path) -> None:
    (tmp_path / "given.tar.xz").write_bytes(b"something else")
    with pytest.raises(KernelError, match="cannot be read"):
        get_source(LINUX, tmp_path, tmp_path / "given.tar.xz")


@pytest.mark.parametrize(
    ("seconds", "done", "left", "text"),
    [
        (60, 0, 3000, ""),
        (60, 300, 1500, ", 5 minutes left"),
        (60, 300, 10, ", 1 minutes left"),
        (600, 3000, 0, ", linking"),
    ],
)
def test_time_left_is_estimated_from_the_speed(
    seconds: float, done: int, left: int, text: str
) -> None:
    assert remaining(seconds, done, left) == text


def test_package_names_the_tested_versions() -> None:
    spec = (HERE.parent / "tinykdump.spec").read_text()
    assert f"{{!?kernel_series: %global kernel_series {NEWEST.name}}}\n" in spec
    versions = re.findall(r"^%\{!\?kernel_version: %global kernel_version (\S+)\}$", spec, re.M)
    assert sorted(versions) == sorted(release.tested for release in RELEASES.values())


@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.name)
def test_cover_letters_name_the_tested_version(release: Release) -> None:
    says_it = re.compile(r"^(?:The base is Linux |Based on v)([0-9.]*[0-9])", re.MULTILINE)
    for letter in (SERIES / release.name).glob("*/0000-*"):
        (base,) = says_it.findall(letter.read_text())
        assert base == release.tested, letter.parent.name


@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.name)
def test_options_that_a_release_lacks_are_those_of_a_fragment(release: Release) -> None:
    wanted = kconfig.merge(path.read_text() for path in (HERE / "config").glob("*.config"))
    assert [name for name in release.without if f"CONFIG_{name}" not in wanted] == []


@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.name)
def test_patch_that_is_shared_is_one_of_a_newer_release(release: Release) -> None:
    """What does not differ is there once: in another release, it is a link with the same name."""
    names = [*RELEASES]
    newer = names[names.index(release.name) + 1 :]
    for patch in (SERIES / release.name).glob("*/*.patch"):
        if patch.is_symlink():
            shared = patch.resolve().relative_to(SERIES)
            assert shared.parts[0] in newer
            assert shared.parts[1:] == patch.parts[-2:]
        else:
            others = [SERIES / name / patch.parent.name / patch.name for name in newer]
            text = patch.read_text()
            assert not any(one.exists() and one.read_text() == text for one in others), patch


def have(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """Let these releases be all whose source can be had; returns those that are asked for."""
    asked: list[str] = []

    def get(release: Release, directory: Path, _given: Path | None) -> Source:
        asked.append(release.name)
        if release.name not in names:
            raise NoSourceError(f"no source of {release.name}", "give a tarball")
        return Source(release.tested, directory, "0")

    monkeypatch.delenv(CHOICE, raising=False)
    monkeypatch.setattr(build, "get_source", get)
    return asked


def test_newest_release_is_built_if_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    have(monkeypatch, *RELEASES)
    assert find_source(Request(cache=tmp_path))[0] == NEWEST
    assert capsys.readouterr().err == ""


def test_without_its_source_one_line_says_so_and_an_older_release_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    oldest = next(iter(RELEASES.values()))
    asked = have(monkeypatch, oldest.name)
    for _kernel in range(2):
        release, found = find_source(Request(cache=tmp_path))
        assert (release, found.version) == (oldest, oldest.tested)
    assert asked == [*reversed(RELEASES)]
    assert capsys.readouterr().err == "".join(
        f"kernel: no source of {name} (give a tarball); going on with Linux {oldest.name}\n"
        for name in reversed(RELEASES)
        if name != oldest.name
    )


def test_without_any_source_the_error_is_about_the_newest_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch)
    with pytest.raises(NoSourceError, match=f"no source of {NEWEST.name}"):
        find_source(Request(cache=tmp_path))


@pytest.mark.parametrize("name", RELEASES)
def test_release_that_is_named_is_built_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    have(monkeypatch, *(set(RELEASES) - {name}))
    monkeypatch.setenv(CHOICE, name)
    with pytest.raises(NoSourceError, match=f"no source of {name}"):
        find_source(Request(cache=tmp_path))
    have(monkeypatch, name)
    monkeypatch.setenv(CHOICE, name)
    assert find_source(Request(cache=tmp_path))[0] == RELEASES[name]


def test_release_without_series_is_an_error_that_lists_those_with_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CHOICE, "3.10")
    line = f"there are no series for Linux 3.10 (choose one of {', '.join(RELEASES)})"
    with pytest.raises(KernelError) as caught:
        chosen()
    assert str(caught.value) == line
    assert command.main(["build"]) == 1
    assert capsys.readouterr().err == f"kernel: {line}\n"


def test_fragments_are_merged_and_compared() -> None:
    wanted = kconfig.merge(["CONFIG_A=y\nCONFIG_B=m\n", '# CONFIG_B is not set\nCONFIG_S="x"\n'])
    assert wanted == {"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_S": '"x"'}
    assert kconfig.parse(kconfig.render(wanted)) == wanted
    assert kconfig.unmet(wanted, {"CONFIG_S": '"x"'}) == ["CONFIG_A: wanted y, got n"]


def test_built_in_does_not_become_a_module() -> None:
    assert kconfig.merge(["CONFIG_A=y\nCONFIG_B=y\n", "CONFIG_A=m\n# CONFIG_B is not set\n"]) == {
        "CONFIG_A": "y", "CONFIG_B": "n",
    }  # fmt: skip


def test_weaker_options_are_named() -> None:
    base = {"CONFIG_A": "y", "CONFIG_B": "y", "CONFIG_C": "m", "CONFIG_D": "y", "CONFIG_E": "m"}
    got = {"CONFIG_A": "m", "CONFIG_B": "n", "CONFIG_C": "n", "CONFIG_E": "y", "CONFIG_S": '"x"'}
    # B is off on purpose, and this kernel has no D.
    assert kconfig.weaker({**base, "CONFIG_S": "y"}, got, {"CONFIG_B": "n"}) == [
        "CONFIG_A: y became m", "CONFIG_C: m became n",
    ]  # fmt: skip


def test_weaker_options_end_the_build(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = [tmp_path / name for name in ("base", "result", "fragment")]
    for name, text in zip(names, ("CONFIG_A=y\n", "CONFIG_A=m\n", ""), strict=True):
        name.write_text(text)
    command = [sys.executable, "-m", "kernel.kconfig", *map(str, names)]
    assert subprocess.run(command, cwd=SERIES.parents[1], check=False).returncode == 1
    assert capfd.readouterr().err == "CONFIG_A: y became m\n"


def test_comments_are_not_options() -> None:
    assert kconfig.parse("# Help: CONFIG_A=y\n#CONFIG_B=y\n") == {}


PATCH = """\
diff --git a/kernel/crash_core.c b/kernel/crash_core.c
--- a/kernel/crash_core.c
+++ b/kernel/crash_core.c
diff --git a/old/name.h b/new/name.h
"""


def test_touched() -> None:
    assert touched(PATCH) == ["kernel/crash_core.c", "new/name.h", "old/name.h"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["include/linux/kexec.h", "kernel/kexec.c"],
            ["arch/x86/entry/entry.o", "init/main.o", "kernel/"],
        ),
        # No object is known that includes it, which cannot be.
        (["arch/x86/include/asm/kexec.h"], ["vmlinux", "modules"]),
        (["include/linux/gfp.h", "mm/page_alloc.c"], ["vmlinux", "modules"]),
        (["kernel/kexec.c", "Documentation/a.c", "tools/testing/b.c"], ["kernel/"]),
        (["kernel/Kconfig.kexec"], []),
    ],
)
def test_targets(tmp_path: Path, files: list[str], expected: list[str]) -> None:
    for file in ("kernel/Makefile", "init/main.c", "arch/x86/entry/entry.S"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    objects = tmp_path / "objects"
    # A later commit adds fs/later.c.
    users = ("init/main", "kernel/kexec", "arch/x86/boot/main", "arch/x86/entry/entry", "fs/later")
    for name in users:
        cmd = objects / Path(name).parent / f".{Path(name).name}.o.cmd"
        cmd.parent.mkdir(parents=True, exist_ok=True)
        cmd.write_text("deps := \\\n  /tree/include/linux/kexec.h \\\n")
    (objects / "mm").mkdir()
    for number in range(201):
        (objects / f"mm/.{number}.o.cmd").write_text("  /tree/include/linux/gfp.h \\\n")
    assert targets(files, tmp_path, objects) == expected


def test_compiling_leaves_the_objects_of_the_guests_alone(tmp_path: Path) -> None:
    options = kconfig.parse(fragment("vm"))
    source = Source("7.2.13", tmp_path, "0")
    place = tmp_path / "vm"
    plan = Plan(NEWEST, X86_64, source, tmp_path, SERIES, (), (), "vm", place, options, tmp_path, 1)
    compiled = compiling(plan)
    assert compiled.objects != plan.objects
    assert compiled.options == kconfig.merge([fragment("vm"), fragment("checked")])


def test_checkpatch_arguments() -> None:
    assert checkpatch_arguments({}) == []
    assert checkpatch_arguments({"B": "why", "A": "why"}) == ["--ignore", "A,B"]


def test_find_series(tmp_path: Path) -> None:
    for name in ("0000-cover-letter.patch", "0002-b.patch", "0001-a.patch"):
        (tmp_path / "one").mkdir(exist_ok=True)
        (tmp_path / "one" / name).touch()
    (tmp_path / "notes").mkdir()
    (tmp_path / "a-fix").mkdir()
    (tmp_path / "a-fix/0010-alone.patch").touch()
    single, found = find_series(tmp_path, None)
    assert [patch.name for patch in single.patches] == ["0010-alone.patch"]
    assert found.name == "one"
    assert [patch.name for patch in found.patches] == ["0001-a.patch", "0002-b.patch"]
    assert find_series(tmp_path, []) == []
    with pytest.raises(KernelError, match="no series two"):
        find_series(tmp_path, ["two"])


SCENARIO = Scenario("name", "script", expect=(r"^FIGURE size 0$",))


@pytest.mark.parametrize(
    ("console", "failures"),
    [
        ("FIGURE size 0\r\nok 1 a\r\nGUEST-EXIT 0\r\n", 0),
        ("FIGURE size 1\nGUEST-EXIT 0\n", 1),
        ("FIGURE size 0\nnot ok 1 a\nGUEST-EXIT 1\n", 2),
        ("FIGURE size 0\n[ 1.0] WARNING: mm/x.c:1 at f+0x1\nGUEST-EXIT 0\n", 1),
        ("FIGURE size 0\nKernel panic - not syncing\n", 1),
    ],
)
def test_judge(console: str, failures: int) -> None:
    assert len(judge(SCENARIO, console).failures) == failures


def test_judge_reads_figures() -> None:
    console = "FIGURE MemTotal 1000\nFIGURE region 1-2 3\nGUEST-EXIT 0\n"
    assert judge(SCENARIO, console).figures == {"MemTotal": "1000", "region": "1-2 3"}


MODULES_DEP = """\
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko
kernel/fs/jbd2/jbd2.ko:
kernel/lib/crc16.ko:
kernel/fs/fat/fat.ko:
"""


def test_modules_come_after_their_dependencies_and_built_in_ones_have_no_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "modules.dep").write_text(MODULES_DEP)
    (tmp_path / "modules.builtin").write_text("kernel/drivers/built-in.ko\n")
    order = load_order(tmp_path, ("ext4", "built_in"))
    assert [path.stem for path in order] == ["crc16", "jbd2", "ext4"]
    with pytest.raises(ValueError, match="no nowhere, neither built in nor as a module"):
        load_order(tmp_path, ("nowhere",))


def test_pick() -> None:
    scenarios = [Scenario("a", "s"), Scenario("b", "s")]
    assert pick(scenarios, []) == tuple(scenarios)
    assert pick(scenarios, ["b"]) == (scenarios[1],)
    with pytest.raises(ValueError, match="no scenario c"):
        pick(scenarios, ["c"])


def outcomes(*figures: dict[str, str]) -> list[Outcome]:
    return [
        Outcome(Scenario(name, "s"), (), values)
        for name, values in zip(("none", "plain"), figures, strict=False)
    ]


def test_the_size_of_the_kernel_does_not_count_as_a_difference() -> None:
    ours = outcomes({"MemTotal": "1000"}, {"MemTotal": "900", "size": "1", "more": "x"})
    stock = outcomes({"MemTotal": "1010"}, {"MemTotal": "910", "size": "1"})
    assert differing(ours, stock) == []


def test_difference_from_the_stock_kernel_is_named() -> None:
    ours = outcomes({"MemTotal": "1000"}, {"MemTotal": "904"})
    stock = outcomes({"MemTotal": "1010"}, {"MemTotal": "910", "size": "1"})
    assert differing(ours, stock) == [
        "plain: MemTotal is 96 kB less, without the series 100 kB less",
        "plain: size is None, without the series 1",
    ]


def test_bench_prints_its_measurements() -> None:
    measured = outcomes({"rounds": "200", "failed": "3"})
    header, line = table(measured).splitlines()
    assert header.split()[:3] == ["scenario", "rounds", "failed"]
    assert line.split() == ["none", "200", "3", *"-" * 8]
    assert json.loads(report(measured))["none"]["figures"] == {"rounds": "200", "failed": "3"}


def test_area_that_takes_memory_is_named() -> None:
    def outcome(name: str, total: str, memory: str = "1G") -> Outcome:
        return Outcome(Scenario(name, "resize", memory=memory), (), {"MemTotal": total})

    assert same_memory([]) == []
    assert same_memory([outcome("a", "1016016"), outcome("b", "1016012")]) == []
    assert same_memory([outcome("a", "1016016"), outcome("c", "99", memory="6G")]) == []
    assert same_memory([outcome("a", "1016016"), outcome("b", "819408")])


@pytest.mark.parametrize("kind", ARCHITECTURES.values(), ids=lambda kind: kind.name)
def test_series_of_another_architecture_are_left_out(kind: Architecture) -> None:
    """A patch of one architecture does not make the kernels of the others new ones."""
    every = find_series(SERIES / NEWEST.name, None)
    usual = {one.name for one in build.usual_series(every, (kind.guests,), kind)}
    assert "kexec-cma" in usual
    assert not usual & set(build.CRASH_ONLY)
    for other in ARCHITECTURES.values():
        assert (set(other.series) <= usual) == (other == kind or not other.series)


def test_base_of_a_kernel_depends_on_the_architecture() -> None:
    assert build.based(("vm", "debug"), X86_64) == ("vm", "debug")
    assert build.based(("vm", "debug"), ARM64) == ("arm64", "debug")
    assert build.based((build.CRASH,), X86_64) == (build.CRASH,)
    with pytest.raises(KernelError, match="no small crash kernel for aarch64"):
        build.based((build.CRASH,), ARM64)


def test_compiler_has_a_prefix_only_for_another_architecture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, prefixes in (("x86_64", ["", "aarch64-linux-gnu-"]),
                           ("aarch64", ["x86_64-linux-gnu-", ""])):  # fmt: skip
        monkeypatch.setattr("platform.machine", lambda name=name: name)
        assert [X86_64.prefix, ARM64.prefix] == prefixes
        assert native().name == name
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(KernelError, match="not built for riscv64"):
        native()


@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.name)
def test_objects_are_counted_by_fragment(release: Release) -> None:
    assert {build.GUESTS, build.CRASH} <= set(release.objects)
    assert all((HERE / f"config/{name}.config").exists() for name in release.objects)


def test_a_release_that_is_not_named_is_skipped_without_its_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have(monkeypatch)
    monkeypatch.setattr(versions, "_CHOSEN", None)
    with pytest.raises(pytest.skip.Exception, match=f"no source of {NEWEST.name}"):
        versions.available(NEWEST)
    monkeypatch.setattr(versions, "_CHOSEN", NEWEST)
    with pytest.raises(NoSourceError):
        versions.available(NEWEST)
    have(monkeypatch, NEWEST.name)
    assert versions.available(NEWEST) is NEWEST


def test_growth_is_measured_with_the_patience_of_tinykdump() -> None:
    program = (SCRIPTS / "timed-write.c").read_text()
    found = dict(re.findall(r"^#define (\w+) ([0-9.]+)$", program, re.MULTILINE))
    assert {name: float(value) for name, value in found.items()} == {
        name: getattr(reservation, name)
        for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "BEFORE_DROPPING")
    }
    (patience,) = re.findall(r"^PATIENCE=([0-9]+)$", (SCRIPTS / "pressure.sh").read_text(), re.M)
    assert float(patience) == reservation.PATIENCE
