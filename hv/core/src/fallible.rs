//! The only way to allocate: everything may fail and says so. Under test, any chosen allocation can be made to fail.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

/// There is no memory for this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

/// Makes room for `more` elements.
///
/// # Errors
/// [`OutOfMemory`]; the vector is as before.
pub fn reserve<T>(vector: &mut Vec<T>, more: usize) -> Result<(), OutOfMemory> {
    if vector.capacity().wrapping_sub(vector.len()) >= more {
        return Ok(());
    }
    injection::check()?;
    vector.try_reserve(more).map_err(|_| OutOfMemory)
}

/// Appends an element.
///
/// # Errors
/// [`OutOfMemory`]; the vector is as before.
pub fn push<T>(vector: &mut Vec<T>, value: T) -> Result<(), OutOfMemory> {
    reserve(vector, 1)?;
    vector.push(value);
    Ok(())
}

/// Makes a vector of `count` equal elements.
///
/// # Errors
/// [`OutOfMemory`].
pub fn filled<T: Clone>(count: usize, value: T) -> Result<Vec<T>, OutOfMemory> {
    let mut vector = Vec::new();
    injection::check()?;
    vector.try_reserve_exact(count).map_err(|_| OutOfMemory)?;
    vector.resize(count, value);
    Ok(vector)
}

/// A value on the heap.
///
/// `Box::try_new` is not stable: this is a boxed array of one, made from a vector whose reservation may fail.
#[derive(Debug)]
pub struct Boxed<T>(Box<[T; 1]>);

impl<T> Boxed<T> {
    /// Moves `value` to the heap.
    ///
    /// # Errors
    /// The value, when there is no memory: it may own what must be given back.
    pub fn new(value: T) -> Result<Self, T> {
        let mut vector = Vec::new();
        if injection::check().is_err() || vector.try_reserve_exact(1).is_err() {
            return Err(value);
        }
        vector.push(value);
        match Box::<[T; 1]>::try_from(vector) {
            Ok(boxed) => Ok(Self(boxed)),
            Err(mut vector) => Err(vector.remove(0)),
        }
    }

    /// Moves the value out again.
    pub fn into_inner(self) -> T {
        let [value] = *self.0;
        value
    }
}

impl<T> Deref for Boxed<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        let [value] = &*self.0;
        value
    }
}

impl<T> DerefMut for Boxed<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        let [value] = &mut *self.0;
        value
    }
}

/// The hook that makes allocations fail under test; nothing otherwise.
pub mod injection {
    use super::OutOfMemory;

    /// Called before each allocation of memory or frames.
    ///
    /// # Errors
    /// [`OutOfMemory`] when a test asked for it.
    #[cfg(not(test))]
    #[inline(always)]
    pub fn check() -> Result<(), OutOfMemory> {
        Ok(())
    }

    #[cfg(test)]
    std::thread_local! {
        static COUNTDOWN: core::cell::Cell<Option<u64>> = const { core::cell::Cell::new(None) };
    }

    /// See the other one.
    ///
    /// # Errors
    /// [`OutOfMemory`] when [`fail_after`] has run down.
    #[cfg(test)]
    pub fn check() -> Result<(), OutOfMemory> {
        COUNTDOWN.with(|countdown| match countdown.get() {
            None => Ok(()),
            Some(0) => {
                countdown.set(None);
                Err(OutOfMemory)
            }
            Some(left) => {
                countdown.set(Some(left - 1));
                Ok(())
            }
        })
    }

    /// Lets `allocations` of this thread succeed and the next one fail, once.
    #[cfg(test)]
    pub fn fail_after(allocations: u64) {
        COUNTDOWN.with(|countdown| countdown.set(Some(allocations)));
    }

    /// Whether the failure is still to come.
    #[cfg(test)]
    pub fn armed() -> bool {
        COUNTDOWN.with(|countdown| countdown.get().is_some())
    }

    /// Ends injection; tells whether it had not struck yet.
    #[cfg(test)]
    pub fn disarm() -> bool {
        COUNTDOWN.with(|countdown| countdown.take().is_some())
    }
}
