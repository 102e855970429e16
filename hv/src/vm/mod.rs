//! Domains of kind `pvh`: hardware virtual machines for stock kernels (`xen_abi::pvh` is their contract).
//!
//! A guest's memory is its domain's address space: the very table that a native domain's CR3 would name is the nested table.
//! What is told from a native domain: how a vCPU is entered and left (`hardware`, `svm`), what an exit means (`exits`),
//! what the guest sees of the CPU (`cpuid`, `msr`, `apic`), and how its hypercalls' addresses are read (`guest`).
//!
//! [`run`] is where the way out of the hypervisor leads when a guest is current; it ends where traps of native domains end. All vCPUs of a machine are behind one lock, which is held while one of them runs: there is one CPU, and nobody
//! else needs it meanwhile.

mod apic;
mod cpuid;
mod exits;
mod extra;
pub mod guest;
mod hardware;
mod hypercall;
mod msr;
mod svm;

pub use hypercall::hvm_op;

use crate::boot::report::{Finding, fact};
use crate::cpu::percpu::{self, NATIVE_DIRECT};
use crate::domain::{end_current, let_interrupts_in, next_key, resume, take_restart, vcpu_waits, wake};
use crate::{machine::Bare, mm::frames, mm::user, system::system, time, traps::entry::enter};
use alloc::vec::Vec;
use apic::{Apic, Message};
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use extra::Extra;
use hardware::{Hardware, Registers};
use hv_core::domain::{Death, Domain, VCPUS_MAX};
use hv_core::ids::{DomId, Gpa, Hpa, Mfn, SLOTS, Slot, VcpuId};
use hv_core::{error::Errno, fallible, frames::Purpose, machine::MachineMemory, sched::VcpuKey, space::Access};
use spin::{Mutex, MutexGuard};
use svm::Svm;
use x86_64::instructions::interrupts;
use xen_abi::{hvm::HVM_NR_PARAMS, sched::SHUTDOWN_POWEROFF, vcpu as vcpu_abi};
use zerocopy::IntoBytes;

/// What a vCPU is on this machine.
type Machine = Svm;

/// A virtual CPU.
struct Vcpu {
    registers: Registers,
    hardware: Machine,
    extra: Extra,
    apic: Apic,
    /// Where its `VcpuInfo` is.
    info: Hpa,
    nmi: bool,
    runstate: Option<Runstate>,
}

/// A virtual machine.
pub struct Vm {
    vcpus: heapless::Vec<Vcpu, VCPUS_MAX>,
    /// `HVM_PARAM_*`.
    params: [u64; HVM_NR_PARAMS as usize],
    /// The vector that tells of events.
    callback: Option<u8>,
}

/// What is to be done after an exit, with nothing locked.
enum Next {
    Again,
    Interrupt,
    /// HLT, until an interrupt comes.
    Halt,
    /// HLT with interrupts off: for good.
    Stop,
    Send(Message, u8),
    HypercallPage(u64),
    End(Death),
}

static AVAILABLE: AtomicBool = AtomicBool::new(false);
/// Whether there has been a machine at all.
static ANY: AtomicBool = AtomicBool::new(false);
static MACHINES: [Mutex<Vec<Vm>>; SLOTS] = [const { Mutex::new(Vec::new()) }; SLOTS];
/// Whose FPU and debug registers are in this CPU; one more than the vCPU's key.
static EXTRA_OWNER: AtomicU16 = AtomicU16::new(0);

/// Prepares the CPU, if it can run guests.
pub fn init() {
    let able = extra::components().is_some() && Machine::init();
    AVAILABLE.store(able, Ordering::Relaxed);
    fact("svm", Finding::of(able), format_args!("hardware virtual machines with nested paging: pvh domains"));
}

/// Acts on the machine in a slot, if there is one.
fn with<R>(slot: Slot, act: impl FnOnce(&mut Vm) -> R) -> Option<R> {
    MACHINES.get(usize::from(slot.0))?.lock().first_mut().map(|vm| act(vm))
}

fn with_vcpu<R>(key: VcpuKey, act: impl FnOnce(&mut Vcpu) -> R) -> Option<R> {
    with(key.slot(), |vm| vm.vcpus.get_mut(usize::from(key.vcpu().0)).map(act)).flatten()
}

