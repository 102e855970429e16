//! The world switch: the guest's registers in, VMRUN, the guest's registers out.
//!
//! VMRUN and its exit switch what the control block has (and RAX); VMLOAD and VMSAVE the hidden segment state, SYSCALL's
//! and SYSENTER's registers; this code the other general registers. The flags are among what the exit brings back. FPU and debug registers stay in the CPU, see `extra`.
//!
//! Interrupts of the machine are let through to the guest's exits only: the global interrupt flag is clear from before the
//! interrupt flag is set until after it is cleared again.

use core::arch::naked_asm;
use core::{mem::offset_of, sync::atomic::AtomicU64};

/// General registers but RSP.
#[repr(C)]
#[derive(Clone, Default)]
#[allow(missing_docs, reason = "register names")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// The physical address of a control block that VMSAVE has filled with this CPU's own state.
pub static HOST: AtomicU64 = AtomicU64::new(0);

/// Runs a guest until its next exit. `guest` is the physical address of its control block, where its RAX is.
///
/// # Safety
/// SVM is on; [`HOST`] is as said; the guest's block confines it (intercepts, nested table).
#[unsafe(naked)]
pub unsafe extern "sysv64" fn run(guest: u64, registers: *mut Registers) {
    naked_asm!(
        r#"
        .irp register, rbx, rbp, r12, r13, r14, r15, rsi
            push \register
        .endr
        mov rax, rdi;           place = {rbx}
        .irp register, rbx, rcx, rdx
            mov \register, [rsi + place];  place = place + 8
        .endr
        place = {rdi}
        .irp register, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
            mov \register, [rsi + place];  place = place + 8
        .endr
        mov rsi, [rsi + {rsi}]
        clgi;                   sti
        vmload rax;             vmrun rax;      vmsave rax
        pop rax;                place = {rbx}
        .irp register, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
            mov [rax + place], \register;  place = place + 8
        .endr
        mov rax, [rip + {host}];                vmload rax
        cli;                    stgi
        .irp register, r15, r14, r13, r12, rbp, rbx
            pop \register
        .endr
        ret
        "#,
        rbx = const offset_of!(Registers, rbx),
        rsi = const offset_of!(Registers, rsi),
        rdi = const offset_of!(Registers, rdi),
        host = sym HOST,
    )
}
