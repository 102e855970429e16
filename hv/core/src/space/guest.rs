//! Copying between the hypervisor and a guest's memory, across page borders, by the guest's own rights.

use core::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes};

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
enum Use {
    Read,
    Write,
    /// A builder filling a page that the domain will only read or run.
    Build,
}

impl AddressSpace {
    /// The machine address of a guest byte and how many bytes of its page follow, if the access is allowed.
    #[inline]
    fn span(&self, gpa: Gpa, access: Use, memory: &impl MachineMemory) -> Result<(Hpa, usize), Fault> {
        let page = self.translate(gpa.gfn(), memory).ok_or(Fault)?;
        let allowed = match access {
            Use::Read => page.kind != PageKind::Device,
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
    #[inline]
    fn pieces(
        &self,
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

    /// Copies `into.len()` bytes in. On a fault, `into` may be half filled and must not be used.
    ///
    /// # Errors
    /// [`Fault`].
    #[inline]
    pub fn copy_in(&self, from: Gpa, into: &mut [u8], memory: &impl MachineMemory) -> Result<(), Fault> {
        self.pieces(from, into.len(), Use::Read, memory, |hpa, range| {
            memory.read(hpa, into.get_mut(range).ok_or(Fault)?);
            Ok(())
        })
    }

    /// Copies bytes out. On a fault some pages may have been written: those that the guest could write itself.
    ///
    /// # Errors
    /// [`Fault`].
    #[inline]
    pub fn copy_out(&self, to: Gpa, bytes: &[u8], memory: &impl MachineMemory) -> Result<(), Fault> {
        self.put(to, bytes, Use::Write, memory)
    }

    /// Copies bytes into private pages whatever their rights: for the builder of a domain that does not run yet.
    ///
    /// # Errors
    /// [`Fault`]: not populated.
    pub fn fill(&self, to: Gpa, bytes: &[u8], memory: &impl MachineMemory) -> Result<(), Fault> {
        self.put(to, bytes, Use::Build, memory)
    }

    #[inline]
    fn put(&self, to: Gpa, bytes: &[u8], access: Use, memory: &impl MachineMemory) -> Result<(), Fault> {
        self.pieces(to, bytes.len(), access, memory, |hpa, range| {
            memory.write(hpa, bytes.get(range).ok_or(Fault)?);
            Ok(())
        })
    }

    /// Copies a structure in.
    ///
    /// # Errors
    /// [`Fault`].
    #[inline]
    pub fn read<T: FromBytes + IntoBytes>(&self, from: Gpa, memory: &impl MachineMemory) -> Result<T, Fault> {
        let mut value = T::new_zeroed();
        self.copy_in(from, value.as_mut_bytes(), memory)?;
        Ok(value)
    }

    /// Copies a structure out.
    ///
    /// # Errors
    /// [`Fault`].
    #[inline]
    pub fn write(
        &self,
        to: Gpa,
        value: &(impl IntoBytes + Immutable),
        memory: &impl MachineMemory,
    ) -> Result<(), Fault> {
        self.copy_out(to, value.as_bytes(), memory)
    }

    /// Checks that a structure of `bytes` could be written at `to`, without writing: before an operation whose result
    /// has to be told.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn check_writable(&self, to: Gpa, bytes: usize, memory: &impl MachineMemory) -> Result<(), Fault> {
        self.pieces(to, bytes, Use::Write, memory, |_, _| Ok(()))
    }

    /// Copies between two spaces: the builder's source to the built domain's private memory.
    ///
    /// # Errors
    /// [`Fault`]; some bytes may have been copied.
    pub fn fill_from(
        &self,
        to: Gpa,
        source: &AddressSpace,
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
