//! Entry points and the exit to ring 3.
//!
//! SYSCALL is kept short: swap GS, put RIP, RFLAGS and RSP in the domain's frame, take the CPU's stack, call the server of
//! the hypercall with the domain's argument registers as its own. What a function must preserve stays in the registers;
//! only when the scheduler has work (`PerCpu::attention`) is it saved in the frame too. `sched_op`, after which mostly
//! somebody else runs, saves it first and goes on from a frame, as a trap does. The
//! argument registers come back as zero, so that nothing of the hypervisor is left in them.
//!
//! Whoever goes on after somebody else might have run finds its segment registers empty: what one domain loaded is not
//! the next one's to read. (Null selectors are valid in DS, ES, FS and GS in 64-bit mode; the bases of domains are 0.)
//!
//! SYSRET with a non-canonical RCX would fault in ring 0 on some CPUs; nothing can be mapped in the last page below the
//! hole, so RIP behind a SYSCALL is canonical, and each exit checks again.
//!
//! Alignment-check (AC), direction and single-step flags of ring 3 are cleared on the way in: by SFMASK for SYSCALL, by
//! POPFQ otherwise (an interrupt gate leaves AC, which would switch SMAP off).

use super::{Frame, VECTOR_GUEST, VECTOR_SYSCALL, trap_from_domain, trap_from_hypervisor};
use crate::cpu::percpu::PerCpu;
use core::arch::{asm, global_asm};
use core::{mem::offset_of, sync::atomic::AtomicU64};
use hv_core::error::Errno;
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
        add rsp, 16
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
    test byte ptr [rsp + 24], 3;        jz 1f
    save_registers;                     swapgs
    mov rdi, rsp;                       mov rsp, gs:[{stack_top}]
    push 2;                             popfq
    call {trap_from_domain};            jmp resume_domain
1:  save_registers;                     cld
    mov rdi, rsp;                       call {trap_from_hypervisor}
    restore_registers;                  iretq

fatal_entry:
    save_registers;                     cld
    mov rdi, rsp;                       call {trap_fatal}
    ud2

    .macro clear_arguments
        .irp register, esi, edx, r8d, r9d, r10d
        xor \register, \register
        .endr
    .endm

    .macro save_preserved
        place = 0
        .irp register, r15, r14, r13, r12, rbp, rbx
        mov [r9 + place], \register;   place = place + 8
        .endr
        mov dword ptr [r9 + {vector}], {vector_syscall}
    .endm

    .balign 16
    .globl syscall_entry
syscall_entry:
    swapgs;                             mov r9, gs:[{frame}]
    mov [r9 + {rip}], rcx;              mov [r9 + {rflags}], r11
    mov [r9 + {rsp}], rsp;              mov rsp, gs:[{stack_top}]
    inc qword ptr [r9 + {hypercalls}]
    cmp rax, {servers_count};           jae 2f
    mov rcx, r10;                       call [rax * 8 + {servers}]
1:  mov r9, gs:[{frame}]
    cmp dword ptr gs:[{attention}], 0;  jne 3f
    mov rcx, [r9 + {rip}]
    bt rcx, 47;                         jc 3f
    mov r11, [r9 + {rflags}];           mov rsp, [r9 + {rsp}]
    xor edi, edi;                       clear_arguments
    swapgs;                             sysretq
2:  mov rax, {no_such_call};            jmp 1b
3:  save_preserved;                     mov [r9 + {rax}], rax
    call {reschedule};                  jmp resume_domain

    .balign 16
    .globl syscall_sched
syscall_sched:
    save_preserved;                     mov qword ptr [r9 + {rax}], 0
    cmp rdi, {send_and_block_number};   je {send_and_block}
    pop rax;                            call {sched}

    .globl resume_domain
resume_domain:
    xor edi, edi
    .irp segment, ds, es, fs
        mov \segment, edi
    .endr
    cmp dword ptr [rax + {vector}], {vector_syscall}
    jne 2f
    mov rcx, [rax + {rip}]
    bt rcx, 47;                         jc 2f
    mov r11, [rax + {rflags}];          mov rsp, [rax + {rsp}]
    place = 0
    .irp register, r15, r14, r13, r12, rbp, rbx
        mov \register, [rax + place];  place = place + 8
    .endr
    mov rax, [rax + {rax}]
    swapgs;                             mov gs, edi
    clear_arguments;                    sysretq
2:  cmp dword ptr [rax + {vector}], {vector_guest}
    je 4f
    swapgs;                             mov gs, edi
    mov rsp, rax;                       restore_registers
    iretq
4:  mov rsp, gs:[{stack_top}]
    call {run_guest}
    .popsection
"#,
    stack_top = const offset_of!(PerCpu, stack_top),
    frame = const offset_of!(PerCpu, frame),
    attention = const offset_of!(PerCpu, attention),
    hypercalls = const crate::domain::HYPERCALLS,
    servers = sym crate::hypercall::ENTRIES,
    servers_count = const crate::hypercall::NUMBERS,
    no_such_call = const Errno::ENOSYS.to_result(),
    rax = const offset_of!(Frame, rax),
    rflags = const offset_of!(Frame, rflags),
    rip = const offset_of!(Frame, rip),
    rsp = const offset_of!(Frame, rsp),
    vector = const offset_of!(Frame, vector),
    vector_syscall = const VECTOR_SYSCALL,
    vector_guest = const VECTOR_GUEST,
    run_guest = sym crate::vm::run,
    trap_from_domain = sym trap_from_domain,
    trap_from_hypervisor = sym trap_from_hypervisor,
    trap_fatal = sym super::crash::exception,
    nmis = sym NMIS,
    reschedule = sym crate::domain::reschedule,
    sched = sym crate::hypercall::sched::serve_last,
    send_and_block = sym crate::hypercall::sched::send_and_block,
    send_and_block_number = const xen_abi::native::SCHEDOP_SEND_AND_BLOCK,
);

unsafe extern "C" {
    static trap_stubs: u8;
    static syscall_entry: u8;
    /// The server of `sched_op` for SYSCALL's entry alone: it does not come back.
    pub safe fn syscall_sched(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64;
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
pub fn enter(frame: *mut Frame) -> ! {
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
