# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenarios that are booted for each series, with their expected results."""

from collections.abc import Collection

from tests.kernel.scripts import Scenario

_CRASHED = (
    # At least kernel text, and the memory before and after the region.
    r"^CRASH-KERNEL segments=([3-9]|\d\d+) overlaps=0$",
    # A crash kernel has no area and cannot reserve memory.
    r"^CRASH-KERNEL crash_size=0$",
    r"^CRASH-KERNEL crash_size_max=0$",
    r"^CRASH-KERNEL areas=0$",
)

# All pages that were taken from the area are in it again.
_EXACTLY = r"^FIGURE CmaFree_lost_kb 0$"

# The largest size of a region, with an area of any size or none.
_HALF_OF_1G = r"^FIGURE crash_size_max 5[0-9]{8}$"

_LOADS = ("cache", "mlock", "tmpfs", "ext4", "fork", "direct")
_NO_AREA = "crashkernel=0,dynamic"
# Only the area has room for a region: no region can be in the movable zone.
_AREA_ONLY = "nokaslr kernelcore=160M"


def _pressure(rounds: int) -> tuple[Scenario, ...]:
    """A region grows while memory is in use, with each kind of load, with and without an area."""
    return tuple(
        Scenario(
            f"pressure-{load}{suffix}",
            "pressure",
            memory="512M",
            disk=1024,
            append=f"{area} load={load} rounds={rounds}".strip(),
            # A round moves new pages, and waits for a second if it fails.
            seconds=600 + 20 * rounds,
        )
        for suffix, area in (("", ""), ("-no-area", _NO_AREA))
        for load in _LOADS
    )


KEXEC_CMA = (
    Scenario(
        "area-by-default",
        "resize",
        append="rounds=20",
        expect=(
            r"^FIGURE crash_size 0$",
            r"^FIGURE iomem_lines 0$",
            r"^FIGURE CmaTotal 196608$",
            _HALF_OF_1G,
            _EXACTLY,
        ),
    ),
    Scenario(
        "area-by-parameter",
        "resize",
        append="crashkernel=160M,dynamic rounds=5",
        expect=(r"^FIGURE crash_size 0$", r"^FIGURE CmaTotal 163840$", _HALF_OF_1G, _EXACTLY),
    ),
    Scenario(
        "area-below-4g",
        "resize",
        memory="6G",
        append="rounds=5",
        # Eight digits: 32-bit DMA can reach it.
        expect=(r"^FIGURE CmaTotal 262144$", r"^FIGURE region [0-9a-f]{8}-[0-9a-f]{8}$"),
    ),
    Scenario(
        "small-machine",
        "resize",
        memory="384M",
        fits_kasan=False,
        append="rounds=2",
        # The parser does not complain about the sizes for larger machines.
        expect=(r"^FIGURE complaints 0$", r"^FIGURE CmaTotal 0$"),
    ),
    Scenario(
        "no-area",
        "resize",
        append=f"{_NO_AREA} rounds=20",
        expect=(r"^FIGURE crash_size 0$", r"^FIGURE CmaTotal 0$"),
    ),
    Scenario("static", "static", append="crashkernel=128M"),
    Scenario("static-wins", "static", append="crashkernel=128M crashkernel=192M,dynamic"),
    Scenario("loaded", "loaded"),
    Scenario("crash-file-load", "crash", append="call=-s", expect=_CRASHED),
    Scenario("crash-load", "crash", append="call=-c", expect=_CRASHED),
    Scenario("crash-no-area", "crash", append=f"{_NO_AREA} call=-s", expect=_CRASHED),
    Scenario("crash-load-no-area", "crash", append=f"{_NO_AREA} call=-c", expect=_CRASHED),
    Scenario("limits", "limits", append=_AREA_ONLY),
    *_pressure(10),
    Scenario("pinned", "pinned", append=_AREA_ONLY, expect=(r"^FIGURE pinned [1-9]",)),
    Scenario("pinned-elsewhere", "pinned-elsewhere", expect=(r"^FIGURE pinned [1-9]",)),
    Scenario("stuck", "stuck"),
    Scenario("race", "race", append="seconds=60"),
    # The area is in the movable zone, of which each block outside the area can be taken off line.
    Scenario("hotplug", "hotplug", append="nokaslr kernelcore=400M"),
    Scenario("hotplug-no-area", "hotplug", append=_NO_AREA),
)

# The CMA ranges of crashkernel=size,cma.
CRASH_CMA_RANGES = (
    Scenario(
        "cma-names",
        "cma-names",
        append="memmap=1M$512M crashkernel=64M crashkernel=600M,cma",
    ),
    Scenario(
        "cma-inactive",
        "cma-inactive",
        # With KASLR, the kernel could move the area away from the border.
        append="nokaslr kernelcore=800M crashkernel=64M crashkernel=256M,cma",
    ),
)

