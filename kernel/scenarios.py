"""What is booted for each series, and what has to come out of it."""

from kernel.guest import Scenario

_CRASHED = (
    # Kernel text, and memory before and behind the region at least
    r"^CRASH-KERNEL segments=([3-9]|\d\d+) overlaps=0$",
    # No area in a crash kernel, and no way to take memory there.
    r"^CRASH-KERNEL crash_size=0$",
    r"^CRASH-KERNEL crash_size_max=0$",
    r"^CRASH-KERNEL areas=0$",
)

KEXEC_CMA = (
    Scenario(
        "area-by-default",
        "resize",
        append="rounds=20",
        expect=(
            r"^FIGURE crash_size 0$",
            r"^FIGURE iomem_lines 0$",
            r"^FIGURE crash_size_max 201326592$",
        ),
    ),
    Scenario(
        "area-by-parameter",
        "resize",
        append="crashkernel=160M,dynamic rounds=5",
        expect=(r"^FIGURE crash_size 0$", r"^FIGURE crash_size_max 167772160$"),
    ),
    Scenario(
        "area-below-4g",
        "resize",
        memory="6G",
        append="rounds=5",
        # Eight digits: DMA with 32 bits reaches it
        expect=(r"^FIGURE crash_size_max 268435456$", r"^FIGURE region [0-9a-f]{8}-[0-9a-f]{8}$"),
    ),
    Scenario(
        "no-area",
        "resize",
        append="crashkernel=0,dynamic rounds=20",
        expect=(r"^FIGURE crash_size 0$", r"^FIGURE CmaTotal 0$"),
    ),
    Scenario("static", "static", append="crashkernel=128M"),
    Scenario("static-wins", "static", append="crashkernel=128M crashkernel=192M,dynamic"),
    Scenario("loaded", "loaded"),
    Scenario("crash-file-load", "crash", append="call=-s", expect=_CRASHED),
    Scenario("crash-load", "crash", append="call=-c", expect=_CRASHED),
    Scenario("crash-no-area", "crash", append="crashkernel=0,dynamic call=-s", expect=_CRASHED),
    Scenario("limits", "limits"),
    Scenario("pressure", "pressure", memory="512M", append="rounds=50"),
    Scenario(
        "pressure-no-area", "pressure", memory="512M", append="crashkernel=0,dynamic rounds=50"
    ),
    Scenario("race", "race", append="seconds=60"),
    Scenario(
        "cma-names",
        "cma-names",
        append="memmap=1M$512M crashkernel=64M crashkernel=600M,cma",
    ),
    Scenario(
        "cma-inactive",
        "cma-inactive",
        append="kernelcore=800M crashkernel=64M crashkernel=256M,cma",
    ),
)

SCENARIOS: dict[str, tuple[Scenario, ...]] = {"kexec-cma": KEXEC_CMA}
