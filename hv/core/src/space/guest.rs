//! Copying between the hypervisor and a guest's memory, across page borders, by the guest's own rights.

use zerocopy::{FromBytes, IntoBytes};

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

    /// Copies `into.len()` bytes in. On a fault, `into` may be half filled and must not be used.
    ///
    /// # Errors
    /// [`Fault`].
    #[inline]
    pub fn copy_in(&self, from: Gpa, into: &mut [u8], memory: &impl MachineMemory) -> Result<(), Fault> {
        let mut at = from;
        let mut rest = into;
        while !rest.is_empty() {
            let (hpa, room) = self.span(at, Use::Read, memory)?;
            let bytes = room.min(rest.len());
            let (now, later) = rest.split_at_mut_checked(bytes).ok_or(Fault)?;
            memory.read(hpa, now);
            rest = later;
            at = Gpa(at.0.checked_add(bytes as u64).ok_or(Fault)?);
        }
        Ok(())
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
        let mut at = to;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (hpa, room) = self.span(at, access, memory)?;
            let (now, later) = rest.split_at_checked(room.min(rest.len())).ok_or(Fault)?;
            memory.write(hpa, now);
            rest = later;
            at = Gpa(at.0.checked_add(now.len() as u64).ok_or(Fault)?);
        }
        Ok(())
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
    pub fn write<T: IntoBytes + zerocopy::Immutable>(
        &self,
        to: Gpa,
        value: &T,
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
        let mut at = to;
        let mut rest = bytes;
        while rest > 0 {
            let (_, room) = self.span(at, Use::Write, memory)?;
            let now = room.min(rest);
            rest = rest.wrapping_sub(now);
            at = Gpa(at.0.checked_add(now as u64).ok_or(Fault)?);
        }
        Ok(())
    }

    /// Copies between two spaces, `bytes` at most a page's worth at a time: the builder's source to the built domain's
    /// private memory.
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
        let mut done = 0u64;
        while done < bytes {
            let at = Gpa(to.0.checked_add(done).ok_or(Fault)?);
            let (into, into_room) = self.span(at, Use::Build, memory)?;
            let source_at = Gpa(from.0.checked_add(done).ok_or(Fault)?);
            let (out_of, out_of_room) = source.span(source_at, Use::Read, memory)?;
            let now = into_room.min(out_of_room).min(usize::try_from(bytes.wrapping_sub(done)).unwrap_or(usize::MAX));
            memory.copy(out_of, into, now);
            done = done.wrapping_add(now as u64);
        }
        Ok(())
    }
}
