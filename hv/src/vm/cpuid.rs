//! What a guest is told of its CPU (AMD APM volume 3, appendix E): what it can use, as the machine has it; nothing that it
//! cannot use, and nothing of the machine around. Unknown leaves are zero.

use super::apic;
use core::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};
use hv_core::ids::{DomId, VcpuId};
use xen_abi::hvm as abi;

/// Leaf 1, ECX: without MONITOR, VMX, SMX, speed step, thermal monitor, SDBG, performance capabilities, PCID, direct cache
/// access, TSC deadline, OSXSAVE (which is the guest's own).
const LEAF_1_ECX: u32 =
    !(1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 15 | 1 << 17 | 1 << 18 | 1 << 24 | 1 << 27);
const X2APIC: u32 = 1 << 21;
const OSXSAVE: u32 = 1 << 27;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: without MTRRs, serial number, debug store, ACPI thermal control, HTT, thermal monitor, PBE. Machine checks have
/// no banks.
const LEAF_1_EDX: u32 = !(1 << 12 | 1 << 18 | 1 << 21 | 1 << 22 | 1 << 28 | 1 << 29 | 1 << 31);
const HTT: u32 = 1 << 28;
/// Leaf 7, EBX: FSGSBASE, BMI1, AVX2, SMEP, BMI2, ERMS, AVX-512 F and DQ, RDSEED, ADX, SMAP, IFMA, CLFLUSHOPT, CLWB, AVX-512
/// CD, SHA, BW, VL.
const LEAF_7_EBX: u32 = 1 | 1 << 3 | 1 << 5 | 3 << 7 | 1 << 9 | 0xf << 16 | 1 << 20 | 1 << 21 | 3 << 23 | 0xf << 28;
/// Leaf 7, ECX: VBMI, UMIP, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ.
const LEAF_7_ECX: u32 = 1 << 1 | 1 << 2 | 0x7f << 6 | 1 << 14;
/// Leaf 7, EDX: fast short REP MOV.
const LEAF_7_EDX: u32 = 1 << 4;
/// Of leaf 7: strings moved by bytes are as fast as by words (ERMS in EBX, FSRM in EDX).
const FAST_BYTES: (u32, u32) = (1 << 9, 1 << 4);
/// QEMU's own emulation, as it names itself. It executes each repetition by itself, so bytes take eight times as long there.
const TCG: [u32; 3] = [u32::from_le_bytes(*b"TCGT"), u32::from_le_bytes(*b"CGTC"), u32::from_le_bytes(*b"GTCG")];
/// Leaf 0x80000001, ECX: LAHF, ABM, SSE4A, misaligned SSE, prefetch, XOP, FMA4, TBM.
const EXTENDED_ECX: u32 = 1 | 7 << 5 | 1 << 8 | 1 << 11 | 1 << 16 | 1 << 21;
/// Leaf 0x80000001, EDX: the bits of leaf 1 again, SYSCALL, NX, MMX extensions, FXSR, 1 GiB pages, long mode, 3DNow. Without
/// RDTSCP, whose register nobody switches.
const EXTENDED_EDX: u32 = LEAF_1_EDX & 0x0183_f3ff | 1 << 11 | 1 << 20 | 1 << 22 | 1 << 26 | 7 << 29;
/// The time stamp counter is the same in all power states.
const INVARIANT_TSC: u32 = 1 << 8;
/// Guest-physical and virtual address bits.
const ADDRESS_BITS: u32 = 48 << 8 | 40;

const XEN_LAST: u32 = abi::XEN_CPUID_FIRST_LEAF + 4;
/// Xen 4.17, as `xen_version` says.
const XEN_VERSION: u32 = 4 << 16 | 17;
/// The MSR that fills a hypercall page.
pub const XEN_HYPERCALL_MSR: u32 = 0x4000_0000;

/// Who asks.
pub struct Asker {
    /// The domain.
    pub domain: DomId,
    /// Its vCPU.
    pub vcpu: VcpuId,
    /// How many there are.
    pub vcpus: u32,
    /// CR4.OSXSAVE.
    pub xsave: bool,
}

const NOTHING: CpuidResult = CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };

