//! A vCPU's local APIC, in x2APIC mode for good (Intel SDM volume 3, 11.12; AMD APM volume 2, 16.9-16.16).
//!
//! Interrupts between vCPUs, priorities and INIT/SIPI are all there is. The timer and the performance, thermal and error
//! entries keep what is written and never fire: Xen guests have their events and timers from the hypervisor.

use hv_core::{domain::VCPUS_MAX, ids::VcpuId};

/// First and last MSR.
pub const MSRS: core::ops::RangeInclusive<u32> = 0x800..=0x8ff;

const ID: u32 = 0x802;
const VERSION: u32 = 0x803;
/// The task priority's MSR.
pub const TASK_PRIORITY: u32 = 0x808;
const PROCESSOR_PRIORITY: u32 = 0x80a;
const END_OF_INTERRUPT: u32 = 0x80b;
const LOGICAL_ID: u32 = 0x80d;
const SPURIOUS: u32 = 0x80f;
const IN_SERVICE: u32 = 0x810;
const TRIGGER_MODE: u32 = 0x818;
const REQUESTED: u32 = 0x820;
const ERROR: u32 = 0x828;
const COMMAND: u32 = 0x830;
const LVT_TIMER: u32 = 0x832;
const TIMER_INITIAL: u32 = 0x838;
const TIMER_CURRENT: u32 = 0x839;
const TIMER_DIVIDE: u32 = 0x83e;
const SELF: u32 = 0x83f;

/// Six entries of the local vector table, version 0x14.
const VERSION_VALUE: u64 = 0x5_0014;
const MASKED: u32 = 1 << 16;
const ENABLED: u32 = 1 << 8;

/// The APIC id of a vCPU, as Xen numbers them.
pub const fn id(vcpu: VcpuId) -> u32 {
    vcpu.0 as u32 * 2
}

/// What a vCPU sends to others.
#[derive(Clone, Copy)]
pub enum Message {
    /// An interrupt.
    Fixed(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// Stops a vCPU and makes it wait for its start.
    Init,
    /// Starts it, in real mode at this page.
    Startup(u8),
}

/// A set of 256 vectors.
#[derive(Clone, Copy, Default)]
struct Vectors {
    words: [u32; 8],
    /// Which words are not zero.
    some: u8,
}

impl Vectors {
    fn set(&mut self, vector: u8) {
        self.words[usize::from(vector >> 5)] |= 1 << (vector & 31);
        self.some |= 1 << (vector >> 5);
    }

    fn clear(&mut self, vector: u8) {
        let word = &mut self.words[usize::from(vector >> 5)];
        *word &= !(1 << (vector & 31));
        if *word == 0 {
            self.some &= !(1 << (vector >> 5));
        }
    }

    fn highest(&self) -> Option<u8> {
        let word = self.some.checked_ilog2()?;
        let bit = self.words[word as usize % 8].checked_ilog2()?;
        Some((word * 32 + bit) as u8)
    }
}

/// One vCPU's APIC.
pub struct Apic {
    vcpu: VcpuId,
    spurious: u32,
    requested: Vectors,
    in_service: Vectors,
    command: u64,
    /// Local vector table and the timer's registers, which keep what is written.
    local: [u32; 13],
}

/// A register that is not there, or a value that it cannot have: #GP.
pub struct Refused;

impl Apic {
    /// As after reset.
    pub fn new(vcpu: VcpuId) -> Self {
        let (requested, in_service) = (Vectors::default(), Vectors::default());
        let local = core::array::from_fn(|index| if index < 6 { MASKED } else { 0 });
        Self { vcpu, spurious: 0xff, requested, in_service, command: 0, local }
    }

    /// An interrupt comes in. (The first 16 vectors are the CPU's own.)
    pub fn request(&mut self, vector: u8) {
        if self.spurious & ENABLED != 0 && vector >= 16 {
            self.requested.set(vector);
        }
    }

    /// Whether interrupts wait, whatever their priority.
    pub fn has_requests(&self) -> bool {
        self.requested.some != 0
    }

