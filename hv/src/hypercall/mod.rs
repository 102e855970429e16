//! What domains ask for: one file a hypercall. `docs/hypercalls.md` has the register tables.
//!
//! RAX = number, RDI RSI RDX R10 R8 = arguments, result in RAX. A result below zero is an error number; positive ones
//! are never errors. Arguments in memory are copied in once, by the domain's own rights, and only the copy is used.
//! Long work is cut into slices: the domain's SYSCALL is made to happen again, and what was done so far is remembered
//! by the hypervisor, never in the domain's memory.

mod console_io;
mod event_channel;
mod grant_table;
mod memory;
mod multicall;
mod physdev;
mod platform;
mod sched;
mod vcpu;
mod version;

use crate::{domain, machine::Bare, system::system, traps::Frame};
use hv_core::domain::{Env, Wake};
use hv_core::ids::{DomId, Gpa, VcpuId};
use hv_core::{error::Errno, grant::Continuation, space::AddressSpace};
use xen_abi::xen as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// How a hypercall ends when it does not fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Answer {
    /// With this result.
    Done(u64),
    /// Not yet: the same call again, after the hypervisor has looked at what else there is to do.
    Again,
    /// Not now: the domain waits; its result is already in place for when it wakes.
    Waits,
    /// Not at all: the domain has ended.
    Ended,
}

/// What a hypercall comes to.
pub type Outcome = Result<Answer, Errno>;

/// Success without a value.
pub const OK: Outcome = Ok(Answer::Done(0));

/// What can be copied in and out: any bytes are a value, and none of them are padding.
pub trait Structure: FromBytes + IntoBytes + Immutable {}

impl<T: FromBytes + IntoBytes + Immutable> Structure for T {}

/// A hypercall being served.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// Who calls.
    pub caller: DomId,
    /// With what. Read where it is needed: the shortest calls need little of it.
    registers: &'a Frame,
}

