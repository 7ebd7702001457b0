"""What the words on the status page mean."""

from __future__ import annotations

_WORDS = (
    ("active", "Active", "Energy above the idle power of a device, attributed by the share of busy seconds."),
    (
        "idle",
        "Idle",
        "Of a workload: idle power of the GPUs that it holds, at work or not.",
    ),
    (
        "unused",
        "Unused",
        "Energy of GPUs that a workload held while it did nothing on them: waste. Idle power of GPUs at work is not.",
    ),
    (
        "node-idle",
        "Idle, the node itself",
        "Idle energy of CPU and memory, and of GPUs that nothing holds. It belongs to no workload.",
    ),
    (
        "idle-power",
        "Idle power",
        "What a device draws without work. <b>learned</b>: observed here. <b>configured</b>: set by --idle.watts. "
        "<b>prior</b>: assumed until it is observed, from published values or from equal cards of this node.",
    ),
    (
        "unattributed",
        "Not attributed",
        "Energy whose user is not known: of processes that ended before they were seen, of the kernel, of gaps "
        "between readings, or unknown, as that of components without usage data.",
    ),
    (
        "unnamed",
        "Name not yet known",
        "Energy of containers whose names are being looked up, half a minute at most, and of new counters.",
    ),
    ("ended", "Ended workloads", "Energy of workloads that ended, and whose series have expired."),
    (
        "other",
        "Other",
        "What a meter of the whole platform counts beyond CPU, memory and GPUs: fans, disks, power supply.",
    ),
    ("share", "Share", "Power of a workload in that of the node. Green is active, amber is idle."),
    (
        "holder",
        "Held by",
        "Workloads that energy of the card is attributed to now, with their watts: they compute on it, have memory on "
        "it, or it is allocated to them.",
    ),
    (
        "sm",
        "SM, Tensor, DRAM",
        "Share of time in which multiprocessors, tensor cores and memory interface of the card work; busy only means "
        "that some kernel runs.",
    ),
    (
        "estimated",
        "Measured, estimated",
        "Measured by a meter of the hardware; estimated from utilisation, where there is none, within the bounds "
        "that are shown; simulated in a demo.",
    ),
    (
        "error",
        "Relative error",
        "The difference between the energy of all devices and the sum of what is shown here. About 1e-16 is "
        "rounding of the last digit: nothing is lost or counted twice.",
    ),
    (
        "fault",
        "Stuck, no reading",
        "The counter of a device has not moved for long, or the device no longer responds; see the log.",
    ),
)


def words(content: str) -> str:
    """Return the explanations that ``content`` links to with `exporter.exposition.status.markup.term`."""
    entries = "".join(
        [
            f'<dt id="word-{key}">{title}</dt><dd>{meaning}</dd>'
            for key, title, meaning in _WORDS
            if f'"#word-{key}"' in content
        ]
    )
    return f'<section class="card panel words"><h2>Words on this page</h2><dl>{entries}</dl></section>'
