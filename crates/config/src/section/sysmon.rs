//! `sysmon`: watermarks of the machine.

use super::{DISABLED, INFINITY};
use crate::schema::{Field, Kind, field, group, open};
use crate::settings::Sysmon;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    group("os", OS, "Watermarks of processor and memory."),
    group("vm", VM, "Watermarks of the Erlang machine.").inert(),
    open("top", "Detection of busy Erlang processes.").hidden(),
];

static OS: &[Field] = &[
    field(
        "cpu_check_interval",
        Kind::Words(DISABLED, &Kind::Duration),
        "60s",
        "Time between two checks of the processor.",
    ),
    field(
        "cpu_high_watermark",
        Kind::Percent,
        "80%",
        "Load that raises the alarm.",
    ),
    field(
        "cpu_low_watermark",
        Kind::Percent,
        "60%",
        "Load that clears it.",
    ),
    field(
        "mem_check_interval",
        Kind::Words(DISABLED, &Kind::Duration),
        "60s",
        "Time between two checks of the memory.",
    ),
    field(
        "sysmem_high_watermark",
        Kind::Percent,
        "70%",
        "Used memory that raises the alarm.",
    ),
    field(
        "procmem_high_watermark",
        Kind::Percent,
        "5%",
        "Memory one process may use.",
    ),
];

static VM: &[Field] = &[
    field(
        "process_check_interval",
        Kind::Duration,
        "30s",
        "Time between two checks.",
    ),
    field(
        "process_high_watermark",
        Kind::Percent,
        "80%",
        "Processes that raise the alarm.",
    ),
    field(
        "process_low_watermark",
        Kind::Percent,
        "60%",
        "Processes that clear it.",
    ),
    field(
        "long_gc",
        Kind::Words(DISABLED, &Kind::Duration),
        "disabled",
        "Length of a garbage collection that is reported.",
    ),
    field(
        "long_schedule",
        Kind::Words(DISABLED, &Kind::Duration),
        "240ms",
        "Length of a run without a break that is reported.",
    ),
    field(
        "large_heap",
        Kind::Words(INFINITY, &Kind::Words(DISABLED, &Kind::ByteSize)),
        "32MB",
        "Heap that is reported.",
    ),
    field(
        "busy_dist_port",
        Kind::Bool,
        "true",
        "Report busy links between nodes.",
    ),
    field("busy_port", Kind::Bool, "true", "Report busy connections."),
];

pub(crate) fn build(v: View<'_>) -> Sysmon {
    let os = v.view("os");
    Sysmon {
        cpu_check_interval_ms: os.opt_ms("cpu_check_interval"),
        cpu_high_watermark: os.float("cpu_high_watermark"),
        cpu_low_watermark: os.float("cpu_low_watermark"),
        mem_check_interval_ms: os.opt_ms("mem_check_interval"),
        sysmem_high_watermark: os.float("sysmem_high_watermark"),
        procmem_high_watermark: os.float("procmem_high_watermark"),
    }
}
