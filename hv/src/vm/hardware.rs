//! What the rest of `vm` asks of the CPU's virtualization: one trait, so that another kind of hardware stands beside SVM.

pub use super::svm::Registers;
use hv_core::ids::Mfn;

/// An exception.
pub struct Event {
    /// Its vector.
    pub vector: u8,
    /// Its error code, if it has one.
    pub error: Option<u32>,
}

/// An access to an I/O port.
pub struct PortAccess {
    /// The first port.
    pub port: u16,
    /// 1, 2 or 4.
    pub bytes: u8,
    /// IN, else OUT.
    pub reads: bool,
    /// INS or OUTS.
    pub string: bool,
}

/// Why a guest stopped: the closed list.
pub enum Exit {
    /// An interrupt or NMI of the machine is pending.
    Interrupt,
    /// The guest can take an interrupt ([`Hardware::offer`]).
    Window,
    /// CPUID.
    Cpuid,
    /// HLT.
    Halt,
    /// VMMCALL (or VMCALL).
    Hypercall,
    /// IN, OUT and their kin.
    Port(PortAccess),
    /// RDMSR.
    ReadMsr,
    /// WRMSR.
    WriteMsr,
    /// XSETBV.
    SetXcr,
    /// An exception that is looked at on its way.
    Exception(Event),
    /// An instruction that guests do not have.
    NotThere,
    /// WBINVD, INVD.
    WriteBack,
    /// An access that the nested table does not allow.
    Page {
        /// Guest-physical address.
        gpa: u64,
        /// Page fault error code.
        error: u64,
    },
    /// A triple fault.
    Shutdown,
    /// Anything else; the number is the hardware's.
    Other(u64),
}

/// What there is to know of a vCPU.
pub struct State {
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Privilege level.
    pub ring: u8,
    /// It runs 64-bit code, with page tables of four levels.
    pub long: bool,
    /// The interrupt flag.
    pub interrupts: bool,
    /// CR0.PG.
    pub paging: bool,
    /// CR4.OSXSAVE.
    pub xsave: bool,
}

/// A guest's page tables.
pub struct Tables {
    /// CR3.
    pub root: u64,
    /// CR0.WP.
    pub write_protect: bool,
}

/// A virtual CPU, as hardware runs it.
pub trait Hardware: Sized {
    /// Prepares this CPU; `false`: it has not got it.
    fn init() -> bool;
    /// A vCPU in a zeroed frame of its own. `key` is a number that no other vCPU has.
    fn new(frame: Mfn, nested_root: Mfn, key: u16) -> Self;
    /// Starts it in 32-bit protected mode without paging, with flat segments: all registers that [`Registers`] does not have.
    fn start_flat(&mut self, rip: u64);
    /// Starts it in real mode, at the beginning of a page below 1 MiB, by its number.
    fn start_real(&mut self, page: u8);
    /// It comes to this CPU, where others may have run.
    fn arrive(&mut self);
    /// Runs until the next exit. `true`: that is a hypercall of 64-bit code in ring 0, which has to be known first.
    #[must_use]
    fn run(&mut self, registers: &mut Registers) -> bool;
    /// Goes on behind such a hypercall: [`Self::advance`] for it alone.
    fn call_served(&mut self);
    /// Why it stopped.
    fn exit(&self) -> Exit;
    /// Goes on behind the instruction of the last exit.
    fn advance(&mut self);
    /// Raises an exception at the next entry.
    fn inject(&mut self, event: Event);
    /// Delivers an interrupt at the next entry. Only if [`Self::is_open`].
    fn inject_interrupt(&mut self, vector: u8);
    /// Delivers an NMI at the next entry. Only if not [`Self::is_injecting`].
    fn inject_nmi(&mut self);
    /// Whether the next entry delivers something already.
    fn is_injecting(&self) -> bool;
    /// Whether an interrupt would be taken at the next entry.
    fn is_open(&self) -> bool;
    /// What the guest gets when its interrupt flag lets it: this vector, or (`window`) an exit.
    fn offer(&mut self, upcall: Option<u8>, window: bool);
    /// Whether there is an [`Self::offer`] of something that the guest has not taken.
    fn is_offering(&self) -> bool;
    /// CR8, as the APIC has it.
    fn task_priority(&self) -> u8;
    /// Sets it.
    fn set_task_priority(&mut self, priority: u8);
    /// What there is to know of it.
    fn state(&self) -> State;
    /// Where its page tables are.
    fn tables(&self) -> Tables;
    /// The guest's EFER.
    fn efer(&self) -> u64;
    /// Sets it.
    fn set_efer(&mut self, efer: u64);
    /// Nested translations have changed.
    fn flush(&mut self);
    /// The frame that [`Self::new`] was given.
    fn frame(&self) -> Mfn;
}
