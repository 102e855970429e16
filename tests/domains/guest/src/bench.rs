//! What hypercalls, events and grants cost a virtual machine, in executed instructions by the time stamp counter (under QEMU's
//! instruction clock). A figure is a line `BENCH name min median p99 mean n`, as the domain `bench` prints them.

use crate::cpu::{self, UPCALLS, time};
use crate::hypercall::{call, with};
use crate::println;
use crate::silly::number;
use crate::tasks::{Failure, SHARED, check, connect};
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicU64, Ordering};
use xen_abi::event_channel::{
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_BIND_IPI, EVTCHNOP_BIND_VIRQ, EVTCHNOP_SEND,
    EVTCHNOP_STATUS, EVTCHNSTAT_INTERDOMAIN, EvtchnAllocUnbound, EvtchnBindInterdomain, EvtchnBindIpi, EvtchnBindVirq,
    EvtchnSend, EvtchnStatus,
};
use xen_abi::grant_table::{
    GNTCOPY_SOURCE_GREF, GNTMAP_HOST_MAP, GNTTABOP_COPY, GNTTABOP_MAP_GRANT_REF, GNTTABOP_UNMAP_GRANT_REF, GnttabCopy,
    GnttabMapGrantRef, GnttabUnmapGrantRef,
};
use xen_abi::sched::SCHEDOP_YIELD;
use xen_abi::vcpu::{VCPUOP_SET_SINGLESHOT_TIMER, VcpuSetSingleshotTimer};
use xen_abi::version::XENVER_VERSION;
use xen_abi::xen::{
    DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_SCHED_OP, HYPERVISOR_VCPU_OP,
    HYPERVISOR_XEN_VERSION, VIRQ_TIMER,
};

const SAMPLES: usize = 200;
/// Where a peer's page is mapped: guest-physical addresses without memory.
const WINDOW: u64 = 0x3000_0000;
/// References that a peer's page may have.
const REFERENCES: core::ops::Range<u32> = 2..256;
/// Nanoseconds until a timer that is measured.
const TIMER_NANOSECONDS: u64 = 200_000;

/// Measures all.
pub fn run(command_line: &str) -> Result<(), Failure> {
    connect()?;
    let bench = Bench { forever: command_line.split(' ').find_map(|word| word.strip_prefix("forever=")) };
    let peer = number(command_line, "peer").ok_or("no peer=")? as u16;
    bench.measure("pvh_cpuid_exit", || _ = __cpuid(0));
    bench.measure("pvh_null_hypercall", || _ = call(HYPERVISOR_XEN_VERSION, [XENVER_VERSION, 0, 0, 0, 0]));

    // Ports are given out in order, and the peers expect these to be the first.
    let (native, guest) = (offer(peer)?, number(command_line, "echo").map(|echo| offer(echo as u16)).transpose()?);
    let mut bind = EvtchnBindIpi::default();
    check(with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_IPI, &mut bind) == 0, "no port to oneself")?;
    bench.measure("pvh_event_send_self", || {
        with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut EvtchnSend { port: bind.port });
        cpu::let_interrupts_in();
    });

    ping_pong(&bench, "pvh_event_ping_pong", native)?;
    if let Some(guest) = guest {
        ping_pong(&bench, "pvh_to_pvh_event_ping_pong", guest)?;
    }
    grants(&bench, peer)?;
    timer()?;
    println!("BENCH-END");
    Ok(())
}

/// A port for a domain to bind to.
fn offer(remote_dom: u16) -> Result<u32, Failure> {
    let mut unbound = EvtchnAllocUnbound { dom: DOMID_SELF, remote_dom, ..Default::default() };
    check(with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_ALLOC_UNBOUND, &mut unbound) == 0, "no port for a peer")?;
    Ok(unbound.port)
}

/// An event to who has bound the port, and back.
fn ping_pong(bench: &Bench<'_>, name: &str, port: u32) -> Result<(), Failure> {
    let mut status = EvtchnStatus { dom: DOMID_SELF, port, ..Default::default() };
    while status.status != EVTCHNSTAT_INTERDOMAIN {
        call(HYPERVISOR_SCHED_OP, [SCHEDOP_YIELD, 0, 0, 0, 0]);
        check(with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_STATUS, &mut status) == 0, "its port has no status")?;
    }
    cpu::let_interrupts_in();
    bench.measure(name, || {
        let before = UPCALLS.load(Ordering::Relaxed);
        with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut EvtchnSend { port });
        while UPCALLS.load(Ordering::Relaxed) == before {
            cpu::wait();
        }
    });
    Ok(())
}

/// Binds to the port of a domain that measures, and sends each event back, for ever.
pub fn echo(command_line: &str) -> Result<(), Failure> {
    connect()?;
    let remote_dom = number(command_line, "peer").ok_or("no peer=")? as u16;
    let remote_port = number(command_line, "port").ok_or("no port=")? as u32;
    let mut bind = EvtchnBindInterdomain { remote_dom, remote_port, ..Default::default() };
    while with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_INTERDOMAIN, &mut bind) != 0 {
        call(HYPERVISOR_SCHED_OP, [SCHEDOP_YIELD, 0, 0, 0, 0]);
    }
    // What came with the binding is not the peer's.
    cpu::let_interrupts_in();
    loop {
        let before = UPCALLS.load(Ordering::Relaxed);
        while UPCALLS.load(Ordering::Relaxed) == before {
            cpu::wait();
        }
        with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut EvtchnSend { port: bind.local_port });
    }
}