/// Makes the machine of a new domain.
///
/// # Errors
/// `ENOSYS`: the CPU runs none. `ENOMEM`.
pub fn create(domain: &mut Domain, vcpus: u32) -> Result<(), Errno> {
    if !AVAILABLE.load(Ordering::Relaxed) {
        return Err(Errno::ENOSYS);
    }
    let (slot, root) = (domain.slot(), domain.space.cpu_root());
    let mut place = Vec::new();
    fallible::reserve(&mut place, 1)?;
    place.push(Vm { vcpus: heapless::Vec::new(), params: [0; HVM_NR_PARAMS as usize], callback: None });
    let mut machine = MACHINES[usize::from(slot.0) % SLOTS].lock();
    *machine = place;
    let Some(vm) = machine.first_mut() else { return Err(Errno::ENOMEM) };
    for number in (0..vcpus as u8).map(VcpuId) {
        let pages = [(); 2].map(|()| frames().allocate(Purpose::Shared(slot), &Bare));
        let [Some(block), Some(area)] = pages else {
            pages.into_iter().flatten().for_each(|frame| give_back(frame, slot));
            return Err(Errno::ENOMEM);
        };
        let key = VcpuKey::new(slot, number);
        let vcpu = Vcpu {
            registers: Registers::default(),
            hardware: Machine::new(block, root, key.number()),
            extra: Extra::new(area),
            apic: Apic::new(number),
            info: domain.events.shared.vcpu_info(number),
            nmi: false,
            runstate: None,
        };
        vm.vcpus.push(vcpu).map_err(|_| Errno::EINVAL)?;
        if number.0 != 0 {
            domain.stop_vcpu(number);
        }
    }
    ANY.store(true, Ordering::Relaxed);
    Ok(())
}

fn give_back(frame: Mfn, slot: Slot) {
    let freed = frames().free_unmapped(frame, Purpose::Shared(slot));
    debug_assert!(freed.is_ok(), "allocated by `create`");
}

/// Undoes [`create`]. The domain does not run any more.
pub fn release(slot: Slot) {
    for vm in core::mem::take(&mut *MACHINES[usize::from(slot.0) % SLOTS].lock()) {
        for vcpu in &vm.vcpus {
            give_back(vcpu.hardware.frame(), slot);
            give_back(vcpu.extra.frame(), slot);
        }
    }
    if owner().is_some_and(|key| key.slot() == slot) {
        EXTRA_OWNER.store(0, Ordering::Relaxed);
    }
}

fn owner() -> Option<VcpuKey> {
    EXTRA_OWNER.load(Ordering::Relaxed).checked_sub(1).map(VcpuKey::of_number)
}

/// Sets where the first vCPU starts, and its EBX.
pub fn set_entry(slot: Slot, rip: u64, start_info: u64) {
    let _no_machine_no_entry = with_vcpu(VcpuKey::new(slot, VcpuId(0)), |vcpu| {
        vcpu.hardware.start_flat(rip);
        vcpu.registers = Registers { rbx: start_info, ..Registers::default() };
    });
}

/// Translations of a domain have changed: those of a guest are to be forgotten before it runs again.
#[inline(always)]
pub fn nested_changed(domain: DomId) {
    if ANY.load(Ordering::Relaxed) {
        flush(domain);
    }
}

#[inline(never)]
fn flush(domain: DomId) {
    let _native = with(domain.slot(), |vm| vm.vcpus.iter_mut().for_each(|vcpu| vcpu.hardware.flush()));
}

/// A vCPU's `VcpuInfo` has moved.
pub fn move_info(slot: Slot, vcpu: VcpuId, info: Hpa) {
    let _native = with_vcpu(VcpuKey::new(slot, vcpu), |vcpu| vcpu.info = info);
}

/// Runs the vCPU that is current until another one's turn comes.
pub extern "C" fn run() -> ! {
    let Some(key) = next_key() else { enter(resume()) };
    let domain = crate::domain::current();
    take_extra(key);
    let _gone = with_vcpu(key, |vcpu| {
        vcpu.hardware.arrive();
        vcpu.runstate.as_mut().map(Runstate::runs)
    });
    percpu::with(|cpu| cpu.direct = 0);
    let mut result = None;
    loop {
        let mut machine = MACHINES[usize::from(key.slot().0) % SLOTS].lock();
        match machine.first_mut().and_then(|vm| vm.step(key.vcpu(), result.take())) {
            Some((number, args)) => {
                drop(machine);
                result = Some(hypercall::serve(key.slot(), number, args));
            }
            None => deal_with_exit(key, domain, machine),
        }
        if percpu::with(|cpu| cpu.attention != 0) {
            break;
        }
    }
    percpu::with(|cpu| cpu.direct = NATIVE_DIRECT);
    // A call that is to be made again has no result.
    let result = result.filter(|_| take_restart().is_none());
    let _gone = with_vcpu(key, |vcpu| {
        vcpu.finish_call(result);
        vcpu.runstate.as_mut().map(Runstate::stops)
    });
    enter(resume());
}

