//! The world switch: the guest's registers in, VMRUN, the guest's registers out.
//!
//! VMRUN and its exit switch what the control block has (and RAX); VMLOAD and VMSAVE the hidden segment state, SYSCALL's
//! and SYSENTER's registers; this code the other general registers. FPU and debug registers stay in the CPU, see `extra`.
//!
//! Interrupts of the machine are let through to the guest's exits only: the global interrupt flag is clear from before the
//! interrupt flag is set until after it is cleared again.

use core::arch::naked_asm;
use core::mem::offset_of;

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

/// Runs a guest until its next exit. `guest` and `host` are physical addresses of control blocks: the guest's, and one that
/// VMSAVE has filled with this CPU's own state. RAX is in the guest's.
///
/// # Safety
/// The blocks are as said; SVM is on; the guest's block confines it (intercepts, nested table).
#[unsafe(naked)]
pub unsafe extern "sysv64" fn run(guest: u64, registers: *mut Registers, host: u64) {
    naked_asm!(
        r#"
        .irp register, rbx, rbp, r12, r13, r14, r15, rdx, rsi
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
        mov rax, [rsp];         place = {rbx}
        .irp register, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
            mov [rax + place], \register;  place = place + 8
        .endr
        mov rax, [rsp + 8];     vmload rax
        cli;                    stgi;           cld
        add rsp, 16
        .irp register, r15, r14, r13, r12, rbp, rbx
            pop \register
        .endr
        ret
        "#,
        rbx = const offset_of!(Registers, rbx),
        rsi = const offset_of!(Registers, rsi),
        rdi = const offset_of!(Registers, rdi),
    )
}
