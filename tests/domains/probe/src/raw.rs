//! The instructions that no well-behaved domain needs. Each either ends the domain or changes only its registers.

use core::arch::asm;

/// A hypercall with any arguments.
pub fn hypercall(number: u64, arguments: [u64; 5]) -> i64 {
    let result: i64;
    // SAFETY: the tests pass addresses that are unmapped, read-only, the hypervisor's, or of memory set aside for it.
    unsafe {
        asm!("syscall", inlateout("rax") number as i64 => result, inlateout("rdi") arguments[0] => _,
            inlateout("rsi") arguments[1] => _, inlateout("rdx") arguments[2] => _, inlateout("r10") arguments[3] => _,
            inlateout("r8") arguments[4] => _, lateout("r9") _, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// Reads a byte from any address.
pub fn read(address: u64) -> u8 {
    let value: u8;
    // SAFETY: a load that faults ends the domain, which is the purpose; one that does not changes nothing.
    unsafe { asm!("mov {}, byte ptr [{}]", out(reg_byte) value, in(reg) address, options(nostack, readonly)) }
    value
}

/// Writes a byte to any address.
pub fn write(address: u64, value: u8) {
    // SAFETY: callers pass addresses that must fault.
    unsafe { asm!("mov byte ptr [{}], {}", in(reg) address, in(reg_byte) value, options(nostack)) }
}

/// Jumps to any address.
pub fn jump(address: u64) {
    // SAFETY: callers pass addresses from which nothing can be executed.
    unsafe { asm!("call {}", in(reg) address) }
}

/// Reads an I/O port.
pub fn port_in(port: u16) -> u8 {
    let value: u8;
    // SAFETY: without the policy's permission this faults.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, nomem)) }
    value
}

/// Pushes until the stack is used up.
pub fn overflow_stack() {
    // SAFETY: never returns: it ends at the guard page.
    unsafe { asm!("2: push rax", "jmp 2b", options(noreturn)) }
}

/// Loops without ever entering the hypervisor.
pub fn spin() -> ! {
    // SAFETY: changes nothing.
    unsafe { asm!("2: jmp 2b", options(noreturn, nomem, nostack)) }
}

macro_rules! instruction {
    ($($(#[$doc:meta])* $name:ident: $($text:literal),+;)*) => {$(
        $(#[$doc])*
        pub fn $name() {
            // SAFETY: faults in ring 3; where it does not, only registers named here change.
            unsafe { asm!($($text),+, out("rax") _, out("rcx") _, out("rdx") _, out("r11") _) }
        }
    )*};
}

instruction! {
    /// Stops the CPU.
    halt: "hlt";
    /// Turns interrupts off.
    interrupts_off: "cli";
    /// Loads page tables.
    page_tables: "xor eax, eax", "mov cr3, rax";
    /// Reads a control register.
    control_register: "mov rax, cr0";
    /// Writes a model-specific register.
    model_register: "mov ecx, 0xc0000082", "xor eax, eax", "xor edx, edx", "wrmsr";
    /// Loads an interrupt table.
    interrupt_table: "push 0", "push 0", "lidt [rsp]", "pop rax", "pop rax";
    /// Shows an interrupt table (refused by UMIP).
    show_table: "push 0", "push 0", "sidt [rsp]", "pop rax", "pop rax";
    /// A vector register.
    vector: "pxor xmm0, xmm0";
    /// The FPU.
    floating_point: "fninit";
    /// An interrupt by hand.
    soft_interrupt: "int 0x80";
    /// The breakpoint.
    breakpoint: "int3";
    /// An undefined instruction.
    undefined: "ud2";
    /// Division by zero.
    division: "xor ecx, ecx", "xor edx, edx", "mov eax, 1", "div ecx";
    /// A system call with the nested-task and alignment flags set: they must not reach the hypervisor.
    dirty_flags: "pushfq", "or dword ptr [rsp], 0x44000", "popfq", "mov eax, 17", "xor edi, edi", "xor esi, esi",
        "syscall", "pushfq", "and dword ptr [rsp], 0xfffffffffffbbfff", "popfq";
    /// A jump to a non-canonical address.
    far_away: "mov rax, 0x800000000000", "jmp rax";
    /// A system call with the stack pointer in the hypervisor's memory: it must not be used.
    wild_stack: "mov rdx, rsp", "mov rsp, 0xffff800000001000", "mov eax, 17", "xor edi, edi", "push rax";
}