/// Answers CPUID.
pub fn answer(asker: &Asker, leaf: u32, subleaf: u32) -> CpuidResult {
    let host @ CpuidResult { ebx, ecx, edx, .. } = __cpuid_count(leaf, subleaf);
    match leaf {
        0 => CpuidResult { eax: host.eax.min(0xd), ..host },
        1 => features(asker, host),
        7 if subleaf == 0 => {
            let machine = __cpuid(abi::XEN_CPUID_FIRST_LEAF);
            let slow = if [machine.ebx, machine.ecx, machine.edx] == TCG { FAST_BYTES } else { (0, 0) };
            let (ebx, edx) = (ebx & LEAF_7_EBX & !slow.0, edx & LEAF_7_EDX & !slow.1);
            CpuidResult { eax: 0, ebx, ecx: ecx & LEAF_7_ECX, edx }
        }
        6 => CpuidResult { eax: 1 << 2, ..NOTHING }, // timers run in every state
        0xb => topology(asker, subleaf),
        0xd => extended_state(subleaf, host),
        abi::XEN_CPUID_FIRST_LEAF..=XEN_LAST => xen(asker, leaf),
        0x8000_0000 => CpuidResult { eax: host.eax.min(0x8000_0008), ..host },
        0x8000_0001 => CpuidResult { ecx: ecx & EXTENDED_ECX, edx: edx & EXTENDED_EDX, ..host },
        0x8000_0002..=0x8000_0006 => host,
        // The hypervisor's own clock relies on it, whatever the CPU says.
        0x8000_0007 => CpuidResult { edx: INVARIANT_TSC, ..NOTHING },
        0x8000_0008 => CpuidResult { eax: ADDRESS_BITS, ecx: asker.vcpus - 1, ..NOTHING },
        _ => NOTHING,
    }
}

fn features(asker: &Asker, host: CpuidResult) -> CpuidResult {
    let ebx = host.ebx & 0xffff | asker.vcpus << 16 | apic::id(asker.vcpu) << 24;
    let xsave = if asker.xsave { OSXSAVE } else { 0 };
    let ecx = host.ecx & LEAF_1_ECX | X2APIC | HYPERVISOR | xsave;
    let threads = if asker.vcpus > 1 { HTT } else { 0 };
    CpuidResult { eax: host.eax, ebx, ecx, edx: host.edx & LEAF_1_EDX | threads }
}

/// Each vCPU is a core of its own, of one thread, whose APIC id is twice its number.
fn topology(asker: &Asker, level: u32) -> CpuidResult {
    let (shift, count, kind) = match level {
        0 => (1, 1, 1),
        1 => (3, asker.vcpus, 2),
        _ => (0, 0, 0),
    };
    CpuidResult { eax: shift, ebx: count, ecx: kind << 8 | level & 0xff, edx: apic::id(asker.vcpu) }
}

fn extended_state(subleaf: u32, host: CpuidResult) -> CpuidResult {
    let allowed = super::extra::COMPONENTS as u32;
    match subleaf {
        // EBX is for what XCR0 has now, which is the guest's.
        0 => CpuidResult { eax: host.eax & allowed, ebx: host.ebx, ecx: host.ecx, edx: 0 },
        1 => CpuidResult { eax: host.eax & 7, ..NOTHING }, // XSAVEOPT, XSAVEC, XGETBV
        2..=31 if allowed & 1 << subleaf != 0 => host,
        _ => NOTHING,
    }
}

fn xen(asker: &Asker, leaf: u32) -> CpuidResult {
    match leaf - abi::XEN_CPUID_FIRST_LEAF {
        0 => CpuidResult {
            eax: XEN_LAST,
            ebx: abi::XEN_CPUID_SIGNATURE_EBX,
            ecx: abi::XEN_CPUID_SIGNATURE_ECX,
            edx: abi::XEN_CPUID_SIGNATURE_EDX,
        },
        1 => CpuidResult { eax: XEN_VERSION, ..NOTHING },
        2 => CpuidResult { eax: 1, ebx: XEN_HYPERCALL_MSR, ..NOTHING },
        4 => CpuidResult {
            eax: abi::XEN_HVM_CPUID_VCPU_ID_PRESENT | abi::XEN_HVM_CPUID_DOMID_PRESENT,
            ebx: asker.vcpu.0.into(),
            ecx: asker.domain.0.into(),
            edx: 0,
        },
        _ => NOTHING,
    }
}
