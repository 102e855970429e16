//! Entry points and the exit to ring 3.
//!
//! SYSCALL is kept short: swap GS, save 15 registers and the return state into the current vCPU's frame, take the CPU's
//! stack, call. The exit restores the frame that the handler names: by SYSRET after a SYSCALL, by IRETQ otherwise.
//! SYSRET with a non-canonical RCX would fault in ring 0 on some CPUs; nothing can be mapped in the last page below the
//! hole, so RIP behind a SYSCALL is canonical, and the exit checks again.
//!
//! Alignment-check (AC), direction and single-step flags of ring 3 are cleared on the way in: by SFMASK for SYSCALL, by
//! POPFQ otherwise (an interrupt gate leaves AC, which would switch SMAP off).

use super::{VECTOR_SYSCALL, trap_from_domain, trap_from_hypervisor};
use crate::cpu::descriptors::{USER_CODE, USER_DATA};
use crate::cpu::percpu::PerCpu;
use core::arch::{asm, global_asm};
use core::{mem::offset_of, sync::atomic::AtomicU64};
use x86_64::VirtAddr;

/// Bytes of a stub.
const STUB_BYTES: u64 = 16;

/// Non-maskable interrupts so far. They are counted and otherwise ignored: a device must not be able to stop the
/// hypervisor with one.
pub static NMIS: AtomicU64 = AtomicU64::new(0);

global_asm!(
    r#"
    .altmacro
    .macro save_registers
        .irp register, rdi, rsi, rdx, rcx, rax, r8, r9, r10, r11, rbx, rbp, r12, r13, r14, r15
        push \register
        .endr
    .endm

    .macro restore_registers
        .irp register, r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi
        pop \register
        .endr
    .endm

    .pushsection .text.entry, "ax", @progbits
    .balign 16
    .globl trap_stubs
trap_stubs:
    vector = 0
    .rept 256
        .balign 16
        .if (vector == 2)
            lock inc qword ptr [rip + {nmis}]
            iretq
        .else
            .if (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17) && (vector != 21) && (vector != 29) && (vector != 30)
                push 0
            .endif
            push vector
            .if (vector == 8) || (vector == 18)
                jmp fatal_entry
            .else
                jmp trap_entry
            .endif
        .endif
        vector = vector + 1
    .endr

    .balign 16
trap_entry:
    test byte ptr [rsp + 24], 3
    jz 1f
    save_registers
    swapgs
    mov rdi, rsp
    mov rsp, gs:[{stack_top}]
    push 2
    popfq
    call {trap_from_domain}
    jmp resume_domain
1:  save_registers
    cld
    mov rdi, rsp
    call {trap_from_hypervisor}
    restore_registers
    add rsp, 16
    iretq

fatal_entry:
    save_registers
    cld
    mov rdi, rsp
    call {trap_fatal}
    ud2

    .balign 16
    .globl syscall_entry
syscall_entry:
    swapgs
    mov gs:[{scratch}], rsp
    mov rsp, gs:[{frame_end}]
    push {user_data}
    push qword ptr gs:[{scratch}]
    push r11
    push {user_code}
    push rcx
    push 0
    push {vector_syscall}
    save_registers
    mov rdi, rsp
    mov rsp, gs:[{stack_top}]
    call {hypercall}

    .globl resume_domain
resume_domain:
    mov rsp, rax
    cmp dword ptr [rsp + 15 * 8], {vector_syscall}
    jne 2f
    mov rcx, [rsp + 17 * 8]
    shr rcx, 47
    jnz 2f
    restore_registers
    mov rcx, [rsp + 2 * 8]
    mov r11, [rsp + 4 * 8]
    mov rsp, [rsp + 5 * 8]
    swapgs
    sysretq
2:  restore_registers
    add rsp, 16
    swapgs
    iretq
    .popsection
"#,
    stack_top = const offset_of!(PerCpu, stack_top),
    scratch = const offset_of!(PerCpu, scratch),
    frame_end = const offset_of!(PerCpu, frame_end),
    user_data = const USER_DATA,
    user_code = const USER_CODE,
    vector_syscall = const VECTOR_SYSCALL,
    trap_from_domain = sym trap_from_domain,
    trap_from_hypervisor = sym trap_from_hypervisor,
    trap_fatal = sym super::crash::exception,
    nmis = sym NMIS,
    hypercall = sym crate::hypercall::entry,
);

unsafe extern "C" {
    static trap_stubs: u8;
    static syscall_entry: u8;
}

/// The entry point of a vector.
pub fn stub(vector: u8) -> VirtAddr {
    VirtAddr::from_ptr(&raw const trap_stubs) + u64::from(vector) * STUB_BYTES
}

/// SYSCALL's entry point.
pub fn syscall() -> VirtAddr {
    VirtAddr::from_ptr(&raw const syscall_entry)
}

/// Leaves the hypervisor for the domain whose registers are in `frame`.
pub fn enter(frame: *mut super::Frame) -> ! {
    // SAFETY: `frame` is the current vCPU's frame, which the per-CPU data names too, with ring 3 selectors; the CPU's
    // stack is given up, as at every exit.
    unsafe { asm!("jmp resume_domain", in("rax") frame, options(noreturn)) }
}

/// Gives up the current stack and goes on in `then` at the top of another.
pub fn switch_stack(top: VirtAddr, then: extern "C" fn() -> !) -> ! {
    // SAFETY: `top` is the top of a mapped, unused stack; nothing on the old one is used again, as this never returns.
    unsafe {
        asm!("mov rsp, {}", "xor ebp, ebp", "call {}", "ud2", in(reg) top.as_u64(), in(reg) then, options(noreturn))
    }
}
