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
    check()?;
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
    reserve(&mut vector, count)?;
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
        if check().is_err() || vector.try_reserve_exact(1).is_err() {
            return Err(value);
        }
        vector.push(value);
        Box::<[T; 1]>::try_from(vector).map(Self).map_err(|mut vector| vector.remove(0))
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

/// Called before each allocation of memory or frames.
///
/// # Errors
/// [`OutOfMemory`] when a test asked for it.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn check() -> Result<(), OutOfMemory> {
    Ok(())
}

#[cfg(test)]
pub(crate) use crate::testing::injection::check;
