//! From the PVH entry point to long mode, and what the CPU enters later: interrupts, exceptions, the start of more vCPUs.
//!
//! The first GiB is mapped at its own address. Exceptions that an instruction raised which may ([`crate::cpu`]) go on behind
//! it; others end the kernel.

use core::arch::global_asm;

global_asm!(
    r#"
    .pushsection .note.xen, "a", @note
    .balign 4
    .long 4, 8, 18                  # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad guest_entry
    .popsection

    .local boot_stack
    .comm boot_stack, 64 * 1024, 16

    .pushsection .rodata, "a", @progbits
    .balign 8
    .globl guest_gdt
guest_gdt:
    .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff
guest_gdt_pointer:
    .short guest_gdt_pointer - guest_gdt - 1
    .long guest_gdt
    .popsection

    .pushsection .data, "aw", @progbits
    .balign 4096
    .globl guest_pml4
guest_pml4:
    .quad guest_pdpt + 3
    .skip 511 * 8
guest_pdpt:
    .quad guest_pd + 3
    .skip 511 * 8
guest_pd:
    page = 0x83
    .rept 512
        .quad page
        page = page + 0x200000
    .endr
    .popsection

    .pushsection .text, "ax", @progbits
    .code32
    .globl guest_entry
guest_entry:
    cli
    cld
    movl %ebx, %esi
    movl $0x20, %eax
    movl %eax, %cr4
    movl $guest_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    xorl %edx, %edx
    movl $0x900, %eax               # EFER.LME, NXE
    wrmsr
    movl $0x80010011, %eax
    movl %eax, %cr0
    lgdt guest_gdt_pointer
    ljmp $0x08, $guest_long

    .code64
guest_long:
    movl $0x10, %eax
    movl %eax, %ss
    movl %eax, %ds
    movl %eax, %es
    movq $boot_stack + 64 * 1024, %rsp
    movl %esi, %edi
    xorl %ebp, %ebp
    call guest_main
1:  hlt
    jmp 1b

    # Entries of 16 bytes each, with the vector and an error code (or zero) on the stack.
    .altmacro
    .balign 16
    .globl guest_stubs
guest_stubs:
    vector = 0
    .rept 256
        .balign 16
        .if (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17) && (vector != 21) && (vector != 29) && (vector != 30)
            pushq $0
        .endif
        pushq $vector
        jmp guest_trap
        vector = vector + 1
    .endr

guest_trap:
    .irp register, rdi, rsi, rdx, rcx, rax, r8, r9, r10, r11
    pushq %\register
    .endr
    cld
    movq %rsp, %rdi
    call guest_trapped
    .irp register, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi
    popq %\register
    .endr
    addq $16, %rsp
    iretq
    .popsection
"#,
    options(att_syntax)
);