    /// The interrupt that the vCPU has to take next, if its priority lets it.
    pub fn pending(&self, task_priority: u8) -> Option<u8> {
        let vector = self.requested.highest()?;
        (vector >> 4 > self.priority(task_priority) >> 4).then_some(vector)
    }

    /// The vCPU takes an interrupt.
    pub fn accept(&mut self, vector: u8) {
        self.requested.clear(vector);
        self.in_service.set(vector);
    }

    fn priority(&self, task_priority: u8) -> u8 {
        task_priority.max(self.in_service.highest().unwrap_or(0) & 0xf0)
    }

    fn logical_id(&self) -> u32 {
        let id = id(self.vcpu);
        (id >> 4) << 16 | 1 << (id & 15)
    }

    /// Reads a register.
    pub fn read(&self, msr: u32, task_priority: u8) -> Result<u64, Refused> {
        let value = match msr {
            ID => id(self.vcpu),
            VERSION => return Ok(VERSION_VALUE),
            TASK_PRIORITY => task_priority.into(),
            PROCESSOR_PRIORITY => self.priority(task_priority).into(),
            LOGICAL_ID => self.logical_id(),
            SPURIOUS => self.spurious,
            IN_SERVICE..TRIGGER_MODE => self.in_service.words[(msr - IN_SERVICE) as usize],
            REQUESTED..ERROR => self.requested.words[(msr - REQUESTED) as usize],
            TRIGGER_MODE..REQUESTED | ERROR => 0,
            COMMAND => return Ok(self.command),
            LVT_TIMER..=TIMER_CURRENT | TIMER_DIVIDE => self.local[(msr - LVT_TIMER) as usize],
            _ => return Err(Refused),
        };
        Ok(value.into())
    }

    /// Writes a register, but the task priority, which is the vCPU's. What has to be sent comes back, with the vCPUs that it
    /// is for, by bits.
    pub fn write(&mut self, msr: u32, value: u64) -> Result<Option<(Message, u8)>, Refused> {
        let low = value as u32;
        if msr != COMMAND && value >> 32 != 0 {
            return Err(Refused);
        }
        match msr {
            END_OF_INTERRUPT if value == 0 => {
                if let Some(vector) = self.in_service.highest() {
                    self.in_service.clear(vector);
                }
            }
            SPURIOUS => self.spurious = low & 0x3ff,
            ERROR if value == 0 => {}
            LVT_TIMER..=TIMER_INITIAL | TIMER_DIVIDE => self.local[(msr - LVT_TIMER) as usize] = low,
            SELF if value <= 0xff => self.request(low as u8),
            COMMAND => {
                self.command = value;
                return Ok(self.send(low, (value >> 32) as u32));
            }
            _ => return Err(Refused),
        }
        Ok(None)
    }

    fn send(&self, low: u32, destination: u32) -> Option<(Message, u8)> {
        let all = (1u8 << VCPUS_MAX) - 1;
        let own = 1u8 << self.vcpu.0;
        let targets = match low >> 18 & 3 {
            0 => {
                (0..VCPUS_MAX as u8).filter(|vcpu| self.is_meant(low, destination, VcpuId(*vcpu))).map(|v| 1 << v).sum()
            }
            1 => own,
            2 => all,
            _ => all & !own,
        };
        let message = match (low >> 8 & 7, low as u8) {
            (0 | 1, vector) => Message::Fixed(vector),
            (4, _) => Message::Nmi,
            // Without "assert" it is the old way to say that an INIT is over.
            (5, _) if low & 1 << 14 != 0 => Message::Init,
            (6, page) => Message::Startup(page),
            _ => return None,
        };
        Some((message, targets))
    }

    fn is_meant(&self, low: u32, destination: u32, vcpu: VcpuId) -> bool {
        let id = id(vcpu);
        let logical = low & 1 << 11 != 0;
        destination == u32::MAX
            || if logical {
                destination >> 16 == id >> 4 && destination & 1 << (id & 15) != 0
            } else {
                destination == id
            }
    }
}
