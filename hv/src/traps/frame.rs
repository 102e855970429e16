//! A vCPU's registers while it does not run.

/// [`Frame::vector`] after SYSCALL: SYSRET may return. Of the general registers only those are saved that a function
/// must preserve, and RAX; the others come back as zero, or as RIP and RFLAGS (RCX, R11).
pub const VECTOR_SYSCALL: u64 = 0x100;

/// [`Frame::vector`] of guests: their registers are elsewhere, `vm::run` knows.
pub const VECTOR_GUEST: u64 = 0x200;

/// RFLAGS of a domain at its start: interrupts on, nothing else but the bit that is always one.
const RFLAGS_START: u64 = 0x202;

/// General registers in the order in which `entry` pushes them, then what the CPU pushes.
#[repr(C, align(16))]
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "register names")]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// Vector of the trap, or [`VECTOR_SYSCALL`]; 0 in a frame that was made, not saved.
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

const _: () = assert!(size_of::<Frame>() == 22 * 8);

impl Frame {
    /// Registers of a native domain at its first instruction.
    pub const fn start(rip: u64, rsp: u64, argument: u64) -> Self {
        use crate::cpu::descriptors::{USER_CODE, USER_DATA};
        Self {
            rdi: argument,
            rip,
            cs: USER_CODE as u64,
            rflags: RFLAGS_START,
            rsp,
            ss: USER_DATA as u64,
            // SAFETY: all fields are integers, for which zero bytes are a value.
            ..unsafe { core::mem::zeroed() }
        }
    }

    /// What stands for the registers of a guest.
    pub const fn guest() -> Self {
        Self { vector: VECTOR_GUEST, ..Self::start(u64::MAX, 0, 0) }
    }

    /// Makes the domain's SYSCALL happen again when it runs next (the instruction has two bytes).
    pub fn restart_syscall(&mut self, number: u64, [rdi, rsi, rdx, r10, r8]: [u64; 5]) {
        (self.rdi, self.rsi, self.rdx, self.r10, self.r8) = (rdi, rsi, rdx, r10, r8);
        self.rax = number;
        self.rip = self.rip.wrapping_sub(2);
        self.vector = 0;
    }
}
