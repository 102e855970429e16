//! Filling a domain's memory while it is built, across page borders, from the hypervisor's or its builder's. (How a domain
//! that runs is read and written by the hypervisor is the machine's business: by its own page table, and its own rights.)

use core::ops::Range;

use super::{AddressSpace, PageKind};
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

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Read,
    #[cfg(test)]
    Write,
    /// A builder filling a page that the domain will only read or run.
    Build,
}

impl AddressSpace {
    /// The machine address of a guest byte and how many bytes of its page follow, if the access is allowed.
    fn span(&mut self, gpa: Gpa, access: Use, memory: &impl MachineMemory) -> Result<(Hpa, usize), Fault> {
        let page = self.translate(gpa.gfn(), memory).ok_or(Fault)?;
        let allowed = match access {
            Use::Read => page.kind != PageKind::Device,
            #[cfg(test)]
            Use::Write => page.kind != PageKind::Device && page.rights.writable(),
            Use::Build => page.kind == PageKind::Private,
        };
        if !allowed {
            return Err(Fault);
        }
        let room = PAGE_BYTES.wrapping_sub(gpa.offset()) as usize;
        Ok((page.mfn.at(gpa.offset()), room))
    }

    /// Hands the run of bytes in each page to `piece`, as its machine address and its place among `bytes`, in order.
    pub(crate) fn pieces(
        &mut self,
        start: Gpa,
        bytes: usize,
        access: Use,
        memory: &impl MachineMemory,
        mut piece: impl FnMut(Hpa, Range<usize>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut done = 0;
        while done < bytes {
            let gpa = Gpa(start.0.checked_add(done as u64).ok_or(Fault)?);
            let (hpa, room) = self.span(gpa, access, memory)?;
            let end = bytes.min(done.saturating_add(room));
            piece(hpa, done..end)?;
            done = end;
        }
        Ok(())
    }

    /// Copies bytes into private pages whatever their rights: for the builder of a domain that does not run yet.
    ///
    /// # Errors
    /// [`Fault`]: not populated.
    pub fn fill(&mut self, to: Gpa, bytes: &[u8], memory: &impl MachineMemory) -> Result<(), Fault> {
        self.pieces(to, bytes.len(), Use::Build, memory, |hpa, range| {
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
        self.pieces(to, bytes, Use::Build, memory, |into, whole| {
            let from = Gpa(from.0.checked_add(whole.start as u64).ok_or(Fault)?);
            source.pieces(from, whole.len(), Use::Read, memory, |out_of, part| {
                memory.copy(out_of, Hpa(into.0.wrapping_add(part.start as u64)), part.len());
                Ok(())
            })
        })
    }
}
