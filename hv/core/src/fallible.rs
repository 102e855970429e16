//! The only way to allocate: everything may fail and says so. Under test, any chosen allocation can be made to fail.

use alloc::vec::Vec;

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
    // The first room is made to measure: many vectors never grow.
    let reserved = if vector.is_empty() { vector.try_reserve_exact(more) } else { vector.try_reserve(more) };
    reserved.map_err(|_| OutOfMemory)
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

/// Called before each allocation of memory or frames.
///
/// # Errors
/// [`OutOfMemory`] when a test asked for it.
#[cfg(not(test))]
pub(crate) fn check() -> Result<(), OutOfMemory> {
    Ok(())
}

#[cfg(test)]
pub(crate) use crate::testing::injection::check;