/// Does what is to be done after an exit that is not a kernel's hypercall.
#[inline(never)]
fn deal_with_exit(key: VcpuKey, domain: DomId, mut machine: MutexGuard<'_, Vec<Vm>>) {
    let next = machine.first_mut().map_or(Next::Interrupt, |vm| vm.exit(domain, key.vcpu()));
    drop(machine);
    match next {
        Next::Again => {}
        Next::Interrupt => let_interrupts_in(|| {
            interrupts::enable();
            x86_64::instructions::nop();
        }),
        Next::Halt => wait(key),
        Next::Stop => stop(key, domain),
        Next::Send(message, targets) => send(domain, key.slot(), message, targets),
        Next::HypercallPage(at) => fill_hypercall_page(at),
        Next::End(death) => end_current(death),
    }
}

impl Vm {
    /// Runs a vCPU to its next exit. If that is a kernel's hypercall, answers its number and arguments.
    #[inline(always)] // in the way of each exit
    fn step(&mut self, number: VcpuId, result: Option<u64>) -> Option<(u64, [u64; 5])> {
        let vcpu = self.vcpus.get_mut(usize::from(number.0))?;
        vcpu.finish_call(result);
        vcpu.prepare(&self.callback);
        let calls = vcpu.hardware.run(&mut vcpu.registers);
        let Registers { rax, rdi, rsi, rdx, r10, r8, .. } = vcpu.registers;
        calls.then_some((rax, [rdi, rsi, rdx, r10, r8]))
    }
}

impl Vcpu {
    /// Whether it was told of an event and has not looked yet (Xen's "level-triggered" upcall).
    fn has_event(&self) -> bool {
        Bare.load_u64(self.info) & 0xff != 0
    }

    /// Goes on behind a hypercall, with its result.
    fn finish_call(&mut self, result: Option<u64>) {
        if let Some(result) = result {
            self.registers.rax = result;
            self.hardware.call_served();
        }
    }

    /// Hands over what waits for the vCPU, if anything does.
    #[inline(always)] // in the way of each exit
    fn prepare(&mut self, callback: &Option<u8>) {
        // An upcall that has been offered stays so until it is taken.
        if self.nmi || self.apic.has_requests() || self.hardware.is_offering() != self.has_event() {
            self.deliver(*callback);
        }
    }

    /// First an NMI, then interrupts of its APIC, then the upcall.
    #[inline(never)]
    fn deliver(&mut self, callback: Option<u8>) {
        if self.nmi && !self.hardware.is_injecting() {
            self.nmi = false;
            self.hardware.inject_nmi();
        }
        let pending = self.apic.pending(self.hardware.task_priority());
        let open = self.hardware.is_open();
        if let Some(vector) = pending.filter(|_| open) {
            self.apic.accept(vector);
            self.hardware.inject_interrupt(vector);
        }
        let window = pending.is_some() && !open;
        let upcall = callback.filter(|_| !window && self.has_event());
        self.hardware.offer(upcall, window);
    }
}

/// The state that this CPU holds for one vCPU at a time becomes this one's.
fn take_extra(key: VcpuKey) {
    let owner = owner();
    if owner == Some(key) {
        return;
    }
    if let Some(owner) = owner {
        let _gone = with_vcpu(owner, |vcpu| vcpu.extra.save());
    }
    let _gone = with_vcpu(key, |vcpu| vcpu.extra.load());
    EXTRA_OWNER.store(key.number() + 1, Ordering::Relaxed);
}

/// A vCPU waits for an event or an interrupt, unless one is there.
fn wait(key: VcpuKey) {
    let interrupt = with_vcpu(key, |vcpu| vcpu.nmi || vcpu.apic.pending(vcpu.hardware.task_priority()).is_some());
    if interrupt == Some(true) {
        return;
    }
    let waits = system().domains.with(crate::domain::current(), |domain| domain.block(key.vcpu(), &Bare));
    if waits == Ok(true) {
        let _none = with_vcpu(key, |vcpu| vcpu.runstate.as_mut().map(|runstate| runstate.blocked = true));
        vcpu_waits(key);
    }
}

