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
pub mod sched;
mod vcpu;
mod version;

use crate::{domain, domain::wake, mm::user, system::system};
pub use hv_core::error::Errno;
use hv_core::{grant::Continuation, ids::DomId, ids::Gpa};
use xen_abi::xen as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What a hypercall comes to: its result, which is in place for when a domain wakes that now waits.
pub type Outcome = Result<u64, Errno>;

/// Success without a value.
pub const OK: Outcome = Ok(0);

/// What can be copied in and out: any bytes are a value, and none of them are padding.
pub trait Structure: FromBytes + IntoBytes + Immutable + Copy {}

impl<T: FromBytes + IntoBytes + Immutable + Copy> Structure for T {}

/// A hypercall being served.
pub struct Call {
    /// Who calls.
    pub caller: DomId,
    number: u64,
    /// With what.
    pub args: [u64; 5],
}

impl Call {
    /// The command, first argument of most hypercalls.
    pub const fn command(&self) -> u64 {
        self.args[0]
    }

    /// The address of the command's structure, second argument of most hypercalls.
    pub const fn structure(&self) -> Gpa {
        Gpa(self.args[1])
    }

    /// Fails unless `domid` means the caller: nobody else's affairs are its business.
    pub fn must_be_own(&self, domid: u16) -> Result<(), Errno> {
        if DomId(domid).or_self(self.caller) == self.caller { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Serves a command that only reads its structure.
    pub fn input<T: Structure>(&self, act: impl FnOnce(T) -> Result<(), Errno>) -> Outcome {
        act(user::read(self.structure())?).and(OK)
    }

    /// Serves a command whose structure has outputs. It is written back even if the command fails, since some tell in
    /// it how far they came.
    pub fn in_out<T: Structure>(&self, act: impl FnOnce(&mut T) -> Result<(), Errno>) -> Outcome {
        let mut op = self.read_in_out(self.structure())?;
        let outcome = act(&mut op);
        user::write(self.structure(), &op)?;
        outcome.and(OK)
    }

    /// Copies a structure in that will be copied out again: it must be writable before anything is done.
    pub fn read_in_out<T: Structure>(&self, at: Gpa) -> Result<T, Errno> {
        user::check_writable(at, size_of::<T>())?;
        Ok(user::read(at)?)
    }

    const fn identity(&self) -> [u64; 4] {
        [self.number, self.args[0], self.args[1], self.args[2]]
    }

    /// How far this call came before it was interrupted; 0 at its beginning.
    pub fn progress(&self) -> Result<u32, Errno> {
        system().domains.with(self.caller, |domain| {
            let interrupted = domain.vcpu(domain::current_vcpu()).and_then(|vcpu| vcpu.continuation.take());
            Continuation::resume(interrupted, self.identity()).done
        })
    }

    /// Ends a slice: this call goes on from `done` when it is made again, after the hypervisor has looked at what else
    /// there is to do.
    pub fn again(&self, done: u32) -> Outcome {
        system().domains.with(self.caller, |domain| {
            if let Some(vcpu) = domain.vcpu(domain::current_vcpu()) {
                vcpu.continuation = Some(Continuation { call: self.identity(), done });
            }
        })?;
        domain::restart(self.number, self.args);
        OK
    }
}

/// What the domain finds in RAX after a call without a value.
fn result(outcome: Result<(), Errno>) -> u64 {
    outcome.map_or_else(|error| error.to_result() as u64, |()| 0)
}

/// Hypercall numbers end here.
pub const NUMBERS: usize = abi::HYPERVISOR_HYPFS_OP as usize + 1;

/// What serves a hypercall: a function of its arguments that answers its result.
pub type Server = extern "C" fn(u64, u64, u64, u64, u64) -> u64;

/// Makes a [`Server`] of a function of a [`Call`].
macro_rules! server {
    ($number:expr, $serve:path) => {{
        extern "C" fn server(rdi: u64, rsi: u64, rdx: u64, r10: u64, r8: u64) -> u64 {
            answer($number, [rdi, rsi, rdx, r10, r8], $serve)
        }
        server
    }};
}

/// The server of each hypercall, as SYSCALL's entry calls it.
pub static ENTRIES: [Server; NUMBERS] = {
    let mut entries = SERVERS;
    entries[abi::HYPERVISOR_SCHED_OP as usize] = crate::traps::entry::syscall_sched;
    entries[abi::HYPERVISOR_EVENT_CHANNEL_OP as usize] = event_channel::serve_last;
    entries
};

/// The server of each hypercall, as multicalls and guests call it.
pub static SERVERS: [Server; NUMBERS] = {
    let mut servers: [Server; NUMBERS] = [none; NUMBERS];
    servers[abi::HYPERVISOR_EVENT_CHANNEL_OP as usize] = event_channel::server;
    servers[abi::HYPERVISOR_GRANT_TABLE_OP as usize] = grant_table::server;
    servers[abi::HYPERVISOR_SCHED_OP as usize] = sched::server;
    servers[abi::HYPERVISOR_XEN_VERSION as usize] = version::server;
    servers[abi::HYPERVISOR_VCPU_OP as usize] = server!(abi::HYPERVISOR_VCPU_OP, vcpu::serve);
    servers[abi::HYPERVISOR_MEMORY_OP as usize] = server!(abi::HYPERVISOR_MEMORY_OP, memory::serve);
    servers[abi::HYPERVISOR_PHYSDEV_OP as usize] = server!(abi::HYPERVISOR_PHYSDEV_OP, physdev::serve);
    servers[abi::HYPERVISOR_PLATFORM_OP as usize] = server!(abi::HYPERVISOR_PLATFORM_OP, platform::serve);
    servers[abi::HYPERVISOR_CONSOLE_IO as usize] = server!(abi::HYPERVISOR_CONSOLE_IO, console_io::serve);
    servers[abi::HYPERVISOR_HVM_OP as usize] = server!(abi::HYPERVISOR_HVM_OP, crate::vm::hvm_op);
    servers[abi::HYPERVISOR_MULTICALL as usize] = server!(abi::HYPERVISOR_MULTICALL, multicall::serve);
    servers
};

/// Serves a call that there is not.
pub extern "C" fn none(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    Errno::ENOSYS.to_result() as u64
}

/// Serves a call, and turns what it comes to into what the domain finds in RAX.
fn answer(number: u64, args: [u64; 5], serve: impl FnOnce(&Call) -> Outcome) -> u64 {
    serve(&Call { caller: domain::current(), number, args }).unwrap_or_else(|error| error.to_result() as u64)
}