SCENARIOS: dict[str, tuple[Scenario, ...]] = {
    "crash-cma-ranges": CRASH_CMA_RANGES,
    "kexec-cma": KEXEC_CMA,
}

# Without CONFIG_CMA, as in Debian.
_WITHOUT_CMA = (
    Scenario(
        "resize",
        "resize",
        append="rounds=20",
        expect=(
            r"^FIGURE crash_size 0$",
            r"^FIGURE iomem_lines 0$",
            r"^FIGURE CmaTotal none$",
            _HALF_OF_1G,
        ),
    ),
    Scenario("loaded", "loaded"),
    Scenario("crash-file-load", "crash", append="call=-s", expect=_CRASHED),
    *(scenario for scenario in _pressure(10) if _NO_AREA in scenario.append),
)

# The scripts whose locks and pages are looked at: all ways to take, free and refuse memory.
_WITH_CHECKS = (
    "area-by-default",
    "no-area",
    "loaded",
    "limits",
    "pinned-elsewhere",
    "stuck",
    "race",
    "hotplug-no-area",
)

# A kernel that was started with a handover crashes in the end.
_HANDED_OVER = (*_CRASHED, r"^FIGURE handed_over_region [0-9a-f]+-")
# The kernel keeps a copy of the key for itself; that in the region must not be in the image.
_HIBERNATED = (*_CRASHED, r"^FIGURE copies_of_the_key 1$")

# Options that the scripts need and that not every release has.
NEEDED_OPTIONS = {"handover": "KEXEC_HANDOVER", "hibernate": "CRASH_DM_CRYPT"}
# (script, release): why it shows nothing there.
SHOWS_NOTHING = {("stuck", "6.12"): "FUSE writes back copies of its pages, so none of them waits"}

# With a kexec handover, hibernation, lockdep and checks of pages.
_CHECKED = (
    Scenario("handover", "handover", append="kho=on retain_initrd", expect=_HANDED_OVER),
    Scenario(
        "handover-no-area",
        "handover",
        append=f"kho=on retain_initrd {_NO_AREA}",
        expect=_HANDED_OVER,
    ),
    Scenario(
        "freeze",
        "freeze",
        append=_NO_AREA,
        expect=(r"^FIGURE writes [1-9]", r"^FIGURE freezes 30$"),
    ),
    Scenario(
        "hibernate",
        "hibernate",
        memory="512M",
        disk=512,
        append="hibernate=nocompress",
        expect=_HIBERNATED,
    ),
    Scenario(
        "hibernate-static",
        "hibernate",
        memory="512M",
        disk=512,
        append="hibernate=nocompress crashkernel=128M",
        expect=_HIBERNATED,
    ),
    *(scenario for scenario in KEXEC_CMA if scenario.name in _WITH_CHECKS),
)

# Of kexec-cma, by the fragment of the configuration that a kernel has in addition.
OTHER_CONFIGURATIONS: dict[str, tuple[Scenario, ...]] = {
    "checked": _CHECKED,
    "no-cma": _WITHOUT_CMA,
}

# Of a release that has crashkernel=size,cma.
_STATIC_CMA = Scenario(
    "static-cma",
    "reserved",
    append="nokaslr crashkernel=64M crashkernel=64M,cma",
    expect=(r"^FIGURE cma_ranges_boot \w+-\w+ $",),
)

# Booted with and without the series, for comparison. The first one with each size of memory
# reserves nothing.
_STATIC = (
    Scenario("static-none", "reserved", append="nokaslr", expect=(r"^FIGURE iomem_boot $",)),
    Scenario(
        "static-plain",
        "reserved",
        append="nokaslr crashkernel=128M",
        expect=(r"^FIGURE iomem_boot \w+-\w+ $",),
    ),
    Scenario("static-none-6g", "reserved", memory="6G", append="nokaslr"),
    Scenario(
        "static-high-low",
        "reserved",
        memory="6G",
        append="nokaslr crashkernel=128M,high crashkernel=64M,low",
        # One region above 4 GiB (nine digits) and one below.
        expect=(r"^FIGURE iomem_boot \w{8}-\w{8} \w{9}-\w{9} $",),
    ),
)


def compared(series: Collection[str]) -> tuple[Scenario, ...]:
    """Those for comparison, of a release that has these series."""
    return (*_STATIC, *[_STATIC_CMA] * ("crash-cma-ranges" in series))


def bench_scenarios(rounds: int) -> dict[str, tuple[Scenario, ...]]:
    """The scenarios of `make bench`; 200 rounds distinguish success rates of 99 % and 95 %."""
    return {
        "kexec-cma": (
            *_pressure(rounds),
            Scenario("rounds", "resize", append="rounds=500", expect=(_EXACTLY,), seconds=3600),
            Scenario("rounds-no-area", "resize", append=f"{_NO_AREA} rounds=500", seconds=3600),
        )
    }
