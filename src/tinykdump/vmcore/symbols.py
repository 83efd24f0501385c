# SPDX-License-Identifier: GPL-2.0-or-later
"""What drgn finds in a vmcore with the symbols of its kernel: tasks, memory, run queues, modules.

Each function raises what drgn raises for damaged memory.
"""

import heapq
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from drgn import FaultError, Object, Program, StackTrace
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.mm import task_rss, totalram_pages
from drgn.helpers.linux.module import for_each_module, module_taints
from drgn.helpers.linux.panic import panic_task, tainted
from drgn.helpers.linux.percpu import per_cpu
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import (
    rq_for_each_fair_task,
    task_cpu,
    task_state_to_char,
)
from drgn.helpers.linux.vmstat import global_node_page_state, global_zone_page_state

from tinykdump.text import short
from tinykdump.vmcore.facts import Kind, Memory, Queue, Task

_MODULES, _TASKS, _CPUS = 4096, 1 << 17, 4096  # more are not looked at
_TOP, _BLOCKED, _QUEUES, _WAITING, _FRAMES = 10, 20, 64, 16, 48  # more are not shown

# What drgn raises for one object that is damaged.
_DAMAGED = (FaultError, LookupError, ValueError, OverflowError)

_COUNTERS = (
    ("anonymous", ("NR_ANON_MAPPED",)),
    ("page cache", ("NR_FILE_PAGES", "-NR_SHMEM")),
    ("shared memory", ("NR_SHMEM",)),
    ("slab, reclaimable", ("NR_SLAB_RECLAIMABLE_B",)),
    ("slab, unreclaimable", ("NR_SLAB_UNRECLAIMABLE_B",)),
    ("page tables", ("NR_PAGETABLE",)),
)


def crashing(program: Program) -> Task:
    """The task that panicked, with the functions that it was in."""
    task = panic_task(program)
    return _task(task, _stack(program.crashed_thread().stack_trace()))


def taint(program: Program) -> str:
    """The letters of Documentation/admin-guide/tainted-kernels.rst; empty if not tainted."""
    return " ".join(short(tainted(program), 64).split())


def modules(program: Program) -> tuple[str, ...]:
    """The modules that were loaded, each with the letters of its taint."""
    found = islice(for_each_module(program), _MODULES)
    return tuple(sorted(_module(module) for module in found))


def _module(module: Object) -> str:
    name, letters = _string(module.name), short(module_taints(module), 16)
    return f"{name}({letters})" if letters else name


def memory(program: Program) -> Memory:
    """The memory by kind, from the counters of /proc/meminfo."""
    page = int(program["PAGE_SIZE"])
    kinds = [
        Kind(name, max(0, sum(_counter(program, each) for each in counters)) * page)
        for name, counters in _COUNTERS
    ]
    stacks = _counter(program, "NR_KERNEL_STACK_KB") << 10
    kinds.append(Kind("kernel stacks", max(0, stacks)))
    free = max(0, int(global_zone_page_state(program, program.constant("NR_FREE_PAGES")))) * page
    known = sum(kind.size for kind in kinds) + free
    total = int(totalram_pages(program)) * page
    kinds += [Kind("other (vmalloc, per-CPU, drivers)", max(0, total - known)), Kind("free", free)]
    return Memory(tuple(kinds), "from the kernel's counters, as in /proc/meminfo")


def _counter(program: Program, name: str) -> int:
    sign = -1 if name.startswith("-") else 1
    item = program.constant(name.removeprefix("-"))
    return sign * int(global_node_page_state(program, item))


def tasks(
    program: Program, note: Callable[[str], object]
) -> tuple[int, tuple[Task, ...], tuple[Task, ...]]:
    """How many tasks there were, those with the most memory, and those in uninterruptible sleep.

    A task that is damaged is left out. ``note`` is told why there are no more of them.
    """
    count = 0
    processes: list[Task] = []
    blocked: list[Task] = []
    try:
        for task in islice(for_each_task(program), _TASKS):
            count += 1
            with suppress(*_DAMAGED):
                found = _task(task)
                if int(task.tgid) == found.pid and found.memory:  # its threads share its memory
                    processes.append(found)
                if found.state == "D" and len(blocked) < _BLOCKED:
                    blocked.append(_task(task, _stack(program.stack_trace(task))))
    except _DAMAGED as error:
        note(f"tasks after the first {count}: {short(str(error), 200)}")
    top = heapq.nlargest(_TOP, processes, key=lambda each: each.memory)
    return count, tuple(top), tuple(blocked)


def queues(program: Program) -> tuple[Queue, ...]:
    """What each processor ran and had still to run: the busiest ones, if there are many."""
    found = []
    for cpu in islice(for_each_online_cpu(program), _CPUS):
        with suppress(*_DAMAGED):
            found.append(_queue(program, cpu))
    busiest = heapq.nlargest(_QUEUES, found, key=lambda queue: (queue.length, -queue.cpu))
    return tuple(sorted(busiest, key=lambda queue: queue.cpu))


def _queue(program: Program, cpu: int) -> Queue:
    queue = per_cpu(program["runqueues"], cpu)
    running = queue.curr
    waiting = (
        _name(task) for task in islice(rq_for_each_fair_task(queue), _WAITING) if task != running
    )
    return Queue(int(cpu), _name(running), int(queue.nr_running), tuple(waiting))


def _resident(task: Object) -> int:
    """Bytes of memory of a task; 0 if they cannot be read."""
    try:
        pages: Any = task_rss(task)
        return max(0, int(getattr(pages, "total", pages)) * int(task.prog_["PAGE_SIZE"]))
    except _DAMAGED:
        return 0


def _task(task: Object, stack: tuple[str, ...] = ()) -> Task:
    return Task(
        pid=int(task.pid),
        name=_string(task.comm),
        state=short(task_state_to_char(task), 1),
        memory=_resident(task),
        cpu=int(task_cpu(task)),
        stack=stack,
    )  # fmt: skip


def _name(task: Object) -> str:
    return f"{_string(task.comm)} ({int(task.pid)})"


def _string(text: Object) -> str:
    """A text in an array of characters, which may lack its end."""
    return short(bytes(text.to_bytes_()).partition(b"\0")[0], 64)


def _stack(trace: StackTrace) -> tuple[str, ...]:
    return tuple(_frames(trace))


def _frames(trace: StackTrace) -> Iterator[str]:
    for frame in islice(trace, _FRAMES):
        try:
            file, line, _ = frame.source()
            where = f" at {file}:{line}"
        except LookupError:  # it has no symbols
            where = ""
        yield short(f"{frame.name or hex(frame.pc)}{where}", 200)