/// A vCPU has stopped for good; with the last one the domain ends.
fn stop(key: VcpuKey, domain: DomId) {
    let all = system().domains.with(domain, |domain| {
        domain.stop_vcpu(key.vcpu());
        domain.all_stopped()
    });
    if all == Ok(true) {
        end_current(Death::new(SHUTDOWN_POWEROFF, format_args!("halted")));
    } else {
        vcpu_waits(key);
    }
}

/// Sends a message between vCPUs.
fn send(domain: DomId, slot: Slot, message: Message, targets: u8) {
    for number in (0..VCPUS_MAX as u8).filter(|number| targets & 1 << number != 0).map(VcpuId) {
        let key = VcpuKey::new(slot, number);
        let is_down = system().domains.with(domain, |domain| domain.is_stopped(number)) != Ok(false);
        let known = with_vcpu(key, |vcpu| match message {
            Message::Fixed(vector) => vcpu.apic.request(vector),
            Message::Nmi => vcpu.nmi = true,
            Message::Startup(page) if is_down => {
                vcpu.hardware.start_real(page);
                vcpu.registers = Registers::default();
                vcpu.apic = Apic::new(number);
            }
            Message::Init | Message::Startup(_) => {}
        });
        if known.is_none() {
            continue;
        }
        let woken = system().domains.with(domain, |domain| match message {
            Message::Fixed(_) | Message::Nmi => domain.kick(number),
            Message::Startup(_) => domain.start_vcpu(number),
            Message::Init if number.0 != 0 => {
                domain.stop_vcpu(number);
                None
            }
            Message::Init => None,
        });
        if matches!(message, Message::Init) && number.0 != 0 {
            vcpu_waits(key);
        }
        wake(woken.ok().flatten());
    }
}

/// Fills a page with one entry of 32 bytes a hypercall (Xen public `arch-x86/cpuid.h`, leaf 2): `mov eax, NUMBER`,
/// `vmmcall`, `ret`.
fn fill_hypercall_page(at: u64) {
    let mut page = [0xccu8; 4096];
    for (number, entry) in page.chunks_mut(32).enumerate() {
        entry[..9].copy_from_slice(&[0xb8, number as u8, 0, 0, 0, 0x0f, 0x01, 0xd9, 0xc3]);
    }
    // A guest that names a page it does not have gets none.
    let _not_there = user::write_direct(at, &page);
}

/// How a vCPU's time went, kept up to date in its memory (`VCPUOP_register_runstate_memory_area`).
struct Runstate {
    /// Where: two pieces, should it cross a page.
    places: heapless::Vec<(u64, usize, usize), 2>,
    info: vcpu_abi::VcpuRunstateInfo,
    left: u64,
    blocked: bool,
}

impl Runstate {
    fn runs(&mut self) {
        let now = time::now().0;
        let times = &mut self.info.time;
        let waited =
            if core::mem::take(&mut self.blocked) { vcpu_abi::RUNSTATE_BLOCKED } else { vcpu_abi::RUNSTATE_RUNNABLE };
        times[vcpu_abi::RUNSTATE_RUNNING as usize] += self.left.saturating_sub(self.info.state_entry_time);
        times[waited as usize] += now.saturating_sub(self.left);
        (self.info.state, self.info.state_entry_time) = (vcpu_abi::RUNSTATE_RUNNING, now);
        for &(place, start, length) in &self.places {
            // What the guest took away meanwhile is not written.
            let _taken_away =
                user::write_direct(place, self.info.as_bytes().get(start..start + length).unwrap_or_default());
        }
    }

    fn stops(&mut self) {
        self.left = time::now().0;
    }
}

/// `VCPUOP_register_runstate_memory_area`.
///
/// # Errors
/// `EFAULT`. `ENOSYS`: not a guest.
pub fn register_runstate(slot: Slot, vcpu: VcpuId, at: Gpa) -> Result<(), Errno> {
    let mut places = heapless::Vec::new();
    guest::pieces(at, size_of::<vcpu_abi::VcpuRunstateInfo>(), Access::Write, |place, start, length| {
        places.push((place, start, length)).map_err(|_| hv_core::space::Fault)
    })?;
    let now = time::now().0;
    let info = vcpu_abi::VcpuRunstateInfo { state_entry_time: now, ..Default::default() };
    let mut runstate = Runstate { places, info, left: now, blocked: false };
    runstate.runs();
    with_vcpu(VcpuKey::new(slot, vcpu), |vcpu| vcpu.runstate = Some(runstate)).ok_or(Errno::ENOSYS)
}
