//! The first instructions: from a boot loader's 32-bit protected mode, paging off, to [`crate::hv_main`] in long mode.
//!
//! Two ways in, one entry point. PVH (Xen public `arch-x86/hvm/start_info.h`; QEMU `-kernel`): EBX = start info.
//! Multiboot2 (specification 2.0, section 3.3; GRUB): EAX = magic, EBX = boot information. Which it was is decided
//! later by the magic number in memory. The tables here map the first 4 GiB three times: at 0, at the direct
//! map and at the hypervisor's own base; they are replaced as soon as the memory map is known (`mm::paging`).

use core::arch::global_asm;

/// What EAX holds when a Multiboot2 loader enters.
pub const MULTIBOOT2_MAGIC: u32 = 0x36d7_6289;

global_asm!(
    r#"
    .pushsection .note.xen, "a", @note
    .balign 4
    .long 4, 8, 18                  # name and descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad boot_entry
    .popsection

    .pushsection .boot.header, "a", @progbits
    .balign 8
multiboot2_header:
    .long 0xe85250d6, 0, multiboot2_header_end - multiboot2_header
    .long -(0xe85250d6 + 0 + (multiboot2_header_end - multiboot2_header))
    .long 3, 12, boot_entry, 0      # tag: entry address, padded to 8 bytes
    .long 6, 8                      # tag: modules on page boundaries
    .long 0, 8                      # the end of the tags
multiboot2_header_end:
    .popsection

    .local boot_stack
    .comm boot_stack, 256 * 1024, 16

    .pushsection .boot.rodata, "a", @progbits
    .balign 8
boot_gdt:
    .quad 0, 0x00af9a000000ffff     # null; 64-bit code, ring 0
boot_gdt_pointer:
    .short boot_gdt_pointer - boot_gdt - 1
    .long boot_gdt

    .balign 4096
boot_pml4:                          # entries: present, writable
    .quad boot_pdpt + 3
    .skip 255 * 8
    .quad boot_pdpt + 3
    .skip 254 * 8
    .quad boot_pdpt + 3
boot_pdpt:                          # the first 4 GiB; the last but one is for the image
    .quad boot_pd + 3, boot_pd + 0x1003, boot_pd + 0x2003, boot_pd + 0x3003
    .skip 506 * 8
    .quad boot_pd + 3, 0
boot_pd:                            # 2,048 large pages, 4 GiB
    page = 0x83
    .rept 2048
        .quad page
        page = page + 0x200000
    .endr
    .popsection

    .pushsection .boot.text, "ax", @progbits
    .code32
    .globl boot_entry
boot_entry:
    cli
    cld
    movl %eax, %ebp                 # EBP = magic
    movl %ebx, %esi                 # ESI = information

    movl $0x80000000, %eax          # no long mode: stop
    cpuid
    cmpl $0x80000001, %eax
    jb boot_stop
    movl $0x80000001, %eax
    cpuid
    btl $29, %edx
    jnc boot_stop

    movl $0x20, %eax                # CR4.PAE
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx          # EFER.LME
    xorl %edx, %edx
    movl $0x100, %eax
    wrmsr
    movl $0x80010011, %eax          # CR0.PG, WP, ET, PE
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $0x08, $boot_long_mode

boot_stop:
    hlt
    jmp boot_stop

    .code64
boot_long_mode:                     # the other segments are loaded by cpu::descriptors
    movq $boot_stack + 256 * 1024, %rsp
    movl %ebp, %edi
    xorl %ebp, %ebp
    movabsq $hv_main, %rax
    call *%rax
    ud2
    .popsection
"#,
    options(att_syntax)
);