impl Call<'_> {
    /// The arguments.
    #[inline]
    pub const fn args(&self) -> [u64; 5] {
        let from = self.registers;
        [from.rdi, from.rsi, from.rdx, from.r10, from.r8]
    }

    /// The command, first argument of most hypercalls.
    pub const fn command(&self) -> u64 {
        self.registers.rdi
    }

    /// The address of the command's structure, second argument of most hypercalls.
    pub const fn structure(&self) -> Gpa {
        Gpa(self.registers.rsi)
    }

    /// The logic's environment.
    #[inline]
    pub fn env(&self) -> Env<'static, Bare> {
        system().env()
    }

    /// Fails unless `domid` means the caller: nobody else's affairs are its business.
    pub fn must_be_own(&self, domid: u16) -> Result<(), Errno> {
        if DomId(domid).or_self(self.caller) == self.caller { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Serves a command that only reads its structure.
    #[inline]
    pub fn input<T: Structure>(&self, act: impl FnOnce(T) -> Result<(), Errno>) -> Outcome {
        act(self.read(self.structure())?)?;
        OK
    }

    /// Serves a command whose structure has outputs. It is written back even if the command fails, since some tell in
    /// it how far they came.
    pub fn in_out<T: Structure>(&self, act: impl FnOnce(&mut T) -> Result<(), Errno>) -> Outcome {
        let mut op = self.read_in_out(self.structure())?;
        let outcome = act(&mut op);
        self.write(self.structure(), &op)?;
        outcome.and(OK)
    }

    /// Acts on the caller's memory.
    #[inline]
    fn memory<R, E: Into<Errno>>(&self, act: impl FnOnce(&AddressSpace, &Bare) -> Result<R, E>) -> Result<R, Errno> {
        let system = system();
        system.domains.with(self.caller, |domain| act(&domain.space, &system.machine))?.map_err(Into::into)
    }

    /// Copies a structure in.
    #[inline]
    pub fn read<T: Structure>(&self, from: Gpa) -> Result<T, Errno> {
        self.memory(|space, machine| space.read(from, machine))
    }

    /// Copies a structure in that will be copied out again: it must be writable before anything is done.
    pub fn read_in_out<T: Structure>(&self, at: Gpa) -> Result<T, Errno> {
        let value = self.read(at)?;
        self.check_writable(at, size_of::<T>())?;
        Ok(value)
    }

    /// Copies a structure out.
    #[inline]
    pub fn write<T: Structure>(&self, to: Gpa, value: &T) -> Result<(), Errno> {
        self.memory(|space, machine| space.write(to, value, machine))
    }

    /// Copies bytes in.
    pub fn read_bytes(&self, from: Gpa, into: &mut [u8]) -> Result<(), Errno> {
        self.memory(|space, machine| space.copy_in(from, into, machine))
    }

    /// Copies bytes out.
    pub fn write_bytes(&self, to: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        self.memory(|space, machine| space.copy_out(to, bytes, machine))
    }

    /// Checks that a structure could be written, before anything is done whose result has to be told.
    pub fn check_writable(&self, at: Gpa, bytes: usize) -> Result<(), Errno> {
        self.memory(|space, machine| space.check_writable(at, bytes, machine))
    }

    const fn identity(&self) -> [u64; 4] {
        [self.registers.rax, self.registers.rdi, self.registers.rsi, self.registers.rdx]
    }

    /// How far this call came before it was interrupted; 0 at its beginning.
    pub fn progress(&self) -> Result<u32, Errno> {
        system().domains.with(self.caller, |domain| {
            let interrupted = domain.vcpu(VcpuId(0)).and_then(|vcpu| vcpu.continuation.take());
            Continuation::resume(interrupted, self.identity()).done
        })
    }

    /// Ends a slice: this call goes on from `done` when it is made again.
    pub fn again(&self, done: u32) -> Outcome {
        system().domains.with(self.caller, |domain| {
            if let Some(vcpu) = domain.vcpu(VcpuId(0)) {
                vcpu.continuation = Some(Continuation { call: self.identity(), done });
            }
            Answer::Again
        })
    }
}

/// Where element `index` of an array of structures is.
fn element<T>(array: Gpa, index: u32) -> Result<Gpa, Errno> {
    array.0.checked_add(u64::from(index) * size_of::<T>() as u64).map(Gpa).ok_or(Errno::EFAULT)
}

/// Lets a woken vCPU run when its turn comes.
#[inline]
pub fn wake(wake: Option<Wake>) {
    if let Some(wake) = wake {
        domain::wake(wake);
    }
}

/// Serves one call. The servers are functions of their own, so that this is a jump and they do not share a stack frame.
#[inline(always)]
fn dispatch(call: &Call) -> Outcome {
    match call.registers.rax {
        abi::HYPERVISOR_EVENT_CHANNEL_OP => event_channel::serve(call),
        abi::HYPERVISOR_GRANT_TABLE_OP => grant_table::serve(call),
        abi::HYPERVISOR_SCHED_OP => sched::serve(call),
        abi::HYPERVISOR_XEN_VERSION => version::serve(call),
        abi::HYPERVISOR_VCPU_OP => vcpu::serve(call),
        abi::HYPERVISOR_MEMORY_OP => memory::serve(call),
        abi::HYPERVISOR_PHYSDEV_OP => physdev::serve(call),
        abi::HYPERVISOR_PLATFORM_OP => platform::serve(call),
        abi::HYPERVISOR_CONSOLE_IO => console_io::serve(call),
        abi::HYPERVISOR_MULTICALL => multicall::serve(call),
        _ => Err(Errno::ENOSYS),
    }
}

/// SYSCALL's handler. Answers the frame to go on with.
pub extern "C" fn entry(frame: &mut Frame) -> *mut Frame {
    let caller = domain::count_hypercall();
    match dispatch(&Call { caller, registers: frame }) {
        Ok(Answer::Done(value)) => frame.rax = value,
        Err(error) => frame.rax = error.to_result() as u64,
        Ok(Answer::Again) => frame.restart_syscall(),
        Ok(Answer::Waits) => frame.rax = 0,
        Ok(Answer::Ended) => {}
    }
    domain::resume()
}