fn grants(bench: &Bench<'_>, peer: u16) -> Result<(), Failure> {
    let map = |reference| {
        let (host_addr, flags) = (WINDOW, GNTMAP_HOST_MAP);
        let mut op = GnttabMapGrantRef { host_addr, flags, gref: reference, dom: peer, ..Default::default() };
        call(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_MAP_GRANT_REF, (&raw mut op).addr() as u64, 1, 0, 0]);
        (op.status == 0).then_some(op.handle)
    };
    let unmap = |handle| {
        let mut op = GnttabUnmapGrantRef { host_addr: WINDOW, handle, ..Default::default() };
        call(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_UNMAP_GRANT_REF, (&raw mut op).addr() as u64, 1, 0, 0]);
        op.status == 0
    };
    let found = REFERENCES.into_iter().find(|reference| map(*reference).is_some_and(unmap));
    let reference = found.ok_or("no page of the peer can be mapped")?;
    let mut failed = false;
    bench.measure("pvh_grant_map_unmap_1", || failed |= !map(reference).is_some_and(unmap));
    check(!failed, "mapping failed")?;

    #[repr(C, align(4096))]
    struct Page([AtomicU64; 512]);
    static PAGE: Page = Page([const { AtomicU64::new(0) }; 512]);
    for (name, bytes) in [("pvh_grant_copy_4096", 4096), ("pvh_grant_copy_64", 64)] {
        bench.measure(name, || {
            let mut op = GnttabCopy { len: bytes, flags: GNTCOPY_SOURCE_GREF, ..Default::default() };
            (op.source.target, op.source.domid) = (reference.into(), peer);
            (op.dest.target, op.dest.domid) = ((&raw const PAGE).addr() as u64 >> 12, DOMID_SELF);
            call(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_COPY, (&raw mut op).addr() as u64, 1, 0, 0]);
            failed |= op.status != 0;
        });
    }
    check(!failed, "copying failed")
}

/// From a timer's time to its upcall's handler, out of HLT.
fn timer() -> Result<(), Failure> {
    let mut bind = EvtchnBindVirq { virq: VIRQ_TIMER, ..Default::default() };
    check(with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_VIRQ, &mut bind) == 0, "no timer")?;
    let mut samples = Samples::new();
    for _ in 0..SAMPLES {
        let now = now();
        let mut timer = VcpuSetSingleshotTimer { timeout_abs_ns: now + TIMER_NANOSECONDS, ..Default::default() };
        let before = UPCALLS.load(Ordering::Relaxed);
        check(
            call(HYPERVISOR_VCPU_OP, [VCPUOP_SET_SINGLESHOT_TIMER, 0, (&raw mut timer).addr() as u64, 0, 0]) == 0,
            "the timer cannot be set",
        )?;
        while UPCALLS.load(Ordering::Relaxed) == before {
            cpu::wait();
        }
        // The clock has a tick a nanosecond, or nearly so.
        samples.add(self::now().saturating_sub(now + TIMER_NANOSECONDS));
    }
    samples.report("pvh_timer_latency_ns");
    Ok(())
}

/// System time, by the first vCPU's clock (Xen public `xen.h`, `vcpu_time_info`), which never changes.
fn now() -> u64 {
    let word = |index: usize| SHARED.0[index].load(Ordering::Relaxed);
    let (timestamp, system_time) = (word(5), word(6));
    let (multiplier, shift) = (word(7) as u32, (word(7) >> 32) as u8);
    let ticks = u128::from(time().wrapping_sub(timestamp)) << shift;
    system_time + (ticks * u128::from(multiplier) >> 32) as u64
}

struct Samples {
    values: [u64; SAMPLES],
    count: usize,
}

impl Samples {
    fn new() -> Self {
        Self { values: [0; SAMPLES], count: 0 }
    }

    fn add(&mut self, value: u64) {
        if let Some(place) = self.values.get_mut(self.count) {
            (*place, self.count) = (value, self.count + 1);
        }
    }

    fn report(mut self, name: &str) {
        self.values.sort_unstable();
        let mean = self.values.iter().sum::<u64>() / SAMPLES as u64;
        let [min, median, p99] = [0, SAMPLES / 2, SAMPLES * 99 / 100].map(|index| self.values[index]);
        println!("BENCH {name} {min} {median} {p99} {mean} {SAMPLES}");
    }
}

/// What a trace is cut into pieces by.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bench_mark() {
    core::hint::black_box(());
}

struct Bench<'a> {
    /// The metric that is to be done over and over, for a trace.
    forever: Option<&'a str>,
}

impl Bench<'_> {
    fn measure(&self, name: &str, mut act: impl FnMut()) {
        (0..8).for_each(|_| act());
        if self.forever == Some(name) {
            println!("BENCH-FOREVER {name} 1");
            loop {
                bench_mark();
                act();
            }
        }
        let mut samples = Samples::new();
        for _ in 0..SAMPLES {
            let start = time();
            act();
            samples.add(time() - start);
        }
        samples.report(name);
    }
}
