//! Filling a domain's memory while it is built, across page borders, from the hypervisor's or its builder's. (How a domain
//! that runs is read and written by the hypervisor is the machine's business: by its own page table, and its own rights.)

use core::ops::Range;

use super::{AddressSpace, Page, PageKind};
use crate::ids::{Gpa, Hpa, PAGE_BYTES};
use crate::machine::MachineMemory;

/// A guest address that the guest itself could not have used so: the answer is `-EFAULT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault;

impl From<Fault> for crate::error::Errno {
    fn from(_: Fault) -> Self {
        crate::error::Errno::EFAULT
    }
}

/// What a builder may fill: pages that the domain will only read or run, too.
fn is_private(page: &Page) -> bool {
    page.kind == PageKind::Private
}

/// What a builder may copy from.
pub(crate) fn is_memory(page: &Page) -> bool {
    page.kind != PageKind::Device
}

impl AddressSpace {
    /// Hands the run of bytes in each page to `piece`, as its machine address and its place among `bytes`, in order. All pages
    /// must be `allowed`.
    pub(crate) fn pieces(
        &mut self,
        start: Gpa,
        bytes: usize,
        allowed: fn(&Page) -> bool,
        memory: &impl MachineMemory,
        mut piece: impl FnMut(Hpa, Range<usize>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut done = 0;
        while done < bytes {
            let gpa = Gpa(start.0.checked_add(done as u64).ok_or(Fault)?);
            let page = self.translate(gpa.gfn(), memory).filter(allowed).ok_or(Fault)?;
            let room = PAGE_BYTES.wrapping_sub(gpa.offset()) as usize;
            let end = bytes.min(done.saturating_add(room));
            piece(page.mfn.at(gpa.offset()), done..end)?;
            done = end;
        }
        Ok(())
    }

    /// Copies bytes into private pages whatever their rights: for the builder of a domain that does not run yet.
    ///
    /// # Errors
    /// [`Fault`]: not populated.
    pub fn fill(&mut self, to: Gpa, bytes: &[u8], memory: &impl MachineMemory) -> Result<(), Fault> {
        self.pieces(to, bytes.len(), is_private, memory, |hpa, range| {
            memory.write(hpa, bytes.get(range).ok_or(Fault)?);
            Ok(())
        })
    }

    /// Copies between two spaces: the builder's source to the built domain's private memory.
    ///
    /// # Errors
    /// [`Fault`]; some bytes may have been copied.
    pub fn fill_from(
        &mut self,
        to: Gpa,
        source: &mut AddressSpace,
        from: Gpa,
        bytes: u64,
        memory: &impl MachineMemory,
    ) -> Result<(), Fault> {
        let bytes = usize::try_from(bytes).map_err(|_| Fault)?;
        self.pieces(to, bytes, is_private, memory, |into, whole| {
            let from = Gpa(from.0.checked_add(whole.start as u64).ok_or(Fault)?);
            source.pieces(from, whole.len(), is_memory, memory, |out_of, part| {
                memory.copy(out_of, Hpa(into.0.wrapping_add(part.start as u64)), part.len());
                Ok(())
            })
        })
    }
}
